//! The pipes of an instance's output: fifos in a folder of its directory.

use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};

use crate::sys::{Call, Errno, SysError, SysResult};

/// The folder of the fifos. It is closed to others, and they are open to all: a program opens /dev/stdout
/// whatever user it has become, and a keeper without privileges one that has become another user's.
pub const FOLDER: &str = "pipes";

/// The folder of a group's logs, a folder for each task below it.
const LOGS: &str = "logs";

/// How much the kernel keeps for a program while its keeper is busy or gone. A user's share of all pipes may
/// be used up (pipe(7)); then it is less.
const PIPE: usize = 1 << 20;

/// One pipe.
#[derive(Debug)]
pub(super) struct Stream {
    pub name: &'static str,
    pub fifo: OwnedFd,
    /// Lines and bytes that were dropped since the last line that was written.
    pub dropped: (u64, u64),
}

impl Stream {
    /// Opens a fifo in the folder, and makes it first if it is not there.
    pub fn open(folder: BorrowedFd<'_>, name: &'static str) -> SysResult<Stream> {
        let call = || format!("open({name:?})");
        let all = Mode::from_raw_mode(0o666);
        match rustix::fs::mkfifoat(folder, name, all) {
            // Whatever the umask is.
            Ok(()) => rustix::fs::chmodat(folder, name, all, AtFlags::empty())
                .call(|| format!("chmod({name:?})"))?,
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(SysError::new(format!("mkfifo({name:?})"), errno)),
        }
        // At both ends: a pipe that nobody else has open is no end, and keeps what is in it.
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let fifo = rustix::fs::openat(folder, name, flags, Mode::empty()).call(call)?;
        let stat = rustix::fs::fstat(&fifo).call(call)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Fifo {
            return Err(SysError::new(
                format!("open({name:?}), no fifo"),
                Errno::EXIST,
            ));
        }
        // Less is only slower.
        let _size = rustix::pipe::fcntl_setpipe_size(&fifo, PIPE);
        Ok(Stream {
            name,
            fifo,
            dropped: (0, 0),
        })
    }
}

/// Where log and pipes of a task are, from the instance's directory: there itself for its only container.
#[must_use]
pub fn place(task: Option<&str>) -> String {
    task.map_or(".".to_owned(), |name| format!("{LOGS}/{name}"))
}

/// Opens the place of a task's log and pipes in an instance's directory, and makes it first if it is not there.
///
/// # Errors
///
/// What the file system answered.
pub fn open_place(directory: BorrowedFd<'_>, task: Option<&str>) -> SysResult<OwnedFd> {
    let place = place(task);
    if task.is_some() {
        let mode = Mode::from_raw_mode(0o755);
        for folder in [LOGS, &place] {
            match rustix::fs::mkdirat(directory, folder, mode) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(SysError::new(format!("mkdir({folder:?})"), errno)),
            }
        }
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(directory, &place, flags, Mode::empty()).call(|| format!("open({place:?})"))
}

/// Opens the folder of the fifos in an instance's directory, and makes it first if it is not there.
pub(super) fn open_folder(directory: BorrowedFd<'_>) -> SysResult<OwnedFd> {
    match rustix::fs::mkdirat(directory, FOLDER, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(SysError::new(format!("mkdir({FOLDER:?})"), errno)),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let call = || format!("open({FOLDER:?})");
    rustix::fs::openat(directory, FOLDER, flags, Mode::empty()).call(call)
}
