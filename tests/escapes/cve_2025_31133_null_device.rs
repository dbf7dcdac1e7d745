//! CVE-2025-31133 (runc; youki CVE-2025-62161): masked files are covered by the container's own /dev/null, and an attacker
//! has put a link in its place meanwhile: what it leads to can be written to under the name of the masked file.
//!
//! A hook stands for the neighbour with a shared volume that wins the race: it swaps the device when it was made.

use std::fs;

use libtest_mimic::Trial;
use serde_json::json;

use crate::subject::Subject;
use crate::support::tests;

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        a_link_in_the_place_of_the_null_device_covers_nothing,
        the_containers_null_device_would_open_a_kernel_parameter,
        without_a_null_device_files_are_hidden_all_the_same,
    ]
}

/// What the program says, in whose /dev the hook has done this.
fn run(subject: Subject, hook: &str, script: &str) -> String {
    let bundle = subject.bundle(script);
    let rootfs = bundle.folder.join("rootfs");
    fs::write(rootfs.join("etc/secret"), "secret\n").unwrap();
    bundle.edit(|config| {
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
        config["linux"]["maskedPaths"] = json!(["/etc/secret"]);
        let hook = format!("cd {}/dev && {hook}", rootfs.display());
        let hook = json!({"path": "/bin/sh", "args": ["sh", "-c", hook]});
        config["hooks"] = json!({"createRuntime": [hook]});
    });
    bundle.run().success()
}

/// A parameter of the container's own stands for kernel.core_pattern: /proc/sys is read-only.
fn write_through_a_masked_file(subject: Subject) -> String {
    run(
        subject,
        "rm null && ln -s /proc/sys/kernel/domainname null",
        "{ echo direct > /proc/sys/kernel/domainname; echo evil > /etc/secret; } 2>&-
        cat /proc/sys/kernel/domainname",
    )
}

fn a_link_in_the_place_of_the_null_device_covers_nothing() {
    assert_eq!(write_through_a_masked_file(Subject::Real), "(none)\n");
}

fn the_containers_null_device_would_open_a_kernel_parameter() {
    let domain = write_through_a_masked_file(Subject::Without("null-device"));
    assert_eq!(domain, "evil\n");
}

fn without_a_null_device_files_are_hidden_all_the_same() {
    let script = "cat /etc/secret; stat -c '%t:%T' /etc/secret";
    assert_eq!(run(Subject::Real, "rm null", script), "1:3\n");
    let shown = run(Subject::Without("masked-paths"), "rm null", script);
    assert_eq!(shown, "secret\n0:0\n");
}
