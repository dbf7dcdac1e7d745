//! Checkpoints as containerd and Docker make them, by their own commands. (Podman's are in `podman`.)

use std::path::Path;

use libtest_mimic::Trial;

use super::containerd::Task;
use super::docker::{Container, docker};
use super::{ask, call};
use crate::support::{Ran, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        containerd_makes_a_checkpoint_and_restores_it,
        containerd_ends_a_task_with_a_checkpoint,
        docker_makes_checkpoints_and_starts_from_one,
    ]
}

/// A program that says again and again who it is, by a word of its memory, and how often it has said so.
const SCRIPT: &str = "me=$(cat /proc/sys/kernel/random/uuid); i=0; while :; do i=$((i + 1)); \
    echo $me $i >/tmp/new; busybox mv /tmp/new /tmp/said; sleep 0.2; done";

/// What the program says from now on, as soon as it does.
fn says(exec: &mut dyn FnMut(&[&str]) -> Ran) -> (String, u32) {
    let wait =
        "busybox rm -f /tmp/said; until test -e /tmp/said; do sleep 0.1; done; cat /tmp/said";
    let said = exec(&["sh", "-c", wait]).success();
    let (who, count) = said.trim_end().split_once(' ').unwrap();
    (who.to_owned(), count.parse().unwrap())
}

/// Executions in a task, each with a name of its own.
fn executions(task: &Task) -> impl FnMut(&[&str]) -> Ran {
    let mut number = 0;
    move |command| {
        number += 1;
        task.exec(&[], &format!("exec-{number}"), command)
    }
}

fn containerd_makes_a_checkpoint_and_restores_it() {
    let task = Task::running("saved", &[], SCRIPT);
    let before = says(&mut executions(&task));
    let make = [
        "ctr",
        "containers",
        "checkpoint",
        "--rw",
        "--image",
        "--task",
    ];
    ask(&[&make[..], &["saved", "localhost/saved:1"]].concat());
    assert_eq!(task.status(), "RUNNING");
    let after = says(&mut executions(&task));
    assert!(
        after.0 == before.0 && after.1 > before.1,
        "{before:?} {after:?}"
    );
    drop(task);
    let restore = ["ctr", "containers", "restore", "--rw", "--live"];
    let restored = call(&[&restore[..], &["saved", "localhost/saved:1"]].concat());
    let task = Task("saved");
    restored.success();
    assert_eq!(task.status(), "RUNNING");
    let again = says(&mut executions(&task));
    assert!(
        again.0 == before.0 && again.1 > before.1,
        "{before:?} {again:?}"
    );
}

fn containerd_ends_a_task_with_a_checkpoint() {
    let task = Task::running("ended", &[], SCRIPT);
    let images = std::env::temp_dir().join("parhelion-ctr-images");
    std::fs::create_dir_all(&images).unwrap();
    let path = images.to_str().unwrap();
    let make = ["ctr", "task", "checkpoint", "--exit", "--image-path", path];
    ask(&[&make[..], &["ended"]].concat());
    assert_eq!(task.status(), "STOPPED");
    assert!(Path::new(path).join("inventory.img").exists());
    std::fs::remove_dir_all(images).unwrap();
}

/// Has containerd remove what nothing refers to in Docker's namespace, and waits for it: the end of a lease asks for
/// that. Docker reads a checkpoint back into containerd at its start, and fails if what `checkpoint create` has left
/// there has not been collected yet (moby issue 42900).
fn collect_garbage() {
    let leases = ["ctr", "--namespace", "moby", "leases"];
    ask(&[&leases[..], &["create", "--id", "collected"]].concat());
    ask(&[&leases[..], &["delete", "--sync", "collected"]].concat());
}

fn docker_makes_checkpoints_and_starts_from_one() {
    let container = Container::start("saves", &[], SCRIPT);
    let mut exec = |command: &[&str]| container.exec(command);
    let before = says(&mut exec);
    docker(&["checkpoint", "create", "--leave-running", "saves", "first"]);
    let between = says(&mut exec);
    assert!(
        between.0 == before.0 && between.1 > before.1,
        "{before:?} {between:?}"
    );
    docker(&["checkpoint", "create", "saves", "second"]);
    assert_eq!(container.inspect("{{.State.Status}}"), "exited");
    let all = docker(&["checkpoint", "ls", "saves"]);
    assert_eq!(all, "CHECKPOINT NAME\nfirst\nsecond");
    collect_garbage();
    docker(&["start", "--checkpoint", "second", "saves"]);
    assert_eq!(container.inspect("{{.State.Status}}"), "running");
    let again = says(&mut exec);
    assert!(
        again.0 == before.0 && again.1 > between.1,
        "{between:?} {again:?}"
    );
    docker(&["stop", "--time", "0", "saves"]);
    assert_eq!(container.inspect("{{.State.Status}}"), "exited");
}
