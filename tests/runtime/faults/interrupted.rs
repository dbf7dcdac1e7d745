//! A create that is asked to end, or whose container is deleted, while it waits for a hook.

use std::fs::{self, File};
use std::process::{Child, Command, Stdio};

use libtest_mimic::Trial;
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::failed_create::Failing;
use crate::support::{program, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        a_signal_while_a_hook_runs_ends_create_and_nothing_is_left,
        a_signal_before_the_program_runs_ends_run_and_nothing_is_left,
        a_signal_that_the_caller_ignores_does_not_end_create,
        delete_by_force_ends_a_create_whose_hook_hangs,
    ]
}

/// A hook that tells on one fifo that it has begun, and ends when the other one is opened.
fn waiting_hook(failing: &Failing, inside: &str) -> Value {
    for name in ["begun", "go"] {
        nix::unistd::mkfifo(failing.path(name).as_str(), Mode::S_IRWXU).unwrap();
    }
    let folder = if inside.is_empty() {
        failing.0.path()
    } else {
        inside
    };
    let script = format!("echo $$ > {folder}/begun; read x < {folder}/go");
    json!({"path": "/bin/sh", "args": ["sh", "-c", script]})
}

/// Starts the command, and waits until its hook has begun: the hook's words.
fn begin(failing: &Failing, mut command: Command) -> (Child, String) {
    let output = File::create(failing.path("output")).unwrap();
    command
        .stdin(Stdio::null())
        .stderr(output.try_clone().unwrap());
    let child = command.stdout(output).spawn().unwrap();
    (child, fs::read_to_string(failing.path("begun")).unwrap())
}

fn signal(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id().try_into().unwrap()), signal).unwrap();
}

fn a_signal_while_a_hook_runs_ends_create_and_nothing_is_left() {
    use Signal::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
    let hooks = [
        "prestart",
        "createRuntime",
        "createContainer",
        "createRuntime",
    ];
    for (name, number) in hooks.into_iter().zip([SIGHUP, SIGINT, SIGQUIT, SIGTERM]) {
        let (failing, mut create) = create_that_waits_for(name);
        signal(&create, number);
        assert!(!create.wait().unwrap().success());
        let line = failing.told_once();
        let words = format!("ended by {number} before the container was complete");
        assert!(line.ends_with(&words), "{name}: {line}");
        failing.nothing_is_left();
    }
}

fn a_signal_before_the_program_runs_ends_run_and_nothing_is_left() {
    for options in [&["--detach"][..], &[]] {
        let failing = Failing::new(|_| {});
        let hook = waiting_hook(&failing, "/hook");
        let folder = failing.path("");
        failing.0.edit(|config| {
            config["hooks"] = json!({"startContainer": [hook]});
            let bind = json!({"destination": "/hook", "source": folder, "options": ["rbind"]});
            config["mounts"].as_array_mut().unwrap().push(bind);
        });
        let words = failing.create(options);
        let mut command = Command::new(program());
        command.args(
            words
                .iter()
                .map(|word| if word == "create" { "run" } else { word }),
        );
        let (mut run, _) = begin(&failing, command);
        signal(&run, Signal::SIGTERM);
        assert!(!run.wait().unwrap().success());
        let told = fs::read_to_string(failing.path("output")).unwrap();
        assert!(told.contains("ended by SIGTERM"), "{told}");
        failing.nothing_is_left();
    }
}

fn a_signal_that_the_caller_ignores_does_not_end_create() {
    let failing = Failing::new(|_| {});
    let hook = waiting_hook(&failing, "");
    failing
        .0
        .edit(|config| config["hooks"] = json!({"createRuntime": [hook]}));
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' HUP INT && exec \"$@\"", "sh"]);
    command.arg(program()).args(failing.create(&[]));
    let (mut create, _) = begin(&failing, command);
    signal(&create, Signal::SIGHUP);
    signal(&create, Signal::SIGINT);
    fs::write(failing.path("go"), "on\n").unwrap();
    assert!(create.wait().unwrap().success());
    assert_eq!(failing.0.status(), "created");
}

/// A create whose hook of this name hangs.
fn create_that_waits_for(name: &str) -> (Failing, Child) {
    let failing = Failing::new(|_| {});
    let hook = waiting_hook(&failing, "");
    failing
        .0
        .edit(|config| config["hooks"] = json!({ name: [hook] }));
    // A shell has what it starts in the background ignore SIGINT and SIGQUIT, perhaps these tests.
    let mut command = Command::new("env");
    command.arg("--default-signal").arg(program());
    command.args(failing.create(&[]));
    let (create, _) = begin(&failing, command);
    (failing, create)
}

fn delete_by_force_ends_a_create_whose_hook_hangs() {
    for name in ["createRuntime", "createContainer"] {
        let (failing, mut create) = create_that_waits_for(name);
        let delete = ["delete", "--force", &failing.0.id];
        failing.0.parhelion(&delete).success();
        assert!(!create.wait().unwrap().success());
        failing.told_once();
        failing.nothing_is_left();
    }
}
