//! Namespaces of a container that another one joins.

use std::fs;

use libtest_mimic::Trial;
use serde_json::json;

use super::{KINDS, PRINT_ALL, enter, keep_mounts, of, without_hostname};
use crate::support::{Bundle, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        a_container_sees_the_processes_of_the_one_it_joins,
        a_container_joins_everything_of_a_pod_but_its_mounts,
        a_joined_user_namespace_has_new_mounts,
        a_new_user_namespace_goes_with_joined_ones,
        a_joined_mount_namespace_is_not_changed_for_the_others_in_it,
    ]
}

/// A container that runs until it is killed.
struct Holder {
    bundle: Bundle,
    pid: i32,
}

impl Holder {
    fn new(prepare: impl FnOnce(&Bundle)) -> Holder {
        let bundle = Bundle::new("exec sleep 1000");
        prepare(&bundle);
        bundle.create().success();
        bundle.verb("start").success();
        let pid = bundle.pid();
        Holder { bundle, pid }
    }

    /// Lets `bundle` join these kinds of its namespaces.
    fn take_in(&self, bundle: &Bundle, kinds: &[&str]) {
        for (kind, file) in KINDS.iter().filter(|(kind, _)| kinds.contains(kind)) {
            enter(bundle, kind, Some(&format!("/proc/{}/ns/{file}", self.pid)));
        }
        if kinds.contains(&"uts") {
            without_hostname(bundle);
        }
    }

    fn namespace(&self, file: &str) -> String {
        of(&self.pid.to_string(), file)
    }
}

fn a_container_sees_the_processes_of_the_one_it_joins() {
    let holder = Holder::new(|_| {});
    let bundle = Bundle::new("echo $$; cat /proc/1/comm; kill -0 1 && echo reaches");
    holder.take_in(&bundle, &["pid"]);
    let seen = bundle.run().success();
    let (own, rest) = seen.split_once('\n').unwrap();
    assert!(own.parse::<u32>().unwrap() > 1, "{seen}");
    assert_eq!(rest, "sleep\nreaches\n");
    assert_eq!(holder.bundle.status(), "running", "the joined one lives on");
}

fn a_container_joins_everything_of_a_pod_but_its_mounts() {
    let holder = Holder::new(|bundle| {
        enter(bundle, "user", None);
        enter(bundle, "time", None);
        bundle.edit(|config| {
            config["linux"]["timeOffsets"] = json!({"boottime": {"secs": 3_000_000}});
            config["hostname"] = json!("pod");
        });
    });
    let bundle = Bundle::new(&format!(
        "{PRINT_ALL}; id -u; cat /proc/self/uid_map; cat /proc/uptime; cat /proc/1/comm; hostname"
    ));
    let all = ["pid", "network", "ipc", "uts", "user", "cgroup", "time"];
    holder.take_in(&bundle, &all);
    let seen = bundle.run().success();
    let lines: Vec<&str> = seen.lines().collect();
    for ((_, file), line) in KINDS.iter().zip(&lines) {
        let same = *line == holder.namespace(file);
        assert_eq!(same, *file != "mnt", "{file}: {line}");
    }
    assert_eq!(lines[8], "0");
    let map: Vec<&str> = lines[9].split_whitespace().collect();
    assert_eq!(map, ["0", "100000", "65536"]);
    let uptime: f64 = lines[10].split(' ').next().unwrap().parse().unwrap();
    assert!(uptime >= 3_000_000.0, "{seen}");
    assert_eq!(lines[11..], ["sleep", "pod"]);
}

fn a_joined_user_namespace_has_new_mounts() {
    let holder = Holder::new(|bundle| enter(bundle, "user", None));
    let bundle = Bundle::new(
        "id -u; stat -c %u / /proc/self/status /dev/null; \
         touch /data/made && stat -c %u /data/made",
    );
    holder.take_in(&bundle, &["user"]);
    bundle.edit(|config| {
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.push(json!({"destination": "/data", "type": "tmpfs"}));
    });
    // The devices are the host's, and its root is nobody here.
    assert_eq!(bundle.run().success(), "0\n0\n0\n65534\n0\n");
}

fn a_new_user_namespace_goes_with_joined_ones() {
    let holder = Holder::new(|bundle| bundle.edit(|config| config["hostname"] = json!("pod")));
    let bundle = Bundle::new("id -u; hostname; busybox readlink /proc/self/ns/ipc");
    enter(&bundle, "user", None);
    holder.take_in(&bundle, &["uts", "ipc"]);
    // Queues belong to whoever owns their namespace.
    keep_mounts(&bundle, |mount| mount["type"] != "mqueue");
    let ipc = holder.namespace("ipc");
    assert_eq!(bundle.run().success(), format!("0\npod\n{ipc}\n"));
}

fn a_joined_mount_namespace_is_not_changed_for_the_others_in_it() {
    let holder = Holder::new(|_| {});
    fs::write(holder.bundle.folder.join("rootfs/holder"), "").unwrap();
    let places = || -> Vec<String> {
        let table = fs::read_to_string(format!("/proc/{}/mountinfo", holder.pid)).unwrap();
        let place = |line: &str| line.split(' ').nth(4).unwrap().to_owned();
        table.lines().map(place).collect()
    };
    let sees_its_root = || fs::exists(format!("/proc/{}/root/holder", holder.pid)).unwrap();
    let before = places();
    let script = "ls /; cat /etc/mark; busybox readlink /proc/self/ns/mnt; cat /data/x";
    let bundle = Bundle::new(script);
    fs::write(bundle.folder.join("rootfs/etc/mark"), "inside\n").unwrap();
    fs::write(bundle.folder.join("x"), "bound\n").unwrap();
    holder.take_in(&bundle, &["mount"]);
    bundle.edit(|config| {
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.push(json!({"destination": "/data/x", "source": "x", "options": ["bind"]}));
    });
    let namespace = holder.namespace("mnt");
    assert_eq!(
        bundle.run().success(),
        format!("bin\ndata\ndev\netc\nproc\nsys\ntmp\ninside\n{namespace}\nbound\n")
    );
    assert!(sees_its_root());
    // What was added lies over its root, where no path of its own leads.
    assert_eq!(before, places()[..before.len()]);
}
