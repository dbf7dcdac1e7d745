//! CVE-2022-29162 (runc), CVE-2022-24769 (Docker), CVE-2022-27650 (crun), CVE-2025-27612 (youki): capabilities are
//! inheritable that were not asked for. A file of the image with inheritable ones of its own gives them to any user.

use std::path::Path;

use libtest_mimic::Trial;
use rustix::fs::{XattrFlags, setxattr};
use serde_json::json;

use crate::caller::start;
use crate::subject::{Subject, copy};
use crate::support::{Bundle, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        no_capability_is_inherited_by_a_file_of_the_image,
        a_capability_that_is_inheritable_would_be_gained_by_a_file,
    ]
}

/// `struct vfs_cap_data` of revision 2 (capability.h): CAP_KILL, inheritable, and effective at once.
fn make_heir(file: &Path) {
    let (revision, effective, kill) = (0x0200_0000_u32, 1, 1 << 5);
    let words = [revision | effective, 0, kill, 0, 0];
    let value: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    setxattr(file, "security.capability", &value, XattrFlags::empty()).unwrap();
}

const SHOW: [&str; 4] = ["/etc/busybox", "grep", "CapPrm", "/proc/self/status"];

fn bundle(subject: Subject) -> Bundle {
    let bundle = subject.bundle("");
    let rootfs = bundle.folder.join("rootfs");
    let heir = rootfs.join("etc/busybox");
    copy(&rootfs.join("bin/busybox"), &heir);
    make_heir(&heir);
    bundle.edit(|config| {
        config["process"]["args"] = json!(SHOW);
        config["process"]["noNewPrivileges"] = json!(false);
        config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
        // An ordinary user's program has none itself.
        config["process"]["capabilities"]["effective"] = json!([]);
    });
    bundle
}

/// What the file's program may, in a new container and by `exec --cap`.
fn gained(subject: Subject) -> [String; 2] {
    let new = bundle(subject).run().success();
    let bundle = bundle(subject);
    bundle.edit(|config| config["process"]["args"] = json!(["/bin/sleep", "100000"]));
    start(&bundle);
    let flags = [
        "exec",
        "--cap",
        "CAP_KILL",
        "--user",
        "1000:1000",
        &bundle.id,
    ];
    let joined = bundle.parhelion(&[&flags[..], &SHOW].concat()).success();
    [new, joined]
}

fn no_capability_is_inherited_by_a_file_of_the_image() {
    for shown in gained(Subject::Real) {
        assert_eq!(shown, "CapPrm:\t0000000000000000\n");
    }
}

fn a_capability_that_is_inheritable_would_be_gained_by_a_file() {
    for shown in gained(Subject::Without("inheritable")) {
        assert_eq!(shown, "CapPrm:\t0000000000000020\n");
    }
}
