//! CVE-2026-88264 and CVE-2026-88265 (crun): without a mount at /dev the image decides what /dev/console and /dev/null are:
//! the terminal goes elsewhere, and what a link leads to is given to the program's user in the place of a stream.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::process::Stdio;

use libtest_mimic::Trial;
use serde_json::json;

use crate::subject::Subject;
use crate::support::{Ran, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        links_in_the_images_dev_lead_nowhere_on_the_host,
        links_in_the_images_dev_would_lead_to_the_host,
    ]
}

/// Whether files of the host to which /dev of the image leads are as they were, and what the container says.
fn links(subject: Subject, terminal: bool) -> (bool, String) {
    let bundle =
        subject.bundle("echo written > /dev/console; echo written > /dev/null; cat /dev/log");
    let (outside, dev) = (
        bundle.folder.join("outside"),
        bundle.folder.join("rootfs/dev"),
    );
    fs::create_dir(&outside).unwrap();
    for name in ["console", "null", "log"] {
        fs::write(outside.join(name), "of the host\n").unwrap();
        symlink(outside.join(name), dev.join(name)).unwrap();
    }
    bundle.edit(|config| {
        config["process"]["terminal"] = json!(terminal);
        config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
        let mounts = config["mounts"].as_array_mut().unwrap();
        let kept = ["/dev/pts", "/proc"];
        mounts.retain(|mount| kept.contains(&mount["destination"].as_str().unwrap()));
        // A mount that is made through the link, as the terminal is.
        mounts
            .push(json!({"destination": "/dev/log", "source": "config.json", "options": ["bind"]}));
    });
    let mut run = bundle.command();
    run.args(["run", "--bundle", bundle.path(), &bundle.id]);
    let ran = Ran(run.stdin(Stdio::null()).output().unwrap());
    let names = ["console", "null", "log"].map(|name| outside.join(name));
    let is_as_before = |file: &std::path::PathBuf| {
        let owner = fs::metadata(file).unwrap().uid();
        owner == 0 && fs::read_to_string(file).unwrap() == "of the host\n"
    };
    let told = String::from_utf8_lossy(&ran.0.stdout).into_owned() + &ran.stderr();
    (names.iter().all(is_as_before), told)
}

fn links_in_the_images_dev_lead_nowhere_on_the_host() {
    for terminal in [false, true] {
        let (as_before, told) = links(Subject::Real, terminal);
        assert!(as_before, "{told}");
        assert!(
            told.contains("ociVersion"),
            "the mount is not there: {told}"
        );
    }
}

/// The mount is then made over the host's file, as the container's namespace sees it, and is lost with the host's root.
fn links_in_the_images_dev_would_lead_to_the_host() {
    let (_as_before, told) = links(Subject::Without("in-root"), false);
    let nothing = "can't open '/dev/log': No such file";
    assert!(told.contains(nothing), "{told}");
}
