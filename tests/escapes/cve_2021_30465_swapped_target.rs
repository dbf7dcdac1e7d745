//! CVE-2021-30465 (runc): the target of a mount is checked, and then used by its name: meanwhile a neighbour in a shared
//! volume has put a link there, and the mount is made on the host's files.

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
        a_target_that_is_swapped_stays_inside,
        a_target_that_is_looked_up_again_would_be_outside,
    ]
}

/// In how many of the rounds there was a container, and in how many its mount was made elsewhere than inside. Ends
/// with the first that was.
fn race(subject: Subject, rounds: u32) -> (u32, u32) {
    let bundle = subject.bundle("cat /proc/self/mountinfo");
    let (volume, outside) = (bundle.folder.join("volume"), bundle.folder.join("outside"));
    for folder in [volume.join("folder/target"), outside.join("target")] {
        fs::create_dir_all(folder).unwrap();
    }
    symlink(&outside, volume.join("link")).unwrap();
    bundle.edit(|config| {
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.push(json!({"destination": "/volume", "source": volume, "options": ["bind"]}));
        let trap =
            json!({"destination": "/volume/folder/target", "type": "tmpfs", "source": "trap"});
        mounts.push(trap);
    });
    let (mut made, mut outside) = (0, 0);
    while_swapping(&volume.join("folder"), &volume.join("link"), || {
        for _ in 0..rounds {
            let ran = bundle.run();
            if ran.code() == Some(0) {
                made += 1;
                outside += u32::from(!ran.success().contains(" - tmpfs trap "));
            }
            if outside > 0 {
                break;
            }
        }
    });
    let host = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!host.contains(" trap "), "mounted on the host: {host}");
    (made, outside)
}

fn a_target_that_is_swapped_stays_inside() {
    let (made, outside) = race(Subject::Real, rounds());
    assert!(made > 0, "no container was made");
    assert_eq!(outside, 0, "mounted outside");
}

fn a_target_that_is_looked_up_again_would_be_outside() {
    let (_made, outside) = race(Subject::Without("opened-places"), AT_MOST);
    assert!(outside > 0, "always inside, in {AT_MOST} rounds");
}
