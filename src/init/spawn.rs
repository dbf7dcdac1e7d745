//! Clones the container's first process and speaks with it, from outside.
//!
//! One clone3(2) makes all new namespaces and puts the process into its cgroup. Only where a
//! namespace is joined whose members are chosen by their parent (pid, or anything beside a user
//! namespace) a process in between joins first, clones init as its sibling, and ends.

use std::ffi::CString;
use std::rc::Rc;

use anyhow::{Context as _, Result, anyhow, bail};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::{Gid, Uid};
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitOptions};

use super::handshake::{self, FromInit, ToInit};
use super::sealed;
use crate::namespaces::{Joins, Kind, Plan};
use crate::sys::channel::Channel;
use crate::sys::fd::Inheritance;
use crate::sys::process::{self, CloneRequest, Cloned};

/// What init is cloned with.
#[derive(Debug)]
pub struct Spawn<'a> {
    /// Its namespaces.
    pub namespaces: &'a Plan,
    /// Its cgroup.
    pub cgroup: BorrowedFd<'a>,
    /// The descriptors that its plan names.
    pub inheritance: Inheritance,
    /// How many descriptors after standard error it hands on to the program.
    pub preserved: u32,
}

/// Init, until it is let go; killed when this value is dropped before.
#[derive(Debug)]
pub struct Init {
    pid: Pid,
    pidfd: Rc<OwnedFd>,
    talk: Channel,
    ours: bool,
}

/// Clones init. It waits for its plan.
///
/// # Errors
///
/// A namespace that could not be made or joined, a cgroup that takes no process.
pub fn spawn(spawn: Spawn<'_>) -> Result<Init> {
    let program = sealed::copy()?;
    let joins = spawn.namespaces.open()?;
    let (talk, theirs) = Channel::pair()?;
    let child = Child {
        spawn: &spawn,
        joins: &joins,
        program: &program,
        talk: &theirs,
    };
    let time = spawn.namespaces.enter_time()?;
    let (pid, pidfd) = if spawn.namespaces.needs_a_step_between() {
        clone_between(&child, &talk)?
    } else {
        clone_at_once(&child)?
    };
    drop((time, theirs));
    let init = Init {
        pid,
        pidfd: Rc::new(pidfd),
        talk,
        ours: true,
    };
    if let Some(maps) = spawn.namespaces.id_maps() {
        maps.write(pid)?;
        handshake::send(&init.talk, &ToInit::Mapped).or_else(|_gone| init.why_gone())?;
    }
    Ok(init)
}

/// What the cloned process needs to become init.
struct Child<'a> {
    spawn: &'a Spawn<'a>,
    joins: &'a Joins,
    program: &'a OwnedFd,
    talk: &'a Channel,
}

fn clone_at_once(child: &Child<'_>) -> Result<(Pid, OwnedFd)> {
    let namespaces = child.spawn.namespaces.clone_flags();
    let cgroup = Some(child.spawn.cgroup);
    match process::clone(CloneRequest {
        namespaces,
        cgroup,
        sibling: false,
    })? {
        Cloned::Parent { pid, pidfd } => Ok((pid, pidfd)),
        Cloned::Child => child.end_by(|| {
            child.joins.join()?;
            child.become_init()
        }),
    }
}

/// Clones a process into the cgroup; it joins, and clones init, which starts where it is.
fn clone_between(child: &Child<'_>, talk: &Channel) -> Result<(Pid, OwnedFd)> {
    let (told, tell) = Channel::pair()?;
    let cgroup = Some(child.spawn.cgroup);
    match process::clone(CloneRequest {
        cgroup,
        ..CloneRequest::default()
    })? {
        Cloned::Child => child.end_by(|| {
            child.joins.join()?;
            let namespaces = child.spawn.namespaces.clone_flags();
            match process::clone(CloneRequest {
                namespaces,
                cgroup: None,
                sibling: true,
            })? {
                Cloned::Child => child.become_init(),
                Cloned::Parent { pid, pidfd: _ } => {
                    tell.send(&pid.as_raw_nonzero().get().to_ne_bytes())?;
                    process::exit(0)
                }
            }
        }),
        Cloned::Parent {
            pid: between,
            pidfd: _,
        } => {
            drop(tell);
            let answer = told.receive()?;
            rustix::process::waitpid(Some(between), WaitOptions::empty())?;
            let Some(bytes) = answer else {
                return Err(said_last(talk));
            };
            let raw = bytes.try_into().map(i32::from_ne_bytes).unwrap_or(0);
            let pid = Pid::from_raw(raw).context("clone3 returned no process")?;
            // Our own child since the clone, so the number can not be another process' yet.
            let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty())
                .with_context(|| format!("pidfd_open({raw})"))?;
            Ok((pid, pidfd))
        }
    }
}

/// Why a process in between ended without a clone: its own words, if it had any.
fn said_last(talk: &Channel) -> anyhow::Error {
    match handshake::receive(talk) {
        Ok(Some((FromInit::Failed(reason), _no_fd))) => anyhow!(reason),
        Ok(_) | Err(_) => anyhow!("the process that joins namespaces was killed"),
    }
}

impl Child<'_> {
    /// Does `work`, which does not return when it succeeds; tells what went wrong and ends.
    fn end_by(&self, work: impl FnOnce() -> Result<std::convert::Infallible>) -> ! {
        let Err(error) = work();
        {
            // When nobody listens any more, the exit status is all that is left to say.
            let _ = handshake::send(self.talk, &FromInit::Failed(format!("{error:#}")));
        }
        process::exit(1)
    }

    /// Executes the sealed program, as root of the user namespace when there is one: another
    /// user's capabilities would not survive the execve.
    fn become_init(&self) -> Result<std::convert::Infallible> {
        if self.spawn.namespaces.is_new(Kind::User) {
            let ToInit::Mapped = handshake::next(self.talk)? else {
                bail!("the runtime did not say Mapped first");
            };
        }
        if self.spawn.namespaces.is_own(Kind::User) {
            let (uid, gid) = (Uid::ROOT, Gid::ROOT);
            rustix::thread::set_thread_res_gid(gid, gid, gid).context("setresgid(0, 0, 0)")?;
            rustix::thread::set_thread_res_uid(uid, uid, uid).context("setresuid(0, 0, 0)")?;
        }
        for fd in self.spawn.inheritance.descriptors() {
            process::keep_on_exec(fd.as_raw_fd())?;
        }
        for number in 0..self.spawn.preserved {
            process::keep_on_exec(3 + number as i32)?;
        }
        let talk = self.talk.as_fd().as_raw_fd();
        process::keep_on_exec(talk)?;
        let args = [
            CString::from(c"parhelion-init"),
            CString::new(talk.to_string())?,
        ];
        Err(process::execute_fd(self.program.as_fd(), &args).into())
    }
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

    /// Says something.
    ///
    /// # Errors
    ///
    /// Init is gone: its own words, or how it ended.
    pub fn say(&self, message: &ToInit) -> Result<()> {
        handshake::send(&self.talk, message).or_else(|_gone| self.why_gone())
    }

    /// What init says next, with the descriptor that comes along.
    ///
    /// # Errors
    ///
    /// What init says went wrong, or how it ended.
    pub fn hear(&self) -> Result<(FromInit, Option<OwnedFd>)> {
        match handshake::receive(&self.talk)? {
            Some((FromInit::Failed(reason), _no_fd)) => bail!(reason),
            Some(said) => Ok(said),
            None => self.why_gone(),
        }
    }

    /// Waits until init has executed the program, or says why not.
    ///
    /// # Errors
    ///
    /// What init says went wrong.
    pub fn wait_until_executed(&self) -> Result<()> {
        wait_until_executed(&self.talk)
    }

    /// Lets init live on after this value, and gives its pidfd.
    #[must_use]
    pub fn release(mut self) -> Rc<OwnedFd> {
        self.ours = false;
        Rc::clone(&self.pidfd)
    }

    /// The last words of an init that closed its end, or else how it ended.
    fn why_gone<T>(&self) -> Result<T> {
        if let Ok(Some((FromInit::Failed(reason), _no_fd))) = handshake::receive(&self.talk) {
            bail!(reason);
        }
        let id = WaitId::PidFd(self.pidfd.as_fd());
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        let status = rustix::process::waitid(id, options).context("waitid(init)")?;
        match status.and_then(|s| s.terminating_signal()) {
            Some(signal) => bail!("init was killed by signal {signal}"),
            None => bail!("init ended before it was set up"),
        }
    }
}

/// Waits on either conversation, the creator's or a later `start`'s, until the program runs.
///
/// # Errors
///
/// What init says went wrong, or that it ended.
pub fn wait_until_executed(talk: &Channel) -> Result<()> {
    let mut executing = false;
    loop {
        match handshake::receive(talk)? {
            Some((FromInit::Executing, _no_fd)) => executing = true,
            Some((FromInit::Failed(reason), _no_fd)) => bail!(reason),
            Some((other @ (FromInit::HostHooksDue | FromInit::Terminal | FromInit::Ready), _)) => {
                bail!("init said {other:?} where it should have executed the program")
            }
            // The kernel closes init's end in the execve.
            None if executing => return Ok(()),
            None => bail!("init ended before it executed the program"),
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
