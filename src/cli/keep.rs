//! `keep`, which reads its command line in a process apart, and `keeper`, which asks one.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::{Deserialize, Serialize};

use super::verbs::Verb;
use super::{Arguments, Cgroups, FAILURE, LogFlags, output, parse, surroundings};
use crate::error;
use crate::keeper::{self, Apart, Begin, Ground, KeepRequest, Orders, Request, client};

#[derive(Debug, Args)]
pub(super) struct Keeping {
    /// Begin with a stop: nothing is started before somebody asks for it
    #[arg(long)]
    stop: bool,
    /// Begin with a stop as the host is going down: nothing is started before the next keeper begins
    #[arg(long, conflicts_with = "stop")]
    halt: bool,
    /// The instance's directory: keeper.json says what it is, and everything of it is there
    pub(super) directory: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct Asking {
    /// status prints it, watch prints it with every change; the others wait until it is so
    #[arg(value_parser = ["status", "watch", "start", "stop", "restart", "unhealthy"])]
    action: String,
    /// What was found to be unhealthy
    #[arg(long, value_name = "TEXT", required_if_eq("action", "unhealthy"))]
    reason: Option<String>,
    /// The instance's directory
    pub(super) directory: PathBuf,
}

impl Asking {
    /// Asks, and prints what is answered.
    pub(super) fn ask(&self) -> Result<()> {
        let directory = &self.directory;
        let reason = || self.reason.clone().unwrap_or_default();
        if self.reason.is_some() && self.action != "unhealthy" {
            bail!("--reason: goes with unhealthy only");
        }
        let request = match self.action.as_str() {
            "status" => return output::json(&client::status(directory)?, true),
            "watch" => return client::watch(directory, |status| output::json(status, false)),
            "start" => Request::Start,
            "stop" => Request::Stop,
            "restart" => Request::Restart,
            _ => Request::Unhealthy { reason: reason() },
        };
        client::ask(directory, &request)
    }
}

impl Keeping {
    fn begin(&self) -> Begin {
        match (self.stop, self.halt) {
            (true, _) => Begin::Stop,
            (false, true) => Begin::Halt,
            (false, false) => Begin::Going,
        }
    }

    /// Locks the instance and finds out what is to be done.
    pub(super) fn find(&self, root: PathBuf, cgroups: Cgroups) -> Result<(Orders, Ground)> {
        let directory = std::fs::canonicalize(&self.directory);
        let found = directory
            .context("an instance's directory")
            .and_then(|directory| {
                Orders::find(KeepRequest {
                    directory,
                    root,
                    cgroup_manager: cgroups.manager,
                    rootless: cgroups.rootless,
                    begin: self.begin(),
                })
            });
        found.with_context(|| format!("keep {:?}", self.directory))
    }
}

/// What the process apart has made of the command line.
#[derive(Debug, Serialize, Deserialize)]
struct Understood {
    orders: Orders,
    log: LogWords,
}

/// Runs `keep`, if that is what the command line says, so that nothing stays in memory of what it takes to
/// read it. None leaves the command line to the caller.
pub(super) fn main(words: &[OsString]) -> Option<i32> {
    if !words.iter().any(|word| word == "keep") {
        return None;
    }
    // Where it can not be done apart, it is done here.
    match keeper::apart(|| understand(words)).ok()? {
        Apart::Declined => None,
        Apart::Done(code) => Some(code),
        Apart::Value(understood, fds) => Some(keep(understood, fds)),
    }
}

fn understand(words: &[OsString]) -> Apart<Understood> {
    let arguments = match parse(words) {
        Ok(arguments) => arguments,
        Err(told) => return Apart::Done(output::usage(&told)),
    };
    let Some(Verb::Keep(keeping)) = &arguments.verb else {
        return Apart::Declined;
    };
    let log = LogWords::of(&arguments);
    let find = || {
        let (root, cgroups) = surroundings(&arguments)?;
        keeping.find(root, cgroups)
    };
    match log.set().and_then(|()| find()) {
        Ok((orders, Ground { directory, lock })) => {
            Apart::Value(Understood { orders, log }, vec![directory, lock])
        }
        Err(error) => {
            error::report(&error);
            Apart::Done(FAILURE)
        }
    }
}

fn keep(Understood { orders, log }: Understood, fds: Vec<OwnedFd>) -> i32 {
    let mut fds = fds.into_iter();
    let ground = fds.next().zip(fds.next());
    let kept = log.set().and_then(|()| {
        let (directory, lock) = ground.context("its directory and lock were not handed over")?;
        keeper::keep(orders, Ground { directory, lock })
    });
    kept.unwrap_or_else(|error| {
        error::report(&error.context("keep"));
        FAILURE
    })
}

/// What the command line says of the log, to be said once more in another process.
#[derive(Debug, Serialize, Deserialize)]
struct LogWords {
    destination: Option<OsString>,
    format: String,
    level: String,
    debug: bool,
}

impl LogWords {
    fn of(arguments: &Arguments) -> LogWords {
        LogWords {
            destination: arguments.log.clone(),
            format: arguments.log_format.clone(),
            level: arguments.log_level.clone(),
            debug: arguments.debug,
        }
    }

    fn set(&self) -> Result<()> {
        let flags = LogFlags {
            destination: self.destination.as_deref(),
            format: &self.format,
            level: &self.level,
            debug: self.debug,
        };
        flags.set()
    }
}
