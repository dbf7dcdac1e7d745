//! What must hold: at every moment, and when nothing has failed for a while.

use std::collections::BTreeSet;
use std::time::Duration;

use super::people::{ENDS, HOST, job_of};
use super::{Due, Invariant, LATE, World};
use crate::agent::reconcile::{Name, Slot, Stage};
use crate::api::Goal;

/// How long everything may take in peace: the longest waits of agent, control and keeper, a grace, and some way.
const PEACE: Duration = Duration::from_secs(100);

impl World {
    /// What holds at every moment.
    pub fn check(&mut self) {
        let (mut ports, mut addresses) = (BTreeSet::new(), BTreeSet::new());
        for name in self.names() {
            let place = &self.places[&name];
            let tasks: Vec<usize> = place.containers.iter().map(|one| one.task).collect();
            let once = tasks.iter().collect::<BTreeSet<_>>().len() == tasks.len();
            let keepers = place.keepers.len();
            let mine: Vec<u16> = place.ports.values().copied().collect();
            let address = place.address;
            self.must(keepers <= 1 && once, Invariant::OneOfASlot, || {
                format!("{name}: {keepers} keepers, containers of {tasks:?}")
            });
            let single = mine.into_iter().all(|port| ports.insert(port));
            self.must(single, Invariant::PortsAreSingle, || {
                format!("{name} has a port of another one")
            });
            let single = address.is_none_or(|address| addresses.insert(address));
            self.must(single, Invariant::AddressesAreSingle, || {
                format!("{name} has the address of another one")
            });
        }
        self.check_faults();
        self.check_keepers();
        let late = self
            .daemon_wakes_at()
            .is_some_and(|at| at + LATE < self.now);
        self.must(!late, Invariant::ComesBack, || {
            "the agent sleeps".to_owned()
        });
    }

    /// Nothing fails any more, and everything comes to where it is to be, within its time.
    pub fn peace(&mut self) {
        let trouble = std::mem::take(&mut self.trouble);
        self.squatted.clear();
        self.mend();
        self.after(Duration::ZERO, Due::Daemon);
        self.pass(PEACE);
        for when in ["after all waits", "and stays so"] {
            self.check_peace(when);
            self.pass(Duration::from_secs(10));
        }
        self.trouble = trouble;
    }

    /// All that has failed for a while works again.
    fn mend(&mut self) {
        (self.disk_refuses, self.no_keepers) = (false, false);
        self.lost_bundles.clear();
        self.misled.clear();
        for place in self.places.values_mut() {
            place.heal();
        }
    }

    /// What can not be done is told, and is under way or has a moment.
    fn check_faults(&mut self) {
        let Some(daemon) = &self.daemon else { return };
        let is_silent = |(name, slot): &(&Name, &Slot)| {
            let untold = slot.failures > 0 && slot.view(name, HOST).fault.is_none();
            let begun = matches!(slot.stage, Stage::Making | Stage::Keeping | Stage::Deleting);
            untold || begun && !daemon.is_busy(name)
        };
        let silent = daemon.state.slots.iter().find(is_silent);
        let silent = silent.map(|(name, slot)| format!("{name}: {slot:?}"));
        self.must(silent.is_none(), Invariant::NothingInSilence, || {
            silent.unwrap_or_default()
        });
    }

    fn check_peace(&mut self, when: &str) {
        let mut wanted = self.model.instances();
        if self.is_about_to_end() {
            wanted.retain(|name, _| job_of(name) != ENDS);
        }
        for (name, goal) in &wanted {
            let place = self.places.get(name);
            let (kept, live) = place.map_or((false, false), |place| {
                (!place.keepers.is_empty(), !place.containers.is_empty())
            });
            let whole = self.is_there(name);
            let what = match goal {
                Goal::Start if live || kept => Invariant::ComesBack,
                Goal::Start => Invariant::IntentIsKept,
                Goal::Stop => Invariant::NothingUnwanted,
            };
            let right = match goal {
                Goal::Start => whole,
                Goal::Stop => kept && !live,
            };
            self.must(right, what, || {
                format!("{name}, {goal:?}, {when}: kept {kept}, live {live}, whole {whole}")
            });
        }
        let mut more = self.names();
        let is_about_to_end = self.is_about_to_end();
        more.retain(|name| !(wanted.contains_key(name) || is_about_to_end && job_of(name) == ENDS));
        let overdue = self.is_overdue();
        self.must(!overdue, Invariant::NothingUnwanted, || {
            "a job has expired and is there".to_owned()
        });
        self.must(more.is_empty(), Invariant::NothingUnwanted, || {
            format!("{more:?} {when}")
        });
    }
}
