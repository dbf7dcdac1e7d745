//! Bundles that are none, and files that hold no configuration.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use libtest_mimic::Trial;
use nix::sys::stat::Mode;
use serde_json::json;

use super::{nothing_was_done, refusal};
use crate::support::{Bundle, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        a_bundle_that_is_missing_or_no_directory_is_named,
        a_config_that_is_missing_or_no_file_is_named,
        a_config_that_is_a_link_is_followed,
        a_file_that_is_no_json_object_is_refused_with_the_place,
        a_config_that_is_too_large_or_too_deep_is_refused,
        a_root_that_is_missing_or_no_directory_is_named,
        problems_of_all_parts_come_at_once,
        values_that_contradict_each_other_are_refused,
    ]
}

fn config(bundle: &Bundle) -> PathBuf {
    bundle.folder.join("config.json")
}

/// Refused with this text, in which the config's path is PATH.
fn is_refused(bundle: &Bundle, expected: &str) {
    let path = format!("{:?}", config(bundle));
    assert_eq!(refusal(bundle).replace(&path, "PATH"), expected);
}

fn a_bundle_that_is_missing_or_no_directory_is_named() {
    let bundle = Bundle::new("true");
    for (place, words) in [
        (
            "nowhere",
            "does not exist: name a directory that holds config.json (--bundle)",
        ),
        (
            "config.json",
            "is not a directory: name a directory that holds config.json (--bundle)",
        ),
        ("config.json/below", "not a directory"),
    ] {
        let path = bundle.folder.join(place);
        let arguments = ["create", "--bundle", path.to_str().unwrap(), &bundle.id];
        let told = bundle.parhelion(&arguments).failure();
        assert_eq!(told.lines().count(), 1, "{told:?}");
        assert!(
            told.contains(&format!("{path:?}")) && told.contains(words),
            "{told}"
        );
        nothing_was_done(&bundle);
    }
}

fn a_config_that_is_missing_or_no_file_is_named() {
    let bundle = Bundle::new("true");
    let missing = "PATH does not exist: \"parhelion spec\" writes one to start from";
    let no_file = "PATH is not a regular file: put the configuration there";
    fs::remove_file(config(&bundle)).unwrap();
    is_refused(&bundle, missing);
    symlink("nowhere", config(&bundle)).unwrap();
    is_refused(&bundle, missing);
    fs::remove_file(config(&bundle)).unwrap();
    symlink("/dev/zero", config(&bundle)).unwrap();
    is_refused(&bundle, no_file);
    fs::remove_file(config(&bundle)).unwrap();
    // Opening it would wait for a writer.
    nix::unistd::mkfifo(&config(&bundle), Mode::S_IRWXU).unwrap();
    is_refused(&bundle, no_file);
    fs::remove_file(config(&bundle)).unwrap();
    fs::create_dir(config(&bundle)).unwrap();
    is_refused(&bundle, no_file);
}

fn a_config_that_is_a_link_is_followed() {
    let bundle = Bundle::new("exit 5");
    fs::rename(config(&bundle), bundle.folder.join("real.json")).unwrap();
    symlink("real.json", config(&bundle)).unwrap();
    assert_eq!(bundle.run().code(), Some(5));
}

fn a_file_that_is_no_json_object_is_refused_with_the_place() {
    let bundle = Bundle::new("true");
    let cases: [(&[u8], &str); 11] = [
        (
            b"",
            "PATH: line 1 column 0: EOF while parsing a value: correct the JSON there",
        ),
        (
            b"{",
            "PATH: line 1 column 1: EOF while parsing an object: correct the JSON there",
        ),
        (
            b"hello",
            "PATH: line 1 column 1: expected value: correct the JSON there",
        ),
        (
            b"{\n\"a\": 1,}",
            "PATH: line 2 column 8: trailing comma: correct the JSON there",
        ),
        (
            b"{} {}",
            "PATH: line 1 column 4: trailing characters: correct the JSON there",
        ),
        (b"null", "PATH: line 1: must be a JSON object, is null"),
        (b"[]", "PATH: line 1: must be a JSON object, is an array"),
        (b"\"{}\"", "PATH: line 1: must be a JSON object, is \"{}\""),
        (
            b"\xef\xbb\xbf{}",
            "PATH: begins with a byte order mark: save it as UTF-8 without one",
        ),
        (
            b"{\"a\": \"\xff\"}",
            "PATH: line 1 column 8: not UTF-8: save it as UTF-8",
        ),
        (
            b"{\"root\": {}, \"root\": {}}",
            "PATH: line 1 column 19: the name \"root\" is given twice: correct the JSON there",
        ),
    ];
    for (bytes, expected) in cases {
        fs::write(config(&bundle), bytes).unwrap();
        is_refused(&bundle, expected);
    }
}

fn a_config_that_is_too_large_or_too_deep_is_refused() {
    let bundle = Bundle::new("true");
    fs::write(config(&bundle), " ".repeat(9 << 20)).unwrap();
    is_refused(&bundle, "PATH is larger than 8 MiB: make it smaller");
    fs::write(config(&bundle), "{\"a\":".repeat(100_000)).unwrap();
    let expected = "PATH: line 1 column 636: nested too deeply: correct the JSON there";
    is_refused(&bundle, expected);
}

fn a_root_that_is_missing_or_no_directory_is_named() {
    for (root, words) in [
        (
            "nowhere",
            "does not exist: put the container's files there, or correct the path",
        ),
        ("rootfs/bin/busybox", "is not a directory"),
    ] {
        let bundle = Bundle::new("true");
        bundle.edit(|config| config["root"]["path"] = json!(root));
        let expected = format!("PATH: root.path: {:?} {words}", bundle.folder.join(root));
        is_refused(&bundle, &expected);
    }
}

fn problems_of_all_parts_come_at_once() {
    let bundle = Bundle::new("true");
    bundle.edit(|config| {
        config["ociVersion"] = json!("2.0.0");
        config["root"]["path"] = json!("nowhere");
        config["hostname"] = json!("h".repeat(65));
        config["process"]["cwd"] = json!("tmp");
        config["process"]["args"] = json!([]);
        config["process"]["user"]["uid"] = json!(-1);
        config["process"]["rlimits"][0]["type"] = json!("RLIMIT_FUN");
        config["mounts"][0]["destination"] = json!(7);
        config["hooks"] = json!({"poststop": [{"path": "x"}]});
        config["linux"]["namespaces"][0]["type"] = json!("net");
        config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_FUN"});
        config["linux"]["sysctl"] = json!({"kernel.panic": "1"});
    });
    let reason = refusal(&bundle);
    for path in [
        "ociVersion: ",
        "root.path: ",
        "hostname: ",
        "process.cwd: ",
        "process.args: ",
        "process.user.uid: ",
        "process.rlimits[0].type: ",
        "mounts[0].destination: ",
        "hooks.poststop[0].path: ",
        "linux.namespaces[0].type: ",
        "linux.seccomp.defaultAction: ",
        "linux.sysctl[\"kernel.panic\"]: ",
    ] {
        let count = reason.matches(path).count();
        assert_eq!(count, 1, "{path} in {reason}");
    }
    assert_eq!(reason.split("; ").count(), 12, "{reason}");
}

fn values_that_contradict_each_other_are_refused() {
    let cases = [
        (
            "/linux/timeOffsets",
            json!({"boottime": {"secs": 1}}),
            "linux.timeOffsets: needs",
        ),
        (
            "/linux/uidMappings",
            json!([{"containerID": 0, "hostID": 0, "size": 1}]),
            "linux.uidMappings: needs a user namespace",
        ),
        (
            "/linux/sysctl",
            json!({"vm.swappiness": "1"}),
            "linux.sysctl[\"vm.swappiness\"]: belongs to no namespace",
        ),
        (
            "/linux/resources/unified",
            json!({"cgroup.procs": "1"}),
            "linux.resources.unified[\"cgroup.procs\"]: is not a limit",
        ),
        (
            "/mounts/0/options",
            json!(["bind", "rw"]),
            "mounts[0].source: ",
        ),
        (
            "/process/rlimits/0",
            json!({"type": "RLIMIT_CORE", "soft": 2, "hard": 1}),
            "process.rlimits[0].soft: must be at most hard (1), is 2",
        ),
        (
            "/linux/cgroupsPath",
            json!("../../up"),
            "linux.cgroupsPath: ",
        ),
    ];
    for (pointer, value, words) in cases {
        let bundle = Bundle::new("true");
        bundle.edit(|config| {
            let (above, key) = pointer.rsplit_once('/').unwrap();
            let above = config.pointer_mut(above).unwrap();
            match key.parse::<usize>() {
                Ok(index) => above[index] = value,
                Err(_) => above[key] = value,
            }
        });
        let reason = refusal(&bundle);
        assert!(reason.contains(words), "{words} is not in {reason}");
    }
}
