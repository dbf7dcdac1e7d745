//! A copy of the keeper that makes or removes the containers, and ends.
//!
//! Reading a bundle takes memory that the keeper would never get rid of, so it does nothing of the kind
//! itself. The copy dies with its keeper, and has the directory's lock until then: nobody else begins before.
//! What it makes becomes the keeper's child when it ends (PR_SET_CHILD_SUBREAPER, prctl(2)).
//!
//! The containers of a group are all made before the first program is executed. The first one's namespaces,
//! as far as others share them, are held open meanwhile: they are there whatever becomes of it.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::process::{Signal, WaitOptions};
use serde::{Deserialize, Serialize};

use super::copied::Copied;
use super::logs;
use super::spec::Share;
use super::status::Container;
use crate::cgroups::Hierarchy;
use crate::error::{self, Kind};
use crate::lifecycle::create::{self, Sown};
use crate::lifecycle::delete::{self, Force};
use crate::lifecycle::id::ContainerId;
use crate::lifecycle::joins::{Held, Join};
use crate::lifecycle::record::Snapshot;
use crate::lifecycle::{CreateRequest, ManagerChoice, RunOptions};
use crate::lifecycle::{Status as Life, query, start};
use crate::sys::process::duplicate_onto;
use crate::sys::{Call, Errno, SysError, SysResult};

/// The annotation of a keeper's containers: the directory of their instance. `state` shows it.
pub const KEEPER: &str = "org.parhelion.keeper";

/// What it takes to make and remove an instance's containers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Recipe {
    /// The instance's directory, absolute.
    pub directory: PathBuf,
    /// Its containers, in the order in which they are made.
    pub parts: Vec<Part>,
    /// Directory of all containers' state, absolute.
    pub root: PathBuf,
    /// Who makes cgroups.
    pub cgroup_manager: ManagerChoice,
    /// Whether they are an ordinary user's.
    pub rootless: Option<bool>,
}

/// One container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Part {
    /// Its task's name, in a group.
    pub name: Option<String>,
    /// The container's id.
    pub id: String,
    /// The bundle's directory, absolute.
    pub bundle: PathBuf,
    /// Which of the first one's namespaces it is in.
    pub share: Vec<Share>,
}

/// What a helper is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// Removes what is left of the containers and makes new ones.
    Create,
    /// Removes what is left.
    Remove,
}

/// What a helper has done.
#[derive(Debug, Serialize, Deserialize)]
pub enum Report {
    /// The programs were executed.
    Made(Vec<Container>),
    /// It was not, and why.
    NotMade(String),
    /// Nothing is left.
    Removed,
    /// Something is left, and why.
    NotRemoved(String),
}

/// A helper that works.
#[derive(Debug)]
pub struct Helper {
    /// What it does.
    pub task: Task,
    copy: Copied,
}

impl Helper {
    /// Starts one.
    ///
    /// # Errors
    ///
    /// Out of memory, processes or descriptors.
    pub fn start(task: Task, recipe: &Recipe) -> Result<Helper> {
        let copy = Copied::start(Signal::KILL, || recipe.work(task))?;
        Ok(Helper { task, copy })
    }

    /// Where its report arrives.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.copy.fd()
    }

    /// What it has done: call it when there is something to read. One that ended without a word has failed.
    pub fn report(&self) -> Report {
        self.copy.report().unwrap_or_else(|| {
            let why = "the process that worked on the container was killed".to_owned();
            match self.task {
                Task::Create => Report::NotMade(why),
                Task::Remove => Report::NotRemoved(why),
            }
        })
    }

    /// Kills it, with everything of the container that does not run yet.
    pub fn kill(&self) {
        self.copy.signal(Signal::KILL);
    }
}

impl Recipe {
    /// The helper's whole work.
    fn work(&self, task: Task) -> Report {
        match task {
            Task::Create => match self.create() {
                Ok(containers) => Report::Made(containers),
                Err(error) => Report::NotMade(error::in_words(&error)),
            },
            Task::Remove => match self.remove() {
                Ok(()) => Report::Removed,
                Err(error) => Report::NotRemoved(error::in_words(&error)),
            },
        }
    }
}

impl Recipe {
    /// Removes what is left and makes the containers, with their output on the instance's pipes.
    fn create(&self) -> Result<Vec<Container>> {
        self.remove()?;
        match &self.parts[..] {
            [part] if part.name.is_none() => Ok(vec![self.run(part)?]),
            parts => self.create_group(parts),
        }
    }

    fn run(&self, part: &Part) -> Result<Container> {
        connect_streams(part)?;
        let options = RunOptions {
            detach: true,
            keep: true,
            no_subreaper: true,
        };
        create::run(&self.request(part, Vec::new())?, &options, Sown::default())?;
        let made = Snapshot::read(&self.root, &part.id()?)?;
        container(&made).context("the container was deleted at once")
    }

    /// Makes all containers before a program of any of them is executed.
    fn create_group(&self, parts: &[Part]) -> Result<Vec<Container>> {
        let made = self.create_all(parts).and_then(|()| self.start_all(parts));
        made.map_err(|error| match self.remove() {
            Ok(()) => error,
            Err(left) => error.context(format!(
                "not all could be removed ({}) after this failure",
                error::in_words(&left)
            )),
        })
    }

    fn create_all(&self, parts: &[Part]) -> Result<()> {
        let shared: BTreeSet<&str> = parts.iter().flat_map(Part::shared).collect();
        let shared: Vec<&str> = shared.into_iter().collect();
        let mut held = None;
        for part in parts {
            let name = || format!("task {:?}", part.name());
            connect_streams(part)?;
            let names: Vec<&str> = part.shared().collect();
            let joins = held.as_ref().map(|held: &Held| held.join(&names));
            let request = self.request(part, joins.unwrap_or_default())?;
            create::create(&request, Sown::default()).with_context(name)?;
            if held.is_none() {
                held = Some(self.hold(part, &shared).with_context(name)?);
            }
        }
        Ok(())
    }

    /// Holds the first one's namespaces. While its program waits, nobody but root may look into its process: for
    /// an ordinary user it is executed here, before the others are made.
    fn hold(&self, first: &Part, shared: &[&str]) -> Result<Held> {
        let id = first.id()?;
        let record = Snapshot::read(&self.root, &id)?;
        match Held::of(&record, shared) {
            Err(error) if is_denied(&error) => {
                start::start(&self.root, &id)?;
                Held::of(&record, shared)
            }
            held => held,
        }
    }

    /// Executes the programs. One that can not be executed as an earlier one has ended by now, which took the
    /// pid namespace of both with it, has ended too.
    fn start_all(&self, parts: &[Part]) -> Result<Vec<Container>> {
        let mut made: Vec<Container> = Vec::new();
        for part in parts {
            let record = Snapshot::read(&self.root, &part.id()?)?;
            let this = container(&record).with_context(|| format!("task {:?}", part.name()))?;
            let starts = match query::status(&record)? {
                Life::Created { .. } => start::start(&self.root, &part.id()?),
                Life::Creating | Life::Running { .. } | Life::Paused { .. } | Life::Stopped => {
                    Ok(())
                }
            };
            if let Err(error) = starts {
                let ended = |one: &Container| one.process.open().is_ok_and(|open| open.is_none());
                if !(ended(&this) && made.iter().any(ended)) {
                    return Err(error.context(format!("task {:?}", part.name())));
                }
            }
            made.push(this);
        }
        Ok(made)
    }

    fn request(&self, part: &Part, joins: Vec<Join>) -> Result<CreateRequest> {
        let directory = self.directory.to_string_lossy().into_owned();
        Ok(CreateRequest {
            root: self.root.clone(),
            id: part.id()?,
            bundle: part.bundle.clone(),
            config: None,
            console_socket: None,
            pid_file: None,
            pidfd_socket: None,
            preserve_fds: 0,
            no_pivot: false,
            no_new_keyring: false,
            cgroup_manager: self.cgroup_manager,
            rootless: self.rootless,
            annotations: BTreeMap::from([(KEEPER.to_owned(), directory)]),
            joins,
        })
    }

    /// Ends and removes the instance's containers, the last one first, and none of somebody else's. All are
    /// tried.
    fn remove(&self) -> Result<()> {
        let mut failed = Ok(());
        for part in self.parts.iter().rev() {
            let removed = self.remove_one(part);
            // Those that this process has made: a pid namespace does not end before they are waited for.
            while let Ok(Some(_)) = rustix::process::wait(WaitOptions::NOHANG) {}
            failed = failed.and(removed);
        }
        failed
    }

    fn remove_one(&self, part: &Part) -> Result<()> {
        let id = part.id()?;
        match Snapshot::read(&self.root, &id) {
            Ok(found) => self.check_ours(&found)?,
            Err(error) if Kind::is_not_found(&error) => return Ok(()),
            Err(error) => {
                return Err(error.context("delete it with --force, as its owner is not known"));
            }
        }
        delete::delete(&self.root, &id, Force::Yes)
    }

    /// Refuses a container that was not made for this instance.
    ///
    /// # Errors
    ///
    /// It was made by somebody else.
    pub fn check_ours(&self, found: &Snapshot) -> Result<()> {
        let keeper = found.facts.annotations.get(KEEPER).map(Path::new);
        // One without a record is what a helper that was killed has left.
        if found.is_written() && keeper != Some(&self.directory) {
            bail!(
                "container {:?} is there and is not of this instance: delete it, or choose another id",
                found.id.as_str()
            );
        }
        Ok(())
    }

    /// What messages call the instance.
    pub fn title(&self) -> &str {
        self.parts.first().map_or("", |part| &part.id)
    }
}

impl Part {
    fn id(&self) -> Result<ContainerId> {
        ContainerId::parse(&self.id)
    }

    fn name(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.id)
    }

    fn shared(&self) -> impl Iterator<Item = &'static str> {
        self.share.iter().map(|share| share.name())
    }
}

fn is_denied(error: &anyhow::Error) -> bool {
    let io = error
        .chain()
        .find_map(|cause| cause.downcast_ref::<std::io::Error>());
    io.is_some_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied)
        || error.chain().any(|cause| {
            let errno = cause.downcast_ref::<SysError>().map(|error| error.errno);
            errno == Some(Errno::ACCESS)
        })
}

/// A container by its record; None when it has no process.
pub fn container(record: &Snapshot) -> Result<Container> {
    let process = record.init.clone().context("it has no process")?;
    let cgroup = match &record.facts.cgroup {
        Some(path) => {
            let below = path.strip_prefix("/").unwrap_or(path);
            Some(Hierarchy::find()?.mount_point().join(below))
        }
        None => None,
    };
    Ok(Container {
        process,
        cgroup,
        adopted: false,
    })
}

/// Makes a container's pipes the standard streams of this process, which it inherits. It gets both ends, so
/// that it never writes to a pipe that nobody reads (docs/decisions/0014).
fn connect_streams(part: &Part) -> SysResult<()> {
    let null = open("/dev/null", OFlags::RDONLY)?;
    duplicate_onto(null.as_fd(), 0)?;
    for (number, name) in (1..).zip(logs::STREAMS) {
        let folder = logs::place(part.name.as_deref());
        let fifo = open(&format!("{folder}/{}/{name}", logs::FOLDER), OFlags::RDWR)?;
        duplicate_onto(fifo.as_fd(), number)?;
    }
    Ok(())
}

pub(super) fn open(path: &str, flags: OFlags) -> SysResult<OwnedFd> {
    rustix::fs::openat(CWD, path, flags | OFlags::CLOEXEC, Mode::empty())
        .call(|| format!("open({path:?})"))
}
