//! Each action, as the program that makes the call finds it.

use libtest_mimic::Trial;
use serde_json::{Value, json};

use super::probe::{CAUGHT, Call};
use super::{
    BAD_CALL, ENOSYS, EPERM, GETUID, YIELD, allowing, bundle, docker, errnos, making, rule,
};
use crate::support::tests;

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        a_call_is_refused_with_the_errno_of_its_rule,
        a_call_ends_its_process_or_thread,
        a_trapped_call_is_a_signal_that_can_be_caught,
        a_traced_call_does_not_exist_without_a_tracer,
        a_logged_call_is_made,
        every_call_without_a_rule_gets_the_default,
        a_call_that_is_newer_than_the_profile_does_not_exist,
        dockers_default_profile_holds,
        unknown_names_are_ignored_and_told_with_debug,
        every_flag_is_taken,
    ]
}

/// `rule` with an errno.
fn with_errno(mut rule: Value, errno: i32) -> Value {
    rule["errnoRet"] = json!(errno);
    rule
}

fn a_call_is_refused_with_the_errno_of_its_rule() {
    let rules = json!([
        rule("sched_yield", "ERRNO"),
        with_errno(rule("getuid", "ERRNO"), 77)
    ]);
    let seen = errnos(
        allowing(rules),
        &[
            Call::native(YIELD),
            Call::native(GETUID),
            Call::native(104), // getgid
        ],
    );
    assert_eq!(seen, [EPERM, 77, 0]);
}

fn a_call_ends_its_process_or_thread() {
    for action in ["KILL", "KILL_THREAD", "KILL_PROCESS"] {
        let profile = || allowing(json!([rule("sched_yield", action)]));
        let call = Call::native(YIELD);
        assert_eq!(errnos(profile(), &[call.handled()]), [BAD_CALL], "{action}");
        // Also where the program is the container's first process.
        assert_eq!(making(call, profile()).run().code(), Some(BAD_CALL));
    }
}

fn a_trapped_call_is_a_signal_that_can_be_caught() {
    let call = Call::native(YIELD);
    let profile = allowing(json!([rule("sched_yield", "TRAP")]));
    assert_eq!(errnos(profile, &[call, call.handled()]), [BAD_CALL, CAUGHT]);
}

fn a_traced_call_does_not_exist_without_a_tracer() {
    let rules = json!([with_errno(rule("sched_yield", "TRACE"), 9)]);
    assert_eq!(errnos(allowing(rules), &[Call::native(YIELD)]), [ENOSYS]);
}

fn a_logged_call_is_made() {
    let mut profile = allowing(json!([rule("sched_yield", "LOG")]));
    profile["flags"] = json!(["SECCOMP_FILTER_FLAG_LOG"]);
    assert_eq!(errnos(profile, &[Call::native(YIELD)]), [0]);
}

/// A profile that refuses all but what the probe needs, and `names`.
fn refusing(action: &str, names: &[&str]) -> Value {
    let allow = |names: Value| json!({ "names": names, "action": "SCMP_ACT_ALLOW" });
    json!({
        "defaultAction": format!("SCMP_ACT_{action}"),
        "syscalls": [allow(json!(["execve", "exit_group"])), allow(json!(names))],
    })
}

fn every_call_without_a_rule_gets_the_default() {
    let ends = |profile: Value, number| making(Call::native(number), profile).run().code();
    let mut errno = refusing("ERRNO", &["getuid"]);
    assert_eq!(ends(errno.clone(), GETUID), Some(0));
    assert_eq!(ends(errno.clone(), YIELD), Some(EPERM));
    errno["defaultErrnoRet"] = json!(99);
    assert_eq!(ends(errno, YIELD), Some(99));
    let kill = refusing("KILL_PROCESS", &["getuid"]);
    assert_eq!(ends(kill.clone(), GETUID), Some(0));
    assert_eq!(ends(kill, YIELD), Some(BAD_CALL));
}

fn a_call_that_is_newer_than_the_profile_does_not_exist() {
    let ends = |action, number| {
        let profile = refusing(action, &["close_range"]); // 436
        making(Call::native(number), profile).run().code()
    };
    for action in ["ERRNO", "KILL_PROCESS", "TRAP"] {
        assert_eq!(ends(action, 437), Some(ENOSYS), "{action}");
        assert_eq!(ends(action, 9999), Some(ENOSYS), "{action}");
    }
    assert_eq!(ends("ERRNO", 435), Some(EPERM)); // clone3
    assert_eq!(ends("KILL_PROCESS", 435), Some(BAD_CALL));
}

fn dockers_default_profile_holds() {
    let first = |number, value| Call::native(number).with(0, value);
    let newns = 0x2_0000;
    let seen = errnos(
        docker(),
        &[
            Call::native(YIELD),
            first(272, newns),       // unshare
            Call::native(435),       // clone3
            Call::native(9999),      // no call at all
            first(135, 0xffff_ffff), // personality, to ask for it
            first(135, 1),           // personality
            first(41, 40),           // socket(AF_VSOCK)
            first(41, 1).with(1, 2), // socket(AF_UNIX, SOCK_DGRAM)
            first(56, newns),        // clone
        ],
    );
    let all = [0, EPERM, ENOSYS, ENOSYS, 0, EPERM, EPERM, 0, EPERM];
    assert_eq!(seen, all);
}

fn unknown_names_are_ignored_and_told_with_debug() {
    let rules = json!([rule("sched_yield", "ERRNO"), rule("no_such_call", "ERRNO")]);
    let bundle = bundle("echo ran", allowing(rules));
    let arguments = ["run", "--bundle", bundle.path(), &bundle.id];
    let quiet = bundle.parhelion(&arguments);
    assert_eq!(quiet.success(), "ran\n");
    assert_eq!(quiet.stderr(), "");
    let debug = bundle.parhelion(&[&["--debug"], &arguments[..]].concat());
    assert_eq!(debug.success(), "ran\n");
    let told = "debug: linux.seccomp: unknown names, ignored: \"no_such_call\"\n";
    assert!(debug.stderr().contains(told), "{}", debug.stderr());
}

fn every_flag_is_taken() {
    for flags in [
        json!([]),
        json!(["SECCOMP_FILTER_FLAG_TSYNC"]),
        json!(["SECCOMP_FILTER_FLAG_SPEC_ALLOW"]),
        // Without a notification there is nothing to wait for.
        json!(["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]),
        json!(["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_TSYNC"]),
    ] {
        let mut profile = allowing(json!([rule("sched_yield", "ERRNO")]));
        profile["flags"] = flags.clone();
        let seen = errnos(profile, &[Call::native(YIELD)]);
        assert_eq!(seen, [EPERM], "{flags}");
    }
}
