//! What a keeper needs to know, read and checked by a process that then ends.
//!
//! Text is parsed here and nowhere else: what the keeper gets is small and in the form in which it is used.
//! The directory's lock comes first, so that what is found afterwards stays true.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::fs::{CWD, FlockOperation, Mode, OFlags, flock};
use serde::{Deserialize, Serialize};

use super::clock;
use super::control::Connection;
use super::helper::{self, Part, Recipe};
use super::policy::{Event, Policy, State};
use super::spec::{LogSpec, Spec, TaskSpec};
use super::status::{self, Attempt, Container, Status, Task};
use crate::cgroups::Deadline;
use crate::error::{self, Kind};
use crate::lifecycle::id::ContainerId;
use crate::lifecycle::process::boot_id;
use crate::lifecycle::record::Snapshot;
use crate::lifecycle::{ManagerChoice, Status as Life, query};
use crate::sys::{self, Call, Errno, SysResult};

/// The file that a keeper locks for its life.
const LOCK: &str = "lock";

/// How long the helper of a keeper that was killed may take to end with it.
const LOCK_LIMIT: Duration = Duration::from_secs(10);

/// What `keep` is asked to do.
#[derive(Debug, Clone)]
pub struct KeepRequest {
    /// The instance's directory, absolute.
    pub directory: PathBuf,
    /// Directory of all containers' state, absolute.
    pub root: PathBuf,
    /// Who makes cgroups.
    pub cgroup_manager: ManagerChoice,
    /// Whether they are an ordinary user's; None: as the rights are.
    pub rootless: Option<bool>,
    /// What comes before anything else.
    pub begin: Begin,
}

/// What a keeper begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// It goes on with what the last one has left.
    Going,
    /// The instance is stopped: nothing is started.
    Stop,
    /// It is stopped as the host is going down: nothing is started, and what is wanted stays so.
    Halt,
}

/// What a keeper is to do, and what was found.
#[derive(Debug, Serialize, Deserialize)]
pub struct Orders {
    pub(super) recipe: Recipe,
    pub(super) policy: Policy,
    /// What there is for each container.
    pub(super) tasks: Vec<TaskOrders>,
    /// The kernel's boot id.
    pub(super) boot: String,
    /// What the last keeper has left, or a beginning.
    pub(super) state: State,
    pub(super) attempts: Vec<Attempt>,
}

/// What is to be done for one container.
#[derive(Debug, Serialize, Deserialize)]
pub struct TaskOrders {
    /// The stop signal's number.
    pub(super) signal: i32,
    pub(super) log: LogSpec,
    /// The container, if its program runs.
    pub(super) found: Option<Container>,
}

/// The instance's directory and its lock, both open.
#[derive(Debug)]
pub struct Ground {
    /// The directory.
    pub directory: OwnedFd,
    /// The lock, held until every copy of the descriptor is closed.
    pub lock: OwnedFd,
}

impl Orders {
    /// Locks the directory and finds out what is to be done.
    ///
    /// # Errors
    ///
    /// Another keeper is there; what is wrong with `keeper.json`; or a container of somebody else has the id.
    pub fn find(request: KeepRequest) -> Result<(Orders, Ground)> {
        let directory = open_directory(&request.directory)?;
        let spec = Spec::load(&request.directory)?;
        let lock = lock(directory.as_fd())?;
        let recipe = Recipe {
            directory: request.directory,
            parts: spec.tasks.iter().map(part).collect(),
            root: request.root,
            cgroup_manager: request.cgroup_manager,
            rootless: request.rootless,
        };
        let last = last_status(&recipe.directory.join(status::FILE));
        if let Some(last) = &last {
            check_last(last, &recipe)?;
        }
        let task = |task: &TaskSpec| {
            Ok(TaskOrders {
                signal: task.stop_signal.unwrap_or(spec.stop.signal),
                log: task.log.unwrap_or(spec.log),
                found: find_container(&recipe, &task.id)?,
            })
        };
        let tasks: Result<Vec<_>> = spec.tasks.iter().map(task).collect();
        let (mut state, attempts) = match last {
            Some(last) => (last.state.clone(), last.attempts_of(&recipe.parts)),
            None => (State::new(seed()), Vec::new()),
        };
        let policy = spec.policy();
        // What it asks for follows from what was found, which the keeper tells the policy first of all.
        state = match request.begin {
            Begin::Going => policy.resumed(state, clock::now()),
            Begin::Stop => policy.step(&state, Event::Stop, clock::now()).0,
            Begin::Halt => {
                let halt = Event::Halt(policy.grace);
                policy.step(&state, halt, clock::now()).0
            }
        };
        let orders = Orders {
            policy,
            tasks: tasks?,
            boot: boot_id().context("which boot this is")?,
            state,
            attempts,
            recipe,
        };
        Ok((orders, Ground { directory, lock }))
    }
}

fn part(task: &TaskSpec) -> Part {
    Part {
        name: task.name.clone(),
        id: task.id.to_string(),
        bundle: task.bundle.clone(),
        share: task.share.clone(),
    }
}

/// What jitter begins with.
fn seed() -> u64 {
    clock::now().as_nanos() as u64 ^ u64::from(std::process::id()).rotate_left(32)
}

/// Opens an instance's directory.
///
/// # Errors
///
/// There is none.
pub fn open_directory(path: &Path) -> SysResult<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, path, flags, Mode::empty())
        .call(|| format!("open({path:?}, O_DIRECTORY)"))
}

/// Locks an instance's directory.
pub fn lock(directory: BorrowedFd<'_>) -> Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let mode = Mode::RUSR | Mode::WUSR;
    let lock =
        rustix::fs::openat(directory, LOCK, flags, mode).call(|| format!("open({LOCK:?})"))?;
    let end = Deadline::after(LOCK_LIMIT);
    loop {
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(lock),
            Err(Errno::WOULDBLOCK | Errno::INTR) => {}
            Err(errno) => Err(errno).call(|| format!("flock({LOCK:?})"))?,
        }
        // One that answers is there to stay; a helper of one that was killed is about to end.
        if Connection::open(directory)?.is_some() {
            bail!("a keeper is there already: parhelion keeper status DIR asks it");
        }
        if end.left().is_none() {
            bail!("its lock is held by a process that does not answer at its socket");
        }
        sys::lock::wait_a_moment();
    }
}

/// What the last keeper has written. A file that is damaged is as good as none: a container that runs is
/// found all the same.
fn last_status(path: &Path) -> Option<Status> {
    let read = match std::fs::read(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        read => read.map_err(anyhow::Error::from),
    };
    let status = read.and_then(|text| Ok(serde_json::from_slice(&text)?));
    let unknown = |error| {
        let why = error::in_words(&error);
        error::warn(&format!(
            "{path:?}: {why}: what happened before is not known"
        ));
    };
    status.map_err(unknown).ok()
}

/// Refuses to leave a container alone that runs under another id or root, as this one has had.
fn check_last(last: &Status, recipe: &Recipe) -> Result<()> {
    for Task { id, container, .. } in &last.tasks {
        if last.root == recipe.root && recipe.parts.iter().any(|part| part.id == *id) {
            continue;
        }
        let alive = container.as_ref().map(|container| container.process.open());
        if alive.transpose()?.flatten().is_some() {
            let root = &last.root;
            bail!(
                "its container {id:?} still runs, with --root {root:?}: go on with that, or delete it first"
            );
        }
    }
    Ok(())
}

/// The instance's container, if its program runs.
fn find_container(recipe: &Recipe, id: &ContainerId) -> Result<Option<Container>> {
    let record = match Snapshot::read(&recipe.root, id) {
        Ok(record) => record,
        Err(error) if Kind::is_not_found(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    recipe.check_ours(&record)?;
    match query::status(&record)? {
        Life::Running { .. } | Life::Paused { .. } => helper::container(&record).map(Some),
        // One that was not started yet never will be, and is made anew.
        Life::Creating | Life::Created { .. } | Life::Stopped => Ok(None),
    }
}
