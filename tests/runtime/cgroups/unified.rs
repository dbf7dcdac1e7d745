//! `linux.resources.unified`: the kernel's files by name; and RDMA, whose files have no other test.

use std::process::Command;

use libtest_mimic::Trial;
use serde_json::{Value, json};

use super::{HOST, cgroup, limited, seen, value};
use crate::support::{needs_controllers, tests};

pub fn all() -> Vec<Trial> {
    let mut all = tests![
        files_of_the_core_are_written,
        a_name_that_leads_elsewhere_is_refused,
        a_controller_that_does_not_exist_is_refused,
        a_file_by_which_the_runtime_works_is_refused,
    ];
    all.extend(needs_controllers(
        &["hugetlb"],
        tests![
            a_limit_by_name_overrules_the_one_by_field,
            a_file_that_does_not_exist_is_named,
        ],
    ));
    all.extend(needs_controllers(
        &["memory", "cpu", "io"],
        tests![files_of_several_controllers_are_written],
    ));
    all.extend(needs_controllers(
        &["rdma"],
        tests![objects_of_an_adapter_are_limited],
    ));
    all
}

fn unified(files: Value) -> Value {
    json!({"unified": files})
}

fn files_of_the_core_are_written() {
    let limits = unified(json!({"cgroup.max.depth": "3", "cgroup.max.descendants": "5"}));
    assert_eq!(
        seen(limits, &["cgroup.max.depth", "cgroup.max.descendants"]),
        ["3", "5"]
    );
}

fn a_limit_by_name_overrules_the_one_by_field() {
    let mut limits = unified(json!({"hugetlb.2MB.max": "6291456"}));
    limits["hugepageLimits"] = json!([{"pageSize": "2MB", "limit": 4_194_304}]);
    assert_eq!(value(limits, "hugetlb.2MB.max"), "6291456");
}

fn files_of_several_controllers_are_written() {
    let limits = unified(json!({"memory.high": "67108864", "memory.oom.group": "1",
        "cpu.weight.nice": "10", "memory.min": "4096"}));
    let files = [
        "memory.high",
        "memory.oom.group",
        "cpu.weight.nice",
        "memory.min",
    ];
    assert_eq!(seen(limits, &files), ["67108864", "1", "10", "4096"]);
}

/// What is wrong with a file of this name, or with its value.
fn refusal(file: &str, value: &str) -> String {
    let bundle = limited(unified(json!({file: value})), "true");
    let error = bundle.create().failure();
    let field = format!("linux.resources.unified[{file:?}]");
    assert!(error.contains(&field), "{error}");
    assert!(bundle.verb("state").failure().contains("does not exist"));
    assert!(!cgroup(&bundle).exists());
    error
}

fn a_name_that_leads_elsewhere_is_refused() {
    for file in ["../pids.max", "/proc/sys/kernel/panic", "a.b/c", "hugetlb"] {
        let error = refusal(file, "1");
        assert!(error.contains("]: must "), "{error}");
    }
}

fn a_controller_that_does_not_exist_is_refused() {
    let error = refusal("other.max", "1");
    assert!(error.contains("needs the controller other"), "{error}");
}

fn a_file_by_which_the_runtime_works_is_refused() {
    for file in ["cgroup.procs", "cgroup.freeze", "cgroup.subtree_control"] {
        refusal(file, "1");
    }
}

fn a_file_that_does_not_exist_is_named() {
    let error = refusal("hugetlb.3MB.max", "1");
    assert!(error.contains("hugetlb.3MB.max\", \"1\""), "{error}");
    assert!(error.to_lowercase().contains("no such file"), "{error}");
}

/// An adapter made of software, on a network card made of software.
struct Adapter;

const CARD: &str = "parhelion-card";
const ADAPTER: &str = "parhelion-rxe";

impl Adapter {
    fn add() -> Adapter {
        let adapter = Adapter;
        run(&["modprobe", "rdma_rxe"]);
        run(&["ip", "link", "add", CARD, "type", "dummy"]);
        run(&["ip", "link", "set", CARD, "up"]);
        let link = [
            "rdma", "link", "add", ADAPTER, "type", "rxe", "netdev", CARD,
        ];
        run(&link);
        adapter
    }
}

impl Drop for Adapter {
    fn drop(&mut self) {
        // The virtual host is thrown away, and Linux 6.12 may hang for ever when an adapter goes in the
        // moment in which network namespaces do: the end of one takes the adapter's lock, and the end of
        // a cgroup that of the rdma controller, with the lock of all cgroups held.
        if std::env::var_os("PARHELION_TEST_ALL").is_none() {
            run(&["ip", "link", "delete", CARD]); // and the adapter with it
        }
    }
}

fn run(command: &[&str]) {
    let ended = Command::new(command[0]).args(&command[1..]).output();
    let ended = ended.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        ended.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&ended.stderr)
    );
}

fn objects_of_an_adapter_are_limited() {
    let _adapter = Adapter::add();
    let limits = |counts: Value| {
        let script = format!("cat {HOST}/rdma.max");
        let bundle = limited(json!({"rdma": {ADAPTER: counts}}), &script);
        bundle.run().success().trim_end().to_owned()
    };
    let both = limits(json!({"hcaHandles": 3, "hcaObjects": 1000}));
    assert_eq!(both, format!("{ADAPTER} hca_handle=3 hca_object=1000"));
    let one = limits(json!({"hcaObjects": 7}));
    assert_eq!(one, format!("{ADAPTER} hca_handle=max hca_object=7"));
    let unknown = limited(json!({"rdma": {"no-adapter": {"hcaHandles": 3}}}), "true");
    let error = unknown.create().failure();
    let field = "linux.resources.rdma[\"no-adapter\"]: ";
    assert!(error.contains(field), "{error}");
}
