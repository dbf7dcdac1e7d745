//! CVE-2022-1227 (Podman), CVE-2019-14271 and CVE-2026-41567 (Docker): a program or library of the image is executed by root
//! on the host, because it has the name of one that is looked for there.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use libtest_mimic::Trial;
use serde_json::json;

use crate::caller::start;
use crate::subject::Subject;
use crate::support::{Bundle, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        no_program_of_the_image_is_executed_on_the_host,
        a_program_of_the_image_would_be_executed_by_a_caller_whose_path_leads_there,
    ]
}

/// Programs that the runtime executes on the host, and others that an engine does.
const NAMES: [&str; 7] = [
    "ps",
    "criu",
    "newuidmap",
    "newgidmap",
    "nsenter",
    "unpigz",
    "ld.so",
];

/// Folders of the image in which a program is looked for, or a library.
const FOLDERS: [&str; 5] = ["", "bin", "usr/bin", "usr/sbin", "lib64"];

/// A running container of an image in which each of these programs tells the host that it was executed there: its file is
/// no path inside.
fn planted(told: &Path) -> Bundle {
    let bundle = Subject::Real.bundle("exec /bin/busybox sleep 100000");
    let script = format!("#!/bin/sh\necho $0 $@ >> {}\n", told.display());
    for folder in FOLDERS {
        let folder = bundle.folder.join("rootfs").join(folder);
        fs::create_dir_all(&folder).unwrap();
        for name in NAMES {
            let file = folder.join(name);
            fs::write(&file, &script).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        }
    }
    bundle.edit(|config| {
        let env = config["process"]["env"].as_array_mut().unwrap();
        env.retain(|entry| !entry.as_str().unwrap().starts_with("PATH="));
        env.push(json!("PATH=.:/:/bin:/usr/bin"));
        env.push(json!("LD_LIBRARY_PATH=/lib64"));
    });
    start(&bundle);
    bundle
}

fn no_program_of_the_image_is_executed_on_the_host() {
    let folder = Subject::Real.bundle("true");
    let told = folder.folder.join("told");
    let bundle = planted(&told);
    let id = bundle.id.as_str();
    let images = bundle.folder.join("images");
    let images = images.to_str().unwrap();
    // Whoever calls may stand in the image's root.
    let calls: [&[&str]; 8] = [
        &["ps", id],
        &["ps", id, "-f"],
        &["ps", "--format", "json", id],
        &["exec", id, "/bin/busybox", "true"],
        &["events", "--stats", id],
        &["list"],
        &["checkpoint", "--leave-running", "--image-path", images, id],
        &["delete", "--force", id],
    ];
    for call in calls {
        let mut command = bundle.command();
        command.args(call).current_dir(bundle.folder.join("rootfs"));
        let ended = command.output().unwrap();
        // Neither all hosts have criu, nor all containers what it can write down.
        assert!(
            ended.status.success() || call[0] == "checkpoint",
            "{ended:?}"
        );
    }
    assert!(!told.exists(), "{}", fs::read_to_string(told).unwrap());
}

fn a_program_of_the_image_would_be_executed_by_a_caller_whose_path_leads_there() {
    let folder = Subject::Real.bundle("true");
    let told = folder.folder.join("told");
    let bundle = planted(&told);
    let mut command = bundle.command();
    command.args(["ps", &bundle.id]);
    let usual = std::env::var("PATH").unwrap();
    let path = format!("{}:{usual}", bundle.folder.join("rootfs/bin").display());
    command.env("PATH", path).output().unwrap();
    let told = fs::read_to_string(told).unwrap();
    assert!(told.contains("rootfs/bin/ps"), "{told}");
}
