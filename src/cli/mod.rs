//! The command line: one clap variant per OCI verb, one lifecycle call each.

mod arguments;
mod checkpoint;
mod exec;
mod output;
mod update;
mod verbs;

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow, bail};
use clap::{CommandFactory, Parser};

use crate::error::{self, Destination, Level, Log, LogFormat};
use crate::lifecycle::create::{self, Sown};
use crate::lifecycle::{self, ManagerChoice};

/// The exit code of a failure, as a rule.
const FAILURE: i32 = 1;

/// An OCI container runtime on namespaces and cgroup v2.
#[derive(Debug, Parser)]
#[command(
    name = "parhelion",
    disable_version_flag = true,
    arg_required_else_help = true
)]
struct Arguments {
    /// Directory of all containers' state
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// What receives warnings and errors: a file, file:PATH, journald:[NAME] or syslog:[NAME]
    #[arg(long, value_name = "DESTINATION")]
    log: Option<OsString>,
    /// Format of the log: text or json
    #[arg(long, value_name = "FORMAT", default_value = "text", value_parser = ["text", "json"])]
    log_format: String,
    /// Log what matters so much and more: error, warning, info or debug
    #[arg(
        long,
        value_name = "LEVEL",
        default_value = "warning",
        overrides_with = "debug"
    )]
    #[arg(value_parser = Level::ALL.map(Level::name))]
    log_level: String,
    /// Log every decision, as --log-level debug
    #[arg(long, overrides_with = "log_level")]
    debug: bool,
    /// Leave cgroups to systemd
    #[arg(long)]
    systemd_cgroup: bool,
    /// Who makes cgroups: cgroupfs, as by default, systemd, or disabled: nobody
    #[arg(long, value_name = "MANAGER", value_parser = ["cgroupfs", "systemd", "disabled"])]
    cgroup_manager: Option<String>,
    /// Treat cgroups as an ordinary user's: below the caller's own, or none where there are no limits
    #[arg(long, value_name = "MODE", default_value = "auto", value_parser = ["true", "false", "auto"])]
    rootless: String,
    /// Print the version
    #[arg(long, short = 'v')]
    version: bool,
    #[command(subcommand)]
    verb: Option<verbs::Verb>,
}

/// Runs the command line of this process; the exit code is the program's for a foreground `run`.
///
/// A wrong command line, like every other failure, ends with exit code 1, as in runc.
#[must_use]
pub fn main() -> i32 {
    lifecycle::prepare();
    let sown = if makes_a_container(std::env::args_os()) {
        create::sow()
    } else {
        Sown::default()
    };
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(told) => return output::usage(&told),
    };
    let (log, is_right) = arguments.log();
    error::set_log(log);
    let failure = arguments
        .verb
        .as_ref()
        .map_or(FAILURE, verbs::Verb::failure);
    let done = is_right.and_then(|()| run(arguments, sown));
    done.unwrap_or_else(|error| {
        error::report(&error);
        failure
    })
}

impl Arguments {
    /// The log that is asked for, and what is wrong with it: then there is none.
    fn log(&self) -> (Log, Result<()>) {
        // As for runc, an empty one is none.
        let log = self.log.as_deref().filter(|log| !log.is_empty());
        let wanted = log.map(Destination::parse).transpose();
        let level = Level::ALL.into_iter().find(|l| l.name() == self.log_level);
        let (destination, parsed) = match wanted {
            Ok(destination) => (destination, Ok(())),
            Err(wrong) => (None, Err(anyhow!("--log: {wrong}"))),
        };
        let log = Log {
            destination,
            format: match self.log_format.as_str() {
                "json" => LogFormat::Json,
                _ => LogFormat::Text,
            },
            level: match self.debug {
                true => Level::Debug,
                false => level.unwrap_or(Level::Warning),
            },
        };
        (log, parsed)
    }
}

/// The definition of the command line, for completions and manual pages.
#[must_use]
pub fn command() -> clap::Command {
    Arguments::command()
}

/// True for a command line that looks like one that makes a container, of which the descriptors that
/// it passes on need not be known. A wrong guess costs some time and nothing else.
fn makes_a_container(mut arguments: impl Iterator<Item = OsString>) -> bool {
    let mut makes = false;
    let passes = arguments.any(|argument| {
        makes |= argument == "create" || argument == "run" || argument == "exec";
        argument.as_encoded_bytes().starts_with(b"--preserve-fds")
    });
    makes && !passes
}

fn run(arguments: Arguments, sown: Sown) -> Result<i32> {
    if arguments.version {
        output::version()?;
        return Ok(0);
    }
    let manager = manager(&arguments)?;
    let verb = arguments
        .verb
        .context("a command is needed: see `parhelion --help`")?;
    let root = match arguments.root {
        Some(root) => std::path::absolute(&root).with_context(|| format!("--root {root:?}"))?,
        None => lifecycle::default_root()?,
    };
    let cgroups = Cgroups {
        manager,
        rootless: match arguments.rootless.as_str() {
            "true" => Some(true),
            "false" => Some(false),
            _ => None,
        },
    };
    verb.run(root, cgroups, sown)
}

/// Who is asked to make cgroups, by the two flags that say it.
fn manager(arguments: &Arguments) -> Result<ManagerChoice> {
    let choice = match arguments.cgroup_manager.as_deref() {
        None if arguments.systemd_cgroup => ManagerChoice::Systemd,
        None | Some("cgroupfs") => ManagerChoice::Files,
        Some("disabled") => ManagerChoice::Nobody,
        Some(_) => ManagerChoice::Systemd,
    };
    if arguments.systemd_cgroup && choice != ManagerChoice::Systemd {
        bail!("--systemd-cgroup and another --cgroup-manager exclude each other: give one of them");
    }
    Ok(choice)
}

/// What the caller says of cgroups.
#[derive(Debug, Clone, Copy)]
struct Cgroups {
    /// Who makes them.
    manager: ManagerChoice,
    /// They are an ordinary user's; None: as the rights are.
    rootless: Option<bool>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_started_for_verbs_that_make_a_container_and_pass_nothing_on() {
        let makes = |words: &str| makes_a_container(words.split(' ').map(OsString::from));
        assert!(makes("parhelion --root /run/x create -b . web"));
        assert!(makes("parhelion run web"));
        assert!(makes("parhelion exec web sh"));
        assert!(!makes("parhelion state web"));
        assert!(!makes("parhelion run --preserve-fds 2 web"));
        assert!(!makes("parhelion run --preserve-fds=2 web"));
    }
}
