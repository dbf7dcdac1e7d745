//! What a keeper's status means to the agent: one place that knows its form.

use std::collections::BTreeMap;

use nix::sys::signal::Signal;

use super::reconcile::Report;
use crate::api::{Phase, TaskStatus};
use crate::keeper::policy::{Exit, Next, Phase as Kept, Rest, Stop};
use crate::keeper::status::{Attempt, Status};

/// What a keeper tells, taken apart.
#[derive(Debug)]
pub struct Told {
    /// What is of use to decide.
    pub report: Report,
    /// The last attempts, for the history.
    pub attempts: Vec<Attempt>,
}

impl Told {
    /// Takes a status apart. `task` is the name of its container in the job.
    #[must_use]
    pub fn new(status: Status, task: &str) -> Told {
        let report = Report {
            wanted: status.state.wanted,
            is_at_rest: matches!(status.state.phase, Kept::Resting { why } if why != Rest::New),
            phase: phase(&status.state.phase),
            flapping: status.flapping,
            restarts: status.state.counts.attempts.saturating_sub(1),
            next_attempt: status.next_attempt.clone(),
            since: since(&status),
            tasks: BTreeMap::from([(task.to_owned(), task_status(&status))]),
            fault: fault(&status),
        };
        Told {
            report,
            attempts: status.attempts,
        }
    }
}

fn phase(phase: &Kept) -> Phase {
    match phase {
        Kept::Resting { why: Rest::New } => Phase::Pending,
        Kept::Resting { why: Rest::Stopped } => Phase::Stopped,
        Kept::Resting {
            why: Rest::Completed,
        } => Phase::Completed,
        Kept::Resting { why: Rest::Failed } => Phase::Failed,
        Kept::Waiting { .. } => Phase::Waiting,
        Kept::Starting { .. } => Phase::Starting,
        Kept::Running { .. } => Phase::Running,
        Kept::Stopping { .. } => Phase::Stopping,
        Kept::Removing { next, .. } => match next {
            Next::Rest(Rest::Completed) => Phase::Completed,
            Next::Rest(Rest::Failed) => Phase::Failed,
            Next::Rest(Rest::Stopped | Rest::New) => Phase::Stopping,
            Next::Attempt(..) => Phase::Waiting,
        },
    }
}

fn since(status: &Status) -> Option<String> {
    let last = status.attempts.last()?;
    Some(last.ended.clone().unwrap_or_else(|| last.begun.clone()))
}

fn task_status(status: &Status) -> TaskStatus {
    let ended = status.attempts.iter().rev().find(|one| one.ended.is_some());
    TaskStatus {
        container: status.id.clone(),
        pid: status.container.as_ref().map(|one| one.process.pid),
        last_exit: ended.map(end_in_words),
    }
}

/// How an attempt ended: `code 1`, `signal 9 (KILL)`, `out of memory`, or why it could not be made.
#[must_use]
pub fn end_in_words(attempt: &Attempt) -> String {
    match attempt.exit {
        Some(_) if attempt.oom_kills > 0 => "out of memory".to_owned(),
        Some(Exit::Code(code)) => format!("code {code}"),
        Some(Exit::Signal(number)) => match Signal::try_from(number) {
            Ok(signal) => {
                let name = signal.as_str();
                format!(
                    "signal {number} ({})",
                    name.strip_prefix("SIG").unwrap_or(name)
                )
            }
            Err(_no_name) => format!("signal {number}"),
        },
        Some(Exit::Unknown) => "unknown".to_owned(),
        None => {
            let why = attempt.reason.as_deref();
            format!("not made: {}", why.unwrap_or("nobody knows why"))
        }
    }
}

/// Why an attempt was told to end.
#[must_use]
pub fn told_in_words(attempt: &Attempt) -> Option<String> {
    Some(match attempt.told? {
        Stop::Asked => "it is not wanted".to_owned(),
        Stop::Restart => "a restart was asked for".to_owned(),
        Stop::Unhealthy => {
            let why = attempt.reason.as_deref().unwrap_or("its checks failed");
            format!("it was unhealthy: {why}")
        }
    })
}

fn fault(status: &Status) -> Option<String> {
    let faults = &status.faults;
    let all = [
        ("its status", &faults.status),
        ("its log", &faults.log),
        ("its container", &faults.container),
    ];
    let told = all
        .into_iter()
        .filter_map(|(what, why)| Some(format!("{what}: {}", why.as_ref()?)));
    let told: Vec<String> = told.collect();
    (!told.is_empty()).then(|| told.join("; "))
}
