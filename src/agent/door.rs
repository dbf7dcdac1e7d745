//! The agent as its callers see it.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Result, bail};
use tokio::sync::watch;

use super::{Options, Snapshot, Wanted};
use crate::api::{Event, Health};

/// An agent that works, for any number of callers.
#[derive(Debug, Clone)]
pub struct Handle {
    snapshots: watch::Receiver<Arc<Snapshot>>,
}

/// What happens on this host, one after the other.
#[derive(Debug)]
pub struct Events {}

/// Takes the state directory's lock, reads what is on disk, finds the keepers, and goes on.
///
/// # Errors
///
/// Another agent has the directory; or it can not be used.
#[allow(
    clippy::unused_async,
    reason = "the door comes before what is behind it"
)]
pub async fn start(options: Options) -> Result<Handle> {
    bail!("{:?}: there is no driver yet", options.state)
}

#[allow(
    clippy::unused_async,
    reason = "the door comes before what is behind it"
)]
impl Handle {
    /// Says what is wanted here from now on. When it returns, that is safe on disk.
    ///
    /// # Errors
    ///
    /// An older revision than the last one; two jobs whose instances would have one name; or it can not be
    /// written, and what was wanted before stays.
    pub async fn want(&self, _wanted: Wanted) -> Result<()> {
        bail!("there is no driver yet")
    }

    /// What there is, and each change of it.
    #[must_use]
    pub fn snapshots(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshots.clone()
    }

    /// What has happened from this number on, as far back as it is kept, and then what happens.
    #[must_use]
    pub fn events(&self, _from: u64) -> Events {
        Events {}
    }

    /// Stops an instance and starts it at once.
    ///
    /// # Errors
    ///
    /// There is none of this name, or it has no keeper now.
    pub async fn restart(&self, _instance: &str, _reason: &str) -> Result<()> {
        bail!("there is no driver yet")
    }

    /// Says what its checks have found of an instance. With [`Health::Unhealthy`] its keeper is told to
    /// restart it, for this reason.
    ///
    /// # Errors
    ///
    /// There is none of this name.
    pub async fn tell_health(&self, _instance: &str, _health: Health, _reason: &str) -> Result<()> {
        bail!("there is no driver yet")
    }

    /// The file of a task's log; older ones are beside it, with `.1`, `.2` and so on.
    ///
    /// # Errors
    ///
    /// There is no such instance or task.
    pub fn log(&self, _instance: &str, _task: &str) -> Result<PathBuf> {
        bail!("there is no driver yet")
    }

    /// A task's container: the runtime's `--root`, and the id.
    ///
    /// # Errors
    ///
    /// There is no such instance or task.
    pub fn container(&self, _instance: &str, _task: &str) -> Result<(PathBuf, String)> {
        bail!("there is no driver yet")
    }

    /// Ends the agent; everything that runs goes on.
    pub async fn stop(self) {}
}

impl Events {
    /// The next event; None when the agent has ended.
    #[allow(
        clippy::unused_async,
        reason = "the door comes before what is behind it"
    )]
    pub async fn next(&mut self) -> Option<Event> {
        None
    }
}
