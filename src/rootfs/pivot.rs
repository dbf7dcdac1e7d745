//! Makes the bundle's root the root of this process.
//!
//! Runs in init, after every mount and the hooks that see the host's files, before masking.
//! Decides nothing: how the root is entered comes from the plan.

use alloc::string::ToString;

use super::{Entry, Prepared};
use crate::sys::mount;
use crate::sys::{Call, SysError};

impl Prepared {
    /// Enters the root; the working directory is the new `/` afterwards.
    ///
    /// # Errors
    ///
    /// `EINVAL` from pivot_root(2) where the host's root is a ramdisk: `--no-pivot` is for that.
    pub fn enter(&self, entry: Entry) -> Result<(), SysError> {
        rustix::process::fchdir(&self.root).call(|| "fchdir(rootfs)".to_string())?;
        match entry {
            Entry::Pivot => mount::pivot_into_working_directory()?,
            Entry::Move | Entry::Chroot => {
                rustix::process::chroot(".").call(|| "chroot(rootfs)".to_string())?;
            }
        }
        rustix::process::chdir("/").call(|| "chdir(\"/\")".to_string())
    }
}
