//! Limits of a container in a scope: in its files, in what systemd knows, and for good.

use libtest_mimic::Trial;
use serde_json::json;

use super::{cgroup, make, properties, read, reload, resources, scope, start, systemd};
use crate::support::{Bundle, needs_controllers, needs_systemd, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    let all = tests![
        every_limit_that_systemd_knows_is_a_property_of_the_scope,
        limits_outlive_a_reload_of_systemd,
        a_quota_of_a_fraction_of_a_percent_is_exact,
        no_limit_is_told_as_infinity,
        few_processes_and_little_memory_do_not_hinder_the_creation,
        an_idle_container_is_one_of_weight_zero,
        the_device_filter_is_the_runtimes_and_outlives_a_reload,
        a_container_sees_its_limits,
        an_update_reaches_systemd_and_the_files,
        an_update_without_systemd_changes_nothing,
    ];
    needs_systemd(needs_controllers(
        &["cpuset", "cpu", "io", "memory", "hugetlb", "pids"],
        all,
    ))
}

/// A container with limits that systemd knows and some that it does not know.
fn limited() -> Bundle {
    let bundle = Bundle::new("sleep 1000");
    resources(
        &bundle,
        &json!({
            "memory": {"limit": 67_108_864, "reservation": 33_554_432, "swap": 134_217_728},
            "cpu": {"shares": 512, "quota": 50_000, "period": 200_000, "burst": 10_000,
                "cpus": "0", "mems": "0"},
            "pids": {"limit": 50},
            "blockIO": {"weight": 500},
            "hugepageLimits": [{"pageSize": "2MB", "limit": 2_097_152}],
            "unified": {"memory.high": "60M", "memory.oom.group": "1"},
        }),
    );
    start(&bundle);
    bundle
}

/// The files of [`limited`], and their values.
const FILES: [(&str, &str); 12] = [
    ("memory.max", "67108864"),
    ("memory.high", "62914560"),
    ("memory.low", "33554432"),
    ("memory.swap.max", "67108864"),
    ("memory.oom.group", "1"),
    ("cpu.weight", "59"),
    ("cpu.max", "50000 200000"),
    ("cpu.max.burst", "10000"),
    ("cpuset.cpus", "0"),
    ("cpuset.mems", "0"),
    ("pids.max", "50"),
    ("hugetlb.2MB.max", "2097152"),
];

fn every_limit_that_systemd_knows_is_a_property_of_the_scope() {
    let bundle = limited();
    let names = [
        "AllowedCPUs",
        "AllowedMemoryNodes",
        "CPUQuotaPerSecUSec",
        "CPUQuotaPeriodUSec",
        "CPUWeight",
        "IOWeight",
        "MemoryHigh",
        "MemoryLow",
        "MemoryMax",
        "MemorySwapMax",
        "TasksMax",
    ];
    let found = properties(&scope(&bundle), &names);
    let expected = [
        "0", "0", "250ms", "200ms", "59", "4950", "62914560", "33554432", "67108864", "67108864",
        "50",
    ];
    assert_eq!(found.into_values().collect::<Vec<_>>(), expected);
    for (file, value) in FILES {
        assert_eq!(read(&cgroup(&bundle), file), value, "{file}");
    }
}

/// systemd looks at all units again when its configuration is read anew, and at those of a slice
/// when another unit with limits comes there.
fn limits_outlive_a_reload_of_systemd() {
    let bundle = limited();
    reload();
    let limits = [
        "-pMemoryMax=64M",
        "-pCPUWeight=50",
        "-pAllowedCPUs=0",
        "-pIOWeight=50",
    ];
    let mut command = vec!["systemd-run", "--wait", "--quiet"];
    command.extend(limits);
    command.push("true");
    systemd(&command);
    for (file, value) in FILES {
        assert_eq!(read(&cgroup(&bundle), file), value, "{file}");
    }
    assert_eq!(bundle.status(), "running");
}

fn a_quota_of_a_fraction_of_a_percent_is_exact() {
    let bundle = Bundle::new("sleep 1000");
    resources(&bundle, &json!({"cpu": {"quota": 5500, "period": 100_000}}));
    start(&bundle);
    assert_eq!(read(&cgroup(&bundle), "cpu.max"), "5500 100000");
    // What systemd would go back to is no tighter.
    assert_eq!(
        super::property(&scope(&bundle), "CPUQuotaPerSecUSec"),
        "60ms"
    );
}

fn no_limit_is_told_as_infinity() {
    let bundle = Bundle::new("sleep 1000");
    resources(
        &bundle,
        &json!({"memory": {"limit": -1}, "pids": {"limit": -1}, "cpu": {"quota": -1}}),
    );
    start(&bundle);
    // systemd gives every unit a limit of its own unless it is told otherwise.
    assert_eq!(read(&cgroup(&bundle), "pids.max"), "max");
    let names = ["CPUQuotaPerSecUSec", "MemoryMax", "TasksMax"];
    let found = properties(&scope(&bundle), &names);
    assert!(found.values().all(|value| value == "infinity"), "{found:?}");
}

fn few_processes_and_little_memory_do_not_hinder_the_creation() {
    let bundle = Bundle::new("read -r line < /proc/self/cgroup; echo $line");
    resources(
        &bundle,
        &json!({"memory": {"limit": 2_097_152}, "pids": {"limit": 1}}),
    );
    assert_eq!(make(&bundle, "run").success(), "0::/\n");
}

fn an_idle_container_is_one_of_weight_zero() {
    let bundle = Bundle::new("sleep 1000");
    resources(&bundle, &json!({"cpu": {"idle": 1}}));
    start(&bundle);
    assert_eq!(read(&cgroup(&bundle), "cpu.idle"), "1");
    assert_eq!(super::property(&scope(&bundle), "CPUWeight"), "idle");
    reload();
    assert_eq!(read(&cgroup(&bundle), "cpu.idle"), "1");
}

fn the_device_filter_is_the_runtimes_and_outlives_a_reload() {
    let bundle = Bundle::new(
        "cat /dev/null && echo null; cat /dev/kmsg; echo $?; echo > /tmp/ready; read -r line < /tmp/go;
         cat /dev/null && echo null; cat /dev/kmsg; echo $?",
    );
    for name in ["ready", "go"] {
        let path = bundle.folder.join("rootfs/tmp").join(name);
        rustix::fs::mkfifoat(rustix::fs::CWD, path, rustix::fs::Mode::from(0o666)).unwrap();
    }
    bundle.edit(|config| {
        config["linux"]["devices"] =
            json!([{"path": "/dev/kmsg", "type": "c", "major": 1, "minor": 11}]);
    });
    let tmp = bundle.folder.join("rootfs/tmp");
    let (ready, go) = (tmp.join("ready"), tmp.join("go"));
    let helper = std::thread::spawn(move || {
        std::fs::read_to_string(ready).unwrap();
        reload();
        std::fs::write(go, "\n").unwrap();
    });
    let ran = make(&bundle, "run");
    helper.join().unwrap();
    assert_eq!(ran.success(), "null\n1\nnull\n1\n", "{}", ran.stderr());
    let denied = ran.stderr().matches("Operation not permitted").count();
    assert_eq!(denied, 2, "{}", ran.stderr());
    assert!(!bundle.folder.join("state").join(&bundle.id).exists());
}

fn a_container_sees_its_limits() {
    let bundle = Bundle::new("cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max");
    resources(
        &bundle,
        &json!({"memory": {"limit": 67_108_864}, "pids": {"limit": 50}}),
    );
    bundle.edit(|config| {
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.retain(|mount| mount["destination"] != "/sys/fs/cgroup");
        mounts.push(
            json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
            "options": ["nosuid", "noexec", "nodev", "relatime", "ro"]}),
        );
    });
    assert_eq!(make(&bundle, "run").success(), "67108864\n50\n");
}

fn an_update_reaches_systemd_and_the_files() {
    let bundle = limited();
    let update = [
        "update",
        "--memory",
        "48M",
        "--memory-swap",
        "96M",
        "--pids-limit",
        "20",
        "--cpu-quota",
        "25500",
        "--cpu-period",
        "100000",
        &bundle.id,
    ];
    bundle.parhelion(&update).success();
    let names = [
        "CPUQuotaPerSecUSec",
        "MemoryMax",
        "MemorySwapMax",
        "TasksMax",
    ];
    let found = properties(&scope(&bundle), &names);
    let expected = ["260ms", "50331648", "50331648", "20"];
    assert_eq!(found.into_values().collect::<Vec<_>>(), expected);
    assert_eq!(read(&cgroup(&bundle), "cpu.max"), "25500 100000");
    reload();
    for (file, value) in [
        ("memory.max", "50331648"),
        ("pids.max", "20"),
        ("cpu.weight", "59"),
    ] {
        assert_eq!(read(&cgroup(&bundle), file), value, "{file}");
    }
}

fn an_update_without_systemd_changes_nothing() {
    let bundle = limited();
    let output = crate::caller::command(&bundle, &["update", "--pids-limit", "20", &bundle.id])
        .env("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nowhere")
        .output()
        .unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    assert!(
        error.contains("systemd can not be reached: connect(/nowhere): "),
        "{error}"
    );
    assert_eq!(read(&cgroup(&bundle), "pids.max"), "50");
    assert_eq!(super::property(&scope(&bundle), "TasksMax"), "50");
}
