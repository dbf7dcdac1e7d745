//! `kill -9` at every step in turn: of the runtime, and of init before the program.
//!
//! A step is a system call; before each one in turn the runtime, or init, is killed. What is left
//! must end by itself or be a container like any other, and `delete --force` must remove all of it.

use std::collections::BTreeSet;
use std::fs;
use std::process::ExitStatus;
use std::time::Duration;

use libtest_mimic::Trial;

use super::in_a_thread;
use super::subject::Subject;
use super::tracer::{self, Ended, Step, Whose};
use crate::support::tests;

/// How often, and how long apart, it is looked whether what is left has ended.
const TRIES: usize = 6000;
const PAUSE: Duration = Duration::from_millis(5);

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        create_killed_at_every_step_leaves_nothing,
        create_of_a_bundle_with_all_the_trimmings_killed_at_every_step_leaves_nothing,
        create_in_joined_namespaces_killed_at_every_step_leaves_nothing,
        create_of_a_user_killed_at_every_step_leaves_nothing,
        create_of_a_user_killed_at_every_step_of_init_leaves_nothing,
        create_killed_at_every_step_of_init_leaves_nothing,
        create_with_trimmings_killed_at_every_step_of_init_leaves_nothing,
        create_in_joined_namespaces_killed_at_every_step_of_init_leaves_nothing,
        create_whose_init_is_killed_at_every_step_fails_and_leaves_nothing,
        create_in_joined_namespaces_whose_init_is_killed_at_every_step_leaves_nothing,
        create_with_trimmings_whose_init_is_killed_at_every_step_leaves_nothing,
        run_killed_at_every_step_leaves_nothing,
        run_in_the_foreground_killed_at_every_step_leaves_nothing,
        pause_killed_at_every_step_leaves_nothing,
        resume_killed_at_every_step_leaves_nothing,
        start_killed_at_every_step_leaves_nothing,
        kill_killed_at_every_step_leaves_nothing,
        delete_killed_at_every_step_leaves_nothing,
    ]
}

/// Which steps are taken: all of them; in the virtual host, where a step takes ten times as long,
/// some, others with each boot, and that is said.
fn steps(test: &str) -> impl Iterator<Item = usize> {
    let emulated = std::env::var_os("PARHELION_TEST_ALL").is_some();
    let stride: usize = if emulated { 16 } else { 1 };
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let offset = usize::from_str_radix(&boot[..2], 16).unwrap() % stride;
    if stride > 1 {
        println!("{test}: only steps {offset}, {}, ... here", offset + stride);
    }
    (offset..).step_by(stride)
}

/// Runs `verb` again and again, killed one step later each time, until it gets through. `before`
/// makes what it needs; `after` looks at what is left.
pub(super) fn at_every_step(
    subject: &Subject,
    verb: &[&str],
    (whose, victim): (Whose, Whose),
    before: impl Fn(),
    after: impl Fn(&Ended, Step),
) {
    at_every_step_of(subject, verb, (whose, &|| victim), before, after);
}

/// As [`at_every_step`], with a victim that is known when `before` has been called.
pub(super) fn at_every_step_of(
    subject: &Subject,
    verb: &[&str],
    (whose, victim): (Whose, &dyn Fn() -> Whose),
    before: impl Fn(),
    after: impl Fn(&Ended, Step),
) {
    // Mounts are looked at in a mount namespace that no other test changes.
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
    let mounts = mounts();
    for (taken, number) in steps(verb[0]).enumerate() {
        before();
        let step = Step {
            whose,
            number,
            victim: victim(),
        };
        let ended = tracer::run(&subject.command(verb), &subject.output(), step);
        after(&ended, step);
        assert_eq!(self::mounts(), mounts, "mounts after {step:?}");
        if !ended.killed {
            assert!(taken > 0, "it was never killed");
            return;
        }
    }
}

fn mounts() -> BTreeSet<String> {
    let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    table.lines().map(str::to_owned).collect()
}

pub(super) fn killed(status: ExitStatus) -> bool {
    std::os::unix::process::ExitStatusExt::signal(&status) == Some(9)
}

/// The runtime is killed at each step of `whose`.
fn kill_create(make: fn() -> Subject, whose: Whose) {
    in_a_thread(move || {
        let subject = make();
        let after = |ended: &Ended, step| {
            // At init's last steps the runtime may have ended well at the same moment.
            let through = ended.status.success();
            assert!(killed(ended.status) || through, "{}", subject.told());
            assert!(ended.killed || ended.status.success(), "{}", subject.told());
            subject.settle();
            // Init may have been cloned by a seed that nobody traced any more, and not be gone yet.
            let mut tries = 0;
            while !subject.processes().is_empty() && subject.bundle.status() != "created" {
                // It was killed when all was said; that it can be started is all that is left.
                assert!(tries < TRIES, "{step:?}");
                tries += 1;
                std::thread::sleep(PAUSE);
            }
            subject.nothing_is_left_after_delete(ended, step);
        };
        at_every_step(&subject, &["create"], (whose, Whose::Runtime), || (), after);
    });
}

fn create_killed_at_every_step_leaves_nothing() {
    kill_create(Subject::plain, Whose::Runtime);
}

fn create_of_a_bundle_with_all_the_trimmings_killed_at_every_step_leaves_nothing() {
    kill_create(Subject::with_trimmings, Whose::Runtime);
}

fn create_in_joined_namespaces_killed_at_every_step_leaves_nothing() {
    kill_create(Subject::in_joined_namespaces, Whose::Runtime);
}

fn create_of_a_user_killed_at_every_step_leaves_nothing() {
    kill_create(Subject::of_a_user, Whose::Runtime);
}

fn create_of_a_user_killed_at_every_step_of_init_leaves_nothing() {
    kill_create(Subject::of_a_user, Whose::Init);
}

fn create_killed_at_every_step_of_init_leaves_nothing() {
    kill_create(Subject::plain, Whose::Init);
}

fn create_with_trimmings_killed_at_every_step_of_init_leaves_nothing() {
    kill_create(Subject::with_trimmings, Whose::Init);
}

fn create_in_joined_namespaces_killed_at_every_step_of_init_leaves_nothing() {
    kill_create(Subject::in_joined_namespaces, Whose::Init);
}

/// The runtime sees that init is gone, and removes everything itself.
fn kill_init(make: fn() -> Subject) {
    in_a_thread(move || {
        let subject = make();
        let after = |ended: &Ended, step| {
            assert!(
                !killed(ended.status),
                "{step:?}: create hung: {}",
                subject.told()
            );
            if ended.status.success() {
                // Init was killed at its last steps, when create was done with it.
                subject.settle();
                return subject.nothing_is_left_after_delete(ended, step);
            }
            assert!(ended.killed, "{}", subject.told());
            // Init itself, the process that clones it, or a hook inside.
            let said = subject.told();
            let words = [
                "was killed",
                "killed by signal 9",
                "init has ended meanwhile",
            ];
            assert!(words.iter().any(|words| said.contains(words)), "{said}");
            subject.nothing_is_left(ended, step);
        };
        let whom = (Whose::Init, Whose::Init);
        at_every_step(&subject, &["create"], whom, || (), after);
    });
}

fn create_whose_init_is_killed_at_every_step_fails_and_leaves_nothing() {
    kill_init(Subject::plain);
}

fn create_with_trimmings_whose_init_is_killed_at_every_step_leaves_nothing() {
    kill_init(Subject::with_trimmings);
}

fn run_killed_at_every_step_leaves_nothing() {
    kill_run(&["run", "--detach"], "sleep 1000");
}

fn run_in_the_foreground_killed_at_every_step_leaves_nothing() {
    kill_run(&["run"], "true");
}

fn kill_run(verb: &'static [&'static str], script: &'static str) {
    in_a_thread(move || {
        let subject = Subject::running(script);
        let after = |ended: &Ended, step| {
            subject.settle();
            subject.nothing_is_left_after_delete(ended, step);
        };
        let whom = (Whose::Runtime, Whose::Runtime);
        at_every_step(&subject, verb, whom, || (), after);
    });
}

fn create_in_joined_namespaces_whose_init_is_killed_at_every_step_leaves_nothing() {
    kill_init(Subject::in_joined_namespaces);
}

/// `verb` on a container that `before` has made.
fn kill_verb(verb: &'static [&'static str], before: &'static [&'static str]) {
    in_a_thread(move || {
        let subject = Subject::plain();
        let make = || before.iter().for_each(|verb| subject.do_it(&[verb]));
        let after = |ended: &Ended, step| {
            assert_eq!(ended.killed, killed(ended.status), "{}", subject.told());
            assert!(ended.killed || ended.status.success(), "{}", subject.told());
            subject.settle();
            subject.nothing_is_left_after_delete(ended, step);
        };
        let whom = (Whose::Runtime, Whose::Runtime);
        at_every_step(&subject, verb, whom, make, after);
    });
}

fn start_killed_at_every_step_leaves_nothing() {
    kill_verb(&["start"], &["create"]);
}

fn pause_killed_at_every_step_leaves_nothing() {
    kill_verb(&["pause"], &["create", "start"]);
}

fn resume_killed_at_every_step_leaves_nothing() {
    kill_verb(&["resume"], &["create", "start", "pause"]);
}

fn kill_killed_at_every_step_leaves_nothing() {
    kill_verb(&["kill"], &["create", "start"]);
}

fn delete_killed_at_every_step_leaves_nothing() {
    kill_verb(&["delete", "--force"], &["create", "start"]);
}
