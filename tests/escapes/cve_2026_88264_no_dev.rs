//! CVE-2026-88264 and CVE-2026-88265 (crun): without a mount at /dev the image decides what /dev/console and /dev/null are:
//! the terminal goes elsewhere, and what a link leads to is given to the program's user in the place of a stream.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::PathBuf;
use std::process::Stdio;

use libtest_mimic::Trial;
use serde_json::json;

use crate::subject::Subject;
use crate::support::{Bundle, Ran, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        links_in_the_images_dev_lead_nowhere_on_the_host,
        links_in_the_images_dev_would_lead_to_the_host,
        a_file_of_the_hosts_would_be_given_to_the_programs_user,
    ]
}

/// Whether files of the host to which /dev of the image leads are as they were, and what the container says.
fn links(subject: Subject, terminal: bool) -> (bool, String) {
    let bundle = with_links(subject, terminal);
    let ran = run(&bundle);
    let names = NAMES.map(|name| bundle.folder.join("outside").join(name));
    let is_as_before = |file: &PathBuf| {
        let owner = fs::metadata(file).unwrap().uid();
        owner == 0 && fs::read_to_string(file).unwrap() == CONTENT
    };
    let told = String::from_utf8_lossy(&ran.0.stdout).into_owned() + &ran.stderr();
    (names.iter().all(is_as_before), told)
}

/// What /dev of the image leads to, and what stands there.
const NAMES: [&str; 3] = ["console", "null", "log"];
const CONTENT: &str = "of the host\n";

/// A bundle whose image has such links, for a user of the container's.
fn with_links(subject: Subject, terminal: bool) -> Bundle {
    let bundle =
        subject.bundle("echo written > /dev/console; echo written > /dev/null; cat /dev/log");
    let (outside, dev) = (
        bundle.folder.join("outside"),
        bundle.folder.join("rootfs/dev"),
    );
    fs::create_dir(&outside).unwrap();
    for name in NAMES {
        fs::write(outside.join(name), CONTENT).unwrap();
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
    // The null device is made where the image has none: a neighbour has it replaced by the link again.
    let (link, file) = (dev.join("null"), outside.join("null"));
    let script = format!("ln -sf {} {}", file.display(), link.display());
    let hook =
        json!({"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"]});
    bundle.edit(|config| config["hooks"] = json!({"createContainer": [hook]}));
    bundle
}

fn run(bundle: &Bundle) -> Ran {
    let mut run = bundle.command();
    run.args(["run", "--bundle", bundle.path(), &bundle.id]);
    Ran(run.stdin(Stdio::null()).output().unwrap())
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

fn a_file_of_the_hosts_would_be_given_to_the_programs_user() {
    let bundle = with_links(Subject::Without("in-root,stream-device"), false);
    let _ended_somehow = run(&bundle);
    let null = fs::metadata(bundle.folder.join("outside/null")).unwrap();
    assert_eq!(null.uid(), 1000);
    // Either alone is enough: there is no such file in the root, or it is no null device.
    for names in ["in-root", "stream-device"] {
        let bundle = with_links(Subject::Without(names), false);
        let _ended_somehow = run(&bundle);
        let null = fs::metadata(bundle.folder.join("outside/null")).unwrap();
        assert_eq!(null.uid(), 0, "{names}");
    }
}
