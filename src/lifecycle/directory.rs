//! The state directory of one container: its files, its lock, its end.
//!
//! Knows names and locks, not what the record says. The lock is `flock` on the directory itself;
//! the kernel drops it with the process that held it, so a dead runtime never blocks a living one.

use std::fs::{self, DirBuilder, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::id::ContainerId;
use super::trail;
use crate::error::Kind;
use crate::sys::attributes::effective_uid;
use crate::sys::{Call, Errno, SysError, SysResult};

/// The record, as JSON.
pub const STATE: &str = "state.json";
/// The record while it is written; renamed to [`STATE`] when complete.
const STATE_NEW: &str = "state.json.new";
/// The stream socket on which init waits for `start`.
pub const START_SOCKET: &str = "start.sock";
/// Locked by init for as long as it has not executed the container's program.
pub const INIT_LOCK: &str = "init.lock";
/// The folder that a container sees whose caller wants to hear of its readiness.
const NOTIFY: &str = "notify";
/// The datagram socket in it.
pub const NOTIFY_SOCKET: &str = "notify.sock";

/// All files a state directory may hold, the record last: until then it says what is left. Nothing
/// else is ever removed, so that a wrong `--root` cannot cost anybody's data.
const FILES: [&str; 5] = [STATE_NEW, START_SOCKET, INIT_LOCK, trail::CGROUP, STATE];

const READ: OFlags = OFlags::RDONLY
    .union(OFlags::CLOEXEC)
    .union(OFlags::NOFOLLOW);
const OWNER_ONLY: Mode = Mode::RUSR.union(Mode::WUSR);

/// The mode of the folder of all state directories: for their owner only, and a user's sticky, by which
/// files in XDG_RUNTIME_DIR are kept from being cleaned up (basedir-spec).
fn root_mode() -> u32 {
    match effective_uid() {
        0 => 0o700,
        _ => 0o1700,
    }
}

/// An open state directory.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    fd: OwnedFd,
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Directory {
    /// Makes the container's directory, and the root above it the first time, for their owner only;
    /// and locks it.
    ///
    /// # Errors
    ///
    /// [`Kind::Exists`] when the id is taken; [`Kind::NotFound`] when somebody has removed it since;
    /// or what the file system answered. Nothing is left then.
    pub fn make(root: &Path, id: &ContainerId) -> Result<Directory> {
        let path = root.join(id.as_str());
        let made = match rustix::fs::mkdir(&path, Mode::RWXU) {
            Err(Errno::NOENT) => {
                let above = DirBuilder::new()
                    .recursive(true)
                    .mode(root_mode())
                    .create(root);
                errno(above).call(|| format!("mkdir({root:?})"))?;
                rustix::fs::mkdir(&path, Mode::RWXU)
            }
            answer => answer,
        };
        match made {
            Err(Errno::EXIST) => return Err(Kind::Exists(id.to_string()).into()),
            other => other.call(|| format!("mkdir({path:?})"))?,
        }
        let locked = Directory::open(root, id).and_then(|directory| {
            directory.lock()?;
            Ok(directory)
        });
        if locked.is_err() {
            // Nobody else will. That it was empty is all that can be said without the lock; the
            // error before is the one to tell.
            let _ = rustix::fs::rmdir(&path);
        }
        locked
    }

    /// Opens the container's directory.
    ///
    /// # Errors
    ///
    /// [`Kind::NotFound`]; or what the file system answered.
    pub fn open(root: &Path, id: &ContainerId) -> Result<Directory> {
        let path = root.join(id.as_str());
        match rustix::fs::open(&path, READ | OFlags::DIRECTORY, Mode::empty()) {
            Ok(fd) => Ok(Directory { path, fd }),
            Err(Errno::NOENT | Errno::NOTDIR) => Err(Kind::NotFound(id.to_string()).into()),
            Err(errno) => Err(SysError::new(format!("open({path:?})"), errno).into()),
        }
    }

    /// Takes the lock, after whoever has it.
    ///
    /// # Errors
    ///
    /// On a file system without locks.
    pub fn lock(&self) -> SysResult<()> {
        loop {
            match rustix::fs::flock(&self.fd, FlockOperation::LockExclusive) {
                Err(Errno::INTR) => {}
                answer => return answer.call(|| format!("flock({:?})", self.path)),
            }
        }
    }

    /// Takes the lock unless somebody has it: then the answer is false.
    ///
    /// # Errors
    ///
    /// On a file system without locks.
    pub fn lock_at_once(&self) -> SysResult<bool> {
        match rustix::fs::flock(&self.fd, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(true),
            Err(Errno::WOULDBLOCK) => Ok(false),
            Err(errno) => Err(SysError::new(format!("flock({:?})", self.path), errno)),
        }
    }

    /// True while this directory has its name: false once it was removed, or removed and made anew.
    ///
    /// # Errors
    ///
    /// What the file system answered.
    pub fn is_named(&self) -> SysResult<bool> {
        let open = rustix::fs::fstat(&self.fd).call(|| format!("fstat({:?})", self.path))?;
        match rustix::fs::statat(CWD, &self.path, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(named) => Ok((open.st_dev, open.st_ino) == (named.st_dev, named.st_ino)),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(SysError::new(format!("stat({:?})", self.path), errno)),
        }
    }

    /// The path of one of the directory's files.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// True when a record was written. Needs no descriptor, so it can not fail for want of one.
    ///
    /// # Errors
    ///
    /// What the file system answered.
    pub fn has_state(&self) -> SysResult<bool> {
        match rustix::fs::statat(&self.fd, STATE, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(SysError::new(self.call_on("stat", STATE), errno)),
        }
    }

    /// The record's text, or `None` when none was written.
    ///
    /// # Errors
    ///
    /// What the file system answered.
    pub fn read_state(&self) -> SysResult<Option<Vec<u8>>> {
        let Some(file) = self.open_file(STATE)? else {
            return Ok(None);
        };
        let mut text = Vec::new();
        errno(File::from(file).read_to_end(&mut text)).call(|| self.call_on("read", STATE))?;
        Ok(Some(text))
    }

    /// Replaces the record in one step. Not synced: after a crash of the machine there is no
    /// container left that a record could speak of.
    ///
    /// # Errors
    ///
    /// What the file system answered; the record before stays then.
    pub fn write_state(&self, text: &[u8]) -> SysResult<()> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = rustix::fs::openat(&self.fd, STATE_NEW, flags, OWNER_ONLY)
            .call(|| self.call_on("open", STATE_NEW))?;
        errno(File::from(file).write_all(text)).call(|| self.call_on("write", STATE_NEW))?;
        rustix::fs::renameat(&self.fd, STATE_NEW, &self.fd, STATE)
            .call(|| self.call_on("rename", STATE_NEW))
    }

    /// Makes the socket at which init waits for `start`, and listens on it.
    ///
    /// Bound by way of the open directory: its path may be longer than a socket's address holds.
    ///
    /// # Errors
    ///
    /// What the kernel answered.
    pub fn listen_for_start(&self) -> SysResult<OwnedFd> {
        let call = || self.call_on("listen", START_SOCKET);
        let (socket, address) = self.start_socket().call(call)?;
        rustix::net::bind(&socket, &address).call(call)?;
        rustix::net::listen(&socket, 1).call(call)?;
        Ok(socket)
    }

    /// Connects to init, which waits at the socket.
    ///
    /// # Errors
    ///
    /// `ECONNREFUSED` when init has ended.
    pub fn connect_to_init(&self) -> SysResult<OwnedFd> {
        let call = || self.call_on("connect", START_SOCKET);
        let (socket, address) = self.start_socket().call(call)?;
        rustix::net::connect(&socket, &address).call(call)?;
        Ok(socket)
    }

    /// The folder for the socket of sd_notify(3), if it was made.
    pub fn notify_folder(&self) -> Option<PathBuf> {
        let found = rustix::fs::statat(&self.fd, NOTIFY, AtFlags::SYMLINK_NOFOLLOW);
        found.is_ok().then(|| self.file(NOTIFY))
    }

    /// Makes the folder for the socket of sd_notify(3), which the container's users may enter.
    ///
    /// # Errors
    ///
    /// What the file system answered.
    pub fn make_notify_folder(&self) -> SysResult<PathBuf> {
        let call = || self.call_on("mkdir", NOTIFY);
        let mode = Mode::from_raw_mode(0o755);
        rustix::fs::mkdirat(&self.fd, NOTIFY, mode).call(call)?;
        rustix::fs::chmodat(&self.fd, NOTIFY, mode, AtFlags::empty()).call(call)?;
        Ok(self.file(NOTIFY))
    }

    /// Makes the socket of sd_notify(3) in its folder, for everybody; None without a folder.
    ///
    /// # Errors
    ///
    /// What the kernel answered.
    pub fn listen_for_notify(&self) -> SysResult<Option<OwnedFd>> {
        let path = format!("{NOTIFY}/{NOTIFY_SOCKET}");
        let call = || self.call_on("bind", &path);
        match rustix::fs::unlinkat(&self.fd, &path, AtFlags::empty()) {
            Ok(()) => {}
            Err(Errno::NOENT) if rustix::fs::statat(&self.fd, NOTIFY, AtFlags::empty()).is_ok() => {
            }
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(SysError::new(call(), errno)),
        }
        let (kind, flags) = (SocketType::DGRAM, SocketFlags::CLOEXEC);
        let socket = rustix::net::socket_with(AddressFamily::UNIX, kind, flags, None).call(call)?;
        let address = format!("/proc/self/fd/{}/{path}", self.fd.as_raw_fd());
        let address = SocketAddrUnix::new(address).call(call)?;
        rustix::net::bind(&socket, &address).call(call)?;
        let everybody = Mode::from_raw_mode(0o777);
        rustix::fs::chmodat(&self.fd, &path, everybody, AtFlags::empty()).call(call)?;
        Ok(Some(socket))
    }

    fn remove_notify_folder(&self) -> SysResult<()> {
        let path = format!("{NOTIFY}/{NOTIFY_SOCKET}");
        for (name, flags) in [
            (path.as_str(), AtFlags::empty()),
            (NOTIFY, AtFlags::REMOVEDIR),
        ] {
            match rustix::fs::unlinkat(&self.fd, name, flags) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(SysError::new(self.call_on("unlink", name), errno)),
            }
        }
        Ok(())
    }

    fn start_socket(&self) -> Result<(OwnedFd, SocketAddrUnix), Errno> {
        let (kind, flags) = (SocketType::STREAM, SocketFlags::CLOEXEC);
        let socket = rustix::net::socket_with(AddressFamily::UNIX, kind, flags, None)?;
        let path = format!("/proc/self/fd/{}/{START_SOCKET}", self.fd.as_raw_fd());
        Ok((socket, SocketAddrUnix::new(path)?))
    }

    /// Makes init's lock and takes it. The descriptor is close-on-exec.
    ///
    /// # Errors
    ///
    /// What the file system answered.
    pub fn lock_for_init(&self) -> SysResult<OwnedFd> {
        let file = rustix::fs::openat(&self.fd, INIT_LOCK, READ | OFlags::CREATE, OWNER_ONLY)
            .call(|| self.call_on("open", INIT_LOCK))?;
        // Waits at most for a query that looks at this very moment.
        rustix::fs::flock(&file, FlockOperation::LockExclusive)
            .call(|| self.call_on("flock", INIT_LOCK))?;
        Ok(file)
    }

    /// True while a process holds init's lock.
    ///
    /// # Errors
    ///
    /// When the lock is there and cannot be asked.
    pub fn is_locked_by_init(&self) -> SysResult<bool> {
        let Some(file) = self.open_file(INIT_LOCK)? else {
            return Ok(false);
        };
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(false),
            Err(Errno::WOULDBLOCK) => Ok(true),
            Err(errno) => Err(SysError::new(self.call_on("flock", INIT_LOCK), errno)),
        }
    }

    /// True when nothing lies here that is not ours.
    ///
    /// # Errors
    ///
    /// What the file system answered.
    pub fn holds_only_our_files(&self) -> Result<bool> {
        let list = || format!("list {}", self.path.display());
        for entry in fs::read_dir(&self.path).with_context(list)? {
            let name = entry.with_context(list)?.file_name();
            if name != NOTIFY && !FILES.iter().any(|ours| name == *ours) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// When the directory last changed.
    ///
    /// # Errors
    ///
    /// What the file system answered.
    pub fn modified(&self) -> SysResult<SystemTime> {
        let stat = rustix::fs::fstat(&self.fd).call(|| format!("fstat({:?})", self.path))?;
        let seconds = u64::try_from(stat.st_mtime).unwrap_or(0);
        Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
    }

    /// Removes our files and the directory: the id is free afterwards.
    ///
    /// # Errors
    ///
    /// What could not be removed; `directory not empty` when something lies there that is not ours.
    pub fn remove(&self) -> SysResult<()> {
        for name in FILES {
            match rustix::fs::unlinkat(&self.fd, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(SysError::new(self.call_on("unlink", name), errno)),
            }
        }
        match rustix::fs::rmdir(&self.path) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::NOTEMPTY) => self.remove_notify_folder()?,
            Err(errno) => return Err(SysError::new(format!("rmdir({:?})", self.path), errno)),
        }
        match rustix::fs::rmdir(&self.path) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(SysError::new(format!("rmdir({:?})", self.path), errno)),
        }
    }

    /// Opens one of the files for reading, if it is there.
    fn open_file(&self, name: &str) -> SysResult<Option<OwnedFd>> {
        match rustix::fs::openat(&self.fd, name, READ, Mode::empty()) {
            Ok(file) => Ok(Some(file)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(SysError::new(self.call_on("open", name), errno)),
        }
    }

    fn call_on(&self, call: &str, name: &str) -> String {
        format!("{call}({:?})", self.file(name))
    }
}

/// What std's error says in the words of the kernel.
fn errno<T>(answer: std::io::Result<T>) -> Result<T, Errno> {
    answer.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}
