//! Calls of the other architectures that an x86_64 kernel takes.

use libtest_mimic::Trial;
use serde_json::{Value, json};

use super::probe::Call;
use super::{BAD_CALL, ENOSYS, EPERM, YIELD, allowing, errnos, rule};
use crate::support::tests;

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        a_rule_holds_for_each_architecture_by_its_own_number,
        a_call_of_an_architecture_that_is_not_named_ends_its_process,
        a_32_bit_call_can_not_hide_an_argument,
        a_socket_that_is_made_by_socketcall_is_one,
    ]
}

const EFAULT: i32 = 14;
const EINVAL: i32 = 22;

/// Numbers on 32-bit x86.
const X86_YIELD: u64 = 158;
const X86_SOCKETCALL: u64 = 102;
const X86_SOCKET: u64 = 359;

/// `profile` for all three architectures.
fn for_all(mut profile: Value) -> Value {
    profile["architectures"] = json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]);
    profile
}

fn a_rule_holds_for_each_architecture_by_its_own_number() {
    let profile = for_all(allowing(json!([rule("sched_yield", "ERRNO")])));
    let seen = errnos(
        profile,
        &[
            Call::native(YIELD),
            Call::native(X86_YIELD), // arch_prctl, of no such code
            Call::x86(X86_YIELD),
            Call::x86(24), // getuid
            Call::x32(YIELD),
        ],
    );
    assert_eq!(seen, [EPERM, EINVAL, EPERM, 0, EPERM]);
    let newer = for_all(super::docker());
    let calls = [Call::native(9999), Call::x86(9999), Call::x32(9999)];
    assert_eq!(errnos(newer, &calls), [ENOSYS; 3]);
}

fn a_call_of_an_architecture_that_is_not_named_ends_its_process() {
    let calls = [Call::native(YIELD), Call::x86(X86_YIELD), Call::x32(YIELD)];
    for named in [json!([]), json!(["SCMP_ARCH_X86_64"])] {
        let mut profile = allowing(json!([]));
        profile["architectures"] = named;
        assert_eq!(errnos(profile, &calls), [0, BAD_CALL, BAD_CALL]);
    }
}

fn a_32_bit_call_can_not_hide_an_argument() {
    let argument = json!({ "index": 0, "op": "SCMP_CMP_EQ", "value": 5 });
    let mut refused = rule("sched_yield", "ERRNO");
    refused["args"] = json!([argument]);
    let profile = for_all(allowing(json!([refused])));
    // The kernel takes the lower half of the register alone.
    let calls = [5, 5 | 1 << 32, 6].map(|value| Call::x86(X86_YIELD).with(0, value));
    assert_eq!(errnos(profile, &calls), [EPERM, EPERM, 0]);
}

fn a_socket_that_is_made_by_socketcall_is_one() {
    let mut family = rule("socket", "ERRNO");
    family["args"] = json!([{ "index": 0, "op": "SCMP_CMP_EQ", "value": 38 }]);
    let call = Call::x86(X86_SOCKETCALL);
    // SYS_SOCKET with arguments at an address that is none, and no such call of a socket.
    let calls = [
        call.with(0, 1).with(1, 1),
        call.with(0, 99),
        Call::x86(X86_SOCKET).with(0, 38),
        Call::x86(X86_SOCKET).with(0, 1).with(1, 2),
    ];
    let none = for_all(allowing(json!([])));
    assert_eq!(errnos(none, &calls[..2]), [EFAULT, EINVAL]);
    for rule in [rule("socket", "ERRNO"), family] {
        let with_condition = rule.get("args").is_some();
        let seen = errnos(for_all(allowing(json!([rule]))), &calls);
        let direct = if with_condition { 0 } else { EPERM };
        assert_eq!(seen, [EPERM, EINVAL, EPERM, direct]);
    }
}
