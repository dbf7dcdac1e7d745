//! The types of mounts: what each shows inside.

use std::fs;

use libtest_mimic::Trial;
use nix::mount::MsFlags;
use serde_json::json;

use super::{HostMount, add, at, lines};
use crate::support::{Bundle, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        the_default_mounts_are_of_their_types,
        proc_shows_the_containers_own_processes,
        a_tmpfs_has_its_size_and_mode,
        a_tmpfs_without_a_mode_has_that_of_the_folder_it_covers,
        a_cgroup_mount_shows_the_containers_own_part_in_a_cgroup_namespace,
        a_cgroup_mount_shows_the_place_that_proc_names_without_a_cgroup_namespace,
        an_overlay_joins_two_folders,
        a_bind_mount_shows_a_file_and_a_folder,
        type_bind_is_enough_for_a_bind_mount,
        a_type_that_the_kernel_does_not_know_is_named,
        a_mount_without_a_type_is_refused,
    ]
}

fn the_default_mounts_are_of_their_types() {
    let seen = Bundle::new(
        "cat /proc/self/mountinfo; ls /dev/pts; ls -ld /dev/pts/ptmx; \
        ls /sys/class/net > /dev/null && echo sysfs works",
    )
    .run()
    .success();
    let (table, rest) = seen.split_at(seen.find("\nptmx\n").unwrap() + 1);
    let table = lines(table);
    for (target, fstype) in [
        ("/proc", "proc"),
        ("/dev", "tmpfs"),
        ("/dev/pts", "devpts"),
        ("/dev/shm", "tmpfs"),
        ("/dev/mqueue", "mqueue"),
        ("/sys", "sysfs"),
        ("/sys/fs/cgroup", "cgroup2"),
    ] {
        assert_eq!(at(&table, target).fstype, fstype, "{target}");
    }
    assert!(at(&table, "/dev/pts").options.contains(&"gid=5".to_owned()));
    assert!(
        rest.contains("crw-rw-rw-") && rest.contains("sysfs works"),
        "{rest}"
    );
}

fn proc_shows_the_containers_own_processes() {
    let seen = Bundle::new("cd /proc; echo [0-9]*; cat 1/comm; true")
        .run()
        .success();
    assert_eq!(seen, "1\nsh\n");
}

fn a_tmpfs_has_its_size_and_mode() {
    let bundle = Bundle::new("stat -c %a /data; cat /proc/self/mountinfo");
    let options = ["size=64k", "mode=1770"];
    add(
        &bundle,
        json!({"destination": "/data", "type": "tmpfs", "source": "data", "options": options}),
    );
    let seen = bundle.run().success();
    let table = seen.strip_prefix("1770\n").unwrap();
    let table = lines(table);
    assert!(at(&table, "/data").options.contains(&"size=64k".to_owned()));
}

fn a_tmpfs_without_a_mode_has_that_of_the_folder_it_covers() {
    use std::os::unix::fs::PermissionsExt;
    let bundle = Bundle::new("stat -c %a /there /made /given");
    for (name, mode) in [("there", 0o2750), ("given", 0o700)] {
        let folder = bundle.folder.join("rootfs").join(name);
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(mode)).unwrap();
    }
    add(&bundle, json!({"destination": "/there", "type": "tmpfs"}));
    add(&bundle, json!({"destination": "/made", "type": "tmpfs"}));
    add(
        &bundle,
        json!({"destination": "/given", "type": "tmpfs", "options": ["mode=711"]}),
    );
    assert_eq!(bundle.run().success(), "2750\n1777\n711\n");
}

fn a_cgroup_mount_shows_the_containers_own_part_in_a_cgroup_namespace() {
    let bundle = Bundle::new(
        "cat /sys/fs/cgroup/cgroup.procs; grep ^0 /proc/self/cgroup; \
        touch /sys/fs/cgroup/x || echo read-only"
            .replace("grep", "busybox grep")
            .as_str(),
    );
    let seen = bundle.run().success();
    assert!(seen.starts_with("1\n") && seen.contains("0::/\n"), "{seen}");
    assert!(seen.ends_with("read-only\n"), "{seen}");
}

fn a_cgroup_mount_shows_the_place_that_proc_names_without_a_cgroup_namespace() {
    let bundle = Bundle::new(
        "place=$(busybox sed -n s/^0:://p /proc/self/cgroup); echo $place; \
         cat /sys/fs/cgroup$place/cgroup.procs; touch /sys/fs/cgroup/x || echo read-only",
    );
    bundle.edit(|config| {
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != "cgroup");
    });
    let seen = bundle.run().success();
    let mut words = seen.split_whitespace();
    let place = words.next().unwrap();
    assert!(place.ends_with(&bundle.id), "{seen}");
    assert_eq!(words.next(), Some("1"), "{seen}");
    assert_eq!(words.next_back(), Some("read-only"), "{seen}");
}

fn an_overlay_joins_two_folders() {
    let bundle = Bundle::new("cd /over; cat low high; echo changed > low; cat low");
    let host = HostMount::tmpfs(&bundle.folder.join("layers"), MsFlags::empty());
    for folder in ["lower", "upper", "work"] {
        fs::create_dir(host.0.join(folder)).unwrap();
    }
    fs::write(host.0.join("lower/low"), "low\n").unwrap();
    fs::write(host.0.join("upper/high"), "high\n").unwrap();
    let option = |name: &str, folder: &str| format!("{name}={}", host.0.join(folder).display());
    let options = [
        option("lowerdir", "lower"),
        option("upperdir", "upper"),
        option("workdir", "work"),
    ];
    add(
        &bundle,
        json!({"destination": "/over", "type": "overlay", "source": "overlay", "options": options}),
    );
    assert_eq!(bundle.run().success(), "low\nhigh\nchanged\n");
    assert_eq!(
        fs::read_to_string(host.0.join("lower/low")).unwrap(),
        "low\n"
    );
}

fn a_bind_mount_shows_a_file_and_a_folder() {
    let bundle = Bundle::new(
        "cat /new/name /folder/inside; stat -c %F /new/name /folder; \
        echo written > /folder/made",
    );
    let data = bundle.folder.join("data");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("inside"), "text\n").unwrap();
    add(
        &bundle,
        json!({"destination": "/new/name", "source": data.join("inside"), "options": ["bind"]}),
    );
    add(
        &bundle,
        json!({"destination": "/folder", "source": data, "options": ["bind"]}),
    );
    let seen = bundle.run().success();
    assert_eq!(seen, "text\ntext\nregular file\ndirectory\n");
    assert_eq!(fs::read_to_string(data.join("made")).unwrap(), "written\n");
    // A target that was missing is made as its source is.
    let made = bundle.folder.join("rootfs");
    assert!(made.join("new/name").is_file() && made.join("folder").is_dir());
    assert_eq!(fs::metadata(made.join("new/name")).unwrap().len(), 0);
}

fn type_bind_is_enough_for_a_bind_mount() {
    let bundle = Bundle::new("cat /text");
    fs::write(bundle.folder.join("text"), "text\n").unwrap();
    add(
        &bundle,
        json!({"destination": "/text", "type": "bind", "source": "text"}),
    );
    assert_eq!(bundle.run().success(), "text\n");
}

fn a_type_that_the_kernel_does_not_know_is_named() {
    let bundle = Bundle::new("true");
    add(&bundle, json!({"destination": "/a", "type": "nosuchfs"}));
    let error = bundle.create().failure();
    assert!(
        error.contains("mount 8 of 8") && error.contains("fsopen(\"nosuchfs\")"),
        "{error}"
    );
}

fn a_mount_without_a_type_is_refused() {
    let bundle = Bundle::new("true");
    add(&bundle, json!({"destination": "/a", "source": "/etc"}));
    let error = bundle.create().failure();
    assert!(error.contains("mounts[7].type: is needed"), "{error}");
}
