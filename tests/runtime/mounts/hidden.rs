//! Masked and read-only paths.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use libtest_mimic::Trial;
use serde_json::json;

use super::{add, allow_mounting};
use crate::caller::command;
use crate::support::{Bundle, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        masked_paths_hide_files_and_folders,
        what_masks_a_file_is_not_the_hosts_to_change,
        what_masks_a_file_is_not_shared_with_the_host,
        read_only_paths_can_not_be_written,
        paths_that_do_not_exist_are_nothing,
        a_masked_path_through_a_link_hides_what_it_leads_to,
        a_read_only_path_is_so_with_all_below_it,
        the_paths_of_the_default_configuration_are_hidden,
    ]
}

fn masked_paths_hide_files_and_folders() {
    let bundle = Bundle::new(
        "cat /etc/secret; stat -c '%F %t:%T' /etc/secret; ls /etc/folder /etc/other; \
         touch /etc/folder/x || echo read-only; echo x > /etc/secret && cat /etc/secret; cat /etc/open",
    );
    let etc = bundle.folder.join("rootfs/etc");
    for folder in ["folder", "other"] {
        fs::create_dir(etc.join(folder)).unwrap();
        fs::write(etc.join(folder).join("inside"), "hidden\n").unwrap();
    }
    fs::write(etc.join("secret"), "hidden\n").unwrap();
    fs::write(etc.join("open"), "open\n").unwrap();
    let paths = json!(["/etc/secret", "/etc/folder", "/etc/other", "/etc/folder"]);
    bundle.edit(|config| {
        config["linux"]["maskedPaths"] = paths;
        config["root"]["readonly"] = json!(false);
    });
    let seen = bundle.run().success();
    assert_eq!(
        seen,
        "character special file 1:3\n/etc/folder:\n\n/etc/other:\nread-only\nopen\n"
    );
    assert_eq!(fs::read_to_string(etc.join("secret")).unwrap(), "hidden\n");
}

/// The null device that covers a file is the host's own.
fn what_masks_a_file_is_not_the_hosts_to_change() {
    let bundle = Bundle::new("busybox chmod 666 /etc/secret || echo kept; echo x > /etc/secret");
    fs::write(bundle.folder.join("rootfs/etc/secret"), "hidden\n").unwrap();
    bundle.edit(|config| config["linux"]["maskedPaths"] = json!(["/etc/secret"]));
    let ran = bundle.run();
    assert_eq!(ran.success(), "kept\n");
    assert!(ran.stderr().contains("Read-only file system"));
}

fn what_masks_a_file_is_not_shared_with_the_host() {
    let bundle = Bundle::new(
        "busybox grep -c /etc/secret /proc/self/mountinfo; busybox grep shared: /proc/self/mountinfo",
    );
    fs::write(bundle.folder.join("rootfs/etc/secret"), "hidden\n").unwrap();
    bundle.edit(|config| config["linux"]["maskedPaths"] = json!(["/etc/secret"]));
    // As systemd leaves the mounts of a host.
    let ran = command(&bundle, &["run", "--bundle", bundle.path(), &bundle.id]);
    let mut shared = Command::new("unshare");
    shared.args(["--mount", "--propagation", "shared"]);
    shared.arg(ran.get_program()).args(ran.get_args());
    let output = shared.stdin(Stdio::null()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "1\n");
}

fn read_only_paths_can_not_be_written() {
    let bundle = Bundle::new(
        "cat /etc/file; echo x > /etc/file || echo file; touch /etc/folder/x || echo folder; touch /etc/x && echo free",
    );
    let etc = bundle.folder.join("rootfs/etc");
    fs::create_dir(etc.join("folder")).unwrap();
    fs::write(etc.join("file"), "kept\n").unwrap();
    bundle.edit(|config| {
        config["linux"]["readonlyPaths"] = json!(["/etc/file", "/etc/folder"]);
        config["root"]["readonly"] = json!(false);
    });
    assert_eq!(bundle.run().success(), "kept\nfile\nfolder\nfree\n");
}

fn paths_that_do_not_exist_are_nothing() {
    let bundle = Bundle::new("ls -a /etc");
    fs::write(bundle.folder.join("rootfs/etc/file"), "").unwrap();
    bundle.edit(|config| {
        config["linux"]["maskedPaths"] = json!(["/no/such", "/etc/file/below", "/etc/none"]);
        config["linux"]["readonlyPaths"] = json!(["/nor/this", "/etc/none"]);
    });
    assert_eq!(bundle.run().success(), ".\n..\nfile\n");
}

fn a_masked_path_through_a_link_hides_what_it_leads_to() {
    let bundle = Bundle::new("cat /etc/real; ls /tmp/folder");
    let rootfs = bundle.folder.join("rootfs");
    fs::create_dir(rootfs.join("tmp/folder")).unwrap();
    fs::write(rootfs.join("tmp/folder/inside"), "").unwrap();
    fs::write(rootfs.join("etc/real"), "hidden\n").unwrap();
    std::os::unix::fs::symlink("/etc/real", rootfs.join("link")).unwrap();
    std::os::unix::fs::symlink("../../../../tmp/folder", rootfs.join("up")).unwrap();
    bundle.edit(|config| config["linux"]["maskedPaths"] = json!(["/link", "/up"]));
    assert_eq!(bundle.run().success(), "");
    assert!(Path::new("/tmp").exists());
}

fn a_read_only_path_is_so_with_all_below_it() {
    let bundle = Bundle::new("touch /a/x || echo top; touch /a/b/x || echo below");
    add(&bundle, json!({"destination": "/a", "type": "tmpfs"}));
    add(&bundle, json!({"destination": "/a/b", "type": "tmpfs"}));
    bundle.edit(|config| config["linux"]["readonlyPaths"] = json!(["/a"]));
    assert_eq!(bundle.run().success(), "top\nbelow\n");
}

fn the_paths_of_the_default_configuration_are_hidden() {
    let bundle = Bundle::new(
        "for f in /proc/kcore /proc/keys /proc/timer_list /proc/sched_debug; do [ ! -e $f ] || cat $f; done; \
         for d in /proc/acpi /proc/scsi /sys/firmware; do [ ! -e $d ] || ls $d; done; \
         echo x > /proc/sysrq-trigger || echo read-only; echo 0 > /proc/sys/kernel/panic || echo read-only",
    );
    allow_mounting(&bundle);
    assert_eq!(bundle.run().success(), "read-only\nread-only\n");
}
