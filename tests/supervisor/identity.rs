//! A store that was emptied, exchanged or put back from a backup ends no instance before somebody says that it is meant.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::host::Host;
use crate::support::tests;

pub fn all() -> Vec<Trial> {
    tests![
        an_emptied_store_ends_nothing_and_the_right_one_is_followed_again,
        an_emptied_store_that_is_meant_is_accepted_and_takes_over,
        an_older_store_stays_refused_whatever_is_changed_in_it_until_it_is_accepted,
    ]
}

const SCRIPT: &str = "while :; do sleep 1; done";

fn store(host: &Host) -> PathBuf {
    host.path("supervisor/store")
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status();
    assert!(copied.unwrap().success());
}

/// The processes of all instances, which all run.
fn pids(host: &Host) -> Vec<Value> {
    host.until("all run", || {
        let all = host.json(&["status"]);
        let all = all.as_array().unwrap();
        all.iter().all(|one| one["phase"] == "running")
    });
    let all = host.json(&["status"]);
    let all = all.as_array().unwrap().iter();
    all.map(|one| one["tasks"]["main"]["pid"].clone()).collect()
}

/// Waits until it is told that this store is not followed; its name.
fn is_refused(host: &Host, why: &str) -> String {
    host.until("it is told", || {
        let (status, told) = host.get("/healthz");
        status == 503 && told.contains(why)
    });
    let told = host.get("/healthz").1;
    assert!(told.contains("parctl store accept"), "{told}");
    let status = host.parctl(&["status"]);
    assert!(
        status.stderr().contains("is not taken from this store"),
        "{}",
        status.stderr()
    );
    let figures = host.get("/metrics").1;
    assert!(
        figures.contains("parhelion_fault{of=\"identity\"} 1\n"),
        "{figures}"
    );
    let hosts = host.json(&["store", "show"]);
    hosts[0]["store"].as_str().unwrap().to_owned()
}

fn is_followed(host: &Host) {
    host.until("it is followed", || host.get("/healthz").0 == 200);
}

/// With two instances, and a store that is gone since.
fn emptied() -> (Host, Vec<Value>, String) {
    let mut host = Host::new(SCRIPT);
    host.deploy(&json!({}));
    host.parctl(&["deploy", "web", "--count", "2", "--wait"])
        .success();
    let before = pids(&host);
    assert_eq!(before.len(), 2);
    let name = host.json(&["store", "show"])[0]["store"]
        .as_str()
        .unwrap()
        .to_owned();
    host.stop_daemon();
    fs::rename(store(&host), host.path("aside")).unwrap();
    host.start();
    (host, before, name)
}

fn an_emptied_store_ends_nothing_and_the_right_one_is_followed_again() {
    let (mut host, before, name) = emptied();
    let other = is_refused(&host, &format!("is from store {name}"));
    assert_ne!(other, name);
    assert_eq!(pids(&host), before);
    let wrong = host.parctl(&["store", "accept", &name]);
    assert!(wrong.stderr().contains(&other[..12]), "{}", wrong.stderr());
    assert_eq!(pids(&host), before);
    host.stop_daemon();
    fs::remove_dir_all(store(&host)).unwrap();
    fs::rename(host.path("aside"), store(&host)).unwrap();
    host.start();
    is_followed(&host);
    assert_eq!(pids(&host), before);
    assert_eq!(host.json(&["store", "show"])[0]["store"], name.as_str());
    host.parctl(&["undeploy", "web", "--wait"]).success();
}

fn an_emptied_store_that_is_meant_is_accepted_and_takes_over() {
    let (host, before, _) = emptied();
    let other = is_refused(&host, "this is store");
    // What is wanted in it waits until it is.
    let file = host.job("2", &json!({}));
    host.parctl(&["create", &file]).success();
    host.parctl(&["deploy", "web:2"]).success();
    assert_eq!(pids(&host), before);
    let told = host.parctl(&["store", "accept", &other[..8]]).success();
    assert!(told.contains(&other) && told.contains("followed"), "{told}");
    is_followed(&host);
    host.until("only what it wants is there", || {
        let all = host.json(&["status"]);
        all.as_array().unwrap().len() == 1 && all[0]["phase"] == "running"
    });
    assert!(
        host.instance()["name"]
            .as_str()
            .unwrap()
            .starts_with("web.2.")
    );
    let events = host.parctl(&["events"]).success();
    assert!(events.contains("accepted"), "{events}");
    host.parctl(&["undeploy", "web:2", "--wait"]).success();
}

fn an_older_store_stays_refused_whatever_is_changed_in_it_until_it_is_accepted() {
    let mut host = Host::new(SCRIPT);
    host.deploy(&json!({}));
    host.stop_daemon();
    copy(&store(&host), &host.path("backup"));
    host.start();
    host.parctl(&["deploy", "web", "--count", "2", "--wait"])
        .success();
    let before = pids(&host);
    host.stop_daemon();
    fs::remove_dir_all(store(&host)).unwrap();
    copy(&host.path("backup"), &store(&host));
    host.start();
    is_refused(&host, "is not taken from this store");
    for version in ["2", "3", "4", "5"] {
        host.parctl(&["create", &host.job(version, &json!({}))])
            .success();
    }
    // Its revision is larger now; the next daemon is told of none of that.
    host.lose_daemon();
    host.start();
    let name = is_refused(&host, "this is store");
    assert_eq!(pids(&host), before);
    host.parctl(&["store", "accept", &name]).success();
    host.until("as many run as that store wants", || {
        host.json(&["status"]).as_array().unwrap().len() == 1
    });
    is_followed(&host);
    host.parctl(&["undeploy", "web:1", "--wait"]).success();
}
