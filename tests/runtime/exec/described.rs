//! --process: the whole process in a file, as containerd, Docker and Podman give it.

use std::fs;

use libtest_mimic::Trial;
use serde_json::{Value, json};

use super::{changed, exec, in_user_namespace, processes, refusal, running};
use crate::support::{Bundle, Ran, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        every_field_of_the_file_counts,
        nothing_is_taken_from_config_json,
        capabilities_of_the_file_are_the_only_ones,
        limits_in_a_user_namespace_are_set_from_outside,
        a_limit_that_can_not_be_set_is_told_and_nothing_runs,
        the_oom_score_is_adjusted,
        a_file_that_is_no_json_is_refused_with_the_place,
        a_file_that_is_missing_or_no_file_is_refused,
        every_wrong_value_is_told_at_once_with_its_path,
        an_unknown_field_is_told_and_left_out,
        what_config_json_says_elsewhere_is_not_told_again,
    ]
}

/// `exec --process` of this.
fn described(bundle: &Bundle, process: &Value) -> Ran {
    written(bundle, &process.to_string())
}

fn written(bundle: &Bundle, text: &str) -> Ran {
    let file = bundle.folder.join("process.json");
    fs::write(&file, text).unwrap();
    exec(bundle, &["--process", file.to_str().unwrap()], &[])
}

/// The least that a process has.
fn process(args: &[&str]) -> Value {
    json!({"args": args, "cwd": "/", "user": {"uid": 0, "gid": 0}})
}

fn every_field_of_the_file_counts() {
    let bundle = running();
    let script = "id -u; id -g; umask; pwd; echo $A $B; \
        busybox grep -E '^(Groups|NoNewPrivs)' /proc/self/status; ulimit -n; ulimit -Hn";
    let wanted = json!({
        "args": ["/bin/sh", "-c", script],
        "cwd": "/tmp",
        "env": ["A=1", "PATH=/bin", "B=2", "A=3"],
        "user": {"uid": 5, "gid": 6, "umask": 0o027, "additionalGids": [7, 8]},
        "noNewPrivileges": true,
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 99, "hard": 100}],
        "terminal": false,
    });
    let expected = "5\n6\n0027\n/tmp\n3 2\nGroups:\t7 8 \nNoNewPrivs:\t1\n99\n100\n";
    assert_eq!(described(&bundle, &wanted).success(), expected);
}

fn nothing_is_taken_from_config_json() {
    let bundle = changed(|config| {
        config["process"]["env"] = json!(["OF=config", "PATH=/bin"]);
        config["process"]["user"] = json!({"uid": 5, "gid": 6, "additionalGids": [7]});
        config["process"]["cwd"] = json!("/tmp");
        config["process"]["noNewPrivileges"] = json!(true);
    });
    let script = "echo ${OF-none}; id; pwd; busybox grep -E 'NoNew|Cap(Eff|Bnd)' /proc/self/status";
    let seen = described(&bundle, &process(&["/bin/sh", "-c", script])).success();
    let none = "0000000000000000";
    assert_eq!(
        seen,
        format!("none\nuid=0 gid=0\n/\nCapEff:\t{none}\nCapBnd:\t{none}\nNoNewPrivs:\t0\n")
    );
}

fn capabilities_of_the_file_are_the_only_ones() {
    let bundle = running();
    let mut wanted = process(&["/bin/cat", "/proc/self/status"]);
    wanted["user"] = json!({"uid": 1000, "gid": 1000});
    let all = [
        "bounding",
        "permitted",
        "inheritable",
        "effective",
        "ambient",
    ];
    for set in all {
        wanted["capabilities"][set] = json!(["CAP_KILL"]);
    }
    let seen = described(&bundle, &wanted).success();
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert!(
            seen.contains(&format!("{set}:\t0000000000000020")),
            "{seen}"
        );
    }
}

/// The soft and hard limit of open messages, of which the tests have more than these.
fn queue(limits: &str) -> Vec<String> {
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max msgqueue size"));
    line.unwrap()
        .split_whitespace()
        .take(2)
        .map(str::to_owned)
        .collect()
}

fn limits_in_a_user_namespace_are_set_from_outside() {
    let bundle = in_user_namespace(|_config| {});
    let mut wanted = process(&["/bin/cat", "/proc/self/limits"]);
    let limit =
        |soft: u64, hard: u64| json!([{"type": "RLIMIT_MSGQUEUE", "soft": soft, "hard": hard}]);
    wanted["rlimits"] = limit(4096, 8192);
    assert_eq!(
        queue(&described(&bundle, &wanted).success()),
        ["4096", "8192"]
    );
    // One that only the host's privilege allows.
    let own = queue(&fs::read_to_string("/proc/self/limits").unwrap());
    let above = own[1].parse::<u64>().unwrap() + 1;
    wanted["rlimits"] = limit(1, above);
    let ran = described(&bundle, &wanted);
    if may_raise_limits() {
        assert_eq!(queue(&ran.success()), ["1", &above.to_string()]);
    } else {
        let error = refusal(&ran);
        assert!(
            error.contains("process.rlimits[0]: prlimit(RLIMIT_MSGQUEUE"),
            "{error}"
        );
    }
}

/// Whether the tests, and so the runtime, have CAP_SYS_RESOURCE: root does not everywhere.
fn may_raise_limits() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:\t"));
    u64::from_str_radix(line.unwrap(), 16).unwrap() & (1 << 24) != 0
}

fn a_limit_that_can_not_be_set_is_told_and_nothing_runs() {
    let bundle = running();
    let own = queue(&fs::read_to_string("/proc/self/limits").unwrap());
    let above = own[1].parse::<u64>().unwrap() + 1;
    let mut wanted = process(&["/bin/cat", "/proc/self/limits"]);
    wanted["rlimits"] = json!([{"type": "RLIMIT_MSGQUEUE", "soft": 1, "hard": above}]);
    let ran = described(&bundle, &wanted);
    if may_raise_limits() {
        assert_eq!(queue(&ran.success()), ["1", &above.to_string()]);
    } else {
        let error = refusal(&ran);
        let words = format!("process.rlimits[0]: prlimit(RLIMIT_MSGQUEUE, soft 1, hard {above})");
        assert!(error.contains(&words), "{error}");
    }
    assert_eq!(processes(&super::cgroup_of(&bundle)).len(), 1);
}

fn the_oom_score_is_adjusted() {
    for bundle in [running(), in_user_namespace(|_config| {})] {
        let mut wanted = process(&["/bin/cat", "/proc/self/oom_score_adj"]);
        wanted["oomScoreAdj"] = json!(777);
        assert_eq!(described(&bundle, &wanted).success(), "777\n");
        wanted["oomScoreAdj"] = json!(-900);
        let ran = described(&bundle, &wanted);
        if may_raise_limits() {
            assert_eq!(ran.success(), "-900\n");
        } else {
            let error = refusal(&ran);
            assert!(error.contains("process.oomScoreAdj: write("), "{error}");
        }
    }
}

fn a_file_that_is_no_json_is_refused_with_the_place() {
    let bundle = running();
    for (text, words) in [
        ("", "line 1 column 0: EOF"),
        (
            "{\n  \"args\": [\"a\",]}",
            "line 2 column 16: trailing comma",
        ),
        ("[]", "must be a JSON object"),
        ("{\"args\": [], \"args\": []}", "args"),
    ] {
        let error = refusal(&written(&bundle, text));
        assert!(
            error.contains("process.json\": ") && error.contains(words),
            "{error}"
        );
    }
}

fn a_file_that_is_missing_or_no_file_is_refused() {
    let bundle = running();
    let fifo = bundle.folder.join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    for (file, words) in [
        (bundle.folder.join("none"), "does not exist"),
        (bundle.folder.clone(), "is not a regular file"),
        (fifo, "is not a regular file"),
    ] {
        let error = refusal(&exec(&bundle, &["-p", file.to_str().unwrap()], &[]));
        assert!(error.contains(words), "{error}");
        assert!(!error.contains("parhelion spec"), "{error}");
    }
}

fn every_wrong_value_is_told_at_once_with_its_path() {
    let bundle = running();
    let file = bundle.folder.join("pid");
    let text = json!({
        "args": ["/bin/true", 5],
        "cwd": "tmp",
        "env": ["NAME"],
        "user": {"uid": "root", "gid": -1},
        "rlimits": [{"type": "RLIMIT_NONE", "soft": 1, "hard": 1}],
        "oomScoreAdj": 5000,
        "noNewPrivileges": "yes",
    });
    let described = bundle.folder.join("process.json");
    fs::write(&described, text.to_string()).unwrap();
    let flags = [
        "--pid-file",
        file.to_str().unwrap(),
        "-p",
        described.to_str().unwrap(),
    ];
    let error = refusal(&exec(&bundle, &flags, &[]));
    assert!(error.contains("process.json\": process."), "{error}");
    for path in [
        "process.args[1]",
        "process.cwd",
        "process.env[0]",
        "process.user.uid",
        "process.user.gid",
        "process.rlimits[0].type",
        "process.oomScoreAdj",
        "process.noNewPrivileges",
    ] {
        assert!(
            error.contains(&format!("{path}: ")),
            "{path} is not in {error}"
        );
    }
    assert!(!file.exists());
    for missing in ["args", "cwd", "user"] {
        let mut process = process(&["/bin/true"]);
        process.as_object_mut().unwrap().remove(missing);
        let error = refusal(&self::described(&bundle, &process));
        assert!(
            error.contains(&format!("process.{missing}: is required")),
            "{error}"
        );
    }
}

/// As in config.json, which the specification wants to be read so.
fn an_unknown_field_is_told_and_left_out() {
    let bundle = running();
    let mut wanted = process(&["/bin/echo", "ran"]);
    wanted["invented"] = json!({"a": 1});
    let ran = described(&bundle, &wanted);
    assert_eq!(ran.success(), "ran\n");
    assert_eq!(
        ran.stderr(),
        "warning: process.invented: unknown property, ignored\n"
    );
}

fn what_config_json_says_elsewhere_is_not_told_again() {
    let bundle = changed(|config| config["invented"] = json!(1));
    let ran = exec(&bundle, &[], &["/bin/true"]);
    assert_eq!(
        (ran.success(), ran.stderr()),
        (String::new(), String::new())
    );
}
