//! CVE-2024-25621 and CVE-2021-41103 (containerd): folders of the runtime that other users of the host may enter: what is in a
//! container's root, with its set-id programs, is theirs to execute.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use libtest_mimic::Trial;

use crate::caller::start;
use crate::subject::Subject;
use crate::support::tests;

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![no_other_user_enters_what_the_runtime_keeps]
}

/// What others may read, write or enter, of these and all below.
fn open_to_others(path: &Path) -> Vec<PathBuf> {
    let metadata = fs::symlink_metadata(path).unwrap();
    let mode = metadata.permissions().mode();
    let mut open = Vec::new();
    if mode & 0o077 != 0 {
        open.push(path.to_owned());
    }
    if metadata.is_dir() {
        let below = fs::read_dir(path).unwrap();
        open.extend(below.flat_map(|entry| open_to_others(&entry.unwrap().path())));
    }
    open
}

fn no_other_user_enters_what_the_runtime_keeps() {
    let bundle = Subject::Real.bundle("sleep 100000");
    bundle.create().success();
    let state = bundle.folder.join("state");
    let folders = |open: Vec<PathBuf>| open.into_iter().filter(|path| path.is_dir()).count();
    assert_eq!(folders(open_to_others(&state)), 0);
    bundle
        .parhelion(&["delete", "--force", &bundle.id])
        .success();
    start(&bundle);
    assert_eq!(folders(open_to_others(&state)), 0);
    // What the test made itself is open.
    assert!(folders(open_to_others(&bundle.folder.join("rootfs"))) > 0);
}
