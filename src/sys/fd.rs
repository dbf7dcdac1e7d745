//! Descriptors that cross an `execve`: given away by number, claimed once on the other side.

#![allow(unsafe_code)]

use rustix::fd::{FromRawFd, OwnedFd, RawFd};
use serde::{Deserialize, Serialize};

/// The number of a descriptor that init inherits. Whoever reads the plan claims it once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct InheritedFd(RawFd);

impl InheritedFd {
    /// Takes ownership, in the process that inherited the descriptor.
    ///
    /// Consumes the value; the plan it stands in is taken apart the same way, so no number is
    /// claimed twice.
    #[must_use]
    pub fn claim(self) -> OwnedFd {
        // SAFETY: the runtime left exactly this descriptor open for init and names it once.
        unsafe { OwnedFd::from_raw_fd(self.0) }
    }

    /// The handshake's descriptor, whose number stands on init's command line.
    #[must_use]
    pub fn from_command_line(number: i32) -> Self {
        InheritedFd(number)
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
