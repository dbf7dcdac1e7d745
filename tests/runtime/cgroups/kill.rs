//! Every process of a container is reached, and none is ever moved into it.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use libtest_mimic::Trial;
use serde_json::json;

use super::{cgroup, mount_cgroup, share_pids, start, wait_until_empty};
use crate::caller::Fifo;
use crate::support::{Bundle, program, tests};

pub fn all() -> Vec<Trial> {
    tests![
        init_is_cloned_into_its_cgroup_and_no_process_is_moved,
        init_is_cloned_into_a_cgroup_below_its_own_too,
        kill_all_reaches_cgroups_that_the_container_made,
        kill_all_takes_any_signal,
        kill_all_ends_processes_that_outrun_a_list_of_them,
        delete_by_force_ends_processes_that_outrun_a_list_of_them,
        a_killed_init_takes_all_with_it_without_a_pid_namespace,
        delete_by_force_and_kill_all_use_the_kernels_own_way,
    ]
}

/// Runs the program under strace; the calls that open files and make processes.
fn traced(bundle: &Bundle, arguments: &[&str]) -> String {
    let trace = bundle.folder.join("trace");
    // The container's program may outlive the runtime: then strace is not to wait for its output.
    let ended = Command::new("strace")
        .args(["-f", "-s", "200", "-e"])
        .arg("trace=open,openat,openat2,write,clone3,clone,fork,vfork")
        .arg("-o")
        .arg(&trace)
        .arg(program())
        .arg("--root")
        .arg(bundle.folder.join("state"))
        .args(arguments)
        .stdin(Stdio::null())
        .status()
        .expect("strace is missing: apt-get install strace");
    let trace = fs::read_to_string(trace).unwrap();
    assert!(ended.success(), "{ended}: {trace}");
    trace
}

fn init_is_cloned_into_its_cgroup_and_no_process_is_moved() {
    let bundle = Bundle::new("true");
    let trace = traced(&bundle, &["run", "--bundle", bundle.path(), &bundle.id]);
    let clones: Vec<&str> = trace.lines().filter(|l| l.contains("clone3(")).collect();
    // The seed, which stays where the runtime is, and init.
    assert_eq!(clones.len(), 2, "{trace}");
    let into = |line: &&str| line.contains("CLONE_INTO_CGROUP");
    assert_eq!(
        clones.iter().map(into).collect::<Vec<_>>(),
        [false, true],
        "{trace}"
    );
    for line in trace.lines() {
        let moves = ["cgroup.procs", "cgroup.threads"].map(|file| line.contains(file));
        let reads = line.contains("O_RDONLY");
        assert!(moves == [false, false] || reads, "{line}");
    }
    // What is seen is not nothing: the device filter's cgroup and its files were opened.
    assert!(trace.contains(&bundle.id), "{trace}");
}

fn init_is_cloned_into_a_cgroup_below_its_own_too() {
    let bundle = Bundle::new("cat /proc/self/cgroup");
    bundle.edit(|config| config["annotations"] = json!({"run.oci.systemd.subgroup": "main"}));
    let trace = traced(&bundle, &["run", "--bundle", bundle.path(), &bundle.id]);
    assert!(trace.contains("CLONE_INTO_CGROUP"), "{trace}");
    let writes = |line: &&str| line.contains("cgroup.procs") && !line.contains("O_RDONLY");
    assert_eq!(trace.lines().filter(writes).count(), 0, "{trace}");
}

/// A container whose two processes are in cgroups that it made, in the host's pid namespace.
fn divided() -> (Bundle, PathBuf) {
    let script = "busybox mkdir -p /sys/fs/cgroup/a/b
        (echo 0 > /sys/fs/cgroup/a/b/cgroup.procs; echo ready > /tmp/ready; exec sleep 1000) &
        wait";
    let bundle = Bundle::new(script);
    share_pids(&bundle);
    mount_cgroup(&bundle, "rw");
    let mut ready = Fifo::new(&bundle, "ready");
    start(&bundle);
    ready.hear();
    let cgroup = cgroup(&bundle);
    (bundle, cgroup)
}

fn kill_all_reaches_cgroups_that_the_container_made() {
    kill_all_ends(divided);
}

/// `kill --all` ends every process of the containers that `make` starts, by either signal.
fn kill_all_ends(make: fn() -> (Bundle, PathBuf)) {
    for signal in ["KILL", "TERM"] {
        let (bundle, cgroup) = make();
        bundle
            .parhelion(&["kill", "--all", &bundle.id, signal])
            .success();
        wait_until_empty(&cgroup);
        assert_eq!(bundle.status(), "stopped");
        bundle.verb("delete").success();
        assert!(!cgroup.exists());
    }
}

fn kill_all_takes_any_signal() {
    for signal in ["RTMIN+3", "40", "USR1"] {
        let (bundle, cgroup) = divided();
        let all = |signal| bundle.parhelion(&["kill", "--all", &bundle.id, signal]);
        all("0").success();
        assert_eq!(bundle.status(), "running");
        all(signal).success();
        wait_until_empty(&cgroup);
    }
}

/// Processes that each leave a child and end, faster than anybody can list them. There are never
/// more than a few of them.
fn outrunning() -> (Bundle, PathBuf) {
    let script = "run() { run & exit; }
        for each in 1 2 3 4 5 6; do run & done
        echo ready > /tmp/ready; exec sleep 1000";
    let bundle = Bundle::new(script);
    share_pids(&bundle);
    let mut ready = Fifo::new(&bundle, "ready");
    start(&bundle);
    ready.hear();
    let cgroup = cgroup(&bundle);
    (bundle, cgroup)
}

fn kill_all_ends_processes_that_outrun_a_list_of_them() {
    kill_all_ends(outrunning);
}

fn delete_by_force_ends_processes_that_outrun_a_list_of_them() {
    let (bundle, cgroup) = outrunning();
    bundle
        .parhelion(&["delete", "--force", &bundle.id])
        .success();
    assert!(!cgroup.exists());
}

fn a_killed_init_takes_all_with_it_without_a_pid_namespace() {
    let (bundle, cgroup) = divided();
    bundle.parhelion(&["kill", &bundle.id, "KILL"]).success();
    wait_until_empty(&cgroup);
    bundle.verb("delete").success();
    assert!(!cgroup.exists());
}

fn delete_by_force_and_kill_all_use_the_kernels_own_way() {
    let kills = |arguments: &[&str], bundle: &Bundle| {
        let trace = traced(bundle, arguments);
        let opened = |line: &str| line.contains("\"cgroup.kill\", O_WRONLY");
        assert!(trace.lines().any(opened), "{arguments:?}: {trace}");
    };
    let (bundle, cgroup) = divided();
    kills(&["kill", "--all", &bundle.id, "KILL"], &bundle);
    wait_until_empty(&cgroup);
    let (bundle, cgroup) = divided();
    kills(&["delete", "--force", &bundle.id], &bundle);
    assert!(!cgroup.exists());
}
