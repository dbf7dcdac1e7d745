//! Between the order to clone init and its first sign: it is sent its plan, and its ids are mapped.

use std::rc::Rc;

use anyhow::Result;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::process::{PidfdFlags, Signal, WaitOptions};

use super::handle::Init;
use super::handshake::ToInit;
use super::plan::{Exec, Plan};
use super::spawn::{Seed, read_pid};
use crate::namespaces::IdMaps;
use crate::sys::fd::Inheritance;
use crate::sys::{Call, processors};

/// Init, ordered and not seen yet.
#[derive(Debug)]
pub struct Birth {
    /// Dropped first: what it has told by then is all that it tells.
    pub(super) seed: Seed,
    pub(super) told: Told,
    /// The maps of init's new user namespace.
    pub(super) maps: Option<IdMaps>,
}

impl Birth {
    /// Sends init its plan, and what that names.
    ///
    /// # Errors
    ///
    /// That seed and init are gone, and their last words.
    pub fn send_plan(&self, plan: Plan, inheritance: &Inheritance) -> Result<()> {
        self.seed
            .give_task(&ToInit::Plan(Box::new(plan)), inheritance)
    }

    /// Makes init's network namespace and gives it to init, which is sent its plan before.
    ///
    /// # Errors
    ///
    /// What the kernel answers; as for [`Birth::send_plan`].
    pub fn give_network(&self) -> Result<()> {
        self.seed.give_network()
    }

    /// Sends a process that joins a container its plan, and what that names.
    ///
    /// # Errors
    ///
    /// As for [`Birth::send_plan`].
    pub fn send_exec(&self, plan: Exec, inheritance: &Inheritance) -> Result<()> {
        self.seed
            .give_task(&ToInit::Exec(Box::new(plan)), inheritance)
    }

    /// Readable when init is there, or will not be.
    pub fn told(&self) -> BorrowedFd<'_> {
        self.told.0.as_fd()
    }

    /// Waits for init, which has its plan.
    ///
    /// # Errors
    ///
    /// A namespace that could not be made or joined, a cgroup that takes no process, id maps that
    /// the kernel does not accept.
    pub fn init(self) -> Result<Init> {
        let waits = self.maps.is_some();
        let init = self.without_plan()?;
        if waits {
            init.say(&ToInit::Mapped)?;
        }
        Ok(init)
    }

    /// Waits for init, which has no plan yet: for one that takes its namespaces to be made. Its ids are
    /// mapped, which it is told by [`Init::send_plan`].
    ///
    /// # Errors
    ///
    /// As for [`Birth::init`].
    pub fn without_plan(self) -> Result<Init> {
        let Some(pid) = read_pid(&self.told.0)? else {
            return Err(self.seed.said_last());
        };
        // It ends when the pipe is closed, and not at init's expense.
        processors::bring_here(Some(self.seed.pid()));
        drop(self.told);
        // Our own child since the clone, so the number can not be another process' yet.
        let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty())
            .call(|| format!("pidfd_open({})", pid.as_raw_nonzero()))?;
        let init = Init {
            pid,
            pidfd: Rc::new(pidfd),
            seed: self.seed,
            ours: true,
        };
        if let Some(maps) = self.maps {
            maps.write(init.pid)?;
        }
        Ok(init)
    }
}

/// Where init's process id is told. Who is told there and was not heard is killed, and waited for:
/// until then the pid namespace that it joined does not end, nor does the container.
#[derive(Debug)]
pub(super) struct Told(pub(super) OwnedFd);

impl Drop for Told {
    fn drop(&mut self) {
        let mut fds = [PollFd::new(&self.0, PollFlags::IN)];
        if !matches!(poll(&mut fds, Some(&Timespec::default())), Ok(1)) {
            return; // it was heard
        }
        if let Ok(Some(pid)) = read_pid(&self.0) {
            // A child that was not waited for: the number is its own, and it may have ended by itself.
            let _ended = rustix::process::kill_process(pid, Signal::KILL);
            let _reaped = rustix::process::waitpid(Some(pid), WaitOptions::empty());
        }
    }
}
