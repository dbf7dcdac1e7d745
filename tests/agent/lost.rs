//! Keepers and agents that are killed are not missed.

use std::fs;

use libtest_mimic::Trial;
use serde_json::json;

use crate::caller::wait_for_exit;
use crate::support::tests;
use crate::world::{OBEDIENT, World, kill, name, pid, pids, runs};

pub fn all() -> Vec<Trial> {
    tests![
        a_killed_keeper_is_replaced_and_its_container_runs_on,
        what_a_program_prints_last_without_a_keeper_is_in_its_log,
        a_killed_agent_is_not_missed_and_no_exit_is_lost,
        an_intent_that_was_taken_is_followed_by_the_next_agent,
        a_damaged_file_of_what_is_wanted_ends_nothing,
        a_keeper_that_is_stuck_when_the_agent_begins_holds_up_its_own_instance_alone,
    ]
}

fn a_killed_keeper_is_replaced_and_its_container_runs_on() {
    let mut world = World::new(OBEDIENT);
    let job = world.job("web", json!({}));
    world.want(&[(job, 2, "start")]);
    let before = pids(&world.until_running(2));
    let keepers = world.keepers();
    assert_eq!(keepers.len(), 2);
    for keeper in keepers.values() {
        kill(*keeper);
    }
    let mut others = world.keepers();
    while others.len() < 2
        || others
            .values()
            .any(|pid| keepers.values().any(|old| old == pid))
    {
        std::thread::sleep(std::time::Duration::from_millis(5));
        others = world.keepers();
    }
    assert_eq!(pids(&world.until_running(2)), before);
    let one = before.values().next().unwrap();
    kill(*one);
    world.until(|all| all.iter().all(runs) && pid(&all[0]) != *one);
}

fn what_a_program_prints_last_without_a_keeper_is_in_its_log() {
    let script = "read x < /tmp/go; echo last words; exit 3";
    let mut world = World::without_agent(script);
    world
        .bundle
        .edit(|config| config["root"]["readonly"] = json!(false));
    let mut go = crate::caller::Fifo::new(&world.bundle, "go");
    world.start();
    let job = world.job("web", json!({ "restart": { "policy": "never" } }));
    world.want(&[(job, 1, "start")]);
    let before = world.until_running(1);
    // The agent stands still, so that there is no new keeper.
    let agent = rustix::process::Pid::from_raw(world.agent_pid()).unwrap();
    rustix::process::kill_process(agent, rustix::process::Signal::STOP).unwrap();
    kill(*world.keepers().values().next().unwrap());
    go.say("go");
    wait_for_exit(pid(&before[0]));
    rustix::process::kill_process(agent, rustix::process::Signal::CONT).unwrap();
    world.until(|all| all[0]["phase"] == "failed");
    let log = world.tell(&format!("log {}", name(&before[0])));
    let log = fs::read_to_string(log.as_str().unwrap()).unwrap();
    assert!(log.ends_with("stdout F last words\n"), "{log:?}");
}

fn a_killed_agent_is_not_missed_and_no_exit_is_lost() {
    let mut world = World::new(OBEDIENT);
    let job = world.job("web", json!({}));
    world.want(&[(job, 3, "start")]);
    let before = world.until_running(3);
    world.lose_agent();
    // Its keeper brings it back by itself.
    let victim = &before[2];
    kill(pid(victim));
    let mut status = world.status(&name(victim));
    while status["state"]["phase"].get("running").is_none()
        || status["state"]["counts"]["attempts"] != 2
    {
        std::thread::sleep(std::time::Duration::from_millis(5));
        status = world.status(&name(victim));
    }
    world.start();
    let after = world.until_running(3);
    assert_eq!(pids(&after[..2]), pids(&before[..2]));
    assert_eq!(status["container"]["process"]["pid"], json!(pid(&after[2])));
    let ended = world.until_event(|event| event["kind"] == "ended");
    assert_eq!(
        (&ended["instance"], &ended["cause"]),
        (&victim["name"], &json!("signal 9 (KILL)"))
    );
    world.lose_agent();
    world.start();
    world.until_running(3);
    // Nothing is told twice.
    kill(pid(&after[0]));
    world.until_event(|event| event["kind"] == "ended" && event["instance"] == after[0]["name"]);
    let mut ends = 0;
    let mut from = 1;
    loop {
        let event = world.tell(&format!("event {from}"));
        from = event["number"].as_u64().unwrap() + 1;
        ends += usize::from(event["kind"] == "ended");
        if event["kind"] == "ended" && event["instance"] == after[0]["name"] {
            break;
        }
    }
    assert_eq!(ends, 2);
}

fn an_intent_that_was_taken_is_followed_by_the_next_agent() {
    let mut world = World::new(OBEDIENT);
    let job = world.job("web", json!({}));
    world.want(&[(job.clone(), 3, "start")]);
    world.lose_agent();
    world.start();
    world.until_running(3);
    world.want(&[(job.clone(), 1, "start")]);
    world.lose_agent();
    world.start();
    world.until_running(1);
    let told = world.want_as(1, &[(job, 5, "start")]);
    let told = told["error"].as_str().unwrap();
    let why = "revision 1 is older than 2, which is wanted already: everything goes on as it is";
    assert!(told.starts_with(why), "{told}");
}

fn a_damaged_file_of_what_is_wanted_ends_nothing() {
    let mut world = World::new(OBEDIENT);
    let job = world.job("web", json!({}));
    world.want(&[(job.clone(), 2, "start")]);
    let before = pids(&world.until_running(2));
    let file = world.bundle.folder.join("agent/wanted");
    let whole = fs::read(&file).unwrap();
    let half = &whole[..whole.len() / 2];
    for damage in [Some(&b""[..]), Some(half), Some(b"{}"), None] {
        world.lose_agent();
        match damage {
            Some(text) => fs::write(&file, text).unwrap(),
            None => fs::remove_file(&file).unwrap(),
        }
        // Without a keeper it gets one, too.
        kill(*world.keepers().values().next().unwrap());
        world.start();
        assert_eq!(pids(&world.until_running(2)), before);
    }
    world.until_event(|event| {
        event["kind"] == "fault" && event["cause"].as_str().unwrap().contains("is damaged")
    });
    world.want(&[(job, 1, "start")]);
    world.until_running(1);
}

fn a_keeper_that_is_stuck_when_the_agent_begins_holds_up_its_own_instance_alone() {
    use parhelion::keeper::{Now, client};
    use rustix::process::{Pid, Signal, kill_process};
    let mut world = World::new(OBEDIENT);
    let job = world.job("web", json!({}));
    world.want(&[(job.clone(), 4, "start")]);
    let before = pids(&world.until_running(4));
    world.lose_agent();
    let names: Vec<String> = before.keys().cloned().collect();
    let keepers = world.keepers();
    // One takes connections and says nothing; at the other there is no place left.
    let (silent, full) = (names[0].clone(), names[1].clone());
    let process = |name: &str| Pid::from_raw(keepers[name]).unwrap();
    for name in [&silent, &full] {
        kill_process(process(name), Signal::STOP).unwrap();
    }
    let mut queue = Vec::new();
    while let Now::Connected(connection) = client::find_now(&world.instances().join(&full)).unwrap()
    {
        queue.push(connection);
    }
    world.start();
    let is_stuck = |one: &serde_json::Value| [&silent, &full].contains(&&name(one));
    let all = world.until(|all| all.iter().filter(|one| !is_stuck(one)).all(runs));
    assert_eq!(all.len(), 4);
    // The others are held as ever, also with what is new.
    kill(before[&names[2]]);
    world.want(&[(job, 5, "start")]);
    world.until(|all| {
        let others = all.iter().filter(|one| !is_stuck(one));
        let back = |one: &&serde_json::Value| runs(one) && pid(one) != before[&names[2]];
        others.filter(back).count() == 3
    });
    // Who is stuck is told of, and its program runs on.
    world.until(|all| {
        let why = all
            .iter()
            .find(|one| name(one) == full)
            .map(|one| one["fault"].clone());
        why.is_some_and(|why| why.as_str().is_some_and(|why| why.contains("stuck")))
    });
    drop(queue);
    for name in [&silent, &full] {
        kill_process(process(name), Signal::CONT).unwrap();
    }
    let after = pids(&world.until_running(5));
    for name in [&silent, &full] {
        assert_eq!(after[name], before[name]);
    }
}
