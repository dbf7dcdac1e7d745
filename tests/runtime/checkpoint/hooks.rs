//! Hooks: those of the runtime's namespaces run at a restore, as with runc; poststop at the end.

use std::fs;

use libtest_mimic::Trial;
use serde_json::json;

use super::{checkpoint, counter, restore};
use crate::caller::init_pid;
use crate::inside::Inside;
use crate::support::tests;

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![hooks_of_the_runtime_run_around_checkpoint_and_restore]
}

fn hooks_of_the_runtime_run_around_checkpoint_and_restore() {
    let bundle = counter();
    let seen = bundle.folder.join("seen");
    bundle.edit(|config| {
        for name in ["prestart", "createRuntime", "poststart", "poststop"] {
            let script = format!("read -r state; echo {name} $state >>{}", seen.display());
            config["hooks"][name] = json!([{"path": "/bin/sh", "args": ["sh", "-c", script]}]);
        }
        for name in ["createContainer", "startContainer"] {
            config["hooks"][name] = json!([{"path": "/bin/sh",
                "args": ["sh", "-c", format!("echo {name} >>/tmp/seen")]}]);
        }
        // createContainer sees the host's files; its own must not be there.
        config["hooks"]["createContainer"] = json!([]);
    });
    let mut inside = Inside::of(bundle);
    let names = || {
        let text = fs::read_to_string(&seen).unwrap();
        let names = text
            .lines()
            .map(|line| line.split(' ').next().unwrap().to_owned());
        names.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(names(), "prestart createRuntime poststart");
    assert_eq!(inside.ask("cat /tmp/seen"), "startContainer\n");
    checkpoint(&inside.bundle, &[]).success();
    assert_eq!(names(), "prestart createRuntime poststart poststop");
    fs::remove_file(&seen).unwrap();
    restore(&inside.bundle, &[]).success();
    assert_eq!(names(), "prestart createRuntime");
    let text = fs::read_to_string(&seen).unwrap();
    let pid = format!("\"pid\":{},", init_pid(&inside.bundle));
    for line in text.lines() {
        assert!(
            line.contains("\"status\":\"creating\"") && line.contains(&pid),
            "{line}"
        );
    }
    assert_eq!(inside.ask("cat /tmp/seen"), "startContainer\n");
}
