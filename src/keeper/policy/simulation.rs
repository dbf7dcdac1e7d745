//! A world that the policy is driven in: thousands of steps in virtual time, from a seed.
//!
//! Programs end at any moment or ignore their signal, containers can not be made or removed, people ask
//! for things, and keepers die and come back with or without what they had written.

use super::backoff::next_random;
use super::tests::policy;
use super::*;

/// One host with one instance, of one program or a group.
struct World {
    policy: Policy,
    state: State,
    now: Moment,
    /// How many programs it has.
    size: usize,
    /// Those that run.
    alive: Vec<Program>,
    /// Whether all that do not run have ended well, since they were executed together.
    others_completed: bool,
    /// What the driver is doing, one at a time.
    busy: Option<Action>,
    /// What a keeper has left that died while it made a group: it is removed with the next step.
    may_be_made_anew: bool,
    /// What remains of a container.
    remains: bool,
    random: u64,
    /// What should be counted.
    expected: Counts,
}

#[derive(Clone, Copy)]
struct Program {
    heeds: bool,
    signalled: bool,
}

impl World {
    fn new(seed: u64) -> World {
        let mut random = seed;
        let restarts = [Restart::Always, Restart::OnFailure, Restart::Never];
        let mut policy = policy(restarts[(next_random(&mut random) % 3) as usize]);
        policy.curves.crash.jitter = 0.3;
        policy.delay = Duration::from_secs(seed % 3 * 2);
        let mut world = World {
            policy,
            state: State::new(seed),
            now: Duration::from_secs(1),
            size: 1 + (seed % 4) as usize,
            alive: Vec::new(),
            others_completed: true,
            busy: None,
            may_be_made_anew: false,
            remains: false,
            random,
            expected: Counts::default(),
        };
        world.tell(Event::Found(Found::Nothing));
        world
    }

    fn chance(&mut self, percent: u64) -> bool {
        next_random(&mut self.random) % 100 < percent
    }

    /// A step of the policy, and the beginning of what it asks for.
    fn tell(&mut self, event: Event) {
        let (state, actions) = self.policy.step(&self.state, event, self.now);
        self.state = state;
        for action in actions {
            self.begin(action);
        }
        self.check();
    }

    fn begin(&mut self, action: Action) {
        match action {
            Action::Create | Action::Remove => {
                assert!(
                    self.busy.is_none(),
                    "two at a time: {:?} {action:?}",
                    self.busy
                );
                let may_live = self.may_be_made_anew || self.alive.is_empty();
                assert!(may_live, "{action:?} over a living container");
                (self.alive, self.may_be_made_anew) = (Vec::new(), false);
                self.busy = Some(action);
                if action == Action::Create {
                    self.expected.attempts += 1;
                }
            }
            Action::Signal => {
                assert!(!self.alive.is_empty(), "a signal for nobody");
                for program in &mut self.alive {
                    program.signalled = true;
                }
            }
            Action::Kill => match self.busy {
                Some(Action::Create) => self.end_creation(false),
                Some(_) => panic!("a kill while it is removed"),
                None => {
                    while !self.alive.is_empty() {
                        self.exited(0, Exit::Signal(9));
                    }
                }
            },
        }
    }

    fn end_creation(&mut self, good: bool) {
        self.busy = None;
        self.remains = true;
        if good {
            for _ in 0..self.size {
                let heeds = self.chance(80);
                self.alive.push(Program {
                    heeds,
                    signalled: false,
                });
            }
            self.others_completed = true;
            self.tell(Event::Made);
        } else {
            if self.state.wanted && !self.state.is_halted() {
                self.expected.not_made += 1;
            }
            self.tell(Event::NotMade);
        }
    }

    fn exited(&mut self, which: usize, exit: Exit) {
        self.alive.remove(which);
        self.others_completed &= exit == Exit::Code(0);
        if matches!(self.state.phase, Phase::Running { .. }) {
            match exit {
                Exit::Code(0) => self.expected.completed += 1,
                Exit::Code(_) | Exit::Signal(_) | Exit::Unknown => self.expected.crashes += 1,
            }
        }
        let others = match self.alive.is_empty() {
            true => Others::Ended,
            false => Others::Run,
        };
        self.tell(Event::Exited(exit, others));
    }

    /// One of the programs that run.
    fn any(&mut self) -> usize {
        (next_random(&mut self.random) % self.alive.len() as u64) as usize
    }

    /// Something happens.
    fn happen(&mut self) {
        self.now += Duration::from_millis(next_random(&mut self.random) % 400);
        let dice = next_random(&mut self.random) % 100;
        let heeds = |program: &Program| program.signalled && program.heeds;
        let ends = self.alive.iter().position(heeds);
        match (self.busy, self.alive.is_empty()) {
            _ if dice < 3 => self.lose_keeper(),
            _ if dice < 9 => self.ask(),
            (Some(Action::Remove), _) => {
                let good = self.chance(90);
                self.busy = None;
                self.remains &= !good;
                self.tell(if good {
                    Event::Removed
                } else {
                    Event::NotRemoved
                });
            }
            (Some(_), _) if self.chance(70) => {
                let good = self.chance(85);
                self.end_creation(good);
            }
            (_, false) if ends.is_some() => {
                self.exited(ends.unwrap_or_default(), Exit::Code(0));
            }
            (_, false) if dice < 40 => {
                let ends = [Exit::Code(0), Exit::Code(1), Exit::Signal(11)];
                let end = ends[(next_random(&mut self.random) % 3) as usize];
                let which = self.any();
                self.exited(which, end);
            }
            // A long time in peace.
            _ if dice > 95 => self.now += Duration::from_secs(11),
            _ => {}
        }
        self.pass_time();
    }

    fn ask(&mut self) {
        let asked = [
            Event::Start,
            Event::Stop,
            Event::Restart,
            Event::Unhealthy,
            Event::Start,
            Event::Halt(Duration::from_secs(3)),
        ];
        let event = asked[(next_random(&mut self.random) % 6) as usize];
        if event == Event::Unhealthy && matches!(self.state.phase, Phase::Running { .. }) {
            self.expected.unhealthy += 1;
        }
        let (phase, wanted) = (self.state.phase.clone(), self.state.wanted);
        self.tell(event);
        if let Event::Halt(within) = event {
            assert_eq!(self.state.wanted, wanted);
            self.goes_down(within);
        } else if matches!(event, Event::Stop) {
            assert!(!self.state.wanted);
        } else if matches!(event, Event::Start | Event::Restart) {
            assert!(self.state.wanted, "{phase:?}");
        }
    }

    /// Nothing is started, and what runs has its grace at most.
    fn goes_down(&self, within: Duration) {
        match &self.state.phase {
            Phase::Resting { why } => assert_ne!(*why, Rest::New),
            Phase::Starting { kill_at, .. } => {
                assert!(kill_at.is_some_and(|at| at <= self.now + within));
            }
            Phase::Stopping { kill_at, .. } => assert!(*kill_at <= self.now + within),
            Phase::Removing { next, .. } => assert!(matches!(next, Next::Rest(_)), "{next:?}"),
            Phase::Waiting { .. } | Phase::Running { .. } => panic!("{:?}", self.state.phase),
        }
    }

    /// The keeper dies, and whoever it had make or remove a container with it; a new one comes, of the same boot or of
    /// the next one.
    fn lose_keeper(&mut self) {
        let (now, halts) = (self.now, self.chance(30));
        self.state = match halts {
            true => {
                let halt = Event::Halt(Duration::from_secs(3));
                self.policy.step(&self.state, halt, now).0
            }
            false => self.policy.resumed(self.state.clone(), now),
        };
        let phase = self.state.phase.clone();
        if let Some(action) = self.busy.take() {
            self.remains = true;
            // Programs may have been executed just before.
            if action == Action::Create && self.chance(30) {
                let some = 1 + next_random(&mut self.random) as usize % self.size;
                self.alive = vec![
                    Program {
                        heeds: true,
                        signalled: false,
                    };
                    some
                ];
                self.others_completed = some == self.size;
                self.may_be_made_anew = some < self.size;
            }
        } else if !self.alive.is_empty() && self.chance(20) {
            let some = 1 + self.any();
            self.alive.truncate(self.alive.len() - some);
            self.others_completed = false;
            if matches!(phase, Phase::Running { .. }) {
                self.expected.crashes += 1;
            }
        }
        let found = match (self.alive.is_empty(), self.others_completed) {
            (true, _) => Found::Nothing,
            (false, true) => Found::Alive,
            (false, false) => Found::Part,
        };
        self.tell(Event::Found(found));
        if halts {
            self.goes_down(self.policy.grace);
        }
        self.may_be_made_anew = false;
    }

    fn pass_time(&mut self) {
        while let Some(moment) = self.policy.wake_at(&self.state)
            && moment <= self.now
        {
            let before = self.state.clone();
            self.tell(Event::Time);
            assert!(
                before != self.state,
                "an event that changes nothing comes for ever"
            );
        }
    }

    /// What holds at every moment.
    fn check(&self) {
        self.invariant_a_wanted_instance_always_comes_back();
        self.invariant_an_unwanted_one_ends();
        assert_eq!(self.state.counts, self.expected);
    }

    fn invariant_a_wanted_instance_always_comes_back(&self) {
        if !self.state.wanted {
            return;
        }
        match &self.state.phase {
            Phase::Resting { why } => {
                let is_an_end = matches!(why, Rest::Completed | Rest::Failed);
                assert!(
                    is_an_end && self.policy.restart != Restart::Always || *why == Rest::Halted,
                    "{why:?}"
                );
            }
            Phase::Waiting { cause, until }
            | Phase::Removing {
                next: Next::Attempt(cause, until),
                ..
            } => assert!(*until <= self.now + self.policy.curves.of(*cause).cap),
            Phase::Starting { .. } => assert_eq!(self.busy, Some(Action::Create)),
            Phase::Running { .. } => self.invariant_a_group_runs_whole_or_has_completed(),
            Phase::Removing { .. } | Phase::Stopping { .. } => {}
        }
        let removing = matches!(self.state.phase, Phase::Removing { again_at: None, .. });
        assert_eq!(removing, self.busy == Some(Action::Remove));
    }

    /// Who runs alone does so because the others have ended well, and are not to start again after that.
    fn invariant_a_group_runs_whole_or_has_completed(&self) {
        let whole = self.alive.len() == self.size;
        let goes_on = self.others_completed && self.policy.restart != Restart::Always;
        assert!(whole || goes_on, "{} of {}", self.alive.len(), self.size);
        assert!(!self.alive.is_empty());
    }

    fn invariant_an_unwanted_one_ends(&self) {
        if self.state.wanted {
            return;
        }
        match &self.state.phase {
            Phase::Resting { .. } => assert!(self.alive.is_empty() && self.busy.is_none()),
            Phase::Starting { kill_at, .. } => {
                assert!(kill_at.is_some_and(|at| at <= self.now + self.policy.grace));
            }
            Phase::Stopping { kill_at, why, .. } => {
                assert_eq!(*why, Stop::Asked);
                assert!(*kill_at <= self.now + self.policy.delay + self.policy.grace);
            }
            Phase::Removing { next, .. } => assert!(matches!(next, Next::Rest(_))),
            Phase::Waiting { .. } | Phase::Running { .. } => panic!("{:?}", self.state.phase),
        }
    }
}

#[test]
fn whatever_happens_a_wanted_instance_comes_back_and_an_unwanted_one_ends() {
    for seed in 0..200 {
        let mut world = World::new(seed);
        for _ in 0..500 {
            world.happen();
        }
    }
}

#[test]
fn in_a_world_at_peace_every_instance_comes_to_where_it_is_to_be() {
    for seed in 0..200 {
        let mut world = World::new(seed);
        for _ in 0..100 {
            world.happen();
        }
        let wanted = seed % 2 == 0;
        // Without a word, too, when the host comes back.
        if wanted && world.state.is_halted() {
            world.busy = None;
            world.alive.clear();
            world.state = world.policy.resumed(world.state.clone(), world.now);
            world.tell(Event::Found(Found::Nothing));
        }
        world.tell(if wanted { Event::Start } else { Event::Stop });
        // Nothing fails from now on, and each program ends when it is told to.
        for _ in 0..20 {
            world.now += Duration::from_secs(6);
            world.pass_time();
            match world.busy {
                Some(Action::Create) => world.end_creation(true),
                Some(_) => {
                    (world.busy, world.remains) = (None, false);
                    world.tell(Event::Removed);
                }
                None if matches!(world.state.phase, Phase::Stopping { .. }) => {
                    while !world.alive.is_empty() {
                        world.exited(0, Exit::Code(0));
                    }
                }
                None => {}
            }
        }
        assert_eq!(!world.alive.is_empty(), wanted, "{:?}", world.state);
        assert_eq!(world.remains, wanted, "{:?}", world.state);
        assert!(!world.state.is_flapping());
    }
}
