//! CVE-2026-57231 (Podman), CVE-2021-3602 (Buildah): a variable that an image names without a value, or by a pattern, gets
//! the value that it has for whoever calls the runtime.

use std::fs;

use libtest_mimic::Trial;
use serde_json::json;

use crate::caller::start;
use crate::subject::Subject;
use crate::support::{Bundle, Ran, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        a_variable_without_a_value_does_not_get_the_callers,
        a_variable_would_get_the_callers_value,
    ]
}

/// The caller's variable, and entries by which an image may ask for it.
const NAME: &str = "OF_THE_CALLER";
const VALUE: &str = "secret-of-the-host";
const ENTRIES: [&str; 6] = [
    "OF_THE_CALLER",
    "OF_THE*",
    "*",
    "OF_THE_CALLER=",
    "OTHER=$OF_THE_CALLER",
    "OTHER=${OF_THE_CALLER}",
];

/// What the caller hears of a command, variables of the program's among it.
fn heard(bundle: &Bundle, words: &[&str]) -> String {
    let mut command = bundle.command();
    let ran = Ran(command.args(words).env(NAME, VALUE).output().unwrap());
    format!("{}{}", String::from_utf8_lossy(&ran.0.stdout), ran.stderr())
}

/// The same for a new container and for exec, whose process is described in a file or by a flag.
fn environments(subject: Subject, entry: &str) -> Vec<String> {
    let new = subject.bundle("/bin/busybox env");
    new.edit(|config| {
        let env = config["process"]["env"].as_array_mut().unwrap();
        env.push(json!(entry));
    });
    let run = heard(&new, &["run", "--bundle", new.path(), &new.id]);
    let joined = subject.bundle("sleep 100000");
    start(&joined);
    let file = joined.folder.join("process.json");
    let args = ["/bin/busybox", "env"];
    let user = json!({"uid": 0, "gid": 0});
    let process = json!({"args": args, "cwd": "/", "env": [entry], "user": user});
    fs::write(&file, process.to_string()).unwrap();
    let described = ["exec", "--process", file.to_str().unwrap(), &joined.id];
    let described = heard(&joined, &described);
    let flag = [&["exec", "--env", entry, &joined.id][..], &args].concat();
    vec![run, described, heard(&joined, &flag)]
}

fn a_variable_without_a_value_does_not_get_the_callers() {
    for entry in ENTRIES {
        for said in environments(Subject::Real, entry) {
            assert!(!said.contains(VALUE), "{entry}: {said}");
            // It is refused, or the variable is what was written.
            let literal = said.lines().any(|line| line == entry);
            assert!(literal || said.contains("NAME=VALUE"), "{entry}: {said}");
        }
    }
}

fn a_variable_would_get_the_callers_value() {
    for said in environments(Subject::Without("environment"), "OTHER=1") {
        assert!(said.contains(&format!("{NAME}={VALUE}")), "{said}");
    }
}
