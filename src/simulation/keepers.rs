//! Keepers: they follow their policy, write down where they are, and die.

use std::collections::BTreeSet;

use super::host::{Keeper, Step, policy, size};
use super::people::job_of;
use super::{Due, Invariant, Weakness, World, random};
use crate::agent::reconcile::{Begin, Event as Told, Name};
use crate::keeper::policy::{AGAIN, Action, Event, Exit, Found, Moment, Phase, State, Stop};

impl World {
    /// A keeper is started; one that is there already has the lock.
    pub fn keeper_begins(&mut self, name: &Name, begin: Begin) {
        let (clock, weak) = (self.clock(), self.weakness == Weakness::NoLock);
        let (seed, id) = (self.random, self.count + 1);
        self.count = id;
        let Some(place) = self.places.get_mut(name) else {
            return;
        };
        if !place.keepers.is_empty() && !weak {
            return;
        }
        let last = place.status.clone();
        let (mut state, mut completed) =
            last.unwrap_or_else(|| (State::new(seed), BTreeSet::new()));
        if begin == Begin::AtRest {
            (state, _) = policy(name).step(&state, Event::Stop, clock);
        }
        let runs = |task: usize| place.containers.iter().any(|one| one.task == task);
        completed.retain(|task| !runs(*task));
        let mut all = 0..size(name);
        let found = match place.containers.is_empty() || weak {
            true => Found::Nothing,
            false if all.all(|task| runs(task) || completed.contains(&task)) => Found::Alive,
            false => Found::Part,
        };
        let is_starting = matches!(state.phase, Phase::Starting { .. });
        place.keepers.push(Keeper {
            id,
            state,
            completed,
            heard: self.now,
            busy: None,
            retry_at: None,
            may_be_made_anew: is_starting && found == Found::Part,
        });
        self.keeper_hears(name, id, Event::Found(found));
        if let Some(keeper) = self.keeper(name, id) {
            keeper.may_be_made_anew = false;
        }
    }

    /// A step of its policy, the file that follows, and the beginning of what it asks for.
    pub fn keeper_hears(&mut self, name: &Name, id: u64, event: Event) {
        let (now, clock) = (self.now, self.clock());
        let Some(keeper) = self.keeper(name, id) else {
            return;
        };
        keeper.heard = now;
        let (state, actions): Step = policy(name).step(&keeper.state, event, clock);
        if actions.contains(&Action::Create) {
            keeper.completed.clear();
        }
        keeper.state = state;
        let phase = keeper.state.phase.clone();
        self.write_status(name, id);
        if event == Event::Unhealthy
            && matches!(
                phase,
                Phase::Stopping {
                    why: Stop::Unhealthy,
                    ..
                }
            )
        {
            self.note_unhealthy(name);
        }
        for action in actions {
            self.keeper_does(name, id, action);
        }
        self.report(name);
    }

    /// status.json; what the disk refuses is written later.
    fn write_status(&mut self, name: &Name, id: u64) {
        let (now, refuses) = (self.now, self.disk_refuses);
        let Some(keeper) = self.keeper(name, id) else {
            return;
        };
        keeper.retry_at = refuses.then_some(now + AGAIN);
        let status = (keeper.state.clone(), keeper.completed.clone());
        if let Some(place) = self.places.get_mut(name).filter(|_| !refuses) {
            place.status = Some(status);
        }
    }

    fn keeper_does(&mut self, name: &Name, id: u64, action: Action) {
        match action {
            Action::Create | Action::Remove => {
                let anew = self
                    .keeper(name, id)
                    .is_some_and(|keeper| keeper.may_be_made_anew);
                let place = self.places.get_mut(name).unwrap();
                if anew {
                    place.containers.clear();
                }
                let live = place.containers.len();
                self.must(live == 0, Invariant::OneOfASlot, || {
                    format!("{name}: {action:?} over a living container")
                });
                let Some(keeper) = self.keeper(name, id) else {
                    return;
                };
                let before = keeper.busy.replace(action);
                self.must(before.is_none(), Invariant::OneOfASlot, || {
                    format!("{name}: {before:?} and {action:?}")
                });
                self.slowly(Due::Keeper(name.clone(), id, action));
            }
            Action::Signal => {
                let containers = &self.places[name].containers;
                let heed = containers.iter().filter(|container| container.heeds);
                let heed: Vec<u64> = heed.map(|container| container.id).collect();
                for container in heed {
                    self.soon(Due::Dies(name.clone(), container));
                }
            }
            Action::Kill => {
                let Some(keeper) = self.keeper(name, id) else {
                    return;
                };
                if keeper.busy.take().is_some() {
                    return self.keeper_hears(name, id, Event::NotMade);
                }
                let all = &self.places[name].containers;
                let all: Vec<u64> = all.iter().map(|container| container.id).collect();
                all.into_iter()
                    .for_each(|container| self.exits(name, container, Exit::Signal(9)));
            }
        }
    }

    /// What a keeper has begun comes to its end, unless it has ended itself.
    pub fn keeper_has_done(&mut self, name: &Name, id: u64, action: Action) {
        let is_lost = action == Action::Create && self.lost_bundles.contains(&job_of(name));
        let fails = self.fails() || is_lost;
        let Some(keeper) = self.keeper(name, id) else {
            return;
        };
        if keeper.busy != Some(action) {
            return;
        }
        keeper.busy = None;
        let event = match (action, fails) {
            (Action::Create, false) => {
                self.made(name, size(name));
                Event::Made
            }
            (Action::Create, true) => Event::NotMade,
            (_, false) => Event::Removed,
            (_, true) => Event::NotRemoved,
        };
        self.keeper_hears(name, id, event);
    }

    /// A keeper is killed, and who makes its container with it.
    pub fn lose_keeper(&mut self, name: &Name) {
        let may_be_made = self.chance(30);
        let Some(place) = self.places.get_mut(name) else {
            return;
        };
        let Some(keeper) = place.keepers.pop() else {
            return;
        };
        if keeper.busy == Some(Action::Create) && may_be_made {
            let some = 1 + random(&mut self.random, size(name) as u64) as usize;
            self.made(name, some);
        }
        self.lost(name);
    }

    /// The agent hears that a keeper has ended.
    fn lost(&mut self, name: &Name) {
        if self.is_kept(name) {
            self.tell(Told::Lost(name.clone()));
        }
    }

    pub fn keepers_wake_at(&self) -> Option<Moment> {
        if self.weakness == Weakness::KeepersSleep {
            return None;
        }
        self.wake_ups().map(|(_, at)| at).min()
    }

    pub fn wake_ups(&self) -> impl Iterator<Item = ((&Name, &Keeper), Moment)> {
        let all = self.places.iter();
        let all = all.flat_map(|(name, place)| place.keepers.iter().map(move |one| (name, one)));
        all.filter_map(|(name, keeper)| {
            let policy = policy(name).wake_at(&keeper.state);
            let policy = policy.map(|at| at + self.booted);
            let at = policy.into_iter().chain(keeper.retry_at).min()?;
            Some(((name, keeper), at))
        })
    }

    pub fn keepers_time(&mut self) {
        if self.weakness == Weakness::KeepersSleep {
            return;
        }
        let due = self.wake_ups().filter(|(_, at)| *at <= self.now);
        let due: Vec<_> = due
            .map(|((name, keeper), _)| (name.clone(), keeper.id))
            .collect();
        let clock = self.clock();
        for (name, id) in due {
            let Some(keeper) = self.keeper(&name, id) else {
                continue;
            };
            let at = policy(&name).wake_at(&keeper.state);
            self.write_status(&name, id);
            if at.is_some_and(|at| at <= clock) {
                self.keeper_hears(&name, id, Event::Time);
            }
        }
    }
}
