//! A host that the agent is driven in: in virtual time, from a seed.
//!
//! Programs, keepers, the agent and the host die at any moment; what is asked of keepers gets lost, and what
//! they tell comes late; nothing works for sure. `SEED=N cargo test simulation` runs one seed again.

mod host;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::tests::{name, want};
use super::*;

/// What is true of an instance's directory, whoever knows it.
#[derive(Debug, Clone, Default)]
struct Place {
    /// Whether a keeper is there.
    kept: bool,
    /// What the last keeper has written: whether the instance is to run. None before the first one.
    wanted: Option<bool>,
    /// Whether its program runs.
    alive: bool,
    /// When the keeper does the next thing.
    next: Option<Moment>,
}

/// What the agent has begun, or what is on its way to it.
#[derive(Debug, Clone)]
enum Due {
    Act(Action),
    Tell(Event),
}

struct World {
    now: Moment,
    random: u64,
    /// By how many of a hundred things fail.
    trouble: u64,
    agent: Option<State>,
    back_at: Option<Moment>,
    /// Those of the agent that lives now.
    due: Vec<(Moment, Due)>,
    /// Actions of it that have not ended.
    busy: BTreeSet<Name>,
    /// What agents that are dead have begun, and what ends all the same.
    orphans: Vec<(Moment, Action)>,
    places: BTreeMap<Name, Place>,
    /// The file of what is wanted; None: damaged.
    file: Option<Want>,
    /// The revision that was acknowledged, unless the file was damaged since.
    acknowledged: Option<u64>,
    newest: u64,
}

fn random(seed: &mut u64, limit: u64) -> u64 {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *seed;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed ^ (mixed >> 31)) % limit
}

impl World {
    fn new(seed: u64) -> World {
        let mut world = World {
            now: Duration::from_secs(1),
            random: seed,
            trouble: 20,
            agent: None,
            back_at: None,
            due: Vec::new(),
            busy: BTreeSet::new(),
            orphans: Vec::new(),
            places: BTreeMap::new(),
            file: None,
            acknowledged: None,
            newest: 0,
        };
        world.begin();
        world
    }

    fn fails(&mut self) -> bool {
        random(&mut self.random, 100) < self.trouble
    }

    fn soon(&mut self) -> Moment {
        self.now + Duration::from_millis(random(&mut self.random, 300))
    }

    /// The agent begins: it reads its file and looks for keepers.
    fn begin(&mut self) {
        let found = self.places.iter().map(|(name, place)| FoundSlot {
            name: name.clone(),
            job: tests::job(0),
            index: 0,
            ports: BTreeMap::new(),
            address: None,
            kept: place.kept,
        });
        let found = found.collect();
        let want = self.file.clone();
        if let (Some(file), Some(acknowledged)) = (&want, &self.acknowledged) {
            assert!(file.revision >= *acknowledged, "an intent was lost");
        }
        self.agent = Some(State::new(self.random));
        self.tell(Event::Begun { found, want });
    }

    fn tell(&mut self, event: Event) {
        let Some(agent) = &mut self.agent else { return };
        let actions = agent.step(event, self.now);
        let knows = agent.revision.is_some();
        for action in actions {
            self.take(action, knows);
        }
        self.check();
    }

    fn take(&mut self, action: Action, knows: bool) {
        let at = self.soon();
        match &action {
            Action::Ask(_, request) => {
                assert!(knows || *request != Request::Stop, "a stop out of nothing");
                if self.fails() {
                    return; // lost
                }
            }
            Action::Make(name) | Action::Keep(name, _) => {
                assert!(self.busy.insert(name.clone()), "two at a time: {action:?}");
            }
            Action::Delete(name) => {
                assert!(knows, "a removal out of nothing");
                assert!(self.busy.insert(name.clone()), "two at a time: {action:?}");
            }
        }
        self.due.push((at, Due::Act(action)));
    }

    /// Time passes to the next thing that happens, and it happens.
    fn pass(&mut self, most: Duration) {
        let end = self.now + most;
        let wake = self.agent.as_ref().and_then(State::wake_at);
        let keepers = self.places.values().filter(|place| place.kept);
        let moments = (self.due.iter().map(|(at, _)| *at))
            .chain(self.orphans.iter().map(|(at, _)| *at))
            .chain(keepers.filter_map(|place| place.next))
            .chain(wake)
            .chain(self.back_at);
        self.now = moments.min().unwrap_or(end).clamp(self.now, end);
        if self.back_at.is_some_and(|at| at <= self.now) {
            self.back_at = None;
            self.begin();
        }
        self.keepers_work();
        while let Some(index) = self.orphans.iter().position(|(at, _)| *at <= self.now) {
            let (_, action) = self.orphans.swap_remove(index);
            self.act(action);
        }
        while let Some(index) = self.due.iter().position(|(at, _)| *at <= self.now) {
            let event = match self.due.remove(index).1 {
                Due::Tell(event) => Some(event),
                Due::Act(action) => self.act(action),
            };
            if let Some(event) = event {
                self.deliver(event);
            }
        }
        if self
            .agent
            .as_ref()
            .and_then(State::wake_at)
            .is_some_and(|at| at <= self.now)
        {
            self.tell(Event::Time);
        }
    }

    /// The agent hears that something has ended, or what a keeper tells.
    fn deliver(&mut self, event: Event) {
        if let Event::Made(name, ..)
        | Event::NotMade(name, _)
        | Event::Kept(name)
        | Event::NotKept(name, _)
        | Event::Deleted(name)
        | Event::NotDeleted(name, _) = &event
        {
            self.busy.remove(name);
        }
        let kept = match &event {
            Event::Kept(name) => Some(name.clone()),
            Event::Begun { .. }
            | Event::Want(_)
            | Event::Halt(_)
            | Event::Made(..)
            | Event::NotMade(..)
            | Event::NotKept(..)
            | Event::Told(..)
            | Event::Lost(_)
            | Event::Deleted(_)
            | Event::NotDeleted(..)
            | Event::Checked(..)
            | Event::Time => None,
        };
        self.tell(event);
        if let Some(name) = kept {
            match self.places.get(&name) {
                Some(place) if place.kept => self.report(&name),
                _ => self.tell(Event::Lost(name)),
            }
        }
    }

    /// Somebody wants something else, or is late.
    fn ask(&mut self) {
        let newest = self.newest;
        let stale = random(&mut self.random, 10) == 0;
        let revision = if stale { newest / 2 } else { newest + 1 };
        let all = (0..8_u32).filter(|_| random(&mut self.random, 3) > 0);
        let slots: Vec<(u32, Goal)> = all
            .collect::<Vec<_>>()
            .into_iter()
            .map(|number| {
                let stopped = random(&mut self.random, 5) == 0;
                (number, if stopped { Goal::Stop } else { Goal::Start })
            })
            .collect();
        self.want(want(revision, &slots));
    }

    /// As the driver does it: an older one is left out, and what is told to the caller is on disk.
    fn want(&mut self, want: Want) {
        let Some(agent) = &self.agent else { return };
        if agent.revision.is_some_and(|last| want.revision < last) {
            return self.tell(Event::Want(want));
        }
        if self.fails() {
            return; // the disk is full, and what was there stays
        }
        self.newest = self.newest.max(want.revision);
        self.file = Some(want.clone());
        // It may die between the disk and the answer.
        if self.fails() {
            return self.lose_agent();
        }
        self.acknowledged = Some(want.revision);
        self.tell(Event::Want(want));
    }

    fn happen(&mut self) {
        let dice = random(&mut self.random, 100);
        let count = self.places.len().max(1) as u64;
        let one = random(&mut self.random, count) as usize;
        let one = self.places.keys().nth(one).cloned();
        match (dice, one) {
            (0..10, _) => self.ask(),
            (10..15, _) if self.agent.is_some() => self.lose_agent(),
            (15, _) => self.lose_host(),
            (16..26, Some(name)) => self.lose_keeper(&name),
            (26..40, Some(name)) => self.lose_program(&name),
            (40..45, Some(name)) => {
                self.tell(Event::Checked(name, Health::Unhealthy, String::new()));
            }
            (_, _) => self.pass(Duration::from_millis(500)),
        }
    }

    /// What holds at every moment.
    fn check(&self) {
        let Some(agent) = &self.agent else { return };
        for (name, slot) in &agent.slots {
            let busy = self.busy.contains(name);
            match slot.stage {
                Stage::Making | Stage::Keeping | Stage::Deleting => {
                    assert!(busy, "{name}: {slot:?}")
                }
                // It comes back within its back-off.
                Stage::Unmade { at } | Stage::Unkept { at } | Stage::Remaining { at } => {
                    assert!(!busy && at <= self.now + AGAIN.cap, "{name}: {slot:?}");
                    assert!(
                        agent.wake_at().is_some_and(|wake| wake <= at),
                        "{name}: {slot:?}"
                    );
                }
                Stage::Kept { .. } => assert!(!busy, "{name}: {slot:?}"),
            }
        }
    }

    /// In peace everything comes to where it is to be.
    fn invariant_what_is_wanted_is_what_there_is(&mut self, seed: u64) {
        self.trouble = 0;
        let last = self.newest + 1;
        let goals = [(0, Goal::Start), (3, Goal::Stop), (5, Goal::Start)];
        while self.agent.is_none() {
            self.pass(Duration::from_secs(1));
        }
        self.want(want(last, &goals));
        let end = self.now + AGAIN.cap + 4 * ASK_AGAIN;
        while self.now < end {
            self.pass(Duration::from_secs(5));
        }
        let there: Vec<_> = (self.places.iter())
            .map(|(name, place)| (name.clone(), place.kept, place.alive))
            .collect();
        let wanted = goals.map(|(number, goal)| (name(number), true, goal == Goal::Start));
        assert_eq!(there, wanted, "seed {seed}: {:#?}", self.agent);
    }
}

#[test]
fn whatever_happens_a_host_comes_to_what_is_wanted_of_it() {
    let one = std::env::var("SEED")
        .ok()
        .and_then(|text| text.parse().ok());
    let seeds = one.map_or(0..3000, |seed: u64| seed..seed + 1);
    for seed in seeds {
        let run = std::panic::catch_unwind(|| {
            let mut world = World::new(seed);
            for _ in 0..300 {
                world.happen();
            }
            world.invariant_what_is_wanted_is_what_there_is(seed);
        });
        if let Err(panic) = run {
            println!("run it again: SEED={seed} cargo test --features supervisor --lib simulation");
            std::panic::resume_unwind(panic);
        }
    }
}
