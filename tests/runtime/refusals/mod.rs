//! Bad input: every problem at once, each with its JSON path, before any effect.

mod bundles;
mod fields;
mod host;
mod verbs;

use std::fs;

use libtest_mimic::Trial;

use crate::support::Bundle;

/// The tests of this folder.
pub fn all() -> Vec<Trial> {
    let files = [bundles::all(), fields::all(), host::all(), verbs::all()];
    files.into_iter().flatten().collect()
}

/// The one line with which this bundle is refused; nothing was done before.
fn refusal(bundle: &Bundle) -> String {
    let told = bundle.create().failure();
    assert_eq!(told.lines().count(), 1, "{told:?}");
    let start = format!("create {:?}: ", bundle.id);
    let reason = told
        .strip_prefix(&start)
        .unwrap_or_else(|| panic!("{told:?}"));
    nothing_was_done(bundle);
    reason.trim_end().to_owned()
}

fn nothing_was_done(bundle: &Bundle) {
    // Not even the directory above the container's is made.
    assert!(
        !fs::exists(bundle.folder.join("state")).unwrap(),
        "a state directory was made"
    );
    let cgroup = format!("/sys/fs/cgroup/parhelion/{}", bundle.id);
    assert!(!fs::exists(cgroup).unwrap(), "a cgroup was made");
}
