//! What is told of a failure, to people and in the log.

use std::fs;

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::support::{Bundle, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        errors_are_one_line_for_people_and_one_in_the_log,
        the_log_in_json_has_exactly_the_keys_that_callers_read,
        the_log_in_text_is_as_logrus_writes,
        the_log_has_the_plan_when_debugging,
        a_wrong_command_line_is_in_the_log_too,
    ]
}

/// What a verb that fails writes to stderr and to the log in this format.
fn failure_with_log(format: &str) -> (String, String) {
    let bundle = Bundle::new("");
    bundle.edit(|config| config["process"]["args"] = json!(["no-such\nprogram \"x\""]));
    let log = bundle.folder.join("log");
    let flags = ["--log", log.to_str().unwrap(), "--log-format", format];
    let arguments = [&flags[..], &["run", "--bundle", bundle.path(), &bundle.id]].concat();
    let ran = bundle.parhelion(&arguments);
    assert_eq!(ran.code(), Some(1));
    (ran.failure(), fs::read_to_string(log).unwrap())
}

fn errors_are_one_line_for_people_and_one_in_the_log() {
    for format in ["json", "text"] {
        let (error, log) = failure_with_log(format);
        assert_eq!(error.lines().count(), 1, "{error}");
        assert!(error.starts_with("run \"test-"), "{error}");
        assert_eq!(log.lines().count(), 1, "{log}");
        assert!(log.ends_with('\n'));
    }
}

fn the_log_in_json_has_exactly_the_keys_that_callers_read() {
    let (error, log) = failure_with_log("json");
    let line: Value = serde_json::from_str(&log).unwrap();
    let keys: Vec<&String> = line.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["level", "msg", "time"]);
    assert_eq!(line["level"], "error");
    assert_eq!(line["msg"], error.trim_end());
    let time = line["time"].as_str().unwrap();
    assert!(
        time.len() >= 20 && time.ends_with('Z') && time.contains('T'),
        "{time}"
    );
}

fn the_log_in_text_is_as_logrus_writes() {
    let (_, log) = failure_with_log("text");
    assert!(log.starts_with("time=\"2"), "{log}");
    assert!(log.contains("Z\" level=error msg=\"run "), "{log}");
}

/// For callers who read nothing else, as containerd.
fn a_wrong_command_line_is_in_the_log_too() {
    let bundle = Bundle::new("");
    let log = bundle.folder.join("log");
    let path = log.to_str().unwrap();
    let flags = ["--log", path, "--log-format", "json"];
    let wrong = ["create", "--no-such-flag", &bundle.id];
    let ran = bundle.parhelion(&[&flags[..], &wrong].concat());
    assert_eq!(ran.code(), Some(1));
    let line: Value = serde_json::from_slice(&fs::read(&log).unwrap()).unwrap();
    assert_eq!(line["level"], "error");
    assert_eq!(line["msg"], "unexpected argument '--no-such-flag' found");
    let help = [&flags[..], &["create", "--help"]].concat();
    fs::remove_file(&log).unwrap();
    bundle.parhelion(&help).success();
    assert!(!log.exists());
}

fn the_log_has_the_plan_when_debugging() {
    let bundle = Bundle::new("exit 0");
    let log = bundle.folder.join("log");
    let flags = [
        "--debug",
        "--log-format=json",
        "--log",
        log.to_str().unwrap(),
    ];
    let run = ["run", "--bundle", bundle.path(), &bundle.id];
    let ran = bundle.parhelion(&[&flags[..], &run].concat());
    ran.success();
    assert_eq!(ran.stderr(), "");
    let log = fs::read_to_string(log).unwrap();
    let lines: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let plan = lines
        .iter()
        .find(|line| line["msg"].as_str().unwrap().starts_with("plan:"));
    let plan = plan.unwrap();
    assert_eq!(plan["level"], "debug");
    assert!(plan["msg"].as_str().unwrap().contains("proc"), "{plan}");
    // And without the flag there is nothing to say.
    let quiet = bundle.folder.join("quiet");
    let flags = ["--log", quiet.to_str().unwrap()];
    bundle.parhelion(&[&flags[..], &run].concat()).success();
    assert!(!quiet.exists());
}
