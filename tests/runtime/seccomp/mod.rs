//! Filters of system calls, seen by programs that make the calls.

mod actions;
mod agent;
mod annotations;
mod architectures;
mod arguments;
mod kept;
mod notify;
mod privileges;
mod probe;
mod refusals;

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::support::Bundle;
use probe::Call;

/// The tests of this folder.
pub fn all() -> Vec<Trial> {
    [
        actions::all(),
        annotations::all(),
        architectures::all(),
        arguments::all(),
        kept::all(),
        notify::all(),
        privileges::all(),
        refusals::all(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// 128 and SIGSYS: how a shell and the runtime tell of a program that was killed for a call.
const BAD_CALL: i32 = 128 + 31;

const EPERM: i32 = 1;
const ENOSYS: i32 = 38;

/// Calls without effect, by their numbers on x86_64; a shell does not make the first.
const YIELD: u64 = 24;
const GETUID: u64 = 102;

/// A profile that allows all but what its rules say.
fn allowing(rules: Value) -> Value {
    json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules })
}

/// A rule on one call.
fn rule(name: &str, action: &str) -> Value {
    json!({ "names": [name], "action": format!("SCMP_ACT_{action}") })
}

/// Docker's default profile.
fn docker() -> Value {
    serde_json::from_str(include_str!("../../profiles/docker-amd64.json")).unwrap()
}

/// A bundle under `profile`.
fn bundle(script: &str, profile: Value) -> Bundle {
    let bundle = Bundle::new(script);
    bundle.edit(|config| config["linux"]["seccomp"] = profile);
    bundle
}

/// A bundle under `profile` whose program makes the call and ends with its errno.
fn making(call: Call, profile: Value) -> Bundle {
    let bundle = bundle("", profile);
    probe::write(&bundle, "probe", call);
    bundle.edit(|config| config["process"]["args"] = json!(["/probe"]));
    bundle
}

/// The errno of each call under `profile`, or how its program was ended; a shell starts them.
fn errnos(profile: Value, calls: &[Call]) -> Vec<i32> {
    let bundle = bundle("for probe in /probe-*; do $probe; echo $?; done", profile);
    for (index, call) in calls.iter().enumerate() {
        probe::write(&bundle, &format!("probe-{index:03}"), *call);
    }
    let seen = bundle.run().success();
    seen.lines().map(|line| line.parse().unwrap()).collect()
}
