//! CVE-2025-23266 (NVIDIA's toolkit): a hook on the host gets variables that the image chose, as LD_PRELOAD, and runs its
//! code as root. And none gets those of whoever called the runtime.

use std::fs;

use libtest_mimic::Trial;
use serde_json::json;

use crate::subject::Subject;
use crate::support::{Ran, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        hooks_get_their_own_environment_alone,
        hooks_would_get_the_images_and_the_callers_environment,
    ]
}

/// What hooks of both sides and all times find in their environment.
fn environments(subject: Subject) -> String {
    let bundle = subject.bundle("true");
    let file = bundle.folder.join("environments");
    bundle.edit(|config| {
        let env = config["process"]["env"].as_array_mut().unwrap();
        env.push(json!("OF_THE_IMAGE=chosen"));
        env.push(json!("LD_PRELOAD=/evil.so"));
        let script = format!("/usr/bin/env >> {}", file.display());
        let hook = json!({
            "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["DECLARED=yes"]
        });
        let names = [
            "prestart",
            "createRuntime",
            "createContainer",
            "poststart",
            "poststop",
        ];
        for name in names {
            config["hooks"][name] = json!([hook]);
        }
    });
    let mut run = bundle.command();
    run.args(["run", "--bundle", bundle.path(), &bundle.id]);
    Ran(run.env("OF_THE_CALLER", "secret").output().unwrap()).success();
    fs::read_to_string(file).unwrap()
}

fn hooks_get_their_own_environment_alone() {
    let found = environments(Subject::Real);
    assert_eq!(found.matches("DECLARED=yes").count(), 5, "{found}");
    for name in ["OF_THE_IMAGE", "LD_PRELOAD", "OF_THE_CALLER"] {
        assert!(!found.contains(name), "{found}");
    }
}

fn hooks_would_get_the_images_and_the_callers_environment() {
    let found = environments(Subject::Without("hook-environment"));
    for name in ["OF_THE_IMAGE=chosen", "LD_PRELOAD", "OF_THE_CALLER=secret"] {
        assert!(found.contains(name), "{name} not in {found}");
    }
}
