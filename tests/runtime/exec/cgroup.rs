//! In which cgroup the process starts.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use libtest_mimic::Trial;
use serde_json::json;

use super::{
    background, cgroup_of, changed, exec, in_user_namespace, leave, processes, refusal, running, sh,
};
use crate::caller::{Running, init_pid, run};
use crate::support::{Bundle, needs_controllers, program, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    let everywhere = tests![
        the_process_starts_in_the_containers_cgroup,
        a_cgroup_below_the_containers_can_be_chosen,
        a_cgroup_that_is_not_there_or_not_below_is_refused,
        a_container_that_left_its_cgroup_is_not_followed,
        no_process_is_ever_moved_into_a_cgroup,
    ];
    let divided = tests![where_the_container_has_divided_its_cgroup_it_is_that_of_init];
    let divided = needs_controllers(&["hugetlb"], divided);
    everywhere.into_iter().chain(divided).collect()
}

/// A cgroup below the container's, made on the host.
fn below(bundle: &Bundle, name: &str) -> PathBuf {
    let cgroup = cgroup_of(bundle).join(name);
    fs::create_dir(&cgroup).unwrap();
    cgroup
}

fn the_process_starts_in_the_containers_cgroup() {
    let bundles = [
        running(),
        changed(|config| leave(config, "cgroup")),
        in_user_namespace(|_config| {}),
    ];
    for (bundle, is_hosts) in bundles.iter().zip([false, true, false]) {
        let pid = background(bundle, &[]);
        assert!(processes(&cgroup_of(bundle)).contains(&pid));
        let place = format!("/parhelion/{}", bundle.id);
        let own = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
        assert!(
            own.lines().any(|line| line == format!("0::{place}")),
            "{own}"
        );
        let seen = sh(bundle, &[], "busybox grep ^0: /proc/self/cgroup");
        let inside = if is_hosts { &place } else { "/" };
        assert_eq!(seen, format!("0::{inside}\n"));
    }
}

fn a_cgroup_below_the_containers_can_be_chosen() {
    for bundle in [running(), in_user_namespace(|_config| {})] {
        let first = below(&bundle, "first");
        let second = below(&bundle, "first/second");
        for (name, cgroup) in [
            ("first", &first),
            ("/first/second/", &second),
            ("./first/./second", &second),
        ] {
            let pid = background(&bundle, &["--cgroup", name]);
            assert!(processes(cgroup).contains(&pid), "{name}");
        }
        let pid = background(&bundle, &["--cgroup", "/"]);
        assert!(processes(&cgroup_of(&bundle)).contains(&pid));
        // They are the container's, and go with it.
        bundle
            .parhelion(&["delete", "--force", &bundle.id])
            .success();
        assert!(!cgroup_of(&bundle).exists());
    }
}

/// Each begins in its cgroup, by clone3(2): nothing is written to the file by which one would be moved.
fn no_process_is_ever_moved_into_a_cgroup() {
    let trace = |bundle: &Bundle, arguments: &[&str]| {
        let file = bundle.folder.join("trace");
        let mut strace = Command::new("strace");
        strace.args(["-f", "-e", "trace=open,openat,openat2,creat,clone3", "-o"]);
        strace.arg(&file).arg(program()).arg("--root");
        strace.arg(bundle.folder.join("state")).args(arguments);
        let output = strace.stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        fs::read_to_string(file).unwrap()
    };
    for bundle in [running(), in_user_namespace(|_config| {})] {
        let exec = ["exec", &bundle.id, "/bin/cat", "/proc/self/cgroup"];
        let other = Bundle::new("true");
        let run = ["run", "--bundle", other.path(), &other.id];
        for trace in [trace(&bundle, &exec), trace(&other, &run)] {
            let names = ["cgroup.procs", "cgroup.threads", "/tasks"];
            let moves = trace.lines().filter(|line| {
                names.iter().any(|name| line.contains(name)) && !line.contains("O_RDONLY")
            });
            assert_eq!(moves.collect::<Vec<_>>(), [""; 0], "{trace}");
            assert!(trace.contains("CLONE_INTO_CGROUP"), "{trace}");
        }
    }
}

fn a_cgroup_that_is_not_there_or_not_below_is_refused() {
    let (bundle, other) = (running(), running());
    let beside = format!("../{}", other.id);
    let again = format!("../{}", bundle.id);
    for (name, words) in [
        ("none", "--cgroup \"none\": there is no such cgroup"),
        ("..", "must be below the container's cgroup"),
        ("/..", "must be below the container's cgroup"),
        ("x/../y", "must be below the container's cgroup"),
        (&beside, "must be below the container's cgroup"),
        (&again, "must be below the container's cgroup"),
    ] {
        let error = refusal(&exec(&bundle, &["--cgroup", name], &["/bin/true"]));
        assert!(error.contains(words), "{name}: {error}");
    }
    assert_eq!(processes(&cgroup_of(&other)).len(), 1);
}

/// The container's own cgroup is the one where its limits are: a process in it is subject to them.
fn a_container_that_left_its_cgroup_is_not_followed() {
    let bundle = running();
    let moved = below(&bundle, "moved");
    fs::write(moved.join("cgroup.procs"), init_pid(&bundle).to_string()).unwrap();
    let pid = background(&bundle, &[]);
    assert!(processes(&cgroup_of(&bundle)).contains(&pid));
    assert!(!processes(&moved).contains(&pid));
}

/// As a systemd inside does: a cgroup that hands controllers down can hold no process itself.
fn where_the_container_has_divided_its_cgroup_it_is_that_of_init() {
    let script = "cd /sys/fs/cgroup; busybox mkdir init; echo $$ > init/cgroup.procs; \
        echo +hugetlb > cgroup.subtree_control; cat cgroup.subtree_control; read line";
    let bundle = Bundle::new(script);
    bundle.edit(|config| {
        let limit = json!([{"pageSize": "2MB", "limit": 4 << 20}]);
        config["linux"]["resources"]["hugepageLimits"] = limit;
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.retain(|mount| mount["destination"] != "/sys/fs/cgroup");
        mounts.push(json!({"destination": "/sys/fs/cgroup", "type": "cgroup",
            "source": "cgroup", "options": ["rw"]}));
    });
    let mut first = Running::spawn(&mut run(&bundle), Stdio::piped());
    assert_eq!(first.line(), "hugetlb");
    let pid = background(&bundle, &[]);
    assert!(processes(&cgroup_of(&bundle).join("init")).contains(&pid));
    assert_eq!(
        sh(&bundle, &[], "busybox grep ^0: /proc/self/cgroup"),
        "0::/init\n"
    );
    below(&bundle, "chosen");
    let pid = background(&bundle, &["--cgroup", "chosen"]);
    assert!(processes(&cgroup_of(&bundle).join("chosen")).contains(&pid));
    drop(first.stdin());
    first.ends_with(1); // what read(1) answers at the end of its input
}
