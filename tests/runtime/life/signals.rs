//! `kill`, `pause` and `resume`.

use std::io::Write;
use std::process::Stdio;

use libtest_mimic::Trial;

use super::{is_gone, share_pids};
use crate::caller::{
    Running, command, init_pid, output, run, start, state, wait_for_end, wait_for_exit,
};
use crate::support::{Bundle, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        a_signal_reaches_the_first_process_by_any_of_its_names,
        a_signal_for_all_reaches_every_process,
        a_killed_container_without_a_pid_namespace_leaves_nobody,
        a_container_that_waits_for_its_start_ends_when_asked_to,
        a_signal_for_a_stopped_container_is_refused_in_runcs_words,
        pause_freezes_and_resume_thaws,
        a_paused_container_can_be_killed_and_deleted,
    ]
}

fn a_signal_reaches_the_first_process_by_any_of_its_names() {
    let names = [
        ("TERM", "15"),
        ("SIGTERM", "15"),
        ("term", "15"),
        ("sigusr1", "10"),
        ("10", "10"),
        ("WINCH", "28"),
        ("RTMIN+3", "37"),
        ("SIGRTMAX", "64"),
        ("44", "44"),
    ];
    let traps: String = ["15", "10", "28", "37", "64", "44"]
        .iter()
        .map(|number| format!("trap 'echo {number}' {number}; "))
        .collect();
    let script = format!("{traps} echo ready; while :; do sleep 1000 & wait; done");
    let bundle = Bundle::new(&script);
    let mut running = Running::spawn(&mut run(&bundle), Stdio::null());
    assert_eq!(running.line(), "ready");
    for (name, number) in names {
        bundle.parhelion(&["kill", &bundle.id, name]).success();
        assert_eq!(running.line(), number, "{name}");
    }
    bundle.verb("kill").success(); // TERM
    assert_eq!(running.line(), "15");
    bundle.parhelion(&["kill", &bundle.id, "0"]).success();
    for name in ["NOSUCH", "65", "-1", "SIG", "RTMAX+1"] {
        let error = bundle
            .parhelion(&["kill", "--", &bundle.id, name])
            .failure();
        assert!(error.contains("unknown signal"), "{name}: {error}");
    }
    bundle.parhelion(&["kill", &bundle.id, "9"]).success();
    running.ends_with(128 + 9);
}

fn a_signal_for_all_reaches_every_process() {
    let child = "trap \"echo child $1\" USR1 35; echo ready; while :; do sleep 1000 & wait; done";
    let script = format!("trap 'echo parent' USR1 35; sh -c '{child}' & while :; do wait; done");
    let bundle = Bundle::new(&script.replace(" $1", ""));
    let mut running = Running::spawn(&mut run(&bundle), Stdio::null());
    assert_eq!(running.line(), "ready");
    for (flag, signal) in [("--all", "USR1"), ("-a", "RTMIN+1")] {
        bundle
            .parhelion(&["kill", flag, &bundle.id, signal])
            .success();
        let mut said = [running.line(), running.line()];
        said.sort_unstable();
        assert_eq!(said, ["child", "parent"], "{signal}");
    }
    bundle
        .parhelion(&["kill", "--all", &bundle.id, "0"])
        .success();
    bundle
        .parhelion(&["kill", "--all", &bundle.id, "KILL"])
        .success();
    running.ends_with(128 + 9);
}

fn a_killed_container_without_a_pid_namespace_leaves_nobody() {
    let bundle = Bundle::new("sleep 1000 & echo $!; wait");
    share_pids(&bundle);
    let flags = ["run", "--keep", "--bundle", bundle.path(), &bundle.id];
    let mut running = Running::spawn(&mut command(&bundle, &flags), Stdio::null());
    let other: i32 = running.line().parse().unwrap();
    bundle.parhelion(&["kill", &bundle.id, "KILL"]).success();
    wait_for_exit(other);
    running.ends_with(128 + 9);
    // That there is nobody left is no error for all, and one for the first process.
    bundle
        .parhelion(&["kill", "--all", &bundle.id, "KILL"])
        .success();
    bundle
        .parhelion(&["kill", "--all", &bundle.id, "TERM"])
        .success();
    bundle.parhelion(&["kill", &bundle.id, "TERM"]).failure();
}

fn a_container_that_waits_for_its_start_ends_when_asked_to() {
    for signal in ["TERM", "QUIT", "KILL"] {
        let bundle = Bundle::new("echo started");
        bundle.create().success();
        bundle.parhelion(&["kill", &bundle.id, signal]).success();
        wait_for_end(&bundle);
        assert_eq!(bundle.status(), "stopped", "{signal}");
        let error = bundle.verb("start").failure();
        assert!(error.contains("that has stopped"), "{error}");
        bundle.verb("delete").success();
        assert_eq!(output(&bundle), "");
    }
}

fn a_signal_for_a_stopped_container_is_refused_in_runcs_words() {
    let bundle = Bundle::new("exit 0");
    start(&bundle);
    wait_for_end(&bundle);
    for signal in ["TERM", "KILL", "0"] {
        let error = bundle.parhelion(&["kill", &bundle.id, signal]).failure();
        assert!(error.contains("container not running"), "{error}");
    }
}

fn pause_freezes_and_resume_thaws() {
    let bundle = Bundle::new("echo ready; read line; echo \"got $line\"; read line");
    let mut running = Running::spawn(&mut run(&bundle), Stdio::piped());
    let mut stdin = running.stdin();
    assert_eq!(running.line(), "ready");
    let pid = init_pid(&bundle);
    bundle.verb("pause").success();
    assert_eq!(bundle.status(), "paused");
    assert_eq!(state(&bundle)["pid"], pid);
    stdin.write_all(b"word\n").unwrap();
    assert!(!running.has_line(), "a frozen program answered");
    bundle.verb("resume").success();
    assert_eq!(running.line(), "got word");
    assert_eq!(bundle.status(), "running");
    drop(stdin);
    running.end();
}

fn a_paused_container_can_be_killed_and_deleted() {
    let bundle = Bundle::new("sleep 1000");
    for end in [&["kill", "KILL"][..], &["delete", "--force"]] {
        start(&bundle);
        bundle.verb("pause").success();
        let pid = init_pid(&bundle);
        match end {
            ["kill", signal] => bundle.parhelion(&["kill", &bundle.id, signal]).success(),
            _ => bundle
                .parhelion(&["delete", "--force", &bundle.id])
                .success(),
        };
        wait_for_exit(pid);
        bundle
            .parhelion(&["delete", "--force", &bundle.id])
            .success();
        assert!(is_gone(&bundle));
    }
}
