//! Waiting until instances are as they are wanted, by the daemon's stream of changes.

use std::collections::BTreeMap;
use std::time::Duration;

use super::connection::{Client, quoted};
use super::failure::Failure;
use super::show::{Output, word};
use crate::api::{Change, Health, Instance, JobInfo, Phase};
use crate::job::JobId;

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// So many instances may be used.
    Ready(u32),
    /// All there are have stopped.
    Stopped,
    /// There is none any more.
    Gone,
}

/// Whether the job says how its instances are checked.
pub fn has_checks(info: &JobInfo) -> bool {
    let tasks = info.job.get("tasks").and_then(|tasks| tasks.as_object());
    tasks.is_some_and(|tasks| tasks.values().any(|task| task.get("health").is_some()))
}

/// Whether an instance may be used.
fn is_ready(instance: &Instance, checked: bool) -> bool {
    let healthy = match instance.health {
        Health::Ready => true,
        Health::Unknown => !checked,
        Health::Starting | Health::NotReady | Health::Unhealthy => false,
    };
    instance.phase == Phase::Running && healthy
}

impl Until {
    fn is_so(self, now: &BTreeMap<String, Instance>, checked: bool) -> bool {
        match self {
            Until::Ready(count) => ready(now, checked) >= count as usize,
            Until::Stopped => now.values().all(|one| match one.phase {
                Phase::Stopped | Phase::Completed => true,
                Phase::Pending
                | Phase::Starting
                | Phase::Running
                | Phase::Waiting
                | Phase::Stopping
                | Phase::Failed
                | Phase::Broken => false,
            }),
            Until::Gone => now.is_empty(),
        }
    }

    fn words(self, job: &JobId, now: &BTreeMap<String, Instance>, checked: bool) -> String {
        let job = job.short();
        match self {
            Until::Ready(count) => format!("{job}: {} of {count} ready", ready(now, checked)),
            Until::Stopped | Until::Gone => format!("{job}: {} left", now.len()),
        }
    }
}

fn ready(now: &BTreeMap<String, Instance>, checked: bool) -> usize {
    now.values().filter(|one| is_ready(one, checked)).count()
}

/// Waits for it.
pub async fn wait(
    client: &Client,
    output: &Output,
    job: &JobId,
    until: Until,
    limit: Duration,
) -> Result<(), Failure> {
    let name = quoted(&job.to_string());
    let info: JobInfo = client.get(&format!("/v1/jobs/{name}")).await?;
    let checked = has_checks(&info);
    let mut now = BTreeMap::new();
    let mut stream = client.stream(&format!("/v1/watch?job={name}")).await?;
    let waiting = async {
        while let Some(change) = stream.line::<Change>().await? {
            apply(&mut now, change);
            output.progress(&until.words(job, &now, checked));
            if until.is_so(&now, checked) {
                return Ok(());
            }
        }
        Err(Failure::new(
            "the daemon has ended meanwhile",
            "it goes on when it is back: parctl status",
        ))
    };
    let waited = tokio::time::timeout(limit, waiting).await;
    output.progress_ends();
    match waited {
        Ok(done) => done,
        Err(_) => Err(late(job, until, limit, &now)),
    }
}

fn apply(now: &mut BTreeMap<String, Instance>, change: Change) {
    match change {
        Change::Snapshot { instances } => {
            *now = instances
                .into_iter()
                .map(|one| (one.name.clone(), one))
                .collect();
        }
        Change::Changed { instance } => {
            now.insert(instance.name.clone(), *instance);
        }
        Change::Removed { name } => {
            now.remove(&name);
        }
    }
}

fn late(job: &JobId, until: Until, limit: Duration, now: &BTreeMap<String, Instance>) -> Failure {
    let what = match until {
        Until::Ready(count) => format!("{count} instances are not ready"),
        Until::Stopped => "its instances have not stopped".to_owned(),
        Until::Gone => "its instances are not gone".to_owned(),
    };
    let state = |one: &Instance| {
        let (phase, health) = (word(one.phase), word(one.health));
        let exits = one.tasks.values().find_map(|task| task.last_exit.clone());
        let exit = exits.map_or(String::new(), |exit| format!(", last {exit}"));
        format!("{} is {phase}, {health}{exit}", one.name)
    };
    let states: Vec<String> = now.values().take(3).map(state).collect();
    Failure::new(
        format!(
            "{}: {what} after {limit:?}: {}",
            job.short(),
            states.join("; ")
        ),
        format!(
            "see why: parctl history {}; wait longer with --timeout",
            job.short()
        ),
    )
}

/// Waits until another program of an instance runs and may be used.
pub async fn another(
    client: &Client,
    output: &Output,
    before: &Instance,
    limit: Duration,
) -> Result<(), Failure> {
    let name = quoted(&before.job.to_string());
    let info: JobInfo = client.get(&format!("/v1/jobs/{name}")).await?;
    let checked = has_checks(&info);
    let pids = |one: &Instance| one.tasks.values().map(|task| task.pid).collect::<Vec<_>>();
    let old = pids(before);
    let mut now = BTreeMap::new();
    let mut stream = client.stream(&format!("/v1/watch?job={name}")).await?;
    let waiting = async {
        while let Some(change) = stream.line::<Change>().await? {
            apply(&mut now, change);
            let one = now.get(&before.name);
            output.progress(&format!("{}: restarting", before.name));
            if one.is_some_and(|one| is_ready(one, checked) && pids(one) != old) {
                return Ok(());
            }
        }
        Err(Failure::new(
            "the daemon has ended meanwhile",
            "look again: parctl status",
        ))
    };
    let waited = tokio::time::timeout(limit, waiting).await;
    output.progress_ends();
    waited.unwrap_or_else(|_| Err(late(&before.job, Until::Ready(1), limit, &now)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(name: &str, phase: Phase, health: Health) -> Instance {
        Instance {
            name: name.to_owned(),
            job: format!("web:1:{}", "a".repeat(64)).parse().unwrap(),
            host: "here".to_owned(),
            index: 0,
            goal: None,
            phase,
            health,
            flapping: false,
            restarts: 0,
            next_attempt: None,
            since: None,
            address: None,
            ports: BTreeMap::new(),
            tasks: BTreeMap::new(),
            fault: None,
        }
    }

    #[test]
    fn what_is_waited_for_is_seen_in_the_changes() {
        let mut now = BTreeMap::new();
        let instances = vec![instance("a", Phase::Running, Health::Unknown)];
        apply(&mut now, Change::Snapshot { instances });
        assert!(Until::Ready(1).is_so(&now, false));
        // It has checks, and they were not made yet.
        assert!(!Until::Ready(1).is_so(&now, true));
        let ready = Box::new(instance("b", Phase::Running, Health::Ready));
        apply(&mut now, Change::Changed { instance: ready });
        assert!(Until::Ready(1).is_so(&now, true) && !Until::Ready(2).is_so(&now, true));
        assert!(!Until::Stopped.is_so(&now, true));
        for name in ["a", "b"] {
            let name = name.to_owned();
            apply(&mut now, Change::Removed { name });
        }
        assert!(Until::Gone.is_so(&now, true));
    }
}
