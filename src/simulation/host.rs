//! What is on the host: instances' directories, keepers and containers, which outlive the daemon.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Due, Invariant, LATE, Weakness, World, ms, random};
use crate::agent::reconcile::{Begin, Event as Told, Name};
use crate::keeper::policy::{
    Action, Curve, Curves, Event, Exit, Found, Moment, Next, Others, Phase, Policy, Restart, State,
};

/// An instance's directory, and what belongs to it.
#[derive(Debug, Default)]
pub struct Place {
    pub ports: BTreeMap<String, u16>,
    /// status.json.
    pub status: Option<State>,
    /// More than one is a fault.
    pub keepers: Vec<Keeper>,
    /// Likewise.
    pub containers: Vec<Container>,
}

/// What a keeper has in memory.
#[derive(Debug)]
pub struct Keeper {
    pub id: u64,
    pub state: State,
    /// When it has heard of something last.
    heard: Moment,
    busy: Option<Action>,
}

/// A container whose program runs.
#[derive(Debug)]
pub struct Container {
    pub id: u64,
    heeds: bool,
    pub works: bool,
}

pub type Step = (State, Vec<Action>);

/// With short waits, so that a simulation sees many of them.
fn policy() -> Policy {
    let curve = |base, cap| Curve {
        base: ms(base),
        factor: 2.0,
        cap: ms(cap),
        jitter: 0.2,
    };
    Policy {
        restart: Restart::Always,
        success: vec![0],
        curves: Curves {
            crash: curve(100, 2000),
            unhealthy: curve(500, 4000),
            image: curve(500, 8000),
        },
        good_run: Duration::from_secs(10),
        delay: Duration::ZERO,
        grace: Duration::from_secs(3),
    }
}

impl World {
    /// The keeper of this number, if it lives.
    fn keeper(&mut self, name: &Name, id: u64) -> Option<&mut Keeper> {
        let keepers = &mut self.places.get_mut(name)?.keepers;
        keepers.iter_mut().find(|keeper| keeper.id == id)
    }

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
        let mut state = place.status.clone().unwrap_or_else(|| State::new(seed));
        if begin == Begin::AtRest {
            (state, _) = policy().step(&state, Event::Stop, clock);
        }
        let found = match place.containers.is_empty() || weak {
            true => Found::Nothing,
            false => Found::Alive,
        };
        place.keepers.push(Keeper {
            id,
            state,
            heard: self.now,
            busy: None,
        });
        self.keeper_hears(name, id, Event::Found(found));
    }

    /// A step of its policy, the file that follows, and the beginning of what it asks for.
    pub fn keeper_hears(&mut self, name: &Name, id: u64, event: Event) {
        let (now, clock) = (self.now, self.clock());
        let Some(keeper) = self.keeper(name, id) else {
            return;
        };
        keeper.heard = now;
        let (state, actions): Step = policy().step(&keeper.state, event, clock);
        keeper.state = state.clone();
        if let Some(place) = self.places.get_mut(name) {
            place.status = Some(state);
        }
        for action in actions {
            self.keeper_does(name, id, action);
        }
        self.report(name);
    }

    fn keeper_does(&mut self, name: &Name, id: u64, action: Action) {
        match action {
            Action::Create | Action::Remove => {
                let live = self.places[name].containers.len();
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
                self.soon(Due::Keeper(name.clone(), id, action));
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
                    .for_each(|container| self.exits(name, container));
            }
        }
    }

    /// What a keeper has begun comes to its end, unless it has ended itself.
    pub fn keeper_has_done(&mut self, name: &Name, id: u64, action: Action) {
        let fails = self.fails();
        let Some(keeper) = self.keeper(name, id) else {
            return;
        };
        if keeper.busy != Some(action) {
            return;
        }
        keeper.busy = None;
        let event = match (action, fails) {
            (Action::Create, false) => {
                self.made(name);
                Event::Made
            }
            (Action::Create, true) => Event::NotMade,
            (_, false) => Event::Removed,
            (_, true) => Event::NotRemoved,
        };
        self.keeper_hears(name, id, event);
    }

    fn made(&mut self, name: &Name) {
        let (heeds, works) = (self.chance(80), self.chance(95));
        self.count += 1;
        let id = self.count;
        if let Some(place) = self.places.get_mut(name) {
            place.containers.push(Container { id, heeds, works });
        }
    }

    /// A container's program ends.
    pub fn exits(&mut self, name: &Name, container: u64) {
        let Some(place) = self.places.get_mut(name) else {
            return;
        };
        let before = place.containers.len();
        place.containers.retain(|one| one.id != container);
        if place.containers.len() == before {
            return;
        }
        let keepers: Vec<u64> = place.keepers.iter().map(|keeper| keeper.id).collect();
        for keeper in keepers {
            self.keeper_hears(name, keeper, Event::Exited(Exit::Code(1), Others::Ended));
        }
    }

    pub fn lose_program(&mut self, name: &Name) {
        let first = self
            .places
            .get(name)
            .and_then(|place| place.containers.first());
        if let Some(id) = first.map(|container| container.id) {
            self.exits(name, id);
        }
    }

    pub fn falls_ill(&mut self, name: &Name) {
        let place = self.places.get_mut(name);
        if let Some(container) = place.and_then(|place| place.containers.first_mut()) {
            container.works = false;
        }
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
            self.made(name);
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

    fn wake_ups(&self) -> impl Iterator<Item = ((&Name, &Keeper), Moment)> {
        let all = self.places.iter();
        let all = all.flat_map(|(name, place)| place.keepers.iter().map(move |one| (name, one)));
        all.filter_map(|(name, keeper)| {
            let at = policy().wake_at(&keeper.state)?;
            Some(((name, keeper), at + self.booted))
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
        for (name, id) in due {
            self.keeper_hears(&name, id, Event::Time);
        }
    }

    /// A wanted instance starts, runs, or has a moment within its back-off; and that has not passed.
    pub fn check_keepers(&mut self) {
        let clock = self.clock();
        // What was due before a keeper has begun is done at once.
        let late = self
            .wake_ups()
            .find(|((_, keeper), at)| keeper.heard.max(*at) + LATE < self.now);
        let late = late.map(|((name, _), _)| name.clone());
        self.must(late.is_none(), Invariant::ComesBack, || {
            format!("{late:?} is late")
        });
        for name in self.names() {
            let Some(keeper) = self.places[&name].keepers.first() else {
                continue;
            };
            if !keeper.state.wanted {
                continue;
            }
            let phase = keeper.state.phase.clone();
            let busy = keeper.busy;
            let live = !self.places[&name].containers.is_empty();
            let holds = match &phase {
                Phase::Waiting { cause, until }
                | Phase::Removing {
                    next: Next::Attempt(cause, until),
                    ..
                } => *until <= clock + policy().curves.of(*cause).cap,
                Phase::Starting { .. } => busy == Some(Action::Create),
                Phase::Running { .. } | Phase::Stopping { .. } => live,
                Phase::Removing { .. } => true,
                Phase::Resting { .. } => false,
            };
            self.must(holds, Invariant::ComesBack, || {
                format!("{name}: {phase:?}, {live}")
            });
        }
    }

    /// Late, but a socket keeps the order.
    pub fn delay_of_report(&mut self, name: &Name) -> Moment {
        let at = self.now + ms(random(&mut self.random, 50));
        let earlier = self.due.iter().filter_map(|((at, _), due)| match due {
            Due::Tell(_, Told::Told(other, _)) if other == name => Some(*at),
            _ => None,
        });
        earlier.max().map_or(at, |earlier| at.max(earlier))
    }
}
