//! The command line: one clap variant per OCI verb, one lifecycle call each.

mod arguments;
mod checkpoint;
mod exec;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod keep;
mod output;
mod update;
mod verbs;

use std::ffi::{OsStr, OsString};
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
    /// Program that makes checkpoints and restores them; without it, criu on PATH
    #[arg(long, value_name = "PROGRAM")]
    criu: Option<OsString>,
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
    #[arg(long, short = 'v', short_alias = 'V')]
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
    let words: Vec<_> = std::env::args_os().collect();
    if let Some(code) = keep::main(&words) {
        return code;
    }
    let sown = if makes_a_container(words.iter()) {
        create::sow()
    } else {
        Sown::default()
    };
    let arguments = match parse(&words) {
        Ok(arguments) => arguments,
        Err(told) => return output::usage(&told),
    };
    let is_right = LogFlags::of(&arguments).set();
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

/// Flags as others write them, and as they are written here. A flag of `restore` as go-runc has it, and by
/// that containerd and Docker: the parsers of Go take one dash for two. Help as crun has it, by the parser of GNU.
const WRITTEN_OTHERWISE: [(&str, &str); 2] =
    [("-no-subreaper", "--no-subreaper"), ("-?", "--help")];

/// Understands a command line. If it is wrong, the log is set all the same, as far as it is named.
fn parse(words: &[OsString]) -> Result<Arguments, clap::Error> {
    let parsed = Arguments::try_parse_from(words).or_else(|told| {
        let otherwise =
            |word: &OsString| WRITTEN_OTHERWISE.iter().find(|(theirs, _)| word == theirs);
        // A word that is a program's for `exec` has been taken as that.
        match words.iter().position(|word| otherwise(word).is_some()) {
            Some(place) => {
                let mut words = words.to_vec();
                if let Some((_, ours)) = otherwise(&words[place]) {
                    words[place] = ours.into();
                }
                Arguments::try_parse_from(words)
            }
            None => Err(told),
        }
    });
    parsed.inspect_err(|_| log_named_in(words))
}

fn log_named_in(words: &[OsString]) {
    let lenient = Arguments::command().ignore_errors(true);
    if let Ok(found) = lenient.try_get_matches_from(words) {
        let text = |name| found.get_one::<String>(name).map_or("", String::as_str);
        let flags = LogFlags {
            destination: found.get_one::<OsString>("log").map(OsString::as_os_str),
            format: text("log_format"),
            level: text("log_level"),
            debug: found.get_one("debug").copied().unwrap_or(false),
        };
        // What is wrong with the command line is told, and the log's name may be part of it.
        let _also_wrong = flags.set();
    }
}

/// What a command line says of the log.
struct LogFlags<'a> {
    destination: Option<&'a OsStr>,
    format: &'a str,
    level: &'a str,
    debug: bool,
}

impl LogFlags<'_> {
    fn of(arguments: &Arguments) -> LogFlags<'_> {
        LogFlags {
            destination: arguments.log.as_deref(),
            format: &arguments.log_format,
            level: &arguments.log_level,
            debug: arguments.debug,
        }
    }

    /// Sets the log that is asked for; when something is wrong with it, there is none.
    fn set(self) -> Result<()> {
        // As for runc, an empty one is none.
        let wanted = self.destination.filter(|log| !log.is_empty());
        let level = Level::ALL.into_iter().find(|l| l.name() == self.level);
        let (destination, parsed) = match wanted.map(Destination::parse).transpose() {
            Ok(destination) => (destination, Ok(())),
            Err(wrong) => (None, Err(anyhow!("--log: {wrong}"))),
        };
        error::set_log(Log {
            destination,
            format: match self.format {
                "json" => LogFormat::Json,
                _ => LogFormat::Text,
            },
            level: match self.debug {
                true => Level::Debug,
                false => level.unwrap_or(Level::Warning),
            },
        });
        parsed
    }
}

/// The definition of the command line, for completions and manual pages.
#[must_use]
pub fn command() -> clap::Command {
    Arguments::command()
}

/// True for a command line that looks like one that makes a container, of which the descriptors that
/// it passes on need not be known. A wrong guess costs some time and nothing else.
fn makes_a_container<'a>(mut arguments: impl Iterator<Item = &'a OsString>) -> bool {
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
    let (root, cgroups) = surroundings(&arguments)?;
    let mut verb = arguments
        .verb
        .context("a command is needed: see `parhelion --help`")?;
    verb.set_criu(arguments.criu);
    verb.run(root, cgroups, sown)
}

/// Where state is kept and who makes cgroups, by what stands before the verb.
fn surroundings(arguments: &Arguments) -> Result<(PathBuf, Cgroups)> {
    let manager = manager(arguments)?;
    let root = match &arguments.root {
        Some(root) => std::path::absolute(root).with_context(|| format!("--root {root:?}"))?,
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
    Ok((root, cgroups))
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
    fn the_flag_of_a_restore_that_has_one_dash_is_taken_and_no_other_word_is_changed() {
        let parsed = |words: &str| {
            let words: Vec<_> = words.split(' ').map(OsString::from).collect();
            parse(&words).map(|arguments| format!("{:?}", arguments.verb))
        };
        let two = parsed("parhelion restore --detach --no-subreaper -b /b web").unwrap();
        let one = parsed("parhelion restore --detach -no-subreaper -b /b web").unwrap();
        assert_eq!(one, two);
        assert_ne!(one, parsed("parhelion restore --detach -b /b web").unwrap());
        let program = parsed("parhelion exec web program -no-subreaper").unwrap();
        assert!(program.contains("\"-no-subreaper\""), "{program}");
        assert!(parsed("parhelion state -no-subreaper web").is_err());
        assert!(parsed("parhelion restore -no-such-flag web").is_err());
    }

    #[test]
    fn a_seed_is_started_for_verbs_that_make_a_container_and_pass_nothing_on() {
        let makes = |words: &str| {
            let words: Vec<_> = words.split(' ').map(OsString::from).collect();
            makes_a_container(words.iter())
        };
        assert!(makes("parhelion --root /run/x create -b . web"));
        assert!(makes("parhelion run web"));
        assert!(makes("parhelion exec web sh"));
        assert!(!makes("parhelion state web"));
        assert!(!makes("parhelion run --preserve-fds 2 web"));
        assert!(!makes("parhelion run --preserve-fds=2 web"));
    }
}
