//! Time namespaces: their clocks.

use std::fs;

use libtest_mimic::Trial;
use serde_json::json;

use super::{enter, host};
use crate::support::{Bundle, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        clocks_are_moved_by_their_offsets,
        a_time_namespace_without_offsets_has_the_hosts_clocks,
        offsets_without_sense_are_refused,
        an_offset_that_the_kernel_does_not_take_is_told,
        hooks_of_the_runtime_keep_the_hosts_clocks,
    ]
}

const PRINT: &str = "cat /proc/self/timens_offsets /proc/uptime";

fn clocks_are_moved_by_their_offsets() {
    let bundle = Bundle::new(PRINT);
    enter(&bundle, "time", None);
    bundle.edit(|config| {
        config["linux"]["timeOffsets"] = json!({
            "monotonic": {"secs": 1_000_000, "nanosecs": 500_000_000},
            "boottime": {"secs": 2_000_000},
        });
    });
    let before = uptime(&fs::read_to_string("/proc/uptime").unwrap());
    let seen = bundle.run().success();
    let words: Vec<&str> = seen.split_whitespace().collect();
    assert_eq!(words[..3], ["monotonic", "1000000", "500000000"]);
    assert_eq!(words[3..6], ["boottime", "2000000", "0"]);
    let passed = uptime(words[6]) - before - 2_000_000.0;
    assert!((0.0..600.0).contains(&passed), "{before}: {seen}");
}

fn uptime(text: &str) -> f64 {
    text.split_whitespace().next().unwrap().parse().unwrap()
}

fn a_time_namespace_without_offsets_has_the_hosts_clocks() {
    let bundle = Bundle::new(PRINT);
    enter(&bundle, "time", None);
    let before = uptime(&fs::read_to_string("/proc/uptime").unwrap());
    let seen = bundle.run().success();
    let words: Vec<&str> = seen.split_whitespace().collect();
    assert_eq!(words[..6], ["monotonic", "0", "0", "boottime", "0", "0"]);
    assert!(
        (0.0..600.0).contains(&(uptime(words[6]) - before)),
        "{seen}"
    );
}

fn offsets_without_sense_are_refused() {
    let bundle = Bundle::new("true");
    bundle.edit(|config| {
        config["linux"]["timeOffsets"] = json!({"monotonic": {"secs": 1}});
    });
    let error = bundle.create().failure();
    let expected = "linux.timeOffsets: needs a namespace of type time";
    assert!(error.contains(expected), "{error}");
    enter(&bundle, "time", None);
    bundle.edit(|config| {
        config["linux"]["timeOffsets"] =
            json!({"realtime": {"secs": 1}, "monotonic": {"nanosecs": 1_000_000_000}});
    });
    let error = bundle.create().failure();
    for expected in [
        "linux.timeOffsets.realtime: unknown name: use boottime or monotonic",
        "linux.timeOffsets.monotonic.nanosecs: must be a whole number",
    ] {
        assert!(error.contains(expected), "{expected:?} is not in {error}");
    }
}

fn an_offset_that_the_kernel_does_not_take_is_told() {
    let bundle = Bundle::new("true");
    enter(&bundle, "time", None);
    bundle.edit(|config| {
        // Before the host's boot.
        config["linux"]["timeOffsets"] = json!({"boottime": {"secs": -9_000_000_000_i64}});
    });
    let error = bundle.create().failure();
    assert!(error.contains("linux.timeOffsets"), "{error}");
    assert!(bundle.verb("state").failure().contains("does not exist"));
}

fn hooks_of_the_runtime_keep_the_hosts_clocks() {
    let bundle = Bundle::new("true");
    enter(&bundle, "time", None);
    let seen = bundle.folder.join("seen");
    let script = format!("readlink /proc/self/ns/time >> {}", seen.display());
    let hook = json!([{"path": "/bin/sh", "args": ["sh", "-c", script]}]);
    bundle.edit(|config| {
        config["linux"]["timeOffsets"] = json!({"boottime": {"secs": 5}});
        config["hooks"] = json!({"createRuntime": hook, "poststart": hook});
    });
    bundle.run().success();
    let clocks = fs::read_to_string(seen).unwrap();
    assert_eq!(
        clocks.lines().collect::<Vec<_>>(),
        [host("time"), host("time")]
    );
}
