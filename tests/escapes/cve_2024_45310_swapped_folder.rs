//! CVE-2024-45310 (runc): a missing target of a mount is made by its name: a neighbour in a shared volume has put a link
//! on the way meanwhile, and empty folders and files appear on the host.

use std::fs;
use std::os::unix::fs::symlink;

use libtest_mimic::Trial;
use serde_json::json;

use crate::subject::Subject;
use crate::support::tests;
use crate::swapping::{AT_MOST, rounds, while_swapping};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        nothing_is_made_outside_while_folders_are_swapped,
        by_names_that_are_looked_up_again_something_would_be_made_outside,
    ]
}

/// How much was made inside and on the host in these rounds. Ends with the first that is there.
fn race(subject: Subject, rounds: u32) -> (usize, usize) {
    let bundle = subject.bundle("true");
    let (volume, outside) = (bundle.folder.join("volume"), bundle.folder.join("outside"));
    for folder in [volume.join("folder"), outside.clone()] {
        fs::create_dir_all(folder).unwrap();
    }
    symlink(&outside, volume.join("link")).unwrap();
    bundle.edit(|config| {
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.push(json!({"destination": "/volume", "source": volume, "options": ["bind"]}));
        mounts.push(json!({"type": "tmpfs", "source": "tmpfs"}));
        mounts.push(json!({"source": "config.json", "options": ["bind"]}));
    });
    let count = |folder| fs::read_dir(folder).unwrap().count();
    while_swapping(&volume.join("folder"), &volume.join("link"), || {
        for round in 0..rounds {
            bundle.edit(|config| {
                let mounts = config["mounts"].as_array_mut().unwrap();
                let last = mounts.len();
                let below = format!("/volume/folder/{round}");
                mounts[last - 2]["destination"] = json!(format!("{below}/folder"));
                mounts[last - 1]["destination"] = json!(format!("{below}.file"));
            });
            bundle.run(); // it need not succeed, as what it makes disappears from under it
            if count(&outside) > 0 {
                break;
            }
        }
    });
    let folders = [volume.join("folder"), volume.join("link")];
    let inside = folders.iter().find(|path| !path.is_symlink()).unwrap();
    (count(inside), count(&outside))
}

fn nothing_is_made_outside_while_folders_are_swapped() {
    let (inside, outside) = race(Subject::Real, rounds());
    assert!(inside > 0, "nothing was made inside");
    assert_eq!(outside, 0, "made on the host");
}

fn by_names_that_are_looked_up_again_something_would_be_made_outside() {
    let (_inside, outside) = race(Subject::Without("opened-places"), AT_MOST);
    assert!(outside > 0, "nothing was made outside in {AT_MOST} rounds");
}
