//! `mounts add` and `mounts remove`: what a container that runs sees before, between and after.

use std::fs;
use std::ops::{Deref, DerefMut};
use std::os::unix::fs::{MetadataExt, chown};
use std::path::PathBuf;

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::caller::{start, wait_for_end};
use crate::inside::Inside;
use crate::support::{Bundle, Ran, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        a_folder_and_a_file_of_the_host_appear_and_go,
        a_tmpfs_appears_with_its_options,
        options_hold_and_the_host_sees_nothing,
        all_are_made_or_none,
        a_target_never_leads_out_of_the_root,
        with_a_user_namespace_what_is_made_belongs_to_its_root,
        what_is_wrong_is_told_before_anything_is_made,
        a_container_that_has_stopped_or_shares_the_hosts_mounts_is_refused,
        what_is_no_mount_is_not_removed,
    ]
}

/// A container with a writable root that runs, and a folder of the host beside it.
struct Given {
    inside: Inside,
    source: PathBuf,
}

impl Given {
    fn start() -> Given {
        let bundle = Inside::bundle();
        bundle.edit(|config| config["root"]["readonly"] = json!(false));
        Given::of(bundle)
    }

    fn of(bundle: Bundle) -> Given {
        let source = bundle.folder.join("source");
        fs::create_dir(&source).unwrap();
        fs::write(source.join("file"), "of the host\n").unwrap();
        let inside = Inside::of(bundle);
        Given { inside, source }
    }

    fn mounts(&self, action: &str, mounts: &Value) -> Ran {
        change(&self.inside.bundle, action, mounts)
    }

    fn source(&self, below: &str) -> String {
        self.source.join(below).to_str().unwrap().to_owned()
    }
}

impl Deref for Given {
    type Target = Inside;

    fn deref(&self) -> &Inside {
        &self.inside
    }
}

impl DerefMut for Given {
    fn deref_mut(&mut self) -> &mut Inside {
        &mut self.inside
    }
}

fn change(bundle: &Bundle, action: &str, mounts: &Value) -> Ran {
    let file = bundle.folder.join("mounts.json");
    fs::write(&file, mounts.to_string()).unwrap();
    bundle.parhelion(&["mounts", action, &bundle.id, file.to_str().unwrap()])
}

fn a_folder_and_a_file_of_the_host_appear_and_go() {
    let mut inside = Given::start();
    let mounts = json!([
        {"destination": "/mnt/folder", "source": inside.source(""), "options": ["rbind"]},
        {"destination": "/etc/given", "source": inside.source("file"), "type": "bind", "options": ["ro"]},
    ]);
    let before = inside.ask("cat /proc/self/mounts");
    inside.mounts("add", &mounts).success();
    assert_eq!(
        inside.ask("cat /mnt/folder/file /etc/given"),
        "of the host\nof the host\n"
    );
    // The tree is the host's own, and not a copy.
    fs::write(inside.source.join("late"), "late\n").unwrap();
    assert_eq!(inside.ask("cat /mnt/folder/late"), "late\n");
    inside.mounts("remove", &mounts).success();
    assert_eq!(inside.ask("cat /proc/self/mounts"), before);
    assert!(inside.ask("cat /mnt/folder/file").contains("No such file"));
    assert_eq!(inside.ask("cat /etc/given"), "");
}

fn a_tmpfs_appears_with_its_options() {
    let mut inside = Given::start();
    let mounts = json!([{"destination": "/mnt/space", "type": "tmpfs", "source": "space",
        "options": ["size=64k", "mode=1770", "noexec"]}]);
    inside.mounts("add", &mounts).success();
    let line = inside.ask("busybox grep /mnt/space /proc/self/mounts");
    assert!(
        line.starts_with("space /mnt/space tmpfs rw,noexec,"),
        "{line}"
    );
    assert!(line.contains("size=64k"), "{line}");
    assert_eq!(
        inside.ask("stat -c %a /mnt/space; touch /mnt/space/x && echo made"),
        "1770\nmade\n"
    );
    // Also while it is in use, as umount -l.
    let remove = json!([{"destination": "/mnt/space"}]);
    inside.mounts("remove", &remove).success();
    assert_eq!(inside.ask("ls /mnt/space"), "");
}

fn options_hold_and_the_host_sees_nothing() {
    let mut inside = Given::start();
    let host = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mounts = json!([
        {"destination": "/mnt/a", "source": inside.source(""), "options": ["bind", "ro", "nosuid"]},
        {"destination": "/mnt/t", "type": "tmpfs", "source": "t", "options": ["ro"]},
    ]);
    inside.mounts("add", &mounts).success();
    let told = inside.ask("touch /mnt/a/x; touch /mnt/t/x; busybox grep /mnt/a /proc/self/mounts");
    assert_eq!(told.matches("Read-only file system").count(), 2, "{told}");
    assert!(told.contains(" ro,nosuid"), "{told}");
    let places = |text: &str| text.matches(inside.bundle.path()).count();
    let now = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert_eq!(places(&now), places(&host));
}

fn all_are_made_or_none() {
    let mut inside = Given::start();
    let before = inside.ask("cat /proc/self/mounts");
    let mounts = json!([
        {"destination": "/mnt/a", "source": inside.source(""), "options": ["bind"]},
        {"destination": "/etc/given", "source": inside.source("file"), "options": ["bind"]},
        {"destination": "/mnt/t", "type": "tmpfs", "options": ["size=1q"]},
    ]);
    let told = inside.mounts("add", &mounts).failure();
    assert!(
        told.contains("mount 3 of 3 (mounts[2], to \"/mnt/t\"): fsconfig"),
        "{told}"
    );
    assert_eq!(inside.ask("cat /proc/self/mounts"), before);
}

fn a_target_never_leads_out_of_the_root() {
    let mut inside = Given::start();
    let out = inside.bundle.folder.join("outside");
    fs::create_dir(&out).unwrap();
    let links = format!(
        "busybox ln -s ../../../../../../..{} /mnt-link",
        out.display()
    );
    assert_eq!(inside.ask(&links), "");
    for destination in ["/mnt-link/a", "/../../../../../mnt/b"] {
        let mounts = json!([{"destination": destination, "type": "tmpfs", "options": []}]);
        inside.mounts("add", &mounts).success();
    }
    assert_eq!(fs::read_dir(&out).unwrap().count(), 0);
    let inner = format!("{}/a", out.display());
    let seen = inside.ask("cat /proc/self/mounts");
    for place in [inner.as_str(), "/mnt/b"] {
        assert!(
            seen.contains(&format!(" {place} tmpfs ")),
            "{place}: {seen}"
        );
    }
}

fn with_a_user_namespace_what_is_made_belongs_to_its_root() {
    let bundle = Inside::bundle();
    bundle.edit(|config| {
        config["root"]["readonly"] = json!(false);
        let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
        config["linux"]["uidMappings"] = map.clone();
        config["linux"]["gidMappings"] = map;
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.push(json!({"type": "user"}));
    });
    let mnt = bundle.folder.join("rootfs/mnt");
    fs::create_dir(&mnt).unwrap();
    chown(&mnt, Some(100_000), Some(100_000)).unwrap();
    let mut inside = Given::of(bundle);
    let mounts = json!([
        {"destination": "/mnt/t", "type": "tmpfs", "source": "t", "options": ["mode=700"]},
        {"destination": "/mnt/a", "source": inside.source(""), "options": ["bind"]},
    ]);
    inside.mounts("add", &mounts).success();
    let told = inside.ask("stat -c '%u %g' /mnt/t; touch /mnt/t/x && echo made; cat /mnt/a/file");
    assert_eq!(told, "0 0\nmade\nof the host\n");
    // The folders that were made for it on the host are the container's root's.
    let owner = |name: &str| fs::metadata(mnt.join(name)).unwrap().uid();
    assert_eq!([owner("t"), owner("a")], [100_000; 2]);
    inside.mounts("remove", &mounts).success();
    assert!(!inside.ask("cat /proc/self/mounts").contains(" /mnt/"));
}

fn what_is_wrong_is_told_before_anything_is_made() {
    let mut inside = Given::start();
    let before = inside.ask("cat /proc/self/mounts; ls /");
    let good = json!({"destination": "/mnt/a", "type": "tmpfs"});
    for (mounts, words) in [
        (json!({}), "must be a JSON array"),
        (
            json!([good, {"type": "tmpfs"}]),
            "mounts[1].destination: is required",
        ),
        (
            json!([good, {"destination": "/b"}]),
            "mounts[1].type: is needed",
        ),
        (
            json!([good, {"destination": "/", "type": "tmpfs"}]),
            "mounts[1].destination: must be below /",
        ),
        (
            json!([good, {"destination": "/b", "source": "/no/such", "options": ["bind"]}]),
            "mounts[1].source: \"/no/such\" does not exist",
        ),
        (
            json!([good, {"destination": "/b", "type": "proc"}]),
            "mounts: proc shows the pid namespace",
        ),
    ] {
        let told = inside.mounts("add", &mounts).failure();
        assert!(told.contains(words), "{mounts}: {told}");
    }
    let told = inside
        .bundle
        .parhelion(&["mounts", "add", &inside.bundle.id, "/no/such"]);
    assert!(
        told.failure()
            .contains("\"/no/such\": no such file or directory")
    );
    assert_eq!(inside.ask("cat /proc/self/mounts; ls /"), before);
}

fn a_container_that_has_stopped_or_shares_the_hosts_mounts_is_refused() {
    let mounts = json!([{"destination": "/mnt/a", "type": "tmpfs"}]);
    let bundle = Bundle::new("true");
    assert!(
        change(&bundle, "add", &mounts)
            .failure()
            .contains("does not exist")
    );
    start(&bundle);
    wait_for_end(&bundle);
    let told = change(&bundle, "add", &mounts).failure();
    assert!(told.ends_with(": container not running\n"), "{told}");
    let bundle = Bundle::new("sleep 1000");
    bundle.edit(|config| {
        config["mounts"] = json!([]);
        config["root"]["readonly"] = json!(false);
        let linux = config["linux"].as_object_mut().unwrap();
        linux.remove("maskedPaths");
        linux.remove("readonlyPaths");
        let namespaces = linux["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != "mount");
    });
    start(&bundle);
    let told = change(&bundle, "add", &mounts).failure();
    assert!(told.contains("no mount namespace of its own"), "{told}");
}

fn what_is_no_mount_is_not_removed() {
    let mut inside = Given::start();
    let before = inside.ask("cat /proc/self/mounts");
    let told = inside
        .mounts("remove", &json!([{"destination": "/etc"}]))
        .failure();
    assert!(
        told.contains("\"/etc\" is no mount that can be removed"),
        "{told}"
    );
    let both = json!([{"destination": "/proc"}, {"destination": "/no/such"}]);
    let told = inside.mounts("remove", &both).failure();
    assert!(told.contains("\"/no/such\": openat2("), "{told}");
    assert_eq!(inside.ask("cat /proc/self/mounts"), before);
    let told = inside
        .mounts("remove", &json!([{"destination": "/"}]))
        .failure();
    assert!(
        told.contains("mounts[0].destination: must be below /"),
        "{told}"
    );
}
