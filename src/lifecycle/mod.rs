//! The recipes behind each OCI verb, and which verb is legal in which status.
//!
//! A container is what its record on disk ([`record`]) and the kernel say of it; [`query::status`]
//! puts both together. A verb that changes a container holds its record's lock and asks [`permit`]
//! first; `kill` and the queries hold none, so that neither a slow hook nor a hung one stands in
//! their way.

mod caller;
pub mod checkpoint;
pub mod create;
pub mod delete;
pub mod described;
mod descriptors;
mod devices;
mod directory;
pub mod duration;
pub mod events;
pub mod exec;
pub mod facts;
pub mod features;
mod filters;
pub mod foreground;
pub mod freeze;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod ground;
mod guide;
pub mod handover;
pub mod hooks;
pub mod id;
mod interrupt;
mod joinable;
pub mod joins;
pub mod kill;
mod limits;
pub mod mounts;
mod notify;
mod pid_file;
mod place;
mod plans;
pub mod process;
pub mod ps;
pub mod query;
mod reap;
pub mod record;
pub mod select;
mod set_up;
pub mod start;
mod terminal;
#[cfg(test)]
mod testing;
mod trail;
mod trees;
pub mod update;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use anyhow::{Result, bail};

pub use crate::cgroups::ManagerChoice;
use crate::error::Kind;
use crate::sys::rights::Rights;
use id::ContainerId;

/// Makes this process ready for any verb, whatever its caller has left it with. Call it first.
pub fn prepare() {
    crate::sys::signals::keep_ended_children();
}

/// An error of a verb, with its reason where that is the host's state and no call's.
#[must_use]
pub fn explain(error: anyhow::Error) -> anyhow::Error {
    match std::fs::exists("/proc/self") {
        Ok(false) => error.context("procfs, which is needed, is not mounted at /proc"),
        Ok(true) | Err(_) => error,
    }
}

/// What a container is at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// No process was cloned yet; or never will be, when the create that did it has ended.
    Creating,
    /// Init waits for `start`.
    Created {
        /// Init's pid in the runtime's pid namespace.
        pid: i32,
    },
    /// The container's program runs.
    Running {
        /// Init's pid in the runtime's pid namespace.
        pid: i32,
    },
    /// Every process inside is frozen.
    Paused {
        /// Init's pid in the runtime's pid namespace.
        pid: i32,
    },
    /// Init has ended.
    Stopped,
}

impl Status {
    /// Init's pid while there is one.
    pub fn pid(&self) -> Option<i32> {
        match *self {
            Status::Created { pid } | Status::Running { pid } | Status::Paused { pid } => Some(pid),
            Status::Creating | Status::Stopped => None,
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Status::Creating => "creating",
            Status::Created { .. } => "created",
            Status::Running { .. } => "running",
            Status::Paused { .. } => "paused",
            Status::Stopped => "stopped",
        })
    }
}

/// A verb whose legality depends on the status. `kill` is none: its signal goes to a living init or
/// nowhere, and only the pidfd it goes through can tell which. Queries are always legal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Execute the program.
    Start,
    /// Execute a further process.
    Exec,
    /// Freeze all processes.
    Pause,
    /// Thaw them.
    Resume,
    /// Change limits and devices.
    Update,
    /// Add or remove mounts.
    Mounts,
    /// Write its processes to images.
    Checkpoint,
    /// Remove what is left, without force.
    Delete,
}

/// The one table of which verb is legal in which status. The refusals are runc's words, which
/// callers match.
///
/// # Errors
///
/// [`Kind::NotRunning`] and [`Kind::WrongStatus`].
pub fn permit(verb: Verb, id: &ContainerId, status: &Status) -> Result<(), Kind> {
    use Status::{Created, Creating, Paused, Running, Stopped};
    let wrong = |reason: String| {
        Err(Kind::WrongStatus {
            id: id.to_string(),
            reason,
        })
    };
    match (verb, status) {
        (Verb::Start, Created { .. }) => Ok(()),
        (Verb::Start, Running { .. }) => wrong("cannot start an already running container".into()),
        (Verb::Start, Stopped) => wrong("cannot start a container that has stopped".into()),
        (Verb::Start, Creating | Paused { .. }) => {
            wrong(format!("cannot start a container in the {status} state"))
        }
        (Verb::Exec, Created { .. } | Running { .. }) => Ok(()),
        (Verb::Exec, Stopped) => wrong("cannot exec in a stopped container".into()),
        (Verb::Exec, Creating) => Err(Kind::NotRunning(id.to_string())),
        (Verb::Exec, Paused { .. }) => {
            wrong("cannot exec in a paused container (use --ignore-paused to override)".into())
        }
        (Verb::Pause, Created { .. } | Running { .. }) => Ok(()),
        (Verb::Pause, Creating | Paused { .. } | Stopped) => Err(Kind::NotRunning(id.to_string())),
        (Verb::Update | Verb::Mounts, Created { .. } | Running { .. } | Paused { .. }) => Ok(()),
        (Verb::Update | Verb::Mounts, Creating | Stopped) => Err(Kind::NotRunning(id.to_string())),
        (Verb::Resume, Paused { .. }) => Ok(()),
        (Verb::Resume, Creating | Created { .. } | Running { .. } | Stopped) => {
            wrong("container not paused".into())
        }
        (Verb::Checkpoint, Running { .. } | Paused { .. }) => Ok(()),
        (Verb::Checkpoint, Creating | Created { .. } | Stopped) => wrong(format!(
            "container cannot be checkpointed in {status} state"
        )),
        // Who deletes has the record's lock, so a container that is still being created is one
        // whose create has died.
        (Verb::Delete, Creating | Created { .. } | Stopped) => Ok(()),
        (Verb::Delete, Running { .. } | Paused { .. }) => wrong(format!(
            "cannot delete container {id} that is not stopped: {status}"
        )),
    }
}

/// What `create` and `run` are asked to do.
#[derive(Debug, Clone)]
pub struct CreateRequest {
    /// Directory of all state directories.
    pub root: PathBuf,
    /// The container's id.
    pub id: ContainerId,
    /// The bundle's directory, absolute.
    pub bundle: PathBuf,
    /// The file of the configuration, absolute, where it is not the bundle's own config.json.
    pub config: Option<PathBuf>,
    /// A unix socket that receives the terminal's master.
    pub console_socket: Option<PathBuf>,
    /// A file that receives init's pid.
    pub pid_file: Option<PathBuf>,
    /// A unix socket that receives init's pidfd.
    pub pidfd_socket: Option<PathBuf>,
    /// How many descriptors after stderr the program keeps, besides those of `LISTEN_FDS`.
    pub preserve_fds: u32,
    /// Move the root's mount over `/` instead of pivot_root(2): for a host that runs from an initramfs.
    pub no_pivot: bool,
    /// Keep the caller's session keyring.
    pub no_new_keyring: bool,
    /// Who is asked to make the cgroup.
    pub cgroup_manager: ManagerChoice,
    /// Whether the cgroup is an ordinary user's, which may be missing; None: as the rights are.
    pub rootless: Option<bool>,
    /// Annotations that the record has besides those of the configuration, over which they win.
    pub annotations: BTreeMap<String, String>,
    /// Namespaces that it is made in, whatever its configuration says of their kinds.
    pub joins: Vec<joins::Join>,
}

/// What `run` is asked on top.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunOptions {
    /// Return after the start.
    pub detach: bool,
    /// Leave the stopped container for `state` and `delete`.
    pub keep: bool,
    /// Leave orphans of the container to the host's init.
    pub no_subreaper: bool,
}

/// `/run/parhelion`, or its like below a user's own runtime directory. Root of a user namespace is such
/// a user where its environment names that directory, as Podman's does, and else the root of a container.
///
/// # Errors
///
/// XDG_RUNTIME_DIR is not set for a user.
pub fn default_root() -> Result<PathBuf> {
    let folder = std::env::var_os("XDG_RUNTIME_DIR").filter(|folder| !folder.is_empty());
    let folder = match (Rights::find(), folder) {
        (Rights::Host, _) | (Rights::Namespace, None) => "/run".into(),
        (Rights::Namespace | Rights::User, Some(folder)) => folder,
        (Rights::User, None) => bail!(
            "XDG_RUNTIME_DIR is not set, which a login sets: say where state is kept with --root"
        ),
    };
    Ok(PathBuf::from(folder).join("parhelion"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_verb_is_legal_in_the_statuses_that_runc_allows() {
        let id = ContainerId::parse("web").unwrap();
        let statuses = [
            Status::Creating,
            Status::Created { pid: 7 },
            Status::Running { pid: 7 },
            Status::Paused { pid: 7 },
            Status::Stopped,
        ];
        use Verb::{Checkpoint, Delete, Pause, Resume, Start, Update};
        let table: String = [Start, Pause, Resume, Update, Checkpoint, Delete]
            .into_iter()
            .flat_map(|verb| statuses.iter().map(move |status| (verb, status)))
            .map(|(verb, status)| {
                let answer = permit(verb, &id, status);
                let words = answer.map_or_else(|error| error.to_string(), |()| "ok".into());
                format!("{verb:?} {status}: {words}\n")
            })
            .collect();
        let expected = "\
Start creating: cannot start a container in the creating state
Start created: ok
Start running: cannot start an already running container
Start paused: cannot start a container in the paused state
Start stopped: cannot start a container that has stopped
Pause creating: container not running
Pause created: ok
Pause running: ok
Pause paused: container not running
Pause stopped: container not running
Resume creating: container not paused
Resume created: container not paused
Resume running: container not paused
Resume paused: ok
Resume stopped: container not paused
Update creating: container not running
Update created: ok
Update running: ok
Update paused: ok
Update stopped: container not running
Checkpoint creating: container cannot be checkpointed in creating state
Checkpoint created: container cannot be checkpointed in created state
Checkpoint running: ok
Checkpoint paused: ok
Checkpoint stopped: container cannot be checkpointed in stopped state
Delete creating: ok
Delete created: ok
Delete running: cannot delete container web that is not stopped: running
Delete paused: cannot delete container web that is not stopped: paused
Delete stopped: ok
";
        assert_eq!(table, expected);
    }
}
