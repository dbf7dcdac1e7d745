//! What a job says about one container.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::health::Health;
use super::is_default;
use super::values::{Size, Thousandths, User};

/// One container. What it does not say is as the bundle's config.json has it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Task {
    /// The directory of the OCI bundle that it is made from, on the host where it runs; absolute.
    pub bundle: PathBuf,
    /// The program and its arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub command: Option<Vec<String>>,
    /// Variables of its environment, besides those of the bundle and what tells it of its ports.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Whom the program runs as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<User>,
    /// Further groups of the program, in numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups: Option<BTreeSet<u32>>,
    /// Where the program begins, a path inside the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_directory: Option<String>,
    /// Whether the root file system can not be written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_only: Option<bool>,
    /// What it may take of the host.
    #[serde(default, skip_serializing_if = "is_default")]
    pub resources: Resources,
    /// What of the host it sees, by the absolute path inside.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<String, Volume>,
    /// File systems in memory, by the absolute path inside.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tmpfs: BTreeMap<String, Tmpfs>,
    /// Which capabilities it has (capabilities(7)).
    #[serde(default, skip_serializing_if = "is_default")]
    pub capabilities: Capabilities,
    /// Whether programs inside never gain rights by set-user-ID files and the like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_new_privileges: Option<bool>,
    /// Which system calls it may make: `"unconfined"`, or what `linux.seccomp` of config.json says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seccomp: Option<Seccomp>,
    /// The name of its AppArmor profile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub apparmor: Option<String>,
    /// Its SELinux label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selinux: Option<String>,
    /// How it is found out whether it works.
    #[serde(default, skip_serializing_if = "Health::is_empty")]
    pub health: Health,
}

/// A namespace that tasks can share.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Shared {
    /// Interfaces and ports.
    Network,
    /// System V objects and message queues.
    Ipc,
    /// Processes: each task sees the other ones'.
    Pid,
    /// The host's name.
    Uts,
}

/// What a container may take of the host. What is not given is not limited, or as the bundle says.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Resources {
    /// Memory; a program that needs more is killed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Size>,
    /// Memory and swap together, at least `memory`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_swap: Option<Size>,
    /// Processors.
    #[serde(default, skip_serializing_if = "is_default")]
    pub cpu: Cpu,
    /// How many processes and threads there may be, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pids: Option<u32>,
    /// Disks.
    #[serde(default, skip_serializing_if = "is_default")]
    pub io: Io,
}

/// What of the processors.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Cpu {
    /// How many of them at most, as 1.5: from 0.01 to 10000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cores: Option<Thousandths>,
    /// Its part when others want them too, 2 to 262144; 1024 is what a container without it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shares: Option<u32>,
    /// Which ones, as `0-3,8`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpuset: Option<String>,
}

/// What of the disks.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Io {
    /// Its part when others want them too, 10 to 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u16>,
    /// Limits, by the numbers of a disk as `8:0`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub devices: BTreeMap<String, IoDevice>,
}

/// Limits at one disk; at least one of them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct IoDevice {
    /// Bytes read in a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_bytes: Option<Size>,
    /// Bytes written in a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write_bytes: Option<Size>,
    /// Reads in a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_operations: Option<u32>,
    /// Writes in a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write_operations: Option<u32>,
}

/// What of the host is seen: exactly one of `host`, `name` and `instance`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Volume {
    /// A path of the host, absolute; it has to be there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<PathBuf>,
    /// A directory of the supervisor, made when it is missing, which every job of the host with this name shares.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// A directory of this instance with this name, made empty, which its tasks share and which goes with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// Whether it can not be written.
    #[serde(default, skip_serializing_if = "is_default")]
    pub read_only: bool,
}

/// Where a volume is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source<'a> {
    /// A path of the host.
    Host(&'a std::path::Path),
    /// A directory for every job of the host.
    Name(&'a str),
    /// A directory for the instance.
    Instance(&'a str),
}

/// A file system in memory. Neither devices nor set-user-ID files nor programs in it have an effect, unless `options`
/// say `dev`, `suid` or `exec`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Tmpfs {
    /// How much it takes at most; half of the host's memory by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<Size>,
    /// Who may use its root, as `0755`; `1777` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// Further options of the mount, of those that docs/jobs.md lists.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

/// Changes to the bundle's capabilities: `drop` first, then `add`. Names with or without `CAP_`, and `ALL`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Capabilities {
    /// Those that it gets.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub add: BTreeSet<String>,
    /// Those that it loses.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub drop: BTreeSet<String>,
}

/// Which system calls a container may make.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(
    untagged,
    expecting = "must be \"unconfined\" or an object as linux.seccomp of config.json"
)]
pub enum Seccomp {
    /// `"unconfined"`: all of them.
    Word(Unconfined),
    /// What `linux.seccomp` of config.json says.
    Profile(Map<String, Value>),
}

/// A word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Unconfined {
    /// Without a filter.
    Unconfined,
}

impl Volume {
    /// Where it is; None where the job does not say exactly one place, which is refused.
    #[must_use]
    pub fn source(&self) -> Option<Source<'_>> {
        match (&self.host, &self.name, &self.instance) {
            (Some(path), None, None) => Some(Source::Host(path)),
            (None, Some(name), None) => Some(Source::Name(name)),
            (None, None, Some(name)) => Some(Source::Instance(name)),
            _ => None,
        }
    }
}

impl Seccomp {
    /// Without a filter.
    #[must_use]
    pub const fn unconfined() -> Seccomp {
        Seccomp::Word(Unconfined::Unconfined)
    }
}
