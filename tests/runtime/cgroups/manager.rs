//! `--cgroup-manager`: who makes the container's cgroup, and what there is without one.

use libtest_mimic::Trial;
use serde_json::{Value, json};

use super::{HOST, mount_cgroup, share_pids};
use crate::caller::{Running, command, init_pid, wait_for_exit};
use crate::support::{Bundle, Ran, has_systemd, needs_systemd, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    let mut all = tests![
        cgroupfs_is_what_there_is_by_default,
        disabled_leaves_the_container_where_it_is_created,
        disabled_is_remembered_by_the_other_verbs,
        disabled_ends_what_is_in_the_pid_namespace_and_nothing_else,
        disabled_refuses_each_limit_by_its_path,
        disabled_tells_of_what_is_about_a_cgroup,
        a_manager_that_is_none_or_contradicts_is_refused,
        a_restore_needs_a_cgroup,
    ];
    all.extend(needs_systemd(tests![systemd_is_the_same_as_its_own_flag]));
    all
}

/// A container's cgroup from the host's root on, by the name of its first process in /proc.
fn cgroup_of(process: &str) -> String {
    let text = std::fs::read_to_string(format!("/proc/{process}/cgroup")).unwrap();
    let path = text.lines().find_map(|line| line.strip_prefix("0::"));
    path.unwrap().to_owned()
}

/// A bundle for a container without a cgroup: every device is allowed.
fn free(script: &str) -> Bundle {
    let bundle = Bundle::new(script);
    let devices = json!([{"allow": true, "access": "rwm"}]);
    bundle.edit(|config| config["linux"]["resources"] = json!({"devices": devices}));
    bundle
}

/// Runs the verb that makes the container, in the background.
fn make(bundle: &Bundle, manager: &str) -> Running {
    let run = ["--cgroup-manager", manager, "run", "--bundle"];
    let arguments = [&run[..], &[bundle.path(), &bundle.id]].concat();
    Running::spawn(
        &mut command(bundle, &arguments),
        std::process::Stdio::null(),
    )
}

fn run_without(bundle: &Bundle) -> Ran {
    let run = ["--cgroup-manager=disabled", "run", "--bundle"];
    bundle.parhelion(&[&run[..], &[bundle.path(), &bundle.id]].concat())
}

fn record(bundle: &Bundle) -> Value {
    let path = bundle.folder.join("state").join(&bundle.id);
    serde_json::from_slice(&std::fs::read(path.join("state.json")).unwrap()).unwrap()
}

fn cgroupfs_is_what_there_is_by_default() {
    let bundle = Bundle::new("echo ready; sleep 1000");
    let running = make(&bundle, "cgroupfs");
    assert_eq!(running.line(), "ready");
    let place = cgroup_of(&init_pid(&bundle).to_string());
    assert_eq!(place, format!("/parhelion/{}", bundle.id));
}

fn systemd_is_the_same_as_its_own_flag() {
    assert!(has_systemd());
    for flags in [
        &["--cgroup-manager=systemd"][..],
        &["--systemd-cgroup", "--cgroup-manager", "systemd"],
    ] {
        let bundle = Bundle::new("cat /proc/self/cgroup");
        // The path from the host's root on.
        bundle.edit(|config| {
            let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
            namespaces.retain(|namespace| namespace["type"] != "cgroup");
        });
        let run = ["run", "--bundle", bundle.path(), &bundle.id];
        let place = bundle.parhelion(&[flags, &run].concat()).success();
        let scope = format!("0::/system.slice/parhelion-{}.scope\n", bundle.id);
        assert_eq!(place, scope);
    }
}

fn disabled_leaves_the_container_where_it_is_created() {
    let bundle = free("echo ready; sleep 1000");
    let running = make(&bundle, "disabled");
    assert_eq!(running.line(), "ready");
    let pid = init_pid(&bundle).to_string();
    assert_eq!(cgroup_of(&pid), cgroup_of("self"));
    let made = std::path::Path::new(HOST)
        .join("parhelion")
        .join(&bundle.id);
    assert!(!made.exists());
    assert_eq!(record(&bundle)["facts"]["cgroup"], Value::Null);
}

fn disabled_is_remembered_by_the_other_verbs() {
    let bundle = free("echo ready; sleep 1000");
    let running = make(&bundle, "disabled");
    assert_eq!(running.line(), "ready");
    let pid_file = bundle.folder.join("pid");
    let exec = ["exec", "--detach", "--pid-file", pid_file.to_str().unwrap()];
    let arguments = [&exec[..], &[&bundle.id, "sleep", "1000"]].concat();
    let joining = command(&bundle, &arguments)
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .status();
    assert!(joining.unwrap().success());
    let joined = std::fs::read_to_string(pid_file).unwrap();
    assert_eq!(cgroup_of(&joined), cgroup_of("self"));
    let ps = bundle.parhelion(&["ps", "--format", "json", &bundle.id]);
    let pids: Vec<i32> = serde_json::from_str(&ps.success()).unwrap();
    assert!(pids.contains(&joined.parse().unwrap()), "{pids:?}");
    assert!(!pids.contains(&std::process::id().cast_signed()));
    for arguments in [
        &["pause", &bundle.id][..],
        &["events", "--stats", &bundle.id],
        &["events", &bundle.id],
        &["update", "--pids-limit", "7", &bundle.id],
        &["exec", "--cgroup", "/sub", &bundle.id, "true"],
    ] {
        let error = bundle.parhelion(arguments).failure();
        let expected = "the container has no cgroup of its own, by --cgroup-manager disabled";
        assert!(error.contains(expected), "{arguments:?}: {error}");
    }
    assert_eq!(bundle.status(), "running");
}

fn disabled_ends_what_is_in_the_pid_namespace_and_nothing_else() {
    for arguments in [&["kill", "--all"][..], &["delete", "--force"]] {
        let bundle = free("(trap '' HUP; sleep 1000) & echo ready; sleep 1000");
        let mut running = make(&bundle, "disabled");
        assert_eq!(running.line(), "ready");
        let ps = bundle.parhelion(&["ps", "--format", "json", &bundle.id]);
        let pids: Vec<i32> = serde_json::from_str(&ps.success()).unwrap();
        assert!(pids.len() >= 2, "{pids:?}");
        let signal: &[&str] = if arguments[0] == "kill" {
            &["KILL"]
        } else {
            &[]
        };
        let all = [arguments, &[&bundle.id], signal].concat();
        bundle.parhelion(&all).success();
        pids.into_iter().for_each(wait_for_exit);
        // Its caller, which is in the same cgroup, has heard of it.
        running.ends_with(128 + 9);
    }
    // Without a pid namespace nothing tells its processes from others, which is told.
    let bundle = free("echo ready; sleep 1000");
    share_pids(&bundle);
    let mut running = make(&bundle, "disabled");
    assert_eq!(running.line(), "ready");
    let error = bundle.parhelion(&["kill", "--all", &bundle.id]).failure();
    assert!(error.contains("shares its pid namespace"), "{error}");
    bundle.parhelion(&["kill", &bundle.id, "KILL"]).success();
    let (_, _, told) = running.end();
    assert!(
        told.contains("without a cgroup and a new pid namespace"),
        "{told}"
    );
}

fn disabled_refuses_each_limit_by_its_path() {
    let rows = [(
        json!({"unified": {"cgroup.max.depth": "3"}}),
        "unified[\"cgroup.max.depth\"]",
    )];
    for (resources, field) in rows {
        let bundle = free("true");
        bundle.edit(|config| {
            let all = config["linux"]["resources"].as_object_mut().unwrap();
            all.extend(resources.as_object().unwrap().clone());
        });
        let error = run_without(&bundle).failure();
        let expected =
            format!("linux.resources.{field}: needs a cgroup, and --cgroup-manager disabled");
        assert!(error.contains(&expected), "{error}");
        assert!(!bundle.folder.join("state").join(&bundle.id).exists());
    }
    // What asks for no limit is fine.
    let bundle = free("true");
    bundle.edit(|config| config["linux"]["resources"]["memory"] = json!({"limit": -1}));
    run_without(&bundle).success();
}

fn disabled_tells_of_what_is_about_a_cgroup() {
    let bundle = free("true");
    let place = format!("/{}", bundle.id);
    bundle.edit(|config| config["linux"]["cgroupsPath"] = json!(place));
    let ran = run_without(&bundle);
    ran.success();
    let told = ran.stderr();
    assert!(told.contains("linux.cgroupsPath: has no effect"), "{told}");
    assert!(!std::path::Path::new(HOST).join(&bundle.id).exists());
    assert!(!told.contains("mounts["), "{told}");
    // What it would let the container do, it tells too.
    mount_cgroup(&bundle, "rw");
    let ran = run_without(&bundle);
    ran.success();
    let told = ran.stderr();
    assert!(
        told.contains("]: is not \"ro\": with --cgroup-manager disabled"),
        "{told}"
    );
}

fn a_manager_that_is_none_or_contradicts_is_refused() {
    let bundle = Bundle::new("true");
    let error = bundle
        .parhelion(&["--cgroup-manager", "launchd", "list"])
        .failure();
    assert!(error.contains("launchd"), "{error}");
    for manager in ["cgroupfs", "disabled"] {
        let flags = ["--systemd-cgroup", "--cgroup-manager", manager, "list"];
        let error = bundle.parhelion(&flags).failure();
        assert!(error.contains("exclude each other"), "{error}");
    }
}

fn a_restore_needs_a_cgroup() {
    let bundle = Bundle::new("true");
    let restore = ["--cgroup-manager=disabled", "restore", "--bundle"];
    let arguments = [&restore[..], &[bundle.path(), &bundle.id]].concat();
    let error = bundle.parhelion(&arguments).failure();
    assert!(
        error.contains("--cgroup-manager disabled: criu needs a cgroup"),
        "{error}"
    );
}
