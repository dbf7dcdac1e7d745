//! What is on the host: instances' directories, keepers and containers, which outlive the daemon.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use super::people::{job_of, jobs};
use super::{Due, Invariant, LATE, Weakness, World, ms, random};
use crate::agent::reconcile::{Event as Told, Name};
use crate::job;
use crate::keeper::policy::{
    Action, Curve, Curves, Event, Exit, Moment, Next, Others, Phase, Policy, Rest, Restart, State,
};

/// An instance's directory, and what belongs to it.
#[derive(Debug, Default)]
pub struct Place {
    pub ports: BTreeMap<String, u16>,
    /// Its own, where its job has such a network.
    pub address: Option<Ipv4Addr>,
    /// status.json, with which of its programs have ended well.
    pub status: Option<(State, BTreeSet<usize>)>,
    /// More than one is a fault.
    pub keepers: Vec<Keeper>,
    /// Of each task; more than one of a task is a fault.
    pub containers: Vec<Container>,
}

impl Place {
    /// Its programs work.
    pub fn heal(&mut self) {
        for container in &mut self.containers {
            container.works = true;
        }
    }
}

/// What a keeper has in memory.
#[derive(Debug)]
pub struct Keeper {
    pub id: u64,
    pub state: State,
    /// Which of its programs have ended well.
    pub completed: BTreeSet<usize>,
    /// When it has heard of something last.
    pub heard: Moment,
    pub busy: Option<Action>,
    /// When its file is written again that the disk has refused.
    pub retry_at: Option<Moment>,
    /// What a keeper has left that died while it made a group: it is removed with the next step.
    pub may_be_made_anew: bool,
}

/// A container whose program runs.
#[derive(Debug)]
pub struct Container {
    pub id: u64,
    /// The number of its task.
    pub task: usize,
    pub heeds: bool,
    pub works: bool,
}

pub type Step = (State, Vec<Action>);

/// With short waits, so that a simulation sees many of them.
pub fn policy(name: &Name) -> Policy {
    let curve = |base, cap| Curve {
        base: ms(base),
        factor: 2.0,
        cap: ms(cap),
        jitter: 0.2,
    };
    Policy {
        restart: match jobs()[job_of(name)].1.restart.policy {
            job::Policy::Always => Restart::Always,
            job::Policy::OnFailure => Restart::OnFailure,
            job::Policy::Never => Restart::Never,
        },
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

/// How many tasks an instance has.
pub fn size(name: &Name) -> usize {
    jobs()[job_of(name)].1.tasks.len()
}

impl World {
    /// The keeper of this number, if it lives.
    pub fn keeper(&mut self, name: &Name, id: u64) -> Option<&mut Keeper> {
        let keepers = &mut self.places.get_mut(name)?.keepers;
        keepers.iter_mut().find(|keeper| keeper.id == id)
    }

    /// So many of the first tasks are executed.
    pub fn made(&mut self, name: &Name, count: usize) {
        for task in 0..count {
            let (heeds, works) = (self.chance(80), self.trouble == 0 || self.chance(95));
            self.count += 1;
            let id = self.count;
            if let Some(place) = self.places.get_mut(name) {
                place.containers.push(Container {
                    id,
                    task,
                    heeds,
                    works,
                });
            }
        }
    }

    /// A container's program ends.
    pub fn exits(&mut self, name: &Name, container: u64, exit: Exit) {
        let alone = self.weakness == Weakness::EachForItself;
        let Some(place) = self.places.get_mut(name) else {
            return;
        };
        let index = place.containers.iter().position(|one| one.id == container);
        let Some(index) = index else { return };
        let task = place.containers.remove(index).task;
        let others = match place.containers.is_empty() {
            true => Others::Ended,
            false => Others::Run,
        };
        if others == Others::Run && alone {
            return;
        }
        let keepers: Vec<u64> = place.keepers.iter().map(|keeper| keeper.id).collect();
        for id in keepers {
            if let Some(keeper) = self.keeper(name, id)
                && policy(name).completes(exit)
            {
                keeper.completed.insert(task);
            }
            self.keeper_hears(name, id, Event::Exited(exit, others));
        }
    }

    pub fn lose_program(&mut self, name: &Name) {
        let count = self.places[name].containers.len().max(1) as u64;
        let which = random(&mut self.random, count) as usize;
        let exit = Exit::Code(u8::from(self.chance(60)));
        let one = self.places[name].containers.get(which);
        if let Some(id) = one.map(|container| container.id) {
            self.exits(name, id, exit);
        }
    }

    pub fn falls_ill(&mut self, name: &Name) {
        let place = self.places.get_mut(name);
        if let Some(container) = place.and_then(|place| place.containers.first_mut()) {
            container.works = false;
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
            let live = self.places[&name].containers.len();
            let whole = live + keeper.completed.len() == size(&name);
            let (all, live) = (live > 0 && whole, live > 0);
            let holds = match &phase {
                Phase::Waiting { cause, until }
                | Phase::Removing {
                    next: Next::Attempt(cause, until),
                    ..
                } => *until <= clock + policy(&name).curves.of(*cause).cap,
                Phase::Starting { .. } => busy == Some(Action::Create),
                Phase::Running { .. } | Phase::Stopping { .. } => live,
                Phase::Removing { .. } => true,
                Phase::Resting { why } => *why == Rest::Completed,
            };
            let is_running = matches!(phase, Phase::Running { .. });
            self.must(!is_running || all, Invariant::LiveTogether, || {
                format!("{name} runs, and not all of its programs")
            });
            self.must(holds, Invariant::ComesBack, || {
                format!("{name}: {phase:?}, {live}")
            });
        }
    }

    /// Whether an instance is where it is to be: each program runs, or has ended well and is to stay so.
    pub fn is_there(&self, name: &Name) -> bool {
        let Some(place) = self.places.get(name) else {
            return false;
        };
        let Some(keeper) = place.keepers.first() else {
            return false;
        };
        let runs = |task: usize| place.containers.iter().any(|one| one.task == task);
        (0..size(name)).all(|task| runs(task) || keeper.completed.contains(&task))
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
