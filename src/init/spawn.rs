//! Clones the container's first process and speaks with it, from outside.
//!
//! One clone3(2) makes all new namespaces and puts the process into its cgroup. Only where a
//! namespace is joined whose members are chosen by their parent (pid, or anything beside a user
//! namespace) a process in between joins first, clones init as its sibling, and ends.

use std::ffi::CString;
use std::rc::Rc;

use anyhow::{Context as _, Result, anyhow, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitOptions};

use super::handshake::{self, FromInit, ToInit};
use super::sealed;
use crate::error;
use crate::namespaces::{self, Joins, Kind, Plan};
use crate::sys::channel::Channel;
use crate::sys::fd::Inheritance;
use crate::sys::process::{self, CloneRequest, Cloned};
use crate::sys::spawn::{self, ChildMemory, Orders, Spawned, Step};
use crate::sys::{Errno, SysError};

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
    /// What the process used until its execve, which is over when this value is dropped: it has
    /// either said that it is ready by then, or was killed.
    _memory: Option<ChildMemory>,
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
        program: &program,
        talk: &theirs,
    };
    let time = spawn.namespaces.enter_time()?;
    let init = if spawn.namespaces.needs_a_step_between() {
        clone_between(&child, &joins, talk)?
    } else {
        let spawned = child.clone_init(Some(spawn.cgroup), &joins.all(), &talk)?;
        Init::new(spawned.pid, spawned.pidfd, talk, Some(spawned.memory))
    };
    drop((time, theirs));
    if let Some(maps) = spawn.namespaces.id_maps() {
        maps.write(init.pid)?;
        handshake::send(&init.talk, &ToInit::Mapped).or_else(|_gone| init.why_gone())?;
    }
    Ok(init)
}

/// What the cloned process needs to become init.
struct Child<'a> {
    spawn: &'a Spawn<'a>,
    program: &'a OwnedFd,
    talk: &'a Channel,
}

impl Child<'_> {
    /// Clones the process that joins namespaces and executes the sealed program: into `cgroup`, or
    /// as a sibling of the caller, where that is. `close` is the caller's end of a conversation: the
    /// process closes its copy, so that it hears when the runtime dies.
    fn clone_init(
        &self,
        cgroup: Option<BorrowedFd<'_>>,
        join: &[(BorrowedFd<'_>, u64)],
        close: &Channel,
    ) -> Result<Spawned> {
        let (namespaces, talk) = (self.spawn.namespaces, self.talk.as_fd());
        let inherited = self.spawn.inheritance.descriptors().iter();
        let mut keep: Vec<RawFd> = inherited.map(AsRawFd::as_raw_fd).collect();
        keep.extend((3..).take(self.spawn.preserved as usize));
        keep.push(talk.as_raw_fd());
        let maps_first = namespaces.is_new(Kind::User);
        let orders = Orders {
            close: close.as_fd(),
            join,
            become_root_after: namespaces.is_own(Kind::User).then(|| match maps_first {
                true => handshake::length_of_mapped(),
                false => 0,
            }),
            keep: &keep,
            program: self.program.as_fd(),
            args: &[
                CString::from(c"parhelion-init"),
                CString::new(talk.as_raw_fd().to_string())?,
            ],
            talk,
            failure: handshake::not_executed,
        };
        let request = CloneRequest {
            namespaces: namespaces.clone_flags(),
            cgroup,
            sibling: cgroup.is_none(),
        };
        Ok(spawn::spawn(request, namespaces.memory(), &orders)?)
    }

    /// Does `work`, which does not return when it succeeds; tells what went wrong and ends.
    fn end_by(&self, work: impl FnOnce() -> Result<std::convert::Infallible>) -> ! {
        let Err(error) = work();
        {
            // When nobody listens any more, the exit status is all that is left to say.
            let _ = handshake::send(self.talk, &FromInit::Failed(error::in_words(&error)));
        }
        process::exit(1)
    }
}

/// Clones a process into the cgroup; it joins, and clones init, which starts where it is.
fn clone_between(child: &Child<'_>, joins: &Joins, talk: Channel) -> Result<Init> {
    let (told, tell) = Channel::pair()?;
    let cgroup = Some(child.spawn.cgroup);
    match process::clone(CloneRequest {
        cgroup,
        ..CloneRequest::default()
    })? {
        Cloned::Child => {
            drop((talk, told));
            child.end_by(|| {
                joins.join()?;
                let init = child.clone_init(None, &[], &tell)?;
                tell.send(&init.pid.as_raw_nonzero().get().to_ne_bytes())?;
                process::exit(0)
            })
        }
        Cloned::Parent {
            pid: between,
            pidfd: _,
        } => {
            drop(tell);
            let answer = told.receive()?;
            rustix::process::waitpid(Some(between), WaitOptions::empty())?;
            let Some(bytes) = answer else {
                return Err(said_last(&talk));
            };
            let raw = bytes.try_into().map(i32::from_ne_bytes).unwrap_or(0);
            let pid = Pid::from_raw(raw).context("clone3 returned no process")?;
            // Our own child since the clone, so the number can not be another process' yet.
            let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty())
                .with_context(|| format!("pidfd_open({raw})"))?;
            Ok(Init::new(pid, pidfd, talk, None))
        }
    }
}

/// Why a process in between ended without a clone: its own words, if it had any. They are there by
/// now, and are not waited for: the other end is still open here, and perhaps in a sibling of its.
fn said_last(talk: &Channel) -> anyhow::Error {
    let mut fds = [PollFd::from_borrowed_fd(talk.as_fd(), PollFlags::IN)];
    let said = match poll(&mut fds, Some(&Timespec::default())) {
        Ok(1) => handshake::receive(talk).ok().flatten(),
        Ok(_) | Err(_) => None,
    };
    match said {
        Some((said, _no_fd)) => failure(said).unwrap_or_else(|said| anyhow!("it said {said:?}")),
        None => anyhow!("the process that joins namespaces was killed"),
    }
}

impl Init {
    fn new(pid: Pid, pidfd: OwnedFd, talk: Channel, memory: Option<ChildMemory>) -> Init {
        Init {
            pid,
            pidfd: Rc::new(pidfd),
            talk,
            _memory: memory,
            ours: true,
        }
    }

    /// Its process id, as the runtime's pid namespace sees it.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Its pidfd.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Readable when init has said something, or has ended.
    pub fn conversation(&self) -> BorrowedFd<'_> {
        self.talk.as_fd()
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
            Some((said, fd)) => match failure(said) {
                Ok(reason) => Err(reason),
                Err(said) => Ok((said, fd)),
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
        if let Ok(Some((said, _no_fd))) = handshake::receive(&self.talk)
            && let Ok(reason) = failure(said)
        {
            return Err(reason);
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

/// Why init failed, if that is what it said; else what it said.
fn failure(said: FromInit) -> Result<anyhow::Error, FromInit> {
    match said {
        FromInit::Failed(reason) => Ok(anyhow!(reason)),
        FromInit::NotExecuted(step, errno) => {
            let call = match step {
                Step::Join(flag) => {
                    let name = namespaces::name_of(flag);
                    format!("joining the {name} namespace: setns({name})")
                }
                Step::Wait => "waiting for the id maps: recv()".to_owned(),
                Step::Group => "setresgid(0, 0, 0)".to_owned(),
                Step::User => "setresuid(0, 0, 0)".to_owned(),
                Step::Keep(fd) => format!("fcntl({fd}, F_SETFD, 0)"),
                Step::Execute => "execveat(init)".to_owned(),
            };
            Ok(SysError::new(call, Errno::from_raw_os_error(errno)).into())
        }
        FromInit::HostHooksDue
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
