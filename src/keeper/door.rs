//! The exec door: a command inside a container, as a health check asks for it, made by a copy of the keeper.
//!
//! It is what `exec` does, in the same cgroup and with the privileges given up in the same order, without a
//! program that is executed and reads a command line first. The copy stands for the command: it keeps the end
//! of its output, and when the keeper says so by a signal, or dies, it ends every process of the command.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::SigSet;
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::pipe::PipeFlags;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid,
};
use serde::{Deserialize, Serialize};

use super::clock;
use super::copied::Copied;
use super::exit;
use super::helper::open;
use super::policy::Exit;
use crate::error;
use crate::lifecycle::described::{Changes, Given};
use crate::lifecycle::exec::{ExecRequest, spawn};
use crate::lifecycle::foreground::Child;
use crate::lifecycle::id::ContainerId;
use crate::lifecycle::process::fields_after_name;
use crate::sys::process::duplicate_onto;
use crate::sys::signals::REQUESTS_TO_END;
use crate::sys::{Call, Errno, SysError};

/// How much of a command's output is kept: its end.
const OUTPUT: usize = 4096;

/// How often it is looked for processes of a command that is to end. Each time those are killed that are
/// there, so that only one that makes new ones faster is left.
const ROUNDS: usize = 100;

/// What is wanted of the door.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Command {
    /// In which task's container; needed where there is a group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// The program and its arguments. Environment, user, capabilities and the rest are those of the
    /// container's own program.
    pub args: Vec<String>,
    /// After what time it is ended, in milliseconds, counted from the request: 1 to an hour.
    pub timeout_ms: u64,
}

/// The longest time that a command may take.
pub const LONGEST: u64 = 3_600_000;

/// What came of a command that was executed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ran {
    /// How it ended.
    pub exit: Exit,
    /// Whether it was ended, as its time was over.
    pub timed_out: bool,
    /// The last 4 KiB of what it has printed, both streams; what is no UTF-8 is replaced.
    pub output: String,
    /// How long it took, with what it takes to execute it, in microseconds.
    pub duration_us: u64,
}

/// What a copy reports.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Report {
    /// It was executed and has ended.
    Ran(Ran),
    /// It was not executed, and why.
    NotExecuted(String),
}

/// Starts a copy that executes a command in a container. A signal to end ends the command.
///
/// # Errors
///
/// Out of memory, processes or descriptors.
pub(super) fn open_door(root: &Path, id: &str, args: Vec<String>) -> Result<Copied> {
    let begun = clock::now();
    Copied::start(Signal::TERM, || match execute(root, id, args) {
        Ok((exit, output)) => Report::Ran(Ran {
            exit,
            timed_out: false,
            output: String::from_utf8_lossy(&output).into_owned(),
            duration_us: u64::try_from(clock::now().saturating_sub(begun).as_micros())
                .unwrap_or(u64::MAX),
        }),
        Err(error) => Report::NotExecuted(error::in_words(&error)),
    })
}

fn execute(root: &Path, id: &str, args: Vec<String>) -> Result<(Exit, Vec<u8>)> {
    let wanted: SigSet = REQUESTS_TO_END.into_iter().collect();
    wanted.thread_block().context("block signals")?;
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    let signals = SignalFd::with_flags(&wanted, flags).context("signalfd")?;
    let null = open("/dev/null", OFlags::RDWR)?;
    let (from, to) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).call(|| "pipe2()".into())?;
    rustix::fs::fcntl_setfl(&from, OFlags::NONBLOCK).call(|| "fcntl(F_SETFL)".into())?;
    duplicate_onto(null.as_fd(), 0)?;
    for number in [1, 2] {
        duplicate_onto(to.as_fd(), number)?;
    }
    let child = spawn(&request(root, id, args)?)?;
    // Its end of the pipe is the only one from now on.
    for number in [1, 2] {
        duplicate_onto(null.as_fd(), number)?;
    }
    drop(to);
    stand_for(&child, &signals, &from)
}

fn request(root: &Path, id: &str, args: Vec<String>) -> Result<ExecRequest> {
    let changes = Changes {
        args,
        ..Changes::default()
    };
    Ok(ExecRequest {
        root: root.to_owned(),
        id: ContainerId::parse(id)?,
        process: Given::Changed(changes),
        detach: true,
        console_socket: None,
        pid_file: None,
        pidfd_socket: None,
        preserve_fds: 0,
        cgroup: None,
        ignore_paused: false,
    })
}

/// Reads what the command prints until it has ended: how, and the end of its output.
fn stand_for(child: &Child, signals: &SignalFd, from: &OwnedFd) -> Result<(Exit, Vec<u8>)> {
    let mut tail = Tail::default();
    let mut is_open = true;
    loop {
        let mut fds = vec![
            PollFd::new(&child.pidfd, PollFlags::IN),
            PollFd::new(signals, PollFlags::IN),
        ];
        if is_open {
            fds.push(PollFd::new(from, PollFlags::IN));
        }
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(SysError::new("poll", errno).into()),
        }
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        if ready[1] {
            let _again = signals.read_signal();
            end_all(child.pid);
        }
        // What is there is read once more after its end, and nothing is waited for: others may have the pipe.
        if is_open {
            is_open = tail.read(from)?;
        }
        if ready[0] {
            let ended = waitid(WaitId::PidFd(child.pidfd.as_fd()), WaitIdOptions::EXITED);
            let ended = ended.call(|| format!("waitid({})", child.pid))?;
            let exit = ended.map_or(Exit::Unknown, |status| exit::of_ended(&status));
            return Ok((exit, tail.0));
        }
    }
}

/// The last bytes of what was printed.
#[derive(Debug, Default)]
struct Tail(Vec<u8>);

impl Tail {
    /// Reads what is there; false when nobody is left to write.
    fn read(&mut self, from: &OwnedFd) -> Result<bool> {
        let mut bytes = [0; 16 << 10];
        // Not for ever from one that prints all the time.
        for _ in 0..64 {
            match rustix::io::read(from, &mut bytes) {
                Ok(0) => return Ok(false),
                Ok(count) => self.add(&bytes[..count]),
                Err(Errno::AGAIN | Errno::INTR) => break,
                Err(errno) => return Err(SysError::new("read(pipe)", errno).into()),
            }
        }
        Ok(true)
    }

    fn add(&mut self, bytes: &[u8]) {
        self.0
            .extend_from_slice(&bytes[bytes.len().saturating_sub(OUTPUT)..]);
        let over = self.0.len().saturating_sub(OUTPUT);
        self.0.drain(..over);
    }
}

/// A process as /proc tells of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    pid: i32,
    parent: i32,
    session: i32,
    /// When it began, which no other process of this number has.
    begun: u64,
}

/// Kills a command and every process that comes from it: its descendants, and those of its session, which
/// is its own, whoever their parent is by now.
fn end_all(command: i32) {
    for _ in 0..ROUNDS {
        let family = family(command, &processes());
        let killed: Vec<_> = family.into_iter().filter(kill).collect();
        if killed.is_empty() {
            return;
        }
        // Their ends; what they have begun meanwhile is found in the next round.
        let left = Timespec {
            tv_sec: 0,
            tv_nsec: 1_000_000,
        };
        let _time = poll(&mut [], Some(&left));
    }
}

/// Every process that lives.
fn processes() -> Vec<Seen> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pid = |entry: fs::DirEntry| entry.file_name().to_str()?.parse().ok();
    entries.filter_map(pid).filter_map(look).collect()
}

fn look(pid: i32) -> Option<Seen> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = fields_after_name(&stat)?;
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    let session = fields.nth(1)?.parse().ok()?;
    let begun = fields.nth(15)?.parse().ok()?;
    let seen = Seen {
        pid,
        parent,
        session,
        begun,
    };
    (state != "Z" && state != "X").then_some(seen)
}

fn family(command: i32, all: &[Seen]) -> Vec<Seen> {
    let mut found: Vec<Seen> = Vec::new();
    loop {
        let is_one = |one: &&Seen| {
            let comes_from =
                |pid: i32| pid == command || found.iter().any(|other| other.pid == pid);
            let belongs = one.pid == command || one.session == command || comes_from(one.parent);
            belongs && !found.contains(one)
        };
        let more: Vec<Seen> = all.iter().filter(is_one).copied().collect();
        if more.is_empty() {
            return found;
        }
        found.extend(more);
    }
}

/// Kills a process if it is still the one that was seen; whether it was there.
fn kill(seen: &Seen) -> bool {
    let pidfd = Pid::from_raw(seen.pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    let Some(pidfd) = pidfd else {
        return false;
    };
    // Its parent may have been killed just before, and be another one now.
    let is_it = look(seen.pid).is_some_and(|now| now.begun == seen.begun);
    is_it && pidfd_send_signal(&pidfd, Signal::KILL).is_ok()
}

/// How long a command may take that `asked` for this.
pub(super) fn limit(asked: u64) -> Option<Duration> {
    (1..=LONGEST)
        .contains(&asked)
        .then(|| Duration::from_millis(asked))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_the_output_is_kept() {
        let mut tail = Tail::default();
        tail.add(b"first");
        assert_eq!(tail.0, b"first");
        for part in [&b"x".repeat(3000)[..], &b"y".repeat(10_000), b"end"] {
            tail.add(part);
        }
        assert_eq!(tail.0.len(), OUTPUT);
        assert!(tail.0.ends_with(b"yend") && !tail.0.contains(&b'x'));
    }

    #[test]
    fn a_commands_family_are_its_descendants_and_its_session() {
        let seen = |pid, parent, session| Seen {
            pid,
            parent,
            session,
            begun: 0,
        };
        let all = [
            seen(1, 0, 1),
            seen(10, 1, 10),
            seen(11, 10, 10),
            // An orphan of the session, one that left it, and its child.
            seen(12, 1, 10),
            seen(14, 13, 13),
            seen(13, 11, 13),
            seen(20, 1, 20),
        ];
        let mut pids: Vec<i32> = family(10, &all).iter().map(|one| one.pid).collect();
        pids.sort_unstable();
        assert_eq!(pids, [10, 11, 12, 13, 14]);
    }
}
