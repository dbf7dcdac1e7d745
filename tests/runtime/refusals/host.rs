//! What this host does not have is refused by its field, before any effect.

use std::fs;
use std::path::Path;

use libtest_mimic::Trial;
use serde_json::json;

use super::refusal;
use crate::support::{Bundle, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        a_share_of_a_cache_needs_resctrl,
        an_apparmor_profile_needs_apparmor,
        labels_need_selinux,
    ]
}

fn a_share_of_a_cache_needs_resctrl() {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let bundle = Bundle::new("true");
    // Presence alone asks for a group.
    bundle.edit(|config| config["linux"]["intelRdt"] = json!({}));
    if mounts.contains(" - resctrl ") {
        bundle.run().success();
        return;
    }
    let reason = refusal(&bundle);
    assert!(
        reason.ends_with(
            "linux.intelRdt: needs the resctrl file system: mount -t resctrl resctrl /sys/fs/resctrl"
        ),
        "{reason}"
    );
}

fn an_apparmor_profile_needs_apparmor() {
    let enabled = fs::read("/sys/module/apparmor/parameters/enabled");
    let bundle = Bundle::new("true");
    bundle.edit(|config| config["process"]["apparmorProfile"] = json!("no-such-profile"));
    if enabled.is_ok_and(|text| text.starts_with(b"Y")) {
        let failed = bundle.run().failure();
        assert!(
            failed.contains("process.apparmorProfile: write(\"/proc/thread-self/attr/")
                && failed.ends_with("no such file or directory\n"),
            "{failed}"
        );
        return;
    }
    let reason = refusal(&bundle);
    assert!(
        reason.ends_with(
            "process.apparmorProfile: AppArmor is not enabled on this host: remove the profile"
        ),
        "{reason}"
    );
}

fn labels_need_selinux() {
    assert!(
        !Path::new("/sys/fs/selinux/enforce").exists(),
        "neither test host has SELinux: what it does with labels is to be tested here"
    );
    let bundle = Bundle::new("true");
    bundle.edit(|config| {
        config["process"]["selinuxLabel"] = json!("system_u:system_r:container_t:s0");
        config["linux"]["mountLabel"] = json!("system_u:object_r:container_file_t:s0");
    });
    let reason = refusal(&bundle);
    assert!(
        reason.ends_with(
            "process.selinuxLabel: SELinux is not enabled on this host: remove the label; \
             linux.mountLabel: SELinux is not enabled on this host: remove the label"
        ),
        "{reason}"
    );
}
