//! Health checks of what runs: a daemon goes on with the verdicts that the one before has saved, and restarts what is
//! unhealthy by the brake.

use std::collections::BTreeMap;
use std::time::Duration;

use super::people::{HOST, job_of, jobs};
use super::{Due, Invariant, Weakness, World};
use crate::agent::health::limiter::{self, Limiter};
use crate::agent::health::policy::{self as checks, Planned};
use crate::agent::health::{SAVED_WITHIN, target};
use crate::agent::reconcile::{Aim, Event, Name};
use crate::api::Health;
use crate::job::JobId;
use crate::keeper::policy::Moment;

/// In which time restarts of one job are counted.
const WINDOW: Duration = Duration::from_millis(59_500);

/// What a daemon has of its checks.
pub struct Checks {
    of: BTreeMap<Name, Check>,
    /// Those that are to run and do not.
    down: BTreeMap<Name, JobId>,
    limiter: Limiter,
    pub verdicts: BTreeMap<Name, (String, Health)>,
    save_at: Option<Moment>,
}

/// The checks of one run.
struct Check {
    run: String,
    job: JobId,
    state: checks::State,
}

impl Checks {
    pub fn new(
        verdicts: BTreeMap<Name, (String, Health)>,
        weakness: Weakness,
        now: Moment,
    ) -> Checks {
        Checks {
            of: BTreeMap::new(),
            down: BTreeMap::new(),
            limiter: match weakness {
                Weakness::BrakeForgotten => Limiter::default(),
                _ => Limiter::new(now),
            },
            verdicts,
            save_at: None,
        }
    }

    pub fn wake_at(&self, now: Moment) -> Option<Moment> {
        let checks = self.of.values().filter_map(|check| check.state.wake_at());
        let turns = self.limiter.wake_at(now);
        checks.chain(turns).chain(self.save_at).min()
    }
}

impl World {
    /// Checks go on for the run that there is, begin for another one, and end with it.
    pub fn watch_health(&mut self, name: &Name) {
        let now = self.now;
        let Some(daemon) = &mut self.daemon else {
            return;
        };
        let found = daemon.state.slots.get(name).zip(daemon.jobs.get(name));
        let target = found.and_then(|(slot, job)| target(&slot.view(name, HOST), job));
        let all = &mut daemon.checks;
        let before = all.of.get(name).map(|check| check.job.clone());
        let Some(target) = target else {
            let before = before.or(all.down.remove(name));
            all.of.remove(name);
            if let Some(job) = before {
                self.limit(limiter::Event::Gone(job.clone(), name.to_string()));
                self.count(job);
            }
            return;
        };
        let job = before.clone().unwrap_or_else(|| target.job.id());
        let Some(run) = target.run else {
            all.of.remove(name);
            all.down.insert(name.clone(), job.clone());
            let event = match self.weakness {
                Weakness::DownUncounted => limiter::Event::Gone,
                _ => limiter::Event::New,
            };
            self.limit(event(job.clone(), name.to_string()));
            return self.count(job);
        };
        if all.of.get(name).is_some_and(|check| check.run == run) {
            return;
        }
        let last = all.verdicts.get(name).filter(|(of, _)| *of == run);
        let plan: Vec<Planned> = checks::plan(&target.job);
        let state = checks::State::new(plan, last.map(|(_, health)| *health), 0.5, now);
        let health = state.health();
        let check = Check {
            run: run.clone(),
            job: job.clone(),
            state,
        };
        all.of.insert(name.clone(), check);
        all.down.remove(name);
        let before = self.shown.get(name).filter(|(was, ..)| *was == run);
        let was_ready = before.is_some_and(|(_, was, _)| *was == Health::Ready);
        self.must(
            !was_ready || health == Health::Ready,
            Invariant::ReadinessStays,
            || format!("{name} was ready, and is {health:?}"),
        );
        self.count(job.clone());
        self.limit(limiter::Event::New(job, name.to_string()));
        self.say(name, health, String::new());
    }

    /// How many there are of a job: those too of which nothing was told yet.
    fn count(&mut self, job: JobId) {
        let Some(daemon) = &self.daemon else { return };
        let slots = daemon.state.slots.iter();
        let unseen = self.weakness == Weakness::DownUncounted;
        let count = slots.filter(|(name, slot)| {
            let plan = daemon.jobs.get(*name).filter(|_| slot.job == job);
            let target = plan.and_then(|job| target(&slot.view(name, HOST), job));
            target.is_some_and(|one| one.run.is_some() || !unseen)
        });
        let count = count.count();
        if count == 0 {
            self.unhealthy
                .retain(|(_, other, _)| jobs()[*other].0 != job);
        }
        self.limit(limiter::Event::Count(job, count));
    }

    fn limit(&mut self, event: limiter::Event) {
        let now = self.now;
        let unlimited = self.weakness == Weakness::NoBrake;
        let Some(daemon) = &mut self.daemon else {
            return;
        };
        let mut restarts = Vec::new();
        match event {
            limiter::Event::Ask(_, instance, reason) if unlimited => {
                restarts.push(limiter::Restart { instance, reason });
            }
            event => restarts = daemon.checks.limiter.step(event, now),
        }
        for one in restarts {
            let name = one.instance.into();
            self.tell(Event::Checked(name, Health::Unhealthy, one.reason));
        }
    }

    /// A program was told to end because of its checks.
    pub fn note_unhealthy(&mut self, name: &Name) {
        let (now, job) = (self.now, job_of(name));
        self.unhealthy.retain(|(at, ..)| *at + WINDOW > now);
        let slots = self.daemon.iter().flat_map(|daemon| &daemon.state.slots);
        let slots = slots.filter(|(other, slot)| slot.aim == Aim::Run && job_of(other) == job);
        let wanted = slots.count();
        // Of a single one nobody expects that others go on meanwhile.
        if wanted > 1 {
            let before = self.unhealthy.iter().filter(|(_, other, _)| *other == job);
            let before = before.count();
            self.must(before < (wanted / 5).max(1), Invariant::FewAtOnce, || {
                format!("{name} was restarted for its checks, and {before} of {wanted} just before")
            });
            self.unhealthy.push((now, job, name.clone()));
        }
    }

    fn say(&mut self, name: &Name, health: Health, reason: String) {
        let now = self.now;
        let Some(daemon) = &mut self.daemon else {
            return;
        };
        let all = &mut daemon.checks;
        let Some(check) = all.of.get(name) else {
            return;
        };
        let (run, job) = (check.run.clone(), check.job.clone());
        all.verdicts.insert(name.clone(), (run.clone(), health));
        all.save_at.get_or_insert(now + SAVED_WITHIN);
        let since = match self.shown.get(name) {
            Some((was, other, at)) if *was == run && *other == health => *at,
            _ => now,
        };
        self.shown.insert(name.clone(), (run, health, since));
        let instance = name.to_string();
        let told = match health {
            Health::Unhealthy => Health::NotReady,
            other => other,
        };
        self.tell(Event::Checked(name.clone(), told, reason.clone()));
        match health {
            Health::Unhealthy => self.limit(limiter::Event::Ask(job, instance, reason)),
            Health::Ready => self.limit(limiter::Event::Well(job, instance)),
            _ => {}
        }
    }

    /// A check was answered.
    pub fn answer(&mut self, name: &Name, run: &str, check: usize, well: bool) {
        let answer = if well { Ok(()) } else { Err("no".to_owned()) };
        self.check_hears(name, Some(run), checks::Event::Answer(check, answer));
    }

    fn check_hears(&mut self, name: &Name, run: Option<&str>, event: checks::Event) {
        let now = self.now;
        let Some(daemon) = &mut self.daemon else {
            return;
        };
        let Some(check) = daemon.checks.of.get_mut(name) else {
            return;
        };
        if run.is_some_and(|run| check.run != run) {
            return;
        }
        let actions = check.state.step(event, now);
        let (number, run) = (daemon.number, check.run.clone());
        for action in actions {
            match action {
                checks::Action::Probe(index) => {
                    let place = self.places.get(name);
                    let works = place.is_some_and(|place| {
                        !place.containers.is_empty() && place.containers.iter().all(|one| one.works)
                    });
                    let well = works && !self.misled.contains(&job_of(name));
                    self.soon(Due::Answer(number, name.clone(), run.clone(), index, well));
                }
                checks::Action::Tell(health, why) => self.say(name, health, why),
            }
        }
    }

    /// Checks whose moment has come, and the file of verdicts.
    pub fn checks_time(&mut self) {
        let now = self.now;
        let refuses = self.disk_refuses;
        let Some(daemon) = &mut self.daemon else {
            return;
        };
        let all = &mut daemon.checks;
        if all.save_at.is_some_and(|at| at <= now) {
            all.save_at = refuses.then_some(now + Duration::from_secs(10));
            if refuses {
                self.unsaved.get_or_insert(now - SAVED_WITHIN);
            } else {
                self.verdicts.clone_from(&all.verdicts);
                self.unsaved = None;
            }
        }
        let due = all.of.iter();
        let due = due.filter(|(_, check)| check.state.wake_at().is_some_and(|at| at <= now));
        let due: Vec<Name> = due.map(|(name, _)| name.clone()).collect();
        for name in due {
            self.check_hears(&name, None, checks::Event::Time);
        }
        self.limit(limiter::Event::Time);
    }
}
