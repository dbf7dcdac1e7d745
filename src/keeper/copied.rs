//! A copy of the keeper that does some work, reports, and ends: nothing of it stays in the keeper's memory.
//!
//! It hears of its keeper's death by a signal, and has the directory's lock until it has ended.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::Result;
use rustix::process::Signal;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::sys::channel::Channel;
use crate::sys::process::{self, CloneRequest, Cloned};

/// A copy at work.
#[derive(Debug)]
pub struct Copied {
    pidfd: OwnedFd,
    talk: Channel,
}

impl Copied {
    /// Starts one, which gets the signal `at_death` when its keeper dies, and reports what `work` returns.
    ///
    /// # Errors
    ///
    /// Out of memory, processes or descriptors.
    pub fn start<T: Serialize>(at_death: Signal, work: impl FnOnce() -> T) -> Result<Copied> {
        let (talk, theirs) = Channel::pair()?;
        let keeper = rustix::process::getpid();
        match process::clone(CloneRequest::default())? {
            Cloned::Parent { pidfd, .. } => Ok(Copied { pidfd, talk }),
            Cloned::Child => {
                drop(talk);
                let bound = rustix::process::set_parent_process_death_signal(Some(at_death));
                if bound.is_err() || rustix::process::getppid() != Some(keeper) {
                    process::exit(1);
                }
                let text = postcard::to_allocvec(&work()).unwrap_or_default();
                // A keeper that is gone has ended us, or will.
                let _keeper_gone = theirs.send(&text);
                process::exit(0)
            }
        }
    }

    /// Where its report arrives.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.talk.as_fd()
    }

    /// What it reports: call it when there is something to read. None from one that was killed.
    pub fn report<T: DeserializeOwned>(&self) -> Option<T> {
        let told = self.talk.receive().ok().flatten();
        told.and_then(|text| postcard::from_bytes(&text).ok())
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        // It may have ended by itself.
        let _ended = rustix::process::pidfd_send_signal(&self.pidfd, signal);
    }
}
