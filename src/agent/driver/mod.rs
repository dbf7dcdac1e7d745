//! The agent's driver: one loop that hears what happens, lets `step` decide, and does what it says.
//!
//! To read it in order: `start -> Driver::run -> link, place -> reconcile`.

mod disk;
mod events;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod history;
mod inbox;
mod link;
mod place;
mod ports;
mod reaper;
mod start;
mod troubles;
mod wanted;

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::Rlimit;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::MissedTickBehavior;

use super::health::{self, Checks};
use super::reconcile::{Action, Begin, Event, Name, Stage, State, going_down};
use super::{Options, Origin, Snapshot};
use crate::api::Instance;
use crate::error;
use crate::job::Job;
use crate::keeper::{Request, clock};
use crate::network::Network;

pub use events::Reader;
pub use inbox::{Inbox, Input};
pub use start::{Started, start};
use troubles::Trouble;
#[cfg(test)]
pub(crate) use {ports::Ports, wanted::plan};

/// What does not change while an agent works.
#[derive(Debug)]
pub struct Host {
    /// As it was started.
    pub options: Options,
    /// Where instances are: a directory for each.
    pub instances: PathBuf,
    /// Where named volumes are.
    pub volumes: PathBuf,
    /// The cgroup that is this agent's alone.
    pub cgroup_parent: String,
    /// Who has which port.
    pub ports: Mutex<ports::Ports>,
    /// Networks of instances' own.
    pub network: Network,
    /// What that is from which was written down last by this agent.
    pub recorded: Mutex<Option<Origin>>,
    /// What of its state can not be written.
    pub troubles: troubles::Troubles,
    /// How many keepers may begin at once.
    pub beginning: Arc<Semaphore>,
    /// How many directories may be written or removed at once.
    pub writing: Arc<Semaphore>,
    /// How many files a keeper may have open.
    pub open_files: Rlimit,
}

/// When the disk is tried again that has not taken what has happened.
const AGAIN: Duration = Duration::from_secs(5);

/// How soon after something new has appeared it is looked whose it is.
const LOOK: Duration = Duration::from_secs(1);

struct Driver {
    host: Arc<Host>,
    state: State,
    /// What that is from which is followed.
    origin: Option<Origin>,
    jobs: HashMap<Name, place::Recipe>,
    links: HashMap<Name, mpsc::UnboundedSender<link::Order>>,
    pipes: HashMap<Name, link::Pipes>,
    inbox: Inbox,
    outbox: mpsc::UnboundedReceiver<Input>,
    views: BTreeMap<Name, Arc<Instance>>,
    snapshots: watch::Sender<Arc<Snapshot>>,
    log: events::Log,
    told: events::Told,
    checks: Checks,
    /// Whether it will be looked for what nobody knows.
    is_looking: bool,
    _lock: File,
}

impl Driver {
    /// Works until somebody asks for the end: who that was.
    async fn run(mut self) {
        let mut again = tokio::time::interval(AGAIN);
        again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let end = loop {
            let wake = self.state.wake_at();
            let pause = wake.map(|moment| moment.saturating_sub(clock::now()));
            let input = tokio::select! {
                input = self.outbox.recv() => input,
                () = tokio::time::sleep(pause.unwrap_or_default()), if pause.is_some() => {
                    Some(Input::Event(Event::Time))
                }
                _ = again.tick(), if self.log.fault().is_some() => {
                    self.log.catch_up();
                    self.host.troubles.set(Trouble::History, self.log.fault());
                    continue;
                }
            };
            let Some(input) = input else { break None };
            if let Some(end) = self.take(input) {
                break Some(end);
            }
            // What came meanwhile is part of the same snapshot.
            let mut end = None;
            while end.is_none()
                && let Ok(input) = self.outbox.try_recv()
            {
                end = self.take(input);
            }
            self.host.troubles.set(Trouble::History, self.log.fault());
            self.publish();
            if end.is_some() {
                break end;
            }
        };
        drop(self);
        if let Some(end) = end {
            // Who asked may have gone.
            let _gone = end.send(());
        }
    }

    fn take(&mut self, input: Input) -> Option<oneshot::Sender<()>> {
        match input {
            Input::Event(event) => self.step(event),
            Input::Kept(name, pipes) => {
                self.pipes.insert(name.clone(), pipes);
                self.step(Event::Kept(name));
            }
            Input::Told(name, told) => self.told(name, *told),
            Input::Appeared(names) => self.appeared(&names),
            Input::Look => self.look(),
            Input::Reaped(reaped) => self.note_reaped(reaped),
            Input::Want(wanted, anyway, answer) => self.want(wanted, anyway, answer),
            Input::Recorded(planned, origin, answer) => self.recorded(planned, origin, answer),
            Input::Ask(name, request, reason, answer) => {
                let done = self.ask(&name, request, reason);
                let _gone = answer.send(done);
            }
            Input::Halt(within, answer) => {
                self.step(Event::Halt(within));
                let _gone = answer.send(());
            }
            Input::Note(job, kind, cause) => self.note_job(&job, kind, cause),
            // Who has asked may have waited too long.
            Input::Ping(answer) => drop(answer.send(())),
            Input::Stop(end) => return Some(end),
        }
        None
    }

    fn ask(&mut self, name: &str, request: Request, reason: String) -> Result<()> {
        if self.state.halting.is_some() {
            bail!("this host is going down: what is wanted runs again after its next boot");
        }
        let Some(link) = self.links.get(name) else {
            match self.state.slots.contains_key(name) {
                true => {
                    bail!("instance {name:?} has no keeper now: it is started as soon as it can be")
                }
                false => bail!("there is no instance {name:?}"),
            }
        };
        let gone = link.send(link::Order::Ask(request)).is_err();
        if gone {
            bail!("the keeper of instance {name:?} has just ended: ask again");
        }
        self.note_asked(name, reason);
        Ok(())
    }

    fn step(&mut self, event: Event) {
        let is_wide = matches!(
            event,
            Event::Begun { .. } | Event::Want(_) | Event::Halt(_) | Event::Time
        );
        let about = about(&event).cloned();
        self.note_event(&event);
        if let Event::Lost(name) | Event::NotKept(name, _) = &event {
            self.links.remove(name);
        }
        let is_deleted = matches!(event, Event::Deleted(_));
        let actions = self.state.step(event, clock::now());
        if is_wide || is_deleted && !actions.is_empty() {
            let names: Vec<Name> = self.state.slots.keys().cloned().collect();
            names.iter().for_each(|name| self.view(name));
        }
        if let Some(name) = about {
            self.view(&name);
        }
        for action in actions {
            self.act(action);
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Make(name) => self.make(name),
            Action::Keep(name, begin) => self.keep(name, begin),
            Action::Ask(name, request) => {
                if let Some(link) = self.links.get(&name) {
                    // One that has gone is told of by its link.
                    let _gone = link.send(link::Order::Ask(request));
                }
            }
            Action::Delete(name) => self.delete(name),
        }
    }

    fn make(&self, name: Name) {
        let Some(recipe) = self.jobs.get(&name).cloned() else {
            let why = "nobody knows its job any more".to_owned();
            return self.inbox.event(Event::NotMade(name, why));
        };
        let (host, inbox) = (self.host.clone(), self.inbox.clone());
        tokio::spawn(async move {
            let _permit = host.writing.clone().acquire_owned().await;
            let made = tokio::task::spawn_blocking(move || host.make(&recipe)).await;
            inbox.event(match made.context("write its directory").flatten_() {
                Ok((ports, address)) => Event::Made(name, ports, address),
                Err(error) => Event::NotMade(name, error::in_words(&error)),
            });
        });
    }

    fn keep(&mut self, name: Name, begin: Begin) {
        let (orders, commands) = mpsc::unbounded_channel();
        self.links.insert(name.clone(), orders);
        let (host, inbox) = (self.host.clone(), self.inbox.clone());
        tokio::spawn(link::run(host, name, begin, commands, inbox));
    }

    fn delete(&mut self, name: Name) {
        let link = self.links.remove(&name);
        if let Some(link) = &link {
            let _gone = link.send(link::Order::End);
        }
        self.pipes.remove(&name);
        let (host, inbox) = (self.host.clone(), self.inbox.clone());
        tokio::spawn(async move {
            if let Some(link) = link {
                // Until its keeper has ended, which has the directory's lock.
                link.closed().await;
            }
            let _permit = host.writing.clone().acquire_owned().await;
            let what = name.clone();
            let removed = tokio::task::spawn_blocking(move || host.remove(&what)).await;
            inbox.event(match removed.context("remove its directory").flatten_() {
                Ok(()) => Event::Deleted(name),
                Err(error) => Event::NotDeleted(name, error::in_words(&error)),
            });
        });
    }

    fn appeared(&mut self, names: &[String]) {
        let known = |name: &String| {
            let is_slot = |end| self.state.slots.contains_key(&name[..end]);
            is_slot(name.len()) || name.match_indices('.').any(|(end, _)| is_slot(end))
        };
        if !self.is_looking && !names.iter().all(known) {
            self.is_looking = true;
            let inbox = self.inbox.clone();
            tokio::spawn(async move {
                tokio::time::sleep(LOOK).await;
                inbox.send(Input::Look);
            });
        }
    }

    fn look(&mut self) {
        self.is_looking = false;
        let (host, inbox) = (self.host.clone(), self.inbox.clone());
        tokio::task::spawn_blocking(move || inbox.send(Input::Reaped(host.reap())));
    }

    /// Looks at an instance anew, as others see it.
    fn view(&mut self, name: &Name) {
        match self.state.slots.get(name) {
            None => drop(self.views.remove(name)),
            Some(slot) => {
                let mut view = slot.view(name, &self.host.options.host);
                if self.state.halting.is_some() {
                    view = going_down(view);
                }
                let is_same = self.views.get(name).is_some_and(|last| **last == view);
                if !is_same {
                    self.note_change(name, &view);
                    self.views.insert(name.clone(), Arc::new(view));
                }
            }
        }
    }

    fn publish(&mut self) {
        let instances: Vec<_> = self.views.values().cloned().collect();
        let halting = self.state.left();
        self.snapshots.send_if_modified(|last| {
            let same = last.revision == self.state.revision
                && last.halting == halting
                && last.instances.len() == instances.len()
                && last
                    .instances
                    .iter()
                    .zip(&instances)
                    .all(|(a, b)| Arc::ptr_eq(a, b));
            if !same {
                let targets = instances.iter().filter_map(|view| {
                    let recipe = self.jobs.get(view.name.as_str())?;
                    health::target(view, &recipe.job)
                });
                self.checks.set(targets.collect());
                let number = last.number + 1;
                *last = Arc::new(Snapshot {
                    number,
                    revision: self.state.revision,
                    halting,
                    instances,
                });
            }
            !same
        });
    }

    /// Whether a keeper is listened to.
    fn is_kept(&self, name: &Name) -> bool {
        let slot = self.state.slots.get(name);
        slot.is_some_and(|slot| matches!(slot.stage, Stage::Kept { .. }))
    }
}

/// The instance that an event is about, if it is one.
pub(crate) fn about(event: &Event) -> Option<&Name> {
    match event {
        Event::Begun { .. } | Event::Want(_) | Event::Halt(_) | Event::Time => None,
        Event::Made(name, ..)
        | Event::NotMade(name, _)
        | Event::Kept(name)
        | Event::NotKept(name, _)
        | Event::Told(name, _)
        | Event::Lost(name)
        | Event::Deleted(name)
        | Event::NotDeleted(name, _)
        | Event::Checked(name, _, _) => Some(name),
    }
}

fn instance_name(job: &Job, digest: &str, index: u32) -> String {
    format!("{}.{}.{digest:.7}.{index}", job.name, job.version)
}

/// A result in a result, as one.
trait Flatten<T> {
    fn flatten_(self) -> Result<T>;
}

impl<T> Flatten<T> for Result<Result<T>> {
    fn flatten_(self) -> Result<T> {
        self.and_then(|inner| inner)
    }
}
