//! What a keeper tells of its instance: `status.json` in its directory, and the same at its socket.
//!
//! The file is replaced whole, by a rename, with every change, and never synchronised to the disk: it is to
//! survive the keeper, for the next one and for whoever asks; after a crash of the host there is no container
//! to find. Its size is bounded: the last [`ATTEMPTS`] attempts are in it.

use std::path::PathBuf;

use rustix::fd::BorrowedFd;
use rustix::fs::{AtFlags, Mode, OFlags};
use serde::{Deserialize, Serialize};

use super::helper::Part;
use super::policy::{Exit, State, Stop};
use super::written;
use crate::lifecycle::facts::now;
use crate::lifecycle::process::Process;
use crate::sys::{Call, Errno, SysResult};

/// The file's name.
pub const FILE: &str = "status.json";

/// Its name until it is complete.
const NEW: &str = "status.json.new";

/// How many attempts are told of.
pub const ATTEMPTS: usize = 16;

/// The longest reason that is kept, in bytes.
const REASON: usize = 400;

/// What is told. Its JSON is that of [`written`]: what belongs to a task stands beside the rest where an
/// instance has one container, and in `tasks` where it has a group.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(into = "written::Status", try_from = "written::Status")]
pub struct Status {
    /// Its containers, in the order in which they are made; one at least.
    pub tasks: Vec<Task>,
    /// The directory of the containers' state: `--root`.
    pub root: PathBuf,
    /// The kernel's boot id: moments in `state` count from this boot.
    pub boot: String,
    /// The keeper's process id; 0 when it has left the container.
    pub keeper: u32,
    /// What the policy knows.
    pub state: State,
    /// Whether it is wanted and fails again and again.
    pub flapping: bool,
    /// When the next attempt comes, while it waits for one.
    pub next_attempt: Option<String>,
    /// The last attempts, the latest one at the end.
    pub attempts: Vec<Attempt>,
    /// What does not work now, though the container runs.
    pub faults: Faults,
}

/// One container of an instance, or its only one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Task {
    /// Its name in the group; None for the only one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The container's id.
    pub id: String,
    /// The bundle's directory.
    pub bundle: PathBuf,
    /// The container, while its program runs.
    pub container: Option<Container>,
    /// What became of its output.
    pub log: LogCounts,
}

/// A container whose program runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Container {
    /// Its first process.
    pub process: Process,
    /// Its cgroup's directory; None where it has none of its own.
    pub cgroup: Option<PathBuf>,
    /// Whether an earlier keeper has started it, so that it is no child of this one.
    pub adopted: bool,
}

/// One attempt.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Attempt {
    /// Counted from 1; 0 for one that began before all that is known.
    pub number: u64,
    /// When it began.
    pub begun: String,
    /// When the last program ended, or it could not be made.
    pub ended: Option<String>,
    /// Why it was told to end.
    pub told: Option<Stop>,
    /// Why it could not be made, or what was found to be unhealthy.
    pub reason: Option<String>,
    /// The programs, one for each task.
    pub programs: Vec<Program>,
}

/// A program of an attempt.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Program {
    /// Its process id, once it was executed.
    pub pid: Option<i32>,
    /// When it ended.
    pub ended: Option<String>,
    /// How it ended.
    pub exit: Option<Exit>,
    /// How many processes the kernel has killed for want of memory.
    pub oom_kills: u64,
}

/// What became of the output, since this keeper began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LogCounts {
    /// Bytes that came.
    pub bytes: u64,
    /// Lines of them that were dropped.
    pub dropped_lines: u64,
    /// Bytes that were dropped.
    pub dropped_bytes: u64,
    /// How many files were begun because one was full.
    pub rotations: u64,
}

/// What does not work.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Faults {
    /// Writing this file.
    pub status: Option<String>,
    /// Writing the log.
    pub log: Option<String>,
    /// Removing what is left of a container, or learning how it has ended.
    pub container: Option<String>,
}

impl Task {
    /// A container that does not run.
    #[must_use]
    pub fn of(part: &Part) -> Task {
        Task {
            name: part.name.clone(),
            id: part.id.clone(),
            bundle: part.bundle.clone(),
            ..Task::default()
        }
    }
}

impl Status {
    /// The last attempt; there is one since the first `create`.
    pub fn attempt(&mut self) -> Option<&mut Attempt> {
        self.attempts.last_mut()
    }

    /// The program of a task in the last attempt.
    pub fn program(&mut self, task: usize) -> Option<&mut Program> {
        self.attempts.last_mut()?.programs.get_mut(task)
    }

    /// Begins an attempt.
    pub fn begin_attempt(&mut self) {
        if self.attempts.len() >= ATTEMPTS {
            self.attempts.remove(0);
        }
        self.attempts.push(Attempt {
            number: self.state.counts.attempts,
            begun: now(),
            programs: vec![Program::default(); self.tasks.len()],
            ..Attempt::default()
        });
    }

    /// The attempts as those of these containers: the program of a task that is none of them is left out.
    #[must_use]
    pub fn attempts_of(mut self, parts: &[Part]) -> Vec<Attempt> {
        let place = |part: &Part| self.tasks.iter().position(|task| task.name == part.name);
        let places: Vec<_> = parts.iter().map(place).collect();
        for attempt in &mut self.attempts {
            let program = |place: &Option<usize>| attempt.programs.get((*place)?).cloned();
            let programs = places.iter().map(program);
            attempt.programs = programs.map(Option::unwrap_or_default).collect();
        }
        self.attempts
    }

    /// The text of the file and of a message.
    #[must_use]
    pub fn text(&self) -> Vec<u8> {
        // Nothing in it can fail to be written: no map has a key that is no text.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Replaces the file in `directory`.
    ///
    /// # Errors
    ///
    /// What the file system answered, as `ENOSPC`; the one before stays.
    pub fn write(&self, directory: BorrowedFd<'_>) -> SysResult<()> {
        let written = write_new(directory, &self.text()).call(|| format!("write({NEW:?})"));
        let renamed = written.and_then(|()| {
            rustix::fs::renameat(directory, NEW, directory, FILE)
                .call(|| format!("rename({NEW:?}, {FILE:?})"))
        });
        if renamed.is_err() {
            // It may never have been made.
            let _gone = rustix::fs::unlinkat(directory, NEW, AtFlags::empty());
        }
        renamed
    }
}

fn write_new(directory: BorrowedFd<'_>, text: &[u8]) -> Result<(), Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
    let file = rustix::fs::openat(directory, NEW, flags, Mode::RUSR | Mode::WUSR)?;
    let mut rest = text;
    while !rest.is_empty() {
        let count = rustix::io::retry_on_intr(|| rustix::io::write(&file, rest))?;
        rest = &rest[count..];
    }
    Ok(())
}

/// A reason as it is kept: not longer than [`REASON`] bytes.
#[must_use]
pub fn reason(mut text: String) -> String {
    if text.len() > REASON {
        let end = (0..=REASON).rev().find(|end| text.is_char_boundary(*end));
        text.truncate(end.unwrap_or(0));
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_cut_between_characters() {
        assert_eq!(reason("short".into()), "short");
        let long = reason("ü".repeat(300) + "x");
        assert_eq!(long, "ü".repeat(200) + "…");
        let odd = reason(format!("x{}", "ü".repeat(300)));
        assert_eq!(odd, format!("x{}…", "ü".repeat(199)));
    }
}
