//! A disk that takes nothing, also when the daemon starts: everything runs on, changes are refused with what to do, and
//! when there is room again all goes on by itself.

use std::fs::{self, File};
use std::io::Write as _;

use libtest_mimic::Trial;
use rustix::mount::{MountFlags, mount, mount_bind, mount_remount};
use serde_json::{Value, json};

use crate::caller::wait_for_exit;
use crate::host::Host;
use crate::support::tests;
use crate::victims::try_kill;

pub fn all() -> Vec<Trial> {
    tests![
        a_daemon_starts_on_a_full_disk_and_takes_changes_when_there_is_room,
        a_daemon_starts_on_a_read_only_disk_and_takes_changes_when_it_is_writable,
        a_disk_that_fills_up_while_the_daemon_runs_is_told_and_no_event_is_lost,
    ]
}

const SCRIPT: &str = "while :; do sleep 1; done";

/// A host whose state is on a disk of its own, of 4 MiB.
fn with_a_disk() -> Host {
    let mut host = Host::without_daemon(SCRIPT);
    let state = host.path("supervisor");
    fs::create_dir(&state).unwrap();
    let size = Some(c"size=4m,mode=700");
    mount("disk", &state, "tmpfs", MountFlags::empty(), size).unwrap();
    host.start();
    host
}

/// Fills the disk to its last byte.
fn fill(host: &Host) {
    let mut file = File::create(host.path("supervisor/filler")).unwrap();
    for block in [1 << 20, 4096, 1] {
        while file.write_all(&vec![b'x'; block]).is_ok() {}
    }
}

fn until_well(host: &Host) {
    host.until("all is well", || host.get("/healthz").0 == 200);
}

/// What each of these says while nothing can be written.
fn assert_told(host: &Host, reason: &str) {
    let (status, told) = host.get("/healthz");
    assert_eq!(status, 503, "{told}");
    let told: Value = serde_json::from_str(&told).unwrap();
    let (error, hint) = (
        told["error"].as_str().unwrap(),
        told["hint"].as_str().unwrap(),
    );
    for words in [
        "what should run can not be changed",
        "state can not be written",
        reason,
    ] {
        assert!(error.contains(words), "{words}: {error}");
    }
    assert!(hint.contains("make room on the disk of --state"), "{hint}");
    let (_, figures) = host.get("/metrics");
    for part in ["store", "agent"] {
        let line = format!("parhelion_fault{{of=\"{part}\"}} 1\n");
        assert!(figures.contains(&line), "{figures}");
    }
    let status = host.parctl(&["status"]);
    assert!(
        status
            .stderr()
            .contains("what should run can not be changed"),
        "{}",
        status.stderr()
    );
    assert!(status.success().contains("running"));
}

/// What is read is answered, and what would change something is refused with where and why.
fn assert_only_read(host: &Host, reason: &str) {
    let id = host.json(&["jobs"])[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(host.json(&["inspect", &id])["id"], json!(id));
    assert!(
        !host
            .json(&["history", "web"])
            .as_array()
            .unwrap()
            .is_empty()
    );
    let file = host.job("2", &json!({}));
    for words in [
        &["create", &file][..],
        &["stop", "web"],
        &["undeploy", "web"],
    ] {
        let told = host.parctl(words).failure();
        let place = host.path("supervisor/store");
        for words in [place.to_str().unwrap(), reason, "make room on the disk"] {
            assert!(told.contains(words), "{words}: {told}");
        }
    }
}

/// Kills the first instance's program, which is back without any help of the disk.
fn assert_comes_back(host: &Host) {
    let pid = host.pid();
    assert!(try_kill(pid));
    wait_for_exit(pid);
    host.until("it is back", || {
        let instance = host.instance();
        instance["phase"] == "running" && instance["tasks"]["main"]["pid"] != pid
    });
}

/// The daemon comes up, finds the program that runs, tells what is wrong and refuses changes.
fn assert_starts_without_a_disk(host: &mut Host, pid: i32, why: &str) {
    host.start();
    host.until("its keeper is found", || {
        host.instance()["phase"] == "running"
    });
    assert_eq!(host.pid(), pid);
    assert_told(host, why);
    assert_only_read(host, why);
}

fn a_daemon_starts_on_a_full_disk_and_takes_changes_when_there_is_room() {
    let mut host = with_a_disk();
    host.deploy(&json!({}));
    let pid = host.pid();
    host.lose_daemon();
    fill(&host);
    assert_starts_without_a_disk(&mut host, pid, "no space left on device");
    assert_comes_back(&host);
    let daemon = host.daemon.as_ref().unwrap().pid();
    fs::remove_file(host.path("supervisor/filler")).unwrap();
    until_well(&host);
    let file = host.job("2", &json!({}));
    host.parctl(&["create", &file]).success();
    host.parctl(&["deploy", "web:2", "--wait"]).success();
    assert_eq!(host.daemon.as_ref().unwrap().pid(), daemon);
    // What has happened meanwhile is kept.
    let history = host.json(&["history", "web"]);
    host.lose_daemon();
    host.start();
    let again = host.json(&["history", "web"]);
    let before = history.as_array().unwrap();
    assert_eq!(before[..], again.as_array().unwrap()[..before.len()]);
    assert!(
        before.iter().any(|event| event["kind"] == "ended"),
        "{history}"
    );
    for version in ["web:1", "web:2"] {
        host.parctl(&["undeploy", version, "--wait"]).success();
    }
}

fn a_daemon_starts_on_a_read_only_disk_and_takes_changes_when_it_is_writable() {
    let mut host = with_a_disk();
    host.deploy(&json!({}));
    let pid = host.pid();
    host.lose_daemon();
    // For whoever comes by this path from now on; the keeper has its directory open since before.
    let state = host.path("supervisor");
    mount_bind(&state, &state).unwrap();
    let read_only = MountFlags::BIND | MountFlags::RDONLY;
    mount_remount(&state, read_only, c"").unwrap();
    assert_starts_without_a_disk(&mut host, pid, "read-only file system");
    mount_remount(&state, MountFlags::BIND, c"").unwrap();
    until_well(&host);
    assert_comes_back(&host);
    host.parctl(&["undeploy", "web", "--wait"]).success();
}

fn a_disk_that_fills_up_while_the_daemon_runs_is_told_and_no_event_is_lost() {
    let mut host = with_a_disk();
    host.deploy(&json!({}));
    until_well(&host);
    fill(&host);
    // Before anything was written.
    let (status, told) = host.get("/healthz");
    assert_eq!(status, 503, "{told}");
    assert!(told.contains("without room"), "{told}");
    // Until what is left of the file's last page is used as well.
    let refused = (2..).find_map(|version| {
        let file = host.job(&version.to_string(), &json!({}));
        let created = host.parctl(&["create", &file]);
        (!created.0.status.success()).then(|| created.failure())
    });
    let told = refused.unwrap();
    assert!(told.contains("nothing was changed"), "{told}");
    // Some fit into what is left of the file's last page, and one in part.
    let not_kept = || host.get("/healthz").1.contains("supervisor/agent/events");
    while !not_kept() {
        host.parctl(&["restart", "web"]).success();
    }
    host.parctl(&["restart", "web"]).success();
    fs::remove_file(host.path("supervisor/filler")).unwrap();
    until_well(&host);
    let before = host.json(&["history", "web"]);
    host.stop_daemon();
    host.start();
    let after = host.json(&["history", "web"]);
    let known = before.as_array().unwrap();
    assert_eq!(known[..], after.as_array().unwrap()[..known.len()]);
    host.parctl(&["undeploy", "web", "--wait"]).success();
}
