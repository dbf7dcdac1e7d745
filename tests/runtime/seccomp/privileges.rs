//! When the filter comes into force, and what the program can not keep of what that takes.

use std::fs;

use libtest_mimic::Trial;
use serde_json::{Value, json};

use super::probe::Call;
use super::{EPERM, GETUID, YIELD, allowing, bundle, docker, making, rule};
use crate::caller;
use crate::support::{Bundle, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        a_profile_need_not_name_any_call_of_the_runtime,
        a_filter_without_no_new_privileges_leaves_no_privilege_behind,
        a_filter_in_a_user_namespace_takes_no_privilege_of_the_host,
        a_hook_and_init_itself_are_not_under_the_filter,
        a_program_under_a_filter_waits_for_its_start,
        a_filter_that_forbids_to_execute_the_program_is_told,
    ]
}

const SYS_ADMIN: u64 = 1 << 21;

fn set_in(status: &str, name: &str) -> u64 {
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    u64::from_str_radix(line[name.len() + 1..].trim(), 16).unwrap()
}

/// Kills for every call but the program's own three.
fn smallest() -> Value {
    let names = ["execve", "getuid", "exit_group"];
    let rule = json!({ "names": names, "action": "SCMP_ACT_ALLOW" });
    json!({ "defaultAction": "SCMP_ACT_KILL_PROCESS", "syscalls": [rule] })
}

fn a_profile_need_not_name_any_call_of_the_runtime() {
    for no_new_privileges in [true, false] {
        for uid in [0, 1000] {
            let bundle = making(Call::native(GETUID), smallest());
            bundle.edit(|config| {
                config["process"]["noNewPrivileges"] = json!(no_new_privileges);
                config["process"]["user"] = json!({ "uid": uid, "gid": uid });
            });
            assert_eq!(bundle.run().code(), Some(0), "{no_new_privileges} {uid}");
            bundle.create().success();
            bundle.verb("start").success();
            caller::wait_for_end(&bundle);
            bundle.verb("delete").success();
        }
    }
}

/// Prints its status under Docker's profile, without no-new-privileges, as user `uid`.
fn showing_status(uid: u32) -> Bundle {
    let bundle = bundle("", docker());
    bundle.edit(|config| {
        let process = &mut config["process"];
        process["args"] = json!(["/bin/cat", "/proc/self/status"]);
        process["noNewPrivileges"] = json!(false);
        process["user"] = json!({ "uid": uid, "gid": uid });
        for set in [
            "bounding",
            "permitted",
            "effective",
            "inheritable",
            "ambient",
        ] {
            process["capabilities"][set] = json!(["CAP_KILL", "CAP_CHOWN"]);
        }
    });
    bundle
}

fn a_filter_without_no_new_privileges_leaves_no_privilege_behind() {
    for uid in [0, 1000] {
        let bundle = showing_status(uid);
        let seen = bundle.run().success();
        assert!(seen.contains("NoNewPrivs:\t0\n"), "{seen}");
        assert!(seen.contains("Seccomp:\t2\n"), "{seen}");
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(set_in(&seen, set), 0b10_0001, "{set} of {uid}");
        }
        // Until then init holds what the filter takes, and can not use it by accident.
        bundle.create().success();
        let pid = caller::init_pid(&bundle);
        let waiting = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        assert_eq!(set_in(&waiting, "CapPrm"), 0b10_0001 | SYS_ADMIN);
        assert_eq!(set_in(&waiting, "CapEff"), 0b10_0001);
        assert_eq!(set_in(&waiting, "CapBnd"), 0b10_0001);
    }
}

fn a_filter_in_a_user_namespace_takes_no_privilege_of_the_host() {
    let bundle = showing_status(0);
    bundle.edit(|config| {
        let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 1000 }]);
        config["linux"]["uidMappings"] = map.clone();
        config["linux"]["gidMappings"] = map;
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.push(json!({ "type": "user" }));
    });
    let seen = bundle.run().success();
    assert!(seen.contains("Seccomp:\t2\n"), "{seen}");
    assert_eq!(set_in(&seen, "CapPrm"), 0b10_0001);
}

fn a_hook_and_init_itself_are_not_under_the_filter() {
    let profile = allowing(json!([rule("sched_yield", "ERRNO")]));
    let bundle = making(Call::native(YIELD), profile);
    bundle.edit(|config| {
        let script = "cat /proc/self/status > /tmp/seen";
        config["mounts"].as_array_mut().unwrap().push(json!({
            "destination": "/tmp", "type": "bind", "source": bundle.folder, "options": ["bind"]
        }));
        let hook = json!({ "path": "/bin/sh", "args": ["sh", "-c", script] });
        config["hooks"] = json!({ "startContainer": [hook] });
    });
    assert_eq!(bundle.run().code(), Some(EPERM));
    let seen = fs::read_to_string(bundle.folder.join("seen")).unwrap();
    assert!(seen.contains("Seccomp:\t0\n"), "{seen}");
}

fn a_program_under_a_filter_waits_for_its_start() {
    let bundle = bundle("cat /proc/self/status", docker());
    bundle.create().success();
    assert_eq!(bundle.status(), "created");
    bundle.verb("start").success();
    caller::wait_for_end(&bundle);
    let seen = caller::output(&bundle);
    assert!(seen.contains("Seccomp:\t2\nSeccomp_filters:\t"), "{seen}");
}

fn a_filter_that_forbids_to_execute_the_program_is_told() {
    for no_new_privileges in [true, false] {
        let bundle = bundle("", allowing(json!([rule("execve", "ERRNO")])));
        bundle.edit(|config| {
            config["process"]["noNewPrivileges"] = json!(no_new_privileges);
        });
        let error = bundle.run().failure();
        let told = "execve(\"/bin/sh\"): operation not permitted\n";
        assert!(error.ends_with(told), "{error}");
        bundle.create().success();
        let error = bundle.verb("start").failure();
        assert!(error.ends_with(told), "{error}");
        bundle.verb("delete").success();
    }
}
