//! Conditions on arguments, which the kernel ignores for sched_yield and a filter does not.

use libtest_mimic::Trial;
use serde_json::{Value, json};

use super::probe::Call;
use super::{EPERM, YIELD, allowing, errnos};
use crate::support::tests;

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        each_comparison_is_one_of_64_bits,
        all_conditions_of_a_rule_must_hold,
        conditions_on_one_argument_are_rules_of_their_own,
        a_rule_without_conditions_beats_the_others,
        the_narrower_of_two_rules_comes_first,
    ]
}

fn argument(index: usize, op: &str, value: u64, two: u64) -> Value {
    json!({ "index": index, "op": format!("SCMP_CMP_{op}"), "value": value, "valueTwo": two })
}

fn rule(errno: i32, args: Value) -> Value {
    json!({ "names": ["sched_yield"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno, "args": args })
}

const BIG: u64 = 0x2_0000_0005;

fn each_comparison_is_one_of_64_bits() {
    // The same lower half in another number, and the numbers around.
    let values = [5, BIG - 1, BIG, BIG + 1, 0x3_0000_0000, u64::MAX];
    let expected = [
        ("EQ", [0, 0, 1, 0, 0, 0]),
        ("NE", [1, 1, 0, 1, 1, 1]),
        ("LT", [1, 1, 0, 0, 0, 0]),
        ("LE", [1, 1, 1, 0, 0, 0]),
        ("GT", [0, 0, 0, 1, 1, 1]),
        ("GE", [0, 0, 1, 1, 1, 1]),
    ];
    for (op, held) in expected {
        let profile = allowing(json!([rule(EPERM, json!([argument(5, op, BIG, 0)]))]));
        let calls = values.map(|value| Call::native(YIELD).with(5, value));
        assert_eq!(errnos(profile, &calls), held, "{op}");
    }
    let masked = argument(3, "MASKED_EQ", 0x3_0000_000f, BIG);
    let profile = allowing(json!([rule(EPERM, json!([masked]))]));
    let values = [BIG, BIG | 0xf0, BIG | 1 << 63, BIG | 8, 5, BIG | 1 << 32];
    let calls = values.map(|value| Call::native(YIELD).with(3, value));
    assert_eq!(errnos(profile, &calls), [1, 1, 1, 0, 0, 0]);
}

fn all_conditions_of_a_rule_must_hold() {
    let args = json!([argument(1, "GT", 7, 0), argument(0, "EQ", 3, 0)]);
    let call = |first, second| Call::native(YIELD).with(0, first).with(1, second);
    let calls = [call(3, 8), call(3, 7), call(4, 8), call(0, 0)];
    let seen = errnos(allowing(json!([rule(9, args)])), &calls);
    assert_eq!(seen, [9, 0, 0, 0]);
}

fn conditions_on_one_argument_are_rules_of_their_own() {
    let args = json!([
        argument(0, "EQ", 3, 0),
        argument(0, "EQ", 4, 0),
        argument(1, "EQ", 5, 0)
    ]);
    let call = |first, second| Call::native(YIELD).with(0, first).with(1, second);
    let calls = [call(3, 0), call(4, 0), call(0, 5), call(0, 0)];
    let seen = errnos(allowing(json!([rule(9, args)])), &calls);
    assert_eq!(seen, [9, 9, 9, 0]);
}

fn a_rule_without_conditions_beats_the_others() {
    let special = rule(9, json!([argument(0, "EQ", 3, 0)]));
    let calls = [3, 4].map(|value| Call::native(YIELD).with(0, value));
    let rules = json!([special, rule(8, json!([])), rule(7, json!([]))]);
    assert_eq!(errnos(allowing(rules), &calls), [8, 8]);
}

fn the_narrower_of_two_rules_comes_first() {
    let one = rule(9, json!([argument(0, "EQ", 5, 0)]));
    let many = rule(8, json!([argument(0, "GT", 1, 0)]));
    let calls = [5, 6, 1].map(|value| Call::native(YIELD).with(0, value));
    for rules in [json!([one, many]), json!([many, one])] {
        assert_eq!(errnos(allowing(rules), &calls), [9, 8, 0]);
    }
}
