//! Descriptors that cross an `execve`: given away by number, claimed once on the other side.

#![allow(unsafe_code)]

use alloc::format;

use rustix::fd::{FromRawFd, OwnedFd, RawFd};
use serde::{Deserialize, Serialize};

use super::raw::syscall;
use super::{Call, Errno, SysResult};

/// The number of a descriptor that init inherits. Whoever reads the plan claims it once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct InheritedFd(RawFd);

impl InheritedFd {
    /// Takes ownership, in the process that inherited the descriptor.
    ///
    /// Each field of the plan is claimed in one place of init's recipe, and that runs once.
    #[must_use]
    pub fn claim(self) -> OwnedFd {
        // SAFETY: open, because `Inheritance` kept it so until the execve, or as checked by
        // `from_command_line`; its only owner, because the runtime gives each descriptor one field
        // of the plan, and each field is claimed once.
        unsafe { OwnedFd::from_raw_fd(self.0) }
    }

    /// The handshake's descriptor, whose number stands on init's command line.
    ///
    /// # Errors
    ///
    /// `EBADF` when it is not open or is a standard stream: somebody else started init.
    pub fn from_command_line(number: i32) -> SysResult<Self> {
        let args = [number as usize, libc::F_GETFD as usize, 0, 0, 0, 0];
        // SAFETY: F_GETFD takes no pointer and changes nothing.
        let open = unsafe { syscall(libc::SYS_fcntl, args) };
        let ours = if number > 2 { open } else { Err(Errno::BADF) };
        ours.call(|| format!("fcntl({number}, F_GETFD)"))?;
        Ok(InheritedFd(number))
    }
}

/// What init will inherit: kept open here until the clone has been made.
#[cfg(feature = "runtime")]
#[derive(Debug, Default)]
pub struct Inheritance(Vec<OwnedFd>);

#[cfg(feature = "runtime")]
impl Inheritance {
    /// Leaves `fd` to init and returns the number by which the plan names it.
    pub fn give(&mut self, fd: OwnedFd) -> InheritedFd {
        let number = rustix::fd::AsRawFd::as_raw_fd(&fd);
        self.0.push(fd);
        InheritedFd(number)
    }

    /// The descriptors that must stay open across init's `execve`.
    pub fn descriptors(&self) -> &[OwnedFd] {
        &self.0
    }
}

#[cfg(feature = "runtime")]
impl std::fmt::Display for InheritedFd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "fd {}", self.0)
    }
}
