//! The AppArmor profile of restored processes.

use libtest_mimic::Trial;
use serde_json::json;

use super::{checkpoint, counter, restore};
use crate::apparmor::Profile;
use crate::inside::Inside;
use crate::support::tests;

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        a_profile_is_the_one_before,
        a_profile_is_the_one_given_at_the_restore,
        a_profile_that_can_not_be_given_is_told,
    ]
}

/// A line that tells the profile of the container's first process.
const PROFILE: &str = "cat /proc/1/attr/current";

/// A loaded profile and the words for it.
fn profile(name: &str) -> (Profile, String) {
    let loaded = Profile::load(name.to_owned()).expect("AppArmor is not enabled on this host");
    (loaded, format!("{name} (complain)\n"))
}

/// A container under a profile of its own.
fn confined() -> (Inside, Profile, String) {
    let bundle = counter();
    let name = format!("parhelion-{}", bundle.id);
    let (loaded, shown) = profile(&name);
    bundle.edit(|config| config["process"]["apparmorProfile"] = json!(name));
    let mut inside = Inside::of(bundle);
    assert_eq!(inside.ask(PROFILE), shown);
    checkpoint(&inside.bundle, &[]).success();
    (inside, loaded, shown)
}

fn a_profile_is_the_one_before() {
    let (mut inside, _loaded, shown) = confined();
    restore(&inside.bundle, &[]).success();
    assert_eq!(inside.ask(PROFILE), shown);
}

fn a_profile_is_the_one_given_at_the_restore() {
    let (mut inside, _loaded, _shown) = confined();
    let name = format!("parhelion-{}-other", inside.bundle.id);
    let (_other, shown) = profile(&name);
    let flags = ["--lsm-profile", &format!("apparmor:{name}")];
    restore(&inside.bundle, &flags).success();
    assert_eq!(inside.ask(PROFILE), shown);
}

fn a_profile_that_can_not_be_given_is_told() {
    let (mut inside, _loaded, shown) = confined();
    for profile in ["apparmor:not-loaded", "selinux:a:b:c", "no-type"] {
        let error = restore(&inside.bundle, &["--lsm-profile", profile]).failure();
        assert!(error.contains("criu: Error ("), "{profile}: {error}");
        assert!(super::is_gone(&inside.bundle), "{profile}");
    }
    restore(&inside.bundle, &[]).success();
    assert_eq!(inside.ask(PROFILE), shown);
}
