//! How the root is entered, and what of the host is left: nothing.

use std::fs;

use libtest_mimic::Trial;
use serde_json::json;

use super::{add, at, lines};
use crate::support::{Bundle, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        nothing_of_the_hosts_mounts_is_visible_inside,
        nothing_of_the_containers_mounts_appears_on_the_host,
        the_root_is_read_only_where_asked,
        the_root_can_be_entered_without_pivot_root,
        without_pivot_root_what_masks_proc_can_not_be_undone,
        a_container_in_the_hosts_mount_namespace_has_its_own_root_only,
        what_is_mounted_below_the_root_comes_along,
    ]
}

/// What the default configuration mounts, with its masks and read-only paths.
const DEFAULT: &[&str] = &[
    "/",
    "/dev",
    "/dev/mqueue",
    "/dev/pts",
    "/dev/shm",
    "/proc",
    "/sys",
    "/sys/fs/cgroup",
];

fn nothing_of_the_hosts_mounts_is_visible_inside() {
    for flags in [&[][..], &["--no-pivot"]] {
        let bundle = Bundle::new("cat /proc/self/mountinfo");
        bundle.edit(|config| {
            config["linux"]["maskedPaths"] = json!([]);
            config["linux"]["readonlyPaths"] = json!([]);
        });
        let mut arguments = vec!["run"];
        arguments.extend(flags);
        arguments.extend(["--bundle", bundle.path(), &bundle.id]);
        let inside = lines(&bundle.parhelion(&arguments).success());
        let mut targets: Vec<&str> = inside.iter().map(|line| line.target.as_str()).collect();
        targets.sort_unstable();
        assert_eq!(targets, DEFAULT);
    }
}

fn nothing_of_the_containers_mounts_appears_on_the_host() {
    let bundle = Bundle::new("true");
    add(&bundle, json!({"destination": "/data", "type": "tmpfs"}));
    bundle.create().success();
    let host = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!host.contains(bundle.path()), "{host}");
}

fn the_root_is_read_only_where_asked() {
    let script = "touch /etc/x && echo writable; cat /proc/self/mountinfo";
    let bundle = Bundle::new(script);
    bundle.edit(|config| config["root"]["readonly"] = json!(true));
    let seen = bundle.run().success();
    assert!(at(&lines(&seen), "/").has("ro"));
    let bundle = Bundle::new(script);
    bundle.edit(|config| config["root"]["readonly"] = json!(false));
    let seen = bundle.run().success();
    assert!(at(&lines(seen.strip_prefix("writable\n").unwrap()), "/").has("rw"));
}

fn the_root_can_be_entered_without_pivot_root() {
    let bundle = Bundle::new("ls /; cd /; cd ..; pwd; cat /etc/mark");
    fs::write(bundle.folder.join("rootfs/etc/mark"), "inside\n").unwrap();
    let run = ["run", "--no-pivot", "--bundle", bundle.path(), &bundle.id];
    let seen = bundle.parhelion(&run).success();
    assert_eq!(seen, "bin\ndev\netc\nproc\nsys\ntmp\n/\ninside\n");
}

/// A new proc mount in a user namespace inside would not have the container's masks. The kernel
/// refuses it as long as no whole proc is in the mount namespace; without masks there is one.
fn without_pivot_root_what_masks_proc_can_not_be_undone() {
    for flags in [&[][..], &["--no-pivot"]] {
        assert_eq!(mounts_proc_again(flags, false), "refused\n", "{flags:?}");
        assert_eq!(mounts_proc_again(flags, true), "revealed\n", "{flags:?}");
    }
}

fn mounts_proc_again(flags: &[&str], bare: bool) -> String {
    let bundle = Bundle::new(
        "busybox unshare -Urmpf busybox mount -t proc proc /tmp && echo revealed || echo refused",
    );
    bundle.edit(|config| {
        if bare {
            config["linux"]["maskedPaths"] = json!([]);
            config["linux"]["readonlyPaths"] = json!([]);
        }
        // Root would need CAP_SETFCAP to map itself.
        let process = &mut config["process"];
        process["user"] = json!({"uid": 1000, "gid": 1000});
        process["capabilities"] = json!({});
        process["rlimits"] = json!([]);
    });
    let mut arguments = vec!["run"];
    arguments.extend(flags);
    arguments.extend(["--bundle", bundle.path(), &bundle.id]);
    bundle.parhelion(&arguments).success()
}

fn a_container_in_the_hosts_mount_namespace_has_its_own_root_only() {
    let bundle = Bundle::new("ls /; ls /dev; cat /etc/mark");
    fs::write(bundle.folder.join("rootfs/etc/mark"), "inside\n").unwrap();
    bundle.edit(|config| {
        let linux = &mut config["linux"];
        let namespaces = linux["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != "mount");
        for field in ["maskedPaths", "readonlyPaths"] {
            linux.as_object_mut().unwrap().remove(field);
        }
        config["mounts"] = json!([]);
        config["root"]["readonly"] = json!(false);
    });
    let before = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let rootfs = |table: &str| table.matches(bundle.path()).count();
    assert_eq!(
        bundle.run().success(),
        "bin\ndev\netc\nproc\nsys\ntmp\ninside\n"
    );
    let after = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert_eq!((rootfs(&before), rootfs(&after)), (0, 0));
    let device = json!([{"path": "/dev/x", "type": "c", "major": 1, "minor": 3}]);
    bundle.edit(|config| config["linux"]["devices"] = device);
    let error = bundle.create().failure();
    assert!(
        error.contains("linux.devices: are made in a mount namespace"),
        "{error}"
    );
}

fn what_is_mounted_below_the_root_comes_along() {
    let bundle = Bundle::new("cat /data/text; cat /proc/self/mountinfo");
    let host = super::HostMount::tmpfs(
        &bundle.folder.join("rootfs/data"),
        nix::mount::MsFlags::MS_NOSUID,
    );
    fs::write(host.0.join("text"), "text\n").unwrap();
    let seen = bundle.run().success();
    let inside = lines(seen.strip_prefix("text\n").unwrap());
    assert!(at(&inside, "/data").has("nosuid"));
}
