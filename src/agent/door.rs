//! The agent as its callers see it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::sync::{oneshot, watch};

use super::driver::{self, Host, Inbox, Input, Reader};
use super::reconcile::Event as Happening;
use super::{Options, Snapshot, Wanted};
use crate::api::{Event, Health, Instance};
use crate::job::JobId;
use crate::keeper::{self, Request};

/// An agent that works, for any number of callers.
#[derive(Debug, Clone)]
pub struct Handle {
    inbox: Inbox,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    events: Reader,
    host: Arc<Host>,
}

/// What happens on this host, one after the other.
#[derive(Debug, Clone)]
pub struct Events {
    reader: Reader,
    next: u64,
}

/// Takes the state directory's lock, reads what is on disk, finds the keepers, and goes on.
///
/// # Errors
///
/// Another agent has the directory; or it can not be used.
pub async fn start(options: Options) -> Result<Handle> {
    driver::start(options, None).await.map(Handle::new)
}

/// As [`start`], for a host that is going down: everything has to end within this time ([`Handle::halt`]).
///
/// # Errors
///
/// As for [`start`].
pub async fn start_halting(options: Options, within: Duration) -> Result<Handle> {
    driver::start(options, Some(within)).await.map(Handle::new)
}

impl Handle {
    fn new(started: driver::Started) -> Handle {
        Handle {
            inbox: started.inbox,
            snapshots: started.snapshots,
            events: started.events,
            host: started.host,
        }
    }

    /// Ends all instances, as the host is going down: with their stop signals, all at once, and killed after their graces
    /// or this time. Nothing is started any more, and what is wanted stays so. [`Snapshot::halting`] tells how many are
    /// left.
    ///
    /// # Errors
    ///
    /// The agent has ended.
    pub async fn halt(&self, within: Duration) -> Result<()> {
        self.ask(|answer| Input::Halt(within, answer)).await
    }

    /// Says what is wanted here from now on. When it returns, that is safe on disk.
    ///
    /// # Errors
    ///
    /// Another store or an older revision than the last one ([`super::Refused`]); two jobs whose instances would have one
    /// name; or it can not be written, and what was wanted before stays.
    pub async fn want(&self, wanted: Wanted) -> Result<()> {
        self.ask(|answer| Input::Want(wanted, false, answer))
            .await?
    }

    /// As [`Handle::want`], whatever store or revision it is from: somebody has said that this is the truth.
    ///
    /// # Errors
    ///
    /// As for [`Handle::want`].
    pub async fn accept(&self, wanted: Wanted) -> Result<()> {
        self.ask(|answer| Input::Want(wanted, true, answer)).await?
    }

    /// What there is, and each change of it.
    #[must_use]
    pub fn snapshots(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshots.clone()
    }

    /// What has happened from this number on, as far back as it is kept, and then what happens.
    #[must_use]
    pub fn events(&self, from: u64) -> Events {
        Events {
            reader: self.events.clone(),
            next: from,
        }
    }

    /// Puts into the history what was done with a job, one word, and who has done it, and why.
    pub fn note(&self, job: &JobId, kind: &'static str, cause: String) {
        self.inbox.send(Input::Note(job.clone(), kind, cause));
    }

    /// Stops an instance and starts it at once.
    ///
    /// # Errors
    ///
    /// There is none of this name, or it has no keeper now.
    pub async fn restart(&self, instance: &str, reason: &str) -> Result<()> {
        let (instance, reason) = (instance.to_owned(), reason.to_owned());
        self.ask(|answer| Input::Ask(instance, Request::Restart, reason, answer))
            .await?
    }

    /// Says what its checks have found of an instance. With [`Health::Unhealthy`] its keeper is told to
    /// restart it, for this reason. One that is not there any more is nobody's concern.
    pub fn tell_health(&self, instance: &str, health: Health, reason: &str) {
        let checked = Happening::Checked(instance.into(), health, reason.to_owned());
        self.inbox.send(Input::Event(checked));
    }

    /// The file of a task's log; older ones are beside it, with `.1`, `.2` and so on.
    ///
    /// # Errors
    ///
    /// There is no such instance or task.
    pub fn log(&self, instance: &str, task: &str) -> Result<PathBuf> {
        let found = self.task(instance, task)?;
        let group = (found.tasks.len() > 1).then_some(task);
        let folder = self.host.directory(instance).join(keeper::place(group));
        Ok(folder.join("log"))
    }

    /// A task's container: the runtime's `--root`, and the id.
    ///
    /// # Errors
    ///
    /// There is no such instance or task.
    pub fn container(&self, instance: &str, task: &str) -> Result<(PathBuf, String)> {
        let found = self.task(instance, task)?;
        let id = found.tasks[task].container.clone();
        Ok((self.host.options.root.clone(), id))
    }

    /// What of the agent's state can not be written now, and why; None when all can. It is tried again by itself.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        self.host.troubles.in_words()
    }

    /// Returns when the agent's loop has turned.
    ///
    /// # Errors
    ///
    /// The agent has ended.
    pub async fn turns(&self) -> Result<()> {
        self.ask(Input::Ping).await
    }

    /// Ends the agent; everything that runs goes on.
    pub async fn stop(self) {
        // One that has ended already is stopped.
        let _ended = self.ask(Input::Stop).await;
    }

    /// An instance that has this task.
    fn task(&self, instance: &str, task: &str) -> Result<Arc<Instance>> {
        let snapshot = self.snapshots.borrow().clone();
        let all = &snapshot.instances;
        let index = all.binary_search_by(|one| one.name.as_str().cmp(instance));
        let Ok(index) = index else {
            bail!("there is no instance {instance:?} on this host");
        };
        if !all[index].tasks.contains_key(task) {
            let tasks: Vec<&str> = all[index].tasks.keys().map(String::as_str).collect();
            bail!("instance {instance:?} has no task {task:?}: it has {tasks:?}");
        }
        Ok(all[index].clone())
    }

    async fn ask<T>(&self, input: impl FnOnce(oneshot::Sender<T>) -> Input) -> Result<T> {
        let (answer, answered) = oneshot::channel();
        self.inbox.send(input(answer));
        answered.await.context("the agent has ended")
    }
}

impl Events {
    /// The next event; None when the agent has ended.
    pub async fn next(&mut self) -> Option<Event> {
        let event = self.reader.next(self.next).await?;
        self.next = event.number + 1;
        Some(Event::clone(&event))
    }
}
