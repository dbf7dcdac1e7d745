//! The kernel's door: every system call that std, nix or rustix do not already offer safely.
//!
//! The only home of `unsafe`. What is here knows nothing of containers: it takes descriptors and
//! plain values and returns [`SysError`], which prints the call with its arguments, so that a
//! failure can be understood without a debugger. Files used by `parhelion-init` compile without
//! std; the others are marked with the feature `runtime`.

use alloc::string::String;
use core::fmt;

pub use rustix::io::Errno;

#[cfg(feature = "freestanding")]
mod freestanding;
mod raw;

pub mod attributes;
pub mod bitmap;
#[cfg(feature = "runtime")]
pub mod bpf;
pub mod channel;
#[cfg(feature = "runtime")]
pub mod command;
pub mod confined;
#[cfg(feature = "runtime")]
pub mod exit_info;
pub mod fd;
pub mod landlock;
#[cfg(feature = "runtime")]
pub mod lock;
pub mod loopback;
pub mod mount;
#[cfg(feature = "runtime")]
pub mod netlink;
#[cfg(feature = "supervisor")]
pub mod polled;
pub mod process;
pub mod processors;
#[cfg(feature = "runtime")]
pub mod rights;
pub mod seccomp;
pub mod signals;
pub mod spawn;
#[cfg(feature = "supervisor")]
pub mod watched;
pub mod weakened;

#[cfg(all(test, feature = "supervisor", target_arch = "x86_64"))]
pub(crate) use raw::probe;

/// A system call that failed: the call as `strace` would print it, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SysError {
    /// The call with its arguments, as `openat2("/srv/web", "dev/pts", O_PATH)`.
    pub call: String,
    /// What the kernel answered.
    pub errno: Errno,
}

/// The result of a system call.
pub type SysResult<T> = core::result::Result<T, SysError>;

impl SysError {
    /// An error of `call`, which the kernel answered with `errno`.
    pub fn new(call: impl Into<String>, errno: Errno) -> Self {
        let call = call.into();
        SysError { call, errno }
    }
}

/// Adds the call's text to a bare errno; the text is made only when the call failed.
pub trait Call<T> {
    /// Turns an errno into a [`SysError`] that names the call.
    ///
    /// # Errors
    ///
    /// The errno, with the call's text.
    fn call(self, text: impl FnOnce() -> String) -> SysResult<T>;
}

impl<T> Call<T> for Result<T, Errno> {
    fn call(self, text: impl FnOnce() -> String) -> SysResult<T> {
        self.map_err(|errno| SysError::new(text(), errno))
    }
}

impl fmt::Display for SysError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.call, ErrnoText(self.errno))
    }
}

impl core::error::Error for SysError {}

/// An errno in words, lower case, as people know them from their shell.
struct ErrnoText(Errno);

impl fmt::Display for ErrnoText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = ERRNO_TEXTS.iter().find(|(errno, _)| *errno == self.0);
        match known {
            Some((_, text)) => f.write_str(text),
            None => write!(f, "errno {}", self.0.raw_os_error()),
        }
    }
}

/// The texts of errno(3) for what the calls made here can answer.
const ERRNO_TEXTS: &[(Errno, &str)] = &[
    (Errno::PERM, "operation not permitted"),
    (Errno::NOENT, "no such file or directory"),
    (Errno::SRCH, "no such process"),
    (Errno::INTR, "interrupted system call"),
    (Errno::IO, "input/output error"),
    (Errno::NXIO, "no such device or address"),
    (Errno::TOOBIG, "argument list too long"),
    (Errno::NOEXEC, "exec format error"),
    (Errno::BADF, "bad file descriptor"),
    (Errno::CHILD, "no child processes"),
    (Errno::AGAIN, "resource temporarily unavailable"),
    (Errno::NOMEM, "cannot allocate memory"),
    (Errno::ACCESS, "permission denied"),
    (Errno::FAULT, "bad address"),
    (Errno::BUSY, "device or resource busy"),
    (Errno::EXIST, "file exists"),
    (Errno::XDEV, "invalid cross-device link"),
    (Errno::NODEV, "no such device"),
    (Errno::NOTDIR, "not a directory"),
    (Errno::ISDIR, "is a directory"),
    (Errno::INVAL, "invalid argument"),
    (Errno::NFILE, "too many open files in system"),
    (Errno::MFILE, "too many open files"),
    (Errno::NOTTY, "inappropriate ioctl for device"),
    (Errno::TXTBSY, "text file busy"),
    (Errno::FBIG, "file too large"),
    (Errno::NOSPC, "no space left on device"),
    (Errno::ROFS, "read-only file system"),
    (Errno::MLINK, "too many links"),
    (Errno::PIPE, "broken pipe"),
    (Errno::RANGE, "numerical result out of range"),
    (Errno::NAMETOOLONG, "file name too long"),
    (Errno::NOSYS, "function not implemented"),
    (Errno::NOTEMPTY, "directory not empty"),
    (Errno::LOOP, "too many levels of symbolic links"),
    (Errno::OVERFLOW, "value too large for defined data type"),
    (Errno::USERS, "too many users"),
    (Errno::NODATA, "no data available"),
    (Errno::MSGSIZE, "message too long"),
    (Errno::OPNOTSUPP, "operation not supported"),
    (Errno::NOBUFS, "no buffer space available"),
    (Errno::CONNREFUSED, "connection refused"),
    (Errno::CONNRESET, "connection reset by peer"),
    (Errno::TIMEDOUT, "connection timed out"),
    (Errno::STALE, "stale file handle"),
    (Errno::DQUOT, "disk quota exceeded"),
    (Errno::NOKEY, "required key not available"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_the_words_of_the_c_library() {
        for (errno, text) in ERRNO_TEXTS {
            let theirs = std::io::Error::from_raw_os_error(errno.raw_os_error()).to_string();
            let theirs = theirs.split(" (os error").next().unwrap();
            assert!(theirs.eq_ignore_ascii_case(text), "{theirs:?}, {text:?}");
        }
    }
}
