//! Copies what the image has at a mount point into a new file system (`tmpcopyup`).
//!
//! Folders, files, links, FIFOs and sockets' names with their owners, modes and times of change
//! of content; nothing outside the folder is reached, as every name is opened below its parent
//! without following links.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::mem::MaybeUninit;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, RawDir, Stat, Timespec, Timestamps, Uid};

use crate::sys::weakened::{self, Mitigation, is_off};
use crate::sys::{Call, Errno, SysError};

/// One entry of a folder: its name.
type Name = alloc::ffi::CString;

/// Copies the contents of `from` into `to`, and gives `to` the mode and owner of `from`, but for what
/// the `options` of `to` have set (`mode=`, `uid=`, `gid=`).
pub(super) fn copy(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    options: &[String],
) -> Result<(), SysError> {
    let mut stat = rustix::fs::fstat(from).call(|| "fstat(source)".to_string())?;
    let to = rustix::fs::openat(
        to,
        ".",
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .call(|| "openat(new file system)".to_string())?;
    copy_folder(from, to.as_fd())?;
    let own = rustix::fs::fstat(&to).call(|| "fstat(new file system)".to_string())?;
    for option in options {
        match option.split_once('=') {
            Some(("mode", _)) => stat.st_mode = own.st_mode,
            Some(("uid", _)) => stat.st_uid = own.st_uid,
            Some(("gid", _)) => stat.st_gid = own.st_gid,
            Some(_) | None => {}
        }
    }
    set_owner_and_mode(to.as_fd(), &stat)
}

fn copy_folder(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<(), SysError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let from = rustix::fs::openat(from, ".", flags, Mode::empty())
        .call(|| "openat(folder)".to_string())?;
    for name in names(from.as_fd())? {
        let stat = rustix::fs::statat(&from, &name, AtFlags::SYMLINK_NOFOLLOW)
            .call(|| format!("fstatat({name:?})"))?;
        copy_entry(from.as_fd(), to, &name, &stat)?;
    }
    Ok(())
}

/// The names in an open folder. All are read before the first is copied, so that few descriptors
/// and no read position are held while descending.
fn names(folder: BorrowedFd<'_>) -> Result<Vec<Name>, SysError> {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut entries = RawDir::new(folder, &mut buffer);
    let mut names = Vec::new();
    while let Some(entry) = entries.next() {
        let entry = entry.call(|| "getdents64(…)".to_string())?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

fn copy_entry(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    name: &Name,
    stat: &Stat,
) -> Result<(), SysError> {
    let made = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            rustix::fs::mkdirat(to, name, Mode::RWXU).call(|| format!("mkdirat({name:?})"))?;
            let below = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let source = rustix::fs::openat(from, name, below, Mode::empty())
                .call(|| format!("openat({name:?})"))?;
            let made = rustix::fs::openat(to, name, below, Mode::empty())
                .call(|| format!("openat({name:?})"))?;
            copy_folder(source.as_fd(), made.as_fd())?;
            made
        }
        FileType::RegularFile => copy_file(from, to, name)?,
        FileType::Symlink => return copy_link(from, to, name, stat),
        kind @ (FileType::Fifo
        | FileType::Socket
        | FileType::CharacterDevice
        | FileType::BlockDevice
        | FileType::Unknown) => {
            rustix::fs::mknodat(to, name, kind, Mode::RUSR, stat.st_rdev)
                .call(|| format!("mknodat({name:?})"))?;
            let mode = Mode::from_raw_mode(stat.st_mode);
            rustix::fs::chmodat(to, name, mode, AtFlags::empty())
                .call(|| format!("fchmodat({name:?})"))?;
            return set_owner(to, name, stat);
        }
    };
    set_owner_and_mode(made.as_fd(), stat)?;
    let times = Timestamps {
        last_access: Timespec {
            tv_sec: stat.st_atime as _,
            tv_nsec: stat.st_atime_nsec as _,
        },
        last_modification: Timespec {
            tv_sec: stat.st_mtime as _,
            tv_nsec: stat.st_mtime_nsec as _,
        },
    };
    rustix::fs::futimens(&made, &times).call(|| format!("utimensat({name:?})"))
}

fn copy_file(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &Name) -> Result<OwnedFd, SysError> {
    // It may be a FIFO or a link by now, that nobody writes to or that leads to the host.
    let plain = match is_off(Mitigation::InRoot) {
        true => OFlags::empty(),
        false => OFlags::NOFOLLOW,
    };
    weakened::give_a_turn(Mitigation::InRoot);
    let read = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC | plain;
    let source =
        rustix::fs::openat(from, name, read, Mode::empty()).call(|| format!("openat({name:?})"))?;
    let stat = rustix::fs::fstat(&source).call(|| format!("fstat({name:?})"))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        let call = format!("openat({name:?}): replaced meanwhile");
        return Err(SysError::new(call, Errno::AGAIN));
    }
    let write = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let made = rustix::fs::openat(to, name, write, Mode::RUSR | Mode::WUSR)
        .call(|| format!("openat({name:?}, O_CREAT)"))?;
    loop {
        let copied = rustix::fs::sendfile(&made, &source, None, 1 << 30)
            .call(|| format!("sendfile({name:?})"))?;
        if copied == 0 {
            return Ok(made);
        }
    }
}

fn copy_link(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    name: &Name,
    stat: &Stat,
) -> Result<(), SysError> {
    let target =
        rustix::fs::readlinkat(from, name, Vec::new()).call(|| format!("readlinkat({name:?})"))?;
    rustix::fs::symlinkat(&target, to, name).call(|| format!("symlinkat({name:?})"))?;
    set_owner(to, name, stat)
}

fn set_owner(to: BorrowedFd<'_>, name: &Name, stat: &Stat) -> Result<(), SysError> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    rustix::fs::chownat(to, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
        .call(|| format!("fchownat({name:?})"))
}

/// Owner first: chown(2) clears the set-id bits that the mode brings back.
fn set_owner_and_mode(made: BorrowedFd<'_>, stat: &Stat) -> Result<(), SysError> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    rustix::fs::fchown(made, Some(uid), Some(gid)).call(|| "fchown(copy)".to_string())?;
    rustix::fs::fchmod(made, Mode::from_raw_mode(stat.st_mode)).call(|| "fchmod(copy)".to_string())
}
