//! What is done so that there is what is wanted: pure.
//!
//! [`State::step`] takes what has happened and the moment, and answers with what is to be done. Each action
//! ends in an event, so that an instance has at most one under way: never two keepers, never a directory
//! that is written and removed at once. What is wanted and not known ends nothing. Restarts are the keepers'
//! own; what is tried again here, later and later and for ever, is what the agent itself does: to write a
//! directory, to start a keeper, to remove what is left.

mod halt;
#[cfg(test)]
mod simulation;
mod state;
#[cfg(test)]
mod tests;
mod view;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::api::{Goal, Health};
use crate::keeper::Request;
use crate::keeper::policy::{Curve, Moment};

pub use halt::going_down;
pub use state::{
    Action, Aim, Begin, Event, FoundSlot, Name, Report, Slot, Stage, State, Want, WantedSlot,
};

/// How waits grow when something can not be done. The first further attempt waits for nothing.
pub const AGAIN: Curve = Curve {
    base: Duration::from_millis(200),
    factor: 2.0,
    cap: Duration::from_secs(30),
    jitter: 0.2,
};

/// A keeper that has lived so long is no failure when it ends.
pub const GOOD_KEEPER: Duration = Duration::from_secs(10);

/// How soon a keeper that has not done what it was asked for is asked again.
pub const ASK_AGAIN: Duration = Duration::from_secs(5);

impl State {
    /// Nothing, with a seed for waits that differ.
    #[must_use]
    pub fn new(seed: u64) -> State {
        State {
            seed,
            ..State::default()
        }
    }

    /// What follows from an event.
    pub fn step(&mut self, event: Event, now: Moment) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Begun { found, want } => {
                self.find(found, now);
                if let Some(want) = want {
                    self.want(want, now);
                }
                self.settle_all(now, &mut actions);
            }
            Event::Want(want) => {
                if want.anyway || self.revision.is_none_or(|last| want.revision >= last) {
                    self.want(want, now);
                    self.settle_all(now, &mut actions);
                }
            }
            Event::Halt(within) => {
                self.halting.get_or_insert(now + within);
                self.settle_all(now, &mut actions);
            }
            Event::Time => self.settle_due(now, &mut actions),
            Event::Made(name, ports, address) => {
                self.at(&name, now, &mut actions, |slot, now, _| {
                    (slot.exists, slot.ports, slot.address) = (true, ports, address);
                    slot.stage = Stage::Unkept { at: now };
                });
            }
            Event::NotMade(name, why) => self.at(&name, now, &mut actions, |slot, now, seed| {
                slot.stage = Stage::Unmade {
                    at: slot.failed(why, now, seed),
                };
            }),
            Event::Kept(name) => self.at(&name, now, &mut actions, |slot, now, _| slot.kept(now)),
            Event::NotKept(name, why) => self.at(&name, now, &mut actions, |slot, now, seed| {
                slot.not_kept(why, now, seed);
            }),
            Event::Told(name, report) => self.at(&name, now, &mut actions, |slot, _, _| {
                slot.told(report);
            }),
            Event::Lost(name) => self.at(&name, now, &mut actions, Slot::lost),
            Event::Deleted(name) => self.deleted(&name, now, &mut actions),
            Event::NotDeleted(name, why) => self.at(&name, now, &mut actions, |slot, now, seed| {
                slot.stage = Stage::Remaining {
                    at: slot.failed(why, now, seed),
                };
            }),
            Event::Checked(name, health, reason) => {
                self.checked(&name, health, reason, &mut actions);
            }
        }
        actions
    }

    /// When [`Event::Time`] is to come; None when nothing waits for a moment.
    #[must_use]
    pub fn wake_at(&self) -> Option<Moment> {
        self.timers.first().map(|(moment, _)| *moment)
    }

    fn find(&mut self, found: Vec<FoundSlot>, now: Moment) {
        for one in found {
            let stage = match one.kept {
                true => Stage::Unkept { at: now },
                // Its files are from before: after a crash of the host they may be torn, and are written anew.
                false => Stage::Unmade { at: now },
            };
            let mut slot = Slot::new(one.job, one.index, Aim::AsItIs, stage);
            (slot.exists, slot.ports, slot.address) = (true, one.ports, one.address);
            self.slots.insert(one.name, slot);
        }
    }

    /// Sets what is wanted of each instance.
    fn want(&mut self, want: Want, now: Moment) {
        self.revision = Some(want.revision);
        for slot in self.slots.values_mut() {
            slot.aim = Aim::Gone;
        }
        for one in want.slots {
            let aim = match one.goal {
                Goal::Start => Aim::Run,
                Goal::Stop => Aim::Rest,
            };
            let slot = self.slots.entry(one.name);
            let slot = slot
                .or_insert_with(|| Slot::new(one.job, one.index, aim, Stage::Unmade { at: now }));
            slot.aim = aim;
        }
    }

    /// Changes an instance, and does what follows. An event of one that is not there is from before.
    fn at(
        &mut self,
        name: &Name,
        now: Moment,
        actions: &mut Vec<Action>,
        change: impl FnOnce(&mut Slot, Moment, &mut u64),
    ) {
        if let Some(slot) = self.slots.get_mut(name) {
            change(slot, now, &mut self.seed);
            self.settle(name, now, actions);
        }
    }

    fn settle_all(&mut self, now: Moment, actions: &mut Vec<Action>) {
        let names: Vec<Name> = self.slots.keys().cloned().collect();
        for name in names {
            self.settle(&name, now, actions);
        }
    }

    /// Does what is due.
    fn settle_due(&mut self, now: Moment, actions: &mut Vec<Action>) {
        while let Some((moment, _)) = self.timers.first()
            && *moment <= now
            && let Some((_, name)) = self.timers.pop_first()
        {
            self.settle(&name, now, actions);
        }
    }

    fn settle(&mut self, name: &Name, now: Moment, actions: &mut Vec<Action>) {
        let Some(slot) = self.slots.get_mut(name) else {
            return;
        };
        let wake_at = match self.halting {
            Some(end) => {
                slot.halt(name, end, now, actions);
                slot.halt_at()
            }
            None => {
                slot.settle(name, now, actions);
                slot.wake_at()
            }
        };
        if slot.timer != wake_at {
            let before = std::mem::replace(&mut slot.timer, wake_at);
            if let Some(moment) = before {
                self.timers.remove(&(moment, name.clone()));
            }
        }
        // Also where it is the same: it may just have been taken out.
        self.timers
            .extend(wake_at.map(|moment| (moment, name.clone())));
    }

    /// Nothing is left of an instance. Others may have waited for what it had, as its ports.
    fn deleted(&mut self, name: &Name, now: Moment, actions: &mut Vec<Action>) {
        let Some(slot) = self.slots.get_mut(name) else {
            return;
        };
        if slot.aim == Aim::Gone {
            if let Some(slot) = self.slots.remove(name)
                && let Some(moment) = slot.timer
            {
                self.timers.remove(&(moment, name.clone()));
            }
        } else {
            let timer = slot.timer;
            *slot = Slot::new(
                slot.job.clone(),
                slot.index,
                slot.aim,
                Stage::Unmade { at: now },
            );
            slot.timer = timer;
            self.settle(name, now, actions);
        }
        let waiting: Vec<Name> = self.timers.iter().map(|(_, name)| name.clone()).collect();
        for name in waiting {
            if let Some(slot) = self.slots.get_mut(&name)
                && matches!(slot.stage, Stage::Unmade { .. })
                && slot.failures > 0
            {
                slot.stage = Stage::Unmade { at: now };
                self.settle(&name, now, actions);
            }
        }
    }

    fn checked(&mut self, name: &Name, health: Health, reason: String, actions: &mut Vec<Action>) {
        let Some(slot) = self.slots.get_mut(name) else {
            return;
        };
        slot.health = health;
        let is_kept = matches!(slot.stage, Stage::Kept { .. });
        let may_restart = self.halting.is_none() && is_kept;
        if health == Health::Unhealthy && may_restart && matches!(slot.aim, Aim::Run | Aim::AsItIs)
        {
            actions.push(Action::Ask(name.clone(), Request::Unhealthy { reason }));
        }
    }
}

impl Slot {
    fn new(job: crate::job::JobId, index: u32, aim: Aim, stage: Stage) -> Slot {
        Slot {
            job,
            index,
            aim,
            stage,
            exists: false,
            report: None,
            health: Health::Unknown,
            ports: BTreeMap::new(),
            address: None,
            failures: 0,
            losses: 0,
            fault: None,
            timer: None,
        }
    }

    /// Something could not be done: when it is tried again.
    fn failed(&mut self, why: String, now: Moment, seed: &mut u64) -> Moment {
        self.failures = self.failures.saturating_add(1);
        self.fault = Some(why);
        now + AGAIN.delay(self.failures, seed)
    }

    fn kept(&mut self, now: Moment) {
        (self.failures, self.fault) = (0, None);
        self.stage = Stage::Kept {
            since: now,
            asked: None,
        };
    }

    fn not_kept(&mut self, why: String, now: Moment, seed: &mut u64) {
        let at = self.failed(why, now, seed);
        self.stage = match self.aim {
            // It may be for its files.
            Aim::Run | Aim::Rest => Stage::Unmade { at },
            Aim::AsItIs | Aim::Gone => Stage::Unkept { at },
        };
    }

    fn told(&mut self, report: std::sync::Arc<Report>) {
        if let Stage::Kept { asked, .. } = &mut self.stage
            && self
                .report
                .as_ref()
                .is_some_and(|last| last.wanted != report.wanted)
        {
            *asked = None;
        }
        self.report = Some(report);
    }

    fn lost(&mut self, now: Moment, seed: &mut u64) {
        let Stage::Kept { since, .. } = self.stage else {
            return; // it was told to end
        };
        if now.saturating_sub(since) >= GOOD_KEEPER {
            self.losses = 0;
        }
        self.losses = self.losses.saturating_add(1);
        let at = now + AGAIN.delay(self.losses, seed);
        self.stage = Stage::Unkept { at };
    }

    /// Begins what is to be done now.
    fn settle(&mut self, name: &Name, now: Moment, actions: &mut Vec<Action>) {
        if let Stage::Unmade { .. } = self.stage
            && matches!(self.aim, Aim::Gone | Aim::AsItIs)
        {
            match self.exists {
                true => {
                    // What could not be written says nothing of a keeper.
                    self.failures = 0;
                    self.stage = Stage::Unkept { at: now };
                }
                false => self.delete(name, actions),
            }
        }
        match self.stage {
            Stage::Unmade { at } if at <= now => {
                self.stage = Stage::Making;
                actions.push(Action::Make(name.clone()));
            }
            // No keeper can be had for it: what is left is removed without one.
            Stage::Unkept { .. } if self.aim == Aim::Gone && self.failures > 0 => {
                self.delete(name, actions);
            }
            Stage::Unkept { at } if at <= now => {
                self.stage = Stage::Keeping;
                let begin = match self.aim {
                    Aim::Run | Aim::AsItIs => Begin::Going,
                    Aim::Rest | Aim::Gone => Begin::AtRest,
                };
                actions.push(Action::Keep(name.clone(), begin));
            }
            Stage::Kept { since, asked } => self.ask(name, (since, asked), now, actions),
            Stage::Remaining { at } if at <= now => self.delete(name, actions),
            Stage::Unmade { .. }
            | Stage::Making
            | Stage::Unkept { .. }
            | Stage::Keeping
            | Stage::Deleting
            | Stage::Remaining { .. } => {}
        }
    }

    fn delete(&mut self, name: &Name, actions: &mut Vec<Action>) {
        self.stage = Stage::Deleting;
        actions.push(Action::Delete(name.clone()));
    }

    /// Asks the keeper for what is wanted, if it does not want that itself.
    fn ask(
        &mut self,
        name: &Name,
        (since, asked): (Moment, Option<Moment>),
        now: Moment,
        actions: &mut Vec<Action>,
    ) {
        let Some(report) = &self.report else {
            return;
        };
        let request = match self.aim {
            Aim::Run if !report.wanted => Request::Start,
            // The host did not go down after all.
            Aim::Run | Aim::AsItIs if report.halted => Request::Start,
            Aim::Rest | Aim::Gone if report.wanted => Request::Stop,
            Aim::Gone if report.is_at_rest => return self.delete(name, actions),
            Aim::AsItIs | Aim::Run | Aim::Rest | Aim::Gone => {
                self.stage = Stage::Kept { since, asked: None };
                return;
            }
        };
        if asked.is_none_or(|moment| now >= moment + ASK_AGAIN) {
            let asked = Some(now);
            self.stage = Stage::Kept { since, asked };
            actions.push(Action::Ask(name.clone(), request));
        }
    }

    fn wake_at(&self) -> Option<Moment> {
        match self.stage {
            Stage::Unmade { at } | Stage::Unkept { at } | Stage::Remaining { at } => Some(at),
            Stage::Kept { asked, .. } => asked.map(|moment| moment + ASK_AGAIN),
            Stage::Making | Stage::Keeping | Stage::Deleting => None,
        }
    }
}
