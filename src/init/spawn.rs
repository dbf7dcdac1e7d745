//! Starts the seed, has it clone the container's first process, and speaks with that, from outside.
//!
//! The seed is started before anything is known of the container, and copies and executes the sealed
//! program beside the runtime, which reads and plans meanwhile. Then it is told what to enter, and
//! what to clone: one clone3(2) puts init into its cgroup and makes what namespaces are left.

use std::ffi::CString;
use std::fmt;
use std::rc::Rc;

use anyhow::{Context as _, Result, anyhow, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use rustix::pipe::PipeFlags;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, WaitOptions};

use super::birth::{Birth, Told};
use super::handshake::{self, Cloning, Entering, FromInit, Joined, ToInit, ToSeed};
use super::plan::{Plan, UserNamespace};
use super::sealed;
use crate::namespaces::{self, Kind};
use crate::sys::channel::Channel;
use crate::sys::fd::Inheritance;
use crate::sys::spawn::{self, ChildMemory, Orders, Step};
use crate::sys::{Call, Errno, SysError};

/// The process that init will be cloned from; killed when this value is dropped before.
#[derive(Debug)]
pub struct Seed {
    /// Its process id: a child's, and so nobody else's until it is waited for.
    pid: Pid,
    talk: Channel,
    /// What its OOM score is to be adjusted by before it enters anything.
    oom_score_adj: Option<i32>,
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
            _memory: memory,
        })
    }

    /// Its process id. What the process is set to, init inherits.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.pid
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
            network_follows: namespaces.network_follows(),
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

    /// Waits for its end.
    fn reap(&self) {
        // It is a child of this process and was not waited for, so there is nothing to fail.
        let _reaped = rustix::process::waitpid(Some(self.pid), WaitOptions::empty());
    }
}

impl Drop for Seed {
    fn drop(&mut self) {
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

/// Init, until it is let go; killed when this value is dropped before.
#[derive(Debug)]
pub struct Init {
    pub(super) pid: Pid,
    pub(super) pidfd: Rc<OwnedFd>,
    /// The seed that it was cloned from and the conversation it took over; waited for in the end,
    /// when it has ended long since.
    pub(super) seed: Seed,
    pub(super) told: Told,
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

    /// Readable when the seed has ended, which makes a network namespace after init.
    pub fn seeds_end(&self) -> BorrowedFd<'_> {
        self.told.0.as_fd()
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
        if let Ok(Some((said, _no_fd))) = handshake::receive(&self.seed.talk)
            && let Ok(reason) = failure(said)
        {
            return Err(reason);
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
pub struct Killed(String);

impl fmt::Display for Killed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Killed {}

/// Why init failed, if that is what it said; else what it said.
fn failure(said: FromInit) -> Result<anyhow::Error, FromInit> {
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
