//! Health checks of what runs: a daemon goes on with the verdicts that the one before has saved.

use super::people::HOST;
use super::{Due, Invariant, World};
use crate::agent::health::policy::{self as checks, Planned};
use crate::agent::health::{SAVED_WITHIN, target};
use crate::agent::reconcile::{Event, Name};
use crate::api::Health;

/// The checks of one run.
pub struct Check {
    run: String,
    pub state: checks::State,
}

impl World {
    /// Checks go on for the run that there is, begin for another one, and end with it.
    pub fn watch_health(&mut self, name: &Name) {
        let now = self.now;
        let Some(daemon) = &mut self.daemon else {
            return;
        };
        let (Some(slot), Some(job)) = (daemon.state.slots.get(name), daemon.jobs.get(name)) else {
            return;
        };
        let view = slot.view(name, HOST);
        let Some(target) = target(&view, job) else {
            daemon.checks.remove(name);
            return;
        };
        if daemon
            .checks
            .get(name)
            .is_some_and(|check| check.run == target.run)
        {
            return;
        }
        let last = daemon
            .verdicts
            .get(name)
            .filter(|(run, _)| *run == target.run);
        let plan: Vec<Planned> = checks::plan(job);
        let state = checks::State::new(plan, last.map(|(_, health)| *health), 0.5, now);
        let (health, run) = (state.health(), target.run);
        let check = Check {
            run: run.clone(),
            state,
        };
        daemon.checks.insert(name.clone(), check);
        let before = self.shown.get(name).filter(|(was, ..)| *was == run);
        let was_ready = before.is_some_and(|(_, was, _)| *was == Health::Ready);
        self.must(
            !was_ready || health == Health::Ready,
            Invariant::ReadinessStays,
            || format!("{name} was ready, and is {health:?}"),
        );
        self.say(name, health);
    }

    fn say(&mut self, name: &Name, health: Health) {
        let now = self.now;
        let Some(daemon) = &mut self.daemon else {
            return;
        };
        let Some(check) = daemon.checks.get(name) else {
            return;
        };
        let run = check.run.clone();
        daemon.verdicts.insert(name.clone(), (run.clone(), health));
        daemon.save_at.get_or_insert(now + SAVED_WITHIN);
        let since = match self.shown.get(name) {
            Some((was, other, at)) if *was == run && *other == health => *at,
            _ => now,
        };
        self.shown.insert(name.clone(), (run, health, since));
        self.tell(Event::Checked(name.clone(), health, String::new()));
    }

    /// A check was answered.
    pub fn answer(&mut self, name: &Name, run: &str, check: usize, well: bool) {
        let answer = if well { Ok(()) } else { Err("no".to_owned()) };
        self.check_hears(name, Some(run), checks::Event::Answer(check, answer));
    }

    pub fn check_hears(&mut self, name: &Name, run: Option<&str>, event: checks::Event) {
        let now = self.now;
        let Some(daemon) = &mut self.daemon else {
            return;
        };
        let Some(check) = daemon.checks.get_mut(name) else {
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
                    let first = self
                        .places
                        .get(name)
                        .and_then(|place| place.containers.first());
                    let well = first.is_some_and(|container| container.works);
                    self.soon(Due::Answer(number, name.clone(), run.clone(), index, well));
                }
                checks::Action::Tell(health, _) => self.say(name, health),
            }
        }
    }
}
