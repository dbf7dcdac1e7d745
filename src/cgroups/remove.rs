//! Removes a cgroup and everything below it.
//!
//! A cgroup can be removed as soon as no process is in it. Whoever ends its processes does so
//! before; what is still exiting is waited for by event.

use std::ffi::CString;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use rustix::fs::AtFlags;

use super::{Cgroup, tree};
use crate::sys::{Call, Errno};

/// How long killed processes may take to exit: they may have much memory to give back.
const EXIT_TIMEOUT: Duration = Duration::from_secs(10);

/// How often it is looked again when a process has come into a cgroup that was empty.
const ATTEMPTS: usize = 8;

impl Cgroup {
    /// Removes the cgroup if nothing is in it, neither processes nor children; true when it is gone.
    #[must_use]
    pub fn remove_at_once(&self) -> bool {
        matches!(self.rmdir(), Ok(()) | Err(Errno::NOENT))
    }

    /// Removes the cgroup, after its children. One that is gone already is fine.
    ///
    /// # Errors
    ///
    /// Processes are in it that do not exit within ten seconds.
    pub fn remove(&self) -> Result<()> {
        let mut below = Ok(());
        for _ in 0..ATTEMPTS {
            match self.rmdir() {
                Ok(()) | Err(Errno::NOENT) => return Ok(()),
                // It has children or processes.
                Err(Errno::BUSY | Errno::NOTEMPTY) => {}
                Err(errno) => return self.refused(errno),
            }
            self.wait_empty(EXIT_TIMEOUT)?;
            below = tree::walk(self.fd(), &mut Remove);
            match below {
                // Who clones init outlives a runtime that is killed, and may have done it only now.
                Ok(()) | Err(Errno::BUSY) => {}
                Err(_) => break,
            }
        }
        below.call(|| format!("rmdir({:?})", self.place("*")))?;
        self.refused(Errno::BUSY)
    }

    fn rmdir(&self) -> Result<(), Errno> {
        rustix::fs::rmdir(self.mount_point.join(&self.path))
    }

    fn refused(&self, errno: Errno) -> Result<()> {
        Ok(Err(errno).call(|| format!("rmdir({:?})", self.place("")))?)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if self.made == 0 {
            return;
        }
        // The error that led here is the one to tell; `delete --force` removes what is left.
        if self.rmdir().is_err() {
            let _ = self.kill_all();
            let _ = self.remove();
        }
        let place = self.mount_point.join(&self.path);
        for parent in place.ancestors().skip(1).take(self.made - 1) {
            // Another container may be below it by now.
            let _ = rustix::fs::rmdir(parent);
        }
    }
}

/// Removes directories at every level below.
struct Remove;

impl tree::Visit for Remove {
    fn leave(&mut self, parent: BorrowedFd<'_>, name: &CString) -> Result<(), Errno> {
        match rustix::fs::unlinkat(parent, name.as_c_str(), AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno),
        }
    }
}

/// Removes the last `count` directories of `path`, which a failed creation has made.
pub(super) fn made(root: BorrowedFd<'_>, path: &Path, count: usize) {
    for directory in path.ancestors().take(count) {
        // Another container may be below it by now.
        let _ = rustix::fs::unlinkat(root, directory, AtFlags::REMOVEDIR);
    }
}
