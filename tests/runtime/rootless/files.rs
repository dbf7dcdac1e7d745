//! What is mounted: devices, file systems that belong to namespaces, trees of the host.

use std::fs;

use libtest_mimic::Trial;
use serde_json::json;

use super::{Rootless, user};
use crate::support::tests;

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        devices_are_those_of_the_host,
        a_device_that_the_host_has_elsewhere_is_refused,
        trees_of_the_host_are_mounted_with_their_options,
        what_only_root_can_read_stays_unread,
        a_network_of_its_own_comes_with_sysfs,
        mounts_are_added_to_a_container_that_runs_and_removed,
        a_file_system_of_a_shared_namespace_is_refused_with_advice,
    ]
}

fn devices_are_those_of_the_host() {
    let rootless = Rootless::new(
        "echo lost > /dev/null; busybox head -c 3 /dev/zero | busybox wc -c; \
         busybox head -c 3 /dev/urandom | busybox wc -c; echo x > /dev/full || echo full; \
         for node in null zero full random urandom tty; do stat -c '%n %t:%T' /dev/$node; done; \
         ls /dev/pts/ptmx /dev/ptmx; busybox mknod /tmp/x c 1 3 || echo refused",
    );
    rootless.edit(|config| config["root"]["readonly"] = json!(false));
    let seen = rootless.run().success();
    let expected = "3\n3\nfull\n/dev/null 1:3\n/dev/zero 1:5\n/dev/full 1:7\n/dev/random 1:8\n\
        /dev/urandom 1:9\n/dev/tty 5:0\n/dev/ptmx\n/dev/pts/ptmx\nrefused\n";
    assert_eq!(seen, expected);
}

fn a_device_that_the_host_has_elsewhere_is_refused() {
    let rootless = Rootless::new("true");
    rootless.edit(|config| {
        config["linux"]["devices"] =
            json!([{"path": "/dev/nothing", "type": "c", "major": 1, "minor": 3}]);
    });
    let error = rootless.run().failure();
    let expected = "linux.devices[0].path: \"/dev/nothing\" of the host is not the device c 1:3";
    assert!(error.contains(expected), "{error}");
}

fn trees_of_the_host_are_mounted_with_their_options() {
    let rootless = Rootless::new(
        "cat /data/file; touch /data/new || echo read-only; touch /more/new && echo written; \
         busybox grep ' /data ' /proc/self/mountinfo | busybox cut -d' ' -f6",
    );
    for name in ["data", "more"] {
        fs::create_dir(rootless.bundle.folder.join(name)).unwrap();
    }
    fs::write(rootless.bundle.folder.join("data/file"), "here\n").unwrap();
    super::give(&rootless.bundle.folder.join("data"));
    super::give(&rootless.bundle.folder.join("more"));
    rootless.edit(|config| {
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.push(json!({"destination": "/data", "source": "data", "options": ["rbind", "ro", "nosuid", "noexec"]}));
        mounts.push(json!({"destination": "/more", "source": "more", "options": ["bind"]}));
        config["root"]["readonly"] = json!(false);
    });
    let seen = rootless.run().success();
    assert!(
        seen.starts_with("here\nread-only\nwritten\nro,nosuid,noexec"),
        "{seen}"
    );
    use std::os::unix::fs::MetadataExt;
    let made = fs::metadata(rootless.bundle.folder.join("more/new")).unwrap();
    assert_eq!((made.uid(), made.gid()), (user(), user()));
}

fn what_only_root_can_read_stays_unread() {
    let rootless = Rootless::new("cat /secret/file || echo refused");
    let secret = rootless.bundle.folder.join("secret");
    fs::create_dir(&secret).unwrap();
    fs::write(secret.join("file"), "secret\n").unwrap();
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(secret.join("file"), fs::Permissions::from_mode(0o600)).unwrap();
    rootless.edit(|config| {
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.push(json!({"destination": "/secret", "source": "secret", "options": ["bind"]}));
        config["root"]["readonly"] = json!(false);
    });
    assert_eq!(rootless.run().success(), "refused\n");
}

fn a_network_of_its_own_comes_with_sysfs() {
    let rootless = Rootless::new(
        "ls /sys/class/net; cat /sys/class/net/lo/operstate; ip link show lo | busybox grep -c UP",
    );
    rootless.edit(|config| {
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.push(json!({"type": "network"}));
        for mount in config["mounts"].as_array_mut().unwrap() {
            if mount["destination"] == "/sys" {
                *mount = json!({"destination": "/sys", "type": "sysfs", "source": "sysfs",
                    "options": ["nosuid", "noexec", "nodev", "ro"]});
            }
        }
    });
    assert_eq!(rootless.run().success(), "lo\nunknown\n1\n");
}

fn mounts_are_added_to_a_container_that_runs_and_removed() {
    let rootless = Rootless::new("sleep 1000");
    let data = rootless.bundle.folder.join("data");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("file"), "of the host\n").unwrap();
    let file = rootless.bundle.folder.join("mounts.json");
    let list = json!([{"destination": "/tmp/data", "source": data, "options": ["rbind", "ro"]},
        {"destination": "/tmp/new", "type": "tmpfs", "source": "tmpfs", "options": ["size=64k"]}]);
    fs::write(&file, list.to_string()).unwrap();
    rootless.edit(|config| config["root"]["readonly"] = json!(false));
    rootless.start();
    let change = |action: &str| {
        let arguments = ["mounts", action, rootless.id(), file.to_str().unwrap()];
        rootless.parhelion(&arguments).success();
    };
    change("add");
    let seen = "cat /tmp/data/file; touch /tmp/data/x || echo read-only; touch /tmp/new/x; stat -c %u /tmp/new/x";
    assert_eq!(rootless.exec(seen).success(), "of the host\nread-only\n0\n");
    change("remove");
    assert_eq!(
        rootless.exec("ls /tmp/data /tmp/new").success(),
        "/tmp/data:\n\n/tmp/new:\n"
    );
}

fn a_file_system_of_a_shared_namespace_is_refused_with_advice() {
    let rootless = Rootless::new("true");
    rootless.edit(|config| {
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts[5] = json!({"destination": "/sys", "type": "sysfs", "source": "sysfs"});
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != "ipc" && namespace["type"] != "pid");
    });
    let error = rootless.run().failure();
    for expected in [
        "mounts[0].type: \"proc\" can be mounted in a user namespace only beside a pid namespace of its own",
        "mounts[4].type: \"mqueue\" can be mounted in a user namespace only beside an ipc namespace of its own",
        "mounts[5].type: \"sysfs\" can be mounted in a user namespace only beside a network namespace of its own",
        "bind the host's instead: {\"type\": \"bind\", \"source\": \"/sys\", \"options\": [\"rbind\"]}",
    ] {
        assert!(error.contains(expected), "{expected}: {error}");
    }
    rootless.nothing_is_left();
}
