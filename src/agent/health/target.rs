//! What is checked of an instance.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use crate::api::{Goal, Instance, Phase};
use crate::job::{Job, Task};

/// An instance that has checks and is to run.
#[derive(Debug, Clone)]
pub struct Target {
    /// Its name.
    pub instance: String,
    /// Its job.
    pub job: Arc<Job>,
    /// Its ports.
    pub ports: BTreeMap<String, u16>,
    /// Its address, where it has a network of its own.
    pub address: Option<Ipv4Addr>,
    /// Which run it is: another text when its programs were started anew, and the same after a restart of the daemon.
    /// None while they do not run.
    pub run: Option<String>,
}

/// What is checked of an instance; None when it is not to run, or has no checks.
#[must_use]
pub fn target(view: &Instance, job: &Arc<Job>) -> Option<Target> {
    let is_checked = |task: &Task| task.health != crate::job::Health::default();
    let runs = view.phase == Phase::Running;
    if !job.tasks.values().any(is_checked) || !runs && view.goal != Some(Goal::Start) {
        return None;
    }
    // Neither changes when a daemon or a keeper does, nor when a task without checks has completed.
    let tasks = view.tasks.iter();
    let tasks = tasks.filter(|(name, _)| job.tasks.get(*name).is_some_and(is_checked));
    let pids = tasks.map(|(_, task)| task.pid.unwrap_or(0).to_string());
    let pids = || format!("{}:{}", view.restarts, pids.collect::<Vec<_>>().join(","));
    Some(Target {
        instance: view.name.clone(),
        job: Arc::clone(job),
        ports: view.ports.clone(),
        address: view.address,
        run: runs.then(pids),
    })
}
