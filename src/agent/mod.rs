//! The agent of a host: it makes what runs here what is wanted here.
//!
//! What is wanted comes from control as a [`Wanted`], whole, and is kept on disk, so that the agent goes on
//! without control. What there is comes from the keepers. The difference is worked out by a pure `step`.

pub mod health;

use std::sync::Arc;

use crate::api::{Goal, Instance};
use crate::job::Job;

/// All that is wanted of this host.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// The store's revision that it is from: an older one than the last is left out.
    pub revision: u64,
    /// The jobs, each once.
    pub jobs: Vec<WantedJob>,
}

/// A job that is wanted here.
#[derive(Debug, Clone)]
pub struct WantedJob {
    /// What it says.
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
    /// The instances, sorted by name.
    pub instances: Vec<Arc<Instance>>,
}
