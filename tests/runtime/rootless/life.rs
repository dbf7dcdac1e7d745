//! From `spec --rootless` to `delete`, and what is refused on the way.

use std::fs;

use libtest_mimic::Trial;
use serde_json::{Value, json};

use super::{Rootless, user};
use crate::support::{Bundle, tests, wait_until_gone};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        the_default_bundle_of_a_user_runs,
        a_user_handles_its_container_with_every_verb,
        a_process_that_joins_is_in_the_namespaces_of_the_container,
        limits_of_a_process_hold_inside,
        a_terminal_is_made,
        without_a_cgroup_what_needs_one_says_so,
        all_processes_are_known_by_their_pid_namespace,
        in_a_shared_pid_namespace_without_a_cgroup_only_the_first_is_known,
        a_container_that_waits_for_its_start_can_not_be_looked_into,
        without_a_user_namespace_a_user_is_told_to_add_one,
        without_a_runtime_directory_a_user_is_told_to_say_one,
        a_user_does_not_see_the_containers_of_root,
        root_handles_the_container_of_a_user,
        containers_of_a_user_share_namespaces,
        a_program_tells_that_it_is_ready,
    ]
}

fn the_default_bundle_of_a_user_runs() {
    let rootless = Rootless::new(
        "id -u; id -g; cat /proc/self/uid_map /proc/self/gid_map /proc/self/setgroups; hostname; \
         echo $$; busybox grep ^CapBnd /proc/self/status",
    );
    let seen = rootless.run().success();
    let words: Vec<&str> = seen.split_whitespace().collect();
    let user = user();
    let expected = format!("0 0 0 {user} 1 0 {user} 1 deny parhelion 1 CapBnd: 0000000020000420");
    assert_eq!(words.join(" "), expected);
    rootless.nothing_is_left();
}

fn a_user_handles_its_container_with_every_verb() {
    let rootless = Rootless::new("sleep 1000");
    rootless.start();
    let pid = rootless.pid();
    assert_eq!(rootless.status(), "running");
    let table = rootless.parhelion(&["list"]).success();
    assert!(table.contains(rootless.id()), "{table}");
    let pids: Vec<i32> = serde_json::from_str(
        &rootless
            .parhelion(&["ps", "--format", "json", rootless.id()])
            .success(),
    )
    .unwrap();
    assert_eq!(pids, [pid]);
    let delete = rootless.verb("delete").failure();
    assert!(delete.contains("that is not stopped: running"), "{delete}");
    rootless
        .parhelion(&["kill", rootless.id(), "KILL"])
        .success();
    wait_until_gone(pid);
    assert_eq!(rootless.status(), "stopped");
    rootless.verb("delete").success();
    rootless.nothing_is_left();
    let gone = rootless.verb("state").failure();
    assert!(gone.contains("does not exist"), "{gone}");
}

fn a_process_that_joins_is_in_the_namespaces_of_the_container() {
    let rootless = Rootless::new("sleep 1000");
    rootless.start();
    let links =
        "for kind in cgroup ipc mnt pid user uts; do busybox readlink /proc/self/ns/$kind; done";
    let inside = rootless.exec(links).success();
    for (kind, link) in ["cgroup", "ipc", "mnt", "pid", "user", "uts"]
        .iter()
        .zip(inside.lines())
    {
        let of_init = fs::read_link(format!("/proc/{}/ns/{kind}", rootless.pid())).unwrap();
        assert_eq!(of_init.to_str(), Some(link));
    }
    assert_eq!(inside.lines().count(), 6);
    let seen = rootless.exec("id -u; cat /proc/self/setgroups; exit 3");
    assert_eq!(
        (
            seen.code(),
            String::from_utf8_lossy(&seen.0.stdout).as_ref()
        ),
        (Some(3), "0\ndeny\n")
    );
    rootless
        .parhelion(&["delete", "--force", rootless.id()])
        .success();
    rootless.nothing_is_left();
}

fn limits_of_a_process_hold_inside() {
    let script = "cat /proc/self/oom_score_adj; ulimit -n; \
        read -r line < /proc/self/stat; set -- $line; echo ${19}";
    let rootless = Rootless::new(&format!("{script}; read -r _ < /tmp/go"));
    rootless.edit(|config| {
        config["process"]["oomScoreAdj"] = json!(500);
        config["process"]["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 77, "hard": 99}]);
        config["process"]["scheduler"] = json!({"policy": "SCHED_OTHER", "nice": 19});
    });
    let fifo = rootless.bundle.folder.join("rootfs/tmp/go");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::from(0o666)).unwrap();
    rootless.start();
    assert_eq!(rootless.exec(script).success(), "500\n77\n19\n");
    let pid = rootless.pid();
    fs::write(&fifo, "\n").unwrap();
    wait_until_gone(pid);
    rootless.edit(|config| config["process"]["oomScoreAdj"] = json!(-500));
    rootless.verb("delete").success();
    let error = rootless.make("create").failure();
    assert!(
        error.contains("process.oomScoreAdj -500: write("),
        "{error}"
    );
    rootless.nothing_is_left();
}

fn a_terminal_is_made() {
    let rootless = Rootless::new("busybox tty; stat -c %u /dev/pts/0; exit 7");
    rootless.edit(|config| config["process"]["terminal"] = json!(true));
    let run = ["run", "--bundle", rootless.bundle.path(), rootless.id()].join(" ");
    let program = crate::support::program();
    let run = format!("{} {run}", program.display());
    // script(1) gives it a terminal, and its exit code is that of the command.
    let seen = rootless.run_command(&["script", "-qec", &run, "/dev/null"]);
    assert_eq!(seen.code(), Some(7), "{}", seen.stderr());
    // In between, script(1) may show that its own input has ended.
    let out = String::from_utf8_lossy(&seen.0.stdout).replace(['\r', '^', '@'], "");
    assert_eq!(out, "/dev/pts/0\n0\n");
}

fn without_a_cgroup_what_needs_one_says_so() {
    let rootless = Rootless::new("sleep 1000");
    rootless.start();
    for arguments in [
        &["pause", rootless.id()][..],
        &["update", "--pids-limit", "7", rootless.id()],
        &["events", "--stats", rootless.id()],
        &["exec", "--cgroup", "/sub", rootless.id(), "true"],
    ] {
        let error = rootless.parhelion(arguments).failure();
        let expected = "the container has no cgroup of its own, by --cgroup-manager disabled or as its user may \
            make none where it was created";
        assert!(error.contains(expected), "{arguments:?}: {error}");
    }
    assert_eq!(rootless.status(), "running");
}

fn all_processes_are_known_by_their_pid_namespace() {
    let rootless = Rootless::new("trap : TERM; sleep 1000; sleep 1000");
    rootless.start();
    let exec = ["exec", "--detach", rootless.id(), "sleep", "1000"];
    rootless.parhelion(&exec).success();
    let pids = || -> Vec<i32> {
        let ps = rootless.parhelion(&["ps", "--format", "json", rootless.id()]);
        serde_json::from_str(&ps.success()).unwrap()
    };
    let before = pids();
    assert_eq!(before.len(), 3, "{before:?}");
    let init = rootless.pid();
    let kill = |signal| {
        let kill = ["kill", "--all", rootless.id(), signal];
        rootless.parhelion(&kill).success();
    };
    kill("TERM");
    let others = before.iter().filter(|&&pid| pid != init);
    others.for_each(|&pid| wait_until_gone(pid));
    let after = pids();
    assert!(after.contains(&init), "it does not hear TERM");
    kill("KILL");
    after.into_iter().for_each(wait_until_gone);
    assert!(pids().is_empty());
    kill("KILL");
    rootless.verb("delete").success();
    rootless.nothing_is_left();
}

fn in_a_shared_pid_namespace_without_a_cgroup_only_the_first_is_known() {
    let rootless = Rootless::new("sleep 1000");
    rootless.edit(|config| {
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != "pid");
        config["mounts"][0] = json!({"destination": "/proc", "type": "bind", "source": "/proc", "options": ["rbind"]});
    });
    let create = rootless.make("create");
    let expected =
        "linux.namespaces: without a cgroup and a new pid namespace, processes that outlive";
    assert!(create.stderr().contains(expected), "{}", create.stderr());
    create.success();
    rootless.verb("start").success();
    for arguments in [
        &["ps", rootless.id()][..],
        &["kill", "--all", rootless.id(), "TERM"],
    ] {
        let error = rootless.parhelion(arguments).failure();
        assert!(error.contains("and it shares its pid namespace"), "{error}");
    }
    let pid = rootless.pid();
    rootless
        .parhelion(&["delete", "--force", rootless.id()])
        .success();
    wait_until_gone(pid);
    rootless.nothing_is_left();
}

fn a_container_that_waits_for_its_start_can_not_be_looked_into() {
    let rootless = Rootless::new("sleep 1000");
    rootless.make("create").success();
    let error = rootless.exec("true").failure();
    let expected = "may not look into the container's first process, as is so until it is started";
    assert!(error.contains(expected), "{error}");
    rootless.verb("start").success();
    rootless.exec("true").success();
}

fn without_a_user_namespace_a_user_is_told_to_add_one() {
    let rootless = Rootless::new("true");
    rootless.leave_out_user_namespace();
    let error = rootless.run().failure();
    let expected =
        "linux.namespaces: an ordinary user needs a user namespace: add {\"type\": \"user\"}";
    assert!(error.contains(expected), "{error}");
    rootless.nothing_is_left();
}

fn without_a_runtime_directory_a_user_is_told_to_say_one() {
    let rootless = Rootless::new("true");
    let program = crate::support::program();
    let program = program.to_str().unwrap();
    let without = ["env", "-u", "XDG_RUNTIME_DIR", program];
    let error = rootless
        .run_command(&[&without[..], &["list"]].concat())
        .failure();
    assert!(
        error.contains("XDG_RUNTIME_DIR is not set, which a login sets: say where"),
        "{error}"
    );
    let root = rootless.bundle.folder.join("run/elsewhere");
    let root = ["--root", root.to_str().unwrap()];
    let run = ["run", "--bundle", rootless.bundle.path(), rootless.id()];
    rootless
        .run_command(&[&without[..], &root, &run].concat())
        .success();
}

fn root_handles_the_container_of_a_user() {
    let rootless = Rootless::new("sleep 1000");
    // Root of a host that lacks CAP_SYS_RESOURCE may not limit another's process.
    rootless.edit(|config| config["process"]["rlimits"] = json!([]));
    rootless.start();
    let state = rootless.state_folder();
    let root = |arguments: &[&str]| {
        let mut command = std::process::Command::new(crate::support::program());
        command.arg("--root").arg(&state).args(arguments);
        crate::support::Ran(command.output().unwrap())
    };
    let seen = root(&[
        "exec",
        rootless.id(),
        "sh",
        "-c",
        "id -u; cat /proc/self/uid_map",
    ]);
    let words: Vec<String> = seen
        .success()
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    assert_eq!(words, ["0", "0", &user().to_string(), "1"]);
    let pid = rootless.pid();
    root(&["delete", "--force", rootless.id()]).success();
    wait_until_gone(pid);
    rootless.nothing_is_left();
    use std::os::unix::fs::PermissionsExt;
    let mode = fs::metadata(state).unwrap().permissions().mode();
    assert_eq!(
        mode & 0o7777,
        0o1700,
        "kept from being cleaned up, and for the user alone"
    );
}

fn containers_of_a_user_share_namespaces() {
    let first = Rootless::new("sleep 1000");
    first.start();
    let pid = first.pid();
    let script = "for kind in user ipc uts pid; do busybox readlink /proc/self/ns/$kind; done; echo $$ > /dev/null";
    let second = Rootless::new(script);
    second.edit(|config| {
        let linux = config["linux"].as_object_mut().unwrap();
        linux.remove("uidMappings");
        linux.remove("gidMappings");
        for namespace in linux["namespaces"].as_array_mut().unwrap() {
            let kind = namespace["type"].as_str().unwrap().to_owned();
            if ["user", "ipc", "uts"].contains(&kind.as_str()) {
                namespace["path"] = json!(format!("/proc/{pid}/ns/{kind}"));
            }
        }
        config.as_object_mut().unwrap().remove("hostname");
    });
    let seen = second.run().success();
    let links: Vec<&str> = seen.lines().collect();
    for (kind, link) in ["user", "ipc", "uts"].iter().zip(&links) {
        let of_first = fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
        assert_eq!(of_first.to_str(), Some(*link));
    }
    let other = fs::read_link(format!("/proc/{pid}/ns/pid")).unwrap();
    assert_ne!(other.to_str(), Some(links[3]));
    second.nothing_is_left();
}

fn a_program_tells_that_it_is_ready() {
    let mut rootless = Rootless::new("echo $NOTIFY_SOCKET; ls /run/notify; busybox id -u");
    rootless.edit(|config| config["root"]["readonly"] = json!(false));
    let socket = rootless.bundle.folder.join("run/caller.sock");
    let caller = std::os::unix::net::UnixDatagram::bind(&socket).unwrap();
    super::give(&rootless.bundle.folder.join("run"));
    rootless.environment = vec![format!("NOTIFY_SOCKET={}", socket.display())];
    let seen = rootless.run().success();
    assert_eq!(seen, "/run/notify/notify.sock\nnotify.sock\n0\n");
    drop(caller);
    rootless.nothing_is_left();
}

fn a_user_does_not_see_the_containers_of_root() {
    let roots = Bundle::new("sleep 1000");
    roots.create().success();
    let rootless = Rootless::new("true");
    let root = roots.folder.join("state");
    let root = ["--root", root.to_str().unwrap()];
    for verb in [
        &["state"][..],
        &["delete", "--force"],
        &["exec", "--detach"],
    ] {
        let arguments = [&root, verb, &[&roots.id]].concat();
        let mut arguments = arguments;
        if verb[0] == "exec" {
            arguments.push("true");
        }
        let error = rootless.parhelion(&arguments).failure();
        assert!(error.contains("permission denied"), "{error}");
    }
    let state: Value = serde_json::from_str(&roots.verb("state").success()).unwrap();
    assert_eq!(state["status"], "created");
}
