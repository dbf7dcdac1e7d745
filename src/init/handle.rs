//! The runtime's handle on init: what both say to each other, and how init ended.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use anyhow::{Context as _, Result, anyhow, bail};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};

use super::handshake::{self, FromInit, ToInit};
use super::plan::{Plan, UserNamespace};
use super::spawn::Seed;
use crate::sys::channel::Channel;
use crate::sys::fd::Inheritance;
use crate::sys::spawn::Step;
use crate::sys::{Errno, SysError};

/// Init, until it is let go; killed when this value is dropped before.
#[derive(Debug)]
pub struct Init {
    pub(super) pid: Pid,
    pub(super) pidfd: Rc<OwnedFd>,
    /// The seed that it was cloned from and the conversation it took over; waited for in the end,
    /// when it has ended long since, as nobody reads the pipe any more through which it told the pid.
    pub(super) seed: Seed,
    pub(super) ours: bool,
}

impl Init {
    /// Its process id, as the runtime's pid namespace sees it.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Its pidfd.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Waits for the end of the seed, which may be in the container's cgroup, before others hear of the
    /// container's new process.
    pub fn outlive_seed(&mut self) {
        self.seed.outlive();
    }

    /// Readable when init has said something, or has ended.
    pub fn conversation(&self) -> BorrowedFd<'_> {
        self.seed.talk.as_fd()
    }

    /// Sends init its plan, and what that names, as [`Birth::send_plan`]; then tells it that its ids are
    /// mapped, if it waits for that.
    ///
    /// # Errors
    ///
    /// Init is gone, and its last words.
    pub fn send_plan(&self, plan: Plan, inheritance: &Inheritance) -> Result<()> {
        let waits = matches!(plan.user_namespace, UserNamespace::New);
        self.seed
            .give_task(&ToInit::Plan(Box::new(plan)), inheritance)?;
        match waits {
            true => self.say(&ToInit::Mapped),
            false => Ok(()),
        }
    }

    /// Says something.
    ///
    /// # Errors
    ///
    /// Init is gone: its own words, or how it ended.
    pub fn say(&self, message: &ToInit) -> Result<()> {
        handshake::send(&self.seed.talk, message).or_else(|_gone| self.why_gone())
    }

    /// What init says next, with the descriptor that comes along.
    ///
    /// # Errors
    ///
    /// What init says went wrong, or how it ended.
    pub fn hear(&self) -> Result<(FromInit, Option<OwnedFd>)> {
        match handshake::receive(&self.seed.talk)? {
            Some((said, fds)) => match failure(said) {
                Ok(reason) => Err(reason),
                Err(said) => Ok((said, fds.into_iter().next())),
            },
            None => self.why_gone(),
        }
    }

    /// Waits until init has executed the program, or says why not.
    ///
    /// # Errors
    ///
    /// What init says went wrong.
    pub fn wait_until_executed(&self) -> Result<()> {
        match is_executed(&self.seed.talk)? {
            true => Ok(()),
            false => self.why_gone(),
        }
    }

    /// Lets init live on after this value, and gives its pidfd.
    #[must_use]
    pub fn release(mut self) -> Rc<OwnedFd> {
        self.ours = false;
        Rc::clone(&self.pidfd)
    }

    /// The last words of an init that closed its end, or else how it ended.
    fn why_gone<T>(&self) -> Result<T> {
        // What it said before, when it was still well, may not have been heard yet.
        while let Ok(Some((said, _no_fd))) = handshake::receive(&self.seed.talk) {
            if let Ok(reason) = failure(said) {
                return Err(reason);
            }
        }
        let id = WaitId::PidFd(self.pidfd.as_fd());
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        let status = rustix::process::waitid(id, options).context("waitid(init)")?;
        match status.and_then(|s| s.terminating_signal()) {
            Some(signal) => {
                let words = format!("its process was killed by signal {signal}");
                Err(Killed(words).into())
            }
            None => bail!("its process ended before it was set up"),
        }
    }
}

/// Somebody has killed the process: what is left of its container says why.
#[derive(Debug)]
pub struct Killed(pub(super) String);

impl fmt::Display for Killed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Killed {}

/// Why init failed, if that is what it said; else what it said.
pub(super) fn failure(said: FromInit) -> Result<anyhow::Error, FromInit> {
    match said {
        FromInit::Failed(reason) => Ok(anyhow!(reason)),
        FromInit::NotExecuted(step, errno) => {
            let call = match step {
                Step::Complete => "write(parhelion-init)".to_owned(),
                Step::Keep(fd) => format!("fcntl({fd}, F_SETFD, 0)"),
                Step::Execute => "execveat(init)".to_owned(),
            };
            Ok(SysError::new(call, Errno::from_raw_os_error(errno)).into())
        }
        FromInit::Made
        | FromInit::Terminal
        | FromInit::Listener
        | FromInit::Ready
        | FromInit::Executing => Err(said),
    }
}

/// Waits on either conversation, the creator's or a later `start`'s, until the program runs.
///
/// # Errors
///
/// What init says went wrong, or that it ended.
pub fn wait_until_executed(talk: &Channel) -> Result<()> {
    match is_executed(talk)? {
        true => Ok(()),
        false => bail!("its process ended before it executed the program"),
    }
}

/// Waits for the execve: false when init ended before.
fn is_executed(talk: &Channel) -> Result<bool> {
    let mut executing = false;
    loop {
        match handshake::receive(talk)? {
            Some((FromInit::Executing, _no_fd)) => executing = true,
            Some((other, _no_fd)) => {
                return Err(failure(other).unwrap_or_else(|other| {
                    anyhow!("init said {other:?} where it should have executed the program")
                }));
            }
            // The kernel closes init's end in the execve.
            None => return Ok(executing),
        }
    }
}

impl Drop for Init {
    fn drop(&mut self) {
        if self.ours {
            // It may have ended by itself; then there is nothing to kill. Its pid namespace dies
            // with it. Reaped here, so that its cgroup is empty afterwards.
            let _ended = rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL);
            let id = WaitId::PidFd(self.pidfd.as_fd());
            let _reaped = rustix::process::waitid(id, WaitIdOptions::EXITED);
        }
    }
}
