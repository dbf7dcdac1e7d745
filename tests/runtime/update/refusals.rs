//! What `update` refuses, and that nothing has changed then.

use std::fs;

use libtest_mimic::Trial;
use serde_json::{Value, json};

use super::Limited;
use crate::caller::wait_for_end;
use crate::support::{Bundle, needs_controllers, tests};

pub fn all() -> Vec<Trial> {
    let mut all = tests![
        a_container_that_has_stopped_or_is_unknown_is_not_updated,
        all_that_is_wrong_is_told_at_once_by_flag,
        all_that_is_wrong_is_told_at_once_by_path,
        a_file_that_is_none_or_no_json_is_told,
        flags_beside_resources_are_warned_about,
        kernel_memory_is_warned_about,
        intel_rdt_of_a_container_without_it_is_refused,
        intel_rdt_is_changed_in_the_containers_group,
        an_update_that_names_nothing_changes_nothing,
    ];
    all.extend(needs_controllers(
        &["hugetlb"],
        tests![
            a_half_failed_update_is_undone,
            a_value_that_cannot_be_set_back_is_named,
        ],
    ));
    all
}

fn a_container_that_has_stopped_or_is_unknown_is_not_updated() {
    let bundle = Bundle::new("true");
    let update = || bundle.parhelion(&["update", "--pids-limit", "5", &bundle.id]);
    assert!(update().failure().contains("does not exist"));
    bundle.create().success();
    bundle.parhelion(&["update", &bundle.id]).success();
    bundle.verb("start").success();
    wait_for_end(&bundle);
    let told = bundle.parhelion(&["update", &bundle.id]).failure();
    assert!(told.ends_with(": container not running\n"), "{told}");
}

fn all_that_is_wrong_is_told_at_once_by_flag() {
    let inside = Limited::start(&json!({}));
    let told = inside
        .update(&["--memory", "lots", "--cpu-quota", "x"])
        .failure();
    let first = "--cpu-quota: must be a whole number, is \"x\"; --memory: must be bytes, as ";
    assert!(told.contains(first), "{told}");
    let flags = [
        "--cpu-rt-period",
        "5",
        "--cpu-rt-runtime=5",
        "--cpu-idle=2",
        "--blkio-weight=5",
        "--pids-limit=-2",
    ];
    let told = inside.update(&flags).failure();
    for words in [
        "--cpu-rt-period: exists only in cgroup v1",
        "--cpu-rt-runtime: exists only in cgroup v1",
        "--cpu-idle: must be 0 or 1, is 2",
        "--blkio-weight: must be 10 to 1000, is 5",
        "--pids-limit: must be 0 or more, or -1 for all, is -2",
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }
}

fn all_that_is_wrong_is_told_at_once_by_path() {
    let inside = Limited::start(&json!({}));
    let wrong = json!({"memory": {"limit": "1g"}, "hugepageLimits": [{"limit": 1}]});
    let told = inside.update_by(&wrong).failure();
    assert!(
        told.contains("memory.limit: must be a whole number"),
        "{told}"
    );
    assert!(
        told.contains("; hugepageLimits[0].pageSize: is required"),
        "{told}"
    );
    let wrong = json!({"devices": [{"allow": true, "type": "c", "major": -2, "access": "x"}],
        "unified": {"cgroup.procs": "1"}});
    let told = inside.update_by(&wrong).failure();
    for words in [
        "devices[0].major: must ",
        "devices[0].access: must ",
        "unified[\"cgroup.procs\"]: ",
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }
}

fn a_file_that_is_none_or_no_json_is_told() {
    let inside = Limited::start(&json!({}));
    let told = inside.update(&["--resources", "/no/such"]).failure();
    assert!(
        told.contains("--resources \"/no/such\": no such file or directory"),
        "{told}"
    );
    let file = inside.bundle.folder.join("resources");
    for (text, words) in [("{", "line 1 column 1: "), ("[]", "must be a JSON object")] {
        fs::write(&file, text).unwrap();
        let told = inside.update(&["-r", file.to_str().unwrap()]).failure();
        assert!(told.contains(words), "{told}");
    }
}

fn flags_beside_resources_are_warned_about() {
    let mut inside = Limited::start(&json!({}));
    let before = inside.see("cgroup.controllers");
    let file = inside.bundle.folder.join("resources");
    fs::write(&file, "{}").unwrap();
    let ran = inside.update(&["-r", file.to_str().unwrap(), "--memory", "1g"]);
    ran.success();
    assert_eq!(
        ran.stderr(),
        "warning: --memory: ignored beside --resources\n"
    );
    assert_eq!(inside.see("cgroup.controllers"), before);
}

fn kernel_memory_is_warned_about() {
    let inside = Limited::start(&json!({}));
    let ran = inside.update(&["--kernel-memory", "50M", "--kernel-memory-tcp", "50M"]);
    ran.success();
    let lines: Vec<String> = ran.stderr().lines().map(str::to_owned).collect();
    let ignored = |flag| format!("warning: --{flag}: ignored, as cgroup v2 has no such limit");
    assert_eq!(lines, ["kernel-memory", "kernel-memory-tcp"].map(ignored));
    let ran = inside.update_by(&json!({"memory": {"kernel": 4096}}));
    ran.success();
    assert!(
        ran.stderr().contains("memory.kernel: ignored"),
        "{}",
        ran.stderr()
    );
}

fn intel_rdt_of_a_container_without_it_is_refused() {
    let inside = Limited::start(&json!({}));
    let flags = ["--l3-cache-schema", "L3:0=f", "--mem-bw-schema=MB:0=50"];
    let told = inside.update(&flags).failure();
    for flag in ["--l3-cache-schema: ", "--mem-bw-schema: "] {
        assert!(told.contains(flag), "{told}");
    }
}

/// Of a container as one that was created on a host with Intel RDT: its record names its group, which is a
/// folder here.
fn intel_rdt_is_changed_in_the_containers_group() {
    let inside = Limited::start(&json!({}));
    let group = inside.bundle.folder.join("group");
    let schemata = group.join("schemata");
    fs::create_dir(&group).unwrap();
    fs::write(&schemata, "L3:0=ff\n").unwrap();
    let record = inside.bundle.folder.join("state").join(&inside.bundle.id);
    let record = record.join("state.json");
    let mut stored: Value = serde_json::from_slice(&fs::read(&record).unwrap()).unwrap();
    stored["facts"]["resctrl"] = json!({"control": group, "monitoring": null, "own": false});
    fs::write(&record, stored.to_string()).unwrap();
    let now = || fs::read_to_string(&schemata).unwrap();

    inside.update(&["--l3-cache-schema", ""]).success();
    assert_eq!(now(), "L3:0=ff\n");
    let both = ["--mem-bw-schema", "MB:0=50", "--l3-cache-schema", "L3:0=f"];
    inside.update(&both).success();
    assert_eq!(now(), "L3:0=f\nMB:0=50\n");
    // As by runc, they hold beside --resources, which has no place for them.
    let resources = inside.bundle.folder.join("resources");
    fs::write(&resources, "{}").unwrap();
    let file = resources.to_str().unwrap();
    inside
        .update(&["-r", file, "--l3-cache-schema", "L3:0=3"])
        .success();
    assert_eq!(now(), "L3:0=3\n");
    // What fails afterwards undoes it.
    let wrong = json!({"unified": {"pids.max": "many"}});
    fs::write(&resources, wrong.to_string()).unwrap();
    let refused = inside.update(&["-r", file, "--mem-bw-schema", "MB:0=10"]);
    refused.failure();
    assert_eq!(now(), "L3:0=3\n");
    // What fails before all leaves the limits alone.
    fs::remove_file(&schemata).unwrap();
    let told = inside.update(&["--l3-cache-schema", "L3:0=f"]).failure();
    assert!(told.contains("--l3-cache-schema: "), "{told}");
}

fn an_update_that_names_nothing_changes_nothing() {
    let mut inside = Limited::start(&json!({}));
    let all = "cd /sys/fs/cgroup; for f in *.max *.weight cpuset.cpus; do echo $f; cat $f; done";
    let before = inside.ask(all);
    inside.update(&[]).success();
    // As Docker sends what it does not want to change.
    let zeros = json!({"memory": {"limit": 0, "reservation": 0, "swap": 0}, "blockIO": {"weight": 0},
        "cpu": {"shares": 0, "quota": 0, "period": 0, "cpus": "", "mems": ""}});
    inside.update_by(&zeros).success();
    assert_eq!(inside.ask(all), before);
}

fn a_half_failed_update_is_undone() {
    let mut inside =
        Limited::start(&json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 4 << 20}]}));
    let change = json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 8 << 20}],
        "unified": {"hugetlb.2MB.none": "1"}});
    let told = inside.update_by(&change).failure();
    assert!(
        told.contains("unified[\"hugetlb.2MB.none\"]: write("),
        "{told}"
    );
    assert!(!told.contains("stays changed"), "{told}");
    for file in ["hugetlb.2MB.max", "hugetlb.2MB.rsvd.max"] {
        assert_eq!(inside.see(file), "4194304");
    }
}

/// memory.reclaim can only be written; so can no file without a controller, hence cgroup.max.depth
/// stands for it where the memory controller is missing: it is set back.
fn a_value_that_cannot_be_set_back_is_named() {
    let mut inside = Limited::start(&json!({}));
    let change = json!({"unified": {"cgroup.max.depth": "7", "hugetlb.2MB.none": "1"}});
    let told = inside.update_by(&change).failure();
    assert!(!told.contains("stays changed"), "{told}");
    assert_eq!(inside.see("cgroup.max.depth"), "max");
    if inside.see("cgroup.controllers").contains("memory") {
        let change = json!({"unified": {"memory.reclaim": "0", "pids.none": "1"}});
        let told = inside.update_by(&change).failure();
        assert!(
            told.contains("unified[\"memory.reclaim\"] stays changed"),
            "{told}"
        );
    }
}
