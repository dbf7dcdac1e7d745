//! The runtime against the real kernel, as root, in a private mount namespace with a cgroup2 mount.

mod support;

use libtest_mimic::{Arguments, Trial};
use serde_json::json;
use support::Bundle;

fn main() {
    enter_private_namespace();
    let arguments = Arguments::from_args();
    let tests: &[(&str, fn())] = &[
        (
            "run_ends_with_the_code_of_the_program",
            run_ends_with_the_code_of_the_program,
        ),
        (
            "run_answers_128_and_the_signal",
            run_answers_128_and_the_signal,
        ),
        (
            "a_container_goes_through_its_life",
            a_container_goes_through_its_life,
        ),
        (
            "the_program_sees_its_own_namespaces",
            the_program_sees_its_own_namespaces,
        ),
        (
            "an_unknown_program_names_the_path_tried",
            an_unknown_program_names_the_path_tried,
        ),
        (
            "a_mount_that_fails_says_which_and_leaves_nothing",
            a_mount_that_fails_says_which_and_leaves_nothing,
        ),
        (
            "pause_freezes_and_resume_thaws",
            pause_freezes_and_resume_thaws,
        ),
        (
            "init_is_a_sealed_copy_while_created",
            init_is_a_sealed_copy_while_created,
        ),
        ("a_user_namespace_maps_ids", a_user_namespace_maps_ids),
        (
            "capabilities_are_the_ones_asked_for",
            capabilities_are_the_ones_asked_for,
        ),
    ];
    let trials = tests.iter().map(|&(name, test)| {
        Trial::test(name, move || {
            test();
            Ok(())
        })
    });
    libtest_mimic::run(&arguments, trials.collect()).exit();
}

/// Where a hybrid host has its v1 hierarchies, these tests see a pure v2 tree: in a mount namespace
/// of their own, so that the host's is not touched.
fn enter_private_namespace() {
    use nix::mount::{MntFlags, MsFlags, mount, umount2};
    use nix::sched::{CloneFlags, unshare};
    assert!(
        nix::unistd::geteuid().is_root(),
        "these tests need root: sudo make test"
    );
    unshare(CloneFlags::CLONE_NEWNS).expect("unshare");
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("private");
    if std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        return;
    }
    // Only what lies below is hidden; the first call that finds nothing more to take away ends it.
    while umount2("/sys/fs/cgroup", MntFlags::MNT_DETACH).is_ok() {}
    mount(
        Some("none"),
        "/sys/fs/cgroup",
        Some("cgroup2"),
        MsFlags::empty(),
        none,
    )
    .expect("cgroup2");
}

fn run_ends_with_the_code_of_the_program() {
    assert_eq!(Bundle::new("exit 7").run().code(), Some(7));
}

fn run_answers_128_and_the_signal() {
    // The first process of a pid namespace is spared by its own signals: a host pid namespace.
    let bundle = Bundle::new("kill -USR1 $$; sleep 5");
    bundle.edit(|config| {
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != "pid");
    });
    assert_eq!(bundle.run().code(), Some(128 + 10));
}

fn a_container_goes_through_its_life() {
    let bundle = Bundle::new("sleep 100");
    bundle.create().success();
    assert_eq!(bundle.status(), "created");
    bundle.verb("start").success();
    assert_eq!(bundle.status(), "running");
    let refused = bundle.verb("delete").failure();
    assert!(
        refused.contains("that is not stopped: running"),
        "{refused}"
    );
    assert!(bundle.create().failure().contains("already exists"));
    bundle
        .parhelion(&["delete", "--force", &bundle.id])
        .success();
    assert!(bundle.verb("state").failure().contains("does not exist"));
}

fn the_program_sees_its_own_namespaces() {
    let bundle = Bundle::new(
        "hostname; echo pid $$; cat /proc/self/cgroup | grep ^0; ip addr show lo; ls /",
    );
    bundle.edit(|config| config["hostname"] = json!("inside"));
    let seen = bundle.run().success();
    for expected in ["inside", "pid 1", "127.0.0.1", "0::/\n"] {
        assert!(seen.contains(expected), "{expected:?} is not in {seen}");
    }
}

fn an_unknown_program_names_the_path_tried() {
    let bundle = Bundle::new("");
    bundle.edit(|config| config["process"]["args"] = json!(["no-such-program"]));
    let error = bundle.create().failure();
    assert!(
        error.contains("executable file not found in $PATH (/"),
        "{error}"
    );
}

fn a_mount_that_fails_says_which_and_leaves_nothing() {
    let bundle = Bundle::new("true");
    bundle.edit(|config| {
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.push(json!({"destination": "/bad", "type": "tmpfs", "options": ["size=1q"]}));
    });
    let error = bundle.create().failure();
    let total = "mount 8 of 8 (mounts[7], to \"/bad\")";
    assert!(
        error.contains(total) && error.contains("size") && error.contains("1q"),
        "{error}"
    );
    assert!(bundle.verb("state").failure().contains("does not exist"));
    let cgroup = format!("/sys/fs/cgroup/parhelion/{}", bundle.id);
    assert!(!std::path::Path::new(&cgroup).exists());
}

fn pause_freezes_and_resume_thaws() {
    let bundle = Bundle::new("sleep 100");
    bundle.create().success();
    bundle.verb("start").success();
    bundle.verb("pause").success();
    assert_eq!(bundle.status(), "paused");
    bundle.verb("resume").success();
    assert_eq!(bundle.status(), "running");
}

fn init_is_a_sealed_copy_while_created() {
    let bundle = Bundle::new("sleep 100");
    bundle.create().success();
    let state: serde_json::Value = serde_json::from_str(&bundle.verb("state").success()).unwrap();
    let exe = std::fs::read_link(format!("/proc/{}/exe", state["pid"])).unwrap();
    assert!(
        exe.to_string_lossy().starts_with("/memfd:parhelion-init"),
        "{exe:?}"
    );
}

fn a_user_namespace_maps_ids() {
    let bundle = Bundle::new("id -u; cat /proc/self/uid_map; stat -c %u /proc/self/status");
    bundle.edit(|config| {
        let linux = &mut config["linux"];
        linux["namespaces"]
            .as_array_mut()
            .unwrap()
            .push(json!({"type": "user"}));
        let map = json!([{"containerID": 0, "hostID": 100_000, "size": 10},
            {"containerID": 10, "hostID": 200_000, "size": 5}]);
        linux["uidMappings"] = map.clone();
        linux["gidMappings"] = map;
    });
    std::os::unix::fs::chown(bundle.folder.join("rootfs"), Some(100_000), Some(100_000)).unwrap();
    let seen = bundle.run().success();
    let words: Vec<&str> = seen.split_whitespace().collect();
    assert_eq!(words, ["0", "0", "100000", "10", "10", "200000", "5", "0"]);
}

fn capabilities_are_the_ones_asked_for() {
    let bundle = Bundle::new("cat /proc/self/status");
    bundle.edit(|config| {
        let sets = [
            "bounding",
            "effective",
            "permitted",
            "inheritable",
            "ambient",
        ];
        let capabilities = &mut config["process"]["capabilities"];
        *capabilities = json!({});
        for set in sets {
            capabilities[set] = json!(["CAP_KILL"]);
        }
        config["process"]["noNewPrivileges"] = json!(true);
    });
    let seen = bundle.run().success();
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert!(
            seen.contains(&format!("{set}:\t0000000000000020")),
            "{set} in {seen}"
        );
    }
    assert!(seen.contains("NoNewPrivs:\t1"));
}
