//! Who the process is and what it may do: --user, --additional-gids, --cap, --no-new-privs.

use libtest_mimic::Trial;
use serde_json::{Value, json};

use super::{changed, exec, in_user_namespace, refusal, running, sh};
use crate::support::{Bundle, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        the_user_is_that_of_config_json_unless_another_is_asked_for,
        a_user_in_a_wrong_form_is_refused,
        further_groups_are_added,
        capabilities_are_added_to_three_sets,
        an_added_capability_does_not_outlive_a_change_of_user,
        an_unknown_capability_is_left_out_with_a_warning,
        new_privileges_are_given_up_when_asked,
        in_a_user_namespace_ids_are_those_inside,
        a_label_or_a_profile_that_this_host_can_not_give_is_refused,
    ]
}

const KILL: u64 = 1 << 5;
const NET_RAW: u64 = 1 << 13;

const STATUS: &[&str] = &["/bin/cat", "/proc/self/status"];

/// A field of the status file that the process reads of itself.
fn field(bundle: &Bundle, flags: &[&str], name: &str) -> String {
    let status = exec(bundle, flags, STATUS).success();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let words: Vec<&str> = line.unwrap()[1..].split_whitespace().collect();
    words.join(" ")
}

fn sets(bundle: &Bundle, flags: &[&str]) -> [u64; 5] {
    ["CapBnd", "CapEff", "CapPrm", "CapInh", "CapAmb"]
        .map(|name| u64::from_str_radix(&field(bundle, flags, name), 16).unwrap())
}

fn only_kill(config: &mut Value) {
    let mut sets = json!({});
    for set in ["bounding", "effective", "permitted"] {
        sets[set] = json!(["CAP_KILL"]);
    }
    config["process"]["capabilities"] = sets;
}

fn the_user_is_that_of_config_json_unless_another_is_asked_for() {
    let bundle = changed(|config| {
        config["process"]["user"] = json!({"uid": 7, "gid": 8, "umask": 0o077});
    });
    let ids = "id -u; id -g; umask";
    assert_eq!(sh(&bundle, &[], ids), "7\n8\n0077\n");
    assert_eq!(
        sh(&bundle, &["--user", "5"], ids),
        "5\n8\n0077\n",
        "the group stays"
    );
    assert_eq!(sh(&bundle, &["-u", "5:6"], ids), "5\n6\n0077\n");
    assert_eq!(sh(&bundle, &["--user=0:0"], ids), "0\n0\n0077\n");
    for (name, all) in [("Uid", "5 5 5 5"), ("Gid", "6 6 6 6")] {
        assert_eq!(
            field(&bundle, &["-u", "5:6"], &format!("{name}:")[..3]),
            format!("{all}")
        );
    }
}

fn a_user_in_a_wrong_form_is_refused() {
    let bundle = running();
    for wrong in [
        "root",
        "",
        ":",
        "5:",
        ":5",
        "1:2:3",
        "+5",
        " 5",
        "0x5",
        "-1",
        "4294967296",
    ] {
        let flag = format!("--user={wrong}");
        let error = refusal(&exec(&bundle, &[&flag], &["/bin/true"]));
        assert!(
            error.contains("--user") && error.contains("UID:GID"),
            "{error}"
        );
    }
    // What setresuid(2) takes for "leave it as it is".
    for (wrong, path) in [
        ("4294967295", "process.user.uid"),
        ("0:4294967295", "process.user.gid"),
    ] {
        let error = refusal(&exec(&bundle, &["--user", wrong], &["/bin/true"]));
        assert!(error.contains(path), "{error}");
    }
}

fn further_groups_are_added() {
    let bundle = changed(|config| {
        config["process"]["user"] = json!({"uid": 7, "gid": 8, "additionalGids": [20]});
    });
    assert_eq!(field(&bundle, &[], "Groups"), "20");
    let flags = ["--additional-gids", "30,31", "-g", "32"];
    assert_eq!(field(&bundle, &flags, "Groups"), "20 30 31 32");
    // A wrong command line ends with 1, as in runc.
    for wrong in ["-1", "wheel", "4294967296"] {
        let flag = format!("--additional-gids={wrong}");
        let error = exec(&bundle, &[&flag], &["/bin/true"]).failure();
        assert!(error.contains("--additional-gids"), "{error}");
    }
}

fn capabilities_are_added_to_three_sets() {
    let bundle = changed(only_kill);
    assert_eq!(sets(&bundle, &[]), [KILL, KILL, KILL, 0, 0]);
    let both = KILL | NET_RAW;
    for flags in [["--cap", "CAP_NET_RAW"], ["-c", "CAP_NET_RAW"]] {
        assert_eq!(sets(&bundle, &flags), [both, both, both, 0, 0]);
    }
}

/// CVE-2022-29162: what was inheritable stayed.
fn an_added_capability_does_not_outlive_a_change_of_user() {
    let bundle = changed(only_kill);
    let flags = ["--cap", "CAP_NET_RAW", "--user", "1000"];
    let [bounding, effective, permitted, inheritable, ambient] = sets(&bundle, &flags);
    assert_eq!([effective, permitted, inheritable, ambient], [0; 4]);
    assert_eq!(bounding, KILL | NET_RAW);
}

fn an_unknown_capability_is_left_out_with_a_warning() {
    let bundle = changed(only_kill);
    let ran = exec(&bundle, &["--cap", "CAP_NONE"], STATUS);
    assert!(ran.success().contains("CapEff:\t0000000000000020"));
    assert!(
        ran.stderr().contains("\"CAP_NONE\", not granted"),
        "{}",
        ran.stderr()
    );
}

fn new_privileges_are_given_up_when_asked() {
    let bundle = changed(|config| config["process"]["noNewPrivileges"] = json!(false));
    assert_eq!(field(&bundle, &[], "NoNewPrivs"), "0");
    assert_eq!(field(&bundle, &["--no-new-privs"], "NoNewPrivs"), "1");
    let bundle = running();
    assert_eq!(field(&bundle, &[], "NoNewPrivs"), "1", "config.json's own");
}

fn in_a_user_namespace_ids_are_those_inside() {
    let bundle = in_user_namespace(|_config| {});
    let ids =
        "id -u; id -g; busybox tr -s ' ' </proc/self/uid_map; stat -c %u:%g /proc/self/status";
    assert_eq!(sh(&bundle, &[], ids), "0\n0\n 0 100000 65536\n0:0\n");
    let flags = ["--user", "5:6", "-g", "9"];
    assert_eq!(field(&bundle, &flags, "Uid"), "5 5 5 5");
    assert_eq!(field(&bundle, &flags, "Groups"), "9");
    let pid = super::background(&bundle, &flags);
    let seen = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    for line in [
        "Uid:\t100005\t100005\t100005\t100005",
        "Gid:\t100006",
        "Groups:\t100009",
    ] {
        assert!(seen.contains(line), "{line} is not in {seen}");
    }
    for (user, path) in [
        ("65536", "process.user.uid"),
        ("0:65536", "process.user.gid"),
    ] {
        let error = refusal(&exec(&bundle, &["--user", user], &["/bin/true"]));
        assert!(
            error.contains(path) && error.contains("is not mapped"),
            "{error}"
        );
    }
}

fn a_label_or_a_profile_that_this_host_can_not_give_is_refused() {
    let bundle = running();
    for (flag, path) in [
        ("--apparmor", "process.apparmorProfile"),
        ("--process-label", "process.selinuxLabel"),
    ] {
        let error = refusal(&exec(&bundle, &[flag, "no-such"], &["/bin/true"]));
        assert!(error.contains(path), "{error}");
    }
}
