//! The JSON of a status: `status.json`, and what is answered at the socket.
//!
//! An instance of one container has what belongs to it beside the rest; one with a group has it in `tasks`,
//! and how the programs of an attempt ended in its `tasks`, in the same order.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::policy::{Exit, State, Stop};
use super::status::{self, Container, Faults, LogCounts, Program, Task};

/// A status.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bundle: Option<PathBuf>,
    root: PathBuf,
    boot: String,
    keeper: u32,
    state: State,
    flapping: bool,
    next_attempt: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    container: Option<Option<Container>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    tasks: Vec<Task>,
    attempts: Vec<Attempt>,
    #[serde(skip_serializing_if = "Option::is_none")]
    log: Option<LogCounts>,
    faults: Faults,
}

/// An attempt.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Attempt {
    number: u64,
    begun: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pid: Option<Option<i32>>,
    ended: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    exit: Option<Option<Exit>>,
    told: Option<Stop>,
    #[serde(skip_serializing_if = "Option::is_none")]
    oom_kills: Option<u64>,
    reason: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    tasks: Vec<Program>,
}

impl From<status::Status> for Status {
    fn from(from: status::Status) -> Status {
        let mut tasks = from.tasks;
        let alone = tasks.pop_if(|task| task.name.is_none()).unwrap_or_default();
        let is_group = !tasks.is_empty();
        let one = |value| (!is_group).then_some(value);
        let attempts = from.attempts.into_iter();
        Status {
            id: (!is_group).then_some(alone.id),
            bundle: (!is_group).then_some(alone.bundle),
            root: from.root,
            boot: from.boot,
            keeper: from.keeper,
            state: from.state,
            flapping: from.flapping,
            next_attempt: from.next_attempt,
            container: one(alone.container),
            tasks,
            attempts: attempts.map(|one| attempt(one, is_group)).collect(),
            log: (!is_group).then_some(alone.log),
            faults: from.faults,
        }
    }
}

fn attempt(from: status::Attempt, is_group: bool) -> Attempt {
    let mut programs = from.programs;
    let alone = match is_group {
        true => None,
        false => Some(programs.pop().unwrap_or_default()),
    };
    let (pid, exit, oom_kills) = match &alone {
        Some(program) => (
            Some(program.pid),
            Some(program.exit),
            Some(program.oom_kills),
        ),
        None => (None, None, None),
    };
    Attempt {
        number: from.number,
        begun: from.begun,
        pid,
        ended: from.ended,
        exit,
        told: from.told,
        oom_kills,
        reason: from.reason,
        tasks: programs,
    }
}

impl TryFrom<Status> for status::Status {
    type Error = &'static str;

    fn try_from(from: Status) -> Result<status::Status, &'static str> {
        let tasks = match (from.tasks, from.id, from.bundle) {
            (tasks, None, None) if !tasks.is_empty() => tasks,
            (tasks, Some(id), Some(bundle)) if tasks.is_empty() => vec![Task {
                name: None,
                id,
                bundle,
                container: from.container.flatten(),
                log: from.log.unwrap_or_default(),
            }],
            _ => return Err("it has neither an id and a bundle nor tasks"),
        };
        let attempts = from.attempts.into_iter();
        Ok(status::Status {
            root: from.root,
            boot: from.boot,
            keeper: from.keeper,
            state: from.state,
            flapping: from.flapping,
            next_attempt: from.next_attempt,
            attempts: attempts.map(|one| read_attempt(one, tasks.len())).collect(),
            tasks,
            faults: from.faults,
        })
    }
}

fn read_attempt(from: Attempt, tasks: usize) -> status::Attempt {
    let mut programs = from.tasks;
    if programs.is_empty() {
        programs.push(Program {
            pid: from.pid.flatten(),
            ended: from.ended.clone(),
            exit: from.exit.flatten(),
            oom_kills: from.oom_kills.unwrap_or_default(),
        });
    }
    // The file may be from before the group has changed.
    programs.resize_with(tasks, Program::default);
    status::Attempt {
        number: from.number,
        begun: from.begun,
        ended: from.ended,
        told: from.told,
        reason: from.reason,
        programs,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn status(tasks: Vec<Task>) -> status::Status {
        let mut status = status::Status {
            tasks,
            root: "/run/parhelion".into(),
            boot: "b".into(),
            keeper: 7,
            state: State::new(1),
            flapping: false,
            next_attempt: None,
            attempts: Vec::new(),
            faults: Faults::default(),
        };
        status.begin_attempt();
        status
    }

    fn task(name: Option<&str>, id: &str) -> Task {
        Task {
            name: name.map(str::to_owned),
            id: id.to_owned(),
            bundle: "/srv".into(),
            ..Task::default()
        }
    }

    /// As JSON, which says the same again when it was read.
    fn json(status: &status::Status) -> Value {
        let value = serde_json::to_value(status).unwrap();
        let read: status::Status = serde_json::from_value(value.clone()).unwrap();
        assert_eq!(serde_json::to_value(read).unwrap(), value);
        value
    }

    #[test]
    fn one_container_stands_beside_the_rest() {
        let mut status = status(vec![task(None, "web")]);
        status.program(0).unwrap().exit = Some(Exit::Code(3));
        let value = json(&status);
        assert_eq!(value["id"], "web");
        assert!(value.get("tasks").is_none());
        for field in ["container", "log", "bundle", "nextAttempt"] {
            assert!(value.get(field).is_some(), "{field}");
        }
        let attempt = &value["attempts"][0];
        assert_eq!(attempt["exit"], json!({ "code": 3 }));
        for field in ["pid", "ended", "told", "oomKills", "reason"] {
            assert!(attempt.get(field).is_some(), "{field}");
        }
        assert!(attempt.get("tasks").is_none());
    }

    #[test]
    fn a_group_has_its_tasks() {
        for count in [1, 2] {
            let mut tasks = vec![task(Some("web"), "a"), task(Some("side"), "b")];
            tasks.truncate(count);
            let mut status = status(tasks);
            status.program(0).unwrap().pid = Some(5);
            let value = json(&status);
            for field in ["id", "bundle", "container", "log"] {
                assert!(value.get(field).is_none(), "{field}");
            }
            assert_eq!(value["tasks"][0]["name"], "web");
            assert_eq!(
                value["attempts"][0]["tasks"].as_array().unwrap().len(),
                count
            );
            assert_eq!(value["attempts"][0]["tasks"][0]["pid"], 5);
            assert!(value["attempts"][0].get("pid").is_none());
        }
    }
}
