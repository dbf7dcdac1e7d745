//! Where a store is: a directory with one file in it. Everything that reaches the disk goes through
//! [`Medium`] and [`File`], so that tests can stand in for a disk that fails or loses power.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::super::error::{Error, Result};
use crate::sys::{Call, SysResult};

/// A directory in which a store is, or is about to be.
pub trait Medium: Send + Sync {
    /// The path, for messages.
    fn path(&self) -> &Path;

    /// True from the making of the directory until [`publish`](Self::publish).
    fn is_new(&self) -> bool;

    /// A whole file; None when it is not there.
    ///
    /// # Errors
    ///
    /// What the file system answered; so for all of these.
    #[allow(clippy::missing_errors_doc, reason = "said above")]
    fn read(&self, name: &str) -> SysResult<Option<Vec<u8>>>;

    /// An empty file, also where there was one.
    #[allow(clippy::missing_errors_doc, reason = "said above")]
    fn create(&self, name: &str) -> SysResult<Box<dyn File>>;

    /// Gives a file another's name.
    #[allow(clippy::missing_errors_doc, reason = "said above")]
    fn rename(&self, from: &str, to: &str) -> SysResult<()>;

    /// Removes a file.
    #[allow(clippy::missing_errors_doc, reason = "said above")]
    fn remove(&self, name: &str) -> SysResult<()>;

    /// Makes the names of the files safe.
    #[allow(clippy::missing_errors_doc, reason = "said above")]
    fn sync(&self) -> SysResult<()>;

    /// Gives a new directory its name, safely.
    #[allow(clippy::missing_errors_doc, reason = "said above")]
    fn publish(&mut self) -> SysResult<()>;
}

/// A file that is written.
pub trait File: Send {
    /// Writes all bytes at an offset. After an error some of them may be there.
    #[allow(clippy::missing_errors_doc, reason = "said above")]
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> SysResult<()>;

    /// Cuts the file off.
    #[allow(clippy::missing_errors_doc, reason = "said above")]
    fn truncate(&mut self, length: u64) -> SysResult<()>;

    /// Makes content and length safe.
    #[allow(clippy::missing_errors_doc, reason = "said above")]
    fn sync(&mut self) -> SysResult<()>;
}

/// A real directory, for its owner only, locked (flock(2)) while it is open.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    fd: OwnedFd,
    /// The name that it has until it has a whole store.
    unpublished: Option<PathBuf>,
}

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);

impl Directory {
    /// Opens and locks a directory. Where there is none, one is made beside, with `.new` after its
    /// name, until [`publish`](Medium::publish): a directory of this name has a whole store.
    ///
    /// # Errors
    ///
    /// [`Error::Locked`]; or what the file system answered.
    pub fn open(path: &Path) -> Result<Directory> {
        let mut new = path.as_os_str().to_owned();
        new.push(".new");
        let new = PathBuf::from(new);
        // Again when it got its name, or went, between two of these calls.
        loop {
            if let Some(fd) = Directory::find(path)?
                && let Some(found) = Directory::lock(fd, path, path, None)?
            {
                return Ok(found);
            }
            match rustix::fs::mkdir(&new, Mode::RWXU) {
                Err(Errno::EXIST) => {} // somebody was interrupted, or is at it: the lock tells
                other => other
                    .call(|| format!("mkdir({new:?})"))
                    .map_err(Error::Open)?,
            }
            if let Some(fd) = Directory::find(&new)?
                && let Some(made) = Directory::lock(fd, &new, path, Some(new.clone()))?
            {
                return Ok(made);
            }
        }
    }

    fn find(at: &Path) -> Result<Option<OwnedFd>> {
        match rustix::fs::openat(CWD, at, DIRECTORY, Mode::empty()) {
            Err(Errno::NOENT) => Ok(None),
            other => other
                .call(|| format!("open({at:?})"))
                .map_err(Error::Open)
                .map(Some),
        }
    }

    /// Locks what was found at a path; None when it is no longer there.
    fn lock(
        fd: OwnedFd,
        at: &Path,
        path: &Path,
        unpublished: Option<PathBuf>,
    ) -> Result<Option<Directory>> {
        match rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => {
                return Err(Error::Locked {
                    directory: path.to_owned(),
                });
            }
            other => other
                .call(|| format!("flock({at:?})"))
                .map_err(Error::Open)?,
        }
        let directory = Directory {
            path: path.to_owned(),
            fd,
            unpublished,
        };
        let is_there = directory.is_at(at).map_err(Error::Open)?;
        Ok(is_there.then_some(directory))
    }

    /// Whether it is what a path names.
    fn is_at(&self, at: &Path) -> SysResult<bool> {
        let open = rustix::fs::fstat(&self.fd).call(|| format!("fstat({at:?})"))?;
        match rustix::fs::stat(at) {
            Err(Errno::NOENT) => Ok(false),
            other => {
                let named = other.call(|| format!("stat({at:?})"))?;
                Ok((open.st_dev, open.st_ino) == (named.st_dev, named.st_ino))
            }
        }
    }

    /// How a file of it is called in messages.
    fn file(&self, name: &str) -> PathBuf {
        let directory = self.unpublished.as_ref().unwrap_or(&self.path);
        directory.join(name)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // A process that another thread is just starting has the descriptor too, up to its execve, and
        // would hold the lock. When this fails, the close does it a little later.
        let _ = rustix::fs::flock(&self.fd, FlockOperation::Unlock);
    }
}

impl Medium for Directory {
    fn path(&self) -> &Path {
        &self.path
    }

    fn is_new(&self) -> bool {
        self.unpublished.is_some()
    }

    fn read(&self, name: &str) -> SysResult<Option<Vec<u8>>> {
        let path = self.file(name);
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let fd = match rustix::fs::openat(&self.fd, name, flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(None),
            other => other.call(|| format!("open({path:?})"))?,
        };
        let size = rustix::fs::fstat(&fd).call(|| format!("fstat({path:?})"))?;
        let mut bytes = Vec::with_capacity(usize::try_from(size.st_size).unwrap_or(0) + 1);
        loop {
            bytes.reserve(1);
            let space = rustix::buffer::spare_capacity(&mut bytes);
            if rustix::io::read(&fd, space).call(|| format!("read({path:?})"))? == 0 {
                return Ok(Some(bytes));
            }
        }
    }

    fn create(&self, name: &str) -> SysResult<Box<dyn File>> {
        let path = self.file(name);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC;
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let fd = rustix::fs::openat(&self.fd, name, flags, Mode::RUSR | Mode::WUSR)
            .call(|| format!("open({path:?}, O_CREAT)"))?;
        // As its directory is called when it is written later.
        let path = self.path.join(name);
        Ok(Box::new(OpenFile { path, fd }))
    }

    fn rename(&self, from: &str, to: &str) -> SysResult<()> {
        rustix::fs::renameat(&self.fd, from, &self.fd, to)
            .call(|| format!("rename({:?}, {to:?})", self.file(from)))
    }

    fn remove(&self, name: &str) -> SysResult<()> {
        rustix::fs::unlinkat(&self.fd, name, AtFlags::empty())
            .call(|| format!("unlink({:?})", self.file(name)))
    }

    fn sync(&self) -> SysResult<()> {
        rustix::fs::fsync(&self.fd).call(|| format!("fsync({:?})", self.file("")))
    }

    fn publish(&mut self) -> SysResult<()> {
        let Some(new) = &self.unpublished else {
            return Ok(());
        };
        rustix::fs::rename(new, &self.path).call(|| format!("rename({new:?}, {:?})", self.path))?;
        self.unpublished = None;
        let above = match self.path.parent() {
            Some(above) if !above.as_os_str().is_empty() => above,
            _ => Path::new("."),
        };
        let fd = rustix::fs::openat(CWD, above, DIRECTORY, Mode::empty());
        fd.and_then(rustix::fs::fsync)
            .call(|| format!("fsync({above:?})"))
    }
}

/// A file of a real directory.
struct OpenFile {
    /// Its name when it was made; it may have been renamed since.
    path: PathBuf,
    fd: OwnedFd,
}

impl File for OpenFile {
    fn write_at(&mut self, mut bytes: &[u8], mut offset: u64) -> SysResult<()> {
        while !bytes.is_empty() {
            let written = match rustix::io::pwrite(&self.fd, bytes, offset) {
                Err(Errno::INTR) => continue,
                other => other.call(|| format!("pwrite({:?}, {offset})", self.path))?,
            };
            bytes = &bytes[written..];
            offset += written as u64;
        }
        Ok(())
    }

    fn truncate(&mut self, length: u64) -> SysResult<()> {
        rustix::fs::ftruncate(&self.fd, length)
            .call(|| format!("ftruncate({:?}, {length})", self.path))
    }

    fn sync(&mut self) -> SysResult<()> {
        rustix::fs::fdatasync(&self.fd).call(|| format!("fdatasync({:?})", self.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Taken for a new one, it would be overwritten.
    #[test]
    fn a_store_that_was_published_before_the_lock_is_not_the_new_one_that_was_found() {
        let name = format!("parhelion-published-{}", std::process::id());
        let place = std::env::temp_dir().join(name);
        let mut other = Directory::open(&place).unwrap();
        let new = other.unpublished.clone().unwrap();
        let found = Directory::find(&new).unwrap().unwrap();
        other.publish().unwrap();
        drop(other);
        let late = Directory::lock(found, &new, &place, Some(new.clone())).unwrap();
        assert!(late.is_none(), "{late:?}");
        assert!(!Directory::open(&place).unwrap().is_new());
        std::fs::remove_dir_all(&place).unwrap();
    }

    #[test]
    fn a_closed_store_is_free_also_while_a_child_has_its_descriptor() {
        let name = format!("parhelion-medium-{}", std::process::id());
        let place = std::env::temp_dir().join(name);
        let mut held = Directory::open(&place).unwrap();
        held.publish().unwrap();
        let child = held.fd.try_clone().unwrap();
        assert!(matches!(Directory::open(&place), Err(Error::Locked { .. })));
        drop(held);
        Directory::open(&place).unwrap();
        drop(child);
        std::fs::remove_dir_all(&place).unwrap();
    }
}
