//! An instance is stopped, and nothing of it is left.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use libtest_mimic::Trial;
use rustix::process::Signal;
use serde_json::json;

use super::{Instance, attempt, attempts, pid, rests, runs};
use crate::caller::{Running, command, wait_for_exit};
use crate::support::tests;

pub fn all() -> Vec<Trial> {
    tests![
        a_stop_is_a_term_and_a_start_is_a_new_program,
        another_signal_can_stop_it,
        every_process_is_killed_when_term_is_ignored,
        a_stop_while_it_waits_or_is_made_leaves_nothing,
        a_restart_while_it_is_made_is_done_when_that_one_runs,
        a_stopped_instance_stays_stopped_under_a_new_keeper,
        a_keeper_that_is_told_to_end_leaves_the_container,
        a_keeper_that_begins_with_a_stop_starts_nothing_and_ends_what_runs,
        a_keeper_that_begins_as_the_host_goes_down_starts_nothing_and_the_next_one_does,
    ]
}

const HEEDS: &str = "trap 'echo got it; exit 7' TERM; echo ready; while :; do sleep 0.05; done";

fn a_stop_is_a_term_and_a_start_is_a_new_program() {
    let instance = Instance::running(HEEDS, json!({}));
    let before = instance.pid();
    instance.until_line("ready");
    instance.ask(&["stop"]);
    let status = instance.status();
    assert_eq!(rests(&status), "stopped");
    assert_eq!(attempt(&status, 1)["exit"], json!({ "code": 7 }));
    assert_eq!(attempt(&status, 1)["told"], "asked");
    assert_eq!(instance.texts(), ["ready", "got it"]);
    instance.container_is_gone();
    instance.ask(&["start"]);
    let status = instance.status();
    assert!(runs(&status) && pid(&status) != before);
    assert_eq!(status["state"]["counts"]["crashes"], 0);
}

fn a_keeper_that_begins_with_a_stop_starts_nothing_and_ends_what_runs() {
    let mut instance = Instance::new(HEEDS, json!({}));
    instance.keep_by(&["keep", "--stop"]);
    let status = instance.until(|status| rests(status) == "stopped");
    assert_eq!(attempts(&status), 0);
    instance.ask(&["start"]);
    instance.until_line("ready");
    // Its program runs without a keeper, and gets its signal from the next one.
    instance.lose_keeper();
    instance.keep_by(&["keep", "--stop"]);
    let status = instance.until(|status| rests(status) == "stopped");
    assert_eq!(attempts(&status), 1);
    assert_eq!(instance.texts(), ["ready", "got it"]);
    instance.container_is_gone();
    // What is left by a keeper and a program that were killed is removed, and nothing is started.
    instance.ask(&["start"]);
    let program = instance.pid();
    instance.lose_keeper();
    super::kill(program);
    instance.keep_by(&["keep", "--stop"]);
    let status = instance.until(|status| rests(status) == "stopped");
    assert_eq!(attempts(&status), 2);
    instance.container_is_gone();
}

fn a_keeper_that_begins_as_the_host_goes_down_starts_nothing_and_the_next_one_does() {
    let mut instance = Instance::running(HEEDS, json!({}));
    instance.until_line("ready");
    // Its program runs without a keeper, and gets its signal from the next one.
    instance.lose_keeper();
    instance.keep_by(&["keep", "--halt"]);
    let status = instance.until(|status| rests(status) == "halted");
    assert_eq!(instance.texts(), ["ready", "got it"]);
    assert_eq!(attempt(&status, 1)["told"], "host");
    assert_eq!(status["state"]["wanted"], true);
    instance.container_is_gone();
    instance.lose_keeper();
    instance.keep_by(&["keep", "--halt"]);
    instance.until(|status| rests(status) == "halted");
    instance.lose_keeper();
    // As after the next boot.
    instance.keep_by(&["keep"]);
    let status = instance.until(runs);
    assert_eq!(
        (attempts(&status), status["flapping"].clone()),
        (2, json!(false))
    );
}

fn another_signal_can_stop_it() {
    let script = "trap 'exit 5' USR1; trap '' TERM; echo ready; while :; do sleep 0.05; done";
    let instance = Instance::running(script, json!({ "stop": { "signal": "SIGUSR1" } }));
    instance.until_line("ready");
    instance.ask(&["stop"]);
    assert_eq!(attempt(&instance.status(), 1)["exit"], json!({ "code": 5 }));
}

fn every_process_is_killed_when_term_is_ignored() {
    // In the host's pid namespace the end of the first process is not the end of the others.
    let script = "trap '' TERM; sleep 1000 & echo child $!; while :; do sleep 1000; done";
    let mut instance = Instance::new(script, json!({ "stop": { "grace": "200ms" } }));
    instance.bundle.edit(|config| {
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != "pid");
    });
    instance.keep();
    let status = instance.until(runs);
    let cgroup = status["container"]["cgroup"].as_str().unwrap().to_owned();
    instance.until_texts(|texts| !texts.is_empty());
    let child: i32 = instance.texts()[0]
        .strip_prefix("child ")
        .unwrap()
        .parse()
        .unwrap();
    assert!(Path::new(&format!("/proc/{child}")).exists());
    instance.ask(&["stop"]);
    let status = instance.status();
    assert_eq!(attempt(&status, 1)["exit"], json!({ "signal": 9 }));
    wait_for_exit(child);
    assert!(!Path::new(&cgroup).exists());
}

fn a_stop_while_it_waits_or_is_made_leaves_nothing() {
    let restart = json!({ "restart": { "crash": { "base": "1h", "cap": "1h" } } });
    let mut instance = Instance::new("exit 1", restart);
    instance.keep();
    instance.until_phase("waiting");
    instance.ask(&["stop"]);
    assert_eq!(attempts(&instance.status()), 2);

    let mut instance = Instance::new("exec sleep 1000", json!({ "stop": { "grace": "100ms" } }));
    let mut held = instance.held_while_made();
    instance.keep();
    held.until_begun();
    instance.ask(&["stop"]);
    assert_eq!(rests(&instance.status()), "stopped");
    instance.container_is_gone();
    let left = fs::read_dir(instance.bundle.folder.join("state")).unwrap();
    assert_eq!(left.count(), 0);
}

fn a_restart_while_it_is_made_is_done_when_that_one_runs() {
    let mut instance = Instance::new("exec sleep 1000", json!({ "stop": { "grace": "1h" } }));
    let mut held = instance.held_while_made();
    instance.keep();
    held.until_begun();
    // Tells by a change of the status that the restart was heard.
    let arguments = ["keeper", "stop", &instance.path()];
    let _stopping = Running::spawn(&mut command(&instance.bundle, &arguments), Stdio::null());
    instance.until(|status| status["state"]["wanted"] == false);
    let arguments = ["keeper", "restart", &instance.path()];
    let mut restarting = Running::spawn(&mut command(&instance.bundle, &arguments), Stdio::null());
    instance.until(|status| status["state"]["wanted"] == true);
    held.go_on();
    restarting.ends_with(0);
    let status = instance.status();
    assert!(runs(&status) && attempts(&status) == 1, "{status:#}");
}

fn a_stopped_instance_stays_stopped_under_a_new_keeper() {
    let mut instance = Instance::running("exec sleep 1000", json!({ "stop": { "grace": "0" } }));
    instance.ask(&["stop"]);
    instance.lose_keeper();
    instance.keep();
    let status = instance.until_phase("resting");
    assert_eq!((rests(&status), attempts(&status)), ("stopped", 1));
    instance.ask(&["start"]);
    assert!(runs(&instance.status()));
}

fn a_keeper_that_is_told_to_end_leaves_the_container() {
    let mut instance = Instance::running("exec sleep 1000", json!({}));
    let before = instance.pid();
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let mut keeper = instance.keeper.take().unwrap();
        keeper.signal(signal);
        keeper.ends_with(0);
        assert_eq!(instance.bundle.status(), "running");
        assert!(!instance.file("control").exists());
        instance.keep();
        assert_eq!(instance.pid(), before);
    }
}
