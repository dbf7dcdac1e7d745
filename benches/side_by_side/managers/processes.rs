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
    pub idle: Duration,
}

pub fn cost(all: &[i32], daemon: Option<i32>, idle: Duration) -> Result<Cost> {
    let before = spent(all)?;
    thread::sleep(idle);
    let idle = spent(all)? - before;
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
