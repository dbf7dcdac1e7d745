//! Descriptors that a loop of tokio waits for.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::unix::AsyncFd;

/// Registers a descriptor with the loop of this thread; it is closed when that is dropped.
///
/// # Errors
///
/// What epoll_ctl(2) answers: the descriptor can not be waited for.
pub fn polled(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: `AsyncFd` owns the descriptor from here on, and an `OwnedFd` names the same open one until it is dropped.
    unsafe { AsyncFd::register(fd) }.map_err(Into::into)
}
