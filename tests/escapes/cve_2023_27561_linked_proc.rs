//! CVE-2019-19921 and CVE-2023-27561 (runc), CVE-2025-54867 (youki): the image's /proc or /sys is a link. What is mounted
//! there lies elsewhere, and /proc is the image's own to replace: with it what masks it, and what the runtime writes there.

use std::fs;
use std::os::unix::fs::symlink;

use libtest_mimic::Trial;
use serde_json::json;

use crate::subject::Subject;
use crate::support::tests;
use crate::swapping::{AT_MOST, rounds, while_swapping};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        a_link_at_proc_or_sys_makes_no_container,
        a_link_at_proc_or_sys_would_be_the_images_to_replace,
        a_link_that_comes_and_goes_is_never_mounted_through,
        a_link_that_comes_and_goes_would_be_mounted_through,
    ]
}

/// What the container prints that puts something else in the place of the link, and the runtime's error.
fn run(subject: Subject, name: &str) -> (String, String) {
    let script = format!(
        "busybox rm /{name} && busybox mkdir /{name} && echo fake > /{name}/mine && cat /{name}/mine"
    );
    let bundle = subject.bundle(&script);
    let place = bundle.folder.join("rootfs").join(name);
    fs::remove_dir(&place).unwrap();
    symlink("/tmp/elsewhere", &place).unwrap();
    bundle.edit(|config| config["root"]["readonly"] = json!(false));
    let ran = bundle.run();
    let out = String::from_utf8_lossy(&ran.0.stdout).into_owned();
    (out, ran.stderr())
}

fn a_link_at_proc_or_sys_makes_no_container() {
    for name in ["proc", "sys"] {
        let (out, error) = run(Subject::Real, name);
        assert_eq!(out, "");
        let words = format!("\"/{name}\" is a link in the image");
        assert!(error.contains(&words), "{error}");
    }
}

fn a_link_at_proc_or_sys_would_be_the_images_to_replace() {
    for name in ["proc", "sys"] {
        let (out, error) = run(Subject::Without("plain-proc"), name);
        assert_eq!(out, "fake\n", "{error}");
    }
}

/// Whether /proc was mounted where a link leads that a neighbour, who shares the root, exchanges for it all the time.
fn is_mounted_through_a_link(subject: Subject, rounds: u32) -> bool {
    let bundle = subject.bundle("true");
    let rootfs = bundle.folder.join("rootfs");
    symlink("/tmp/elsewhere", rootfs.join("link")).unwrap();
    let seen = bundle.folder.join("seen");
    bundle.edit(|config| {
        // The mounts as they are before the root is entered.
        let look = "grep -c ' /tmp/elsewhere ' /proc/self/mountinfo";
        let script = format!("{look} >> {}; true", seen.display());
        let hook = json!({"path": "/bin/sh", "args": ["sh", "-c", script]});
        config["hooks"]["createContainer"] = json!([hook]);
    });
    let read = || fs::read_to_string(&seen).unwrap_or_default();
    while_swapping(&rootfs.join("proc"), &rootfs.join("link"), || {
        for _ in 0..rounds {
            bundle.run(); // it is refused when the link is met
            if read().contains('1') {
                break;
            }
        }
    });
    let seen = read();
    assert!(!seen.is_empty(), "no mounts were made in {rounds} rounds");
    seen.contains('1')
}

fn a_link_that_comes_and_goes_is_never_mounted_through() {
    assert!(!is_mounted_through_a_link(Subject::Real, 2 * rounds()));
}

fn a_link_that_comes_and_goes_would_be_mounted_through() {
    assert!(is_mounted_through_a_link(
        Subject::Without("plain-proc"),
        AT_MOST
    ));
}
