//! A process that stands in a new scope until init is there.
//!
//! systemd makes a scope only around a process that exists, by moving it in. That this is never a
//! container's process is told in docs/decisions/0009.

use std::os::fd::{AsFd, OwnedFd};

use anyhow::Result;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};

use crate::sys::process::{self, CloneRequest, Cloned};

/// The process; ended with this value, or with the runtime, whatever comes first.
#[derive(Debug)]
pub(super) struct Anchor {
    pid: Pid,
    pidfd: OwnedFd,
}

impl Anchor {
    /// Makes it, in the caller's cgroup.
    ///
    /// # Errors
    ///
    /// The kernel makes no process.
    pub(super) fn new() -> Result<Anchor> {
        let parent = rustix::process::getpid();
        match process::clone(CloneRequest::default())? {
            Cloned::Child => stand(parent),
            Cloned::Parent { pid, pidfd } => Ok(Anchor { pid, pidfd }),
        }
    }

    /// Its id. It is not given to another process, as this one is not reaped before.
    pub(super) fn pid(&self) -> Pid {
        self.pid
    }
}

/// Waits to be killed.
fn stand(parent: Pid) -> ! {
    let bound = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    // The parent may have died before.
    if bound.is_err() || rustix::process::getppid() != Some(parent) {
        process::exit(1);
    }
    loop {
        rustix::event::pause();
    }
}

impl Drop for Anchor {
    fn drop(&mut self) {
        // It may be dead already, if somebody stopped the unit.
        let _ended = rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL);
        let id = WaitId::PidFd(self.pidfd.as_fd());
        let _reaped = rustix::process::waitid(id, WaitIdOptions::EXITED);
    }
}
