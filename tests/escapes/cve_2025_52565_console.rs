//! CVE-2025-52565 (runc): the terminal is opened by its name in /dev/pts, where an attacker has put a link: what it leads
//! to is mounted at /dev/console before anything is masked, and given to the program's user.
//!
//! A volume at /dev/pts stands for the race: a terminal multiplexer, and in the terminal's place a link.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};

use libtest_mimic::Trial;
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use serde_json::json;

use crate::subject::Subject;
use crate::support::tests;

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        a_link_in_the_place_of_the_terminal_is_not_followed,
        a_terminal_opened_by_its_name_would_be_what_the_link_leads_to,
    ]
}

/// Who owns the file that the link leads to when the container has run, for a program of user 1000.
fn owner_of_the_target(subject: Subject) -> u32 {
    let bundle = subject.bundle("true");
    let volume = bundle.folder.join("volume");
    fs::create_dir_all(volume.join("pts")).unwrap();
    let (kind, device) = (FileType::CharacterDevice, makedev(5, 2));
    mknodat(CWD, volume.join("ptmx"), kind, Mode::from(0o666), device).unwrap();
    symlink("/etc/target", volume.join("0")).unwrap();
    let target = bundle.folder.join("rootfs/etc/target");
    fs::write(&target, "").unwrap();
    bundle.edit(|config| {
        config["process"]["terminal"] = json!(true);
        config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
        let mounts = config["mounts"].as_array_mut().unwrap();
        let at = |mount: &serde_json::Value| mount["destination"] == "/dev/pts";
        let index = mounts.iter().position(at).unwrap();
        let mut terminals = mounts[index].clone();
        terminals["destination"] = json!("/dev/pts/pts");
        mounts[index] =
            json!({"destination": "/dev/pts", "source": volume, "options": ["bind", "dev"]});
        mounts.insert(index + 1, terminals);
    });
    let ran = bundle.run();
    let real = matches!(subject, Subject::Real);
    // A file is no terminal, which comes too late.
    assert_eq!(ran.code() == Some(0), real, "{}", ran.stderr());
    fs::metadata(target).unwrap().uid()
}

fn a_link_in_the_place_of_the_terminal_is_not_followed() {
    assert_eq!(owner_of_the_target(Subject::Real), 0);
}

fn a_terminal_opened_by_its_name_would_be_what_the_link_leads_to() {
    assert_eq!(owner_of_the_target(Subject::Without("terminal-peer")), 1000);
}
