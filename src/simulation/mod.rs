//! A whole host in virtual time: control, store, agent, keepers and health checks together, from a seed.
//!
//! What decides is the code that runs on real hosts: control's transactions and what they make wanted, the embedded store
//! on a disk that loses what was not made safe, the agent's `step`, its ports and addresses, the keepers' policy, and that of health
//! checks with their brake. Simulated are the drivers around them, which are slow, fail, once or for a while, and lose what they may, and what dies: programs,
//! keepers, the daemon in the middle of a write, and the host with its power. People want things meanwhile, several at
//! once. `SEED=N cargo test --features supervisor --lib simulation` runs one seed again, and `SEEDS=N` as many.
//!
//! To read it in order: `World::happen -> people -> daemon -> driver -> checks -> keepers -> host -> peace`. A [`Weakness`] is a mistake that is
//! made on purpose, so that each invariant is seen to fail.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
#![allow(
    clippy::wildcard_enum_match_arm,
    clippy::match_wildcard_for_single_variants,
    reason = "a world looks at some"
)]

mod checks;
mod daemon;
#[allow(
    dead_code,
    clippy::wildcard_enum_match_arm,
    clippy::match_wildcard_for_single_variants,
    reason = "shared with tests/store"
)]
#[path = "../../tests/store/disk.rs"]
mod disk;
mod driver;
mod host;
mod invariants;
mod keepers;
mod peace;
mod people;
mod seeds;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::agent::Wanted;
use crate::agent::reconcile::{Action, Event, Name};
use crate::api::Health;
use crate::keeper::policy::{self, Exit, Moment};
use crate::store::Clock;
use daemon::Daemon;
use disk::{Disk, Loss};
use host::Place;
use invariants::{Invariant, Weakness};
use people::{Model, Wish, job_of};

type Broken = (Invariant, String);

/// What comes to its end at a moment. The number is the daemon's that has begun it.
#[derive(Debug)]
enum Due {
    Daemon,
    Follow(u64),
    Load(u64),
    Expire(u64),
    Want(u64, Wanted),
    Act(u64, Action),
    Tell(u64, Event),
    Answer(u64, Name, String, usize, bool),
    Commit(u64, Wish, Box<people::Change>),
    Keeper(Name, u64, policy::Action),
    Dies(Name, u64),
}

/// The store's clock.
struct Time(AtomicU64);

impl Clock for Time {
    fn now(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }
}

struct World {
    weakness: Weakness,
    broken: Option<Broken>,
    now: Moment,
    time: Arc<Time>,
    booted: Moment,
    random: u64,
    /// By how many of a hundred things fail.
    trouble: u64,
    due: BTreeMap<(Moment, u64), Due>,
    count: u64,
    /// How many things have come to their end.
    steps: u64,
    disk: Disk,
    daemon: Option<Daemon>,
    /// The agent's file of what is wanted; None: never written, or damaged.
    file: Option<Wanted>,
    /// The verdicts on disk: of which run, and what.
    verdicts: BTreeMap<Name, (String, Health)>,
    /// Since when what was told may not be on disk, as that refuses.
    unsaved: Option<Moment>,
    /// What was told last, of which run, and when.
    shown: BTreeMap<Name, (String, Health, Moment)>,
    places: BTreeMap<Name, Place>,
    /// Ports that programs have which are nobody's here.
    squatted: BTreeSet<u16>,
    /// The disk takes nothing but the store.
    disk_refuses: bool,
    /// No keeper can be started.
    no_keepers: bool,
    /// Jobs whose containers can not be made.
    lost_bundles: BTreeSet<usize>,
    /// Jobs whose checks say no, whatever is true.
    misled: BTreeSet<usize>,
    /// Who was restarted for its checks, of which job, and when.
    unhealthy: Vec<(Moment, usize, Name)>,
    model: Model,
    /// What may be instead, as nobody knows whether a write has come to the disk.
    doubt: Option<Model>,
}

fn random(seed: &mut u64, limit: u64) -> u64 {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *seed;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed ^ (mixed >> 31)) % limit
}

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// How many things happen at most in one run: more of them are a loop without an end.
const STEPS: u64 = 100_000;

/// By how much somebody may be late who is not disturbed.
const LATE: Duration = ms(1);

impl World {
    fn new(seed: u64, weakness: Weakness) -> World {
        let now = Duration::from_secs(1);
        let mut world = World {
            weakness,
            broken: None,
            now,
            time: Arc::new(Time(AtomicU64::new(0))),
            booted: Duration::ZERO,
            random: seed,
            trouble: 10,
            due: BTreeMap::new(),
            count: 0,
            steps: 0,
            disk: Disk::empty(),
            daemon: None,
            file: None,
            verdicts: BTreeMap::new(),
            unsaved: None,
            shown: BTreeMap::new(),
            places: BTreeMap::new(),
            squatted: BTreeSet::new(),
            disk_refuses: false,
            no_keepers: false,
            lost_bundles: BTreeSet::new(),
            misled: BTreeSet::new(),
            unhealthy: Vec::new(),
            model: Model::default(),
            doubt: None,
        };
        world.begin_daemon();
        world
    }

    /// Something must hold; the first that does not is told.
    fn must(&mut self, holds: bool, what: Invariant, why: impl FnOnce() -> String) {
        if !holds && self.broken.is_none() {
            self.broken = Some((what, format!("at {:?}: {}", self.now, why())));
        }
    }

    fn chance(&mut self, percent: u64) -> bool {
        random(&mut self.random, 100) < percent
    }

    fn fails(&mut self) -> bool {
        let trouble = self.trouble;
        self.chance(trouble)
    }

    fn clock(&self) -> Moment {
        self.now - self.booted
    }

    fn after(&mut self, wait: Duration, due: Due) {
        self.count += 1;
        self.due.insert((self.now + wait, self.count), due);
    }

    fn soon(&mut self, due: Due) {
        let wait = ms(random(&mut self.random, 200));
        self.after(wait, due);
    }

    /// As [`World::soon`], and in trouble sometimes very slowly.
    fn slowly(&mut self, due: Due) {
        match self.trouble > 0 && self.chance(5) {
            true => {
                let wait = ms(random(&mut self.random, 20_000));
                self.after(wait, due);
            }
            false => self.soon(due),
        }
    }

    /// Time passes, with all that comes to its end.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.broken.is_none() {
            let first = self.due.first_key_value().map(|((at, _), _)| *at);
            let keepers = self.keepers_wake_at();
            let daemon = self.daemon_wakes_at();
            let next = [first, keepers, daemon].into_iter().flatten().min();
            let Some(next) = next.filter(|next| *next <= end) else {
                break;
            };
            self.now = self.now.max(next);
            self.steps += 1;
            assert!(
                self.steps < STEPS,
                "no end at {:?}: {:?}",
                self.now,
                self.due
            );
            self.time
                .0
                .store(self.now.as_nanos() as u64, Ordering::Relaxed);
            if let Some(entry) = self.due.first_entry()
                && entry.key().0 <= self.now
            {
                let due = entry.remove();
                self.end(due);
            } else {
                self.keepers_time();
                self.daemon_time();
            }
            self.check();
        }
        self.now = self.now.max(end);
    }

    fn end(&mut self, due: Due) {
        let alive = self.daemon.as_ref().map(|daemon| daemon.number);
        let is_its = |number: u64| alive == Some(number);
        match due {
            Due::Daemon if alive.is_none() => self.begin_daemon(),
            Due::Keeper(name, keeper, action) => self.keeper_has_done(&name, keeper, action),
            Due::Dies(name, container) => self.exits(&name, container, Exit::Signal(15)),
            Due::Follow(number) if is_its(number) => self.follow(),
            Due::Load(number) if is_its(number) => self.load(),
            Due::Expire(number) if is_its(number) => self.expire(),
            Due::Want(number, wanted) if is_its(number) => self.want(wanted),
            Due::Act(number, action) if is_its(number) => self.act(action),
            Due::Tell(number, event) if is_its(number) => self.tell(event),
            Due::Answer(number, name, run, check, well) if is_its(number) => {
                self.answer(&name, &run, check, well);
            }
            Due::Commit(number, wish, change) if is_its(number) => self.commit(wish, *change),
            // A process that was started goes its way, whoever has started it.
            Due::Act(_, Action::Keep(name, begin)) if self.places.contains_key(&name) => {
                self.keeper_begins(&name, begin);
            }
            Due::Daemon
            | Due::Follow(_)
            | Due::Load(_)
            | Due::Expire(_)
            | Due::Want(..)
            | Due::Act(..)
            | Due::Tell(..)
            | Due::Answer(..)
            | Due::Commit(..) => {}
        }
    }

    /// Something happens, to anybody.
    fn happen(&mut self) {
        let dice = random(&mut self.random, 100);
        let count = self.places.len().max(1) as u64;
        let one = random(&mut self.random, count) as usize;
        let one = self.places.keys().nth(one).cloned();
        match (dice, one) {
            (0..25, _) => self.wish(),
            (25..30, _) => self.lose_daemon(),
            (30..32, _) => self.lose_power(),
            (32..36, _) => self.disk_fails(),
            (36..38, _) => drop(self.squatted.insert(20_000 + dice as u16 % 4)),
            (38..46, Some(name)) => self.lose_keeper(&name),
            (46..58, Some(name)) => self.lose_program(&name),
            (58..62, Some(name)) => self.falls_ill(&name),
            (62..64, _) => self.disk_refuses ^= true,
            (64..66, _) => self.no_keepers ^= true,
            (66..72, Some(name)) => self.is_broken_or_mended(job_of(&name)),
            (72..74, _) => {
                // Long enough that waits come to their end.
                let time = ms(random(&mut self.random, 30_000));
                self.pass(time);
            }
            (_, _) => {}
        }
        let time = ms(random(&mut self.random, 600));
        self.pass(time);
    }

    /// A job's bundle goes or comes back, or its checks begin to say no or are mended.
    fn is_broken_or_mended(&mut self, job: usize) {
        let set = match self.chance(50) {
            true => &mut self.lost_bundles,
            false => &mut self.misled,
        };
        if !set.remove(&job) {
            set.insert(job);
        }
    }

    /// The host loses its power: what was not made safe is gone, in part or as a whole.
    fn lose_power(&mut self) {
        let calls = self.disk.len();
        let (names, written) = self.disk.unsafe_after(calls);
        let names = random(&mut self.random, names as u64 + 1) as usize;
        let loss = match random(&mut self.random, 3) {
            0 => Loss::All,
            1 => Loss::After(random(&mut self.random, written as u64 + 1) as usize),
            _ => Loss::Pieces {
                size: 512,
                seed: self.random,
            },
        };
        let image = self.disk.crash(calls, names, loss);
        self.end_daemon(image);
        if self.chance(20) {
            self.verdicts.clear();
        }
        self.booted = self.now;
        self.squatted.clear();
        for name in self.names() {
            let lost = self.chance(20);
            let Some(place) = self.places.get_mut(&name) else {
                continue;
            };
            (place.keepers, place.containers) = (Vec::new(), Vec::new());
            if lost {
                place.status = None;
            }
        }
    }

    fn names(&self) -> Vec<Name> {
        self.places.keys().cloned().collect()
    }
}
