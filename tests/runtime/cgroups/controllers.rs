//! A controller that the host lacks: an error where a limit needs it, and nothing where none does.

use libtest_mimic::Trial;
use serde_json::{Value, json};

use super::{HOST, cgroup, limited, offers};
use crate::support::{Bundle, tests};

pub fn all() -> Vec<Trial> {
    tests![
        a_limit_without_its_controller_is_an_error_that_names_both,
        all_limits_without_their_controllers_are_told_at_once,
        what_limits_nothing_needs_no_controller,
        controllers_that_the_host_offers_are_there,
    ]
}

/// A limit of each controller, and its field.
fn limits() -> Vec<(&'static str, &'static str, Value)> {
    vec![
        ("cpu", "cpu.shares", json!({"cpu": {"shares": 512}})),
        ("cpu", "cpu.quota", json!({"cpu": {"quota": 50_000}})),
        ("cpu", "cpu.idle", json!({"cpu": {"idle": 1}})),
        ("cpuset", "cpu.cpus", json!({"cpu": {"cpus": "0"}})),
        ("cpuset", "cpu.mems", json!({"cpu": {"mems": "0"}})),
        (
            "memory",
            "memory.limit",
            json!({"memory": {"limit": 67_108_864}}),
        ),
        (
            "memory",
            "memory.reservation",
            json!({"memory": {"reservation": 4096}}),
        ),
        ("pids", "pids.limit", json!({"pids": {"limit": 50}})),
        ("io", "blockIO.weight", json!({"blockIO": {"weight": 500}})),
        (
            "hugetlb",
            "hugepageLimits[0].limit",
            json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 0}]}),
        ),
    ]
}

fn message(controller: &str, field: &str) -> String {
    format!(
        "linux.resources.{field}: needs the controller {controller}, which the cgroup2 mount at \
         {HOST} does not offer"
    )
}

fn a_limit_without_its_controller_is_an_error_that_names_both() {
    let (offered, missing): (Vec<_>, Vec<_>) = limits().into_iter().partition(|l| offers(l.0));
    for (controller, field, limit) in missing {
        let bundle = limited(limit, "true");
        let error = bundle.create().failure();
        assert!(error.contains(&message(controller, field)), "{error}");
        assert!(bundle.verb("state").failure().contains("does not exist"));
        assert!(!cgroup(&bundle).exists());
    }
    let mut all = json!({});
    for (.., limit) in &offered {
        for (key, fields) in limit.as_object().unwrap() {
            match (all[key].as_object_mut(), fields.as_object()) {
                (Some(present), Some(more)) => present.extend(more.clone()),
                (None, _) | (_, None) => all[key] = fields.clone(),
            }
        }
    }
    limited(all, "true").run().success();
}

fn all_limits_without_their_controllers_are_told_at_once() {
    let limits = json!({"cpu": {"shares": 512}, "memory": {"limit": 67_108_864},
        "unified": {"other.max": "1"}});
    let error = limited(limits, "true").create().failure();
    let other = message("other", "unified[\"other.max\"]");
    assert!(error.contains(&other), "{error}");
    for (controller, field) in [("cpu", "cpu.shares"), ("memory", "memory.limit")] {
        let told = error.contains(&message(controller, field));
        assert_eq!(told, !offers(controller), "{error}");
    }
}

/// As Docker and Podman write them for a container without limits.
fn what_limits_nothing_needs_no_controller() {
    Bundle::new("true").run().success();
    let none = json!({"cpu": {"shares": 0, "quota": 0, "period": 0, "idle": 0, "burst": 0},
        "memory": {"limit": -1, "swap": -1, "reservation": 0}, "pids": {"limit": -1},
        "blockIO": {"weight": 0}, "hugepageLimits": [], "rdma": {}, "unified": {}});
    limited(none, "true").run().success();
}

/// Also those that serve no limit: their figures are wanted.
fn controllers_that_the_host_offers_are_there() {
    let seen = limited(json!({}), &format!("cat {HOST}/cgroup.controllers"));
    let seen = seen.run().success();
    for name in ["cpuset", "cpu", "io", "memory", "hugetlb", "pids", "rdma"] {
        let has = seen.split_whitespace().any(|controller| controller == name);
        assert_eq!(has, offers(name), "{name} in {seen:?}");
    }
}
