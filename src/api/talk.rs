//! What requests and answers say that is neither a deployment, an instance nor an event.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Deployment, Goal, Instance};
use crate::job::{Fault, JobId};

/// The header by which a client says its own version; another major one than the daemon's is refused.
pub const VERSION_HEADER: &str = "parhelion-version";

/// The header with a job's token, which is needed to deploy, start, stop and undeploy a job that has one.
pub const TOKEN_HEADER: &str = "parhelion-token";

/// Why something was not done, and what to do next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// What is wrong, one phrase.
    pub error: String,
    /// What to do next.
    pub hint: String,
    /// What may have been meant.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub candidates: Vec<String>,
    /// Of a job file that is refused: all that is wrong in it, in its order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<Fault>,
}

/// A job as it is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct JobInfo {
    /// Its identity.
    #[schema(value_type = String)]
    pub id: JobId,
    /// When it was created.
    pub created: String,
    /// What it says: the published schema of job files. A token is not shown.
    #[schema(value_type = Object)]
    pub job: serde_json::Value,
    /// Where it is deployed.
    pub deployments: Vec<Deployment>,
}

/// A line of what a task has printed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogLine {
    /// When it was printed.
    pub time: String,
    /// `stdout` or `stderr`.
    pub stream: String,
    /// The line without its end; what is no UTF-8 is replaced.
    pub text: String,
    /// Whether it goes on with the next one of its stream: it was very long, or had no end yet.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub partial: bool,
}

/// A job was created.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Created {
    /// Its identity.
    #[schema(value_type = String)]
    pub id: JobId,
}

/// How a job is to be deployed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Deploy {
    /// Whether its instances are to run.
    pub goal: Goal,
    /// How many there are to be, 1 to 10,000.
    pub count: u32,
}

impl Default for Deploy {
    fn default() -> Deploy {
        Deploy {
            goal: Goal::Start,
            count: 1,
        }
    }
}

/// What is to change in a deployment; what is left out stays.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Patch {
    /// Whether its instances are to run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub goal: Option<Goal>,
    /// How many there are to be, 1 to 10,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
}

/// A host and how it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Host {
    /// Its name.
    pub name: String,
    /// The daemon's version there.
    pub version: String,
    /// Whether what was wanted last has reached its agent; else why it has not.
    pub fault: Option<String>,
    /// How many jobs are deployed there.
    pub jobs: usize,
    /// How many instances there are.
    pub instances: usize,
    /// How many of them run.
    pub running: usize,
    /// The name of its store, once that has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<String>,
    /// How many of them have not ended yet, while the host is going down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub halting: Option<usize>,
}

/// Which store is the truth for a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Accept {
    /// Its name, or the first eight digits of it or more.
    pub store: String,
}

/// How a host is to end its instances, as it is going down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Halt {
    /// Within how many seconds they are killed whose grace is longer.
    pub within: u32,
}

/// The daemon's version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Version {
    /// Of the program.
    pub version: String,
    /// Of this API.
    pub api: String,
    /// The host that it runs on.
    pub host: String,
}

/// A service: where the instances that may be used answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Service {
    /// Its name, as the jobs register it.
    pub name: String,
    /// The endpoints of ready instances.
    pub endpoints: Vec<Endpoint>,
}

/// Where one instance answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Endpoint {
    /// The instance's name.
    pub instance: String,
    /// The host's name.
    pub host: String,
    /// The port on that host.
    pub port: u16,
    /// The port's name in the job.
    pub name: String,
    /// What is spoken there.
    pub protocol: String,
    /// Words that the job tells with it.
    pub tags: Vec<String>,
    /// The domain that the service's name belongs to.
    pub domain: Option<String>,
}

/// One line of the stream of instances: all of them first, then what changes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Change {
    /// What there is at the beginning.
    Snapshot {
        /// All instances that were asked for.
        instances: Vec<Instance>,
    },
    /// An instance is new or has changed.
    Changed {
        /// As it is now.
        instance: Box<Instance>,
    },
    /// An instance has gone.
    Removed {
        /// Its name.
        name: String,
    },
}

/// A further program that is to run inside an instance.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Exec {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// The task; not needed where there is one only.
    #[serde(default)]
    pub task: Option<String>,
    /// Added to the environment.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// The working directory inside.
    #[serde(default)]
    pub cwd: Option<String>,
    /// `UID[:GID]`, in numbers.
    #[serde(default)]
    pub user: Option<String>,
    /// The size of its terminal in characters, columns first; it has none when this is not there.
    #[serde(default)]
    pub terminal: Option<(u16, u16)>,
}
