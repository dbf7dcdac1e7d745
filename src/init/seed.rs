//! The process that init is cloned from: `parhelion-init` before there is a container.
//!
//! It starts beside the runtime, which reads config.json meanwhile, and gets ready. It enters the
//! namespaces that a parent must be in, clones init into its cgroup and the rest of its namespaces, as
//! a child of the runtime, and ends when the runtime knows of it. It tells nothing of that through the
//! conversation, in which init speaks at once.

use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;

use anyhow::{Context as _, Result};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::process::DumpableBehavior;

use super::handshake::{self, Cloning, Entering, Joined, ToSeed};
use crate::sys::channel::Channel;
use crate::sys::process::{self, CloneRequest, Cloned};
use crate::sys::processors;
use crate::sys::weakened::{Mitigation, is_off};
use crate::sys::{Call, SysResult, signals};

/// Who returns from [`grow`].
pub(super) enum Grown {
    /// The seed, which is done.
    Seed,
    /// Init.
    Init,
}

/// Does what it is told.
///
/// # Errors
///
/// The namespace that could not be entered or made, a cgroup that takes no process.
pub(super) fn grow(talk: &Channel) -> Result<Grown> {
    signals::reset_signals();
    // Nothing that is inherited reaches a hook or the program by accident.
    if !is_off(Mitigation::Descriptors) {
        process::close_on_exec_from(3)?;
    }
    loop {
        talk.expect();
        let (message, fds) = handshake::next_with(talk)?;
        match message {
            ToSeed::Settle => {
                if let Settled::Left = settle(fds)? {
                    return Ok(Grown::Seed);
                }
            }
            ToSeed::Enter(entering) => enter(&entering, &fds)?,
            ToSeed::Clone(cloning) => return clone_init(&cloning, fds),
        }
    }
}

/// Who goes on.
enum Settled {
    /// This process, which is the copy.
    Here,
    /// The copy of this one.
    Left,
}

/// Goes on in another cgroup, to which init is born: a process that has joined another user or cgroup
/// namespace can no longer choose one of the host's.
fn settle(fds: Vec<OwnedFd>) -> Result<Settled> {
    let [tell, cgroup] = exactly(fds)?;
    match clone(0, Some(cgroup.as_fd()))? {
        Cloned::Child => Ok(Settled::Here),
        Cloned::Parent { pid, pidfd: _ } => tell_pid(&tell, pid).map(|()| Settled::Left),
    }
}

/// Enters namespaces in the only order that works: time, whose offsets are a file of the host's
/// /proc; those that are joined; new ones, which belong to the user namespace that was joined.
fn enter(entering: &Entering, fds: &[OwnedFd]) -> Result<()> {
    if let Some(adjustment) = entering.oom_score_adj {
        write("/proc/self/oom_score_adj", &format!("{adjustment}"))
            .with_context(|| format!("process.oomScoreAdj {adjustment}"))?;
    }
    if let Some(offsets) = &entering.time_offsets {
        make_time_namespace(offsets)?;
    }
    if !entering.joined.is_empty() {
        // Processes that are there already must not look into this one or into init.
        if !is_off(Mitigation::Dumpable) {
            rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
                .call(|| "prctl(PR_SET_DUMPABLE, 0)".to_string())?;
        }
        join_all(&entering.joined, fds)?;
    }
    if entering.new != 0 {
        process::unshare(entering.new)?;
    }
    Ok(())
}

/// The next child enters it; its clocks can be set before that only.
fn make_time_namespace(offsets: &str) -> Result<()> {
    process::unshare(libc::CLONE_NEWTIME as u64).context("time namespace")?;
    if offsets.is_empty() {
        return Ok(());
    }
    write("/proc/self/timens_offsets", offsets)
        .with_context(|| format!("linux.timeOffsets {offsets:?}"))
}

fn write(path: &str, text: &str) -> Result<()> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
        .and_then(|file| rustix::io::write(&file, text.as_bytes()))
        .call(|| format!("write(\"{path}\")"))?;
    Ok(())
}

/// Joins namespaces: with the host's privileges first; what those do not allow (a namespace that
/// belongs to the user namespace to be joined) is joined again after that one, which takes the host's
/// privileges away.
fn join_all(joined: &[Joined], fds: &[OwnedFd]) -> Result<()> {
    let all = || joined.iter().zip(fds);
    let is_user = |joined: &Joined| joined.flag == libc::CLONE_NEWUSER as u64;
    let user = all().find(|(joined, _)| is_user(joined));
    let mut refused = Vec::new();
    for (namespace, fd) in all().filter(|(joined, _)| !is_user(joined)) {
        match join(namespace, fd) {
            Ok(()) => {}
            Err(_) if user.is_some() => refused.push((namespace, fd)),
            Err(error) => return Err(error),
        }
    }
    for (namespace, fd) in user.into_iter().chain(refused) {
        join(namespace, fd)?;
    }
    Ok(())
}

fn join(namespace: &Joined, fd: &OwnedFd) -> Result<()> {
    process::join_namespace(fd.as_fd(), namespace.flag, &namespace.name)
        .with_context(|| format!("joining the {} namespace", namespace.name))
}

fn clone_init(cloning: &Cloning, fds: Vec<OwnedFd>) -> Result<Grown> {
    let mut fds = fds.into_iter();
    let tell = fds.next().context("no pipe came with the order to clone")?;
    let cgroup = match cloning.into_cgroup {
        true => Some(
            fds.next()
                .context("no cgroup came with the order to clone")?,
        ),
        false => None,
    };
    // Init begins where this process is, which sleeps at once; the runtime works elsewhere.
    if !cloning.stays_bound {
        processors::bring_here(None);
    }
    match clone(cloning.namespaces, cgroup.as_ref().map(AsFd::as_fd))? {
        Cloned::Parent { pid, pidfd: _ } => {
            tell_pid(&tell, pid)?;
            // To end takes a while, and init is to have the processor first.
            until_nobody_reads(&tell)?;
            Ok(Grown::Seed)
        }
        Cloned::Child => {
            if !cloning.stays_bound {
                processors::run_everywhere();
            }
            drop(tell); // or the runtime would not hear of the seed's death
            Ok(Grown::Init)
        }
    }
}

/// A sibling: the runtime's child.
fn clone(namespaces: u64, cgroup: Option<BorrowedFd<'_>>) -> SysResult<Cloned> {
    process::clone(CloneRequest {
        namespaces,
        cgroup,
        sibling: true,
    })
}

fn tell_pid(tell: &OwnedFd, pid: rustix::process::Pid) -> Result<()> {
    let bytes = pid.as_raw_nonzero().get().to_ne_bytes();
    rustix::io::write(tell, &bytes).call(|| "write(pid)".to_string())?;
    Ok(())
}

/// Waits until the other end of a pipe is closed, also by the death of who has it.
fn until_nobody_reads(pipe: &OwnedFd) -> Result<()> {
    let mut fds = [PollFd::new(pipe, PollFlags::empty())];
    rustix::io::retry_on_intr(|| poll(&mut fds, None)).call(|| "poll(pipe)".to_string())?;
    Ok(())
}

fn exactly<const N: usize>(fds: Vec<OwnedFd>) -> Result<[OwnedFd; N]> {
    let count = fds.len();
    let fds = <[OwnedFd; N]>::try_from(fds).ok();
    fds.with_context(|| format!("{count} descriptors came instead of {N}"))
}
