//! CVE-2019-19921 and CVE-2023-27561 (runc), CVE-2025-54867 (youki): the image's /proc or /sys is a link. What is mounted
//! there lies elsewhere, and /proc is the image's own to replace: with it what masks it, and what the runtime writes there.

use std::fs;
use std::os::unix::fs::symlink;

use libtest_mimic::Trial;
use serde_json::json;

use crate::subject::Subject;
use crate::support::tests;

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        a_link_at_proc_or_sys_makes_no_container,
        a_link_at_proc_or_sys_would_be_the_images_to_replace,
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
