//! `kill -9` at every step of `exec` in turn: of the runtime, of the process that joins, and of the
//! container's init. The container goes on, unless it is what was killed, and all ends with it.

use std::cell::Cell;

use libtest_mimic::Trial;

use super::every_step::{at_every_step, at_every_step_of, killed};
use super::in_a_thread;
use super::subject::Subject;
use super::tracer::{Ended, Step, Whose};
use crate::support::tests;

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        exec_killed_at_every_step_leaves_the_container_as_it_was,
        exec_in_the_foreground_killed_at_every_step_leaves_the_container_as_it_was,
        exec_with_a_user_namespace_killed_at_every_step_leaves_the_container_as_it_was,
        exec_killed_at_every_step_of_its_process_leaves_the_container_as_it_was,
        exec_whose_process_is_killed_at_every_step_fails,
        exec_whose_process_is_killed_at_every_step_fails_with_a_user_namespace_too,
        exec_whose_container_is_killed_at_every_step_does_not_hang,
    ]
}

/// After so many steps at most the container is deleted and made anew; at once when a process is left.
/// That is all that can be left, as `exec` writes nothing to disk.
const TIMES: usize = 10;

/// A container that runs.
fn start(subject: &Subject) {
    subject.do_it(&["create"]);
    subject.do_it(&["start"]);
}

/// A container for the next step, if the last step has left none.
fn start_anew(subject: &Subject) {
    if subject.processes().is_empty() {
        start(subject);
    }
}

/// What was executed has ended, or runs its program; the container goes on, and takes all along.
fn the_container_goes_on(subject: &Subject, ended: &Ended, step: Step) {
    subject.settle();
    assert_eq!(subject.bundle.status(), "running", "{step:?}");
    let count = subject.processes().len();
    assert!((1..=2).contains(&count), "{step:?}: {count} processes");
    if !ended.killed || count > 1 || step.number.is_multiple_of(TIMES) {
        subject.nothing_is_left_after_delete(ended, step);
    }
}

fn kill_runtime(make: fn() -> Subject, verb: &'static [&'static str], whose: Whose) {
    in_a_thread(move || {
        let subject = make();
        let after = |ended: &Ended, step| {
            let through = ended.status.success();
            assert!(killed(ended.status) || through, "{}", subject.told());
            assert!(ended.killed || through, "{}", subject.told());
            the_container_goes_on(&subject, ended, step);
        };
        let before = || start_anew(&subject);
        at_every_step(&subject, verb, (whose, Whose::Runtime), before, after);
    });
}

fn exec_killed_at_every_step_leaves_the_container_as_it_was() {
    kill_runtime(Subject::plain, &["exec", "--detach"], Whose::Runtime);
}

fn exec_in_the_foreground_killed_at_every_step_leaves_the_container_as_it_was() {
    kill_runtime(Subject::plain, &["exec"], Whose::Runtime);
}

fn exec_with_a_user_namespace_killed_at_every_step_leaves_the_container_as_it_was() {
    kill_runtime(
        Subject::with_trimmings,
        &["exec", "--detach"],
        Whose::Runtime,
    );
}

fn exec_killed_at_every_step_of_its_process_leaves_the_container_as_it_was() {
    kill_runtime(Subject::plain, &["exec", "--detach"], Whose::Init);
}

fn kill_process(make: fn() -> Subject) {
    in_a_thread(move || {
        let subject = make();
        let after = |ended: &Ended, step| {
            let said = subject.told();
            assert!(!killed(ended.status), "{step:?}: exec hung: {said}");
            if ended.killed && !ended.status.success() {
                assert_eq!(ended.status.code(), Some(255), "{step:?}: {said}");
                assert!(
                    said.contains("was killed") || said.contains("signal 9"),
                    "{said}"
                );
            }
            the_container_goes_on(&subject, ended, step);
        };
        let before = || start_anew(&subject);
        let whom = (Whose::Init, Whose::Init);
        at_every_step(&subject, &["exec", "--detach"], whom, before, after);
    });
}

fn exec_whose_process_is_killed_at_every_step_fails() {
    kill_process(Subject::plain);
}

fn exec_whose_process_is_killed_at_every_step_fails_with_a_user_namespace_too() {
    kill_process(Subject::with_trimmings);
}

fn exec_whose_container_is_killed_at_every_step_does_not_hang() {
    for whose in [Whose::Runtime, Whose::Init] {
        in_a_thread(move || {
            let subject = Subject::plain();
            let init = Cell::new(0);
            let before = || {
                start(&subject);
                init.set(subject.bundle.pid());
            };
            let after = |ended: &Ended, step| {
                let said = subject.told();
                assert!(!killed(ended.status), "{step:?}: exec hung: {said}");
                assert_eq!(
                    said.lines().count(),
                    usize::from(!ended.status.success()),
                    "{said}"
                );
                if !ended.status.success() {
                    let words = ["has ended meanwhile", "in a stopped container"];
                    assert!(
                        words.iter().any(|words| said.contains(words)),
                        "{step:?}: {said}"
                    );
                }
                subject.settle();
                subject.nothing_is_left_after_delete(ended, step);
            };
            let victim = &|| Whose::Other(init.get());
            at_every_step_of(
                &subject,
                &["exec", "--detach"],
                (whose, victim),
                before,
                after,
            );
        });
    }
}
