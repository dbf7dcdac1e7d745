//! Which verb is legal when, and what a container is in between.

use std::fs;

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::caller::{init_pid, state, wait_for_end};
use crate::support::{Bundle, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        a_container_goes_through_its_life,
        a_verb_in_the_wrong_status_is_refused_and_changes_nothing,
        init_is_a_sealed_copy_while_created,
    ]
}

fn a_container_goes_through_its_life() {
    let bundle = Bundle::new("sleep 100");
    bundle.create().success();
    assert_eq!(bundle.status(), "created");
    bundle.verb("start").success();
    assert_eq!(bundle.status(), "running");
    let refused = bundle.verb("delete").failure();
    assert!(
        refused.contains("that is not stopped: running"),
        "{refused}"
    );
    assert!(bundle.create().failure().contains("already exists"));
    bundle
        .parhelion(&["delete", "--force", &bundle.id])
        .success();
    assert!(bundle.verb("state").failure().contains("does not exist"));
}

fn a_verb_in_the_wrong_status_is_refused_and_changes_nothing() {
    let bundle = Bundle::new("sleep 1000");
    let refuses = |verb: &str, words: &str| {
        let before = bundle.verb("state").success();
        let error = bundle.verb(verb).failure();
        assert!(error.contains(words), "{verb}: {error}");
        assert_eq!(bundle.verb("state").success(), before, "{verb}");
    };
    bundle.create().success();
    refuses("resume", "container not paused");
    bundle.verb("start").success();
    refuses("start", "cannot start an already running container");
    refuses("resume", "container not paused");
    refuses("delete", "that is not stopped: running");
    bundle.verb("pause").success();
    refuses("pause", "container not running");
    refuses("start", "cannot start a container in the paused state");
    refuses("delete", "that is not stopped: paused");
    bundle.verb("resume").success();
    bundle.parhelion(&["kill", &bundle.id, "KILL"]).success();
    wait_for_end(&bundle);
    refuses("start", "cannot start a container that has stopped");
    refuses("pause", "container not running");
    refuses("resume", "container not paused");
    bundle.verb("delete").success();
    for verb in ["start", "state", "pause", "resume", "delete", "kill", "ps"] {
        let error = bundle.verb(verb).failure();
        assert!(error.contains("does not exist"), "{verb}: {error}");
    }
}

fn init_is_a_sealed_copy_while_created() {
    let bundle = Bundle::new("sleep 100");
    bundle.create().success();
    let pid = init_pid(&bundle);
    let exe = fs::read_link(format!("/proc/{pid}/exe")).unwrap();
    assert!(
        exe.to_string_lossy().starts_with("/memfd:parhelion-init"),
        "{exe:?}"
    );
    let created: Value = state(&bundle);
    assert_eq!(created["bundle"], json!(bundle.path()));
}
