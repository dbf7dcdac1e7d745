//! The device filter of a container that runs.

use libtest_mimic::Trial;
use serde_json::{Value, json};

use super::Limited;
use crate::support::tests;

pub fn all() -> Vec<Trial> {
    tests![
        a_device_is_allowed_and_denied_again,
        rules_that_are_not_named_stay,
        a_container_without_a_filter_gets_one_and_loses_it,
        nothing_more_and_nothing_less_is_allowed_while_rules_change,
        the_same_rules_again_leave_the_filter_alone,
    ]
}

/// No such device exists: an open that is allowed finds none.
const ALLOWED: &str = "No such device or address";
const DENIED: &str = "Operation not permitted";

fn rules(minor: u32) -> Value {
    json!({"devices": [{"allow": false, "access": "rwm"},
        {"allow": true, "type": "c", "major": 4000, "minor": minor, "access": "rw"}]})
}

fn start() -> Limited {
    Limited::start(&json!({}))
}

/// Which of the devices 4000:1, 4000:2 and 4000:3 can be opened.
fn allowed(inside: &mut Limited) -> Vec<usize> {
    let is_allowed = |n: &usize| {
        let told = inside.ask(&format!("cat /dev/x{n}"));
        assert!(told.contains(ALLOWED) != told.contains(DENIED), "{told}");
        told.contains(ALLOWED)
    };
    [1, 2, 3].into_iter().filter(is_allowed).collect()
}

fn a_device_is_allowed_and_denied_again() {
    let mut inside = start();
    assert_eq!(allowed(&mut inside), [0; 0]);
    inside.update_by(&rules(2)).success();
    assert_eq!(allowed(&mut inside), [2]);
    inside.update_by(&rules(3)).success();
    assert_eq!(allowed(&mut inside), [3]);
    inside.update_by(&json!({"devices": []})).success();
    assert_eq!(allowed(&mut inside), [0; 0]);
    assert_eq!(inside.ask("cat /dev/null && echo fine"), "fine\n");
}

fn rules_that_are_not_named_stay() {
    let mut inside = start();
    inside.update_by(&rules(2)).success();
    inside.update_by(&json!({"pids": {"limit": -1}})).success();
    inside.update_by(&json!({})).success();
    assert_eq!(allowed(&mut inside), [2]);
}

fn a_container_without_a_filter_gets_one_and_loses_it() {
    let all = json!({"devices": [{"allow": true, "access": "rwm"}]});
    let mut inside = start();
    inside.update_by(&all).success();
    assert_eq!(allowed(&mut inside), [1, 2, 3]);
    inside.update_by(&rules(2)).success();
    assert_eq!(allowed(&mut inside), [2]);
    inside.update_by(&all).success();
    assert_eq!(allowed(&mut inside), [1, 2, 3]);
}

/// One filter is put into the other's place, so that at no time both hold, or neither.
fn nothing_more_and_nothing_less_is_allowed_while_rules_change() {
    let mut inside = start();
    let script = "n=0; until [ -e /tmp/stop ]; do cat /dev/null || echo null; \
                  cat /dev/x1 2>&1 | busybox grep -v 'not permitted'; n=$((n+1)); done; echo $n";
    inside.say(script);
    for turn in 0..20 {
        inside.update_by(&rules(2 + turn % 2)).success();
    }
    std::fs::write(inside.bundle.folder.join("rootfs/tmp/stop"), "").unwrap();
    let rounds = inside.hear();
    let rounds: u32 = rounds.trim().parse().expect(&rounds);
    assert!(rounds > 1, "{rounds}");
}

/// As callers send all resources again to change one: a filter that somebody else has attached
/// meanwhile, for a device that the runtime knows nothing of, would be in force no more.
fn the_same_rules_again_leave_the_filter_alone() {
    let inside = start();
    let trace = |rules: &Value| {
        let file = inside.bundle.folder.join("trace");
        let resources = inside.bundle.folder.join("resources");
        std::fs::write(&resources, rules.to_string()).unwrap();
        let mut strace = std::process::Command::new("strace");
        strace.args(["-e", "trace=bpf", "-o"]).arg(&file);
        strace.arg(crate::support::program()).arg("--root");
        strace.arg(inside.bundle.folder.join("state"));
        strace.args(["update", "-r"]).arg(resources);
        assert!(strace.arg(&inside.bundle.id).status().unwrap().success());
        std::fs::read_to_string(file).unwrap()
    };
    let first = trace(&rules(2));
    assert!(
        first.contains("BPF_PROG_ATTACH") || first.contains("bpf("),
        "{first}"
    );
    let again = trace(&rules(2));
    assert!(!again.contains("bpf("), "{again}");
}
