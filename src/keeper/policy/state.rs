//! What is known of an instance, what can happen to it, and what can be done.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Cause, Counts, InARow, Moment};

/// How a container's program has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Exit {
    /// With this code.
    Code(u8),
    /// By this signal.
    Signal(i32),
    /// In a way that the kernel tells nobody any more: it ended while it had no keeper, or it was no child
    /// of its keeper and the kernel is older than Linux 6.15. A failure.
    Unknown,
}

/// Where an instance is, with what is true there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub enum Phase {
    /// There is no container, and none will come by itself.
    Resting {
        /// Why not.
        why: Rest,
    },
    /// The next attempt has its moment.
    Waiting {
        /// Why the last one has ended.
        cause: Cause,
        /// The moment of the next one.
        until: Moment,
    },
    /// The container is being made.
    Starting {
        /// Since when.
        since: Moment,
        /// When what there is of it is killed, as it is not wanted any more or the host is going down.
        kill_at: Option<Moment>,
    },
    /// The program runs.
    Running {
        /// Since when.
        since: Moment,
    },
    /// The program was told to end, or will be in a moment.
    Stopping {
        /// Why.
        why: Stop,
        /// When it is told, if it was not yet.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        signal_at: Option<Moment>,
        /// When every process is killed, for the first time or again.
        kill_at: Moment,
        /// Whether that was done already.
        killed: bool,
    },
    /// The program has ended, and what is left of the container is being removed.
    Removing {
        /// What comes then.
        next: Next,
        /// When it is tried again, if it has failed.
        again_at: Option<Moment>,
    },
}

/// Why there is no container and none will come by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rest {
    /// There was no attempt yet.
    New,
    /// Somebody has asked for it.
    Stopped,
    /// It ended with a success code, and is not started again after such an end.
    Completed,
    /// It failed, and is never started again.
    Failed,
    /// The host is going down. The next keeper starts it again.
    Halted,
}

/// Why a program was told to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stop {
    /// It is not wanted.
    Asked,
    /// It is to be started again at once.
    Restart,
    /// It was found to be unhealthy.
    Unhealthy,
    /// Another program of its group has ended, and they live and die together.
    Group,
    /// The host is going down.
    Host,
}

/// What comes when the remains of a container are removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Next {
    /// Nothing.
    Rest(Rest),
    /// An attempt, not before this moment.
    Attempt(Cause, Moment),
}

/// All that is known of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// Whether it is to run.
    pub wanted: bool,
    /// Where it is.
    pub phase: Phase,
    /// Failures since the last good run, or since somebody has asked for a start.
    pub in_a_row: InARow,
    /// What has happened since the beginning.
    pub counts: Counts,
    /// What the next jitter comes from.
    pub seed: u64,
}

impl State {
    /// An instance that was never started and is wanted.
    #[must_use]
    pub fn new(seed: u64) -> State {
        State {
            wanted: true,
            phase: Phase::Resting { why: Rest::New },
            in_a_row: InARow::default(),
            counts: Counts::default(),
            seed,
        }
    }

    /// Whether it is wanted and fails again and again: at least twice since its last good run.
    #[must_use]
    pub fn is_flapping(&self) -> bool {
        self.wanted && self.in_a_row.worst() >= 2
    }

    /// Whether it has ended, or is about to, only because the host is going down.
    #[must_use]
    pub fn is_halted(&self) -> bool {
        match self.phase {
            Phase::Resting { why } => why == Rest::Halted,
            Phase::Starting { kill_at, .. } => self.wanted && kill_at.is_some(),
            Phase::Stopping { why, .. } => why == Stop::Host,
            Phase::Removing { next, .. } => next == Next::Rest(Rest::Halted),
            Phase::Waiting { .. } | Phase::Running { .. } => false,
        }
    }
}

/// What has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A keeper has begun, and this is what it has found.
    Found(Found),
    /// Somebody asks for a start: at once, whatever has failed before.
    Start,
    /// Somebody asks for the end, and for no further start.
    Stop,
    /// Somebody asks for the end and a start at once.
    Restart,
    /// Somebody has found it to be unhealthy.
    Unhealthy,
    /// The host is going down: it is to end, with its grace but within this time, and is not started again before the
    /// next boot, or before somebody asks. What is wanted stays so.
    Halt(Duration),
    /// The container, or all of a group, was made, and its program was executed.
    Made,
    /// It could not be made; nothing runs.
    NotMade,
    /// A program has ended, and whether others of its group go on.
    Exited(Exit, Others),
    /// What was left of the container is gone.
    Removed,
    /// It could not be removed.
    NotRemoved,
    /// Time has passed: [`super::Policy::wake_at`] says when this is of use.
    Time,
}

/// Whether further programs of an instance run when one has ended: never where it has one container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Others {
    /// At least one does.
    Run,
    /// It was the last one.
    Ended,
}

/// What a new keeper finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Every program runs that has not ended well before.
    Alive,
    /// Some programs of a group run. How others have ended is not known, or they were never executed.
    Part,
    /// No process.
    Nothing,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Remove what may be left of a container, make one and execute its program; with a group, all of them:
    /// [`Event::Made`] or [`Event::NotMade`].
    Create,
    /// Send the stop signal to every program that runs.
    Signal,
    /// Kill every process, and whoever is making the container.
    Kill,
    /// Remove what is left of the container: [`Event::Removed`] or [`Event::NotRemoved`].
    Remove,
}
