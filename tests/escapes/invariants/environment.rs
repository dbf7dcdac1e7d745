//! Nothing of what the runtime's caller is reaches the container or a hook: variables, command line, working directory, umask,
//! signals that are blocked or ignored. What is open is another invariant's.
//!
//! One thing does, on purpose: a hook on the host has the umask of whoever called the runtime. It is a process of the host, where
//! a wider one would undo what an administrator has set for the caller.

use std::process::Command;

use libtest_mimic::Trial;
use serde_json::json;

use super::cases;
use super::state::{State, Status};
use super::trace::{Stop, Trace, What, Who};
use crate::caller;
use crate::subject::Subject;
use crate::support::{Bundle, HOOKS, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        nothing_of_the_caller_reaches_a_container_or_its_hooks,
        nothing_of_the_caller_reaches_one_in_a_user_namespace,
        nothing_of_the_caller_reaches_a_program_that_joins,
        variables_of_the_caller_would_reach_the_program,
        variables_of_the_caller_would_reach_the_hooks,
        what_the_caller_is_would_be_seen,
    ]
}

/// What is in the bundle.
const PROGRAM: [&str; 3] = ["/bin/busybox", "true", "word"];
const VARIABLES: [&str; 2] = ["OF=program", "HOME=/"];
const UMASK: u32 = 0o022;

/// Of the caller.
const CALLERS_UMASK: u32 = 0o077;

/// A caller of whom all is unusual.
fn called(bundle: &Bundle, words: &[&str]) -> Command {
    let script = "cd /usr; umask 077; trap '' HUP USR1 TTOU; \
        exec env --block-signal=USR2,TERM --ignore-signal=CHLD \"$@\"";
    let mut command = caller::from_shell(bundle, script, words);
    command.env("OF_THE_CALLER", "secret");
    command
}

fn bundle(subject: Subject) -> Bundle {
    let bundle = cases::bundle(subject);
    bundle.edit(|config| config["process"]["env"] = json!(["OF=program"]));
    bundle
}

/// What of the trace breaks the invariant, for the container of a bundle at this path.
fn wrong(trace: &Trace, bundle: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    for stop in &trace.stops {
        let state = &stop.state;
        let fine = match (stop.who, &stop.what) {
            (Who::Init, _) => {
                state.environment.is_empty()
                    && state.arguments.len() == 2
                    && state.arguments[1].parse::<u32>().is_ok()
            }
            (Who::Program, _) => {
                state.environment == VARIABLES
                    && state.arguments == PROGRAM
                    && state.working_directory == "/tmp"
                    && state.status.umask == UMASK
                    && has_no_signals(&state.status)
            }
            (Who::Hook, What::Executed) => is_hook(state, bundle),
            (Who::Hook | Who::Runtime, _) => true,
        };
        if !fine {
            wrong.push(format!("{:?}: {state:?}", stop.who));
        }
    }
    wrong
}

fn has_no_signals(status: &Status) -> bool {
    (status.blocked, status.ignored, status.caught) == (0, 0, 0)
}

fn is_hook(state: &State, bundle: &str) -> bool {
    let [name, time] = &state.arguments[..] else {
        return false;
    };
    let (working_directory, umask) = match time.as_str() {
        "createContainer" => (bundle, UMASK),
        "startContainer" => ("/tmp", UMASK),
        _ => (bundle, CALLERS_UMASK),
    };
    name == "true"
        && HOOKS.contains(&time.as_str())
        && state.environment == ["OF=hook"]
        && state.working_directory == working_directory
        && state.status.umask == umask
        && has_no_signals(&state.status)
}

fn holds(trace: &Trace, bundle: &Bundle, hooks: usize) {
    let wrong = wrong(trace, bundle.path());
    assert!(wrong.is_empty(), "{} times: {}", wrong.len(), wrong[0]);
    assert_eq!(trace.hooks().len(), hooks);
}

fn nothing_of_the_caller_reaches_a_container_or_its_hooks() {
    let bundle = bundle(Subject::Real);
    holds(&cases::run_as(&bundle, &[], &called), &bundle, 6);
}

fn nothing_of_the_caller_reaches_one_in_a_user_namespace() {
    let bundle = bundle(Subject::Real);
    cases::in_user_namespace(&bundle);
    holds(&cases::run_as(&bundle, &[], &called), &bundle, 6);
}

fn nothing_of_the_caller_reaches_a_program_that_joins() {
    let bundle = bundle(Subject::Real);
    holds(&cases::exec_as(&bundle, &[], &called), &bundle, 0);
}

fn variables_of_the_caller_would_reach_the_program() {
    let bundle = bundle(Subject::Without("environment"));
    let trace = cases::run_as(&bundle, &[], &called);
    let wrong = wrong(&trace, bundle.path());
    let mut program = wrong.iter().filter(|one| one.starts_with("Program: "));
    assert!(program.any(|one| one.contains("OF_THE_CALLER=secret")));
}

fn variables_of_the_caller_would_reach_the_hooks() {
    let bundle = bundle(Subject::Without("hook-environment"));
    let trace = cases::run_as(&bundle, &[], &called);
    let wrong = wrong(&trace, bundle.path());
    let hooks: Vec<_> = wrong
        .iter()
        .filter(|one| one.starts_with("Hook: "))
        .collect();
    let count = |word| hooks.iter().filter(|one| one.contains(word)).count();
    // The four on the host; of the two that init runs, one gets the program's.
    assert_eq!(count("OF_THE_CALLER=secret"), 4);
    assert_eq!(count("OF=program"), 1);
}

/// What makes a state another one.
type Change = fn(&mut State);

fn what_the_caller_is_would_be_seen() {
    let strings = |all: &[&str]| all.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>();
    let status = |umask| Status {
        umask,
        ..Status::default()
    };
    let init = State {
        arguments: strings(&["parhelion-init", "5"]),
        ..State::default()
    };
    let program = State {
        environment: strings(&VARIABLES),
        arguments: strings(&PROGRAM),
        working_directory: "/tmp".to_owned(),
        status: status(UMASK),
        ..State::default()
    };
    let hook = State {
        environment: strings(&["OF=hook"]),
        arguments: strings(&["true", "poststop"]),
        working_directory: "/bundle".to_owned(),
        status: status(CALLERS_UMASK),
        ..State::default()
    };
    let stop = |who, state| Stop {
        pid: 1,
        who,
        what: What::Executed,
        state,
    };
    let all = [
        stop(Who::Init, init),
        stop(Who::Program, program),
        stop(Who::Hook, hook),
    ];
    assert!(wrong(&Trace::made_up(all.to_vec()), "/bundle").is_empty());
    let changes: [Change; 6] = [
        |state| state.environment.push("OF_THE_CALLER=secret".to_owned()),
        |state| state.arguments.push("--bundle".to_owned()),
        |state| state.working_directory = "/usr".to_owned(),
        |state| state.status.umask = 0,
        |state| state.status.blocked = 1,
        |state| state.status.ignored = 1,
    ];
    for (number, change) in changes.iter().enumerate() {
        // Init starts as what the runtime is; only the first two are never the caller's.
        let first = if number < 2 { 0 } else { 1 };
        for at in first..all.len() {
            let mut stops = all.to_vec();
            change(&mut stops[at].state);
            let seen = wrong(&Trace::made_up(stops), "/bundle");
            assert_eq!(seen.len(), 1, "change {number} of {:?}", all[at].who);
        }
    }
}
