//! Landlock rules by annotation (docs/landlock.md), on kernels that have them.

use std::fs;
use std::process::Command;

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::support::{Bundle, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        files_are_read_written_and_executed_only_where_allowed,
        rights_to_a_single_file_are_those_of_files,
        rules_hold_for_a_program_without_no_new_privileges_too,
        rules_hold_for_an_ordinary_user_and_in_a_user_namespace,
        tcp_ports_are_bound_and_connected_only_where_allowed,
        processes_outside_are_out_of_reach_of_signals,
        hooks_inside_are_under_the_rules,
        a_path_that_is_not_there_is_told,
        a_program_that_may_not_be_executed_is_told,
        rules_without_sense_are_refused,
    ]
}

/// A bundle with these rules; everything that the shell needs may be executed.
fn ruled(script: &str, rules: Value) -> Bundle {
    let bundle = Bundle::new(script);
    bundle.edit(|config| {
        config["root"]["readonly"] = json!(false);
        config["annotations"] = json!({"dev.parhelion.landlock": rules.to_string()});
    });
    bundle
}

/// Says for each command whether it worked.
fn tries(commands: &[&str]) -> String {
    let each =
        |command: &&str| format!("if ({command}) 2>/dev/null; then echo y; else echo n; fi;");
    commands.iter().map(each).collect()
}

const FILES: &[(&str, &str)] = &[
    ("cat /etc/conf", "y"),
    ("echo > /etc/conf", "n"),
    ("busybox truncate -s 0 /etc/conf", "n"),
    ("touch /etc/new", "n"),
    ("ls /etc", "y"),
    ("ls /", "n"),
    ("cat /secret", "n"),
    (
        "echo x > /tmp/f && cat /tmp/f && mkdir /tmp/d && busybox mv /tmp/f /tmp/d",
        "y",
    ),
    ("busybox cp /bin/busybox /tmp/true && /tmp/true", "n"),
    ("true > /dev/null", "y"),
];

fn file_rules() -> Value {
    json!({"readExecute": ["/bin"], "readOnly": ["/etc"], "readWrite": ["/tmp", "/dev/null"]})
}

fn file_bundle() -> Bundle {
    let commands: Vec<&str> = FILES.iter().map(|(command, _)| *command).collect();
    let bundle = ruled(&tries(&commands), file_rules());
    let rootfs = bundle.folder.join("rootfs");
    fs::write(rootfs.join("etc/conf"), "conf\n").unwrap();
    fs::write(rootfs.join("secret"), "secret\n").unwrap();
    bundle
}

fn answers(seen: &str) -> Vec<&str> {
    seen.lines()
        .filter(|line| *line == "y" || *line == "n")
        .collect()
}

fn expect_file_rules(bundle: &Bundle) {
    let seen = bundle.run().success();
    let expected: Vec<&str> = FILES.iter().map(|(_, expected)| *expected).collect();
    assert_eq!(answers(&seen), expected, "{seen}");
}

fn files_are_read_written_and_executed_only_where_allowed() {
    expect_file_rules(&file_bundle());
}

fn rights_to_a_single_file_are_those_of_files() {
    let commands = ["echo x > /etc/conf", "cat /etc/conf", "echo > /etc/other"];
    let rules = json!({"readExecute": ["/bin/busybox", "/bin/sh"], "readWrite": ["/etc/conf", "/dev/null"],
        "readOnly": ["/bin"]});
    let bundle = ruled(&tries(&commands), rules);
    for name in ["conf", "other"] {
        fs::write(bundle.folder.join("rootfs/etc").join(name), "").unwrap();
    }
    let seen = bundle.run().success();
    assert_eq!(answers(&seen), ["y", "y", "n"], "{seen}");
}

fn rules_hold_for_a_program_without_no_new_privileges_too() {
    let bundle = file_bundle();
    bundle.edit(|config| config["process"]["noNewPrivileges"] = json!(false));
    expect_file_rules(&bundle);
}

fn rules_hold_for_an_ordinary_user_and_in_a_user_namespace() {
    let bundle = file_bundle();
    bundle.edit(|config| {
        let map = json!([{"containerID": 0, "hostID": 100_000, "size": 1000}]);
        config["linux"]["uidMappings"] = map.clone();
        config["linux"]["gidMappings"] = map;
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.push(json!({"type": "user"}));
        config["process"]["user"] = json!({"uid": 5, "gid": 5});
        let tmpfs = json!({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs",
            "options": ["mode=1777"]});
        config["mounts"].as_array_mut().unwrap().push(tmpfs);
    });
    let rootfs = bundle.folder.join("rootfs");
    std::os::unix::fs::chown(rootfs, Some(100_000), Some(100_000)).unwrap();
    expect_file_rules(&bundle);
}

fn tcp_ports_are_bound_and_connected_only_where_allowed() {
    // A server that can not bind says so at once; one that can stays, and is ended.
    let script = "busybox nc -l -p 8080 -e /bin/true & server=$!
        while kill -0 $server && ! busybox grep -q ':1F90 ' /proc/net/tcp*; do :; done
        busybox nc 127.0.0.1 8081 < /dev/null
        busybox nc 127.0.0.1 8080 < /dev/null
        wait $server && echo served
        busybox nc -l -p 8082";
    let rules = json!({"tcpBind": [8080], "tcpConnect": [8080]});
    let ran = ruled(script, rules).run();
    let told = ran.stderr();
    assert_eq!(String::from_utf8_lossy(&ran.0.stdout), "served\n", "{told}");
    let refused: Vec<&str> = told.lines().collect();
    assert_eq!(refused.len(), 2, "{told}");
    assert!(
        refused
            .iter()
            .all(|line| line.ends_with("Permission denied")),
        "{told}"
    );
    assert_eq!(ran.code(), Some(1));
}

fn processes_outside_are_out_of_reach_of_signals() {
    let mut outside = Command::new("sleep").arg("1000").spawn().unwrap();
    for (scoped, expected) in [(json!(["signal"]), "n\n"), (json!([]), "y\n")] {
        let rules = json!({"scoped": scoped, "tcpBind": []});
        let bundle = ruled(&tries(&[&format!("kill -0 {}", outside.id())]), rules);
        bundle.edit(|config| {
            let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
            namespaces.retain(|entry| entry["type"] != "pid");
        });
        assert_eq!(bundle.run().success(), expected, "{scoped}");
    }
    outside.kill().unwrap();
    outside.wait().unwrap();
}

fn hooks_inside_are_under_the_rules() {
    let bundle = ruled(
        "true",
        json!({"readExecute": ["/bin"], "readOnly": ["/tmp"]}),
    );
    bundle.edit(|config| {
        config["hooks"] = json!({"startContainer": [{"path": "/bin/sh",
            "args": ["sh", "-c", "echo > /tmp/f"]}]});
    });
    let refused = bundle.run().failure();
    assert!(
        refused.contains("hooks.startContainer[0]") && refused.contains("Permission denied"),
        "{refused}"
    );
}

fn a_path_that_is_not_there_is_told() {
    let bundle = ruled("true", json!({"readExecute": ["/bin", "/no/such"]}));
    let refused = bundle.run().failure();
    assert!(
        refused.contains(
            "annotations[\"dev.parhelion.landlock\"]: open(\"/no/such\", O_PATH): no such file"
        ),
        "{refused}"
    );
}

fn a_program_that_may_not_be_executed_is_told() {
    let bundle = ruled("true", json!({"readOnly": ["/bin"]}));
    let refused = bundle.run().failure();
    assert!(
        refused.ends_with("execve(\"/bin/sh\"): permission denied\n"),
        "{refused}"
    );
}

fn rules_without_sense_are_refused() {
    for (rules, told) in [
        (
            json!({"readonly": []}),
            "unknown field `readonly`, expected one of ",
        ),
        (
            json!({"readOnly": ["etc"]}),
            "must list absolute paths, has \"etc\"",
        ),
        (json!({}), "gives up no right"),
    ] {
        let refused = ruled("true", rules).run().failure();
        let words = format!("annotations[\"dev.parhelion.landlock\"]: {told}");
        assert!(refused.contains(&words), "{refused}");
    }
}
