//! rootfsPropagation, and which mounts are seen on the other side.

use std::fs;
use std::path::Path;

use libtest_mimic::Trial;
use nix::mount::MsFlags;
use serde_json::{Value, json};

use super::{HostMount, add, allow_mounting, at, lines};
use crate::support::{Bundle, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        every_propagation_of_the_root_is_seen_inside,
        an_unknown_propagation_is_refused,
        a_mount_of_the_host_comes_in_where_the_tree_is_a_slave,
        a_mount_of_the_host_stays_out_where_the_tree_is_private,
        a_mount_inside_is_seen_on_the_host_only_where_both_are_shared,
        the_hosts_shared_mounts_survive_the_containers_entry,
    ]
}

fn propagation(bundle: &Bundle, word: &str) {
    bundle.edit(|config| config["linux"]["rootfsPropagation"] = json!(word));
}

fn every_propagation_of_the_root_is_seen_inside() {
    for (word, root, below) in [
        ("", "", ""),
        ("private", "", ""),
        ("rprivate", "", ""),
        ("slave", "", ""),
        ("rslave", "", ""),
        ("shared", "shared", ""),
        ("rshared", "shared", "shared"),
        ("unbindable", "unbindable", ""),
        ("runbindable", "unbindable", "unbindable"),
    ] {
        let bundle = Bundle::new("cat /proc/self/mountinfo");
        add(
            &bundle,
            json!({"destination": "/bound", "source": "/etc", "options": ["bind"]}),
        );
        bundle.edit(|config| {
            let linux = &mut config["linux"];
            linux["rootfsPropagation"] = json!(word);
            // A copy of what is bound: it must not be unbindable by then.
            linux["readonlyPaths"] = json!(["/bound", "/proc/sys"]);
            linux["maskedPaths"] = json!(["/bound/passwd", "/bound/group"]);
        });
        let inside = lines(&bundle.run().success());
        let kind = |target| at(&inside, target).propagation.split(':').next().unwrap();
        assert_eq!(kind("/"), root, "{word}: {inside:#?}");
        assert_eq!(kind("/proc"), below, "{word}: {inside:#?}");
    }
}

fn an_unknown_propagation_is_refused() {
    let bundle = Bundle::new("true");
    propagation(&bundle, "rsometimes");
    let error = bundle.create().failure();
    assert!(error.contains("linux.rootfsPropagation: "), "{error}");
}

/// A shared tmpfs of the host, bound at /bound by `options`.
fn shared(bundle: &Bundle, options: Value) -> HostMount {
    let host = HostMount::tmpfs(&bundle.folder.join("shared"), MsFlags::empty());
    host.change(MsFlags::MS_SHARED);
    fs::create_dir(host.0.join("late")).unwrap();
    fs::create_dir(host.0.join("inner")).unwrap();
    add(
        bundle,
        json!({"destination": "/bound", "source": "shared", "options": options}),
    );
    host
}

/// What the container sees of a mount that the host makes once the container is created.
fn sees_late_mount(word: &str, options: Value) -> bool {
    let bundle = Bundle::new("cat /proc/self/mountinfo > /table; cat /bound/late/mark > /mark");
    bundle.edit(|config| config["root"]["readonly"] = json!(false));
    propagation(&bundle, word);
    let host = shared(&bundle, options);
    bundle.create().success();
    let late = HostMount::tmpfs(&host.0.join("late"), MsFlags::empty());
    fs::write(late.0.join("mark"), "seen").unwrap();
    let pid = bundle.pid();
    bundle.verb("start").success();
    crate::support::wait_until_gone(pid);
    let mark = fs::read_to_string(bundle.folder.join("rootfs/mark")).unwrap();
    let table = fs::read_to_string(bundle.folder.join("rootfs/table")).unwrap();
    let mounted = lines(&table)
        .iter()
        .any(|line| line.target == "/bound/late");
    assert_eq!(mounted, mark == "seen");
    mounted
}

fn a_mount_of_the_host_comes_in_where_the_tree_is_a_slave() {
    assert!(sees_late_mount("", json!(["rbind"])));
    assert!(sees_late_mount("", json!(["rbind", "rslave"])));
    assert!(sees_late_mount("rslave", json!(["bind"])));
    assert!(sees_late_mount("shared", json!(["bind", "shared"])));
}

fn a_mount_of_the_host_stays_out_where_the_tree_is_private() {
    assert!(!sees_late_mount("", json!(["rbind", "rprivate"])));
    assert!(!sees_late_mount("rprivate", json!(["rbind"])));
    assert!(!sees_late_mount("private", json!(["rbind"])));
    assert!(!sees_late_mount("runbindable", json!(["rbind"])));
}

/// Whether the host sees a mount that the container makes below the tree.
fn shows_its_mount(word: &str, options: Value) -> bool {
    let bundle = Bundle::new("mount -t tmpfs inner /bound/inner && cat /proc/self/mountinfo");
    allow_mounting(&bundle);
    propagation(&bundle, word);
    let host = shared(&bundle, options);
    let inside = lines(&bundle.run().success());
    assert_eq!(at(&inside, "/bound/inner").fstype, "tmpfs");
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let place = host.0.join("inner").display().to_string();
    let seen = lines(&table).iter().any(|line| line.target == place);
    assert!(!table.contains("/rootfs/"), "{table}");
    seen
}

fn a_mount_inside_is_seen_on_the_host_only_where_both_are_shared() {
    assert!(!shows_its_mount("", json!(["rbind"])));
    assert!(!shows_its_mount("", json!(["rbind", "rshared"])));
    assert!(!shows_its_mount("rshared", json!(["rbind", "rprivate"])));
    assert!(!shows_its_mount("rshared", json!(["rbind", "rslave"])));
    assert!(shows_its_mount("rshared", json!(["rbind", "rshared"])));
    assert!(shows_its_mount("shared", json!(["bind", "shared"])));
}

fn the_hosts_shared_mounts_survive_the_containers_entry() {
    for word in ["shared", "rshared", "private", "slave", ""] {
        for flags in [&[][..], &["--no-pivot"]] {
            let bundle = Bundle::new("true");
            propagation(&bundle, word);
            let mut mounts = Vec::new();
            for place in ["deep", "deep/er", "deep/er/still"] {
                let host = HostMount::tmpfs(&bundle.folder.join(place), MsFlags::empty());
                host.change(MsFlags::MS_SHARED);
                fs::write(host.0.join("mark"), "").unwrap();
                mounts.insert(0, host);
            }
            let mut arguments = vec!["run"];
            arguments.extend(flags);
            arguments.extend(["--bundle", bundle.path(), &bundle.id]);
            bundle.parhelion(&arguments).success();
            for mount in &mounts {
                assert!(
                    Path::new(&mount.0.join("mark")).exists(),
                    "{word} {flags:?}: {:?} is gone",
                    mount.0
                );
            }
        }
    }
}
