//! The agent of a host: it makes what runs here what is wanted here.
//!
//! What is wanted comes from control as a [`Wanted`], whole, and is kept on disk, so that the agent goes on
//! without control. What there is comes from the keepers. The difference is worked out by a pure `step`.

mod door;
mod driver;
pub mod health;
mod origin;
pub mod reconcile;
mod report;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::api::{Goal, Instance};
use crate::job::Job;
use crate::network;

pub use door::{Events, Handle, start, start_halting};
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub use driver::fuzzing;
#[cfg(test)]
pub(crate) use driver::{Ports, about, plan};
pub use origin::{Origin, Refused};
#[cfg(test)]
pub(crate) use report::Told;

/// Where an agent works.
#[derive(Debug, Clone)]
pub struct Options {
    /// The host's name.
    pub host: String,
    /// The directory of its own state, made if it is not there.
    pub state: PathBuf,
    /// The runtime's program, `parhelion`, absolute.
    pub runtime: PathBuf,
    /// The directory of the containers' state: `--root` of the runtime.
    pub root: PathBuf,
    /// The cgroup below which it makes its own, as `/parhelion`.
    pub cgroup_parent: String,
    /// The networks that it makes.
    pub network: network::Options,
}

/// All that is wanted of this host.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Wanted {
    /// The store that it is from, once that has a name: what is from another one than the last is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<String>,
    /// The store's revision that it is from: an older one than the last is refused.
    pub revision: u64,
    /// The jobs, each once.
    pub jobs: Vec<WantedJob>,
    /// The host's ports that jobs ask for by their numbers, also jobs that are not wanted yet: none of them is chosen for
    /// another one.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub reserved: BTreeSet<u16>,
}

/// A job that is wanted here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WantedJob {
    /// What it says.
    #[serde(with = "shared")]
    pub job: Arc<Job>,
    /// Whether its instances are to run.
    pub goal: Goal,
    /// How many instances there are to be.
    pub count: u32,
}

/// All instances of this host at one moment, by their names.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Counted up with every change.
    pub number: u64,
    /// The revision of what is wanted of them; None while that is not known.
    pub revision: Option<u64>,
    /// How many instances have not ended yet, while the host is going down.
    pub halting: Option<usize>,
    /// The instances, sorted by name.
    pub instances: Vec<Arc<Instance>>,
}

/// A job on disk, where nothing is shared.
mod shared {
    use std::sync::Arc;

    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    use crate::job::Job;

    pub fn serialize<S: Serializer>(job: &Arc<Job>, to: S) -> Result<S::Ok, S::Error> {
        Job::serialize(job, to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Arc<Job>, D::Error> {
        Job::deserialize(from).map(Arc::new)
    }
}
