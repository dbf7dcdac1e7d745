//! CVE-2025-52881 (runc; youki CVE-2025-62596): what the runtime writes to procfs ends in another file, as something else is
//! mounted there: sysctls in a file of the attacker's choice, the labels of the program nowhere. The latter is
//! CVE-2019-16884, CVE-2019-19921 and CVE-2023-28642 as well.

use std::fs;
use std::os::unix::fs::symlink;

use libtest_mimic::Trial;
use serde_json::json;

use crate::apparmor::{self, Profile};
use crate::subject::Subject;
use crate::support::{only_where, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    let here = tests![
        a_kernel_parameter_is_written_to_the_kernel_whatever_is_mounted,
        a_kernel_parameter_would_be_written_through_what_is_mounted,
    ];
    let labels = tests![
        the_program_has_its_profile_whatever_is_mounted_at_proc,
        a_profile_would_be_written_to_what_is_mounted_at_proc,
    ];
    let labels = only_where(apparmor::is_enabled(), "AppArmor is not enabled", labels);
    here.into_iter().chain(labels).collect()
}

/// The container's domain name, and the file that the volume's link leads to.
fn set_the_domain_name(subject: Subject) -> (String, String) {
    let bundle = subject.bundle("cat /kernel/sys/kernel/domainname");
    let volume = bundle.folder.join("volume/kernel");
    fs::create_dir_all(&volume).unwrap();
    symlink("/etc/target", volume.join("domainname")).unwrap();
    let target = bundle.folder.join("rootfs/etc/target");
    fs::write(&target, "").unwrap();
    bundle.edit(|config| {
        config["linux"]["sysctl"] = json!({"kernel.domainname": "chosen"});
        let mounts = config["mounts"].as_array_mut().unwrap();
        let proc = mounts
            .iter()
            .position(|mount| mount["destination"] == "/proc")
            .unwrap();
        let bind = json!({"destination": "/proc/sys", "source": "volume", "options": ["bind"]});
        mounts.insert(proc + 1, bind);
        let other = json!({"destination": "/kernel", "type": "proc", "source": "proc"});
        mounts.push(other);
    });
    let name = bundle.run().success();
    (name, fs::read_to_string(target).unwrap())
}

fn a_kernel_parameter_is_written_to_the_kernel_whatever_is_mounted() {
    let (name, target) = set_the_domain_name(Subject::Real);
    assert_eq!((name.as_str(), target.as_str()), ("chosen\n", ""));
}

fn a_kernel_parameter_would_be_written_through_what_is_mounted() {
    let (name, target) = set_the_domain_name(Subject::Without("host-proc"));
    assert_eq!((name.as_str(), target.as_str()), ("(none)\n", "chosen"));
}

/// The profile that the program runs under, with a volume at /proc that takes labels.
fn run_with_a_profile(subject: Subject) -> String {
    let bundle = subject.bundle("");
    let name = format!("parhelion-{}", bundle.id);
    let _profile = Profile::load(name.clone()).unwrap();
    let attributes = bundle.folder.join("volume/thread-self/attr/apparmor");
    fs::create_dir_all(&attributes).unwrap();
    fs::write(attributes.join("exec"), "").unwrap();
    bundle.edit(|config| {
        let process = &mut config["process"];
        process["args"] = json!(["/bin/cat", "/kernel/self/attr/current"]);
        process["apparmorProfile"] = json!(name);
        let mounts = config["mounts"].as_array_mut().unwrap();
        let bind = json!({"destination": "/proc", "source": "volume", "options": ["bind"]});
        mounts.push(bind);
        mounts.push(json!({"destination": "/kernel", "type": "proc", "source": "proc"}));
    });
    bundle.run().success().replace(&name, "the profile")
}

fn the_program_has_its_profile_whatever_is_mounted_at_proc() {
    let label = run_with_a_profile(Subject::Real);
    assert_eq!(label, "the profile (complain)\n");
}

fn a_profile_would_be_written_to_what_is_mounted_at_proc() {
    let label = run_with_a_profile(Subject::Without("host-proc"));
    assert_eq!(label, "unconfined\n");
}
