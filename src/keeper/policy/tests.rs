//! Single steps of the policy, and what holds for every curve.

use super::*;
use proptest::prelude::*;

/// Curves of whole numbers, without jitter.
pub(super) fn policy(restart: Restart) -> Policy {
    let curve = |base, cap| Curve {
        base: Duration::from_millis(base),
        factor: 2.0,
        cap: Duration::from_millis(cap),
        jitter: 0.0,
    };
    Policy {
        restart,
        success: vec![0],
        curves: Curves {
            crash: curve(100, 1000),
            unhealthy: curve(500, 4000),
            image: curve(1000, 30_000),
        },
        good_run: Duration::from_secs(10),
        delay: Duration::ZERO,
        grace: Duration::from_secs(5),
    }
}

fn ms(millis: u64) -> Moment {
    Duration::from_millis(millis)
}

/// The events, each at its moment in milliseconds, as lines `moment: event -> phase, actions`.
fn story(policy: &Policy, events: &[(u64, Event)]) -> String {
    let mut state = State::new(1);
    let mut told = String::new();
    for (moment, event) in events {
        let (next, actions) = policy.step(&state, *event, ms(*moment));
        state = next;
        told += &format!("{moment}: {event:?} -> {}{actions:?}\n", word(&state.phase));
    }
    told
}

fn word(phase: &Phase) -> String {
    match phase {
        Phase::Resting { why } => format!("resting {why:?} "),
        Phase::Waiting { cause, until } => format!("waiting {cause:?} {} ", until.as_millis()),
        Phase::Starting { kill_at: None, .. } => "starting ".into(),
        Phase::Starting { kill_at, .. } => format!("starting, kill {kill_at:?} "),
        Phase::Running { .. } => "running ".into(),
        Phase::Stopping { why, kill_at, .. } => {
            format!("stopping {why:?} {} ", kill_at.as_millis())
        }
        Phase::Removing { next, .. } => format!("removing, {next:?} "),
    }
}

const FOUND_NOTHING: Event = Event::Found(Found::Nothing);
const FOUND_ALIVE: Event = Event::Found(Found::Alive);
const CRASH: Event = Event::Exited(Exit::Code(1), Others::Ended);
const SUCCESS: Event = Event::Exited(Exit::Code(0), Others::Ended);

#[test]
fn a_host_that_goes_down_ends_the_program_and_the_next_keeper_starts_it_again() {
    let policy = policy(Restart::Always);
    let halt = |seconds| Event::Halt(Duration::from_secs(seconds));
    let told = story(
        &policy,
        &[
            (0, FOUND_NOTHING),
            (10, Event::Made),
            (1000, halt(90)),
            // A second word may leave less time.
            (1500, halt(2)),
            (1600, Event::Unhealthy),
            (3500, Event::Time),
            (3600, Event::Exited(Exit::Signal(9), Others::Ended)),
            (3700, Event::Removed),
            // Somebody has thought better of it.
            (4000, Event::Start),
            (4100, halt(90)),
            (4200, Event::Made),
        ],
    );
    assert_eq!(
        told,
        "0: Found(Nothing) -> starting [Create]\n\
         10: Made -> running []\n\
         1000: Halt(90s) -> stopping Host 6000 [Signal]\n\
         1500: Halt(2s) -> stopping Host 3500 []\n\
         1600: Unhealthy -> stopping Host 3500 []\n\
         3500: Time -> stopping Host 4500 [Kill]\n\
         3600: Exited(Signal(9), Ended) -> removing, Rest(Halted) [Remove]\n\
         3700: Removed -> resting Halted []\n\
         4000: Start -> starting [Create]\n\
         4100: Halt(90s) -> starting, kill Some(9.1s) []\n\
         4200: Made -> stopping Host 9100 [Signal]\n"
    );
    let halted = |phase| State {
        phase,
        ..State::new(1)
    };
    let resting = halted(Phase::Resting { why: Rest::Halted });
    // Its keeper dies while the host goes down: nothing is started.
    let (same, _) = policy.step(&resting, halt(90), ms(5000));
    let (same, actions) = policy.step(&same, FOUND_NOTHING, ms(5000));
    assert_eq!(actions, [Action::Remove]);
    assert!(same.wanted && same.is_halted());
    let (next, actions) = policy.step(&policy.resumed(resting, ms(0)), FOUND_NOTHING, ms(5));
    assert_eq!(actions, [Action::Create]);
    assert!(matches!(next.phase, Phase::Starting { kill_at: None, .. }));
}

#[test]
fn of_one_attempt_there_is_no_second_one_after_the_next_boot() {
    let policy = policy(Restart::Never);
    let halt = Event::Halt(Duration::from_secs(90));
    let mut state = State::new(1);
    for (event, now) in [
        (FOUND_NOTHING, 0),
        (Event::Made, 1),
        (halt, 2),
        (SUCCESS, 3),
    ] {
        (state, _) = policy.step(&state, event, ms(now));
    }
    (state, _) = policy.step(&state, Event::Removed, ms(4));
    assert_eq!(state.phase, Phase::Resting { why: Rest::Failed });
    assert_eq!(policy.resumed(state.clone(), ms(0)), state);
}

#[test]
fn a_moment_of_the_boot_before_is_not_waited_for() {
    let policy = policy(Restart::Always);
    let far = ms(1_000_000_000);
    for phase in [
        Phase::Waiting {
            cause: Cause::Crash,
            until: far,
        },
        Phase::Removing {
            next: Next::Attempt(Cause::Crash, far),
            again_at: None,
        },
    ] {
        let state = State {
            phase,
            ..State::new(1)
        };
        let (found, _) = policy.step(&state, FOUND_NOTHING, ms(50));
        let (removed, _) = policy.step(&found, Event::Removed, ms(60));
        assert_eq!(policy.wake_at(&removed), Some(ms(50 + 1000)), "{removed:?}");
    }
}

#[test]
fn the_first_restart_comes_at_once_and_the_next_ones_wait() {
    let events = [
        (0, FOUND_NOTHING),
        (1, Event::Made),
        (20_000, CRASH),
        (20_001, Event::Made),
        (20_002, CRASH),
        (20_003, Event::Removed),
        (20_101, Event::Time),
        (20_102, Event::Time),
        (20_103, Event::Made),
        (20_104, CRASH),
        (20_105, Event::Removed),
    ];
    let expected = "\
0: Found(Nothing) -> starting [Create]
1: Made -> running []
20000: Exited(Code(1), Ended) -> starting [Create]
20001: Made -> running []
20002: Exited(Code(1), Ended) -> removing, Attempt(Crash, 20.102s) [Remove]
20003: Removed -> waiting Crash 20102 []
20101: Time -> waiting Crash 20102 []
20102: Time -> starting [Create]
20103: Made -> running []
20104: Exited(Code(1), Ended) -> removing, Attempt(Crash, 20.304s) [Remove]
20105: Removed -> waiting Crash 20304 []
";
    assert_eq!(story(&policy(Restart::Always), &events), expected);
}

#[test]
fn a_removal_that_takes_longer_than_the_wait_is_followed_by_the_attempt() {
    let events = [
        (0, FOUND_NOTHING),
        (1, Event::Made),
        (2, CRASH),
        (3, Event::Made),
        (4, CRASH),
        (500, Event::Removed),
    ];
    let told = story(&policy(Restart::Always), &events);
    assert!(
        told.ends_with("500: Removed -> starting [Create]\n"),
        "{told}"
    );
}

#[test]
fn each_policy_has_its_ends_after_which_nothing_follows() {
    let after = |restart, end| {
        let told = story(
            &policy(restart),
            &[(0, FOUND_NOTHING), (1, Event::Made), (2, end)],
        );
        told.lines().last().unwrap().to_owned()
    };
    let signal = Event::Exited(Exit::Signal(9), Others::Ended);
    let unknown = Event::Exited(Exit::Unknown, Others::Ended);
    for end in [CRASH, SUCCESS, signal, unknown] {
        assert!(after(Restart::Always, end).ends_with("starting [Create]"));
        let completes = end == SUCCESS;
        let on_failure = after(Restart::OnFailure, end);
        assert_eq!(
            on_failure.contains("Rest(Completed)"),
            completes,
            "{on_failure}"
        );
        assert_eq!(
            on_failure.ends_with("starting [Create]"),
            !completes,
            "{on_failure}"
        );
        let never = after(Restart::Never, end);
        assert!(never.ends_with("[Remove]"), "{never}");
        assert_eq!(never.contains("Rest(Completed)"), completes, "{never}");
        assert_eq!(never.contains("Rest(Failed)"), !completes, "{never}");
    }
}

#[test]
fn other_success_codes_are_no_failure_and_zero_is_one_then() {
    let mut policy = policy(Restart::OnFailure);
    policy.success = vec![3, 4];
    let after = |code| {
        let end = Event::Exited(Exit::Code(code), Others::Ended);
        story(&policy, &[(0, FOUND_NOTHING), (1, Event::Made), (2, end)])
    };
    assert!(after(3).contains("Rest(Completed)") && after(4).contains("Rest(Completed)"));
    assert!(after(0).ends_with("starting [Create]\n"));
}

#[test]
fn each_cause_has_its_own_row_and_its_own_curve() {
    let events = [
        (0, FOUND_NOTHING),
        (1, Event::NotMade),
        (2, Event::NotMade),
        (3, Event::Removed),
        (1002, Event::Time),
        (1003, Event::Made),
        (1004, Event::Unhealthy),
        (1005, SUCCESS),
        (1006, Event::Made),
        (1007, Event::Unhealthy),
        (1008, SUCCESS),
        (1009, Event::Removed),
        (1508, Event::Time),
        (1509, Event::Made),
        (1510, CRASH),
    ];
    let expected = "\
0: Found(Nothing) -> starting [Create]
1: NotMade -> starting [Create]
2: NotMade -> removing, Attempt(Image, 1.002s) [Remove]
3: Removed -> waiting Image 1002 []
1002: Time -> starting [Create]
1003: Made -> running []
1004: Unhealthy -> stopping Unhealthy 6004 [Signal]
1005: Exited(Code(0), Ended) -> starting [Create]
1006: Made -> running []
1007: Unhealthy -> stopping Unhealthy 6007 [Signal]
1008: Exited(Code(0), Ended) -> removing, Attempt(Unhealthy, 1.508s) [Remove]
1009: Removed -> waiting Unhealthy 1508 []
1508: Time -> starting [Create]
1509: Made -> running []
1510: Exited(Code(1), Ended) -> starting [Create]
";
    assert_eq!(story(&policy(Restart::OnFailure), &events), expected);
}

#[test]
fn a_stop_is_a_signal_then_a_kill_until_all_have_ended() {
    let events = [
        (0, FOUND_NOTHING),
        (1, Event::Made),
        (10, Event::Stop),
        (5009, Event::Time),
        (5010, Event::Time),
        (6010, Event::Time),
        (6011, Event::Exited(Exit::Signal(9), Others::Ended)),
        (6012, Event::NotRemoved),
        (7012, Event::Time),
        (7013, Event::Removed),
        (7014, FOUND_NOTHING),
        (7015, Event::Removed),
        (7016, Event::Start),
    ];
    let expected = "\
0: Found(Nothing) -> starting [Create]
1: Made -> running []
10: Stop -> stopping Asked 5010 [Signal]
5009: Time -> stopping Asked 5010 []
5010: Time -> stopping Asked 6010 [Kill]
6010: Time -> stopping Asked 7010 [Kill]
6011: Exited(Signal(9), Ended) -> removing, Rest(Stopped) [Remove]
6012: NotRemoved -> removing, Rest(Stopped) []
7012: Time -> removing, Rest(Stopped) [Remove]
7013: Removed -> resting Stopped []
7014: Found(Nothing) -> removing, Rest(Stopped) [Remove]
7015: Removed -> resting Stopped []
7016: Start -> starting [Create]
";
    assert_eq!(story(&policy(Restart::Always), &events), expected);
}

#[test]
fn a_stop_while_the_container_is_made_ends_it_when_it_is_there_or_after_the_grace() {
    let begun = [(0, FOUND_NOTHING), (1, Event::Stop)];
    let told = |more: &[(u64, Event)]| {
        let events: Vec<_> = begun.iter().chain(more).copied().collect();
        let told = story(&policy(Restart::Always), &events);
        told.split_once("Stop -> ").unwrap().1.to_owned()
    };
    let made = "starting, kill Some(5.001s) []\n2: Made -> stopping Asked 5002 [Signal]\n";
    assert_eq!(told(&[(2, Event::Made)]), made);
    let hung = "starting, kill Some(5.001s) []\n5001: Time -> starting, kill Some(6.001s) [Kill]\n\
                5002: NotMade -> removing, Rest(Stopped) [Remove]\n";
    assert_eq!(told(&[(5001, Event::Time), (5002, Event::NotMade)]), hung);
}

#[test]
fn a_program_that_works_is_told_to_end_after_the_delay() {
    let policy = Policy {
        delay: Duration::from_secs(3),
        ..policy(Restart::Always)
    };
    let told = |more: &[(u64, Event)]| {
        let begun = [(0, FOUND_NOTHING), (1, Event::Made)];
        let events: Vec<_> = begun.iter().chain(more).copied().collect();
        let told = story(&policy, &events);
        told.split_once("running []\n").unwrap().1.to_owned()
    };
    let stopped = [
        (1000, Event::Stop),
        (2000, Event::Stop),
        (3999, Event::Time),
        (4000, Event::Time),
        (4100, Event::Time),
        (9000, Event::Time),
    ];
    let expected = "\
1000: Stop -> stopping Asked 9000 []
2000: Stop -> stopping Asked 9000 []
3999: Time -> stopping Asked 9000 []
4000: Time -> stopping Asked 9000 [Signal]
4100: Time -> stopping Asked 9000 []
9000: Time -> stopping Asked 10000 [Kill]
";
    assert_eq!(told(&stopped), expected);
    // The next keeper waits on, but no longer than the delay: moments of another boot may be far away.
    let found = told(&[
        (1000, Event::Stop),
        (2000, FOUND_ALIVE),
        (4000, Event::Time),
    ]);
    let expected = "2000: Found(Alive) -> stopping Asked 9000 []\n4000: Time -> stopping Asked 9000 [Signal]\n";
    assert!(found.ends_with(expected), "{found}");
    let found = told(&[(1_000_000, Event::Stop), (10, FOUND_ALIVE)]);
    assert!(
        found.ends_with("10: Found(Alive) -> stopping Asked 8010 []\n"),
        "{found}"
    );
    // A restart waits too; what does not work is told at once.
    assert!(told(&[(1000, Event::Restart)]).ends_with("stopping Restart 9000 []\n"));
    assert!(told(&[(1000, Event::Unhealthy)]).ends_with("stopping Unhealthy 6000 [Signal]\n"));
    let down = Event::Halt(Duration::from_secs(90));
    assert!(told(&[(1000, Event::Stop), (1500, down)]).ends_with("stopping Asked 6500 [Signal]\n"));
    let ended = told(&[
        (1000, Event::Stop),
        (1500, Event::Exited(Exit::Code(0), Others::Ended)),
    ]);
    assert!(
        ended.ends_with("removing, Rest(Stopped) [Remove]\n"),
        "{ended}"
    );
}

#[test]
fn a_new_keeper_goes_on_where_the_last_one_was() {
    let policy = policy(Restart::Always);
    let found = |events: &[(u64, Event)], found: Event| {
        let events: Vec<_> = events.iter().copied().chain([(100, found)]).collect();
        let told = story(&policy, &events);
        let last = told.lines().last().unwrap();
        last.split_once("-> ").unwrap().1.to_owned()
    };
    let running = [(0, FOUND_NOTHING), (1, Event::Made)];
    assert_eq!(found(&running, FOUND_ALIVE), "running []");
    assert_eq!(found(&running, FOUND_NOTHING), "starting [Create]");
    assert_eq!(found(&running[..1], FOUND_ALIVE), "running []");
    assert_eq!(found(&running[..1], FOUND_NOTHING), "starting [Create]");
    let stopping = [running[0], running[1], (2, Event::Stop)];
    assert_eq!(
        found(&stopping, FOUND_ALIVE),
        "stopping Asked 5002 [Signal]"
    );
    let waiting = [
        running[0],
        (1, Event::NotMade),
        (2, Event::NotMade),
        (3, Event::Removed),
    ];
    assert_eq!(found(&waiting, FOUND_NOTHING), "waiting Image 1002 []");
    // Nothing is known, as the status file was lost, and a container runs.
    assert_eq!(found(&[], FOUND_ALIVE), "running []");
}

#[test]
fn flapping_is_seen_and_ends_by_itself_after_a_good_run() {
    let policy = policy(Restart::Always);
    let mut state = State::new(1);
    let at = |state: &mut State, moment, event| {
        *state = policy.step(state, event, ms(moment)).0;
    };
    for (moment, event) in [
        (0, FOUND_NOTHING),
        (1, Event::Made),
        (2, CRASH),
        (3, Event::Made),
        (4, CRASH),
    ] {
        assert!(!state.is_flapping());
        at(&mut state, moment, event);
    }
    assert!(state.is_flapping());
    at(&mut state, 5, Event::Removed);
    at(&mut state, 104, Event::Time);
    at(&mut state, 105, Event::Made);
    assert_eq!(policy.wake_at(&state), Some(ms(10_105)));
    assert!(state.is_flapping());
    at(&mut state, 10_105, Event::Time);
    assert!(!state.is_flapping());
    assert_eq!(policy.wake_at(&state), None);
    assert_eq!(state.counts.crashes, 2);
}

#[test]
fn the_end_of_one_program_ends_its_group_unless_it_has_completed() {
    let after = |restart, events: &[(u64, Event)]| {
        let begun = [(0, FOUND_NOTHING), (1, Event::Made)];
        let events: Vec<_> = begun.iter().chain(events).copied().collect();
        let told = story(&policy(restart), &events);
        told.split_once("Made -> running []\n")
            .unwrap()
            .1
            .to_owned()
    };
    let (one, last) = (
        |exit| Event::Exited(exit, Others::Run),
        |exit| Event::Exited(exit, Others::Ended),
    );
    let (good, bad) = (Exit::Code(0), Exit::Code(1));
    let crash = [(2, one(bad)), (3, one(Exit::Signal(15))), (4, last(good))];
    let expected = "\
2: Exited(Code(1), Run) -> stopping Group 5002 [Signal]
3: Exited(Signal(15), Run) -> stopping Group 5002 []
4: Exited(Code(0), Ended) -> starting [Create]
";
    for restart in [Restart::Always, Restart::OnFailure] {
        assert_eq!(after(restart, &crash), expected);
    }
    assert!(after(Restart::Never, &crash).ends_with("removing, Rest(Failed) [Remove]\n"));
    let all_complete = [(2, one(good)), (3, last(good))];
    for restart in [Restart::OnFailure, Restart::Never] {
        let expected = "\
2: Exited(Code(0), Run) -> running []
3: Exited(Code(0), Ended) -> removing, Rest(Completed) [Remove]
";
        assert_eq!(after(restart, &all_complete), expected);
    }
    let told = after(Restart::Always, &all_complete);
    assert!(
        told.starts_with("2: Exited(Code(0), Run) -> stopping Group"),
        "{told}"
    );
    assert!(told.ends_with("starting [Create]\n"), "{told}");
    let stubborn = [(2, one(bad)), (5002, Event::Time), (5003, Event::Stop)];
    let told = after(Restart::Always, &stubborn);
    assert!(
        told.contains("6002 [Kill]\n5003: Stop -> stopping Asked"),
        "{told}"
    );
}

#[test]
fn a_new_keeper_that_finds_a_part_of_a_group_ends_it_and_starts_it_again() {
    let policy = policy(Restart::OnFailure);
    let found = |events: &[(u64, Event)]| {
        let part = (100, Event::Found(Found::Part));
        let events: Vec<_> = events.iter().copied().chain([part]).collect();
        let told = story(&policy, &events);
        let last = told.lines().last().unwrap();
        last.split_once("-> ").unwrap().1.to_owned()
    };
    let running = [(0, FOUND_NOTHING), (1, Event::Made)];
    assert_eq!(found(&[]), "stopping Group 5100 [Signal]");
    assert_eq!(found(&running), "stopping Group 5100 [Signal]");
    // Those of the last keeper were not all made: they are made anew, which is no failure.
    assert_eq!(found(&running[..1]), "starting [Create]");
    let stopping = [running[0], running[1], (2, Event::Stop)];
    assert_eq!(found(&stopping), "stopping Asked 5002 [Signal]");
}

proptest! {
    #[test]
    fn a_wait_grows_to_the_cap_and_jitter_takes_off_no_more_than_its_part(
        base in 1_u64..5_000,
        factor in 1.0..5.0,
        more in 0_u64..100_000,
        jitter in 0.0..1.0,
        mut seed: u64,
    ) {
        let cap = ms(base + more);
        let curve = Curve { base: ms(base), factor, cap, jitter };
        prop_assert_eq!(curve.delay(1, &mut seed), Duration::ZERO);
        let mut full = ms(base);
        for nth in (2..60).chain([1000, u32::MAX]) {
            let delay = curve.delay(nth, &mut seed);
            prop_assert!(delay <= cap);
            if nth < 60 {
                let slack = Duration::from_nanos(2_000);
                prop_assert!(delay <= full + slack, "{nth}: {delay:?} {full:?}");
                prop_assert!(delay + slack >= full.mul_f64(1.0 - jitter), "{nth}: {delay:?} {full:?}");
                full = full.mul_f64(factor).min(cap);
            }
        }
    }
}
