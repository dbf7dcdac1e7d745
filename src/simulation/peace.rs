//! What must hold: at every moment, and when nothing has failed for a while.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Due, Invariant, LATE, World};
use crate::api::Goal;

/// How long everything may take in peace: the longest waits of agent, control and keeper, a grace, and some way.
const PEACE: Duration = Duration::from_secs(75);

impl World {
    /// What holds at every moment.
    pub fn check(&mut self) {
        let mut ports = BTreeSet::new();
        for name in self.names() {
            let place = &self.places[&name];
            let (keepers, live) = (place.keepers.len(), place.containers.len());
            let mine: Vec<u16> = place.ports.values().copied().collect();
            self.must(keepers <= 1 && live <= 1, Invariant::OneOfASlot, || {
                format!("{name}: {keepers} keepers, {live} containers")
            });
            let single = mine.into_iter().all(|port| ports.insert(port));
            self.must(single, Invariant::PortsAreSingle, || {
                format!("{name} has a port of another one")
            });
        }
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
        self.after(Duration::ZERO, Due::Daemon);
        self.pass(PEACE);
        for when in ["after all waits", "and stays so"] {
            self.check_peace(when);
            self.pass(Duration::from_secs(10));
        }
        self.trouble = trouble;
    }

    fn check_peace(&mut self, when: &str) {
        let wanted = self.model.instances();
        for (name, goal) in &wanted {
            let place = self.places.get(name);
            let (kept, live) = place.map_or((false, false), |place| {
                (!place.keepers.is_empty(), !place.containers.is_empty())
            });
            let what = match goal {
                Goal::Start if live || kept => Invariant::ComesBack,
                Goal::Start => Invariant::IntentIsKept,
                Goal::Stop => Invariant::NothingUnwanted,
            };
            let right = kept && live == (*goal == Goal::Start);
            self.must(right, what, || {
                format!("{name}, {goal:?}, {when}: kept {kept}, live {live}")
            });
        }
        let mut more = self.names();
        more.retain(|name| !wanted.contains_key(name));
        let overdue = self.is_overdue();
        self.must(!overdue, Invariant::NothingUnwanted, || {
            "a job has expired and is there".to_owned()
        });
        self.must(more.is_empty(), Invariant::NothingUnwanted, || {
            format!("{more:?} {when}")
        });
    }
}
