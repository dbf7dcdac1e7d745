//! What is refused before anything happens; criu is needed for none of it.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use libtest_mimic::Trial;

use super::{checkpoint, counter};
use crate::caller::command;
use crate::inside::Inside;
use crate::support::{Bundle, Ran, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        only_a_container_that_runs_can_be_written_down,
        a_missing_criu_is_named_with_its_package,
        a_program_is_asked_where_it_is_named,
        a_criu_that_is_too_old_is_named_with_its_version,
        a_criu_that_does_not_know_a_lock_is_named_with_its_version,
        a_criu_that_says_nothing_is_no_criu,
        flags_that_can_not_be_meant_are_refused,
        a_status_descriptor_must_be_open_for_writing,
    ]
}

fn only_a_container_that_runs_can_be_written_down() {
    let bundle = counter();
    let error = checkpoint(&bundle, &[]).failure();
    assert!(error.contains("does not exist"), "{error}");
    bundle.create().success();
    let error = checkpoint(&bundle, &[]).failure();
    assert!(
        error.contains("container cannot be checkpointed in created state"),
        "{error}"
    );
    bundle.parhelion(&["kill", &bundle.id, "KILL"]).success();
    crate::caller::wait_for_end(&bundle);
    let error = checkpoint(&bundle, &[]).failure();
    assert!(
        error.contains("container cannot be checkpointed in stopped state"),
        "{error}"
    );
}

/// A command with a PATH of one folder.
fn with_path(bundle: &Bundle, path: &str, arguments: &[&str]) -> Ran {
    Ran(command(bundle, arguments)
        .env("PATH", path)
        .output()
        .unwrap())
}

fn a_missing_criu_is_named_with_its_package() {
    let mut inside = Inside::of(counter());
    let id = inside.bundle.id.clone();
    let images = super::images(&inside.bundle);
    let error = with_path(
        &inside.bundle,
        "/nowhere",
        &["checkpoint", "--image-path", &images, &id],
    );
    let error = error.failure();
    assert!(
        error.contains("criu is not on PATH: install it (package criu"),
        "{error}"
    );
    assert_eq!(inside.ask("echo $i"), "1\n");
    let path = inside.bundle.path().to_owned();
    let error = with_path(
        &inside.bundle,
        "/nowhere",
        &["restore", "--bundle", &path, "other"],
    );
    let error = error.failure();
    assert!(error.contains("criu is not on PATH"), "{error}");
}

/// A program in the place of criu; bash, as sh can not name a descriptor of two digits, and not its
/// own printf, which sends lines one by one.
fn fake(bundle: &Bundle, script: &str) -> String {
    let folder = bundle.folder.join("fake");
    fs::create_dir(&folder).unwrap();
    let program = folder.join("criu");
    fs::write(&program, format!("#!/bin/bash\n{script}\n")).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    folder.to_str().unwrap().to_owned()
}

/// A script that answers as CRIU of version 3.MINOR.
fn of_version(minor: u8) -> String {
    // criu_resp: type 10, success, version.
    let answer = format!(r"\010\012\020\001\122\004\010\003\020\{minor:03o}");
    format!("/bin/dd bs=4096 count=1 <&$2 >/dev/null 2>&1; /usr/bin/printf '{answer}' >&$2")
}

fn a_criu_that_does_not_know_a_lock_is_named_with_its_version() {
    let mut inside = Inside::of(counter());
    let path = fake(&inside.bundle, &of_version(18));
    let id = inside.bundle.id.clone();
    let arguments = ["checkpoint", "--network-lock", "skip", &id];
    let error = with_path(&inside.bundle, &path, &arguments).failure();
    let words = format!("--network-lock: {path}/criu is of version 3.18: 3.19 or newer is needed");
    assert!(error.contains(&words), "{error}");
    assert_eq!(inside.ask("echo $i"), "1\n");
}

fn a_program_is_asked_where_it_is_named() {
    let bundle = counter();
    let program = format!("{}/criu", fake(&bundle, &of_version(14)));
    let restore = ["restore", "--bundle", bundle.path(), &bundle.id];
    let asked = |named: &str| {
        let words = [&["--criu", named], &restore[..]].concat();
        with_path(&bundle, "/nowhere", &words).failure()
    };
    let error = asked(&program);
    assert!(
        error.contains(&format!("{program} is of version 3.14")),
        "{error}"
    );
    let error = asked("/nowhere/criu");
    assert!(
        error.contains(r#"--criu "/nowhere/criu": no such program"#),
        "{error}"
    );
}

fn a_criu_that_is_too_old_is_named_with_its_version() {
    let bundle = counter();
    let path = fake(&bundle, &of_version(15));
    let error = with_path(
        &bundle,
        &path,
        &["restore", "--bundle", bundle.path(), &bundle.id],
    );
    let error = error.failure();
    let words = format!("{path}/criu is of version 3.15: 3.16 or newer is needed");
    assert!(error.contains(&words), "{error}");
}

fn a_criu_that_says_nothing_is_no_criu() {
    let bundle = counter();
    let path = fake(&bundle, "exit 3");
    let error = with_path(
        &bundle,
        &path,
        &["restore", "--bundle", bundle.path(), &bundle.id],
    );
    let error = error.failure();
    assert!(error.contains("/fake/criu: it has ended"), "{error}");
}

fn flags_that_can_not_be_meant_are_refused() {
    let bundle = counter();
    let refused: [(&[&str], &str); 5] = [
        (&["--network-lock", "none"], "none"),
        (&["--page-server", "10.0.0.1"], "must be ADDRESS:PORT"),
        (&["--manage-cgroups-mode", "hard"], "hard"),
        (&["--empty-ns", "pid"], "pid"),
        (&["--status-fd", "x"], "--status-fd"),
    ];
    for (flags, words) in refused {
        let error = checkpoint(&bundle, flags).failure();
        assert!(error.contains(words), "{flags:?}: {error}");
    }
}

fn a_status_descriptor_must_be_open_for_writing() {
    let mut inside = Inside::of(counter());
    for (number, words) in [("77", "--status-fd 77"), ("-7", "--status-fd -7")] {
        let error = checkpoint(&inside.bundle, &["--status-fd", number]).failure();
        assert!(error.contains(words), "{error}");
    }
    let arguments = ["checkpoint", "--status-fd", "5", &inside.bundle.id];
    let script = "exec 5</dev/null; exec \"$@\"";
    let ran = crate::caller::from_shell(&inside.bundle, script, &arguments).output();
    let error = Ran(ran.unwrap()).failure();
    assert!(
        error.contains("--status-fd 5: it can not be written to"),
        "{error}"
    );
    assert_eq!(inside.ask("echo $i"), "1\n");
}
