//! The program that runs inside: an independent copy of `parhelion-init`, out of everyone's reach.
//!
//! A container that could open the runtime's own file, or a page of it, could change what runs on
//! the host next (CVE-2019-5736, and page-cache attacks on shared read-only files). So what is
//! executed inside is a fresh copy in memory, sealed against every change.

use anyhow::{Context as _, Result};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags};

use crate::sys::mount::NewFileSystem;
use crate::sys::weakened::{Mitigation, is_off};
use crate::sys::{Call, Errno};

/// The program, built for this target by build.rs.
static PROGRAM: &[u8] = include_bytes!(env!("PARHELION_INIT"));

/// The file of a copy, and what completes it: the process that will execute it does that, beside
/// the runtime.
#[derive(Debug)]
pub(super) struct Copy {
    /// The file.
    pub file: OwnedFd,
    /// Fills and seals it, if that is still to be done. Does not allocate.
    pub complete: fn(BorrowedFd<'_>) -> Result<(), Errno>,
}

/// A copy that can be executed, and never changed once it is complete.
///
/// # Errors
///
/// Out of memory or descriptors.
pub(super) fn copy() -> Result<Copy> {
    if is_off(Mitigation::SealedCopy) {
        return weakened_copy();
    }
    match memory_file() {
        // vm.memfd_noexec=2 forbids executable memory files in this pid namespace.
        Err(Errno::ACCESS) => Ok(Copy {
            file: detached_file().context("copy of init (vm.memfd_noexec is 2)")?,
            complete: |_is_complete| Ok(()),
        }),
        result => Ok(Copy {
            file: result.call(|| "memfd_create(\"parhelion-init\")".to_owned())?,
            complete: fill_and_seal,
        }),
    }
}

/// A file of the host's beside the program, in a build for tests that does without a copy.
fn weakened_copy() -> Result<Copy> {
    let path = std::env::current_exe()?.with_extension("init");
    if !path.exists() {
        std::fs::write(&path, PROGRAM)?;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&path, mode)?;
    }
    Ok(Copy {
        file: std::fs::File::open(&path)?.into(),
        complete: |_is_complete| Ok(()),
    })
}

fn memory_file() -> Result<OwnedFd, Errno> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Linux 6.3 asks for MFD_EXEC, older kernels do not know it.
    match rustix::fs::memfd_create("parhelion-init", flags | MemfdFlags::EXEC) {
        Err(Errno::INVAL) => rustix::fs::memfd_create("parhelion-init", flags),
        result => result,
    }
}

fn fill_and_seal(file: BorrowedFd<'_>) -> Result<(), Errno> {
    write_all(file)?;
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    // Its mode too, which no kernel before Linux 6.3 keeps.
    match rustix::fs::fcntl_add_seals(file, seals | SealFlags::EXEC) {
        Err(Errno::INVAL) => rustix::fs::fcntl_add_seals(file, seals),
        result => result,
    }
}

/// A file in a file system of its own that is mounted nowhere: no path leads to it.
fn detached_file() -> Result<OwnedFd> {
    let mount =
        NewFileSystem::open("tmpfs")?.mount(libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV)?;
    let write = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let open = |flags, mode| rustix::fs::openat(&mount, "parhelion-init", flags, mode);
    let file = open(write, Mode::from_raw_mode(0o555)).call(|| "openat(tmpfs)".to_owned())?;
    write_all(file.as_fd()).call(|| "write(tmpfs)".to_owned())?;
    drop(file); // a file that is open for writing is not executed (ETXTBSY)
    let read = OFlags::RDONLY | OFlags::CLOEXEC;
    Ok(open(read, Mode::empty()).call(|| "openat(tmpfs)".to_owned())?)
}

fn write_all(file: BorrowedFd<'_>) -> Result<(), Errno> {
    let mut rest = PROGRAM;
    while !rest.is_empty() {
        rest = &rest[rustix::io::write(file, rest)?..];
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_copy_can_not_be_changed() {
        let Copy { file, complete } = copy().unwrap();
        complete(file.as_fd()).unwrap();
        assert_eq!(rustix::io::pwrite(&file, b"x", 0), Err(Errno::PERM));
        assert_eq!(rustix::fs::ftruncate(&file, 0), Err(Errno::PERM));
    }

    #[test]
    fn the_copy_without_a_memory_file_holds_the_program() {
        let file = detached_file().unwrap();
        assert_eq!(
            rustix::fs::fstat(&file).unwrap().st_size as usize,
            PROGRAM.len()
        );
    }
}
