//! Programs, keepers and the daemon are killed at any moment, and at the end all is there, once.
//!
//! `make test` has a short storm. `STORM_SECONDS`, `STORM_INSTANCES` and `STORM_SEED` make another one: `make storm`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::host::{Host, PATIENCE};
use crate::support::tests;
use crate::victims::{is_first, keepers, processes, programs, random, try_kill};

pub fn all() -> Vec<Trial> {
    tests![after_a_storm_every_instance_is_there_once]
}

/// Runs until it is told to end, and then ends at once.
const OBEDIENT: &str = "trap 'exit 0' TERM; while :; do sleep 1000 & wait; done";

/// A number that the caller may choose.
fn chosen(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().unwrap())
}

/// What a storm has done.
#[derive(Default)]
struct Storm {
    keepers: usize,
    daemons: usize,
    /// Each killed program's wait for the next one.
    returns: Vec<JoinHandle<Duration>>,
}

fn after_a_storm_every_instance_is_there_once() {
    // The virtual host is ten times slower.
    let is_slow = std::env::var_os("PARHELION_TEST_ALL").is_some();
    let count = chosen("STORM_INSTANCES", if is_slow { 6 } else { 50 });
    let length = Duration::from_secs(chosen("STORM_SECONDS", 10));
    let mut host = Host::new(OBEDIENT);
    let quick = json!({ "base": "10ms", "cap": "1s" });
    let quick = json!({ "restart": { "crash": quick, "image": quick } });
    host.parctl(&["create", &host.job("1", &quick)]).success();
    let words = ["deploy", "web", "--wait", "--timeout", "10m", "--count"];
    let number = count.to_string();
    host.parctl(&[&words[..], &[&number]].concat()).success();
    let storm = rage(&mut host, length, chosen("STORM_SEED", 1));
    let killed = (storm.returns.len(), storm.keepers, storm.daemons);
    let (programs, keepers, daemons) = killed;
    println!(
        "{count} instances, {length:?}: killed {programs} programs, {keepers} keepers, {daemons} daemons"
    );
    assert!(programs > 0 && keepers > 0, "that was no storm");
    let returns = storm.returns.into_iter().map(|one| one.join().unwrap());
    let mut returns: Vec<Duration> = returns.collect();
    returns.sort();
    let (median, worst) = (returns[returns.len() / 2], returns[returns.len() - 1]);
    println!("a killed program's next one ran after {median:?} (median), {worst:?} (worst)");
    all_are_there_once(&host, usize::try_from(count).unwrap());
    host.parctl(&["undeploy", "web", "--wait", "--timeout", "10m"])
        .success();
    assert!(programs_of(&host).is_empty());
}

/// Kills for so long; what was killed. At the end the daemon is there.
#[allow(clippy::disallowed_methods, reason = "a storm has an end")]
fn rage(host: &mut Host, length: Duration, mut seed: u64) -> Storm {
    let mut storm = Storm::default();
    let instances = host.path("supervisor/agent/instances");
    let begun = Instant::now();
    while begun.elapsed() < length {
        match random(&mut seed, 20) {
            0 => {
                host.lose_daemon();
                sleep(Duration::from_millis(random(&mut seed, 300) as u64));
                host.start();
                storm.daemons += 1;
            }
            1..8 => {
                let all: Vec<i32> = keepers(&instances).into_values().collect();
                storm.keepers += usize::from(choose(&mut seed, &all).is_some_and(try_kill));
            }
            _ => {
                let places = cgroups(host);
                let index = random(&mut seed, places.len());
                storm.returns.extend(kill_program(&places[index]));
            }
        }
        sleep(Duration::from_millis(random(&mut seed, 100) as u64));
    }
    storm
}

fn choose(seed: &mut u64, all: &[i32]) -> Option<i32> {
    (!all.is_empty()).then(|| all[random(seed, all.len())])
}

/// The cgroup that is the agent's own.
fn agent_cgroup(host: &Host) -> PathBuf {
    let parent = PathBuf::from(format!("/sys/fs/cgroup{}", host.cgroup()));
    let mut below = fs::read_dir(&parent).unwrap().flatten();
    let agent = below.find(|entry| entry.file_name().to_string_lossy().starts_with("agent-"));
    agent.unwrap().path()
}

/// The cgroups of the containers.
fn cgroups(host: &Host) -> Vec<PathBuf> {
    let entries = fs::read_dir(agent_cgroup(host)).unwrap().flatten();
    let directories = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let mut all: Vec<PathBuf> = directories.map(|entry| entry.path()).collect();
    all.sort();
    all
}

fn programs_of(host: &Host) -> Vec<i32> {
    programs(&agent_cgroup(host))
}

/// Kills what runs in a container, if it does; how long it takes until something does again.
#[allow(clippy::disallowed_methods, reason = "it measures")]
fn kill_program(cgroup: &Path) -> Option<JoinHandle<Duration>> {
    let old = processes(cgroup).into_iter().find(|pid| is_first(*pid))?;
    let begun = Instant::now();
    if !try_kill(old) {
        return None;
    }
    let cgroup = cgroup.to_owned();
    Some(spawn(move || {
        // A cgroup that is made anew has no event that one could wait for.
        while !runs_another(&cgroup, old) {
            let so_far = begun.elapsed();
            assert!(so_far < PATIENCE, "{cgroup:?} is empty for {so_far:?}");
            sleep(Duration::from_millis(2));
        }
        begun.elapsed()
    }))
}

/// Whether a program was executed in a cgroup that is not this one.
fn runs_another(cgroup: &Path, old: i32) -> bool {
    let is_it = |pid: &i32| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        *pid != old && name.trim() == "sh" && is_first(*pid)
    };
    processes(cgroup).iter().any(is_it)
}

fn all_are_there_once(host: &Host, count: usize) {
    let is_calm = |one: &Value| one["phase"] == "running" && one["fault"].is_null();
    // Together: what a killed keeper has told last is told on until the next one tells more.
    host.until("all run, each of them once", || {
        let all = host.json(&["status"]);
        let all = all.as_array().unwrap();
        let known: BTreeSet<i64> = all
            .iter()
            .filter_map(|one| one["tasks"]["main"]["pid"].as_i64())
            .collect();
        let there = programs_of(host).into_iter().map(i64::from);
        let is_once = known.len() == count && there.collect::<BTreeSet<i64>>() == known;
        all.len() == count && all.iter().all(is_calm) && is_once
    });
    host.until("each has a keeper", || {
        keepers(&host.path("supervisor/agent/instances")).len() == count
    });
    let containers = host.bundle.parhelion(&["list", "--quiet"]).success();
    assert_eq!(containers.lines().count(), count, "{containers}");
}
