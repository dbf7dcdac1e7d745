//! What the agent knows of its host, what can happen, and what can be done.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use crate::api::{Goal, Health, Phase, TaskStatus};
use crate::job::JobId;
use crate::keeper::Request;
use crate::keeper::policy::Moment;

/// An instance's name: `name.version.digest.index`.
pub type Name = Arc<str>;

/// All that is known.
#[derive(Debug, Clone, Default)]
pub struct State {
    /// The revision of what is wanted; None while that is not known, and nothing is ended for that reason.
    pub revision: Option<u64>,
    /// Every instance that is wanted, or is there.
    pub slots: BTreeMap<Name, Slot>,
    /// By when all instances have ended, while the host is going down.
    pub halting: Option<Moment>,
    /// Which instance waits for which moment.
    pub(super) timers: BTreeSet<(Moment, Name)>,
    /// Where the next jitter comes from.
    pub(super) seed: u64,
}

/// An instance: of these there is one for each name, and it has at most one keeper.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// The job.
    pub job: JobId,
    /// Which of the job's instances.
    pub index: u32,
    /// What is wanted of it.
    pub aim: Aim,
    /// What there is of it.
    pub stage: Stage,
    /// Whether its directory may be there.
    pub exists: bool,
    /// What its keeper has told last, this one or the one before.
    pub report: Option<Arc<Report>>,
    /// What its checks say.
    pub health: Health,
    /// The host's ports, once they are known.
    pub ports: BTreeMap<String, u16>,
    /// Its address, once it is known, where it has a network of its own.
    pub address: Option<Ipv4Addr>,
    /// How often in a row it could not be made or kept.
    pub failures: u32,
    /// How many of its keepers have ended in a row soon after they had begun.
    pub losses: u32,
    /// Why it can not be made, kept or removed.
    pub fault: Option<String>,
    /// The moment it waits for, as it is in the state's timers.
    pub(super) timer: Option<Moment>,
}

/// What is wanted of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aim {
    /// What it was told before: what is wanted is not known.
    AsItIs,
    /// That it runs.
    Run,
    /// That it is there and stopped.
    Rest,
    /// That nothing is left of it.
    Gone,
}

/// What there is of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stage {
    /// Its directory is to be written, not before this moment.
    Unmade {
        /// The moment.
        at: Moment,
    },
    /// Its directory is being written.
    Making,
    /// It has no keeper, and is to get one, not before this moment.
    Unkept {
        /// The moment.
        at: Moment,
    },
    /// A keeper is being started.
    Keeping,
    /// It has a keeper.
    Kept {
        /// Since when.
        since: Moment,
        /// When it was asked to start or to stop, and has not done it yet.
        asked: Option<Moment>,
    },
    /// Its keeper is being ended, and its directory removed.
    Deleting,
    /// That has failed; it is tried again at this moment.
    Remaining {
        /// The moment.
        at: Moment,
    },
}

/// What a keeper tells of its instance, as far as it is of use here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Whether its keeper wants it to run.
    pub wanted: bool,
    /// Whether there is no container and none will come by itself.
    pub is_at_rest: bool,
    /// Whether it has ended only because the host was going down.
    pub halted: bool,
    /// Where it is.
    pub phase: Phase,
    /// Whether it fails again and again.
    pub flapping: bool,
    /// How often it was started again.
    pub restarts: u64,
    /// When the next attempt comes.
    pub next_attempt: Option<String>,
    /// Since when it is in its phase.
    pub since: Option<String>,
    /// Its tasks.
    pub tasks: BTreeMap<String, TaskStatus>,
    /// What does not work, though it may run.
    pub fault: Option<String>,
}

/// An instance that is wanted.
#[derive(Debug, Clone)]
pub struct WantedSlot {
    /// Its name.
    pub name: Name,
    /// The job.
    pub job: JobId,
    /// Which of the job's instances.
    pub index: u32,
    /// Whether it is to run.
    pub goal: Goal,
}

/// All that is wanted.
#[derive(Debug, Clone)]
pub struct Want {
    /// The revision it is from.
    pub revision: u64,
    /// Whether it is followed though it may be older, as somebody has said that it is the truth.
    pub anyway: bool,
    /// The instances, each name once.
    pub slots: Vec<WantedSlot>,
}

/// An instance that was found on disk.
#[derive(Debug, Clone)]
pub struct FoundSlot {
    /// Its name.
    pub name: Name,
    /// The job.
    pub job: JobId,
    /// Which of the job's instances.
    pub index: u32,
    /// The host's ports that it has.
    pub ports: BTreeMap<String, u16>,
    /// The address that it has.
    pub address: Option<Ipv4Addr>,
    /// Whether a keeper is there.
    pub kept: bool,
}

/// What has happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// The agent has begun, and this is what it has found. Once, and first.
    Begun {
        /// The instances on disk.
        found: Vec<FoundSlot>,
        /// What was wanted last; None when that can not be read.
        want: Option<Want>,
    },
    /// This is wanted from now on.
    Want(Want),
    /// The host is going down: all instances are to end within this time, and none is started any more.
    Halt(Duration),
    /// An instance's directory is complete; with its ports, and its address if it has its own.
    Made(Name, BTreeMap<String, u16>, Option<Ipv4Addr>),
    /// It could not be written.
    NotMade(Name, String),
    /// A keeper answers.
    Kept(Name),
    /// None could be started.
    NotKept(Name, String),
    /// What its keeper tells.
    Told(Name, Arc<Report>),
    /// Its keeper has ended.
    Lost(Name),
    /// Nothing is left of it.
    Deleted(Name),
    /// Something is left of it.
    NotDeleted(Name, String),
    /// Its checks have found this, for this reason.
    Checked(Name, Health, String),
    /// Time has passed: [`State::wake_at`] says when this is of use.
    Time,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Write the instance's directory: [`Event::Made`] or [`Event::NotMade`].
    Make(Name),
    /// Start a keeper, or find the one that is there: [`Event::Kept`] or [`Event::NotKept`]; then
    /// [`Event::Told`] with every change, and [`Event::Lost`] with its end.
    Keep(Name, Begin),
    /// Ask its keeper. There is no answer but what it tells.
    Ask(Name, Request),
    /// End its keeper, and remove its containers, if there are any, and its directory: [`Event::Deleted`] or
    /// [`Event::NotDeleted`].
    Delete(Name),
}

/// How a keeper begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// As the last one has left it; with a start where there was none.
    Going,
    /// With a stop: nothing is started.
    AtRest,
    /// With a stop as the host is going down: nothing is started, and what is wanted stays so.
    Halting,
}
