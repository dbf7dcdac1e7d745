//! Many at once, and containers that end meanwhile.

use std::process::Stdio;
use std::sync::Barrier;
use std::time::Duration;

use libtest_mimic::Trial;

use super::{cgroup_of, exec, exec_command, processes, running, sh};
use crate::caller::{init_pid, start, wait_for_exit};
use crate::support::{Bundle, Ran, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        fifty_at_once_all_run,
        a_container_that_ends_meanwhile_ends_it_with_a_clear_error,
        a_container_that_is_deleted_by_force_meanwhile_takes_it_along,
        processes_end_with_the_container,
    ]
}

fn fifty_at_once_all_run() {
    let bundle = running();
    let begin = Barrier::new(50);
    std::thread::scope(|scope| {
        for number in 0..50 {
            let (bundle, begin) = (&bundle, &begin);
            scope.spawn(move || {
                let script = format!("echo {number}; exit {number}");
                begin.wait();
                let ran = exec(bundle, &[], &["/bin/sh", "-c", &script]);
                let said = String::from_utf8_lossy(&ran.0.stdout).into_owned();
                let expected = (Some(number), format!("{number}\n"), String::new());
                assert_eq!((ran.code(), said, ran.stderr()), expected);
            });
        }
    });
    assert_eq!(processes(&cgroup_of(&bundle)), [init_pid(&bundle)]);
    assert_eq!(sh(&bundle, &[], "echo on"), "on\n");
}

/// `exec`, and this some moments later, in round `n` at another step of it.
fn at_once(bundle: &Bundle, n: u64, end: impl FnOnce() + Send) -> Ran {
    let mut command = exec_command(bundle, &[], &["/bin/true"]);
    let begin = Barrier::new(2);
    std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            begin.wait();
            // Not to wait for something: each round meets the command at another step.
            std::thread::sleep(Duration::from_micros(200 * n));
            end();
        });
        begin.wait();
        let ran = Ran(command.stdin(Stdio::null()).output().unwrap());
        other.join().unwrap();
        ran
    })
}

/// It was the container's end, or it came first or last.
fn is_a_clear_answer(ran: &Ran, round: u64) {
    let error = ran.stderr();
    if ran.code() == Some(255) {
        let words = [
            "has ended meanwhile",
            "stopped container",
            "does not exist",
            "is gone",
            "was killed",            // and init some time later, on a busy machine
            "container not running", // between its record and its directory
        ];
        assert!(
            words.iter().any(|words| error.contains(words)),
            "{round}: {error}"
        );
        assert_eq!(error.lines().count(), 1, "{round}: {error}");
    } else {
        let code = ran.code();
        assert!(
            code == Some(0) || code == Some(128 + 9),
            "{round}: {code:?} {error}"
        );
    }
}

fn a_container_that_ends_meanwhile_ends_it_with_a_clear_error() {
    let bundle = super::sleeping();
    for round in 0..40 {
        start(&bundle);
        let pid = init_pid(&bundle);
        let kill = || {
            let pid = rustix::process::Pid::from_raw(pid).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        };
        is_a_clear_answer(&at_once(&bundle, round, kill), round);
        wait_for_exit(pid);
        bundle.verb("delete").success();
    }
}

fn a_container_that_is_deleted_by_force_meanwhile_takes_it_along() {
    let bundle = super::sleeping();
    for round in 0..40 {
        start(&bundle);
        let delete = || {
            bundle
                .parhelion(&["delete", "--force", &bundle.id])
                .success();
        };
        is_a_clear_answer(&at_once(&bundle, round, delete), round);
        assert!(!cgroup_of(&bundle).exists());
    }
}

fn processes_end_with_the_container() {
    let bundle = running();
    let pids = [
        super::background(&bundle, &[]),
        super::background(&bundle, &[]),
    ];
    bundle.parhelion(&["kill", &bundle.id, "KILL"]).success();
    pids.into_iter().for_each(wait_for_exit);
    crate::caller::wait_for_end(&bundle);
    bundle.verb("delete").success();
}
