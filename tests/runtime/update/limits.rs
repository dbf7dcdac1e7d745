//! Limits of a container that runs, as the container sees them before and after.

use libtest_mimic::Trial;
use serde_json::{Value, json};

use super::Limited;
use crate::support::{needs_controllers, tests};

pub fn all() -> Vec<Trial> {
    let mut all = needs_controllers(
        &["cpu", "cpuset", "io", "memory", "pids"],
        tests![
            memory_is_raised_and_lowered_with_and_without_swap,
            memory_alone_keeps_the_total_of_memory_and_swap,
            memory_in_use_is_compared_where_that_is_asked_for,
            of_quota_and_period_the_one_that_is_not_named_stays,
            burst_follows_the_quota_up_and_down,
            shares_and_idle_exclude_each_other,
            processors_weights_and_processes_change,
            flags_and_resources_have_the_same_effect,
            rates_of_a_device_change_alone,
            a_frozen_container_is_updated_and_stays_frozen,
        ],
    );
    all.extend(needs_controllers(
        &["hugetlb"],
        tests![huge_pages_and_files_by_name_change],
    ));
    all
}

const MIB: i64 = 1 << 20;

fn see(inside: &mut Limited, files: &[&str]) -> Vec<String> {
    files.iter().map(|file| inside.see(file)).collect()
}

const MEMORY: [&str; 3] = ["memory.max", "memory.swap.max", "memory.low"];

fn memory(inside: &mut Limited) -> Vec<String> {
    let mib = |text: String| match text.parse::<i64>() {
        Ok(bytes) => (bytes / MIB).to_string(),
        Err(_) => text,
    };
    see(inside, &MEMORY).into_iter().map(mib).collect()
}

fn memory_is_raised_and_lowered_with_and_without_swap() {
    let limits = json!({"memory": {"limit": 64 * MIB, "swap": 96 * MIB, "reservation": 16 * MIB}});
    let mut inside = Limited::start(&limits);
    assert_eq!(memory(&mut inside), ["64", "32", "16"]);
    for (flags, expected) in [
        (
            &["--memory", "128M", "--memory-swap", "136M"][..],
            ["128", "8", "16"],
        ),
        (
            &["--memory", "32M", "--memory-swap", "132M"],
            ["32", "100", "16"],
        ),
        (&["--memory=-1"], ["max", "max", "16"]),
        (&["--memory=64m", "--memory-swap=-1"], ["64", "max", "16"]),
        (&["--memory-reservation", "8m"], ["64", "max", "8"]),
        (&["--memory-swap", "64m"], ["64", "0", "8"]),
        (&["--memory", "48m"], ["48", "0", "8"]),
    ] {
        inside.update(flags).success();
        assert_eq!(memory(&mut inside), expected, "{flags:?}");
    }
}

fn memory_alone_keeps_the_total_of_memory_and_swap() {
    let limits = json!({"memory": {"limit": 64 * MIB, "swap": 128 * MIB}});
    let mut inside = Limited::start(&limits);
    inside.update(&["--memory", "32M"]).success();
    assert_eq!(memory(&mut inside)[..2], ["32", "96"]);
    inside.update(&["--memory", "100M"]).success();
    assert_eq!(memory(&mut inside)[..2], ["100", "28"]);
    let told = inside.update(&["--memory", "129M"]).failure();
    assert!(
        told.contains("--memory: must be at most the total"),
        "{told}"
    );
    inside.update(&["--memory-swap", "101M"]).success();
    assert_eq!(memory(&mut inside)[..2], ["100", "1"]);
}

fn memory_in_use_is_compared_where_that_is_asked_for() {
    let mut inside = Limited::start(&json!({"memory": {"limit": 64 * MIB}}));
    let change =
        json!({"memory": {"limit": 4096, "checkBeforeUpdate": true}, "pids": {"limit": 50}});
    let before = inside.see("pids.max");
    let told = inside.update_by(&change).failure();
    assert!(
        told.contains("memory.checkBeforeUpdate: memory.current is "),
        "{told}"
    );
    assert_eq!(memory(&mut inside)[0], "64");
    assert_eq!(inside.see("pids.max"), before);
}

fn of_quota_and_period_the_one_that_is_not_named_stays() {
    let mut inside = Limited::start(&json!({"cpu": {"quota": 500_000, "period": 1_000_000}}));
    for (flags, expected) in [
        (&["--cpu-period", "900000"][..], "500000 900000"),
        (&["--cpu-quota", "600000"], "600000 900000"),
        (&["--cpu-quota", "-1"], "max 900000"),
        (
            &["--cpu-quota", "-1", "--cpu-period", "100000"],
            "max 100000",
        ),
        (&["--cpu-period", "200000"], "max 200000"),
        (&["--cpu-quota=50000", "--cpu-period=0"], "50000 200000"),
    ] {
        inside.update(flags).success();
        assert_eq!(inside.see("cpu.max"), expected, "{flags:?}");
    }
}

fn burst_follows_the_quota_up_and_down() {
    let mut inside = Limited::start(&json!({"cpu": {"quota": 50_000, "burst": 40_000}}));
    let mut to = |flags: &[&str]| {
        inside.update(flags).success();
        see(&mut inside, &["cpu.max", "cpu.max.burst"])
    };
    let lower = to(&["--cpu-quota=20000", "--cpu-burst=10000"]);
    assert_eq!(lower, ["20000 100000", "10000"]);
    let higher = to(&["--cpu-quota=90000", "--cpu-burst=80000"]);
    assert_eq!(higher, ["90000 100000", "80000"]);
    assert_eq!(to(&["--cpu-burst=0"]), ["90000 100000", "0"]);
    assert_eq!(to(&["--cpu-burst=90000"]), ["90000 100000", "90000"]);
    let told = inside.update(&["--cpu-quota=80000"]).failure();
    assert!(
        told.contains("--cpu-quota: must not be below the burst"),
        "{told}"
    );
    let told = inside.update(&["--cpu-burst=90001"]).failure();
    assert!(told.contains("--cpu-burst: must be no larger"), "{told}");
}

fn shares_and_idle_exclude_each_other() {
    let mut inside = Limited::start(&json!({"cpu": {"shares": 512}}));
    let mut to = |flags: &[&str]| {
        inside.update(flags).success();
        see(&mut inside, &["cpu.idle", "cpu.weight"])
    };
    assert_eq!(to(&["--cpu-share", "1024"]), ["0", "100"]);
    // What an idle cgroup shows as its weight differs between kernels.
    assert_eq!(to(&["--cpu-idle", "1"])[0], "1");
    assert_eq!(to(&["--cpu-idle=1", "--cpu-share=512"])[0], "1");
    assert_eq!(to(&["--cpu-idle=0", "--cpu-share=512"]), ["0", "59"]);
    inside.update(&["--cpu-idle", "1"]).success();
    let told = inside.update(&["--cpu-share", "1024"]).failure();
    assert!(told.contains("--cpu-share: is of no use"), "{told}");
}

fn processors_weights_and_processes_change() {
    let mut inside = Limited::start(&json!({"pids": {"limit": 200}}));
    let files = ["cpuset.cpus", "cpuset.mems", "pids.max"];
    let flags = ["--cpuset-cpus=0", "--cpuset-mems=0", "--pids-limit=100"];
    inside.update(&flags).success();
    assert_eq!(see(&mut inside, &files), ["0", "0", "100"]);
    inside.update(&["--pids-limit", "-1"]).success();
    assert_eq!(see(&mut inside, &files), ["0", "0", "max"]);
    assert_eq!(inside.ask("busybox nproc"), "1\n");
    // The weight is bfq's where the kernel has that, else what it comes to.
    inside.update(&["--blkio-weight", "500"]).success();
    let weights = "cd /sys/fs/cgroup; cat io.bfq.weight || cat io.weight";
    let weight = inside.ask(&format!("({weights}) 2>&-"));
    let weights = ["default 500\n", "default 4950\n"];
    assert!(weights.contains(&weight.as_str()), "{weight}");
}

fn flags_and_resources_have_the_same_effect() {
    let files = [
        "memory.max",
        "memory.swap.max",
        "memory.low",
        "cpu.weight",
        "cpu.max",
        "pids.max",
        "cpuset.cpus",
    ];
    let mut by_flags = Limited::start(&json!({}));
    let flags = [
        "--memory=64M",
        "--memory-swap=96M",
        "--memory-reservation=1M",
        "--cpu-share=200",
        "--cpu-quota=60000",
        "--cpu-period=90000",
        "--pids-limit=99",
        "--cpuset-cpus=0",
    ];
    by_flags.update(&flags).success();
    let mut by_file = Limited::start(&json!({}));
    let resources: Value = json!({"pids": {"limit": 99},
        "memory": {"limit": 64 * MIB, "swap": 96 * MIB, "reservation": MIB},
        "cpu": {"shares": 200, "quota": 60000, "period": 90000, "cpus": "0"}});
    by_file.update_by(&resources).success();
    let seen = see(&mut by_flags, &files);
    assert_eq!(seen, see(&mut by_file, &files));
    assert_eq!(seen[4..], ["60000 90000", "99", "0"]);
}

/// The first disk there is, as the kernel numbers it.
fn disk() -> (u64, u64) {
    let disks = std::fs::read_dir("/sys/block").unwrap();
    let mut names: Vec<_> = disks.map(|disk| disk.unwrap().path().join("dev")).collect();
    names.sort();
    let text = std::fs::read_to_string(names.first().expect("no disk")).unwrap();
    let (major, minor) = text.trim().split_once(':').unwrap();
    (major.parse().unwrap(), minor.parse().unwrap())
}

fn rates_of_a_device_change_alone() {
    let (major, minor) = disk();
    let rate = |rate: u64| json!([{"major": major, "minor": minor, "rate": rate}]);
    let limits = json!({"blockIO": {"throttleReadBpsDevice": rate(1 << 20)}});
    let mut inside = Limited::start(&limits);
    let change = json!({"blockIO": {"throttleWriteIOPSDevice": rate(50)}});
    inside.update_by(&change).success();
    let expected = format!("{major}:{minor} rbps=1048576 wbps=max riops=max wiops=50");
    assert_eq!(inside.see("io.max"), expected);
    let lift = json!({"blockIO": {"throttleReadBpsDevice": rate(0)}});
    inside.update_by(&lift).success();
    let expected = format!("{major}:{minor} rbps=max wbps=max riops=max wiops=50");
    assert_eq!(inside.see("io.max"), expected);
    // Undone in its line, when a later value is refused.
    let change =
        json!({"blockIO": {"throttleReadBpsDevice": rate(9 << 20)}, "unified": {"io.none": "1"}});
    inside.update_by(&change).failure();
    assert_eq!(inside.see("io.max"), expected);
}

fn a_frozen_container_is_updated_and_stays_frozen() {
    let mut inside = Limited::start(&json!({}));
    inside.bundle.verb("pause").success();
    inside.update(&["--pids-limit", "77"]).success();
    assert_eq!(inside.bundle.status(), "paused");
    inside.bundle.verb("resume").success();
    assert_eq!(inside.see("pids.max"), "77");
}

fn huge_pages_and_files_by_name_change() {
    let mut inside = Limited::start(&json!({}));
    let change = json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 4 << 20}],
        "unified": {"cgroup.max.depth": "3"}});
    inside.update_by(&change).success();
    let files = [
        "hugetlb.2MB.max",
        "hugetlb.2MB.rsvd.max",
        "cgroup.max.depth",
    ];
    assert_eq!(see(&mut inside, &files), ["4194304", "4194304", "3"]);
}
