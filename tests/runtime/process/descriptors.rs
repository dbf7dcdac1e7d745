//! What the program inherits from the runtime's caller: what was meant for it, and nothing else.

use std::process::Stdio;

use libtest_mimic::Trial;
use serde_json::json;

use crate::caller::{from_shell, output, wait_for_end};
use crate::support::{Bundle, Ran, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        only_the_standard_streams_are_open,
        preserved_descriptors_arrive_and_no_others,
        preserved_descriptors_wait_for_start,
        socket_activation_is_told_with_the_programs_own_process_id,
        socket_activation_for_another_process_is_not_passed_on,
        a_descriptor_to_preserve_that_is_not_open_is_named,
        no_signal_is_ignored_or_blocked_whatever_the_caller_does,
        a_caller_that_ignores_the_end_of_children_is_answered_all_the_same,
        a_closed_stdin_is_an_empty_one,
        the_streams_can_be_opened_again_by_the_programs_user,
    ]
}

const LIST: &str = "ls /proc/$$/fd; true";

/// Runs the bundle with `flags` from a shell that first does `script`.
fn run_after(bundle: &Bundle, script: &str, flags: &[&str]) -> Ran {
    let mut arguments = vec!["run", "--bundle", bundle.path()];
    arguments.extend(flags);
    arguments.push(&bundle.id);
    let script = format!("cd {} && {script}; exec \"$@\"", bundle.path());
    let mut command = from_shell(bundle, &script, &arguments);
    Ran(command.stdin(Stdio::null()).output().unwrap())
}

fn only_the_standard_streams_are_open() {
    let bundle = Bundle::new(LIST);
    let seen = run_after(&bundle, "exec 3<config.json 7<.", &[]);
    assert_eq!(seen.success(), "0\n1\n2\n");
}

fn preserved_descriptors_arrive_and_no_others() {
    let bundle = Bundle::new("cat <&3; cat <&4; ls /proc/$$/fd; true");
    let open = "echo one >1; echo two >2; exec 3<1 4<2 5<1 9<2";
    let seen = run_after(&bundle, open, &["--preserve-fds", "2"]);
    assert_eq!(seen.success(), "one\ntwo\n0\n1\n2\n3\n4\n");
}

fn preserved_descriptors_wait_for_start() {
    let bundle = Bundle::new("cat <&3; ls /proc/$$/fd; true");
    let script = format!(
        "cd {}; echo one >1; exec 3<1 4<1; exec \"$@\" >output 2>&1",
        bundle.path()
    );
    let flags = ["--preserve-fds=1", "--bundle", bundle.path(), &bundle.id];
    let arguments: Vec<&str> = ["create"].into_iter().chain(flags).collect();
    let mut command = from_shell(&bundle, &script, &arguments);
    assert!(command.stdin(Stdio::null()).status().unwrap().success());
    bundle.verb("start").success();
    wait_for_end(&bundle);
    assert_eq!(output(&bundle), "one\n0\n1\n2\n3\n");
}

fn socket_activation_is_told_with_the_programs_own_process_id() {
    let tell = "cat <&3; cat <&4; echo $LISTEN_FDS $(($LISTEN_PID - $$)); ls /proc/$$/fd; true";
    let open = "echo one >1; echo two >2; exec 3<1 4<2; export LISTEN_FDS=1 LISTEN_PID=$$";
    let bundle = Bundle::new(tell);
    let expected = "one\ntwo\n1 0\n0\n1\n2\n3\n4\n";
    let seen = run_after(&bundle, open, &["--preserve-fds", "1"]);
    assert_eq!(seen.success(), expected);
    // In the host's pid namespace it is not 1.
    bundle.edit(|config| {
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != "pid");
    });
    let seen = run_after(&bundle, open, &["--preserve-fds", "1"]);
    assert_eq!(seen.success(), expected);
}

fn socket_activation_for_another_process_is_not_passed_on() {
    let bundle = Bundle::new("echo ${LISTEN_FDS-none}; ls /proc/$$/fd; true");
    let open = "exec 3<config.json; export LISTEN_FDS=1 LISTEN_PID=2";
    assert_eq!(run_after(&bundle, open, &[]).success(), "none\n0\n1\n2\n");
}

fn a_descriptor_to_preserve_that_is_not_open_is_named() {
    let bundle = Bundle::new(LIST);
    for count in ["2", "4294967295"] {
        let error = run_after(&bundle, "exec 3<. 4<&-", &["--preserve-fds", count]).failure();
        let words = format!("descriptor 4 is not open: --preserve-fds {count}");
        assert!(error.contains(&words), "{error}");
    }
    assert!(bundle.verb("state").failure().contains("does not exist"));
}

fn no_signal_is_ignored_or_blocked_whatever_the_caller_does() {
    let bundle = Bundle::new("cat /proc/self/status");
    bundle.edit(|config| config["process"]["args"] = json!(["/bin/cat", "/proc/self/status"]));
    let ignore = "trap '' HUP INT PIPE TERM USR1 TSTP TTOU";
    let seen = run_after(&bundle, ignore, &[]).success();
    for set in ["SigIgn", "SigBlk", "SigPnd", "SigCgt"] {
        assert!(
            seen.contains(&format!("{set}:\t0000000000000000")),
            "{set} in {seen}"
        );
    }
}

fn a_caller_that_ignores_the_end_of_children_is_answered_all_the_same() {
    let bundle = Bundle::new("exit 7");
    bundle.edit(|config| {
        let hook = json!({"path": "/bin/true"});
        config["hooks"] = json!({"createRuntime": [hook], "createContainer": [hook]});
    });
    let ignore = "set -- env --ignore-signal=CHLD \"$@\"";
    let ran = run_after(&bundle, ignore, &[]);
    assert_eq!((ran.code(), ran.stderr()), (Some(7), String::new()));
}

fn a_closed_stdin_is_an_empty_one() {
    let bundle = Bundle::new("cat; ls /proc/$$/fd; true");
    let seen = run_after(&bundle, "exec <&-", &[]);
    assert_eq!(seen.success(), "0\n1\n2\n");
}

fn the_streams_can_be_opened_again_by_the_programs_user() {
    let bundle = Bundle::new("echo out >/dev/stdout; echo problem >/dev/stderr");
    bundle.edit(|config| config["process"]["user"] = json!({"uid": 1000, "gid": 1000}));
    let ran = run_after(&bundle, "true", &[]);
    assert_eq!(
        (ran.success(), ran.stderr()),
        ("out\n".into(), "problem\n".into())
    );
}
