//! Policy and limiter under virtual time: a host whose checks answer as chance says.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::json;

use super::limiter::{Event as Limit, Restart};
use super::policy::{Event, Planned};
use super::*;
use crate::job::Purpose;

/// An instance: what its program does.
struct Program {
    state: State,
    /// Probes that are answered at a moment.
    asked: Vec<(Moment, usize)>,
    /// Until when its start takes.
    up_at: Moment,
    /// Whether it works, once it is up.
    works: bool,
    /// Whether its startup has passed.
    up: bool,
}

struct World {
    id: JobId,
    plan: Vec<Planned>,
    now: Moment,
    programs: Vec<Program>,
    limiter: Limiter,
    restarts: Vec<(Moment, usize, String)>,
    random: u64,
    /// A restart makes a program work again.
    heals: bool,
}

fn name(index: usize) -> String {
    format!("web.{index}")
}

impl World {
    fn new(count: usize, seed: u64, heals: bool) -> World {
        let job: crate::job::Job = serde_json::from_value(json!({
            "name": "web", "version": "1", "tasks": { "app": { "bundle": "/b", "health": {
                "startup": { "exec": ["a"], "failures": 5 },
                "readiness": { "exec": ["b"], "interval": "3s", "failures": 1, "successes": 2 },
                "liveness": { "exec": ["c"], "interval": "5s", "failures": 2 }
            } } }
        }))
        .unwrap();
        let mut world = World {
            id: job.id(),
            plan: policy::plan(&job),
            now: Duration::ZERO,
            programs: Vec::new(),
            limiter: Limiter::default(),
            restarts: Vec::new(),
            random: seed | 1,
            heals,
        };
        for _ in 0..count {
            let program = world.begun(true);
            world.programs.push(program);
        }
        let event = Limit::Count(world.id.clone(), count);
        assert_eq!(world.limiter.step(event, world.now), []);
        world
    }

    fn chance(&mut self) -> f64 {
        // xorshift64
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random % 1000) as f64 / 1000.0
    }

    fn begun(&mut self, works: bool) -> Program {
        let (spread, start) = (self.chance(), self.chance());
        Program {
            state: State::new(self.plan.clone(), None, spread, self.now),
            asked: Vec::new(),
            up_at: self.now + Duration::from_secs(3).mul_f64(start),
            works,
            up: false,
        }
    }

    fn limit(&mut self, event: Limit) {
        for Restart { instance, reason } in self.limiter.step(event, self.now) {
            let index: usize = instance.strip_prefix("web.").unwrap().parse().unwrap();
            self.restarts.push((self.now, index, reason));
            let works = self.programs[index].works || self.heals;
            self.programs[index] = self.begun(works);
            let event = Limit::New(self.id.clone(), instance);
            assert_eq!(self.limiter.step(event, self.now), []);
        }
    }

    fn step(&mut self, index: usize, event: Event) {
        let actions = self.programs[index].state.step(event, self.now);
        for action in actions {
            match action {
                Action::Probe(check) => {
                    // One whose startup has failed for good is asked on, until its turn to be restarted has come.
                    let up = self.programs[index].up;
                    let is_startup = self.plan[check].purpose == Purpose::Startup;
                    assert_eq!(up, !is_startup, "startup comes before the others");
                    let takes = Duration::from_millis(200).mul_f64(self.chance());
                    let at = self.now + takes;
                    let asked = &mut self.programs[index].asked;
                    assert!(
                        asked.iter().all(|(_, other)| *other != check),
                        "one at a time"
                    );
                    asked.push((at, check));
                }
                Action::Tell(Health::Unhealthy, reason) => {
                    self.limit(Limit::Ask(self.id.clone(), name(index), reason));
                }
                Action::Tell(Health::Ready, _) => {
                    self.limit(Limit::Well(self.id.clone(), name(index)));
                }
                Action::Tell(..) => {}
            }
        }
    }

    /// Time passes up to a moment, with all that happens meanwhile.
    fn until(&mut self, end: Moment) {
        loop {
            let programs = self.programs.iter();
            let moments = programs.flat_map(|one| {
                let asked = one.asked.iter().map(|(at, _)| *at);
                asked.chain(one.state.wake_at())
            });
            let next = moments.chain(self.limiter.wake_at(self.now)).min();
            let Some(next) = next.filter(|next| *next < end) else {
                self.now = end;
                return;
            };
            self.now = self.now.max(next);
            for index in 0..self.programs.len() {
                while let Some(at) = self.programs[index]
                    .asked
                    .iter()
                    .position(|(at, _)| *at <= self.now)
                {
                    let (_, check) = self.programs[index].asked.remove(at);
                    let program = &self.programs[index];
                    let well = program.works && program.up_at <= self.now;
                    let answer = if well { Ok(()) } else { Err("no".to_owned()) };
                    self.programs[index].up |= well;
                    self.step(index, Event::Answer(check, answer));
                }
                self.step(index, Event::Time);
            }
            self.limit(Limit::Time);
        }
    }

    /// How many were restarted in the minute from each restart on.
    fn most_in_a_minute(&self) -> usize {
        let moments: Vec<Moment> = self.restarts.iter().map(|(at, ..)| *at).collect();
        let within = |from: &Moment| {
            let all = moments.iter();
            all.filter(|at| (*from..*from + Duration::from_secs(60)).contains(at))
                .count()
        };
        moments.iter().map(within).max().unwrap_or(0)
    }

    fn ready(&self) -> usize {
        let programs = self.programs.iter();
        programs
            .filter(|one| one.state.health() == Health::Ready)
            .count()
    }
}

const fn secs(seconds: u64) -> Moment {
    Duration::from_secs(seconds)
}

#[test]
fn the_ones_that_are_ill_are_restarted_one_after_another() {
    let mut world = World::new(20, 7, true);
    world.until(secs(30));
    assert_eq!((world.ready(), world.restarts.len()), (20, 0));
    for index in 0..5 {
        world.programs[index].works = false;
    }
    world.until(secs(50));
    assert!(!world.restarts.is_empty(), "the first one waits for nobody");
    world.until(secs(400));
    assert_eq!(world.ready(), 20);
    let who: BTreeSet<usize> = world.restarts.iter().map(|(_, index, _)| *index).collect();
    assert_eq!((who.len(), world.restarts.len()), (5, 5));
    assert!(world.most_in_a_minute() <= 4, "{:?}", world.restarts);
    assert!(
        world
            .restarts
            .iter()
            .all(|(_, _, reason)| !reason.contains("all 20"))
    );
}

#[test]
fn a_check_that_is_broken_for_all_restarts_them_slowly_and_says_so() {
    let mut world = World::new(10, 3, false);
    world.until(secs(30));
    world.programs.iter_mut().for_each(|one| one.works = false);
    world.until(secs(630));
    // The first may have come before the last one had failed too.
    let (count, told) = (world.restarts.len(), &world.restarts[2].2);
    assert!((4..=8).contains(&count), "{:?}", world.restarts);
    assert!(told.contains("all 10 instances of the job fail"), "{told}");
    let apart = world.restarts.windows(2).skip(2);
    for two in apart {
        assert!(two[1].0 - two[0].0 >= secs(120), "{:?}", world.restarts);
    }
    // The check is mended: all are well by themselves, but one that was just restarted.
    world.programs.iter_mut().for_each(|one| one.works = true);
    let before = world.restarts.len();
    world.until(secs(800));
    assert_eq!(world.ready(), 10);
    assert!(world.restarts.len() <= before + 1);
}

#[test]
fn the_only_instance_is_restarted_at_once() {
    let mut world = World::new(1, 5, true);
    world.until(secs(30));
    world.programs[0].works = false;
    world.until(secs(45));
    assert_eq!(world.restarts.len(), 1);
    world.until(secs(80));
    assert_eq!(world.ready(), 1);
}

#[test]
fn a_restart_that_did_not_come_is_asked_for_again() {
    let mut world = World::new(1, 1, true);
    let event = |what: &str| Limit::Ask(world.id.clone(), name(0), what.to_owned());
    let asked = event("dead");
    let new = Limit::New(world.id.clone(), name(0));
    let restart = [Restart {
        instance: name(0),
        reason: "dead".to_owned(),
    }];
    assert_eq!(world.limiter.step(asked, secs(5)), restart);
    assert_eq!(world.limiter.wake_at(secs(5)), Some(secs(65)));
    assert_eq!(world.limiter.step(Limit::Time, secs(64)), []);
    assert_eq!(world.limiter.step(Limit::Time, secs(65)), restart);
    assert_eq!(world.limiter.step(new, secs(66)), []);
    assert_eq!(world.limiter.wake_at(secs(66)), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn whatever_falls_ill_the_service_is_not_taken_down(
        count in 1_usize..30, seed in any::<u64>(), heals in any::<bool>(),
        ills in prop::collection::vec((0_u64..600, any::<prop::sample::Index>(), any::<bool>()), 0..60)
    ) {
        let mut world = World::new(count, seed, heals);
        let mut ills = ills;
        ills.sort_by_key(|(at, ..)| *at);
        for (at, index, works) in ills {
            world.until(secs(at));
            let index = index.index(count);
            world.programs[index].works = works;
        }
        world.until(secs(700));
        if count > 1 {
            prop_assert!(world.most_in_a_minute() <= (count / 5).max(1));
        }
        prop_assert!(world.most_in_a_minute() <= 5.max(count / 5));
        // In the end what works is ready, and what can be healed works.
        world.until(secs(700 + 150 * count as u64));
        for program in &world.programs {
            let ready = program.state.health() == Health::Ready;
            prop_assert_eq!(ready, program.works, "{:?}", program.state);
            prop_assert!(program.works || !heals);
        }
    }
}
