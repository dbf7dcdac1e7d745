//! A descriptor that the daemon's loop waits for.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};

/// A descriptor, watched by tokio for as long as it is open. Nobody can put another one in its place.
#[derive(Debug)]
pub struct Watched(AsyncFd<OwnedFd>);

impl Watched {
    /// Watches a descriptor, which must not block; inside of tokio's runtime.
    ///
    /// # Errors
    ///
    /// What epoll_ctl(2) answered.
    pub fn new(fd: OwnedFd) -> io::Result<Watched> {
        // SAFETY: the descriptor is open and nobody else's, and stays so until the value is dropped, as
        // nothing here gives it away or lends it to be changed.
        let watched = unsafe { AsyncFd::register(fd) };
        Ok(Watched(watched?))
    }

    /// Waits until there is something to read, or the end.
    ///
    /// # Errors
    ///
    /// The runtime ends.
    pub async fn readable(&self) -> io::Result<AsyncFdReadyGuard<'_, OwnedFd>> {
        self.0.readable().await
    }
}

impl AsFd for Watched {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.get_ref().as_fd()
    }
}
