//! One agent for a directory, one instance for a port, and nothing of others.

use std::fs;
use std::net::TcpListener;

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::support::{Bundle, tests};
use crate::world::{OBEDIENT, World, name, pids, runs};

pub fn all() -> Vec<Trial> {
    tests![
        a_second_agent_is_refused,
        ports_are_unlike_each_other_and_kept,
        a_port_that_somebody_has_is_a_fault_until_it_is_free,
        unknown_containers_of_ours_are_removed_and_no_others,
    ]
}

fn a_second_agent_is_refused() {
    let mut world = World::new(OBEDIENT);
    let (_, told) = world.another();
    let told = told["error"].as_str().unwrap();
    let pid = world.agent_pid();
    assert!(
        told.contains("another agent has") && told.contains(&format!("process {pid}")),
        "{told}"
    );
    world.lose_agent();
    world.start();
}

fn ports(instances: &[Value]) -> Vec<(String, u64)> {
    instances
        .iter()
        .map(|one| (name(one), one["ports"]["http"].as_u64().unwrap()))
        .collect()
}

fn ports_are_unlike_each_other_and_kept() {
    let script = format!("echo port $PORT_HTTP; {OBEDIENT}");
    let mut world = World::new(&script);
    let job = world.job("web", json!({ "ports": { "http": {} } }));
    world.want(&[(job.clone(), 4, "start")]);
    let before = world.until_running(4);
    let mut numbers: Vec<_> = ports(&before).into_iter().map(|(_, port)| port).collect();
    assert!(
        numbers.iter().all(|port| (20_000..32_768).contains(port)),
        "{numbers:?}"
    );
    numbers.dedup();
    assert_eq!(numbers.len(), 4);
    let log = world.tell(&format!("log {}", name(&before[0])));
    let line = format!("port {}\n", ports(&before)[0].1);
    while !fs::read_to_string(log.as_str().unwrap())
        .unwrap_or_default()
        .ends_with(&line)
    {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    world.lose_agent();
    // As after a boot of the host: nothing runs.
    for keeper in world.keepers().values() {
        crate::world::kill(*keeper);
    }
    for container in world.containers() {
        world
            .bundle
            .parhelion(&["delete", "--force", &container])
            .success();
    }
    world.start();
    assert_eq!(ports(&world.until_running(4)), ports(&before));
}

fn a_port_that_somebody_has_is_a_fault_until_it_is_free() {
    let mut world = World::new(OBEDIENT);
    let stranger = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = stranger.local_addr().unwrap().port();
    let with_port =
        |version: &str| json!({ "version": version, "ports": { "http": { "external": port } } });
    let (first, second) = (
        world.job("web", with_port("1")),
        world.job("web", with_port("2")),
    );
    world.want(&[(first.clone(), 1, "start")]);
    let conflict = |one: &Value| {
        one["fault"]
            .as_str()
            .is_some_and(|fault| fault.starts_with("PORT_CONFLICT"))
    };
    world.until(|all| all.len() == 1 && conflict(&all[0]));
    drop(stranger);
    world.until_running(1);
    world.want(&[(first, 1, "start"), (second.clone(), 1, "start")]);
    world.until(|all| all.len() == 2 && runs(&all[0]) && conflict(&all[1]));
    world.want(&[(second, 1, "start")]);
    world.until_running(1);
}

fn unknown_containers_of_ours_are_removed_and_no_others() {
    let mut world = World::new(OBEDIENT);
    let job = world.job("web", json!({}));
    world.want(&[(job, 1, "start")]);
    let before = pids(&world.until_running(1));
    let gone = world.instances().join("gone").to_str().unwrap().to_owned();
    let others = run(&world, "other", None);
    let foreign = run(&world, "foreign", Some("/elsewhere/web"));
    let left = run(&world, "left", Some(&gone));
    world.until_event(|event| {
        event["kind"] == "reaped" && event["cause"].as_str().unwrap().contains("\"left\"")
    });
    // A cgroup without any record, and a process in it.
    let stray = world.cgroup().join("stray");
    fs::create_dir(&stray).unwrap();
    let mut child = std::process::Command::new("sleep")
        .arg("1000")
        .spawn()
        .unwrap();
    fs::write(stray.join("cgroup.procs"), child.id().to_string()).unwrap();
    let reaped = world.until_event(|event| {
        event["kind"] == "reaped" && event["cause"].as_str().unwrap().contains("stray")
    });
    assert!(
        reaped["cause"]
            .as_str()
            .unwrap()
            .contains("no instance has it"),
        "{reaped}"
    );
    assert!(!child.wait().unwrap().success() && !stray.exists());
    let mut containers = world.containers();
    containers.retain(|name| {
        !before
            .keys()
            .any(|instance| name.starts_with(instance.as_str()))
    });
    assert_eq!(containers, ["foreign", "other"]);
    assert_eq!(pids(&world.until_running(1)), before);
    drop((others, foreign, left));
}

/// A container beside the agent's, with the annotation of a keeper.
fn run(world: &World, id: &str, keeper: Option<&str>) -> Bundle {
    let bundle = Bundle::new(OBEDIENT);
    bundle.edit(|config| {
        if let Some(keeper) = keeper {
            config["annotations"] = json!({ "org.parhelion.keeper": keeper });
        }
    });
    let mut command = world.bundle.command();
    command.args(["run", "--detach", "--bundle", bundle.path(), id]);
    crate::caller::quietly(&mut command);
    bundle
}
