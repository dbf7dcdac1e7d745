//! Unknown and bad ids, ids that are taken, and verbs in a status in which they are not legal.

use libtest_mimic::Trial;

use super::nothing_was_done;
use crate::support::{Bundle, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        an_unknown_id_does_not_exist,
        a_bad_id_is_refused_by_every_verb,
        an_id_that_looks_like_an_option_is_none,
        an_id_that_is_taken_is_refused_whatever_the_status,
        each_verb_is_refused_in_the_statuses_it_is_not_for,
    ]
}

const VERBS: [&str; 7] = [
    "start", "state", "kill", "delete", "pause", "resume", "update",
];

fn an_unknown_id_does_not_exist() {
    let bundle = Bundle::new("true");
    for verb in VERBS.iter().chain(&["ps"]) {
        let told = bundle.verb(verb).failure();
        let expected = format!(
            "{verb} {id:?}: container {id:?} does not exist\n",
            id = bundle.id
        );
        assert_eq!(told, expected);
    }
    let forced = bundle.parhelion(&["delete", "--force", &bundle.id]);
    assert_eq!(forced.success() + &forced.stderr(), "");
    assert_eq!(bundle.parhelion(&["list", "--quiet"]).success(), "");
    nothing_was_done(&bundle);
}

fn a_bad_id_is_refused_by_every_verb() {
    let bundle = Bundle::new("true");
    let long = "x".repeat(256);
    let ids = [
        ("", "container id cannot be empty"),
        (".", "invalid container id"),
        ("..", "invalid container id"),
        ("a/b", "invalid container id"),
        ("../up", "invalid container id"),
        ("/abs", "invalid container id"),
        ("a b", "invalid container id"),
        ("a\nb", "invalid container id"),
        ("bär", "invalid container id"),
        ("a:b", "invalid container id"),
        (&long, "256 characters long, at most 255"),
    ];
    for (id, words) in ids {
        let create = bundle.parhelion(&["create", "--bundle", bundle.path(), id]);
        let run = bundle.parhelion(&["run", "--bundle", bundle.path(), id]);
        let others = VERBS.map(|verb| bundle.parhelion(&[verb, id]));
        let forced = bundle.parhelion(&["delete", "--force", id]);
        for answer in [create, run, forced].into_iter().chain(others) {
            let told = answer.failure();
            assert!(told.contains(words), "{id:?}: {told}");
            assert_eq!(told.lines().count(), 1, "{told}");
        }
    }
    nothing_was_done(&bundle);
}

fn an_id_that_looks_like_an_option_is_none() {
    let bundle = Bundle::new("true");
    let told = bundle
        .parhelion(&["create", "--bundle", bundle.path(), "-x"])
        .failure();
    assert!(told.contains("'-x'"), "{told}");
    nothing_was_done(&bundle);
}

fn an_id_that_is_taken_is_refused_whatever_the_status() {
    let bundle = Bundle::new("sleep 1000");
    let is_taken = |status: &str| {
        let told = bundle.create().failure();
        let words = "already exists: choose another id, or delete it first\n";
        assert!(told.ends_with(words), "{status}: {told}");
        assert_eq!(bundle.status(), status);
    };
    bundle.create().success();
    is_taken("created");
    bundle.verb("start").success();
    is_taken("running");
    bundle.verb("pause").success();
    is_taken("paused");
    bundle.verb("resume").success();
    stop(&bundle);
    is_taken("stopped");
}

/// Kills the program and waits until it has ended.
fn stop(bundle: &Bundle) {
    let state: serde_json::Value = serde_json::from_str(&bundle.verb("state").success()).unwrap();
    let pid = i32::try_from(state["pid"].as_i64().unwrap()).unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    let flags = rustix::process::PidfdFlags::empty();
    let pidfd = rustix::process::pidfd_open(pid, flags).unwrap();
    bundle.parhelion(&["kill", &bundle.id, "KILL"]).success();
    let mut fds = [rustix::event::PollFd::new(
        &pidfd,
        rustix::event::PollFlags::IN,
    )];
    rustix::event::poll(&mut fds, None).unwrap();
}

fn each_verb_is_refused_in_the_statuses_it_is_not_for() {
    let bundle = Bundle::new("sleep 1000");
    let refused = |status: &str, refusals: &[(&str, &str)]| {
        for (verb, words) in refusals {
            let told = bundle.verb(verb).failure();
            let expected = format!("{verb} {:?}: {words}\n", bundle.id);
            assert_eq!(told, expected.replace("ID", &bundle.id), "{status}");
            assert_eq!(bundle.status(), status);
        }
    };
    bundle.create().success();
    refused("created", &[("resume", "container not paused")]);
    bundle.verb("start").success();
    refused(
        "running",
        &[
            ("start", "cannot start an already running container"),
            ("resume", "container not paused"),
            (
                "delete",
                "cannot delete container ID that is not stopped: running",
            ),
        ],
    );
    bundle.verb("pause").success();
    refused(
        "paused",
        &[
            ("start", "cannot start a container in the paused state"),
            ("pause", "container not running"),
            (
                "delete",
                "cannot delete container ID that is not stopped: paused",
            ),
        ],
    );
    bundle.verb("resume").success();
    stop(&bundle);
    refused(
        "stopped",
        &[
            ("start", "cannot start a container that has stopped"),
            ("pause", "container not running"),
            ("resume", "container not paused"),
            ("kill", "container not running"),
        ],
    );
    bundle.verb("delete").success();
}
