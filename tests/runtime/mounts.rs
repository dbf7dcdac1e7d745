//! Mounts, their options, and the root.

use libtest_mimic::Trial;
use serde_json::json;

use crate::support::{Bundle, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![a_mount_that_fails_says_which_and_leaves_nothing,]
}

fn a_mount_that_fails_says_which_and_leaves_nothing() {
    let bundle = Bundle::new("true");
    bundle.edit(|config| {
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.push(json!({"destination": "/bad", "type": "tmpfs", "options": ["size=1q"]}));
    });
    let error = bundle.create().failure();
    let total = "mount 8 of 8 (mounts[7], to \"/bad\")";
    assert!(
        error.contains(total) && error.contains("size") && error.contains("1q"),
        "{error}"
    );
    assert!(bundle.verb("state").failure().contains("does not exist"));
    let cgroup = format!("/sys/fs/cgroup/parhelion/{}", bundle.id);
    assert!(!std::path::Path::new(&cgroup).exists());
}
