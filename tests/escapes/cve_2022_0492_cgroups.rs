//! Cgroups as a way out: the release_agent of a v1 hierarchy, which the kernel executes on the host (CVE-2022-0492); and a
//! tree in which the container's own place is not the top (CVE-2023-25809).

use std::fs;

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::subject::Subject;
use crate::support::{only_where, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    let here = tests![
        nothing_above_the_containers_own_cgroup_can_be_reached,
        without_a_namespace_the_tree_is_closed_by_its_options,
    ];
    // A hierarchy of another name is the kernel's, for all of the host.
    let harmful = std::env::var_os("PARHELION_TEST_ALL").is_some();
    let lacks = "it is not tried on a host that is used";
    let virtual_host = tests![no_release_agent_is_in_reach];
    let virtual_host = only_where(harmful, lacks, virtual_host);
    here.into_iter().chain(virtual_host).collect()
}

/// What the container prints that tries to make a cgroup above its own, and to be in it.
fn climb(change: impl FnOnce(&mut Value)) -> String {
    let bundle = Subject::Real.bundle("");
    let name = format!("escape-{}", bundle.id);
    bundle.edit(|config| {
        let script = format!(
            "for top in /sys/fs/cgroup /sys/fs/cgroup/.. /sys/fs/cgroup/../../..; do
                [ -d $top/parhelion ] && echo above
                busybox mkdir $top/parhelion/{name} && echo made
            done 2>/dev/null; true"
        );
        config["process"]["args"] = json!(["/bin/sh", "-c", script]);
        change(config);
    });
    let told = bundle.run().success();
    let made = fs::remove_dir(format!("/sys/fs/cgroup/parhelion/{name}"));
    assert_eq!(made.is_ok(), told.contains("made"), "{told}");
    told
}

/// Takes `ro` from the cgroup mount's options.
fn open(config: &mut Value) {
    let mounts = config["mounts"].as_array_mut().unwrap();
    let cgroup = mounts.iter_mut().find(|mount| mount["type"] == "cgroup");
    let options = cgroup.unwrap()["options"].as_array_mut().unwrap();
    options.retain(|option| option != "ro");
}

fn leave_the_namespace(config: &mut Value) {
    let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|namespace| namespace["type"] != "cgroup");
}

fn nothing_above_the_containers_own_cgroup_can_be_reached() {
    assert_eq!(climb(|_config| {}), "");
    assert_eq!(climb(open), "");
}

/// The last one shows that the attack works where a configuration lets it.
fn without_a_namespace_the_tree_is_closed_by_its_options() {
    assert_eq!(climb(leave_the_namespace), "above\n");
    let open_to_all = |config: &mut Value| {
        leave_the_namespace(config);
        open(config);
    };
    assert_eq!(climb(open_to_all), "above\nmade\n");
}

/// Nor with a user namespace of the program's own, nor with CAP_SYS_ADMIN in a cgroup namespace. With that over the host
/// and without the namespace it is, which shows that the test can fail.
fn no_release_agent_is_in_reach() {
    let reach = |capabilities: &[&str], change: fn(&mut Value)| {
        let bundle = Subject::Real.bundle("");
        bundle.edit(|config| {
            let mount = format!(
                "mount -t cgroup -o none,name={} none /tmp && ls /tmp/release_agent",
                bundle.id
            );
            let script = format!(
                "{{ {mount}; busybox unshare -U -r -m sh -c '{mount}'; ls /sys/fs/cgroup/release_agent; \
                }} 2>/dev/null; true"
            );
            config["process"]["args"] = json!(["/bin/sh", "-c", script]);
            for set in ["bounding", "effective", "permitted"] {
                config["process"]["capabilities"][set] = json!(capabilities);
            }
            change(config);
        });
        bundle.run().success()
    };
    assert_eq!(reach(&["CAP_KILL"], |_config| {}), "");
    assert_eq!(reach(&["CAP_KILL"], leave_the_namespace), "");
    assert_eq!(reach(&["CAP_SYS_ADMIN"], |_config| {}), "");
    let reached = reach(&["CAP_SYS_ADMIN"], leave_the_namespace);
    assert!(reached.contains("/tmp/release_agent"), "{reached}");
}
