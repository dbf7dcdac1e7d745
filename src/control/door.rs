//! The door to the agent: what control asks of it, so that tests can stand in for it.

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use tokio::sync::watch;

use crate::agent::{Snapshot, Wanted};
use crate::api::Event;
use crate::job::JobId;

/// An answer that is waited for.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The agent of this host.
pub trait Agent: Send + Sync {
    /// Takes what is wanted; it is safe on disk when this returns.
    fn want(&self, wanted: Wanted) -> Answer<'_, Result<()>>;

    /// Takes what is wanted from whatever store or revision.
    fn accept(&self, wanted: Wanted) -> Answer<'_, Result<()>>;

    /// Ends all instances within this time, as the host is going down.
    fn halt(&self, within: Duration) -> Answer<'_, Result<()>>;

    /// What of its state it can not write now, and why.
    fn fault(&self) -> Option<String>;

    /// Returns when its loop has turned.
    fn turns(&self) -> Answer<'_, Result<()>>;

    /// All instances, now and with every change.
    fn snapshots(&self) -> watch::Receiver<Arc<Snapshot>>;

    /// What has happened from an event's number on, then what happens.
    fn events(&self, from: u64) -> Box<dyn Events>;

    /// Puts into the history what was done with a job, one word, and who has done it, and why.
    fn note(&self, job: &JobId, kind: &'static str, cause: String);

    /// Starts an instance anew.
    fn restart<'a>(&'a self, instance: &'a str, reason: &'a str) -> Answer<'a, Result<()>>;

    /// The newest file of a task's log.
    ///
    /// # Errors
    ///
    /// There is no such instance or task.
    fn log(&self, instance: &str, task: &str) -> Result<PathBuf>;

    /// A task's container: the directory of containers' state, and its id.
    ///
    /// # Errors
    ///
    /// There is no such instance or task.
    fn container(&self, instance: &str, task: &str) -> Result<(PathBuf, String)>;
}

/// Events, the oldest first.
pub trait Events: Send {
    /// The next one, for which it waits; None at the agent's end.
    fn next(&mut self) -> Answer<'_, Option<Event>>;
}

/// The events that have happened already.
pub async fn past(events: &mut dyn Events) -> Vec<Event> {
    let mut past = Vec::new();
    while let Some(event) = at_once(events.next()).await {
        past.push(event);
    }
    past
}

/// What is there without waiting.
async fn at_once(mut next: Answer<'_, Option<Event>>) -> Option<Event> {
    std::future::poll_fn(|context| {
        let polled = next.as_mut().poll(context);
        std::task::Poll::Ready(match polled {
            std::task::Poll::Ready(event) => event,
            std::task::Poll::Pending => None,
        })
    })
    .await
}
