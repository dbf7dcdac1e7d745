//! Namespaces: new ones, joined ones and the host's; user maps; clocks.

mod clocks;
mod joined;
mod user;

use std::fs;
use std::os::unix::fs::chown;

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::support::{Bundle, tests};

/// The tests of this folder.
pub fn all() -> Vec<Trial> {
    let here = tests![
        the_program_sees_its_own_namespaces,
        every_kind_is_new_joined_or_the_hosts,
        a_new_network_namespace_has_its_loopback_up,
        names_and_queues_stay_inside,
        all_kinds_are_new_at_once,
        a_path_that_is_no_such_namespace_is_refused,
        a_kind_that_is_listed_twice_is_refused,
    ];
    let files = [clocks::all(), joined::all(), user::all()];
    here.into_iter()
        .chain(files.into_iter().flatten())
        .collect()
}

/// Each kind in config.json, and its file in /proc/PID/ns.
const KINDS: &[(&str, &str)] = &[
    ("mount", "mnt"),
    ("pid", "pid"),
    ("network", "net"),
    ("ipc", "ipc"),
    ("uts", "uts"),
    ("user", "user"),
    ("cgroup", "cgroup"),
    ("time", "time"),
];

/// Prints the eight namespaces, in the order of `KINDS`.
const PRINT_ALL: &str = "for n in mnt pid net ipc uts user cgroup time; do \
    busybox readlink /proc/self/ns/$n; done";

fn host(file: &str) -> String {
    of("self", file)
}

/// Which namespace a process is in.
fn of(process: &str, file: &str) -> String {
    let link = fs::read_link(format!("/proc/{process}/ns/{file}")).unwrap();
    link.to_string_lossy().into_owned()
}

fn without_hostname(bundle: &Bundle) {
    bundle.edit(|config| {
        config.as_object_mut().unwrap().remove("hostname");
    });
}

/// Takes `kind` out of the list, and what needs it out of the configuration.
fn leave(bundle: &Bundle, kind: &str) {
    bundle.edit(|config| {
        let linux = &mut config["linux"];
        let list = linux["namespaces"].as_array_mut().unwrap();
        list.retain(|namespace| namespace["type"] != kind);
        if kind == "mount" {
            for field in ["maskedPaths", "readonlyPaths"] {
                linux[field] = json!([]);
            }
            config["mounts"] = json!([]);
            config["root"]["readonly"] = json!(false);
        }
    });
    if kind == "uts" {
        without_hostname(bundle);
    }
}

/// Puts `kind` into the list: new, or joined at `path`.
fn enter(bundle: &Bundle, kind: &str, path: Option<&str>) {
    bundle.edit(|config| {
        let linux = &mut config["linux"];
        let list = linux["namespaces"].as_array_mut().unwrap();
        list.retain(|namespace| namespace["type"] != kind);
        list.push(match path {
            Some(path) => json!({"type": kind, "path": path}),
            None => json!({"type": kind}),
        });
        if kind == "user" && path.is_none() {
            let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
            linux["uidMappings"] = map.clone();
            linux["gidMappings"] = map;
        }
    });
    if kind == "user" {
        give_root(bundle, 100_000);
    }
}

/// Makes `id` of the host the owner of the bundle's root.
fn give_root(bundle: &Bundle, id: u32) {
    chown(bundle.folder.join("rootfs"), Some(id), Some(id)).unwrap();
}

fn keep_mounts(bundle: &Bundle, keep: impl Fn(&Value) -> bool) {
    bundle.edit(|config| config["mounts"].as_array_mut().unwrap().retain(keep));
}

fn the_program_sees_its_own_namespaces() {
    let bundle = Bundle::new(
        "hostname; echo pid $$; cat /proc/self/cgroup | busybox grep ^0; ip addr show lo; ls /",
    );
    bundle.edit(|config| config["hostname"] = json!("inside"));
    let seen = bundle.run().success();
    for expected in ["inside", "pid 1", "127.0.0.1", "0::/\n"] {
        assert!(seen.contains(expected), "{expected:?} is not in {seen}");
    }
}

fn every_kind_is_new_joined_or_the_hosts() {
    for (kind, file) in KINDS {
        let new = Bundle::new("true");
        enter(&new, kind, None);
        new.create().success();
        let pid = new.pid().to_string();
        assert_ne!(of(&pid, file), host(file), "{kind}: new");

        let joined = Bundle::new("true");
        enter(&joined, kind, Some(&format!("/proc/{pid}/ns/{file}")));
        joined.create().success();
        let found = of(&joined.pid().to_string(), file);
        assert_eq!(found, of(&pid, file), "{kind}: joined");

        let hosts = Bundle::new("true");
        leave(&hosts, kind);
        hosts.create().success();
        let found = of(&hosts.pid().to_string(), file);
        assert_eq!(found, host(file), "{kind}: the host's");

        // The host's by its path is the same as none.
        let by_path = Bundle::new("true");
        leave(&by_path, kind);
        enter(&by_path, kind, Some(&format!("/proc/self/ns/{file}")));
        by_path.create().success();
        let found = of(&by_path.pid().to_string(), file);
        assert_eq!(found, host(file), "{kind}: the host's path");
    }
}

fn a_new_network_namespace_has_its_loopback_up() {
    // Nobody listens there: a loopback that is down would be unreachable instead.
    let bundle = Bundle::new(
        "cd /sys/class/net; echo *; cat lo/flags; busybox nc 127.0.0.1 7000 2>&1; true",
    );
    let seen = bundle.run().success();
    let lines: Vec<&str> = seen.lines().collect();
    assert_eq!(lines[..2], ["lo", "0x9"]);
    assert!(lines[2].ends_with("Connection refused"), "{seen}");
}

fn names_and_queues_stay_inside() {
    let bundle = Bundle::new(
        "hostname; cat /proc/sys/kernel/domainname; touch /dev/mqueue/mine; ls /dev/mqueue",
    );
    bundle.edit(|config| {
        config["hostname"] = json!("box");
        config["domainname"] = json!("inside.example");
    });
    assert_eq!(bundle.run().success(), "box\ninside.example\nmine\n");
    let name = |file: &str| fs::read_to_string(format!("/proc/sys/kernel/{file}")).unwrap();
    assert_ne!(name("hostname").trim(), "box");
    assert_ne!(name("domainname").trim(), "inside.example");
}

fn all_kinds_are_new_at_once() {
    let bundle = Bundle::new(&format!(
        "{PRINT_ALL}; echo $$; id -u; cat /proc/self/timens_offsets; ip addr show lo"
    ));
    enter(&bundle, "user", None);
    enter(&bundle, "time", None);
    bundle.edit(|config| {
        config["linux"]["timeOffsets"] = json!({"boottime": {"secs": 77}});
    });
    let seen = bundle.run().success();
    let lines: Vec<&str> = seen.lines().collect();
    for ((_, file), line) in KINDS.iter().zip(&lines) {
        assert!(
            line.starts_with(file) && *line != host(file),
            "{file}: {line}"
        );
    }
    assert_eq!(lines[8..10], ["1", "0"]);
    let offset: Vec<&str> = lines[11].split_whitespace().collect();
    assert_eq!(offset, ["boottime", "77", "0"]);
    assert!(seen.contains("127.0.0.1"), "{seen}");
}

fn a_path_that_is_no_such_namespace_is_refused() {
    let bundle = Bundle::new("true");
    let fifo = bundle.folder.join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let holder = Bundle::new("true");
    holder.create().success();
    let other = format!("/proc/{}/ns/net", holder.pid());
    without_hostname(&bundle);
    bundle.edit(|config| {
        config["linux"]["namespaces"] = json!([
            {"type": "mount"},
            {"type": "uts", "path": other},
            {"type": "pid", "path": "/etc/passwd"},
            {"type": "network", "path": fifo},
        ]);
    });
    let error = bundle.create().failure();
    for expected in [
        format!("linux.namespaces[1].path: \"{other}\" is a namespace of type network, not uts"),
        "linux.namespaces[2].path: \"/etc/passwd\" is no namespace".to_owned(),
        format!(
            "linux.namespaces[3].path: \"{}\" is no namespace",
            fifo.display()
        ),
    ] {
        assert!(error.contains(&expected), "{expected:?} is not in {error}");
    }
    bundle.edit(|config| {
        config["linux"]["namespaces"] = json!([
            {"type": "mount"},
            {"type": "uts", "path": "/run/no/such"},
            {"type": "network", "path": "net"},
        ]);
    });
    let error = bundle.create().failure();
    for expected in [
        "linux.namespaces[1].path: stat(\"/run/no/such\"): no such file or directory",
        "linux.namespaces[2].path: must be an absolute path, is \"net\"",
    ] {
        assert!(error.contains(expected), "{expected:?} is not in {error}");
    }
}

fn a_kind_that_is_listed_twice_is_refused() {
    let bundle = Bundle::new("true");
    bundle.edit(|config| {
        let list = config["linux"]["namespaces"].as_array_mut().unwrap();
        list.push(json!({"type": "pid"}));
        list.push(json!({"type": "ipc", "path": "/proc/self/ns/ipc"}));
    });
    let error = bundle.create().failure();
    for (i, kind) in [(6, "pid"), (7, "ipc")] {
        let expected = format!("linux.namespaces[{i}].type: {kind} is in linux.namespaces[");
        assert!(error.contains(&expected), "{error}");
    }
}
