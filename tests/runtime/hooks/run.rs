//! When hooks run, in which namespaces, and what they are given.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use libtest_mimic::Trial;
use serde_json::{Value, json};

use super::{add, live_and_die, record_all, recorder, seen, seen_by_each, shell, sleeping};
use crate::caller::{init_pid, start};
use crate::support::{HOOKS, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        all_six_run_in_the_order_of_the_specification,
        each_runs_in_the_namespaces_it_is_meant_for,
        each_gets_the_state_of_its_moment_on_stdin,
        each_gets_exactly_its_own_environment_and_arguments,
        the_working_directory_is_the_bundle_outside_and_the_programs_inside,
        a_hook_that_starts_the_container_has_the_programs_privileges,
        a_hook_that_creates_the_container_has_the_callers_privileges,
        a_hook_may_ignore_its_stdin_and_print_much,
    ]
}

fn all_six_run_in_the_order_of_the_specification() {
    let bundle = sleeping();
    for name in HOOKS {
        let two = ["first", "second"].map(|which| {
            let script = format!("echo {which}");
            recorder(&bundle, name, &script)
        });
        add(&bundle, name, &two);
    }
    bundle.create().success();
    let twice = |names: &[&str]| -> Vec<(String, String)> {
        let of = |name: &&str| ["first\n", "second\n"].map(|w| ((*name).into(), w.into()));
        names.iter().flat_map(of).collect()
    };
    assert_eq!(seen_by_each(&bundle), twice(&HOOKS[..3]), "after create");
    bundle.verb("start").success();
    assert_eq!(seen_by_each(&bundle), twice(&HOOKS[..5]), "after start");
    let force = ["delete", "--force", &bundle.id];
    bundle.parhelion(&force).success();
    assert_eq!(seen_by_each(&bundle), twice(&HOOKS), "after delete");
}

fn each_runs_in_the_namespaces_it_is_meant_for() {
    let namespaces = ["mnt", "pid", "uts", "ipc", "net", "cgroup"];
    let links = |folder: &Path| -> String {
        let link = |name: &&str| fs::read_link(folder.join(name)).unwrap();
        let links = namespaces.iter().map(link);
        links.map(|link| format!("{}\n", link.display())).collect()
    };
    let script = "for n in mnt pid uts ipc net cgroup; do busybox readlink /proc/self/ns/$n; done";
    let bundle = sleeping();
    let outside = format!("PATH={}/rootfs/bin; {script}", bundle.path());
    record_all(&bundle, &outside);
    add(
        &bundle,
        "startContainer",
        &[recorder(&bundle, "startContainer", script)],
    );
    start(&bundle);
    let inside = links(Path::new(&format!("/proc/{}/ns", init_pid(&bundle))));
    let force = ["delete", "--force", &bundle.id];
    bundle.parhelion(&force).success();
    let ours = links(Path::new("/proc/self/ns"));
    assert_ne!(ours, inside);
    for (name, seen) in seen_by_each(&bundle) {
        let expected = match name.as_str() {
            "createContainer" | "startContainer" => &inside,
            _ => &ours,
        };
        assert_eq!(&seen, expected, "{name}");
    }
}

fn each_gets_the_state_of_its_moment_on_stdin() {
    let bundle = sleeping();
    record_all(&bundle, "cat; echo");
    bundle.edit(|config| config["annotations"] = json!({"com.example": "a \"b\""}));
    start(&bundle);
    let pid = init_pid(&bundle);
    let force = ["delete", "--force", &bundle.id];
    bundle.parhelion(&force).success();
    let expected = [
        ("prestart", "creating", Some(pid)),
        ("createRuntime", "creating", Some(pid)),
        ("createContainer", "creating", Some(1)),
        ("startContainer", "created", Some(1)),
        ("poststart", "running", Some(pid)),
        ("poststop", "stopped", None),
    ];
    for ((name, text), (expected_name, status, pid)) in seen_by_each(&bundle).iter().zip(expected) {
        let state: Value = serde_json::from_str(text).unwrap();
        let mut wanted = json!({
            "ociVersion": state["ociVersion"], "id": bundle.id, "status": status,
            "bundle": bundle.path(), "annotations": {"com.example": "a \"b\""},
        });
        if let Some(pid) = pid {
            wanted["pid"] = json!(pid);
        }
        assert_eq!((name.as_str(), &state), (expected_name, &wanted));
        assert!(state["ociVersion"].is_string());
    }
    assert_eq!(seen_by_each(&bundle).len(), 6);
}

fn each_gets_exactly_its_own_environment_and_arguments() {
    let bundle = sleeping();
    let script = "busybox tr '\\0' '\\n' </proc/self/environ; echo $0 $1 $2";
    for name in HOOKS {
        let mut hook = recorder(&bundle, name, script);
        let path = format!("PATH=/bin:{}/rootfs/bin", bundle.path());
        hook["env"] = json!(["ODD=a=b c", path, "EMPTY="]);
        hook["args"]
            .as_array_mut()
            .unwrap()
            .extend([json!("x"), json!("y z")]);
        add(&bundle, name, &[hook]);
    }
    live_and_die(&bundle);
    let each = seen_by_each(&bundle);
    assert_eq!(each.len(), 6);
    for (name, text) in each {
        let mut lines: Vec<&str> = text.lines().collect();
        let arguments = lines.pop().unwrap();
        assert_eq!(arguments, format!("{name} x y z"));
        lines.sort_unstable();
        let path = format!("PATH=/bin:{}/rootfs/bin", bundle.path());
        assert_eq!(lines, ["EMPTY=", "ODD=a=b c", &path], "{name}");
    }
}

fn the_working_directory_is_the_bundle_outside_and_the_programs_inside() {
    let bundle = sleeping();
    record_all(&bundle, "pwd");
    bundle.edit(|config| config["process"]["cwd"] = json!("/srv"));
    live_and_die(&bundle);
    let each = seen_by_each(&bundle);
    assert_eq!(each.len(), 6);
    for (name, cwd) in each {
        // As runc has it: startContainer runs where the program will.
        let expected = if name == "startContainer" {
            "/srv"
        } else {
            bundle.path()
        };
        assert_eq!(cwd.trim_end(), expected, "{name}");
    }
}

fn a_hook_that_starts_the_container_has_the_programs_privileges() {
    let bundle = sleeping();
    let script = "busybox id -u; busybox grep -E 'Cap(Bnd|Amb)|NoNew' /proc/self/status";
    add(
        &bundle,
        "startContainer",
        &[recorder(&bundle, "startContainer", script)],
    );
    let file = bundle.folder.join("rootfs/seen");
    fs::write(&file, "").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
    bundle.edit(|config| {
        config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
        config["process"]["capabilities"] = json!({"bounding": ["CAP_KILL"]});
        config["process"]["noNewPrivileges"] = json!(true);
    });
    live_and_die(&bundle);
    let expected = "hook startContainer\n1000\nCapBnd:\t0000000000000020\n\
        CapAmb:\t0000000000000000\nNoNewPrivs:\t1\n";
    assert_eq!(seen(&bundle), expected);
}

fn a_hook_that_creates_the_container_has_the_callers_privileges() {
    let bundle = sleeping();
    let script = "grep -E 'Cap(Bnd|Eff)' /proc/self/status";
    let hook = recorder(&bundle, "createContainer", script);
    add(&bundle, "createContainer", &[hook]);
    bundle.edit(|config| {
        config["process"]["capabilities"] = json!({"bounding": ["CAP_KILL"]});
    });
    live_and_die(&bundle);
    let status = fs::read_to_string("/proc/thread-self/status").unwrap();
    let own = |set: &str| status.lines().find(|line| line.starts_with(set)).unwrap();
    let (effective, bounding) = (own("CapEff"), own("CapBnd"));
    let expected = format!("hook createContainer\n{effective}\n{bounding}\n");
    assert_eq!(seen(&bundle), expected);
}

fn a_hook_may_ignore_its_stdin_and_print_much() {
    let bundle = sleeping();
    for name in HOOKS {
        let script = "i=0; while [ $i -lt 3000 ]; do echo 'a line of forty characters, as it were'; \
            i=$((i+1)); done; exec <&-";
        add(&bundle, name, &[shell(&bundle, name, script)]);
    }
    live_and_die(&bundle);
}
