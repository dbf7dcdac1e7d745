//! What processes cost, as /proc tells it.

use std::fs;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::os;

pub struct Cost {
    /// Of all of them: memory that is divided among those who share it, and what only they have.
    pub pss_kib: u64,
    pub private_kib: u64,
    /// The daemon's resident set.
    pub daemon_kib: Option<u64>,
    /// The part of a processor that they take while nothing happens.
    pub idle: f64,
}

/// What has just restarted something may leave processes that end by and by, which are not to count.
const TRIES: usize = 5;

pub fn cost(
    all: impl Fn() -> Result<Vec<i32>>,
    daemon: Option<i32>,
    idle: Duration,
) -> Result<Cost> {
    let mut tried = 1;
    loop {
        // Podman's monitors are orphans, and thereby ours when they have ended.
        os::reap_leftovers();
        match cost_of(&all()?, daemon, idle) {
            Err(_one_has_ended) if tried < TRIES => tried += 1,
            done => return done,
        }
    }
}

fn cost_of(all: &[i32], daemon: Option<i32>, time: Duration) -> Result<Cost> {
    let before = spent(all)?;
    thread::sleep(time);
    let idle = spent(all)?.saturating_sub(before).as_secs_f64() / time.as_secs_f64();
    let (mut pss_kib, mut private_kib) = (0, 0);
    for pid in all {
        let path = format!("/proc/{pid}/smaps_rollup");
        let text = fs::read_to_string(&path).with_context(|| format!("{path}: it has ended"))?;
        pss_kib += field(&text, "Pss:");
        private_kib += field(&text, "Private_Clean:") + field(&text, "Private_Dirty:");
    }
    let status = |pid| fs::read_to_string(format!("/proc/{pid}/status"));
    let daemon = daemon.map(status).transpose()?;
    Ok(Cost {
        pss_kib,
        private_kib,
        daemon_kib: daemon.map(|text| field(&text, "VmRSS:")),
        idle,
    })
}

fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

fn spent(all: &[i32]) -> Result<Duration> {
    all.iter().map(|pid| os::cpu_time(*pid)).sum()
}

/// The processes of this name.
pub fn named(names: &[&str]) -> Vec<i32> {
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid: &i32| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        names.contains(&name.trim())
    })
    .collect()
}

/// A process's time with that of the children it has waited for, to the hundredth of a second: proc(5), stat.
pub fn with_children(pid: i32) -> Option<Duration> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Fields from the third on; 14 to 17 are wanted.
    let fields: Vec<&str> = text.rsplit(')').next()?.split_whitespace().collect();
    let ticks = fields.get(11..15)?.iter().map(|field| field.parse::<u64>());
    let ticks: u64 = ticks.sum::<Result<u64, _>>().ok()?;
    Some(Duration::from_millis(ticks * 10))
}
