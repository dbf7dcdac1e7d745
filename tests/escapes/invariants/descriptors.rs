//! Nothing but the standard streams and what was preserved is open in the container's program and in hooks, whatever the
//! caller has open; and what init has open besides is closed by the execve itself.

use libtest_mimic::Trial;
use nix::libc;
use serde_json::json;

use super::cases;
use super::state::{Descriptor, State};
use super::trace::{Stop, Trace, What, Who};
use crate::caller::{Socket, from_shell};
use crate::subject::Subject;
use crate::support::{Bundle, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        a_container_and_its_hooks_have_the_streams_alone,
        preserved_descriptors_are_all_that_is_added,
        a_program_with_a_terminal_has_that_alone,
        a_listener_of_seccomp_does_not_stay,
        a_process_that_joins_has_the_streams_alone,
        descriptors_of_the_caller_would_be_open,
        a_descriptor_that_would_stay_open_is_seen,
    ]
}

/// What of the trace breaks the invariant for a program with so many preserved descriptors.
fn wrong(trace: &Trace, preserved: i32) -> Vec<String> {
    let mut wrong = Vec::new();
    let kept = |descriptor: &Descriptor| descriptor.number < 3 + preserved;
    for stop in &trace.stops {
        let all = stop.state.descriptors.iter();
        let executes = stop
            .number()
            .is_some_and(|number| [libc::SYS_execve, libc::SYS_execveat].contains(&number));
        let left: Vec<_> = match (stop.who, &stop.what) {
            (Who::Init, What::Calls(_)) if executes => {
                all.filter(|one| !kept(one) && !one.close_on_exec).collect()
            }
            (Who::Program, What::Executed) => all.filter(|one| !kept(one)).collect(),
            (Who::Hook, What::Executed) => all.filter(|one| one.number > 2).collect(),
            _ => continue,
        };
        if !left.is_empty() {
            wrong.push(format!(
                "{:?} {:?}: {left:?}",
                stop.who, stop.state.arguments
            ));
        }
    }
    let program = trace.program().state.descriptors.iter();
    let count = program.filter(|one| kept(one)).count();
    if count != 3 + preserved as usize {
        wrong.push(format!("{count} of what is to be open in the program"));
    }
    wrong
}

fn holds(trace: &Trace, preserved: i32, hooks: usize) {
    let wrong = wrong(trace, preserved);
    assert!(wrong.is_empty(), "{} times: {}", wrong.len(), wrong[0]);
    assert_eq!(trace.hooks().len(), hooks);
}

/// From a caller that has more open.
fn called(bundle: &Bundle, words: &[&str]) -> std::process::Command {
    let open = format!(
        "cd {} && exec 3<config.json 4<. 5<. 8<rootfs && exec \"$@\"",
        bundle.path()
    );
    from_shell(bundle, &open, words)
}

fn a_container_and_its_hooks_have_the_streams_alone() {
    let bundle = cases::bundle(Subject::Real);
    holds(&cases::run_as(&bundle, &[], &called), 0, 6);
    let bundle = cases::bundle(Subject::Real);
    cases::in_user_namespace(&bundle);
    holds(&cases::run_as(&bundle, &[], &called), 0, 6);
}

fn preserved_descriptors_are_all_that_is_added() {
    let bundle = cases::bundle(Subject::Real);
    holds(
        &cases::run_as(&bundle, &["--preserve-fds=2"], &called),
        2,
        6,
    );
    let bundle = cases::bundle(Subject::Real);
    holds(
        &cases::exec_as(&bundle, &["--preserve-fds=2"], &called),
        2,
        0,
    );
}

fn a_program_with_a_terminal_has_that_alone() {
    // The hooks of `start` are not followed.
    let bundle = cases::bundle(Subject::Real);
    holds(&cases::create(&bundle, &[]), 0, 4);
    let bundle = cases::bundle(Subject::Real);
    let console = Socket::new(&bundle, "console.sock");
    let flags = ["--tty", "--console-socket", &console.path];
    holds(&cases::exec(&bundle, &flags), 0, 0);
}

fn a_listener_of_seccomp_does_not_stay() {
    let bundle = cases::bundle(Subject::Real);
    let agent = Socket::new(&bundle, "agent.sock");
    bundle.edit(|config| {
        config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW",
            "listenerPath": agent.path,
            "syscalls": [{"names": ["sched_yield"], "action": "SCMP_ACT_NOTIFY"}]});
    });
    let trace = cases::run_as(&bundle, &[], &called);
    holds(&trace, 0, 6);
    assert_eq!(trace.program().state.status.seccomp, 2);
}

fn a_process_that_joins_has_the_streams_alone() {
    for in_user_namespace in [false, true] {
        let bundle = cases::bundle(Subject::Real);
        if in_user_namespace {
            cases::in_user_namespace(&bundle);
        }
        holds(&cases::exec_as(&bundle, &[], &called), 0, 0);
    }
}

fn descriptors_of_the_caller_would_be_open() {
    let bundle = cases::bundle(Subject::Without("descriptors"));
    let wrong = wrong(&cases::run_as(&bundle, &[], &called), 0).join("\n");
    assert!(wrong.contains("rootfs"), "{wrong}");
    assert!(wrong.contains("Init"), "{wrong}");
    assert!(wrong.contains("Program"), "{wrong}");
    assert!(wrong.contains("Hook"), "{wrong}");
}

fn a_descriptor_that_would_stay_open_is_seen() {
    let descriptor = |number, close_on_exec| Descriptor {
        number,
        leads_to: "somewhere".to_owned(),
        close_on_exec,
    };
    let trace = |who, more| {
        let descriptors = (0..3).map(|number| descriptor(number, false));
        let stop = |who, descriptors| Stop {
            pid: 1,
            who,
            what: What::Executed,
            state: State {
                descriptors,
                ..State::default()
            },
        };
        let streams: Vec<_> = descriptors.collect();
        let all = streams.iter().cloned().chain(more).collect();
        Trace::made_up(vec![stop(Who::Program, streams), stop(who, all)])
    };
    assert!(wrong(&trace(Who::Program, None), 0).is_empty());
    for who in [Who::Program, Who::Hook] {
        assert_eq!(wrong(&trace(who, Some(descriptor(3, true))), 0).len(), 1);
    }
}
