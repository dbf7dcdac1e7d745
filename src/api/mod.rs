//! What the daemon and its clients say to each other, as types: each is JSON, and part of the OpenAPI document.
//!
//! Moments are RFC 3339 in UTC with nanoseconds. Names of fields are in camel case.

pub mod exec;
mod talk;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use talk::{
    Accept, Change, Created, Deploy, Endpoint, Exec, Halt, Host, JobInfo, LogLine, Patch, Problem,
    Service, TOKEN_HEADER, VERSION_HEADER, Version,
};

use crate::job::JobId;

/// Whether a job's instances are to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Goal {
    /// They are.
    Start,
    /// They are to be there, stopped.
    Stop,
}

/// A job on a host: what is wanted there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Deployment {
    /// The job.
    #[schema(value_type = String)]
    pub job: JobId,
    /// The host's name.
    pub host: String,
    /// Whether its instances are to run.
    pub goal: Goal,
    /// How many instances there are to be, numbered from 0: 1 to 10,000.
    pub count: u32,
    /// When it was made.
    pub created: String,
}

/// Where an instance is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Nothing was done for it yet.
    Pending,
    /// Its containers are being made.
    Starting,
    /// Its programs run; see [`Instance::health`].
    Running,
    /// The next attempt has its moment: [`Instance::next_attempt`].
    Waiting,
    /// Its programs were told to end.
    Stopping,
    /// There is nothing, and nothing will come: it was stopped.
    Stopped,
    /// It has ended well, and is not started again.
    Completed,
    /// It has failed, and is not started again.
    Failed,
    /// It can not be kept at all; [`Instance::fault`] says why. It is tried again.
    Broken,
}

/// What its health checks say of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Health {
    /// It has no checks, or they were not made yet.
    Unknown,
    /// Its startup check has not passed yet.
    Starting,
    /// It may be used.
    Ready,
    /// It runs, but its readiness check fails: it is not to be used now.
    NotReady,
    /// Its liveness check fails: it is being restarted, or will be when its turn comes.
    Unhealthy,
}

/// One instance of a job on a host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Instance {
    /// Its name, unique on its host: `name.version.digest.index`, with 7 digits of the digest.
    pub name: String,
    /// The job.
    #[schema(value_type = String)]
    pub job: JobId,
    /// The host's name.
    pub host: String,
    /// Which of the job's instances on this host.
    pub index: u32,
    /// What is wanted; None for one that is being removed.
    pub goal: Option<Goal>,
    /// Where it is.
    pub phase: Phase,
    /// What its checks say.
    pub health: Health,
    /// Whether it fails again and again.
    pub flapping: bool,
    /// How often it was started again.
    pub restarts: u64,
    /// When the next attempt comes, while it waits for one.
    pub next_attempt: Option<String>,
    /// Since when it is in this phase.
    pub since: Option<String>,
    /// Its address, where it has a network of its own (`network = "bridge"`).
    #[schema(value_type = Option<String>)]
    pub address: Option<Ipv4Addr>,
    /// The host's ports, by the names in the job.
    pub ports: BTreeMap<String, u16>,
    /// Its tasks, by their names.
    pub tasks: BTreeMap<String, TaskStatus>,
    /// What does not work, though it may run.
    pub fault: Option<String>,
}

/// One task of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TaskStatus {
    /// Its container's id, as `parhelion list` tells it.
    pub container: String,
    /// Its first process, while it runs.
    pub pid: Option<i32>,
    /// How its last program ended, in words: `code 1`, `signal 9 (KILL)`, `out of memory`, `unknown`.
    pub last_exit: Option<String>,
}

/// Something that has happened, for the history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// Counted from 1 on each host, and never used twice there.
    pub number: u64,
    /// When.
    pub time: String,
    /// The host.
    pub host: String,
    /// The job it is about.
    #[schema(value_type = Option<String>)]
    pub job: Option<JobId>,
    /// The instance it is about.
    pub instance: Option<String>,
    /// What has happened, one word: `deployed`, `started`, `ended`, `unhealthy`, `ready`, `flapping`, …
    pub kind: String,
    /// Why and how, in words.
    pub cause: String,
}
