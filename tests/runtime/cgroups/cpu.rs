//! Processor time and processors.

use std::fs;
use std::path::Path;
use std::sync::Barrier;

use libtest_mimic::Trial;
use serde_json::json;

use super::{HOST, cgroups_path, limited, seen, value};
use crate::support::{Bundle, needs_controllers, tests};

pub fn all() -> Vec<Trial> {
    let mut all = needs_controllers(
        &["cpu"],
        tests![
            shares_become_a_weight,
            without_shares_the_weight_is_the_kernels,
            neighbours_in_a_new_cgroup_have_their_weights,
            a_quota_counts_against_the_default_period,
            quota_period_and_burst_are_set,
            a_period_alone_and_no_quota_limit_nothing,
            an_idle_container_is_idle,
            a_cpu_limit_that_the_kernel_refuses_leaves_nothing,
        ],
    );
    all.extend(needs_controllers(
        &["cpuset"],
        tests![
            a_container_runs_on_its_processors_and_memory_nodes,
            processors_that_do_not_exist_are_refused,
        ],
    ));
    all
}

/// The weight that the container has with these shares of cgroup v1.
fn weight(shares: u64) -> String {
    value(json!({"cpu": {"shares": shares}}), "cpu.weight")
}

/// The formula of runc 1.3.1 and crun 1.23 for s shares: the weight is 10^e, rounded up, where
/// e = (l^2 + 125 l) / 612 - 7 / 34 and l = log2(s). The values here were worked out elsewhere.
fn shares_become_a_weight() {
    let expected = [
        (1, "1"),
        (2, "1"),
        (3, "2"),
        (1024, "100"),
        (1025, "101"),
        (262_143, "10000"),
        (262_144, "10000"),
        (u64::MAX >> 1, "10000"),
    ];
    for (shares, weight_of_it) in expected {
        assert_eq!(weight(shares), weight_of_it, "{shares} shares");
    }
}

fn without_shares_the_weight_is_the_kernels() {
    assert_eq!(weight(0), "100");
    assert_eq!(value(json!({"cpu": {}}), "cpu.weight"), "100");
}

/// Whoever comes second finds the controllers named that the first is about to enable.
fn neighbours_in_a_new_cgroup_have_their_weights() {
    for round in 0..8 {
        let pair = [(); 2].map(|()| Bundle::new("sleep 1000"));
        let above = format!("{}-{round}", pair[0].id);
        let start = Barrier::new(pair.len());
        std::thread::scope(|scope| {
            for bundle in &pair {
                cgroups_path(bundle, &format!("/{above}/{}", bundle.id));
                bundle.edit(|config| {
                    config["linux"]["resources"]["cpu"] = json!({"shares": 1025});
                });
                let start = &start;
                scope.spawn(move || {
                    start.wait();
                    bundle.create().success();
                });
            }
        });
        let above = Path::new(HOST).join(above);
        for bundle in &pair {
            let weight = fs::read_to_string(above.join(&bundle.id).join("cpu.weight"));
            assert_eq!(weight.unwrap(), "101\n");
            bundle.verb("delete").success();
        }
        fs::remove_dir(above).unwrap();
    }
}

fn a_quota_counts_against_the_default_period() {
    let quota = json!({"cpu": {"quota": 50_000}});
    assert_eq!(value(quota, "cpu.max"), "50000 100000");
    let least = json!({"cpu": {"quota": 1_000}});
    assert_eq!(value(least, "cpu.max"), "1000 100000");
}

fn quota_period_and_burst_are_set() {
    let all = json!({"cpu": {"quota": 20_000, "period": 40_000, "burst": 20_000}});
    assert_eq!(
        seen(all, &["cpu.max", "cpu.max.burst"]),
        ["20000 40000", "20000"]
    );
}

fn a_period_alone_and_no_quota_limit_nothing() {
    let period = json!({"cpu": {"period": 1_000_000}});
    assert_eq!(value(period, "cpu.max"), "max 1000000");
    for none in [-1, -9999] {
        let none = json!({"cpu": {"quota": none, "burst": 0}});
        assert_eq!(
            seen(none, &["cpu.max", "cpu.max.burst"]),
            ["max 100000", "0"]
        );
    }
}

fn an_idle_container_is_idle() {
    let idle = json!({"cpu": {"idle": 1, "shares": 2048}});
    assert_eq!(value(idle, "cpu.idle"), "1");
    let busy = json!({"cpu": {"idle": 0, "shares": 2048}});
    assert_eq!(seen(busy, &["cpu.idle", "cpu.weight"]), ["0", "174"]);
}

fn a_cpu_limit_that_the_kernel_refuses_leaves_nothing() {
    // Longer than the kernel can count (max_cfs_runtime), which only the kernel knows.
    let bundle = limited(json!({"cpu": {"quota": i64::MAX}}), "true");
    let error = bundle.create().failure();
    assert!(error.contains("linux.resources.cpu.quota: "), "{error}");
    assert!(error.contains("cpu.max"), "{error}");
    assert!(bundle.verb("state").failure().contains("does not exist"));
    assert!(!super::cgroup(&bundle).exists());
}

fn a_container_runs_on_its_processors_and_memory_nodes() {
    let first = json!({"cpu": {"cpus": "0", "mems": "0"}});
    let files = ["cpuset.cpus", "cpuset.mems", "cpuset.cpus.effective"];
    assert_eq!(seen(first.clone(), &files), ["0", "0", "0"]);
    let status = limited(first, "cat /proc/self/status").run().success();
    assert!(status.contains("Cpus_allowed_list:\t0\n"), "{status}");
    assert!(status.contains("Mems_allowed_list:\t0\n"), "{status}");
    let empty = json!({"cpu": {"cpus": "", "mems": ""}});
    assert_eq!(seen(empty, &["cpuset.cpus", "cpuset.mems"]), ["", ""]);
}

fn processors_that_do_not_exist_are_refused() {
    let bundle = limited(json!({"cpu": {"cpus": "0,9999"}}), "true");
    let error = bundle.create().failure();
    assert!(error.contains("linux.resources.cpu.cpus: "), "{error}");
    assert!(!super::cgroup(&bundle).exists());
}
