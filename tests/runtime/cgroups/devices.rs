//! Devices by eBPF: what the program inside can make and open.
//!
//! Devices with a major number that no driver has: where the filter allows an open the kernel says
//! that there is no such device, where it does not that this is not permitted.

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::support::{Bundle, tests};

pub fn all() -> Vec<Trial> {
    tests![
        without_rules_only_the_default_devices_are_allowed,
        a_rule_allows_its_device_alone,
        reading_and_writing_are_decided_each_by_itself,
        a_number_left_out_or_minus_one_stands_for_all,
        type_a_stands_for_block_and_character_devices,
        the_last_rule_that_names_a_device_decides,
        everything_can_be_allowed,
        default_devices_can_not_be_denied,
        a_node_can_always_be_made,
        a_wrong_rule_is_refused,
    ]
}

/// Beyond every number that the kernel gives to drivers (CHRDEV_MAJOR_MAX is 512).
const MAJOR: u32 = 4000;

/// For each node "TYPE_MAJOR_MINOR": which of r, w and rw (both at once) can be done with it.
fn allowed(rules: Value, nodes: &[&str]) -> Vec<String> {
    let script = format!(
        r#"open() {{ case $1 in
            r) : < $2 ;; w) : > $2 ;; rw) : <> $2 ;; esac; }}
        for node in {}; do
            line= IFS=_
            busybox mknod "/dev/$node" $node || exit 1
            unset IFS
            for how in r w rw; do
                said=$( (open $how /dev/$node) 2>&1 )
                case $said in
                *permitted*) ;;
                *"No such device"*) line="$line $how" ;;
                *) echo "$node $how: $said"; exit 1 ;;
                esac
            done
            echo $line
        done"#,
        nodes.join(" ")
    );
    let seen = with_rules(rules, &script).run().success();
    seen.lines().map(str::to_owned).collect()
}

/// A bundle that may make nodes.
fn with_rules(rules: Value, script: &str) -> Bundle {
    let bundle = Bundle::new(script);
    bundle.edit(|config| {
        config["linux"]["resources"]["devices"] = rules;
        for set in ["bounding", "effective", "permitted"] {
            let set = &mut config["process"]["capabilities"][set];
            set.as_array_mut().unwrap().push(json!("CAP_MKNOD"));
        }
    });
    bundle
}

fn rule(allow: bool, kind: &str, minor: i64, access: &str) -> Value {
    json!({"allow": allow, "type": kind, "major": MAJOR, "minor": minor, "access": access})
}

const BOTH: &str = "r w rw";

fn without_rules_only_the_default_devices_are_allowed() {
    let nodes = ["c_4000_1", "b_4000_1", "c_1_1"];
    assert_eq!(allowed(json!([]), &nodes), ["", "", ""]);
    let script = "for device in null zero full random urandom; do : <> /dev/$device || exit 1
        done; busybox head -c 4 /dev/zero | busybox od -An -tx1; : <> /dev/ptmx && echo ptmx";
    let seen = with_rules(json!([]), script).run().success();
    assert_eq!(seen.trim(), "00 00 00 00\nptmx");
}

fn a_rule_allows_its_device_alone() {
    let rules = json!([rule(true, "c", 1, "rwm"), rule(true, "b", 2, "rw")]);
    let nodes = ["c_4000_1", "c_4000_2", "b_4000_1", "b_4000_2", "c_4001_1"];
    assert_eq!(allowed(rules, &nodes), [BOTH, "", "", BOTH, ""]);
}

fn reading_and_writing_are_decided_each_by_itself() {
    let rules = json!([
        rule(true, "c", 1, "r"),
        rule(true, "c", 2, "w"),
        rule(true, "c", 3, "m"),
        rule(true, "c", 4, "r"),
        rule(true, "c", 4, "w"),
        rule(true, "c", 5, "rw"),
        rule(false, "c", 5, "w"),
    ]);
    let nodes = ["1", "2", "3", "4", "5"].map(|minor| format!("c_4000_{minor}"));
    let nodes = nodes.each_ref().map(String::as_str);
    assert_eq!(allowed(rules, &nodes), ["r", "w", "", BOTH, "r"]);
}

fn a_number_left_out_or_minus_one_stands_for_all() {
    let nodes = ["c_4000_1", "c_4000_99", "b_4000_1", "c_4001_1"];
    let minors = json!([rule(true, "c", -1, "rwm")]);
    assert_eq!(allowed(minors, &nodes), [BOTH, BOTH, "", ""]);
    let majors = json!([{"allow": true, "type": "c", "minor": 1, "access": "rw"}]);
    assert_eq!(allowed(majors, &nodes), [BOTH, "", "", BOTH]);
    let kind = json!([{"allow": true, "type": "b", "major": -1, "minor": -1, "access": "r"}]);
    assert_eq!(allowed(kind, &nodes), ["", "", "r", ""]);
}

fn type_a_stands_for_block_and_character_devices() {
    let nodes = ["c_4000_1", "b_4000_1", "c_4000_2"];
    let rules = json!([rule(true, "a", 1, "rw")]);
    assert_eq!(allowed(rules, &nodes), [BOTH, BOTH, ""]);
}

fn the_last_rule_that_names_a_device_decides() {
    let rules = json!([
        rule(true, "c", -1, "rwm"),
        rule(false, "c", 2, "rwm"),
        rule(false, "c", 3, "rwm"),
        rule(true, "c", 3, "r"),
    ]);
    let nodes = ["c_4000_1", "c_4000_2", "c_4000_3"];
    assert_eq!(allowed(rules, &nodes), [BOTH, "", "r"]);
    // A rule about everything makes all before it void.
    let void = json!([rule(true, "c", 1, "rwm"), {"allow": false, "access": "rwm"}]);
    assert_eq!(allowed(void, &nodes), ["", "", ""]);
}

fn everything_can_be_allowed() {
    let all = json!([{"allow": true, "access": "rwm"}]);
    assert_eq!(allowed(all, &["c_4000_1", "b_4000_7"]), [BOTH, BOTH]);
    let but_one = json!([{"allow": true, "access": "rwm"}, rule(false, "b", 7, "w")]);
    assert_eq!(allowed(but_one, &["c_4000_1", "b_4000_7"]), [BOTH, "r"]);
}

fn default_devices_can_not_be_denied() {
    let rules = json!([{"allow": false, "type": "c", "major": 1, "minor": 3, "access": "rwm"}]);
    with_rules(rules, ": <> /dev/null").run().success();
}

/// As in runc: a node is no use without an open. CAP_MKNOD still decides.
fn a_node_can_always_be_made() {
    let rules = json!([{"allow": false, "access": "rwm"}, rule(false, "a", 1, "m")]);
    let script = "busybox mknod /dev/c c 4000 1 && busybox mknod /dev/b b 4000 1 && echo made";
    assert_eq!(with_rules(rules, script).run().success(), "made\n");
    let without = Bundle::new("busybox mknod /dev/c c 4000 1");
    assert!(without.run().failure().contains("Operation not permitted"));
}

fn a_wrong_rule_is_refused() {
    let wrong = json!([{"allow": true, "type": "c", "major": -2, "access": "x"}]);
    let error = with_rules(wrong, "true").create().failure();
    for field in ["devices[0].major: must ", "devices[0].access: must "] {
        assert!(error.contains(field), "{error}");
    }
}
