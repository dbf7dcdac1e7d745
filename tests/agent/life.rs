//! What is wanted is there, comes back, and goes.

use std::cell::Cell;

use libtest_mimic::Trial;
use serde_json::json;

use crate::support::tests;
use crate::world::{OBEDIENT, World, kill, name, pid, pids, runs};

pub fn all() -> Vec<Trial> {
    tests![
        a_job_that_is_wanted_runs_and_comes_back_when_it_crashes,
        more_and_fewer_instances_and_none,
        what_is_to_be_stopped_is_there_and_does_not_run,
        two_versions_of_a_job_run_side_by_side,
        an_unhealthy_instance_is_restarted_and_one_that_is_asked_for,
        a_job_that_can_not_be_made_says_why_and_others_run,
    ]
}

fn a_job_that_is_wanted_runs_and_comes_back_when_it_crashes() {
    let mut world = World::new(OBEDIENT);
    let job = world.job("web", json!({}));
    world.want(&[(job, 3, "start")]);
    let before = world.until_running(3);
    let victim = pid(&before[1]);
    let victims_name = name(&before[1]);
    kill(victim);
    let after = world.until(|all| all.len() == 3 && runs(&all[1]) && pid(&all[1]) != victim);
    assert_eq!(after[1]["restarts"], 1);
    assert_eq!(after[1]["tasks"]["web"]["lastExit"], "signal 9 (KILL)");
    assert_eq!(
        (pid(&after[0]), pid(&after[2])),
        (pid(&before[0]), pid(&before[2]))
    );
    let ended = world.until_event(|event| event["kind"] == "ended");
    assert_eq!(
        (&ended["instance"], &ended["cause"]),
        (&json!(victims_name), &json!("signal 9 (KILL)"))
    );
}

fn more_and_fewer_instances_and_none() {
    let mut world = World::new(OBEDIENT);
    let job = world.job("web", json!({}));
    world.want(&[(job.clone(), 2, "start")]);
    let two = pids(&world.until_running(2));
    world.want(&[(job.clone(), 4, "start")]);
    let four = pids(&world.until_running(4));
    assert!(two.iter().all(|(name, pid)| four[name] == *pid));
    world.want(&[(job, 1, "start")]);
    let one = world.until_running(1);
    assert_eq!(pid(&one[0]), two[&name(&one[0])]);
    world.want(&[]);
    world.until(|all| all.is_empty());
    let removed = Cell::new(0);
    world.until_event(|event| {
        assert_ne!(event["kind"], "broken", "{event}");
        removed.set(removed.get() + usize::from(event["kind"] == "removed"));
        removed.get() == 4
    });
    assert_eq!(std::fs::read_dir(world.instances()).unwrap().count(), 0);
    assert_eq!(world.containers(), [""; 0]);
    assert!(world.keepers().is_empty());
    let below = std::fs::read_dir(world.cgroup())
        .into_iter()
        .flatten()
        .flatten();
    let cgroups: Vec<_> = below
        .filter(|entry| entry.file_type().unwrap().is_dir())
        .collect();
    assert!(cgroups.is_empty(), "{cgroups:?}");
}

fn what_is_to_be_stopped_is_there_and_does_not_run() {
    let mut world = World::new(OBEDIENT);
    let job = world.job("web", json!({}));
    world.want(&[(job.clone(), 2, "stop")]);
    world.until(|all| all.len() == 2 && all.iter().all(|one| one["phase"] == "stopped"));
    // It was never started, not even for a moment.
    for name in world.keepers().keys() {
        assert_eq!(world.status(name)["state"]["counts"]["attempts"], 0);
    }
    world.want(&[(job.clone(), 2, "start")]);
    world.until_running(2);
    world.want(&[(job, 2, "stop")]);
    world.until(|all| all.len() == 2 && all.iter().all(|one| one["phase"] == "stopped"));
    assert_eq!(world.containers(), [""; 0]);
}

fn two_versions_of_a_job_run_side_by_side() {
    let mut world = World::new(OBEDIENT);
    let first = world.job("web", json!({}));
    let second = world.job("web", json!({ "version": "2" }));
    world.want(&[(first.clone(), 1, "start")]);
    let before = pids(&world.until_running(1));
    world.want(&[(first, 1, "start"), (second.clone(), 1, "start")]);
    let both = pids(&world.until_running(2));
    assert!(before.iter().all(|(name, pid)| both[name] == *pid));
    world.want(&[(second, 1, "start")]);
    let one = world.until_running(1);
    assert_eq!(one[0]["job"].as_str().unwrap().split(':').nth(1), Some("2"));
}

fn an_unhealthy_instance_is_restarted_and_one_that_is_asked_for() {
    let mut world = World::new(OBEDIENT);
    let job = world.job("web", json!({}));
    world.want(&[(job, 1, "start")]);
    let first = world.until_running(1);
    world.tell(&format!("unhealthy {}", name(&first[0])));
    let second = world.until(|all| runs(&all[0]) && pid(&all[0]) != pid(&first[0]));
    let told = world.until_event(|event| event["kind"] == "ended");
    assert_eq!(told["cause"], "code 0, as it was unhealthy: a test");
    world.tell(&format!("restart {}", name(&first[0])));
    world.until(|all| runs(&all[0]) && pid(&all[0]) != pid(&second[0]));
    let refused = world.tell("restart nobody");
    assert_eq!(refused["error"], "there is no instance \"nobody\"");
}

fn a_job_that_can_not_be_made_says_why_and_others_run() {
    let mut world = World::new(OBEDIENT);
    let good = world.job("good", json!({}));
    let bad = world.job(
        "bad",
        json!({ "tasks": { "web": { "bundle": "/nowhere/at/all" } } }),
    );
    world.want(&[(good, 1, "start"), (bad, 1, "start")]);
    let is_told = |one: &serde_json::Value| {
        one["fault"]
            .as_str()
            .is_some_and(|fault| fault.contains("/nowhere/at/all"))
    };
    world.until(|all| {
        all.len() == 2 && runs(&all[1]) && all[0]["phase"] == "broken" && is_told(&all[0])
    });
    world.want(&[]);
    world.until(|all| all.is_empty());
}
