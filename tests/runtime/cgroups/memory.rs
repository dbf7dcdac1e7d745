//! Memory, swap, processes and huge pages: the limits, and that they hold.

use libtest_mimic::Trial;
use serde_json::{Value, json};

use super::{cgroup, limited, seen, value};
use crate::support::{needs_controllers, tests};

pub fn all() -> Vec<Trial> {
    let mut all = needs_controllers(
        &["memory"],
        tests![
            memory_limit_and_reservation_are_set,
            swap_is_what_the_total_leaves_beside_memory,
            unlimited_memory_is_unlimited_swap,
            a_limit_of_zero_or_minus_one_is_none,
            a_new_container_uses_nothing_that_could_be_above_the_limit,
            a_container_starts_with_96_kib,
            a_container_beyond_its_memory_is_killed_and_run_answers_137,
            a_limit_below_what_init_needs_is_told,
        ],
    );
    all.extend(needs_controllers(
        &["pids"],
        tests![
            the_limit_of_processes_is_set,
            a_process_beyond_the_limit_is_not_forked,
        ],
    ));
    all.extend(needs_controllers(
        &["hugetlb"],
        tests![huge_pages_are_limited_in_use_and_reservation],
    ));
    // The host with all controllers has huge pages, too.
    all.extend(needs_controllers(
        &["hugetlb", "memory"],
        tests![huge_pages_beyond_the_limit_are_not_given],
    ));
    all
}

const MIB: i64 = 1 << 20;

fn memory(limits: Value) -> Value {
    json!({"memory": limits})
}

fn memory_limit_and_reservation_are_set() {
    let limits = memory(json!({"limit": 64 * MIB, "reservation": 16 * MIB}));
    assert_eq!(
        seen(limits, &["memory.max", "memory.low", "memory.swap.max"]),
        ["67108864", "16777216", "max"]
    );
}

/// OCI's `swap` is memory and swap together.
fn swap_is_what_the_total_leaves_beside_memory() {
    let swap = |total: i64| {
        let limits = memory(json!({"limit": 64 * MIB, "swap": total}));
        value(limits, "memory.swap.max")
    };
    assert_eq!(swap(96 * MIB), "33554432");
    assert_eq!(swap(64 * MIB), "0");
    assert_eq!(swap(-1), "max");
    assert_eq!(swap(0), "max");
}

fn unlimited_memory_is_unlimited_swap() {
    let files = ["memory.max", "memory.swap.max"];
    assert_eq!(seen(memory(json!({"limit": -1})), &files), ["max", "max"]);
}

fn a_limit_of_zero_or_minus_one_is_none() {
    let none = memory(json!({"limit": 0, "reservation": -1, "swap": 0}));
    assert_eq!(seen(none, &["memory.max", "memory.low"]), ["max", "max"]);
}

fn a_new_container_uses_nothing_that_could_be_above_the_limit() {
    let enough = json!({"limit": 64 * MIB, "checkBeforeUpdate": true});
    assert_eq!(value(memory(enough), "memory.max"), "67108864");
}

fn a_container_beyond_its_memory_is_killed_and_run_answers_137() {
    // A line without an end, which tail keeps whole.
    let limits = json!({"limit": 16 * MIB, "swap": 16 * MIB});
    let bundle = limited(memory(limits), "exec busybox tail /dev/zero");
    assert_eq!(bundle.run().code(), Some(128 + 9));
    assert!(!cgroup(&bundle).exists());
}

fn a_container_starts_with_96_kib() {
    // Without a C library's own needs, the program takes next to nothing.
    let bundle = limited(memory(json!({"limit": 96 * 1024})), "true");
    for _ in 0..5 {
        bundle.create().success();
        assert_eq!(bundle.status(), "created");
        bundle.verb("delete").success();
    }
}

fn a_limit_below_what_init_needs_is_told() {
    let bundle = limited(memory(json!({"limit": 4096})), "true");
    let error = bundle.run().failure();
    let told = "out of memory while it was set up (linux.resources.memory.limit may be too low)";
    assert!(error.contains(told), "{error}");
    assert!(!cgroup(&bundle).exists());
}

fn the_limit_of_processes_is_set() {
    let limit = |limit: i64| value(json!({"pids": {"limit": limit}}), "pids.max");
    assert_eq!([limit(64), limit(1), limit(0)], ["64", "1", "0"]);
    assert_eq!(limit(-1), "max");
}

fn a_process_beyond_the_limit_is_not_forked() {
    // The shell, one in the background, and one too many.
    let script = "sleep 100 & echo one; sleep 100 & echo two";
    let ran = limited(json!({"pids": {"limit": 2}}), script).run();
    let seen = String::from_utf8_lossy(&ran.0.stdout).into_owned();
    assert_eq!(seen, "one\n");
    assert!(ran.stderr().contains("can't fork"), "{}", ran.stderr());
    let both = limited(json!({"pids": {"limit": 3}}), script).run();
    assert_eq!(both.success(), "one\ntwo\n");
}

fn huge_pages_are_limited_in_use_and_reservation() {
    let files = ["hugetlb.2MB.max", "hugetlb.2MB.rsvd.max"];
    let limits = json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 4 * MIB}]});
    assert_eq!(seen(limits, &files), ["4194304", "4194304"]);
    // Some kernels print "max" and some the largest number of bytes in whole pages.
    let none = seen(json!({"hugepageLimits": []}), &files);
    let is_none = |limit: &String| limit.parse().is_ok_and(|n: u64| n > 1 << 60) || limit == "max";
    assert!(none.len() == 2 && none.iter().all(is_none), "{none:?}");
}

fn huge_pages_beyond_the_limit_are_not_given() {
    let limits = json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 4 * MIB}]});
    let script = "busybox fallocate -l 4m /huge/fits && echo fits
        busybox fallocate -l 2m /huge/more || echo no more";
    let bundle = limited(limits, script);
    std::fs::create_dir(bundle.folder.join("rootfs/huge")).unwrap();
    bundle.edit(|config| {
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.push(
            json!({"destination": "/huge", "type": "hugetlbfs", "source": "huge",
            "options": ["pagesize=2M"]}),
        );
    });
    assert_eq!(bundle.run().success(), "fits\nno more\n");
}
