//! The mount option copy-symlink: a link of the host is made again inside, and never followed.

use std::fs;
use std::os::unix::fs::symlink;

use libtest_mimic::Trial;
use serde_json::{Value, json};

use super::add;
use crate::caller::start;
use crate::support::{Bundle, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        a_link_is_copied_and_not_followed,
        what_is_no_link_is_bound,
        a_link_that_is_there_already_has_to_say_the_same,
        a_link_is_made_inside_the_root_whatever_leads_there,
        a_link_can_be_made_in_a_mount_before_it,
        in_a_user_namespace_the_link_belongs_to_its_root,
        only_a_bind_mount_has_a_link_as_its_source,
        a_link_is_not_added_to_a_container_that_runs,
    ]
}

/// A bundle whose script may write to its root, with a folder of links beside it.
fn with_links(script: &str, links: &[(&str, &str)]) -> Bundle {
    let bundle = Bundle::new(script);
    bundle.edit(|config| config["root"]["readonly"] = json!(false));
    let host = bundle.folder.join("host");
    fs::create_dir(&host).unwrap();
    fs::write(host.join("file"), "of the host\n").unwrap();
    for (name, target) in links {
        symlink(target, host.join(name)).unwrap();
    }
    bundle
}

/// The entry that copies a link of the folder, or binds what is none; a source is relative to the bundle.
fn entry(name: &str, destination: &str) -> Value {
    json!({ "destination": destination, "source": format!("host/{name}"),
        "options": ["bind", "ro", "copy-symlink"] })
}

fn a_link_is_copied_and_not_followed() {
    let bundle = with_links(
        "busybox readlink /etc/link; cat /etc/link; busybox readlink /new/folder/dangling; \
         busybox grep -c -e link -e dangling /proc/self/mountinfo",
        &[("link", "../tmp/word"), ("dangling", "/no/such")],
    );
    fs::write(bundle.folder.join("rootfs/tmp/word"), "of the image\n").unwrap();
    add(&bundle, entry("link", "/etc/link"));
    add(&bundle, entry("dangling", "/new/folder/dangling"));
    let ran = bundle.run();
    // Nothing is mounted for it, and grep says so.
    let told = String::from_utf8(ran.0.stdout.clone()).unwrap();
    assert_eq!(
        told,
        "../tmp/word\nof the image\n/no/such\n0\n",
        "{}",
        ran.stderr()
    );
    // Without the word the link is followed on the host.
    let bundle = with_links("cat /etc/link", &[("link", "file")]);
    let mut followed = entry("link", "/etc/link");
    followed["options"] = json!(["bind"]);
    add(&bundle, followed);
    assert_eq!(bundle.run().success(), "of the host\n");
}

fn what_is_no_link_is_bound() {
    let bundle = with_links(
        "cat /etc/file; ls /mnt; echo x >> /etc/file || echo ro",
        &[],
    );
    add(&bundle, entry("file", "/etc/file"));
    add(&bundle, entry(".", "/mnt"));
    assert_eq!(bundle.run().success(), "of the host\nfile\nro\n");
    let bundle = with_links("true", &[]);
    add(&bundle, entry("none", "/etc/none"));
    let error = bundle.run().failure();
    assert!(
        error.contains("host/none\" does not exist on the host"),
        "{error}"
    );
}

fn a_link_that_is_there_already_has_to_say_the_same() {
    let bundle = with_links("busybox readlink /etc/link", &[("link", "word")]);
    add(&bundle, entry("link", "/etc/link"));
    let place = bundle.folder.join("rootfs/etc/link");
    // It stays in the root, as mount points do, and is good for the next run.
    assert_eq!(bundle.run().success(), "word\n");
    assert_eq!(fs::read_link(&place).unwrap().to_str(), Some("word"));
    assert_eq!(bundle.run().success(), "word\n");
    let in_the_way: [&dyn Fn(); 3] = [
        &|| symlink("other", &place).unwrap(),
        &|| fs::write(&place, "word").unwrap(),
        &|| fs::create_dir(&place).unwrap(),
    ];
    fs::remove_file(&place).unwrap();
    for put in in_the_way {
        put();
        let before = fs::symlink_metadata(&place).unwrap().file_type();
        let error = bundle.run().failure();
        let told = "to \"/etc/link\"): symlinkat(\"word\", \"etc/link\"): file exists";
        assert!(error.contains(told), "{error}");
        // What was there is there.
        let after = fs::symlink_metadata(&place).unwrap().file_type();
        assert_eq!(after, before);
        let _gone = fs::remove_file(&place).or_else(|_| fs::remove_dir(&place));
    }
}

fn a_link_is_made_inside_the_root_whatever_leads_there() {
    let bundle = with_links(
        "busybox readlink /in/escaped/link; busybox readlink /up/link",
        &[("link", "word")],
    );
    // Links of the image that lead out of it, for whoever follows them on the host.
    let outside = bundle.folder.join("outside");
    fs::create_dir(&outside).unwrap();
    symlink(&outside, bundle.folder.join("rootfs/in")).unwrap();
    symlink("../../..", bundle.folder.join("rootfs/up")).unwrap();
    add(&bundle, entry("link", "/in/escaped/link"));
    add(&bundle, entry("link", "/up/link"));
    assert_eq!(bundle.run().success(), "word\nword\n");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    let inside = format!("rootfs/{}/escaped/link", outside.display());
    let made = fs::read_link(bundle.folder.join(inside));
    assert_eq!(made.unwrap().to_str(), Some("word"));
    assert!(fs::symlink_metadata(bundle.folder.join("rootfs/link")).is_ok());
    // And a destination that goes up stays below as well.
    let bundle = with_links("busybox readlink /link", &[("link", "word")]);
    add(&bundle, entry("link", "/../../link"));
    assert_eq!(bundle.run().success(), "word\n");
    assert!(!bundle.folder.join("link").exists());
}

fn a_link_can_be_made_in_a_mount_before_it() {
    let bundle = with_links("busybox readlink /run/link", &[("link", "word")]);
    let tmpfs = json!({ "destination": "/run", "type": "tmpfs", "source": "tmpfs" });
    add(&bundle, tmpfs);
    add(&bundle, entry("link", "/run/link"));
    assert_eq!(bundle.run().success(), "word\n");
    let on_disk = bundle.folder.join("rootfs/run");
    assert_eq!(fs::read_dir(on_disk).unwrap().count(), 0);
}

fn in_a_user_namespace_the_link_belongs_to_its_root() {
    let bundle = with_links("stat -c '%u %g' /run/link", &[("link", "word")]);
    bundle.edit(|config| {
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.push(json!({ "type": "user" }));
        let map = json!([{ "containerID": 0, "hostID": 70000, "size": 100 }]);
        config["linux"]["uidMappings"] = map.clone();
        config["linux"]["gidMappings"] = map;
    });
    fs::create_dir(bundle.folder.join("rootfs/run")).unwrap();
    let tmpfs = json!({ "destination": "/run", "type": "tmpfs", "source": "tmpfs" });
    add(&bundle, tmpfs);
    add(&bundle, entry("link", "/run/link"));
    // The script's last word: busybox's stat tells of the link itself.
    assert_eq!(bundle.run().success(), "0 0\n");
}

fn only_a_bind_mount_has_a_link_as_its_source() {
    for (kind, options) in [
        ("tmpfs", json!(["copy-symlink"])),
        ("none", json!(["bind", "remount", "copy-symlink"])),
    ] {
        let bundle = with_links("true", &[]);
        add(
            &bundle,
            json!({ "destination": "/tmp", "type": kind, "source": "tmpfs", "options": options }),
        );
        let error = bundle.run().failure();
        assert!(
            error.contains(".options: copy-symlink needs a bind mount"),
            "{error}"
        );
    }
}

fn a_link_is_not_added_to_a_container_that_runs() {
    let bundle = with_links("sleep 1000", &[("link", "word")]);
    start(&bundle);
    let file = bundle.folder.join("mounts.json");
    let add = |mounts: Value| {
        fs::write(&file, mounts.to_string()).unwrap();
        bundle.parhelion(&["mounts", "add", &bundle.id, file.to_str().unwrap()])
    };
    let error = add(json!([entry("link", "/etc/link")])).failure();
    let told = "mounts[0].options: copy-symlink would make a link, and only mounts are added here";
    assert!(error.contains(told), "{error}");
    assert!(fs::symlink_metadata(bundle.folder.join("rootfs/etc/link")).is_err());
    // What is no link is added as ever.
    add(json!([entry("file", "/etc/file")])).success();
    let seen = bundle.parhelion(&["exec", &bundle.id, "cat", "/etc/file"]);
    assert_eq!(seen.success(), "of the host\n");
}
