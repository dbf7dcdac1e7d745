//! Where mounts go and where they come from: always inside the root, in the order given.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use libtest_mimic::Trial;
use serde_json::json;

use super::{add, at, lines};
use crate::support::{Bundle, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        a_destination_is_below_the_root_however_it_is_written,
        a_link_in_the_image_leads_no_further_than_the_root,
        a_link_that_dangles_is_made_whole_inside_the_root,
        proc_and_sys_are_not_mounted_over_a_link,
        later_mounts_cover_earlier_ones,
        a_mount_is_made_over_a_read_only_root,
        a_mount_in_a_read_only_tmpfs_is_made_before_it_closes,
        a_relative_source_is_one_of_the_bundle,
        a_source_that_is_missing_is_told_before_any_effect,
        a_folder_does_not_go_over_a_file_nor_a_file_over_a_folder,
        the_root_itself_is_no_destination,
        there_can_be_more_trees_than_descriptors_go_with_a_message,
    ]
}

fn tmpfs(bundle: &Bundle, destination: &str) {
    add(bundle, json!({"destination": destination, "type": "tmpfs"}));
}

fn there_can_be_more_trees_than_descriptors_go_with_a_message() {
    let bundle = Bundle::new("cat /proc/self/mountinfo");
    let source = bundle.folder.join("source");
    fs::create_dir(&source).unwrap();
    for number in 0..300 {
        let destination = format!("/many/{number}");
        add(
            &bundle,
            json!({"destination": destination, "source": source, "type": "bind", "options": ["bind"]}),
        );
    }
    let inside = lines(&bundle.run().success());
    let many = inside
        .iter()
        .filter(|mount| mount.target.starts_with("/many/"));
    assert_eq!(many.count(), 300);
}

fn a_destination_is_below_the_root_however_it_is_written() {
    let bundle = Bundle::new("cat /proc/self/mountinfo");
    tmpfs(&bundle, "relative/below");
    tmpfs(&bundle, "/tmp/../up");
    tmpfs(&bundle, "/../../../far");
    tmpfs(&bundle, "//double///slash/./");
    let inside = lines(&bundle.run().success());
    for target in ["/relative/below", "/up", "/far", "/double/slash"] {
        assert_eq!(at(&inside, target).fstype, "tmpfs");
    }
    assert!(!Path::new("/far").exists(), "made on the host");
}

fn a_link_in_the_image_leads_no_further_than_the_root() {
    let bundle = Bundle::new("cat /proc/self/mountinfo");
    let rootfs = bundle.folder.join("rootfs");
    let outside = bundle.folder.join("outside");
    fs::create_dir(&outside).unwrap();
    symlink("/etc", rootfs.join("absolute")).unwrap();
    symlink("../../../../../../tmp", rootfs.join("upwards")).unwrap();
    symlink(&outside, rootfs.join("host")).unwrap();
    symlink("tmp", rootfs.join("beside")).unwrap();
    tmpfs(&bundle, "/absolute/made");
    tmpfs(&bundle, "/upwards/up");
    tmpfs(&bundle, "/host/out");
    tmpfs(&bundle, "/beside");
    let inside = lines(&bundle.run().success());
    for target in [
        "/etc/made",
        "/tmp/up",
        "/tmp",
        &format!("{}/out", outside.display()),
    ] {
        assert_eq!(at(&inside, target).fstype, "tmpfs");
    }
    assert_eq!(
        fs::read_dir(&outside).unwrap().count(),
        0,
        "made on the host"
    );
    assert!(!Path::new("/tmp/up").exists() && !Path::new("/etc/made").exists());
}

fn a_link_that_dangles_is_made_whole_inside_the_root() {
    let bundle = Bundle::new("cat /etc/resolv.conf; cat /run/deep/resolv.conf");
    let etc = bundle.folder.join("rootfs/etc");
    symlink("../run/deep/resolv.conf", etc.join("resolv.conf")).unwrap();
    let source = bundle.folder.join("resolv.conf");
    fs::write(&source, "nameserver\n").unwrap();
    add(
        &bundle,
        json!({"destination": "/etc/resolv.conf", "source": source, "options": ["bind", "ro"]}),
    );
    assert_eq!(bundle.run().success(), "nameserver\nnameserver\n");
    assert!(bundle.folder.join("rootfs/run/deep/resolv.conf").is_file());
}

fn proc_and_sys_are_not_mounted_over_a_link() {
    for name in ["proc", "sys"] {
        let bundle = Bundle::new("true");
        let folder = bundle.folder.join("rootfs").join(name);
        fs::remove_dir(&folder).unwrap();
        symlink("/tmp", &folder).unwrap();
        let error = bundle.create().failure();
        assert!(
            error.contains(&format!("\"/{name}\" is a link in the image")),
            "{error}"
        );
    }
}

fn later_mounts_cover_earlier_ones() {
    let bundle = Bundle::new("cat /a/text; ls /a/b; cat /proc/self/mountinfo");
    for (name, text) in [("first", "first"), ("second", "second")] {
        let folder = bundle.folder.join(name);
        fs::create_dir_all(folder.join("b")).unwrap();
        fs::write(folder.join("text"), text).unwrap();
    }
    let bind = |source: &str| json!({"destination": "/a", "source": source, "options": ["bind"]});
    add(&bundle, bind("first"));
    add(&bundle, bind("second"));
    tmpfs(&bundle, "/a/b");
    tmpfs(&bundle, "/a/b/c");
    let seen = bundle.run().success();
    let table = seen.strip_prefix("secondc\n").unwrap();
    let table = lines(table);
    assert_eq!(table.iter().filter(|line| line.target == "/a").count(), 2);
    let order: Vec<&str> = table.iter().map(|line| line.target.as_str()).collect();
    let place = |target| order.iter().position(|t| *t == target).unwrap();
    assert!(place("/a") < place("/a/b") && place("/a/b") < place("/a/b/c"));
    assert!(
        !bundle.folder.join("second/b/c").exists(),
        "made below what covers it"
    );
}

fn a_mount_is_made_over_a_read_only_root() {
    let bundle = Bundle::new("echo x > /data/x && cat /data/x; touch /etc/y || echo read-only");
    bundle.edit(|config| config["root"]["readonly"] = json!(true));
    tmpfs(&bundle, "/data");
    assert_eq!(bundle.run().success(), "x\nread-only\n");
}

fn a_mount_in_a_read_only_tmpfs_is_made_before_it_closes() {
    let bundle = Bundle::new(
        "echo x > /a/b/x && cat /a/b/x; touch /a/y || echo read-only; touch /dev/y || echo closed",
    );
    add(
        &bundle,
        json!({"destination": "/a", "type": "tmpfs", "options": ["ro"]}),
    );
    tmpfs(&bundle, "/a/b");
    bundle.edit(|config| config["mounts"][1]["options"] = json!(["nosuid", "ro", "mode=755"]));
    assert_eq!(bundle.run().success(), "x\nread-only\nclosed\n");
}

fn a_relative_source_is_one_of_the_bundle() {
    let bundle = Bundle::new("cat /a/text /b");
    fs::create_dir_all(bundle.folder.join("data/deep")).unwrap();
    fs::write(bundle.folder.join("data/deep/text"), "text\n").unwrap();
    add(
        &bundle,
        json!({"destination": "/a", "source": "data/deep", "options": ["bind"]}),
    );
    add(
        &bundle,
        json!({"destination": "/b", "source": "./data/deep/text", "options": ["bind"]}),
    );
    assert_eq!(bundle.run().success(), "text\ntext\n");
}

fn a_source_that_is_missing_is_told_before_any_effect() {
    let bundle = Bundle::new("true");
    add(
        &bundle,
        json!({"destination": "/a", "source": "/no/such", "options": ["bind"]}),
    );
    add(
        &bundle,
        json!({"destination": "/b", "source": "nor/this", "options": ["rbind"]}),
    );
    let error = bundle.create().failure();
    let second = bundle.folder.join("nor/this");
    for expected in [
        "mounts[7].source: \"/no/such\" does not exist on the host".to_owned(),
        format!(
            "mounts[8].source: \"{}\" does not exist on the host",
            second.display()
        ),
    ] {
        assert!(error.contains(&expected), "{expected:?} is not in {error}");
    }
    assert!(!bundle.folder.join("rootfs/a").exists());
}

fn a_folder_does_not_go_over_a_file_nor_a_file_over_a_folder() {
    let bundle = Bundle::new("true");
    fs::write(bundle.folder.join("rootfs/etc/file"), "").unwrap();
    add(
        &bundle,
        json!({"destination": "/etc/file", "source": "/etc", "options": ["bind"]}),
    );
    let error = bundle.create().failure();
    assert!(
        error.contains("to \"/etc/file\"") && error.contains("not a directory"),
        "{error}"
    );
    let bundle = Bundle::new("true");
    add(
        &bundle,
        json!({"destination": "/etc", "source": "/etc/passwd", "options": ["bind"]}),
    );
    let error = bundle.create().failure();
    let words = "\"/etc\" is a folder, and what is mounted there a file: not a directory";
    assert!(error.contains(words), "{error}");
}

fn the_root_itself_is_no_destination() {
    for destination in ["/", "//.", "."] {
        let bundle = Bundle::new("true");
        tmpfs(&bundle, destination);
        let error = bundle.create().failure();
        assert!(
            error.contains("mounts[7].destination: must be below /"),
            "{error}"
        );
    }
}
