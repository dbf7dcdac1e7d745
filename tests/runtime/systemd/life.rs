//! A scope from its start to its end, also when something goes wrong on the way.

use std::fs;
use std::path::Path;
use std::process::Command;

use libtest_mimic::Trial;
use serde_json::json;

use super::{cgroup, is_loaded, make, property, reload, resources, scope, sleeper, start, systemd};
use crate::support::{Bundle, needs_controllers, needs_systemd, tests, wait_until_gone};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    let mut all = tests![
        init_is_never_moved_only_a_process_of_the_runtime_is,
        delete_stops_the_unit_and_its_name_is_free_at_once,
        a_container_that_ended_by_itself_leaves_no_unit,
        a_foreground_run_leaves_no_unit,
        whoever_stops_the_unit_ends_the_container,
        a_container_in_a_scope_is_paused_and_resumed,
        a_creation_that_fails_late_leaves_no_unit,
        a_unit_of_the_same_name_is_left_alone,
        a_creation_that_is_killed_is_deleted_by_force,
        processes_of_a_killed_runtime_do_not_keep_a_scope,
        a_delete_that_finds_no_systemd_ends_the_container_and_can_be_repeated,
    ];
    all.extend(needs_controllers(
        &["memory"],
        tests![a_limit_that_can_not_be_leaves_no_unit],
    ));
    needs_systemd(all)
}

/// The kernel's own list of who was moved to another cgroup, while it is kept.
struct Moves(std::path::PathBuf);

impl Moves {
    fn record(bundle: &Bundle) -> Moves {
        let tracing = bundle.folder.join("tracing");
        fs::create_dir(&tracing).unwrap();
        nix::mount::mount(
            Some("tracefs"),
            &tracing,
            Some("tracefs"),
            nix::mount::MsFlags::empty(),
            None::<&str>,
        )
        .unwrap();
        let instance = tracing.join("instances").join(&bundle.id);
        fs::create_dir(&instance).unwrap();
        let event = instance.join("events/cgroup/cgroup_attach_task/enable");
        fs::write(event, "1").unwrap();
        Moves(instance)
    }

    /// The processes that were moved into the cgroup whose path ends so.
    fn moved_into(&self, end: &str) -> Vec<i32> {
        let trace = fs::read_to_string(self.0.join("trace")).unwrap();
        let to = format!("{end} ");
        let moved = trace.lines().filter(|line| line.contains(&to));
        moved
            .map(|line| {
                let (_, rest) = line.split_once(" pid=").unwrap();
                rest.split(' ').next().unwrap().parse().unwrap()
            })
            .collect()
    }
}

impl Drop for Moves {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
        let _ = nix::mount::umount2(
            self.0.ancestors().nth(2).unwrap(),
            nix::mount::MntFlags::MNT_DETACH,
        );
    }
}

fn init_is_never_moved_only_a_process_of_the_runtime_is() {
    let bundle = Bundle::new("sleep 1000");
    let moves = Moves::record(&bundle);
    start(&bundle);
    let moved = moves.moved_into(&scope(&bundle));
    assert_eq!(
        moved.len(),
        1,
        "one process, which systemd asks for: {moved:?}"
    );
    assert_ne!(moved[0], bundle.pid());
    assert!(
        !Path::new(&format!("/proc/{}", moved[0])).exists(),
        "it has left"
    );
}

fn delete_stops_the_unit_and_its_name_is_free_at_once() {
    let bundle = Bundle::new("sleep 1000");
    for _ in 0..3 {
        start(&bundle);
        assert_eq!(property(&scope(&bundle), "ActiveState"), "active");
        bundle
            .parhelion(&["delete", "--force", &bundle.id])
            .success();
        assert!(!is_loaded(&scope(&bundle)));
        assert!(!cgroup(&bundle).exists());
    }
}

fn a_container_that_ended_by_itself_leaves_no_unit() {
    let bundle = Bundle::new("exit 3");
    make(&bundle, "create").success();
    let pid = bundle.pid();
    bundle.verb("start").success();
    wait_until_gone(pid);
    assert_eq!(bundle.status(), "stopped");
    bundle.verb("delete").success();
    assert!(!is_loaded(&scope(&bundle)));
    assert!(!cgroup(&bundle).exists());
}

fn a_foreground_run_leaves_no_unit() {
    let bundle = Bundle::new("exit 3");
    assert_eq!(make(&bundle, "run").code(), Some(3));
    assert!(!is_loaded(&scope(&bundle)));
    assert!(!cgroup(&bundle).exists());
}

fn whoever_stops_the_unit_ends_the_container() {
    // As the first process of a pid namespace it would ignore the signal that systemd sends.
    let bundle = Bundle::new("trap 'exit 0' TERM; while :; do sleep 1000 & wait; done");
    start(&bundle);
    let pid = bundle.pid();
    systemd(&["systemctl", "stop", &scope(&bundle)]);
    wait_until_gone(pid);
    assert_eq!(bundle.status(), "stopped");
    bundle.verb("delete").success();
}

fn a_container_in_a_scope_is_paused_and_resumed() {
    let bundle = sleeper();
    bundle.verb("pause").success();
    assert_eq!(bundle.status(), "paused");
    reload();
    assert_eq!(bundle.status(), "paused");
    bundle.verb("resume").success();
    assert_eq!(bundle.status(), "running");
    assert_eq!(property(&scope(&bundle), "ActiveState"), "active");
}

fn a_creation_that_fails_late_leaves_no_unit() {
    let bundle = Bundle::new("true");
    bundle.edit(|config| config["process"]["args"] = json!(["/no/such/program"]));
    let error = make(&bundle, "run").failure();
    assert!(error.contains("/no/such/program"), "{error}");
    assert!(!is_loaded(&scope(&bundle)));
    assert!(!cgroup(&bundle).exists());
    assert!(bundle.verb("state").failure().contains("does not exist"));
}

fn a_limit_that_can_not_be_leaves_no_unit() {
    let bundle = Bundle::new("true");
    resources(&bundle, &json!({"unified": {"memory.no-such-limit": "1"}}));
    let error = make(&bundle, "create").failure();
    assert!(
        error.contains("unified[\"memory.no-such-limit\"]"),
        "{error}"
    );
    assert!(!is_loaded(&scope(&bundle)));
    assert!(!cgroup(&bundle).exists());
}

fn a_unit_of_the_same_name_is_left_alone() {
    let bundle = sleeper();
    let pid = bundle.pid();
    let state = bundle.folder.join("other");
    let arguments = [
        "--systemd-cgroup",
        "create",
        "--bundle",
        bundle.path(),
        &bundle.id,
    ];
    let second = Command::new(crate::support::program())
        .arg("--root")
        .arg(&state)
        .args(arguments)
        .output()
        .unwrap();
    let error = String::from_utf8(second.stderr).unwrap();
    assert!(!second.status.success());
    let told = format!("unit {} exists already", scope(&bundle));
    assert!(error.contains(&told), "{error}");
    assert_eq!(
        super::cgroup_of(pid),
        format!("/system.slice/{}", scope(&bundle))
    );
    assert_eq!(bundle.status(), "running");
    assert!(!state.join(&bundle.id).exists());
}

/// A hook of the runtime kills it, when the container is complete but for its program.
fn killed_creation() -> Bundle {
    let bundle = Bundle::new("sleep 1000");
    let script = "kill -9 $PPID";
    bundle.edit(|config| {
        config["hooks"] = json!({"createRuntime": [
            {"path": "/bin/sh", "args": ["sh", "-c", script]}]});
    });
    let ran = make(&bundle, "create");
    assert_eq!(ran.code(), None, "it was killed: {}", ran.stderr());
    bundle
}

fn a_creation_that_is_killed_is_deleted_by_force() {
    let bundle = killed_creation();
    bundle
        .parhelion(&["delete", "--force", &bundle.id])
        .success();
    assert!(!is_loaded(&scope(&bundle)));
    assert!(!cgroup(&bundle).exists());
    assert!(bundle.verb("state").failure().contains("does not exist"));
}

fn processes_of_a_killed_runtime_do_not_keep_a_scope() {
    let bundle = killed_creation();
    // Init ends when it hears that its runtime has died; nobody else is in the scope.
    crate::systemd::wait_until_empty(&cgroup(&bundle));
    bundle
        .parhelion(&["delete", "--force", &bundle.id])
        .success();
}

fn a_delete_that_finds_no_systemd_ends_the_container_and_can_be_repeated() {
    let bundle = sleeper();
    let pid = bundle.pid();
    let delete = ["delete", "--force", &bundle.id];
    let output = crate::caller::command(&bundle, &delete)
        .env("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nowhere")
        .output()
        .unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    assert!(
        error.contains("systemd can not be reached: connect(/nowhere): "),
        "{error}"
    );
    wait_until_gone(pid);
    assert!(!cgroup(&bundle).exists());
    assert_eq!(bundle.status(), "stopped");
    bundle.verb("delete").success();
    assert!(!is_loaded(&scope(&bundle)));
}
