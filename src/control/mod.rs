//! Control: takes jobs and deployments, keeps them in the store, and tells people what becomes of them.
//!
//! What should run is in the store, and is written by compare-and-set only. What is wanted of this host goes from
//! the store's watch to the agent ([`wanted`]); what the agent tells comes back as snapshots and events, and is
//! never stored here. The API is HTTP with JSON on a unix socket ([`server`], [`routes`]).

mod caller;
pub(crate) mod changes;
pub mod daemon;
mod deployments;
mod door;
mod exec;
mod expiry;
mod faults;
mod feed;
mod find;
mod follow;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod halt;
mod inherited;
pub mod jail;
mod jobs;
pub(crate) mod keys;
mod metrics;
mod options;
mod patient;
mod place;
mod problem;
mod program;
mod routes;
mod server;
mod services;
mod socket;
mod terminal;
mod upgrade;
mod wanted;

/// What the simulation of a whole host is made of.
#[cfg(test)]
pub(crate) mod pure {
    pub use super::expiry::left;
    pub use super::jobs::Stored;
    pub use super::wanted::Intent;
}

#[cfg(any(test, feature = "fuzzing"))]
mod testing;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use tokio::sync::{Notify, Semaphore, watch};

pub use door::{Agent, Answer, Events};
pub use options::Options;
pub use problem::Refusal;
pub use routes::open_api;

use crate::store::Store;

/// What every handler needs.
pub struct Control {
    /// What should run.
    store: Arc<dyn Store>,
    /// What runs on this host.
    agent: Arc<dyn Agent>,
    /// This host's name.
    host: String,
    /// Where programs are run inside instances.
    exec: exec::Door,
    /// How many more of them there may be.
    sessions: Arc<Semaphore>,
    /// How well what is wanted reaches the agent.
    health: wanted::Health,
    /// Told when somebody says that this store is the truth.
    accepted: Notify,
    /// Whether the agent's loop turns.
    turn: Arc<watch::Sender<faults::Turn>>,
    /// Where it is written.
    places: Arc<faults::Places>,
    /// Told of each change that the store's disk has refused.
    refused: Notify,
    /// What was counted for the metrics.
    counts: metrics::Counts,
    /// Told of each new job: its end may come before all others'.
    created: Notify,
    /// True when the daemon ends: what goes on for long ends then.
    stop: watch::Receiver<bool>,
}

/// The definition of the daemon's command line, for completions and manual pages.
#[must_use]
pub fn command() -> clap::Command {
    <Options as clap::CommandFactory>::command()
}

impl Control {
    /// Calls the store on a thread that may wait.
    async fn store<T, F>(&self, call: F) -> Result<T, Refusal>
    where
        T: Send + 'static,
        F: FnOnce(&dyn Store) -> Result<T, crate::store::Error> + Send + 'static,
    {
        let store = Arc::clone(&self.store);
        let done = tokio::task::spawn_blocking(move || call(&*store)).await;
        match done {
            Ok(answer) => answer.map_err(|error| {
                if error.is_of_disk() {
                    self.refused.notify_one();
                }
                Refusal::from(error)
            }),
            Err(_) => Err(Refusal::from(crate::store::Error::Closed)),
        }
    }
}
