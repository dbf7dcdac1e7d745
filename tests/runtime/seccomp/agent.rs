//! An agent that decides on calls for a container: seccomp_unotify(2). The only unsafe code of the
//! tests, as no crate here has these two ioctls.

#![expect(unsafe_code, reason = "ioctls of a seccomp listener")]

use std::os::fd::{AsRawFd, OwnedFd};

use crate::caller::wait_readable;

/// `struct seccomp_notif`.
#[repr(C)]
#[derive(Debug, Default, Clone, Copy)]
pub struct Notification {
    id: u64,
    pub pid: u32,
    flags: u32,
    pub number: i32,
    arch: u32,
    instruction_pointer: u64,
    pub args: [u64; 6],
}

/// `struct seccomp_notif_resp`.
#[repr(C)]
struct Response {
    id: u64,
    value: i64,
    error: i32,
    flags: u32,
}

nix::ioctl_readwrite!(receive, b'!', 0, Notification);
nix::ioctl_readwrite!(send, b'!', 1, Response);

/// What the agent decides.
#[derive(Debug, Clone, Copy)]
pub enum Decision {
    /// The call answers this number.
    Value(i64),
    /// The call fails.
    Errno(i32),
    /// The call is made.
    Continue,
}

/// The next call that somebody waits with.
pub fn next(listener: &OwnedFd) -> Notification {
    wait_readable(listener);
    let mut notification = Notification::default();
    // SAFETY: the structure is the kernel's, all zero as it asks, and outlives the call.
    unsafe { receive(listener.as_raw_fd(), &mut notification) }.unwrap();
    notification
}

/// Decides on it.
pub fn decide(listener: &OwnedFd, call: &Notification, decision: Decision) {
    const SECCOMP_USER_NOTIF_FLAG_CONTINUE: u32 = 1;
    let (value, error, flags) = match decision {
        Decision::Value(value) => (value, 0, 0),
        Decision::Errno(errno) => (0, -errno, 0),
        Decision::Continue => (0, 0, SECCOMP_USER_NOTIF_FLAG_CONTINUE),
    };
    let mut response = Response {
        id: call.id,
        value,
        error,
        flags,
    };
    // SAFETY: the structure is the kernel's, and outlives the call, which reads it.
    unsafe { send(listener.as_raw_fd(), &mut response) }.unwrap();
}
