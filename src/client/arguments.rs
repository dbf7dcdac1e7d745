//! The command line: one variant a command.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::lifecycle::duration;

/// Asks parheliond: which jobs there are, what runs, what happens.
#[derive(Debug, Parser)]
#[command(
    name = "parctl",
    version,
    disable_version_flag = true,
    arg_required_else_help = true
)]
pub struct Arguments {
    /// The daemon's socket
    #[arg(
        long,
        global = true,
        value_name = "PATH",
        env = "PARHELION_SOCKET",
        default_value = "/run/parhelion/parheliond.sock"
    )]
    pub socket: PathBuf,
    /// Token of a job that has one; PARHELION_TOKEN hides it from ps
    #[arg(
        long,
        global = true,
        value_name = "TOKEN",
        env = "PARHELION_TOKEN",
        hide_env_values = true
    )]
    pub token: Option<String>,
    /// Print JSON
    #[arg(long, global = true)]
    pub json: bool,
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Keep a job; deploy runs it
    Create(Create),
    /// Create a job, deploy it, and let it take the place of older versions
    Apply(Apply),
    /// Run a kept job on a host, or change how many instances there are
    Deploy(Deploy),
    /// Stop and remove a job's instances
    Undeploy(Undeploy),
    /// Start a deployed job's instances
    Start(Goal),
    /// Stop a deployed job's instances and keep the deployment
    Stop(Goal),
    /// Restart an instance, or those of a job one after the other
    Restart(Restart),
    /// List instances and how they are
    Status(Status),
    /// List jobs
    Jobs(Jobs),
    /// List hosts
    Hosts,
    /// Print what has happened to a job or an instance, and why
    History(History),
    /// Print what an instance has printed
    Logs(Logs),
    /// Run a further program inside an instance
    Exec(Exec),
    /// Print all that is known of a job, an instance or a host
    Inspect(Inspect),
    /// Print instances and every change of them
    Watch(Watch),
    /// Show instances live in a terminal
    Top,
    /// Print what has happened, and what happens
    Events(Events),
    /// Remove a job that is deployed nowhere
    Remove(Remove),
    /// Print which store the daemon has, or make it the truth
    Store(Store),
    /// List services and where they answer
    Services,
    /// Print the schema of job files
    Schema,
    /// Print the client's and the daemon's version
    Version,
}

/// A job, as a file and what is changed in it.
#[derive(Debug, Args)]
pub struct JobFile {
    /// The job file, TOML or JSON; - reads from standard input
    #[arg(value_name = "FILE", required_unless_present = "helios")]
    pub file: Option<PathBuf>,
    /// A Helios job config instead, in JSON; what became of each field that changed is told
    #[arg(long, value_name = "FILE", conflicts_with = "file")]
    pub helios: Option<PathBuf>,
    /// The bundle of a Helios job, in the place of its image
    #[arg(long, value_name = "DIR", requires = "helios")]
    pub bundle: Option<PathBuf>,
    /// Another name
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Another version
    #[arg(long, value_name = "VERSION")]
    pub job_version: Option<String>,
    /// Added to the environment of every task, or of one: [TASK:]NAME=VALUE
    #[arg(long, short, value_name = "NAME=VALUE")]
    pub env: Vec<String>,
    /// Added to the labels
    #[arg(long, short, value_name = "NAME=VALUE")]
    pub label: Vec<String>,
    /// When the job is removed by itself, as 2030-01-31T12:00:00Z
    #[arg(long, value_name = "MOMENT")]
    pub expires: Option<String>,
}

#[derive(Debug, Args)]
pub struct Create {
    #[command(flatten)]
    pub job: JobFile,
    /// Print the job as it would be kept, and keep nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// In which order a newer version takes the place of an older one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Order {
    /// The newer one runs before the older one is stopped
    StartFirst,
    /// The older one is stopped before the newer one is started
    StopFirst,
}

#[derive(Debug, Args)]
pub struct Apply {
    #[command(flatten)]
    pub job: JobFile,
    /// How many instances; by default as many as of the older version, or 1
    #[arg(long, short = 'n', value_name = "NUMBER")]
    pub count: Option<u32>,
    /// By default start-first, and stop-first where the job has a port of its own choice
    #[arg(long, value_enum)]
    pub order: Option<Order>,
    /// The host, where there is more than one
    #[arg(long, value_name = "NAME")]
    pub host: Option<String>,
    /// How long it may take until all instances are ready; then the older version is back
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = time)]
    pub timeout: Duration,
}

#[derive(Debug, Args)]
pub struct Deploy {
    /// NAME, NAME:VERSION or NAME:VERSION:DIGEST, of which some first digits do
    pub job: String,
    /// How many instances
    #[arg(long, short = 'n', value_name = "NUMBER", default_value_t = 1)]
    pub count: u32,
    /// Deploy it without starting it
    #[arg(long)]
    pub stopped: bool,
    #[command(flatten)]
    pub wait: Wait,
}

/// Whether and how long to wait.
#[derive(Debug, Args)]
pub struct Wait {
    /// The host, where there is more than one
    #[arg(long, value_name = "NAME")]
    pub host: Option<String>,
    /// Wait until it is done
    #[arg(long, short)]
    pub wait: bool,
    /// How long to wait at most
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = time)]
    pub timeout: Duration,
}

#[derive(Debug, Args)]
pub struct Undeploy {
    /// NAME, NAME:VERSION or NAME:VERSION:DIGEST, of which some first digits do
    pub job: String,
    #[command(flatten)]
    pub wait: Wait,
}

#[derive(Debug, Args)]
pub struct Goal {
    /// NAME, NAME:VERSION or NAME:VERSION:DIGEST, of which some first digits do
    pub job: String,
    #[command(flatten)]
    pub wait: Wait,
}

#[derive(Debug, Args)]
pub struct Restart {
    /// An instance, or a job
    pub what: String,
    /// Why, for the history
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// How long each instance may take until it is ready
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = time)]
    pub timeout: Duration,
}

#[derive(Debug, Args)]
pub struct Status {
    /// Instances of this job only
    pub job: Option<String>,
}

#[derive(Debug, Args)]
pub struct Jobs {
    /// Jobs whose id contains this text only
    pub contains: Option<String>,
    /// Jobs that are deployed only
    #[arg(long, conflicts_with = "undeployed")]
    pub deployed: bool,
    /// Jobs that are not deployed only
    #[arg(long)]
    pub undeployed: bool,
    /// Jobs with this label only
    #[arg(long, short, value_name = "NAME[=VALUE]")]
    pub label: Option<String>,
    /// Print ids and nothing else
    #[arg(long, short)]
    pub quiet: bool,
}

#[derive(Debug, Args)]
pub struct History {
    /// A job or an instance; also one that was removed
    pub what: String,
    /// The latest so many only
    #[arg(long, short = 'n', value_name = "NUMBER")]
    pub limit: Option<usize>,
}

#[derive(Debug, Args)]
pub struct Logs {
    /// An instance, or a job that has one
    pub what: String,
    /// The task, where there is more than one
    #[arg(long, value_name = "NAME")]
    pub task: Option<String>,
    /// Go on with what comes
    #[arg(long, short)]
    pub follow: bool,
    /// The last so many lines only
    #[arg(long, short = 'n', value_name = "NUMBER")]
    pub tail: Option<usize>,
    /// One stream only
    #[arg(long, value_parser = ["stdout", "stderr"])]
    pub stream: Option<String>,
    /// Print each line's moment
    #[arg(long, short)]
    pub timestamps: bool,
}

#[derive(Debug, Args)]
pub struct Exec {
    /// With a terminal; without one where standard input or output is none
    #[arg(long, short)]
    pub tty: bool,
    /// Pass standard input on
    #[arg(long, short)]
    pub interactive: bool,
    /// The task, where there is more than one
    #[arg(long, value_name = "NAME")]
    pub task: Option<String>,
    /// Added to the environment
    #[arg(long, short, value_name = "NAME=VALUE")]
    pub env: Vec<String>,
    /// Working directory inside
    #[arg(long, value_name = "DIR")]
    pub cwd: Option<String>,
    /// User and group by number
    #[arg(long, short, value_name = "UID[:GID]")]
    pub user: Option<String>,
    /// An instance, or a job that has one
    pub what: String,
    /// The program and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    pub command: Vec<String>,
}

#[derive(Debug, Args)]
pub struct Inspect {
    /// A job, an instance or a host
    pub what: String,
}

#[derive(Debug, Args)]
pub struct Watch {
    /// Instances of this job only
    pub job: Option<String>,
}

#[derive(Debug, Args)]
pub struct Events {
    /// Go on with what comes
    #[arg(long, short)]
    pub follow: bool,
    /// Events from this number on only
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub from: u64,
    /// Events of this job only
    #[arg(long, value_name = "JOB")]
    pub job: Option<String>,
}

#[derive(Debug, Args)]
pub struct Remove {
    /// NAME, NAME:VERSION or NAME:VERSION:DIGEST, of which some first digits do
    #[arg(required = true)]
    pub jobs: Vec<String>,
    /// Undeploy it first
    #[arg(long)]
    pub undeploy: bool,
}

#[derive(Debug, Args)]
pub struct Store {
    #[command(subcommand)]
    pub verb: StoreVerb,
}

#[derive(Debug, Subcommand)]
pub enum StoreVerb {
    /// Print the name of the store, and whether the host follows it
    Show,
    /// Make what the store says the truth, though it is another or an older one than before: what it does not want ends
    Accept {
        /// Its name, or the first eight digits of it or more
        store: String,
        /// The host, where there is more than one
        #[arg(long, value_name = "NAME")]
        host: Option<String>,
    },
}

fn time(text: &str) -> Result<Duration, String> {
    duration::parse(text).ok_or_else(|| "must be a time as 500ms, 30s or 5m".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn every_command_and_option_is_documented() {
        let command = Arguments::command();
        command.clone().debug_assert();
        for verb in command.get_subcommands() {
            assert!(verb.get_about().is_some(), "{}", verb.get_name());
            for option in verb.get_arguments() {
                let name = (verb.get_name(), option.get_id());
                assert!(option.get_help().is_some(), "{name:?}");
            }
        }
    }
}
