//! Makes the bundle's root the root of this process.
//!
//! Runs in init, after every mount and the hooks that see the host's files, before masking.
//! Decides nothing: how the root is entered comes from the plan.

use alloc::format;
use alloc::string::ToString;

use rustix::fd::AsFd;
use rustix::fs::{Mode, OFlags};

use super::{Entry, OpenTree, Plan, Prepared, finish};
use crate::sys::mount;
use crate::sys::{Call, Errno, SysError};

impl Prepared {
    /// Enters the root; the working directory is the new `/` afterwards.
    ///
    /// # Errors
    ///
    /// `EINVAL` from pivot_root(2) where the host's root is a ramdisk: `--no-pivot` is for that.
    pub fn enter(&self, plan: &Plan<OpenTree>) -> Result<(), SysError> {
        for path in &plan.hidden {
            hide(path)?;
        }
        rustix::process::fchdir(&self.root).call(|| "fchdir(rootfs)".to_string())?;
        match plan.entry {
            Entry::Pivot => mount::pivot_into_working_directory()?,
            Entry::Move | Entry::Cover | Entry::Chroot => {
                rustix::process::chroot(".").call(|| "chroot(rootfs)".to_string())?;
            }
        }
        rustix::process::chdir("/").call(|| "chdir(\"/\")".to_string())
    }
}

/// Takes the mount at `path` out of this mount namespace, and of no other; covers it where the user
/// namespace does not allow that.
fn hide(path: &str) -> Result<(), SysError> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let place = match rustix::fs::open(path, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()), // gone with one above it
        opened => opened.call(|| format!("open(\"{path}\")"))?,
    };
    mount::set_propagation(place.as_fd(), libc::MS_SLAVE, true)?;
    match mount::detach(path) {
        Err(error) if error.errno == Errno::INVAL || error.errno == Errno::PERM => {
            mount::attach(finish::empty_directory(None)?.as_fd(), place.as_fd())
        }
        detached => detached,
    }
}
