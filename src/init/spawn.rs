//! Starts the seed and has it clone the container's first process.
//!
//! The seed is started before anything is known of the container, and copies and executes the sealed
//! program beside the runtime, which reads and plans meanwhile. Then it is told what to enter, and
//! what to clone: one clone3(2) puts init into its cgroup and makes what namespaces are left.

use std::ffi::CString;

use anyhow::{Context as _, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use rustix::pipe::PipeFlags;
use rustix::process::{Pid, Signal, WaitOptions};

use super::birth::{Birth, Told};
use super::handle::{Killed, failure};
use super::handshake::{self, Cloning, Entering, Joined, ToInit, ToSeed};
use super::sealed;
use super::settings::Affinity;
use crate::namespaces::{self, Kind};
use crate::sys::Call;
use crate::sys::channel::Channel;
use crate::sys::fd::Inheritance;
use crate::sys::spawn::{self, ChildMemory, Orders};

/// The process that init will be cloned from; killed when this value is dropped before.
#[derive(Debug)]
pub struct Seed {
    /// Its process id: a child's, and so nobody else's until it is waited for.
    pid: Pid,
    pub(super) talk: Channel,
    /// What its OOM score is to be adjusted by before it enters anything.
    oom_score_adj: Option<i32>,
    /// Whether the process that it clones stays on its processors.
    stays_bound: bool,
    /// It was waited for.
    is_gone: bool,
    /// What the process uses until its execve, which is over when it answers.
    _memory: ChildMemory,
}

impl Seed {
    /// Starts it. The container's program will get the `preserved` descriptors after standard error.
    ///
    /// # Errors
    ///
    /// Out of memory, processes or descriptors.
    pub fn start(preserved: u32) -> Result<Seed> {
        let program = sealed::copy()?;
        let (talk, theirs) = Channel::pair()?;
        let mut keep: Vec<RawFd> = (3..).take(preserved as usize).collect();
        keep.push(theirs.as_fd().as_raw_fd());
        let args = [
            CString::from(c"parhelion-init"),
            CString::new(theirs.as_fd().as_raw_fd().to_string())?,
            #[cfg(feature = "weakened")]
            crate::sys::weakened::argument().unwrap_or_default(),
        ];
        let (pid, memory) = spawn::spawn(&Orders {
            close: talk.as_fd(),
            program: program.file.as_fd(),
            complete: program.complete,
            keep: &keep,
            args: &args,
            talk: theirs.as_fd(),
            failure: handshake::not_executed,
        })?;
        Ok(Seed {
            pid,
            talk,
            oom_score_adj: None,
            stays_bound: false,
            is_gone: false,
            _memory: memory,
        })
    }

    /// Its process id.
    pub(super) fn pid(&self) -> Pid {
        self.pid
    }

    /// Binds it, and the process that it clones, to processors.
    ///
    /// # Errors
    ///
    /// `EINVAL` when none of the processors is there; the field is named.
    pub fn begin_on(&mut self, affinity: &Affinity) -> Result<()> {
        self.stays_bound = affinity.is_given();
        affinity.begin(self.pid)
    }

    /// Has it adjust its OOM score, and so that of init, before it enters anything: for a runtime that can
    /// not do so from outside, as init does not let itself be looked into.
    pub fn adjust_oom_score(&mut self, adjustment: Option<i32>) {
        self.oom_score_adj = adjustment;
    }

    /// Has it enter the container's namespaces, as far as that comes before the clone.
    ///
    /// # Errors
    ///
    /// A namespace that can not be opened; that the seed is gone.
    pub fn enter(&self, namespaces: &namespaces::Plan) -> Result<()> {
        if namespaces.settles_first() {
            return Ok(()); // when there is a cgroup to settle in
        }
        self.order_to_enter(namespaces)
    }

    fn order_to_enter(&self, namespaces: &namespaces::Plan) -> Result<()> {
        let joined = namespaces.open()?;
        let name = |(kind, _): &(Kind, OwnedFd)| Joined {
            flag: kind.flag(),
            name: kind.name().to_owned(),
        };
        let order = ToSeed::Enter(Entering {
            joined: joined.iter().map(name).collect(),
            oom_score_adj: self.oom_score_adj,
            time_offsets: namespaces.time_offsets().map(str::to_owned),
            new: namespaces.early_flags(),
        });
        let fds: Vec<_> = joined.iter().map(|(_, fd)| fd.as_fd()).collect();
        self.say(&order, &fds)
    }

    /// Has it clone init, into a cgroup or where the runtime is. Init waits for its plan.
    ///
    /// # Errors
    ///
    /// That the seed is gone, and its last words.
    pub fn clone_init(
        mut self,
        namespaces: &namespaces::Plan,
        cgroup: Option<BorrowedFd<'_>>,
    ) -> Result<Birth> {
        let settles = namespaces.settles_first();
        if settles {
            cgroup.map_or(Ok(()), |cgroup| self.settle(cgroup))?;
            self.order_to_enter(namespaces)?;
        }
        let cgroup = cgroup.filter(|_| !settles);
        let (told, tell) = pipe()?;
        let order = ToSeed::Clone(Cloning {
            namespaces: namespaces.clone_flags(),
            into_cgroup: cgroup.is_some(),
            stays_bound: self.stays_bound,
        });
        let fds: Vec<_> = [Some(tell.as_fd()), cgroup].into_iter().flatten().collect();
        self.say(&order, &fds)?;
        Ok(Birth {
            seed: self,
            told: Told(told),
            maps: namespaces.id_maps().cloned(),
        })
    }

    /// Has it go on as a copy in the cgroup.
    fn settle(&mut self, cgroup: BorrowedFd<'_>) -> Result<()> {
        let (told, tell) = pipe()?;
        self.say(&ToSeed::Settle, &[tell.as_fd(), cgroup])?;
        drop(tell); // or the end of the seed would not be the end of what it tells
        let settled = read_pid(&told)?.map_or_else(|| Err(self.said_last()), Ok)?;
        self.reap();
        self.pid = settled;
        Ok(())
    }

    pub(super) fn say<M: serde::Serialize>(
        &self,
        message: &M,
        fds: &[BorrowedFd<'_>],
    ) -> Result<()> {
        handshake::send_with(&self.talk, message, fds).map_err(|_gone| self.said_last())
    }

    /// Gives who comes from it its task, and what that names.
    pub(super) fn give_task(&self, task: &ToInit, inheritance: &Inheritance) -> Result<()> {
        let messages = (&ToInit::Inherit, task);
        handshake::send_with_all(&self.talk, messages, inheritance.descriptors())
            .map_err(|_gone| self.said_last())
    }

    /// Makes init's network namespace and gives it to init.
    pub(super) fn give_network(&self) -> Result<()> {
        let give = |network: OwnedFd| self.say(&ToInit::Network, &[network.as_fd()]);
        namespaces::network::make(give).context("network namespace")
    }

    /// Why it ended without a clone: its own words, if it had any. They are there by now, and are
    /// not waited for: init, if there is one, holds the other end open.
    pub(super) fn said_last(&self) -> anyhow::Error {
        loop {
            let mut fds = [PollFd::from_borrowed_fd(self.talk.as_fd(), PollFlags::IN)];
            let said = match poll(&mut fds, Some(&Timespec::default())) {
                Ok(1) => handshake::receive(&self.talk).ok().flatten(),
                Ok(_) | Err(_) => None,
            };
            match said.map(|(said, _no_fds)| failure(said)) {
                Some(Ok(reason)) => return reason,
                // Of an init that it had cloned and not told of, which went on until it was killed.
                Some(Err(_said)) => {}
                None => return Killed("the process that clones init was killed".into()).into(),
            }
        }
    }

    /// Waits for the end of one that has nothing left to do.
    pub(super) fn outlive(&mut self) {
        self.reap();
        self.is_gone = true;
    }

    /// Waits for its end.
    fn reap(&self) {
        // It is a child of this process and was not waited for, so there is nothing to fail.
        let _reaped = rustix::process::waitpid(Some(self.pid), WaitOptions::empty());
    }
}

impl Drop for Seed {
    fn drop(&mut self) {
        if self.is_gone {
            return; // and the number may be another's
        }
        // It may have ended by itself; then there is nothing to kill.
        let _ended = rustix::process::kill_process(self.pid, Signal::KILL);
        self.reap();
    }
}

/// What is told, and where.
pub(super) fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::pipe::pipe_with(PipeFlags::CLOEXEC).call(|| "pipe2()".into())?)
}

/// The process id that comes through the pipe; None when nobody is left to write one.
pub(super) fn read_pid(told: &OwnedFd) -> Result<Option<Pid>> {
    let mut bytes = [0; 4];
    let read = rustix::io::retry_on_intr(|| rustix::io::read(told, &mut bytes))
        .call(|| "read(pid of init)".into())?;
    Ok(Pid::from_raw(i32::from_ne_bytes(bytes)).filter(|_| read == bytes.len()))
}
