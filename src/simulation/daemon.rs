//! The daemon: store, control's way to the agent, the agent with its driver, and health checks. Dies as a whole.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::checks::Checks;
use super::disk::{Disk, Image};
use super::people::{HOST, job_of, jobs};
use super::{Due, Invariant, Weakness, World, ms};
use crate::agent::health::SAVED_WITHIN;
use crate::agent::reconcile::{Action, Event, FoundSlot, Name, State};
use crate::agent::{Ports, Wanted, about, plan};
use crate::control::pure::Intent;
use crate::job::Job;
use crate::keeper::policy::Moment;
use crate::network::Pool;
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
    pub ports: Ports,
    /// Addresses of those that have a network of their own.
    pub pool: Pool,
    /// What is wanted, by instances.
    pub jobs: BTreeMap<Name, Arc<Job>>,
    /// Instances of which an action has not ended.
    pub busy: BTreeSet<Name>,
    pub checks: Checks,
}

impl Daemon {
    /// Whether something is under way for an instance.
    pub fn is_busy(&self, name: &Name) -> bool {
        self.busy.contains(name)
    }
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
        let (mut ports, mut pool) = (Ports::default(), Pool::default());
        for (name, place) in &self.places {
            if self.weakness != Weakness::PortsForgotten {
                ports.claim(name, &place.ports);
            }
            if let Some(address) = place.address
                && self.weakness != Weakness::AddressesForgotten
            {
                pool.claim(name, address);
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
            pool,
            jobs: BTreeMap::new(),
            busy: BTreeSet::new(),
            checks: Checks::new(verdicts, self.weakness, self.now),
        });
        self.check_store();
        let found = self.places.iter().map(|(name, place)| FoundSlot {
            name: name.clone(),
            job: jobs()[job_of(name)].0.clone(),
            index: 0,
            ports: place.ports.clone(),
            address: place.address,
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
            let unsaved = self.unsaved.take().unwrap_or(now);
            let is_saved = |at: Moment| at + SAVED_WITHIN < now && at < unsaved;
            self.shown.retain(|_, (_, _, at)| is_saved(*at));
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
        // What was read may not be on the disk.
        if let Some(store::Error::ReadOnly(_)) = daemon.store.fault()
            && daemon.store.mend().is_err()
        {
            let number = daemon.number;
            return self.after(AGAIN, Due::Load(number));
        }
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
        let fails = self.fails() || self.disk_refuses;
        let Some(daemon) = &mut self.daemon else {
            return;
        };
        // When that fails it reads all anew, and tells nothing in between.
        daemon.telling = fails;
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
        let untold = self.weakness == Weakness::FailureUntold;
        if matches!(event, Event::NotMade(..)) && untold {
            return;
        }
        let Some(daemon) = &mut self.daemon else {
            return;
        };
        let about: Vec<Name> = match &event {
            Event::Begun { .. } | Event::Want(_) | Event::Halt(_) => {
                self.places.keys().cloned().collect()
            }
            Event::Checked(..) => Vec::new(),
            event => about(event).cloned().into_iter().collect(),
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
                self.slowly(Due::Act(number, action));
                continue;
            } else if self.fails() {
                continue; // what is asked of a keeper gets lost
            }
            self.soon(Due::Act(number, action));
        }
        for name in about {
            self.watch_health(&name);
        }
    }

    pub fn daemon_wakes_at(&self) -> Option<Moment> {
        let daemon = self.daemon.as_ref()?;
        let agent = daemon.state.wake_at().map(|at| at + self.booted);
        let checks = daemon.checks.wake_at(self.now);
        agent.into_iter().chain(checks).min()
    }

    pub fn daemon_time(&mut self) {
        let clock = self.clock();
        self.checks_time();
        let daemon = self.daemon.as_ref();
        let wakes = daemon.and_then(|daemon| daemon.state.wake_at());
        if wakes.is_some_and(|at| at <= clock) {
            self.tell(Event::Time);
        }
    }
}
