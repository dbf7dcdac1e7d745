//! The daemon: store, control's way to the agent, the agent with its driver, and health checks. Dies as a whole.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::checks::Check;
use super::disk::{Disk, Image};
use super::people::{HOST, jobs};
use super::{Due, Invariant, Weakness, World, ms};
use crate::agent::health::SAVED_WITHIN;
use crate::agent::health::policy as checks;
use crate::agent::reconcile::{Action, Event, FoundSlot, Name, Stage, State};
use crate::agent::{Ports, Told, Wanted, plan};
use crate::api::{Health, TaskStatus};
use crate::control::pure::Intent;
use crate::job::Job;
use crate::keeper::Request;
use crate::keeper::policy::{Event as Asked, Moment};
use crate::keeper::status::{Faults, Status, Task};
use crate::store::embedded::Embedded;
use crate::store::{self, Range, Revision, Store as _, Watch};

/// How soon control tries again what has failed.
const AGAIN: Duration = Duration::from_secs(5);

/// What a daemon has in memory.
pub struct Daemon {
    pub number: u64,
    pub store: Embedded,
    watch: Option<Box<dyn Watch>>,
    intent: Intent,
    revision: Revision,
    /// Whether the agent is being told what is wanted.
    telling: bool,
    pub state: State,
    ports: Ports,
    /// What is wanted, by instances.
    pub jobs: BTreeMap<Name, Arc<Job>>,
    /// Instances of which an action has not ended.
    busy: BTreeSet<Name>,
    pub checks: BTreeMap<Name, Check>,
    pub verdicts: BTreeMap<Name, (String, Health)>,
    pub save_at: Option<Moment>,
}

impl World {
    /// A daemon begins: it opens the store, reads its file and looks for keepers.
    pub fn begin_daemon(&mut self) {
        self.count += 1;
        let number = self.count;
        let clock: Arc<dyn store::Clock> = self.time.clone();
        let store = match Embedded::on(self.disk.medium(), clock) {
            Ok(store) => store,
            Err(error) => return self.must(false, Invariant::IntentIsKept, || error.to_string()),
        };
        let verdicts = match self.weakness {
            Weakness::VerdictsForgotten => BTreeMap::new(),
            _ => self.verdicts.clone(),
        };
        let mut ports = Ports::default();
        if self.weakness != Weakness::PortsForgotten {
            for (name, place) in &self.places {
                ports.claim(name, &place.ports);
            }
        }
        self.daemon = Some(Daemon {
            number,
            store,
            watch: None,
            intent: Intent::new(HOST),
            revision: Revision::FIRST,
            telling: false,
            state: State::new(self.random),
            ports,
            jobs: BTreeMap::new(),
            busy: BTreeSet::new(),
            checks: BTreeMap::new(),
            verdicts,
            save_at: None,
        });
        self.check_store();
        let found = self.places.iter().map(|(name, place)| FoundSlot {
            name: name.clone(),
            job: jobs()[0].0.clone(),
            index: 0,
            ports: place.ports.clone(),
            address: None,
            kept: !place.keepers.is_empty(),
        });
        let found = found.collect();
        // Rarely the file is damaged, and nothing may be ended for that.
        if self.chance(5) {
            self.file = None;
        }
        let want = self.file.clone().map(|wanted| self.planned(&wanted));
        self.tell(Event::Begun { found, want });
        self.load();
        self.after(ms(1), Due::Expire(number));
    }

    /// The daemon is killed, or its machine code is at fault: what it had in memory is gone.
    pub fn lose_daemon(&mut self) {
        let image = self.disk.image(self.disk.len());
        self.end_daemon(image);
    }

    pub fn end_daemon(&mut self, image: Image) {
        self.disk = Disk::with(image);
        // It closes its store in order, on a disk that is nobody's any more.
        if self.daemon.take().is_some() {
            // What it has told last may not have come to the disk; each daemon's death has to be looked at, as the next one
            // may die before it has said anything.
            let now = self.now;
            self.shown.retain(|_, (_, _, at)| *at + SAVED_WITHIN < now);
            self.soon(Due::Daemon);
        }
    }

    /// Which instances that are, and who makes them how.
    fn planned(&mut self, wanted: &Wanted) -> crate::agent::reconcile::Want {
        let (recipes, want) = plan(wanted).unwrap();
        if let Some(daemon) = &mut self.daemon {
            let jobs = recipes.into_iter().map(|(name, recipe)| (name, recipe.job));
            daemon.jobs = jobs.collect();
        }
        want
    }

    /// Control reads what is wanted, whole, and watches from there on.
    pub fn load(&mut self) {
        let Some(daemon) = &mut self.daemon else {
            return;
        };
        let all = daemon.store.get(&Range::Prefix(b"/".to_vec())).unwrap();
        daemon.intent = Intent::new(HOST);
        for pair in &all.keys {
            daemon.intent.put(pair).unwrap();
        }
        daemon.revision = all.revision;
        daemon.watch = Some(daemon.store.watch(b"/", all.revision.next()).unwrap());
        self.send();
    }

    /// Control hears of changes.
    pub fn follow(&mut self) {
        let unseen = self.weakness == Weakness::DeletionsUnseen;
        let Some(daemon) = &mut self.daemon else {
            return;
        };
        if daemon.telling {
            return;
        }
        let before = daemon.revision;
        while let Some(watch) = &mut daemon.watch
            && let Some(change) = watch.try_next().unwrap()
        {
            for event in &change.events {
                if !unseen || matches!(event, store::Event::Put(_)) {
                    daemon.intent.apply(event).unwrap();
                }
            }
            daemon.revision = change.revision;
        }
        if daemon.revision != before {
            self.send();
        }
    }

    fn send(&mut self) {
        let Some(daemon) = &mut self.daemon else {
            return;
        };
        match daemon.intent.wanted(daemon.revision) {
            Ok(wanted) => {
                daemon.telling = true;
                let number = daemon.number;
                self.soon(Due::Want(number, wanted));
            }
            Err(error) => self.must(false, Invariant::IntentIsKept, || error.to_string()),
        }
    }

    /// The agent writes down what is wanted, and follows it.
    pub fn want(&mut self, wanted: Wanted) {
        let fails = self.fails();
        let Some(daemon) = &mut self.daemon else {
            return;
        };
        daemon.telling = false;
        let number = daemon.number;
        let last = daemon.state.revision;
        let is_older = last.is_some_and(|last| wanted.revision < last);
        self.must(!is_older, Invariant::IntentIsKept, || {
            format!("the store has {}, the agent {last:?}", wanted.revision)
        });
        if fails {
            return self.after(AGAIN, Due::Load(number));
        }
        self.file = Some(wanted.clone());
        let want = self.planned(&wanted);
        self.tell(Event::Want(want));
        self.follow();
    }

    /// A step of the agent, and the beginning of what it asks for.
    pub fn tell(&mut self, event: Event) {
        let clock = self.clock();
        let about = match &event {
            Event::Told(name, _) => Some(name.clone()),
            _ => None,
        };
        let Some(daemon) = &mut self.daemon else {
            return;
        };
        let actions = daemon.state.step(event, clock);
        let number = daemon.number;
        for action in actions {
            if let Action::Make(name) | Action::Keep(name, _) | Action::Delete(name) = &action {
                let busy = &mut self.daemon.as_mut().unwrap().busy;
                let first = busy.insert(name.clone());
                self.must(first, Invariant::OneOfASlot, || {
                    format!("two at a time: {action:?}")
                });
            } else if self.fails() {
                continue; // what is asked of a keeper gets lost
            }
            self.soon(Due::Act(number, action));
        }
        if let Some(name) = about {
            self.watch_health(&name);
        }
    }

    /// What the agent has begun comes to its end.
    pub fn act(&mut self, action: Action) {
        let fails = self.fails();
        if let (Some(daemon), Action::Make(name) | Action::Keep(name, _) | Action::Delete(name)) =
            (&mut self.daemon, &action)
        {
            daemon.busy.remove(name);
        }
        let why = || "no luck".to_owned();
        match action {
            Action::Make(name) if fails => self.tell(Event::NotMade(name, why())),
            Action::Make(name) => self.make(name),
            Action::Keep(name, _) if fails || !self.places.contains_key(&name) => {
                self.tell(Event::NotKept(name, why()));
            }
            Action::Keep(name, begin) => {
                self.keeper_begins(&name, begin);
                self.tell(Event::Kept(name.clone()));
                self.report(&name);
            }
            Action::Ask(name, request) => self.ask(&name, request),
            Action::Delete(name) if fails => self.tell(Event::NotDeleted(name, why())),
            Action::Delete(name) => {
                self.places.remove(&name);
                if let Some(daemon) = &mut self.daemon {
                    daemon.ports.release(&name);
                    daemon.checks.remove(&name);
                }
                self.tell(Event::Deleted(name));
            }
        }
    }

    fn make(&mut self, name: Name) {
        let place = self.places.get(&name);
        let had = place.map(|place| place.ports.clone()).unwrap_or_default();
        let runs = place.is_some_and(|place| !place.containers.is_empty());
        let others = self
            .places
            .iter()
            .filter(|(other, place)| **other != name && !place.containers.is_empty());
        let bound: BTreeSet<u16> = others
            .flat_map(|(_, place)| place.ports.values().copied())
            .collect();
        let is_free =
            |(_, port): (_, u16)| runs || !self.squatted.contains(&port) && !bound.contains(&port);
        let Some(daemon) = &mut self.daemon else {
            return;
        };
        let taken = match daemon.jobs.get(&name) {
            Some(job) => daemon.ports.take(&name, &job.ports, &had, &is_free),
            None => Err(anyhow::anyhow!("nobody knows its job any more")),
        };
        match taken {
            Ok(ports) => {
                self.places
                    .entry(name.clone())
                    .or_default()
                    .ports
                    .clone_from(&ports);
                self.tell(Event::Made(name, ports, None));
            }
            Err(error) => self.tell(Event::NotMade(name, error.to_string())),
        }
    }

    fn ask(&mut self, name: &Name, request: Request) {
        let event = match request {
            Request::Start => Asked::Start,
            Request::Stop => Asked::Stop,
            Request::Restart => Asked::Restart,
            Request::Unhealthy { .. } => Asked::Unhealthy,
            Request::Status | Request::Watch | Request::Exec(_) | Request::Halt { .. } => return,
        };
        let keepers = self.places.get(name).map(|place| &place.keepers);
        if let Some(keeper) = keepers.and_then(|keepers| keepers.first()) {
            let id = keeper.id;
            self.keeper_hears(name, id, event);
        }
    }

    pub fn is_kept(&self, name: &Name) -> bool {
        let daemon = self.daemon.as_ref();
        let slot = daemon.and_then(|daemon| daemon.state.slots.get(name));
        slot.is_some_and(|slot| matches!(slot.stage, Stage::Kept { .. }))
    }

    /// A keeper tells the agent, if that listens.
    pub fn report(&mut self, name: &Name) {
        let Some(place) = self.places.get(name).filter(|_| self.is_kept(name)) else {
            return;
        };
        let Some(keeper) = place.keepers.first() else {
            return;
        };
        let status = Status {
            tasks: vec![Task::default()],
            root: "/run".into(),
            boot: String::new(),
            keeper: 1,
            state: keeper.state.clone(),
            flapping: false,
            next_attempt: None,
            attempts: Vec::new(),
            faults: Faults::default(),
        };
        let mut report = Told::new(status, "main").report;
        let task = TaskStatus {
            container: String::new(),
            pid: place.containers.first().map(|one| one.id as i32),
            last_exit: None,
        };
        report.tasks = [("main".to_owned(), task)].into();
        let at = self.delay_of_report(name);
        let told = Event::Told(name.clone(), Arc::new(report));
        let number = self.daemon.as_ref().unwrap().number;
        self.after(at - self.now, Due::Tell(number, told));
    }

    pub fn daemon_wakes_at(&self) -> Option<Moment> {
        let daemon = self.daemon.as_ref()?;
        let agent = daemon.state.wake_at().map(|at| at + self.booted);
        let checks = daemon
            .checks
            .values()
            .filter_map(|check| check.state.wake_at());
        agent.into_iter().chain(checks).chain(daemon.save_at).min()
    }

    pub fn daemon_time(&mut self) {
        let (now, clock) = (self.now, self.clock());
        let Some(daemon) = &mut self.daemon else {
            return;
        };
        if daemon.save_at.is_some_and(|at| at <= now) {
            daemon.save_at = None;
            self.verdicts.clone_from(&daemon.verdicts);
        }
        let due = daemon.checks.iter();
        let due = due.filter(|(_, check)| check.state.wake_at().is_some_and(|at| at <= now));
        let due: Vec<Name> = due.map(|(name, _)| name.clone()).collect();
        let agent = daemon.state.wake_at().is_some_and(|at| at <= clock);
        for name in due {
            self.check_hears(&name, None, checks::Event::Time);
        }
        if agent {
            self.tell(Event::Time);
        }
    }
}
