//! The host goes down: every program has its grace, nothing is started any more, and what is wanted stays so.
//!
//! Here it is only said that it does; tests/vhost/reboot does it.

use std::fs;
use std::process::Stdio;

use libtest_mimic::Trial;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::caller::Running;
use crate::host::Host;
use crate::support::tests;
use crate::victims::{keepers, try_kill};

pub fn all() -> Vec<Trial> {
    tests![
        programs_have_their_grace_nothing_is_ready_or_started_and_all_are_back_afterwards,
        without_a_daemon_and_a_keeper_they_are_told_as_well_and_the_limit_is_the_end,
    ]
}

/// When it is told to end it says so in its volume, and ends when it may.
const TIDY: &str = "trap 'echo told >> /data/told; while [ ! -e /data/go ]; do sleep 0.1; done; \
                    echo ended >> /data/ended; exit 0' TERM; while :; do sleep 0.1; done";

/// A host with two instances that run.
fn with_two() -> Host {
    let host = Host::new(TIDY);
    let data = host.path("data");
    fs::create_dir(&data).unwrap();
    let file = host.job(
        "1",
        &json!({
            "tasks": { "main": {
                "bundle": host.bundle.path(),
                "command": ["/bin/sh", "-c", TIDY],
                "volumes": { "/data": { "host": data } },
            } },
            "stop": { "grace": "1h" },
            "ports": { "http": {} },
            "registration": [{ "service": "shop", "port": "http" }],
        }),
    );
    host.parctl(&["create", &file]).success();
    host.parctl(&["deploy", "web", "--count", "2", "--wait"])
        .success();
    host
}

fn lines(host: &Host, name: &str) -> usize {
    let text = fs::read_to_string(host.path("data").join(name)).unwrap_or_default();
    text.lines().count()
}

/// parheliond as systemd calls it then, with a limit in seconds.
fn goes_down(host: &Host, seconds: u32) -> Running {
    let mut command = host.command();
    command.arg(format!("--halt={seconds}"));
    Running::spawn(&mut command, Stdio::null())
}

fn pids(host: &Host) -> Vec<Value> {
    let all = host.json(&["status"]);
    let all = all.as_array().unwrap().iter();
    all.map(|one| one["tasks"]["main"]["pid"].clone()).collect()
}

fn are(host: &Host, phase: &str) -> bool {
    let all = host.json(&["status", "web:1"]);
    let all = all.as_array().unwrap();
    all.len() == 2 && all.iter().all(|one| one["phase"] == phase)
}

fn attempts(host: &Host, instance: &str) -> u64 {
    let place = host.path("supervisor/agent/instances").join(instance);
    let text = fs::read(place.join("status.json")).unwrap();
    let status: Value = serde_json::from_slice(&text).unwrap();
    status["state"]["counts"]["attempts"].as_u64().unwrap()
}

fn programs_have_their_grace_nothing_is_ready_or_started_and_all_are_back_afterwards() {
    let mut host = with_two();
    let before = pids(&host);
    let ready = || {
        host.json(&["services"])[0]["endpoints"]
            .as_array()
            .unwrap()
            .len()
    };
    assert_eq!(ready(), 2);
    // An end of the daemon alone is none of theirs.
    host.stop_daemon();
    host.start();
    host.until("it knows them again", || are(&host, "running"));
    assert_eq!((pids(&host), lines(&host, "told")), (before, 0));
    let mut down = goes_down(&host, 3600);
    host.until("both are told", || lines(&host, "told") == 2);
    assert!(are(&host, "stopping"));
    assert_eq!(host.json(&["services"])[0]["endpoints"], json!([]));
    let (status, told) = host.get("/healthz");
    assert!(
        status == 503 && told.contains("this host is going down"),
        "{told}"
    );
    // A newer program would start everything.
    host.daemon.as_ref().unwrap().signal(Signal::USR2);
    // A keeper that dies is replaced by one that starts nothing.
    let name = host.instance()["name"].as_str().unwrap().to_owned();
    let instances = host.path("supervisor/agent/instances");
    let keeper = keepers(&instances)[&name];
    assert!(try_kill(keeper));
    host.until("another keeper is there", || {
        keepers(&instances)
            .get(&name)
            .is_some_and(|pid| *pid != keeper)
    });
    let restarted = host.parctl(&["restart", &name]);
    assert!(
        restarted.stderr().contains("this host is going down"),
        "{}",
        restarted.stderr()
    );
    let file = host.job("2", &json!({}));
    host.parctl(&["create", &file]).success();
    host.parctl(&["deploy", "web:2"]).success();
    fs::write(host.path("data/go"), "").unwrap();
    let (status, _, told) = down.end();
    assert!(status.success(), "{told}");
    assert_eq!(lines(&host, "ended"), 2);
    assert!(are(&host, "stopped"), "{:#}", host.json(&["status"]));
    assert_eq!(attempts(&host, &name), 1);
    let told = host.stop_daemon();
    assert!(told.contains("takes over: this host is"), "{told}");
    host.start();
    host.until("what is wanted is there", || {
        let all = host.json(&["status"]);
        let all = all.as_array().unwrap();
        all.len() == 3 && all.iter().all(|one| one["phase"] == "running")
    });
    assert_eq!(attempts(&host, &name), 2);
    let history = host.parctl(&["history", "web:1"]).success();
    assert!(history.contains("as the host was going down"), "{history}");
    host.parctl(&["undeploy", "web:2", "--wait"]).success();
    host.parctl(&["undeploy", "web:1", "--wait"]).success();
}

fn without_a_daemon_and_a_keeper_they_are_told_as_well_and_the_limit_is_the_end() {
    let mut host = with_two();
    host.lose_daemon();
    let instances = host.path("supervisor/agent/instances");
    let keeper = keepers(&instances).into_values().next().unwrap();
    assert!(try_kill(keeper));
    // Nobody says that they may end.
    let (status, _, told) = goes_down(&host, 3).end();
    assert!(status.success(), "{told}");
    assert_eq!((lines(&host, "told"), lines(&host, "ended")), (2, 0));
    host.start();
    host.until("both are back", || are(&host, "running"));
    let name = host.instance()["name"].as_str().unwrap().to_owned();
    assert_eq!(attempts(&host, &name), 2);
    fs::write(host.path("data/go"), "").unwrap();
    host.parctl(&["undeploy", "web", "--wait"]).success();
}
