//! Profiles that are refused before anything has happened, and what the kernel does not allow.

use libtest_mimic::Trial;
use serde_json::{Value, json};

use super::{allowing, bundle, rule};
use crate::support::tests;

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        what_is_wrong_with_a_profile_is_told_at_once_and_nothing_is_left,
        a_profile_that_asks_for_nothing_is_none,
        a_profile_that_is_too_long_is_refused,
    ]
}

fn what_is_wrong_with_a_profile_is_told_at_once_and_nothing_is_left() {
    let mut profile = allowing(json!([
        rule("sched_yield", "NOTIFY"),
        { "names": ["read"], "action": "SCMP_ACT_ALLOW", "errnoRet": 1,
          "args": [{ "index": 6, "op": "SCMP_CMP_EQ", "value": 0 }] },
    ]));
    profile["listenerMetadata"] = json!("nobody");
    let bundle = bundle("true", profile);
    let told = bundle.create().failure();
    let expected = "linux.seccomp.syscalls[1].errnoRet: is for SCMP_ACT_ERRNO and SCMP_ACT_TRACE \
        only: remove it; linux.seccomp.syscalls[1].args[0].index: must be at most 5, is 6; \
        linux.seccomp.listenerMetadata: is told to a listener: set listenerPath, or remove it; \
        linux.seccomp.listenerPath: is required with SCMP_ACT_NOTIFY\n";
    assert!(told.ends_with(expected), "{told}");
    assert!(bundle.verb("state").failure().contains("does not exist"));
    assert!(!bundle.folder.join("state").join(&bundle.id).exists());
    let wrong = |field: &str, value: Value| {
        let mut profile = allowing(json!([rule("sched_yield", "ERRNO")]));
        profile[field] = value;
        bundle.edit(|config| config["linux"]["seccomp"] = profile);
        bundle.run().failure()
    };
    for (field, value, told) in [
        (
            "defaultAction",
            json!("SCMP_ACT_X"),
            "defaultAction: must be SCMP_ACT_KILL, ",
        ),
        (
            "flags",
            json!(["X"]),
            "flags[0]: must be SECCOMP_FILTER_FLAG_TSYNC, ",
        ),
        (
            "architectures",
            json!(["X"]),
            "architectures[0]: must be SCMP_ARCH_X86, ",
        ),
        (
            "syscalls",
            json!({}),
            "syscalls: must be an array, is an object",
        ),
    ] {
        let error = wrong(field, value);
        assert!(error.contains(&format!("linux.seccomp.{told}")), "{error}");
    }
}

fn a_profile_that_asks_for_nothing_is_none() {
    for profile in [json!({}), json!({ "syscalls": [] }), Value::Null] {
        let bundle = bundle("cat /proc/self/status", profile);
        let seen = bundle.run().success();
        assert!(seen.contains("Seccomp:\t0\n"), "{seen}");
    }
}

fn a_profile_that_is_too_long_is_refused() {
    let args = |count: u64| {
        let one = |value| json!({ "index": 0, "op": "SCMP_CMP_EQ", "value": value });
        (0..count).map(|i| one(i << 33 | i)).collect::<Vec<_>>()
    };
    let profile = |count| {
        let mut rule = rule("sched_yield", "ERRNO");
        rule["args"] = json!(args(count));
        allowing(json!([rule]))
    };
    // What fits is taken by the kernel too.
    assert_eq!(bundle("echo ran", profile(1000)).run().success(), "ran\n");
    let error = bundle("echo ran", profile(1100)).run().failure();
    let told = "instructions, and the kernel takes 4096: use fewer conditions\n";
    assert!(error.contains("linux.seccomp: compiles to 44"), "{error}");
    assert!(error.ends_with(told), "{error}");
}
