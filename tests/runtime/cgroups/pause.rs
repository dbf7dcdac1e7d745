//! pause and resume: the cgroup's freezer, and what may be done meanwhile.

use std::fs;

use libtest_mimic::Trial;

use super::{cgroup, mount_cgroup, share_pids, start};
use crate::caller::Fifo;
use crate::support::{Bundle, tests};

pub fn all() -> Vec<Trial> {
    tests![
        processes_in_cgroups_below_stop_and_go_on_too,
        a_paused_container_can_be_killed,
        a_paused_container_is_deleted_by_force,
        a_created_container_can_be_paused,
        only_a_paused_container_can_be_resumed,
    ]
}

fn is_frozen(bundle: &Bundle, below: &str) -> bool {
    let events = cgroup(bundle).join(below).join("cgroup.events");
    fs::read_to_string(events).unwrap().contains("frozen 1")
}

/// The kernel calls the container's cgroup frozen while those below it may run on for some time.
fn processes_in_cgroups_below_stop_and_go_on_too() {
    let script = "busybox mkdir /sys/fs/cgroup/below
        (echo 0 > /sys/fs/cgroup/below/cgroup.procs
        while read -r word < /tmp/ask; do echo $word > /tmp/answer; done) &
        echo ready > /tmp/answer; wait";
    let bundle = Bundle::new(script);
    mount_cgroup(&bundle, "rw");
    let mut answer = Fifo::new(&bundle, "answer");
    let mut ask = Fifo::new(&bundle, "ask");
    start(&bundle);
    answer.hear();
    ask.say("one");
    assert_eq!(answer.hear(), "one\n");
    bundle.verb("pause").success();
    assert!(is_frozen(&bundle, "") && is_frozen(&bundle, "below"));
    ask.say("two");
    bundle.verb("resume").success();
    assert_eq!(answer.hear(), "two\n");
    assert!(!is_frozen(&bundle, "") && !is_frozen(&bundle, "below"));
}

fn a_paused_container_can_be_killed() {
    let bundle = Bundle::new("sleep 100");
    start(&bundle);
    bundle.verb("pause").success();
    bundle.parhelion(&["kill", &bundle.id, "KILL"]).success();
    super::wait_until_empty(&cgroup(&bundle));
    assert_eq!(bundle.status(), "stopped");
    bundle.verb("delete").success();
}

fn a_paused_container_is_deleted_by_force() {
    let bundle = Bundle::new("sleep 100 & wait");
    share_pids(&bundle);
    start(&bundle);
    bundle.verb("pause").success();
    bundle
        .parhelion(&["delete", "--force", &bundle.id])
        .success();
    assert!(!cgroup(&bundle).exists());
}

fn a_created_container_can_be_paused() {
    let bundle = Bundle::new("exit 0");
    bundle.create().success();
    bundle.verb("pause").success();
    assert_eq!(bundle.status(), "paused");
    bundle.verb("resume").success();
    assert_eq!(bundle.status(), "created");
    bundle.verb("start").success();
}

fn only_a_paused_container_can_be_resumed() {
    let bundle = Bundle::new("sleep 100");
    start(&bundle);
    bundle.verb("resume").failure();
    bundle.verb("pause").success();
    bundle.verb("pause").failure();
    assert_eq!(bundle.status(), "paused");
}
