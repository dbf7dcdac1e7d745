//! Single steps, and sequences that nobody wrote.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::api::Phase;
use crate::job::JobId;

pub fn job(number: u32) -> JobId {
    format!("web{number}:1:{:064x}", number).parse().unwrap()
}

pub fn name(number: u32) -> Name {
    format!("web.1.{number}").into()
}

pub fn want(revision: u64, goals: &[(u32, Goal)]) -> Want {
    let slots = goals.iter().map(|(number, goal)| WantedSlot {
        name: name(*number),
        job: job(0),
        index: *number,
        goal: *goal,
    });
    Want {
        revision,
        anyway: false,
        slots: slots.collect(),
    }
}

pub fn report(wanted: bool, is_at_rest: bool) -> Report {
    Report {
        wanted,
        is_at_rest,
        halted: false,
        phase: if is_at_rest {
            Phase::Stopped
        } else {
            Phase::Running
        },
        flapping: false,
        restarts: 0,
        next_attempt: None,
        since: None,
        tasks: BTreeMap::new(),
        fault: None,
    }
}

const T: Moment = Duration::from_secs(1000);

fn begun(found: &[(u32, bool)], want: Option<Want>) -> (State, Vec<Action>) {
    let mut state = State::new(1);
    let found = found.iter().map(|(number, kept)| FoundSlot {
        name: name(*number),
        job: job(0),
        index: *number,
        ports: BTreeMap::new(),
        address: None,
        kept: *kept,
    });
    let found: Vec<_> = found.collect();
    let kept: Vec<Name> = (found.iter().filter(|one| one.kept))
        .map(|one| one.name.clone())
        .collect();
    let mut actions = state.step(Event::Begun { found, want }, T);
    for name in kept {
        let begun = |action: &Action| matches!(action, Action::Keep(other, _) if *other == name);
        let index = actions.iter().position(begun).unwrap();
        actions.remove(index);
        actions.extend(state.step(Event::Kept(name), T));
    }
    (state, actions)
}

fn told(state: &mut State, number: u32, wanted: bool, is_at_rest: bool) -> Vec<Action> {
    let report = Arc::new(report(wanted, is_at_rest));
    state.step(Event::Told(name(number), report), T)
}

#[test]
fn an_instance_is_made_and_kept_and_removed_through_its_keeper() {
    let (mut state, actions) = begun(&[], Some(want(1, &[(0, Goal::Start)])));
    assert_eq!(actions, [Action::Make(name(0))]);
    let actions = state.step(Event::Made(name(0), BTreeMap::new(), None), T);
    assert_eq!(actions, [Action::Keep(name(0), Begin::Going)]);
    assert!(state.step(Event::Kept(name(0)), T).is_empty());
    assert!(told(&mut state, 0, true, false).is_empty());
    let stop = state.step(Event::Want(want(2, &[])), T);
    assert_eq!(stop, [Action::Ask(name(0), Request::Stop)]);
    assert!(told(&mut state, 0, false, false).is_empty());
    assert_eq!(told(&mut state, 0, false, true), [Action::Delete(name(0))]);
    assert!(state.step(Event::Lost(name(0)), T).is_empty());
    assert!(state.step(Event::Deleted(name(0)), T).is_empty());
    assert!(state.slots.is_empty() && state.wake_at().is_none());
}

#[test]
fn what_is_not_known_ends_nothing() {
    let (mut state, actions) = begun(&[(0, true), (1, false)], None);
    assert_eq!(actions, [Action::Keep(name(1), Begin::Going)]);
    assert!(told(&mut state, 0, true, false).is_empty());
    assert!(told(&mut state, 0, false, true).is_empty());
    let actions = state.step(Event::Want(want(7, &[(1, Goal::Start)])), T);
    assert_eq!(actions, [Action::Delete(name(0))]);
}

#[test]
fn an_older_revision_changes_nothing() {
    let (mut state, _) = begun(&[], Some(want(5, &[(0, Goal::Start)])));
    let before = state.slots.clone();
    assert!(state.step(Event::Want(want(4, &[])), T).is_empty());
    assert_eq!((state.revision, &state.slots), (Some(5), &before));
    // But if somebody says so.
    let meant = Want {
        anyway: true,
        ..want(4, &[(1, Goal::Start)])
    };
    assert_eq!(state.step(Event::Want(meant), T), [Action::Make(name(1))]);
    assert_eq!(state.revision, Some(4));
}

#[test]
fn an_unwanted_instance_without_a_keeper_gets_one_that_starts_nothing() {
    let (mut state, actions) = begun(&[(0, false)], Some(want(5, &[])));
    assert_eq!(actions, [Action::Keep(name(0), Begin::AtRest)]);
    let broken = Event::NotKept(name(0), "no keeper.json".into());
    assert_eq!(state.step(broken, T), [Action::Delete(name(0))]);
}

#[test]
fn while_the_host_goes_down_everything_is_told_to_end_and_nothing_is_started() {
    let wanted = want(5, &[(0, Goal::Start), (1, Goal::Start), (2, Goal::Start)]);
    let (mut state, _) = begun(&[(0, true), (1, true)], Some(wanted.clone()));
    told(&mut state, 0, true, false);
    told(&mut state, 1, true, true);
    state.step(Event::Made(name(2), BTreeMap::new(), None), T);
    assert_eq!(state.left(), None);
    let halt = |seconds: u64| Request::Halt {
        within_ms: seconds * 1000,
    };
    let actions = state.step(Event::Halt(Duration::from_secs(90)), T);
    assert_eq!(actions, [Action::Ask(name(0), halt(90))]);
    assert_eq!(state.left(), Some(2));
    // One that is just being kept is told as soon as it can be.
    state.step(Event::Kept(name(2)), T);
    let ask = told(&mut state, 2, true, false);
    assert_eq!(ask, [Action::Ask(name(2), halt(90))]);
    // A keeper that is lost meanwhile is not missed, and nor is the program.
    let keep = state.step(Event::Lost(name(0)), T);
    assert_eq!(keep, [Action::Keep(name(0), Begin::Halting)]);
    let broken = Event::NotKept(name(0), "no memory".into());
    assert_eq!(state.step(broken.clone(), T), keep);
    assert!(state.step(broken, T).is_empty());
    let wake = state.wake_at().unwrap();
    assert!(wake > T);
    let ill = Event::Checked(name(2), Health::Unhealthy, "slow".into());
    assert!(state.step(ill, T).is_empty());
    // Neither what is new nor what is not wanted any more is anything to do.
    let other = want(6, &[(0, Goal::Start), (3, Goal::Start)]);
    assert!(state.step(Event::Want(other), T).is_empty());
    let keep = state.step(Event::Time, wake);
    assert_eq!(keep, [Action::Keep(name(0), Begin::Halting)]);
    state.step(Event::Kept(name(0)), wake);
    told(&mut state, 0, true, true);
    assert_eq!(state.left(), Some(1));
    // Who has not done it is asked once more, with the time that is left.
    let again = state.step(Event::Time, T + ASK_AGAIN);
    assert_eq!(again, [Action::Ask(name(2), halt(85))]);
    told(&mut state, 2, true, true);
    assert_eq!((state.left(), state.wake_at()), (Some(0), None));
    // An agent that begins meanwhile starts nothing either.
    let mut state = State::new(1);
    state.step(Event::Halt(Duration::from_secs(90)), T);
    let found = vec![FoundSlot {
        name: name(0),
        job: job(0),
        index: 0,
        ports: BTreeMap::new(),
        address: None,
        kept: false,
    }];
    let want = Some(wanted);
    let actions = state.step(Event::Begun { found, want }, T);
    assert_eq!(actions, [Action::Keep(name(0), Begin::Halting)]);
    assert_eq!(state.left(), Some(1));
}

#[test]
fn a_host_that_did_not_go_down_after_all_has_its_instances_back() {
    let (mut state, _) = begun(&[(0, true)], Some(want(5, &[(0, Goal::Start)])));
    let halted = Report {
        halted: true,
        ..report(true, true)
    };
    let actions = state.step(Event::Told(name(0), Arc::new(halted)), T);
    assert_eq!(actions, [Action::Ask(name(0), Request::Start)]);
}

#[test]
fn files_are_written_anew_when_an_instance_is_found_without_a_keeper() {
    let (_, actions) = begun(&[(0, false)], Some(want(5, &[(0, Goal::Start)])));
    assert_eq!(actions, [Action::Make(name(0))]);
}

#[test]
fn a_lost_keeper_is_replaced_at_once_and_the_next_ones_later() {
    let (mut state, _) = begun(&[(0, true)], Some(want(5, &[(0, Goal::Start)])));
    let keep = [Action::Keep(name(0), Begin::Going)];
    assert_eq!(state.step(Event::Lost(name(0)), T), keep);
    assert!(state.step(Event::Kept(name(0)), T).is_empty());
    assert!(state.step(Event::Lost(name(0)), T).is_empty());
    let wake = state.wake_at().unwrap();
    assert!(wake > T && wake <= T + AGAIN.base);
    assert_eq!(state.step(Event::Time, wake), keep);
    assert!(state.step(Event::Kept(name(0)), wake).is_empty());
    assert_eq!(state.step(Event::Lost(name(0)), wake + GOOD_KEEPER), keep);
}

#[test]
fn what_a_keeper_was_asked_and_has_not_done_is_asked_again() {
    let (mut state, _) = begun(&[(0, true)], Some(want(5, &[(0, Goal::Stop)])));
    let stop = [Action::Ask(name(0), Request::Stop)];
    assert_eq!(told(&mut state, 0, true, false), stop);
    assert!(told(&mut state, 0, true, false).is_empty());
    assert_eq!(state.wake_at(), Some(T + ASK_AGAIN));
    assert_eq!(state.step(Event::Time, T + ASK_AGAIN), stop);
    assert!(told(&mut state, 0, false, true).is_empty());
    assert_eq!(state.wake_at(), None);
    let start = state.step(Event::Want(want(6, &[(0, Goal::Start)])), T);
    assert_eq!(start, [Action::Ask(name(0), Request::Start)]);
}

#[test]
fn what_could_not_be_made_is_tried_again_when_another_one_is_gone() {
    let (mut state, _) = begun(&[(0, true)], Some(want(5, &[(1, Goal::Start)])));
    let conflict = || Event::NotMade(name(1), "PORT_CONFLICT".into());
    assert_eq!(state.step(conflict(), T), [Action::Make(name(1))]);
    assert!(state.step(conflict(), T).is_empty());
    let view = state.slots[&name(1)].view("web.1.1", "host");
    assert_eq!(view.phase, Phase::Broken);
    assert_eq!(view.fault.as_deref(), Some("PORT_CONFLICT"));
    assert_eq!(told(&mut state, 0, false, true), [Action::Delete(name(0))]);
    let actions = state.step(Event::Deleted(name(0)), T);
    assert_eq!(actions, [Action::Make(name(1))]);
}

#[test]
fn an_instance_that_is_wanted_again_while_it_is_removed_is_made_anew() {
    let (mut state, _) = begun(&[(0, true)], Some(want(5, &[])));
    assert_eq!(told(&mut state, 0, false, true), [Action::Delete(name(0))]);
    let again = state.step(Event::Want(want(6, &[(0, Goal::Start)])), T);
    assert!(again.is_empty());
    let actions = state.step(Event::Deleted(name(0)), T);
    assert_eq!(actions, [Action::Make(name(0))]);
}

#[test]
fn an_unhealthy_instance_is_its_keepers_to_restart() {
    let (mut state, _) = begun(&[(0, true)], Some(want(5, &[(0, Goal::Start)])));
    let reason = "3 checks failed".to_owned();
    let event = Event::Checked(name(0), Health::Unhealthy, reason.clone());
    let ask = Action::Ask(name(0), Request::Unhealthy { reason });
    assert_eq!(state.step(event, T), [ask]);
    assert_eq!(state.slots[&name(0)].health, Health::Unhealthy);
}

fn any_event() -> impl Strategy<Value = Event> {
    let one = (0_u32..4).prop_map(name);
    let goals = proptest::collection::btree_map(0_u32..4, any::<bool>(), 0..4);
    let wanted = (0_u64..6, goals).prop_map(|(revision, goals)| {
        let goal = |starts| if starts { Goal::Start } else { Goal::Stop };
        let goals: Vec<_> = goals
            .into_iter()
            .map(|(n, starts)| (n, goal(starts)))
            .collect();
        Event::Want(want(revision, &goals))
    });
    prop_oneof![
        wanted,
        one.clone()
            .prop_map(|name| Event::Made(name, BTreeMap::new(), None)),
        one.clone()
            .prop_map(|name| Event::NotMade(name, "why".into())),
        one.clone().prop_map(Event::Kept),
        one.clone()
            .prop_map(|name| Event::NotKept(name, "why".into())),
        (one.clone(), any::<bool>(), any::<bool>())
            .prop_map(|(name, a, b)| Event::Told(name, report(a, b).into())),
        one.clone().prop_map(Event::Lost),
        one.clone().prop_map(Event::Deleted),
        one.prop_map(|name| Event::NotDeleted(name, "why".into())),
        Just(Event::Time),
    ]
}

proptest! {
    /// Also events that no driver sends are followed, and no moment is waited for twice.
    #[test]
    fn any_events_leave_timers_that_fit(events in proptest::collection::vec((any_event(), 0_u64..3000), 0..60)) {
        let (mut state, _) = begun(&[(0, true), (1, false)], None);
        let mut now = T;
        for (event, later) in events {
            now += Duration::from_millis(later);
            state.step(event, now);
            let timers: Vec<_> = state.slots.iter()
                .filter_map(|(name, slot)| Some((slot.timer?, name.clone())))
                .collect();
            prop_assert_eq!(state.timers.len(), timers.len());
            prop_assert!(timers.iter().all(|timer| state.timers.contains(timer)));
        }
    }
}
