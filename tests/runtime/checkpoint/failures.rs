//! What fails half-way: a checkpoint that leaves the container as it was, a restore that leaves nothing.

use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::process::Stdio;

use libtest_mimic::Trial;
use rustix::process::Signal;
use serde_json::json;

use super::{checkpoint, counter, counting, images, is_gone, restore, restoring};
use crate::caller::{Running, from_shell, init_pid};
use crate::inside::Inside;
use crate::support::{Bundle, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        a_checkpoint_that_fails_leaves_the_container_running_and_names_its_log,
        options_of_the_annotations_file_are_taken,
        processes_below_the_containers_cgroup_are_not_written_down,
        the_logs_are_in_the_work_path,
        an_id_that_is_taken_is_not_restored,
        a_restore_that_fails_leaves_nothing_and_names_its_log,
        a_runtime_that_is_killed_while_it_restores_leaves_what_delete_removes,
        a_restore_that_is_asked_to_end_leaves_nothing,
    ]
}

fn processes_below_the_containers_cgroup_are_not_written_down() {
    for name in ["run.oci.systemd.subgroup", "run.oci.delegate-cgroup"] {
        let bundle = counter();
        bundle.edit(|config| config["annotations"] = json!({ name: "below" }));
        let mut inside = Inside::of(bundle);
        let error = checkpoint(&inside.bundle, &[]).failure();
        let told = format!("annotations[\"{name}\"]: criu puts the processes of a container into");
        assert!(error.contains(&told), "{error}");
        assert_eq!(inside.ask("echo here"), "here\n");
    }
    // Nor brought back, if that was asked for only later.
    let inside = Inside::of(counter());
    checkpoint(&inside.bundle, &[]).success();
    inside.bundle.edit(|config| {
        config["annotations"] = json!({ "run.oci.systemd.subgroup": "below" });
    });
    let error = restore(&inside.bundle, &[]).failure();
    let told = "annotations[\"run.oci.systemd.subgroup\"]: criu puts";
    assert!(error.contains(told), "{error}");
    assert!(is_gone(&inside.bundle));
}

fn a_checkpoint_that_fails_leaves_the_container_running_and_names_its_log() {
    let mut inside = Inside::of(counter());
    inside.ask(&super::network::talk());
    let pid = init_pid(&inside.bundle);
    let error = checkpoint(&inside.bundle, &[]).failure();
    let log = format!("{}/dump.log", images(&inside.bundle));
    assert!(error.contains("criu: Error ("), "{error}");
    assert!(error.contains(&format!("(see {log})")), "{error}");
    assert!(fs::read_to_string(log).unwrap().contains("Error"));
    assert_eq!(init_pid(&inside.bundle), pid);
    assert_eq!(inside.bundle.status(), "running");
    assert_eq!(inside.ask("echo here"), "here\n");
}

fn options_of_the_annotations_file_are_taken() {
    let bundle = counter();
    let file = bundle.folder.join("criu.conf");
    fs::write(&file, "leave-running\n").unwrap();
    bundle.edit(|config| config["annotations"] = json!({"org.criu.config": file}));
    let mut inside = Inside::of(bundle);
    let pid = init_pid(&inside.bundle);
    checkpoint(&inside.bundle, &["--pre-dump"]).success();
    fs::write(&file, "no-such-option\n").unwrap();
    checkpoint(&inside.bundle, &[]).failure();
    assert_eq!(init_pid(&inside.bundle), pid);
    assert_eq!(inside.ask("echo here"), "here\n");
}

fn the_logs_are_in_the_work_path() {
    let mut inside = counting();
    let work = format!("{}/a/work", inside.bundle.path());
    checkpoint(&inside.bundle, &["--work-path", &work]).success();
    restore(&inside.bundle, &["--work-path", &work]).success();
    for log in ["dump.log", "restore.log"] {
        assert!(fs::metadata(format!("{work}/{log}")).is_ok(), "{log}");
        assert!(fs::metadata(format!("{}/{log}", images(&inside.bundle))).is_err());
    }
    assert_eq!(inside.ask("echo $i"), "2\n");
}

fn an_id_that_is_taken_is_not_restored() {
    let mut inside = counting();
    checkpoint(&inside.bundle, &["--leave-running"]).success();
    let error = restore(&inside.bundle, &[]).failure();
    assert!(error.contains("already exists"), "{error}");
    assert_eq!(inside.ask("echo $i"), "2\n");
}

fn a_restore_that_fails_leaves_nothing_and_names_its_log() {
    let inside = counting();
    checkpoint(&inside.bundle, &[]).success();
    let images = images(&inside.bundle);
    fs::write(format!("{images}/inventory.img"), "no image").unwrap();
    let error = restore(&inside.bundle, &[]).failure();
    assert!(error.contains("criu: Error ("), "{error}");
    assert!(
        error.contains(&format!("(see {images}/restore.log)")),
        "{error}"
    );
    assert!(is_gone(&inside.bundle));
}

/// Images of a container, and a bundle whose restore waits for a hook that never ends; the hook's start
/// is told to the FIFO.
fn held_up() -> (Inside, fs::File) {
    let inside = counting();
    checkpoint(&inside.bundle, &[]).success();
    let fifo = inside.bundle.folder.join("hook");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, 0o600.into()).unwrap();
    let both = fs::File::options()
        .read(true)
        .write(true)
        .custom_flags(0)
        .open(&fifo);
    let script = format!("echo here >{}; exec sleep 1000", fifo.display());
    inside.bundle.edit(|config| {
        let hook = json!({"path": "/bin/sh", "args": ["sh", "-c", script],
            "env": ["PATH=/bin:/usr/bin"]});
        config["hooks"]["createRuntime"] = json!([hook]);
    });
    (inside, both.unwrap())
}

fn start_held_up(bundle: &Bundle, mut started: fs::File) -> Running {
    let arguments = restoring(bundle, &[], &bundle.id);
    // Its output was a file, which no pipe can be.
    let script = format!("exec \"$@\" >>{}/output", bundle.path());
    let mut restore = from_shell(bundle, &script, &arguments);
    let running = Running::spawn(&mut restore, Stdio::null());
    crate::caller::wait_readable(&started);
    let mut told = [0; 5];
    std::io::Read::read_exact(&mut started, &mut told).unwrap();
    running
}

fn a_runtime_that_is_killed_while_it_restores_leaves_what_delete_removes() {
    let (inside, started) = held_up();
    let mut running = start_held_up(&inside.bundle, started);
    running.signal(Signal::KILL);
    assert_eq!(running.end().0.code(), None);
    assert_eq!(inside.bundle.status(), "creating");
    inside
        .bundle
        .parhelion(&["delete", "--force", &inside.bundle.id])
        .success();
    assert!(is_gone(&inside.bundle));
    inside.bundle.edit(|config| config["hooks"] = json!({}));
    restore(&inside.bundle, &[]).success();
    assert_eq!(inside.bundle.status(), "running");
}

fn a_restore_that_is_asked_to_end_leaves_nothing() {
    let (inside, started) = held_up();
    let mut running = start_held_up(&inside.bundle, started);
    running.signal(Signal::TERM);
    let (status, _, errors) = running.end();
    assert_eq!(status.code(), Some(1));
    assert!(
        errors.contains("ended by SIGTERM before the container was restored"),
        "{errors}"
    );
    assert!(is_gone(&inside.bundle));
}
