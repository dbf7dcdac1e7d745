//! What a hook means that fails, hangs or can not be run.

use std::fs;

use libtest_mimic::Trial;
use serde_json::{Value, json};

use super::{add, record_all, recorder, seen, shell, sleeping};
use crate::caller::{init_pid, wait_for_exit};
use crate::support::{Bundle, HOOKS, Ran, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        a_failure_before_the_start_ends_the_creation_and_leaves_nothing,
        a_failure_at_the_start_stops_the_container,
        a_failure_after_the_start_is_a_warning_and_the_next_hook_runs,
        a_hook_that_hangs_is_killed_with_its_children_after_its_time,
        a_hook_that_hangs_inside_is_killed_with_its_children_after_its_time,
        a_hook_that_hangs_after_the_start_is_a_warning,
        a_hook_that_is_missing_is_named,
        a_relative_path_is_refused,
    ]
}

fn gone(bundle: &Bundle) -> bool {
    let answer = bundle.verb("state").failure();
    answer.contains("does not exist")
}

/// A hook that starts a child, tells its pid in the file /child of the image, and hangs.
fn hanging(bundle: &Bundle, name: &str) -> Value {
    let file = format!("{}/rootfs/child", bundle.path());
    let script = format!("sleep 1000 & echo $! >{file}; sleep 1000");
    let mut hook = shell(bundle, name, &script);
    hook["timeout"] = json!(1);
    hook
}

fn a_failure_before_the_start_ends_the_creation_and_leaves_nothing() {
    for name in &HOOKS[..3] {
        let bundle = sleeping();
        record_all(&bundle, "true");
        let failing = shell(&bundle, name, "echo the reason >&2; exit 3");
        add(
            &bundle,
            name,
            &[failing, recorder(&bundle, name, "echo next")],
        );
        for verb in ["create", "run"] {
            let ran = Ran(crate::caller::command(
                &bundle,
                &[verb, "--bundle", bundle.path(), &bundle.id],
            )
            .output()
            .unwrap());
            let error = ran.failure();
            let words = [
                format!("hooks.{name}[0] ("),
                "exit status 3: the reason".into(),
            ];
            for words in words {
                assert!(error.contains(&words), "{verb}: {words} in {error}");
            }
            assert!(gone(&bundle), "{verb} {name}");
        }
        let seen = seen(&bundle);
        assert!(
            !seen.contains("next") && !seen.contains("hook startContainer"),
            "{seen}"
        );
        // The lifecycle goes on with the deletion, which has its hooks.
        assert_eq!(seen.matches("hook poststop").count(), 2, "{seen}");
    }
}

fn a_failure_at_the_start_stops_the_container() {
    let bundle = sleeping();
    record_all(&bundle, "true");
    let failing = shell(&bundle, "startContainer", "echo the reason; exit 4");
    add(&bundle, "startContainer", &[failing]);
    bundle.create().success();
    let pid = init_pid(&bundle);
    let error = bundle.verb("start").failure();
    let words = "hooks.startContainer[0] (/bin/sh): exit status 4: the reason";
    assert!(error.contains(words), "{error}");
    wait_for_exit(pid);
    assert_eq!(bundle.status(), "stopped");
    assert!(!seen(&bundle).contains("poststart"));
    bundle.verb("delete").success();
    assert!(seen(&bundle).contains("poststop"));
    // Who runs it deletes it too.
    let error = bundle.run().failure();
    assert!(error.contains(words), "{error}");
    assert!(gone(&bundle));
}

fn a_failure_after_the_start_is_a_warning_and_the_next_hook_runs() {
    let bundle = sleeping();
    for name in ["poststart", "poststop"] {
        let failing = shell(&bundle, name, "echo the reason; exit 5");
        add(&bundle, name, &[failing, recorder(&bundle, name, "true")]);
    }
    bundle.create().success();
    let started = bundle.verb("start");
    started.success();
    let words = ["warning: hooks.poststart[0] (", "exit status 5: the reason"];
    for words in words {
        assert!(started.stderr().contains(words), "{}", started.stderr());
    }
    assert_eq!(bundle.status(), "running");
    let deleted = bundle.parhelion(&["delete", "--force", &bundle.id]);
    deleted.success();
    let words = "warning: hooks.poststop[0] (";
    assert!(deleted.stderr().contains(words), "{}", deleted.stderr());
    assert_eq!(seen(&bundle), "hook poststart\nhook poststop\n");
    assert!(gone(&bundle));
}

fn a_hook_that_hangs_is_killed_with_its_children_after_its_time() {
    for name in &HOOKS[..3] {
        let bundle = sleeping();
        add(&bundle, name, &[hanging(&bundle, name)]);
        let error = bundle.create().failure();
        let words = format!("hooks.{name}[0] (");
        assert!(error.contains(&words), "{error}");
        assert!(error.contains("not finished after 1 s, killed"), "{error}");
        let child = fs::read_to_string(bundle.folder.join("rootfs/child")).unwrap();
        // In the container's pid namespace numbers are others, and all ends with init.
        if *name != "createContainer" {
            wait_for_exit(child.trim().parse().unwrap());
        }
        assert!(gone(&bundle));
    }
}

fn a_hook_that_hangs_inside_is_killed_with_its_children_after_its_time() {
    let bundle = sleeping();
    let mut hook = shell(&bundle, "startContainer", "sleep 1001 & sleep 1001");
    hook["timeout"] = json!(1);
    add(&bundle, "startContainer", &[hook]);
    // In the host's pid namespace, where the end of init is not the end of everything.
    bundle.edit(|config| {
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != "pid");
    });
    bundle.create().success();
    let error = bundle.verb("start").failure();
    assert!(error.contains("hooks.startContainer[0] ("), "{error}");
    assert!(error.contains("not finished after 1 s, killed"), "{error}");
    let ps = bundle.parhelion(&["ps", "--format", "json", &bundle.id]);
    for pid in serde_json::from_str::<Vec<i32>>(&ps.success()).unwrap() {
        wait_for_exit(pid);
    }
    bundle.verb("delete").success();
}

fn a_hook_that_hangs_after_the_start_is_a_warning() {
    let bundle = sleeping();
    for name in ["poststart", "poststop"] {
        add(&bundle, name, &[hanging(&bundle, name)]);
    }
    bundle.create().success();
    let warned = |ran: &Ran| {
        ran.success();
        let words = "not finished after 1 s, killed";
        assert!(ran.stderr().contains(words), "{}", ran.stderr());
        let child = fs::read_to_string(bundle.folder.join("rootfs/child")).unwrap();
        wait_for_exit(child.trim().parse().unwrap());
    };
    warned(&bundle.verb("start"));
    assert_eq!(bundle.status(), "running");
    warned(&bundle.parhelion(&["delete", "--force", &bundle.id]));
    assert!(gone(&bundle));
}

fn a_hook_that_is_missing_is_named() {
    for name in &HOOKS[..3] {
        let bundle = sleeping();
        add(&bundle, name, &[json!({"path": "/no/such/hook"})]);
        let error = bundle.create().failure();
        for words in [
            &format!("hooks.{name}[0] ("),
            "/no/such/hook",
            "no such file",
        ] {
            assert!(error.contains(words), "{words} in {error}");
        }
        assert!(gone(&bundle));
    }
}

fn a_relative_path_is_refused() {
    let bundle = sleeping();
    for name in HOOKS {
        add(&bundle, name, &[json!({"path": "bin/sh"})]);
    }
    let error = bundle.create().failure();
    for name in HOOKS {
        let words = format!("hooks.{name}[0].path: must be an absolute path, is \"bin/sh\"");
        assert!(error.contains(&words), "{words} in {error}");
    }
}
