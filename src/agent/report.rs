//! What a keeper's status means to the agent: one place that knows its form.

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
    /// The names of a group's tasks, in the order of an attempt's programs; none for an only one.
    tasks: Vec<String>,
}

impl Told {
    /// Takes a status apart. `alone` is the name in the job of a container that is its instance's only one.
    #[must_use]
    pub fn new(status: Status, alone: &str) -> Told {
        let ended = status.attempts.iter().rev().find(|one| one.ended.is_some());
        let tasks = status.tasks.iter().enumerate().map(|(number, task)| {
            let name = task.name.as_deref().unwrap_or(alone).to_owned();
            let told = TaskStatus {
                container: task.id.clone(),
                pid: task.container.as_ref().map(|one| one.process.pid),
                last_exit: ended.map(|attempt| end_of(attempt, number)),
            };
            (name, told)
        });
        let report = Report {
            wanted: status.state.wanted,
            is_at_rest: matches!(status.state.phase, Kept::Resting { why } if why != Rest::New),
            halted: matches!(status.state.phase, Kept::Resting { why } if why == Rest::Halted),
            phase: phase(&status.state.phase),
            flapping: status.flapping,
            restarts: status.state.counts.attempts.saturating_sub(1),
            next_attempt: status.next_attempt.clone(),
            since: since(&status),
            tasks: tasks.collect(),
            fault: fault(&status),
        };
        Told {
            report,
            attempts: status.attempts,
            tasks: status
                .tasks
                .into_iter()
                .filter_map(|task| task.name)
                .collect(),
        }
    }

    /// How an attempt ended: of each program `code 1`, `signal 9 (KILL)`, `out of memory`, or why it could not be
    /// made.
    #[must_use]
    pub fn end_in_words(&self, attempt: &Attempt) -> String {
        match self.tasks.is_empty() {
            true => end_of(attempt, 0),
            false => {
                let ends = self.tasks.iter().enumerate();
                let ends =
                    ends.map(|(number, name)| format!("{name}: {}", end_of(attempt, number)));
                ends.collect::<Vec<_>>().join(", ")
            }
        }
    }
}

fn phase(phase: &Kept) -> Phase {
    match phase {
        Kept::Resting { why: Rest::New } => Phase::Pending,
        Kept::Resting {
            why: Rest::Stopped | Rest::Halted,
        } => Phase::Stopped,
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
            Next::Rest(Rest::Stopped | Rest::New | Rest::Halted) => Phase::Stopping,
            Next::Attempt(..) => Phase::Waiting,
        },
    }
}

fn since(status: &Status) -> Option<String> {
    let last = status.attempts.last()?;
    Some(last.ended.clone().unwrap_or_else(|| last.begun.clone()))
}

/// How a program of an attempt ended.
fn end_of(attempt: &Attempt, task: usize) -> String {
    let Some(program) = attempt.programs.get(task).filter(|one| one.exit.is_some()) else {
        let why = attempt.reason.as_deref();
        return format!("not made: {}", why.unwrap_or("nobody knows why"));
    };
    match program.exit {
        Some(_) if program.oom_kills > 0 => "out of memory".to_owned(),
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
        Some(Exit::Unknown) | None => "unknown".to_owned(),
    }
}

/// Why an attempt was told to end.
#[must_use]
pub fn told_in_words(attempt: &Attempt) -> Option<String> {
    Some(match attempt.told? {
        Stop::Asked => "it is not wanted".to_owned(),
        Stop::Group => "another task of its group has ended".to_owned(),
        Stop::Host => "the host was going down".to_owned(),
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
