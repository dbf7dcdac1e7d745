//! `linux.netDevices`: interfaces of the host that become the container's.
//!
//! The host is a network namespace that each test makes for itself, with veth pairs: both test hosts
//! know these.

use std::process::{Command, Stdio};

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::support::{Bundle, Ran, program, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        an_interface_is_moved_and_up,
        an_interface_gets_another_name_inside,
        permanent_global_addresses_go_with_the_interface,
        attributes_of_the_interface_are_kept,
        a_template_is_filled_with_the_first_free_number,
        a_name_that_is_taken_inside_moves_nothing,
        an_interface_that_the_host_lacks_is_refused,
        an_interface_that_can_not_be_moved_is_refused,
        sysctls_of_the_interface_are_set,
        interfaces_go_into_a_joined_namespace,
        interfaces_go_into_a_user_namespace,
        the_runtime_does_not_take_the_interface_back,
    ]
}

/// A bundle whose program prints what `script` does, with `devices` in `linux.netDevices`.
fn with_devices(script: &str, devices: Value) -> Bundle {
    let bundle = Bundle::new(script);
    bundle.edit(|config| config["linux"]["netDevices"] = devices);
    bundle
}

/// Runs the container in a network namespace that `setup` has furnished, and `after` there later.
fn run_in_network(bundle: &Bundle, setup: &str, after: &str) -> Ran {
    let script = format!("set -e\n{setup}\n\"$@\" && code=0 || code=$?\n{after}\nexit $code");
    let output = Command::new("unshare")
        .args(["--net", "sh", "-c", &script, "sh"])
        .arg(program())
        .arg("--root")
        .arg(bundle.folder.join("state"))
        .args(["run", "--bundle", bundle.path(), &bundle.id])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    Ran(output)
}

const PAIR: &str = "ip link add v0 type veth peer name v1; ip link set v1 up";

fn an_interface_is_moved_and_up() {
    let bundle = with_devices("ip -o link", json!({"v0": {}}));
    let seen = run_in_network(&bundle, PAIR, "").success();
    let line = seen.lines().find(|line| line.contains(" v0@")).unwrap();
    assert!(line.contains("UP"), "{line}");
}

fn an_interface_gets_another_name_inside() {
    let bundle = with_devices("ls /sys/class/net", json!({"v0": {"name": "eth.7"}}));
    let seen = run_in_network(&bundle, PAIR, "").success();
    let names: Vec<&str> = seen.split_whitespace().collect();
    assert!(names.contains(&"eth.7") && !names.contains(&"v0"), "{seen}");
}

fn permanent_global_addresses_go_with_the_interface() {
    let setup = format!(
        "{PAIR}; ip link set v0 up
        ip addr add 192.0.2.7/24 broadcast 192.0.2.255 dev v0
        ip addr add 198.51.100.1 peer 198.51.100.2/32 dev v0
        ip addr add 203.0.113.9/24 dev v0 valid_lft 1000 preferred_lft 1000
        ip addr add 169.254.1.1/16 scope link dev v0
        ip addr add 2001:db8::7/64 nodad dev v0"
    );
    let bundle = with_devices("ip -o addr show dev eth0", json!({"v0": {"name": "eth0"}}));
    let seen = run_in_network(&bundle, &setup, "").success();
    for kept in [
        "inet 192.0.2.7/24 brd 192.0.2.255 scope global eth0",
        "inet 198.51.100.1 peer 198.51.100.2/32 scope global eth0",
        "inet6 2001:db8::7/64 scope global",
    ] {
        assert!(seen.contains(kept), "{kept:?} is not in\n{seen}");
    }
    for left in ["203.0.113.9", "169.254.1.1"] {
        assert!(!seen.contains(left), "{left} is in\n{seen}");
    }
}

fn attributes_of_the_interface_are_kept() {
    let setup = format!("{PAIR}; ip link set v0 mtu 1234 address 02:00:5e:00:53:01");
    let script = "cat /sys/class/net/v0/mtu /sys/class/net/v0/address";
    let bundle = with_devices(script, json!({"v0": {}}));
    let seen = run_in_network(&bundle, &setup, "").success();
    assert_eq!(seen, "1234\n02:00:5e:00:53:01\n");
}

fn a_template_is_filled_with_the_first_free_number() {
    let setup = "ip link add v0 type veth peer name v1; ip link add v2 type veth peer name v3";
    let devices = json!({"v0": {"name": "eth%d"}, "v1": {"name": "eth1"}, "v2": {"name": "eth%d"},
        "v3": {"name": "lo%d"}});
    let bundle = with_devices("cd /sys/class/net; echo eth* lo*", devices);
    let seen = run_in_network(&bundle, setup, "").success();
    assert_eq!(seen, "eth0 eth1 eth2 lo lo0\n");
}

fn a_name_that_is_taken_inside_moves_nothing() {
    let devices = json!({"v0": {}, "v1": {"name": "lo"}});
    let bundle = with_devices("true", devices);
    let ran = run_in_network(&bundle, PAIR, "ip link show v0; ip link show v1");
    let refused = ran.failure();
    assert!(
        refused.contains("linux.netDevices.v1: the container has an interface \"lo\" already: "),
        "{refused}"
    );
    let outside = String::from_utf8(ran.0.stdout).unwrap();
    assert!(
        outside.contains("v0@v1") && outside.contains("v1@v0"),
        "{outside}"
    );
    let state = bundle.folder.join("state");
    assert_eq!(std::fs::read_dir(state).unwrap().count(), 0);
}

fn an_interface_that_the_host_lacks_is_refused() {
    let bundle = with_devices("true", json!({"v0": {}, "v7": {}}));
    let refused = run_in_network(&bundle, PAIR, "ip link show v0 >&2").failure();
    assert!(
        refused.contains("linux.netDevices.v7: the host has no such interface\n"),
        "{refused}"
    );
    assert!(refused.contains("v0@v1"), "{refused}");
}

fn an_interface_that_can_not_be_moved_is_refused() {
    let bundle = with_devices("true", json!({"lo": {"name": "lo9"}}));
    let refused = run_in_network(&bundle, "true", "").failure();
    assert!(
        refused.contains("linux.netDevices.lo: RTM_NEWLINK(1, IFLA_IFNAME \"lo9\", ")
            && refused.ends_with("invalid argument\n"),
        "{refused}"
    );
}

fn sysctls_of_the_interface_are_set() {
    let bundle = with_devices(
        "cat /proc/sys/net/ipv4/conf/eth0/forwarding",
        json!({"v0": {"name": "eth0"}}),
    );
    bundle.edit(|config| {
        config["linux"]["sysctl"] = json!({"net.ipv4.conf.eth0.forwarding": "1"});
    });
    assert_eq!(run_in_network(&bundle, PAIR, "").success(), "1\n");
}

fn interfaces_go_into_a_joined_namespace() {
    let bundle = with_devices("ip -o addr show dev v0", json!({"v0": {}}));
    let file = bundle.folder.join("netns");
    std::fs::write(&file, "").unwrap();
    bundle.edit(|config| {
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        let network = namespaces
            .iter_mut()
            .find(|entry| entry["type"] == "network");
        network.unwrap()["path"] = json!(file);
    });
    // The mount that keeps it ends with the mount namespace of the script.
    let file = file.display();
    let setup = format!(
        "{PAIR}; ip addr add 192.0.2.1/24 dev v0
        unshare --net=\"{file}\" true"
    );
    let after = format!("nsenter --net=\"{file}\" ip -o link; umount \"{file}\"");
    let seen = run_in_network(&bundle, &setup, &after).success();
    assert!(seen.contains("inet 192.0.2.1/24"), "{seen}");
    // It stays there when the container has ended.
    let later: Vec<&str> = seen.lines().filter(|line| line.contains(" v0@")).collect();
    assert_eq!(later.len(), 1, "{seen}");
}

fn interfaces_go_into_a_user_namespace() {
    let bundle = with_devices(
        "ip -o addr show dev v0; ip link set v0 down",
        json!({"v0": {}}),
    );
    bundle.edit(|config| {
        let map = json!([{"containerID": 0, "hostID": 100_000, "size": 1000}]);
        config["linux"]["uidMappings"] = map.clone();
        config["linux"]["gidMappings"] = map;
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.push(json!({"type": "user"}));
        for set in ["bounding", "effective", "permitted"] {
            config["process"]["capabilities"][set] = json!(["CAP_NET_ADMIN"]);
        }
    });
    let setup = format!("{PAIR}; ip addr add 192.0.2.1/24 dev v0");
    let seen = run_in_network(&bundle, &setup, "").success();
    assert!(seen.contains("inet 192.0.2.1/24"), "{seen}");
}

fn the_runtime_does_not_take_the_interface_back() {
    let bundle = with_devices("true", json!({"v0": {}}));
    // It goes with its namespace, and its peer with it.
    let seen = run_in_network(&bundle, PAIR, "ip -o link").success();
    assert!(!seen.contains(" v0@"), "{seen}");
}
