//! Too little memory, for the container or for whoever makes it: a failure that says why or a process
//! that the kernel kills, and nothing is left.

use std::fs::{self, File};
use std::process::{Command, Stdio};

use libtest_mimic::Trial;
use serde_json::json;

use super::remains;
use crate::caller::{command, from_shell, wait_for_exit};
use crate::support::{Bundle, needs_controllers, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    needs_controllers(
        &["memory"],
        tests![
            a_container_with_too_little_memory_fails_and_leaves_nothing,
            a_caller_with_too_little_memory_fails_and_leaves_nothing,
        ],
    )
}

const KIB: i64 = 1024;

fn cgroup(bundle: &Bundle) -> String {
    format!("/sys/fs/cgroup/parhelion/{}", bundle.id)
}

fn nothing_is_left_after_delete(bundle: &Bundle, limit: i64) {
    bundle
        .parhelion(&["delete", "--force", &bundle.id])
        .success();
    assert!(
        !fs::exists(cgroup(bundle)).unwrap(),
        "{limit}: a cgroup is left"
    );
    let states = fs::read_dir(bundle.folder.join("state")).map_or(0, Iterator::count);
    assert_eq!(states, 0, "{limit}: state is left");
    remains::nothing_is_left(&bundle.folder, &bundle.id);
}

/// Runs it with its output in a file, as init's end of a pipe may outlive the command.
fn told_by(bundle: &Bundle, mut command: Command) -> (bool, String) {
    let path = bundle.folder.join("told");
    let file = File::create(&path).unwrap();
    command
        .stdin(Stdio::null())
        .stdout(file.try_clone().unwrap())
        .stderr(file);
    let status = command.status().unwrap();
    (status.success(), fs::read_to_string(path).unwrap())
}

fn a_container_with_too_little_memory_fails_and_leaves_nothing() {
    let (mut failed, mut started) = (0, 0);
    for limit in [4, 16, 32, 48, 64, 96, 128, 256, 512, 1024, 4096].map(|n| n * KIB) {
        let bundle = Bundle::new("sleep 1000");
        bundle.edit(|config| config["linux"]["resources"]["memory"] = json!({"limit": limit}));
        let words = ["run", "--detach", "--bundle", bundle.path(), &bundle.id];
        let (ended_well, told) = told_by(&bundle, command(&bundle, &words));
        if ended_well {
            started += 1;
        } else {
            failed += 1;
            assert_eq!(told.lines().count(), 1, "{limit}: {told}");
            assert!(
                told.starts_with(&format!("run {:?}: ", bundle.id)),
                "{limit}: {told}"
            );
            assert!(
                !fs::exists(cgroup(&bundle)).unwrap(),
                "{limit}: a cgroup is left"
            );
        }
        nothing_is_left_after_delete(&bundle, limit);
    }
    assert!(
        failed > 0 && started > 0,
        "{failed} failed, {started} started"
    );
}

fn a_caller_with_too_little_memory_fails_and_leaves_nothing() {
    let (mut failed, mut made) = (0, 0);
    for limit in [64, 128, 256, 384, 512, 640, 768, 1024, 1536, 4096].map(|n| n * KIB) {
        let bundle = Bundle::new("sleep 1000");
        let tiny = format!("/sys/fs/cgroup/parhelion-tiny-{}", bundle.id);
        fs::create_dir(&tiny).unwrap();
        // Without swap, which would be memory too.
        let script = format!(
            "echo $$ > {tiny}/cgroup.procs && {{ echo 0 > {tiny}/memory.swap.max || true; }} && \
             echo {limit} > {tiny}/memory.max && exec \"$@\""
        );
        let create = ["create", "--bundle", bundle.path(), &bundle.id];
        let (ended_well, _) = told_by(&bundle, from_shell(&bundle, &script, &create));
        if ended_well {
            made += 1;
            assert_eq!(bundle.status(), "created", "{limit}");
        } else {
            failed += 1;
        }
        nothing_is_left_after_delete(&bundle, limit);
        // A seed whose runtime was killed finds out by itself.
        let processes = fs::read_to_string(tiny.clone() + "/cgroup.procs").unwrap();
        processes
            .lines()
            .for_each(|pid| wait_for_exit(pid.parse().unwrap()));
        fs::remove_dir(&tiny).unwrap_or_else(|error| panic!("{limit}: {tiny}: {error}"));
    }
    assert!(failed > 0 && made > 0, "{failed} failed, {made} were made");
}
