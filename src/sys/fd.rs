//! Descriptors that init is given: sent over a socket, named by their place, claimed once.

#![allow(unsafe_code)]

use alloc::format;
use alloc::vec::Vec;

use rustix::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use super::raw::syscall;
use super::{Call, Errno, SysError, SysResult};

/// Stands in the plan for a descriptor: its place among those that init inherits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct InheritedFd(u32);

/// What init inherits, in init.
#[derive(Debug)]
pub struct Inherited(Vec<Option<OwnedFd>>);

impl Inherited {
    /// What has arrived, in the order in which it was given.
    #[must_use]
    pub fn of(received: Vec<OwnedFd>) -> Inherited {
        Inherited(received.into_iter().map(Some).collect())
    }

    /// Takes one out.
    ///
    /// # Errors
    ///
    /// `EBADF` when it was claimed before or never sent.
    pub fn claim(&mut self, fd: InheritedFd) -> SysResult<OwnedFd> {
        let total = self.0.len();
        let place = self.0.get_mut(fd.0 as usize).and_then(Option::take);
        place.ok_or_else(|| {
            let call = format!("inherited descriptor {} of {total}", fd.0);
            SysError::new(call, Errno::BADF)
        })
    }
}

/// What init will inherit, kept open here until it is sent.
#[cfg(feature = "runtime")]
#[derive(Debug, Default)]
pub struct Inheritance(Vec<OwnedFd>);

#[cfg(feature = "runtime")]
impl Inheritance {
    /// Leaves `fd` to init and returns what the plan names it by.
    pub fn give(&mut self, fd: OwnedFd) -> InheritedFd {
        let place = self.0.len() as u32;
        self.0.push(fd);
        InheritedFd(place)
    }

    /// What a copy of this process inherits without their being sent.
    #[must_use]
    pub fn into_inherited(self) -> Inherited {
        Inherited::of(self.0)
    }

    /// All of them, in order.
    #[must_use]
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

/// Opens for use what is open as a place only (`O_PATH`), and was looked at: whoever opens a device or a FIFO before may set
/// something off. `proc` is a procfs that shows this process.
///
/// # Errors
///
/// What openat(2) answers for the file itself.
pub fn reopen(proc: BorrowedFd<'_>, place: BorrowedFd<'_>, flags: OFlags) -> SysResult<OwnedFd> {
    let path = format!("self/fd/{}", place.as_raw_fd());
    rustix::fs::openat(proc, &path, flags | OFlags::CLOEXEC, Mode::empty())
        .call(|| format!("openat(\"/proc/{path}\")"))
}

/// The descriptor whose number stands on this process' command line.
///
/// # Errors
///
/// `EBADF` when it is not open or is a standard stream: somebody else started this program.
pub fn from_command_line(number: RawFd) -> SysResult<OwnedFd> {
    let args = [number as usize, libc::F_GETFD as usize, 0, 0, 0, 0];
    // SAFETY: F_GETFD takes no pointer and changes nothing.
    let open = unsafe { syscall(libc::SYS_fcntl, args) };
    let ours = if number > 2 { open } else { Err(Errno::BADF) };
    ours.call(|| format!("fcntl({number}, F_GETFD)"))?;
    // SAFETY: open, as just asked; the command line is read once, and nobody else knows the number.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_is_claimed_once() {
        let mut inheritance = Inheritance::default();
        let (one, other) = rustix::pipe::pipe().unwrap();
        let (first, second) = (inheritance.give(one), inheritance.give(other));
        let mut inherited = Inherited::of(inheritance.0);
        assert!(inherited.claim(second).is_ok());
        assert!(inherited.claim(first).is_ok());
        let error = inherited.claim(second).unwrap_err();
        let text = "inherited descriptor 1 of 2: bad file descriptor";
        assert_eq!(error.to_string(), text);
    }
}
