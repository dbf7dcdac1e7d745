//! How fast and how large an agent is: what docs/agent.md tells.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::caller::ticks;
use crate::world::{World, kill, pid};

/// Measures with each count of instances.
pub fn measure(counts: &str) {
    for count in counts.split(',') {
        measure_one(count.parse().unwrap());
    }
}

#[allow(clippy::disallowed_methods, reason = "it measures")]
fn measure_one(count: u32) {
    let mut world = World::new("exec sleep 100000");
    let job = world.job("web", json!({ "stop": { "grace": "0" } }));
    let begun = Instant::now();
    world.want(&[(job, count, "start")]);
    let all = world.until_running(count as usize);
    println!("{count} instances: all ran after {:?}", begun.elapsed());
    println!(
        "  agent's VmRSS: {} kB",
        number(world.agent_pid(), "VmRSS:")
    );
    std::thread::sleep(Duration::from_secs(12));
    let before = ticks(world.agent_pid());
    std::thread::sleep(Duration::from_secs(10));
    let used = ticks(world.agent_pid()) - before;
    println!(
        "  idle: {used} ticks of 10 ms in 10 s, VmRSS {} kB",
        number(world.agent_pid(), "VmRSS:")
    );
    let mut times: Vec<Duration> = Vec::new();
    for one in all.iter().take(100) {
        let name = one["name"].as_str().unwrap().to_owned();
        let old = pid(one);
        let begun = Instant::now();
        kill(old);
        let processes = world.cgroup().join(format!("{name}.web/cgroup.procs"));
        while !runs_another(&processes, old) {}
        times.push(begun.elapsed());
    }
    times.sort();
    println!(
        "  kill to the new program's execve: p50 {:?}, p99 {:?}",
        times[times.len() / 2],
        times[times.len() * 99 / 100]
    );
    let begun = Instant::now();
    world.lose_agent();
    world.start();
    world.until_running(count as usize);
    println!("  agent killed, started, knows all: {:?}", begun.elapsed());
    let begun = Instant::now();
    world.want(&[]);
    world.until(|all| all.is_empty());
    println!("  all removed after {:?}", begun.elapsed());
}

/// Whether a program was executed in a cgroup that is not this process's.
fn runs_another(processes: &std::path::Path, old: i32) -> bool {
    let text = fs::read_to_string(processes).unwrap_or_default();
    let pids = text.lines().filter_map(|line| line.parse::<i32>().ok());
    let mut others = pids.filter(|pid| *pid != old);
    others.any(|pid| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        matches!(name.trim(), "sh" | "sleep")
    })
}

fn number(pid: i32, field: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(field))
        .unwrap();
    line.trim().trim_end_matches(" kB").to_owned()
}
