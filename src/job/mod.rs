//! What a job says: the file that people write, checked or refused before any effect, and its identity.
//!
//! A [`Job`] never changes: its [`JobId`] has a digest of all that it says. It is a group of tasks, each one
//! container, which live and die together. Where it runs, and in how many instances, says a deployment.
//!
//! Pure: nothing here looks at the host.

#[cfg(test)]
mod any;
mod check;
mod health;
pub mod helios;
mod id;
mod moment;
mod parse;
pub mod render;
mod restart;
mod schema;
mod task;
#[cfg(test)]
mod tests;
mod values;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use health::{Check, Health, Http, Probe, Purpose, Rhythm, Tcp};
pub use id::JobId;
pub use parse::{Fault, Format, MAX_SIZE, Refusal, parse};
pub use render::{Files, Place, PlaceNetwork, container_id, render};
pub use restart::{Curve, Log, Policy, Restart, Stop, WhenFull};
pub use schema::schema;
pub use task::{
    Capabilities, Cpu, Io, IoDevice, Resources, Seccomp, Shared, Source, Task, Tmpfs, Volume,
};
pub use values::{Moment, Signal, Size, Thousandths, Time, User};

/// A job, as its file says it, in TOML or JSON.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Job {
    /// Its name: 1 to 63 letters, digits, `-`, `_` and `.`, the first one a letter or digit.
    pub name: String,
    /// Its version, of the same characters.
    pub version: String,
    /// The containers of one instance, by their names, which are of the same characters without `.`.
    pub tasks: BTreeMap<String, Task>,
    /// Namespaces that the tasks of an instance have together, where there is more than one task.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub share: BTreeSet<Shared>,
    /// Ports of an instance, by their names: letters, digits, `-` and `_`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ports: BTreeMap<String, Port>,
    /// Which network the containers see: the host's by default.
    #[serde(default, skip_serializing_if = "is_default")]
    pub network: Network,
    /// The name of the host as the containers see it; that of the bundle by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// How names are looked up: the containers' /etc/resolv.conf.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<Dns>,
    /// Names of hosts and their addresses, for the containers' /etc/hosts, which is then written anew.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub add_hosts: BTreeMap<String, IpAddr>,
    /// When an instance is started again.
    #[serde(default, skip_serializing_if = "is_default")]
    pub restart: Restart,
    /// How an instance is stopped.
    #[serde(default, skip_serializing_if = "is_default")]
    pub stop: Stop,
    /// Where an instance's output goes.
    #[serde(default, skip_serializing_if = "is_default")]
    pub log: Log,
    /// Services under which its ports are found: what is told of an instance that is ready.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub registration: Vec<Service>,
    /// Told of the containers wherever they are told of: annotations of their state (docs/annotations.md).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Anything that people or programs want to know of the job. It is kept with it, and changes nothing.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// When the job and its deployments are removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Moment>,
    /// What has to be said by whoever changes or removes it, or its deployments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

/// A port of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Port {
    /// The port at which the program listens in the network of its own, from 1; the host's port where it is not given.
    /// Only with `network = "bridge"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub port: Option<u16>,
    /// The host's port, from 1; one that is free is chosen, and kept, where it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub external: Option<u16>,
    /// `tcp` by default.
    #[serde(default, skip_serializing_if = "is_default")]
    pub protocol: Protocol,
    /// The host's address at which the program listens, where it is not every one: checks go there. With
    /// `network = "bridge"`, the only one at which the port is published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
}

impl Port {
    /// Where its program listens, when this is the host's port.
    #[must_use]
    pub fn inside(&self, external: u16) -> u16 {
        self.port.unwrap_or(external)
    }
}

/// What is spoken at a port.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    Serialize,
    Deserialize,
    JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Connections.
    #[default]
    Tcp,
    /// Datagrams.
    Udp,
}

/// Which network the containers see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// The host's own.
    #[default]
    Host,
    /// One of their own, without anything in it.
    None,
    /// One of their own on a bridge of the host, which their ports are published from.
    Bridge,
}

/// How names are looked up (resolv.conf(5)).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Dns {
    /// The servers, in the order in which they are asked; at least one.
    pub servers: Vec<IpAddr>,
    /// Domains in which short names are looked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub search: Vec<String>,
    /// Options, as `ndots:2`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

/// A name under which a port is found.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Service {
    /// The service's name: letters, digits, `-` and `_`.
    pub service: String,
    /// The name of one of the job's ports.
    pub port: String,
    /// What is spoken there; `http` by default.
    #[serde(default = "http", skip_serializing_if = "is_http")]
    pub protocol: String,
    /// Words that are told with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// The domain that the name belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
}

fn http() -> String {
    "http".to_owned()
}

fn is_http(protocol: &str) -> bool {
    protocol == "http"
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
