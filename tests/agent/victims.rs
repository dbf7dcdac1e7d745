//! What a storm kills: the programs and keepers that there are, as the kernel knows them, and which of them is next.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// Numbers below `limit`, the same in every run.
pub fn random(seed: &mut u64, limit: usize) -> usize {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
    (*seed >> 33) as usize % limit
}

/// The keepers' processes of an agent's directory of instances, by their instances.
pub fn keepers(instances: &Path) -> BTreeMap<String, i32> {
    let mut keepers = BTreeMap::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let words = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let words: Vec<&str> = words
            .split(|byte| *byte == 0)
            .filter_map(|word| std::str::from_utf8(word).ok())
            .collect();
        let directory = words
            .iter()
            .find_map(|word| word.strip_prefix(instances.to_str()?)?.strip_prefix('/'));
        let Some(name) = directory.filter(|_| words.contains(&"keep")) else {
            continue;
        };
        // Its helpers have the same words; it leads a session.
        let pid: i32 = entry.file_name().to_str().unwrap().parse().unwrap();
        let process = Pid::from_raw(pid).unwrap();
        if rustix::process::getsid(Some(process)) == Ok(process) {
            keepers.insert(name.to_owned(), pid);
        }
    }
    keepers
}

/// The first processes of all containers that have their cgroups in this one.
pub fn programs(cgroup: &Path) -> Vec<i32> {
    let entries = fs::read_dir(cgroup).into_iter().flatten().flatten();
    entries
        .flat_map(|entry| processes(&entry.path()))
        .filter(|pid| is_first(*pid))
        .collect()
}

/// The processes of a cgroup; none when it has gone.
pub fn processes(cgroup: &Path) -> Vec<i32> {
    let text = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    let pids = text.lines().filter_map(|line| line.parse().ok());
    pids.collect()
}

/// Whether a process is the first one of its pid namespace.
pub fn is_first(pid: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let inside = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    inside.and_then(|pids| pids.split_whitespace().last()) == Some("1")
}

/// Kills a process; false when it has ended before.
pub fn try_kill(pid: i32) -> bool {
    let Ok(pidfd) = pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()) else {
        return false;
    };
    pidfd_send_signal(&pidfd, Signal::KILL).is_ok()
}
