//! The verbs, with runc's flags and their meaning.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Args, Subcommand};

use super::output;
use crate::bundle::{Owner, write_default};
use crate::lifecycle::id::ContainerId;
use crate::lifecycle::kill::{Signal, Target};
use crate::lifecycle::{
    self, CreateRequest, RunOptions, create, delete, freeze, kill, ps, query, start,
};

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Create a container; its program waits for start
    Create(Creation),
    /// Execute the program of a created container
    Start { id: String },
    /// Create and start a container, and stand for it until it ends
    Run {
        #[command(flatten)]
        creation: Creation,
        /// Return when the program was executed
        #[arg(long, short)]
        detach: bool,
        /// Leave the stopped container for state and delete
        #[arg(long)]
        keep: bool,
        /// Leave the container's orphans to the host
        #[arg(long)]
        no_subreaper: bool,
    },
    /// Print a container's state as JSON
    State { id: String },
    /// Send a signal to a container's first process
    Kill {
        /// To all processes of the container
        #[arg(long, short)]
        all: bool,
        id: String,
        /// Name or number
        #[arg(default_value = "TERM")]
        signal: String,
    },
    /// Remove a container that has stopped
    Delete {
        /// Also one that runs; that there is none is no error
        #[arg(long, short)]
        force: bool,
        id: String,
    },
    /// List containers
    List {
        #[arg(long, short, default_value = "table", value_parser = ["table", "json"])]
        format: String,
        /// Only ids
        #[arg(long, short)]
        quiet: bool,
    },
    /// Write a default config.json
    Spec {
        /// For a user without privileges
        #[arg(long)]
        rootless: bool,
        /// The bundle's directory
        #[arg(long, short, default_value = ".")]
        bundle: PathBuf,
    },
    /// List a container's processes
    Ps {
        #[arg(long, short, default_value = "table", value_parser = ["table", "json"])]
        format: String,
        id: String,
        /// Options for ps(1)
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<String>,
    },
    /// Freeze all processes of a container
    Pause { id: String },
    /// Thaw them
    Resume { id: String },
}

/// What `create` and `run` have in common.
#[derive(Debug, Args)]
pub(super) struct Creation {
    /// The bundle's directory
    #[arg(long, short, default_value = ".")]
    bundle: PathBuf,
    /// Unix socket that receives the terminal
    #[arg(long)]
    console_socket: Option<PathBuf>,
    /// File that receives the process id
    #[arg(long)]
    pid_file: Option<PathBuf>,
    /// Unix socket that receives the pidfd
    #[arg(long)]
    pidfd_socket: Option<PathBuf>,
    /// How many descriptors after stderr the program gets
    #[arg(long, default_value_t = 0)]
    preserve_fds: u32,
    /// Mount over / instead of pivot_root, on a ramdisk
    #[arg(long)]
    no_pivot: bool,
    /// Stay in the caller's session keyring
    #[arg(long)]
    no_new_keyring: bool,
    id: String,
}

impl Creation {
    fn request(self, root: PathBuf, systemd_cgroup: bool) -> Result<CreateRequest> {
        let bundle = std::path::absolute(&self.bundle)
            .with_context(|| format!("--bundle {:?}", self.bundle))?;
        Ok(CreateRequest {
            root,
            id: ContainerId::parse(&self.id)?,
            bundle,
            console_socket: self.console_socket,
            pid_file: self.pid_file,
            pidfd_socket: self.pidfd_socket,
            preserve_fds: self.preserve_fds,
            no_pivot: self.no_pivot,
            no_new_keyring: self.no_new_keyring,
            systemd_cgroup,
        })
    }
}

impl Verb {
    /// Does it; returns the exit code.
    pub(super) fn run(self, root: PathBuf, systemd_cgroup: bool) -> Result<i32> {
        lifecycle::prepare();
        let (name, object) = self.title();
        let done = self.act(&root, systemd_cgroup);
        done.with_context(|| match object {
            Some(id) => format!("{name} {id:?}"),
            None => name.to_owned(),
        })
    }

    fn act(self, root: &Path, systemd_cgroup: bool) -> Result<i32> {
        match self {
            Verb::Create(creation) => {
                create::create(&creation.request(root.to_owned(), systemd_cgroup)?)?;
            }
            Verb::Start { id } => start::start(root, &ContainerId::parse(&id)?)?,
            Verb::Run {
                creation,
                detach,
                keep,
                no_subreaper,
            } => {
                let options = RunOptions {
                    detach,
                    keep,
                    no_subreaper,
                };
                return create::run(
                    &creation.request(root.to_owned(), systemd_cgroup)?,
                    &options,
                );
            }
            Verb::State { id } => {
                output::json(&query::state(root, &ContainerId::parse(&id)?)?, true)?;
            }
            Verb::Kill { all, id, signal } => {
                let target = if all { Target::All } else { Target::Init };
                kill::kill(
                    root,
                    &ContainerId::parse(&id)?,
                    Signal::parse(&signal)?,
                    target,
                )?;
            }
            Verb::Delete { force, id } => {
                let force = if force {
                    delete::Force::Yes
                } else {
                    delete::Force::No
                };
                delete::delete(root, &ContainerId::parse(&id)?, force)?;
            }
            Verb::List { format, quiet } => list(root, &format, quiet)?,
            Verb::Spec { rootless, bundle } => write_spec(rootless, &bundle)?,
            Verb::Ps {
                format,
                id,
                options,
            } => processes(root, &id, &format, &options)?,
            Verb::Pause { id } => freeze::pause(root, &ContainerId::parse(&id)?)?,
            Verb::Resume { id } => freeze::resume(root, &ContainerId::parse(&id)?)?,
        }
        Ok(0)
    }

    /// How errors name the verb, and the container it is about.
    fn title(&self) -> (&'static str, Option<String>) {
        match self {
            Verb::Create(creation) => ("create", Some(creation.id.clone())),
            Verb::Start { id } => ("start", Some(id.clone())),
            Verb::Run { creation, .. } => ("run", Some(creation.id.clone())),
            Verb::State { id } => ("state", Some(id.clone())),
            Verb::Kill { id, .. } => ("kill", Some(id.clone())),
            Verb::Delete { id, .. } => ("delete", Some(id.clone())),
            Verb::List { .. } => ("list", None),
            Verb::Spec { .. } => ("spec", None),
            Verb::Ps { id, .. } => ("ps", Some(id.clone())),
            Verb::Pause { id } => ("pause", Some(id.clone())),
            Verb::Resume { id } => ("resume", Some(id.clone())),
        }
    }
}

fn list(root: &Path, format: &str, quiet: bool) -> Result<()> {
    let states = query::list(root)?;
    match (quiet, format) {
        (true, _) => output::text(
            &states
                .iter()
                .map(|s| format!("{}\n", s.id))
                .collect::<String>(),
        ),
        (false, "json") => output::json(&states, false),
        (false, _) => output::table(&states),
    }
}

fn processes(root: &Path, id: &str, format: &str, options: &[String]) -> Result<()> {
    let id = ContainerId::parse(id)?;
    match format {
        "json" => output::json(&ps::pids(root, &id)?, false),
        _ => output::text(&ps::table(root, &id, options)?),
    }
}

/// Writes config.json, and never over one that is there.
fn write_spec(rootless: bool, bundle: &Path) -> Result<()> {
    let owner = rootless.then(|| Owner {
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
    });
    write_default(bundle, owner)
}
