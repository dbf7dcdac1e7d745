//! What is told of containers: state, list, ps.

use std::fs;
use std::process::Stdio;

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::caller::{command, init_pid, start, state, wait_for_end};
use crate::support::{Bundle, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        state_has_runcs_fields_in_runcs_order,
        list_prints_a_table,
        list_prints_json,
        list_prints_ids,
        a_broken_record_does_not_hide_the_others,
        ps_prints_a_table_with_the_options_given,
        ps_prints_pids_as_json,
    ]
}

fn state_has_runcs_fields_in_runcs_order() {
    let bundle = Bundle::new("sleep 1000");
    bundle.edit(|config| config["annotations"] = json!({"a": "b"}));
    bundle.create().success();
    let text = bundle.verb("state").success();
    let fields = [
        "ociVersion",
        "id",
        "pid",
        "status",
        "bundle",
        "rootfs",
        "created",
        "annotations",
        "owner",
    ];
    let found: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("  \""))
        .map(|line| {
            line.trim_start()
                .trim_start_matches('"')
                .split('"')
                .next()
                .unwrap()
        })
        .collect();
    assert_eq!(found, fields);
    let state = state(&bundle);
    assert_eq!(state["id"], json!(bundle.id));
    assert_eq!(state["rootfs"], json!(format!("{}/rootfs", bundle.path())));
    assert_eq!(state["owner"], "root");
    let pid = state["pid"].as_i64().unwrap();
    assert!(fs::metadata(format!("/proc/{pid}")).is_ok());
}

fn list_prints_a_table() {
    let bundle = Bundle::new("sleep 1000");
    let empty = "ID          PID         STATUS      BUNDLE      CREATED     OWNER\n";
    assert_eq!(bundle.parhelion(&["list"]).success(), empty);
    start(&bundle);
    let table = bundle.parhelion(&["list"]).success();
    let rows: Vec<Vec<&str>> = table
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    let state = state(&bundle);
    let pid = state["pid"].to_string();
    let created = state["created"].as_str().unwrap();
    let row = [&bundle.id, &*pid, "running", bundle.path(), created, "root"];
    assert_eq!(rows, [empty.split_whitespace().collect(), row.to_vec()]);
    // Columns stand below their names.
    let mut lines = table.lines();
    let (head, line) = (lines.next().unwrap(), lines.next().unwrap());
    assert_eq!(head.find("STATUS"), line.find("running"));
    assert_eq!(head.find("OWNER"), line.rfind("root"));
}

fn list_prints_json() {
    let bundle = Bundle::new("sleep 1000");
    assert_eq!(
        bundle.parhelion(&["list", "--format", "json"]).success(),
        "[]\n"
    );
    start(&bundle);
    let text = bundle.parhelion(&["list", "-f", "json"]).success();
    let listed: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(listed, json!([state(&bundle)]));
    assert_eq!(text.lines().count(), 1);
}

fn list_prints_ids() {
    let bundle = Bundle::new("sleep 1000");
    bundle.create().success();
    let other = format!("{}-other", bundle.id);
    let mut create = command(&bundle, &["create", "--bundle", bundle.path(), &other]);
    let null = || Stdio::null();
    let created = create.stdin(null()).stdout(null()).stderr(null()).status();
    assert!(created.unwrap().success());
    for flag in ["--quiet", "-q"] {
        let ids = bundle.parhelion(&["list", flag]).success();
        assert_eq!(ids, format!("{}\n{other}\n", bundle.id));
    }
    bundle.parhelion(&["delete", "--force", &other]).success();
}

fn a_broken_record_does_not_hide_the_others() {
    let bundle = Bundle::new("sleep 1000");
    bundle.create().success();
    let root = bundle.folder.join("state");
    for (name, text) in [("broken", "{"), ("empty", ""), ("foreign", "{\"x\": 1}")] {
        fs::create_dir(root.join(name)).unwrap();
        fs::write(root.join(name).join("state.json"), text).unwrap();
    }
    fs::write(root.join("a-file"), "").unwrap();
    let listed = bundle.parhelion(&["list", "--quiet"]);
    assert_eq!(listed.success(), format!("{}\n", bundle.id));
    for name in ["broken", "empty", "foreign"] {
        let words = format!("warning: list \"{name}\": ");
        assert!(listed.stderr().contains(&words), "{}", listed.stderr());
    }
}

fn ps_prints_a_table_with_the_options_given() {
    let bundle = Bundle::new("sleep 1000 & sleep 1001");
    start(&bundle);
    let pid = init_pid(&bundle).to_string();
    let all = bundle.parhelion(&["ps", &bundle.id]).success();
    let (table, head) = (&all, all.lines().next().unwrap());
    assert!(head.starts_with("UID") && head.ends_with("CMD"), "{table}");
    let shell = |line: &str| line.split_whitespace().nth(1) == Some(&pid);
    assert!(table.lines().any(shell), "{pid} in {table}");
    let own = std::process::id().to_string();
    assert!(!table.split_whitespace().any(|word| word == own), "{table}");
    let table = bundle
        .parhelion(&["ps", &bundle.id, "-e", "-o", "pid,args"])
        .success();
    let mut lines = table.lines();
    assert_eq!(
        lines.next().unwrap().split_whitespace().collect::<Vec<_>>(),
        ["PID", "COMMAND"]
    );
    assert!(table.contains(&pid), "{table}");
    // What follows the id is ps(1)'s, also where it looks like ours.
    let full = bundle.parhelion(&["ps", &bundle.id, "-e", "-f"]).success();
    assert_eq!(full.lines().next(), Some(head), "{full}");
    let error = bundle
        .parhelion(&["ps", &bundle.id, "-e", "-o", "args"])
        .failure();
    assert!(error.contains("no column PID"), "{error}");
}

fn ps_prints_pids_as_json() {
    let bundle = Bundle::new("sleep 1000 & echo ready; wait");
    start(&bundle);
    let pid = init_pid(&bundle);
    let pids = |bundle: &Bundle| -> Vec<i32> {
        let text = bundle.parhelion(&["ps", "--format", "json", &bundle.id]);
        serde_json::from_str(&text.success()).unwrap()
    };
    let all = pids(&bundle);
    assert!(
        all.contains(&pid) && all.iter().all(|pid| *pid > 1),
        "{all:?}"
    );
    bundle.parhelion(&["kill", &bundle.id, "KILL"]).success();
    wait_for_end(&bundle);
    bundle
        .parhelion(&["kill", "--all", &bundle.id, "KILL"])
        .success();
    assert_eq!(bundle.status(), "stopped");
}
