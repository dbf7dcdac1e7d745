//! What the image has at a mount point is copied into a new file system (`tmpcopyup`) while a neighbour in a shared volume
//! exchanges a file for a link to the host's, or for a FIFO that nobody writes to.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use libtest_mimic::Trial;
use rustix::fs::{CWD, Mode, mkfifoat};
use serde_json::json;

use crate::caller::{self, Running};
use crate::subject::Subject;
use crate::support::{Bundle, tests};
use crate::swapping::{AT_MOST, rounds, while_swapping};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        no_file_of_the_hosts_is_copied_through_a_link,
        a_file_of_the_hosts_would_be_copied_through_a_link,
        a_fifo_in_the_place_of_a_file_holds_nobody_up,
    ]
}

/// A bundle with a volume of which one folder, with a file, is copied.
fn bundle(subject: Subject, script: &str) -> Bundle {
    let bundle = subject.bundle(script);
    fs::create_dir_all(bundle.folder.join("volume/folder")).unwrap();
    fs::write(bundle.folder.join("volume/folder/file"), "own\n").unwrap();
    bundle.edit(|config| {
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.push(json!({"destination": "/volume", "source": "volume", "options": ["bind"]}));
        let options = ["tmpcopyup"];
        mounts.push(json!({"destination": "/volume/folder", "type": "tmpfs", "options": options}));
    });
    bundle
}

/// Whether a file of the host's was read inside in one of these rounds.
fn read(subject: Subject, rounds: u32) -> bool {
    let bundle = bundle(
        subject,
        "busybox grep -l 'of the host' /volume/folder/*; true",
    );
    let folder = bundle.folder.join("volume/folder");
    fs::write(bundle.folder.join("secret"), "of the host\n").unwrap();
    symlink(bundle.folder.join("secret"), folder.join("link")).unwrap();
    let mut made = 0;
    let copied = |made: &mut u32| {
        let ran = bundle.run(); // it may fail, as the copy does when a file is none any more
        *made += u32::from(ran.code() == Some(0));
        String::from_utf8_lossy(&ran.0.stdout).contains("/volume/folder/")
    };
    let found = while_swapping(&folder.join("file"), &folder.join("link"), || {
        (0..rounds).any(|_| copied(&mut made))
    });
    assert!(made > 0, "nothing was copied in {rounds} rounds");
    found
}

fn no_file_of_the_hosts_is_copied_through_a_link() {
    assert!(!read(Subject::Real, rounds()));
}

fn a_file_of_the_hosts_would_be_copied_through_a_link() {
    assert!(read(Subject::Without("in-root"), AT_MOST));
}

fn a_fifo_in_the_place_of_a_file_holds_nobody_up() {
    let bundle = bundle(Subject::Real, "true");
    let folder = bundle.folder.join("volume/folder");
    let fifo: &Path = &folder.join("fifo");
    mkfifoat(CWD, fifo, Mode::from(0o644)).unwrap();
    while_swapping(&folder.join("file"), fifo, || {
        for round in 0..rounds() {
            let mut run = Running::spawn(&mut caller::run(&bundle), Stdio::null());
            let limit = Duration::from_secs(20);
            assert!(run.ends_within(limit), "held up in round {round}");
            run.end();
        }
    });
}
