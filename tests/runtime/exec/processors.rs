//! On which processors the process begins and goes on: `process.execCPUAffinity`. Both hosts of these
//! tests have two processors at least.

use std::fs;

use libtest_mimic::Trial;
use serde_json::{Value, json};

use super::{changed, exec, in_user_namespace, refusal, running, sh};
use crate::caller::from_shell;
use crate::support::{Bundle, needs_controllers, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    let everywhere = tests![
        what_it_begins_on_it_goes_on_with,
        the_final_processors_win,
        the_affinity_of_config_json_is_not_that_of_a_file,
        processors_that_are_not_there_are_told,
        what_the_caller_is_bound_to_is_not_inherited,
    ];
    let limited = tests![the_cgroup_has_the_last_word];
    let limited = needs_controllers(&["cpuset"], limited);
    everywhere.into_iter().chain(limited).collect()
}

const SCRIPT: &str = "busybox grep Cpus_allowed_list /proc/self/status";

fn told(list: &str) -> String {
    format!("Cpus_allowed_list:\t{list}\n")
}

/// What this process may run on, as the runtime and its containers by inheritance.
fn own() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("Cpus_allowed_list:"));
    format!("{}\n", line.unwrap())
}

fn asks(affinity: Value) -> impl FnOnce(&mut Value) {
    move |config| config["process"]["execCPUAffinity"] = affinity
}

fn what_it_begins_on_it_goes_on_with() {
    for bundle in [
        changed(asks(json!({"initial": "1"}))),
        in_user_namespace(asks(json!({"initial": "1"}))),
    ] {
        assert_eq!(sh(&bundle, &[], SCRIPT), told("1"));
    }
    for nothing in [json!({}), json!({"initial": "", "final": ""})] {
        assert_eq!(sh(&changed(asks(nothing)), &[], SCRIPT), own());
    }
}

fn the_final_processors_win() {
    for bundle in [
        changed(asks(json!({"initial": "1", "final": "0"}))),
        changed(asks(json!({"final": "0"}))),
        in_user_namespace(asks(json!({"initial": "1", "final": "0"}))),
    ] {
        assert_eq!(sh(&bundle, &[], SCRIPT), told("0"));
    }
    let all = changed(asks(json!({"initial": "1", "final": "0-1, 8000"})));
    assert_eq!(sh(&all, &[], SCRIPT), told("0-1"));
}

fn what_the_caller_is_bound_to_is_not_inherited() {
    let bound = "exec taskset --cpu-list 1 \"$@\"";
    let run = Bundle::new(SCRIPT);
    let ran = from_shell(&run, bound, &["run", "--bundle", run.path(), &run.id])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&ran.stdout), own());
    let container = running();
    let arguments = ["exec", &container.id, "sh", "-c", SCRIPT];
    let ran = from_shell(&container, bound, &arguments).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&ran.stdout), own());
}

fn described(bundle: &Bundle, affinity: &Value) -> String {
    let process = json!({"args": ["/bin/sh", "-c", SCRIPT], "cwd": "/", "env": ["PATH=/bin"],
        "user": {"uid": 5, "gid": 5}, "execCPUAffinity": affinity});
    let file = bundle.folder.join("process.json");
    fs::write(&file, process.to_string()).unwrap();
    exec(bundle, &["--process", file.to_str().unwrap()], &[]).success()
}

fn the_affinity_of_config_json_is_not_that_of_a_file() {
    let bundle = changed(asks(json!({"initial": "1", "final": "1"})));
    assert_eq!(described(&bundle, &json!({"final": "0"})), told("0"));
    assert_eq!(described(&bundle, &json!(null)), own());
}

fn processors_that_are_not_there_are_told() {
    for field in ["initial", "final"] {
        let bundle = changed(asks(json!({ field: "8000" })));
        let error = refusal(&exec(&bundle, &[], &["/bin/true"]));
        let words = format!("process.execCPUAffinity.{field}: sched_setaffinity(");
        assert!(error.contains(&words), "{error}");
        assert!(error.contains(", 8000): invalid argument"), "{error}");
    }
}

/// A process that gets into the cgroup with no processor that this has goes on with all of its own.
fn the_cgroup_has_the_last_word() {
    let cpuset = |affinity: Value| {
        changed(|config| {
            config["linux"]["resources"]["cpu"] = json!({"cpus": "1"});
            asks(affinity)(config);
        })
    };
    assert_eq!(sh(&cpuset(json!({"initial": "0"})), &[], SCRIPT), told("1"));
    let none = cpuset(json!({"initial": "0", "final": "0"}));
    let error = refusal(&exec(&none, &[], &["/bin/true"]));
    assert!(
        error.contains("process.execCPUAffinity.final: sched_setaffinity("),
        "{error}"
    );
    assert_eq!(sh(&running(), &[], SCRIPT), own());
}
