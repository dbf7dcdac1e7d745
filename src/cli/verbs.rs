//! The verbs: their names, and the call that each of them is.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::error::ErrorKind;
use clap::{ArgMatches, Args, Command, FromArgMatches, Subcommand};

use super::arguments::{
    Container, Creation, Deletion, Killing, Listing, Mounting, Nothing, Processes, Running,
    Specification, Watching,
};
use super::checkpoint::{Checkpointing, Restoring};
use super::exec::Execution;
use super::keep::{Asking, Keeping};
use super::update::Updating;
use super::{Cgroups, FAILURE, output};
use crate::bundle::{Owner, overwrite_default, write_default};
use crate::keeper;
use crate::lifecycle::create::{self, Sown};
use crate::lifecycle::delete::Force;
use crate::lifecycle::events::EventsRequest;
use crate::lifecycle::id::ContainerId;
use crate::lifecycle::kill::{Signal, Target};
use crate::lifecycle::select::Pattern;
use crate::lifecycle::{
    RunOptions, checkpoint, delete, events, exec, features, freeze, kill, mounts, ps, query,
    select, start, update,
};

/// The verbs as subcommands: for each its line in the help, its arguments and its name.
///
/// By hand and not derived, because the arguments of the ten verbs that are not called need not be
/// built: that is two fifths of the time in which a command line is read.
macro_rules! verbs {
    ($( #[doc = $about:literal] $verb:ident($arguments:ty) = $name:literal, )*) => {
        #[derive(Debug)]
        pub(super) enum Verb {
            $( #[doc = $about] $verb($arguments), )*
        }

        impl Subcommand for Verb {
            fn augment_subcommands(command: Command) -> Command {
                command$( .subcommand(
                    Command::new($name)
                        .about($about.trim_start())
                        .defer(<$arguments as Args>::augment_args),
                ) )*
            }

            fn augment_subcommands_for_update(command: Command) -> Command {
                Self::augment_subcommands(command)
            }

            fn has_subcommand(name: &str) -> bool {
                Verb::NAMES.contains(&name)
            }
        }

        impl FromArgMatches for Verb {
            fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
                match matches.subcommand() {
                    $( Some(($name, below)) => <$arguments>::from_arg_matches(below).map(Self::$verb), )*
                    Some(_) | None => Err(clap::Error::new(ErrorKind::MissingSubcommand)),
                }
            }

            fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
                *self = Self::from_arg_matches(matches)?;
                Ok(())
            }
        }

        impl Verb {
            /// All verbs as they are called.
            const NAMES: &[&str] = &[$( $name ),*];

            /// The verb as it is called.
            fn name(&self) -> &'static str {
                match self {
                    $( Verb::$verb(_) => $name, )*
                }
            }
        }
    };
}

verbs! {
    /// Create a container; its program waits for start
    Create(Creation) = "create",
    /// Execute the program of a created container
    Start(Container) = "start",
    /// Create and start a container, and stand for it until it ends
    Run(Running) = "run",
    /// Execute a further process in a container
    Exec(Box<Execution>) = "exec",
    /// Print a container's state as JSON
    State(Container) = "state",
    /// Send a signal to a container's first process
    Kill(Killing) = "kill",
    /// Remove a container that has stopped
    Delete(Deletion) = "delete",
    /// List containers
    List(Listing) = "list",
    /// Write a default config.json
    Spec(Specification) = "spec",
    /// List a container's processes
    Ps(Processes) = "ps",
    /// Freeze all processes of a container
    Pause(Container) = "pause",
    /// Thaw them
    Resume(Container) = "resume",
    /// Change a container's limits and devices
    Update(Updating) = "update",
    /// Tell what a container uses and what happens to it, until it ends
    Events(Watching) = "events",
    /// Add mounts to a container that runs, or remove them
    Mounts(Mounting) = "mounts",
    /// Write a container's processes to files, from which they go on elsewhere or later
    Checkpoint(Box<Checkpointing>) = "checkpoint",
    /// Make a container of such files again
    Restore(Box<Restoring>) = "restore",
    /// Hold an instance: start its container, start it again when it ends, and write down what it prints
    Keep(Keeping) = "keep",
    /// Ask the keeper of an instance, or tell it what to do
    Keeper(Asking) = "keeper",
    /// Print what this runtime can do as JSON
    Features(Nothing) = "features",
}

impl Verb {
    /// Does it; returns the exit code.
    pub(super) fn run(self, root: PathBuf, cgroups: Cgroups, sown: Sown) -> Result<i32> {
        let (name, object) = (self.name(), self.object().map(str::to_owned));
        let done = self.act(&root, cgroups, sown);
        done.map_err(crate::lifecycle::explain)
            .with_context(|| match object {
                Some(id) => format!("{name} {id:?}"),
                None => name.to_owned(),
            })
    }

    /// Those that ask criu for something ask this one; the others have no use for it.
    pub(super) fn set_criu(&mut self, program: Option<OsString>) {
        if let Verb::Checkpoint(checkpointing) = self {
            checkpointing.images.criu = program;
        } else if let Verb::Restore(restoring) = self {
            restoring.images.criu = program;
        }
    }

    fn act(self, root: &Path, cgroups: Cgroups, sown: Sown) -> Result<i32> {
        let id = |id: &str| ContainerId::parse(id);
        match self {
            Verb::Create(creation) => {
                let request = creation.request(root.to_owned(), cgroups)?;
                create::create(&request, sown)?;
            }
            Verb::Run(run) => {
                let options = RunOptions {
                    detach: run.detach,
                    keep: run.keep,
                    no_subreaper: run.creation.no_subreaper,
                };
                let request = run.creation.request(root.to_owned(), cgroups)?;
                return create::run(&request, &options, sown);
            }
            Verb::Exec(execution) => {
                return exec::exec(&execution.request(root.to_owned())?, sown);
            }
            Verb::Start(container) => start::start(root, &id(&container.id)?)?,
            Verb::State(container) => {
                output::json(&query::state(root, &id(&container.id)?)?, true)?;
            }
            Verb::Kill(kill) => send_signal(root, &kill)?,
            Verb::Delete(delete) => remove(root, &delete)?,
            Verb::List(list) => print_list(root, &list)?,
            Verb::Spec(spec) => write_spec(&spec)?,
            Verb::Ps(ps) => print_processes(root, &ps)?,
            Verb::Pause(container) => freeze::pause(root, &id(&container.id)?)?,
            Verb::Resume(container) => freeze::resume(root, &id(&container.id)?)?,
            Verb::Update(updating) => {
                update::update(root, &id(&updating.id)?, &updating.request())?;
            }
            Verb::Events(watching) => print_events(root, &watching)?,
            Verb::Mounts(mounting) if mounting.action == "add" => {
                mounts::add(root, &id(&mounting.id)?, &mounting.file)?;
            }
            Verb::Mounts(mounting) => mounts::remove(root, &id(&mounting.id)?, &mounting.file)?,
            Verb::Checkpoint(checkpointing) => {
                let id = id(&checkpointing.id)?;
                checkpoint::checkpoint(root, &id, &checkpointing.request()?)?;
            }
            Verb::Restore(restoring) => {
                let request = restoring.request(root.to_owned(), cgroups.manager)?;
                return checkpoint::restore(&request);
            }
            Verb::Keep(keeping) => {
                let (orders, ground) = keeping.find(root.to_owned(), cgroups)?;
                return keeper::keep(orders, ground);
            }
            Verb::Keeper(asking) => asking.ask()?,
            Verb::Features(Nothing {}) => {
                output::json(&features::features(Verb::NAMES), true)?;
            }
        }
        Ok(0)
    }

    /// The exit code when it fails: that of a program which could not be executed is not to be taken for
    /// the program's own.
    pub(super) fn failure(&self) -> i32 {
        if matches!(self, Verb::Exec(_)) {
            255
        } else {
            FAILURE
        }
    }

    /// The container it is about.
    fn object(&self) -> Option<&str> {
        match self {
            Verb::Create(creation) => Some(&creation.id),
            Verb::Run(run) => Some(&run.creation.id),
            Verb::Start(container)
            | Verb::State(container)
            | Verb::Pause(container)
            | Verb::Resume(container) => Some(&container.id),
            Verb::Kill(kill) => Some(&kill.id),
            Verb::Delete(delete) => Some(&delete.id),
            Verb::Exec(execution) => Some(&execution.id),
            Verb::Ps(ps) => Some(ps.id()),
            Verb::Update(updating) => Some(&updating.id),
            Verb::Events(watching) => Some(&watching.id),
            Verb::Mounts(mounting) => Some(&mounting.id),
            Verb::Checkpoint(checkpointing) => Some(&checkpointing.id),
            Verb::Restore(restoring) => Some(&restoring.id),
            Verb::Keeper(asking) => asking.directory.to_str(),
            Verb::Keep(_) | Verb::List(_) | Verb::Spec(_) | Verb::Features(_) => None,
        }
    }
}

fn send_signal(root: &Path, kill: &Killing) -> Result<()> {
    let target = if kill.all { Target::All } else { Target::Init };
    let signal = Signal::parse(&kill.signal);
    match kill.regex {
        true => select::kill_each(root, &Pattern::parse(&kill.id)?, signal?, target),
        false => kill::kill(root, &ContainerId::parse(&kill.id)?, signal?, target),
    }
}

fn remove(root: &Path, delete: &Deletion) -> Result<()> {
    let force = if delete.force { Force::Yes } else { Force::No };
    match delete.regex {
        true => select::delete_each(root, &Pattern::parse(&delete.id)?, force),
        false => delete::delete(root, &ContainerId::parse(&delete.id)?, force),
    }
}

fn print_list(root: &Path, list: &Listing) -> Result<()> {
    let mut states = query::list(root)?;
    if let Some(regex) = &list.regex {
        let pattern = Pattern::parse(regex).context("--regex")?;
        states.retain(|state| pattern.selects(&state.id));
    }
    match (list.quiet, list.format.as_str()) {
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

fn print_processes(root: &Path, ps: &Processes) -> Result<()> {
    let id = ContainerId::parse(ps.id())?;
    match ps.format.as_str() {
        "json" => output::json(&ps::pids(root, &id)?, false),
        _ => output::text(&ps::table(root, &id, &ps.id_and_options[1..])?),
    }
}

fn print_events(root: &Path, watching: &Watching) -> Result<()> {
    let id = ContainerId::parse(&watching.id)?;
    let request = EventsRequest::parse(&watching.interval, &watching.pressure)?;
    let print = |event: &events::Event| output::json(event, false);
    match watching.stats {
        true => events::stats(root, &id, print),
        false => events::stream(root, &id, &request, print),
    }
}

/// Writes config.json, and never over one that is there; another file that is named, in any case.
fn write_spec(spec: &Specification) -> Result<()> {
    let owner = spec.rootless.then(|| Owner {
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
    });
    match &spec.file {
        Some(file) => overwrite_default(&spec.bundle.join(file), owner),
        None => write_default(&spec.bundle, owner),
    }
}
