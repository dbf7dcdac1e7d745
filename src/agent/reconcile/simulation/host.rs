//! What the simulated host does: keepers work, things come to their end, and everything can die.

use std::collections::BTreeMap;

use super::super::tests::report;
use super::super::*;
use super::{Due, World, random};

impl World {
    /// An action comes to its end in the world; what the agent hears of it.
    pub(super) fn act(&mut self, action: Action) -> Option<Event> {
        let fails = self.fails();
        let (now, why) = (self.now, String::new);
        match action {
            Action::Make(name) if fails => Some(Event::NotMade(name, why())),
            Action::Make(name) => {
                self.places.entry(name.clone()).or_default();
                Some(Event::Made(name, BTreeMap::new(), None))
            }
            Action::Keep(name, _) if fails => Some(Event::NotKept(name, why())),
            Action::Keep(name, begin) => {
                let Some(place) = self.places.get_mut(&name) else {
                    return Some(Event::NotKept(name, why()));
                };
                // One that is there already is listened to: the lock keeps a second one out.
                if !place.kept {
                    place.kept = true;
                    let before = place.wanted.unwrap_or(true);
                    place.wanted = Some(before && begin == Begin::Going);
                    place.next = Some(now);
                }
                Some(Event::Kept(name))
            }
            Action::Ask(name, request) => {
                if let Some(place) = self.places.get_mut(&name)
                    && place.kept
                {
                    place.wanted = Some(match request {
                        Request::Stop => false,
                        Request::Start | Request::Restart => true,
                        Request::Status
                        | Request::Watch
                        | Request::Exec(_)
                        | Request::Halt { .. }
                        | Request::Unhealthy { .. } => place.wanted.unwrap_or(true),
                    });
                    place.next = Some(now);
                }
                None
            }
            Action::Delete(name) if fails => Some(Event::NotDeleted(name, why())),
            Action::Delete(name) => {
                self.places.remove(&name);
                Some(Event::Deleted(name))
            }
        }
    }

    /// A keeper tells what there is.
    pub(super) fn report(&mut self, name: &Name) {
        let place = self.places[name].clone();
        let wanted = place.wanted.unwrap_or(true);
        let told = report(wanted, !wanted && !place.alive);
        let at = self.soon();
        // Late, but a socket keeps the order.
        let earlier = self.due.iter().filter_map(|(at, due)| match due {
            Due::Tell(Event::Told(other, _)) if other == name => Some(*at),
            Due::Tell(_) | Due::Act(_) => None,
        });
        let at = earlier.max().map_or(at, |earlier| at.max(earlier));
        let told = Event::Told(name.clone(), told.into());
        self.due.push((at, Due::Tell(told)));
    }

    /// What a keeper does by itself: it starts what is wanted and ends what is not.
    pub(super) fn keepers_work(&mut self) {
        let due = self
            .places
            .iter()
            .filter(|(_, place)| place.kept && place.next.is_some_and(|moment| moment <= self.now));
        let due: Vec<Name> = due.map(|(name, _)| name.clone()).collect();
        for name in due {
            let fails = self.fails();
            let again = self.soon();
            if let Some(place) = self.places.get_mut(&name) {
                place.next = fails.then_some(again);
                if !fails {
                    place.alive = place.wanted.unwrap_or(true);
                }
            }
            self.report(&name);
        }
    }

    pub(super) fn lose_agent(&mut self) {
        self.agent = None;
        self.busy.clear();
        for (at, due) in std::mem::take(&mut self.due) {
            // A process that was started goes its way; directories are written and removed by ourselves.
            if let Due::Act(action @ (Action::Keep(..) | Action::Ask(..))) = due
                && random(&mut self.random, 2) == 0
            {
                self.orphans.push((at, action));
            }
        }
        let after = self.soon();
        self.back_at = Some(after);
        if random(&mut self.random, 20) == 0 {
            (self.file, self.acknowledged) = (None, None);
        }
    }

    pub(super) fn lose_keeper(&mut self, name: &Name) {
        let knows = self.agent.as_ref().and_then(|agent| agent.slots.get(name));
        let is_kept = knows.is_some_and(|slot| matches!(slot.stage, Stage::Kept { .. }));
        if let Some(place) = self.places.get_mut(name) {
            (place.kept, place.next) = (false, None);
        }
        if is_kept {
            self.tell(Event::Lost(name.clone()));
        }
    }

    pub(super) fn lose_program(&mut self, name: &Name) {
        let next = self.soon();
        if let Some(place) = self.places.get_mut(name) {
            place.alive = false;
            place.next = Some(next);
        }
    }

    pub(super) fn lose_host(&mut self) {
        self.lose_agent();
        self.orphans.clear();
        for place in self.places.values_mut() {
            (place.kept, place.alive, place.next) = (false, false, None);
        }
    }
}
