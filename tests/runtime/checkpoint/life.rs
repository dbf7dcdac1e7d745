//! What goes on: the processes, as they were and where they were.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Stdio;

use libtest_mimic::Trial;
use serde_json::json;

use super::{checkpoint, counter, counting, is_gone, restore, restore_as, restoring};
use crate::caller::{Running, command, init_pid, state, wait_for_end};
use crate::inside::Inside;
use crate::support::tests;

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        a_counter_goes_on_after_a_restore,
        what_the_processes_are_is_the_same,
        a_container_that_is_left_running_goes_on_and_can_be_restored_later,
        a_restored_container_can_be_written_down_again,
        another_id_gets_another_cgroup,
        processes_stay_where_criu_is_when_cgroups_are_ignored,
        a_restore_in_the_foreground_ends_with_the_programs_code,
        a_paused_container_can_be_written_down,
        limits_and_the_device_filter_hold_again,
        the_pid_file_names_the_restored_process,
        the_output_goes_to_whoever_restores,
    ]
}

fn a_counter_goes_on_after_a_restore() {
    let mut inside = counting();
    checkpoint(&inside.bundle, &[]).success();
    assert!(is_gone(&inside.bundle));
    restore(&inside.bundle, &[]).success();
    assert_eq!(inside.bundle.status(), "running");
    assert_eq!(inside.ask("echo $i"), "2\n");
    assert_eq!(inside.ask("echo $i"), "3\n");
    let cgroup = fs::read_to_string(format!("/proc/{}/cgroup", init_pid(&inside.bundle)));
    let cgroup = cgroup.unwrap();
    let expected = format!("/parhelion/{}\n", inside.bundle.id);
    assert!(cgroup.ends_with(&expected), "{cgroup}");
    let told = inside
        .bundle
        .parhelion(&["exec", &inside.bundle.id, "cat", "/proc/1/cmdline"]);
    assert!(told.success().contains("/bin/sh"));
    inside
        .bundle
        .parhelion(&["kill", &inside.bundle.id, "KILL"])
        .success();
    wait_for_end(&inside.bundle);
    inside.bundle.verb("delete").success();
    assert!(is_gone(&inside.bundle));
}

fn what_the_processes_are_is_the_same() {
    let bundle = counter();
    bundle.edit(|config| {
        config["process"]["user"] = json!({"uid": 1000, "gid": 1000, "additionalGids": [5]});
        config["process"]["noNewPrivileges"] = json!(true);
        config["process"]["oomScoreAdj"] = json!(77);
        config["process"]["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 111, "hard": 222}]);
        config["hostname"] = json!("counter");
        config["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["getcpu"], "action": "SCMP_ACT_ERRNO"}],
        });
    });
    let mut inside = Inside::of(bundle);
    let questions = [
        "hostname; id; ulimit -n; cat /proc/1/oom_score_adj",
        "busybox grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp|NSpid)' /proc/1/status",
        "cat /proc/self/mountinfo | busybox cut -d ' ' -f 4-6 | busybox sort",
        "busybox grep shared: /proc/self/mountinfo",
        "cat /proc/self/cgroup; ls /sys/fs/cgroup",
        "ls /dev /proc/sys/kernel | busybox sort; cat /proc/kcore; cat /proc/keys; ls -l /dev/null",
        "touch /proc/sys/kernel/shmmax; touch /sys/x",
        "busybox ifconfig lo | busybox grep -o UP",
    ];
    let before = questions.map(|question| inside.ask(question));
    checkpoint(&inside.bundle, &[]).success();
    restore(&inside.bundle, &[]).success();
    for (question, before) in questions.iter().zip(before) {
        assert_eq!(inside.ask(question), before, "{question}");
    }
    assert_eq!(
        inside.ask("echo $i"),
        format!("{}\n", 2 * questions.len() + 1)
    );
    let namespace = |pid: &str, kind| {
        fs::metadata(format!("/proc/{pid}/ns/{kind}"))
            .unwrap()
            .ino()
    };
    let pid = init_pid(&inside.bundle).to_string();
    for kind in ["mnt", "pid", "net", "ipc", "uts", "cgroup"] {
        assert_ne!(namespace(&pid, kind), namespace("self", kind), "{kind}");
    }
}

fn a_container_that_is_left_running_goes_on_and_can_be_restored_later() {
    let mut inside = counting();
    let pid = init_pid(&inside.bundle);
    checkpoint(&inside.bundle, &["--leave-running"]).success();
    assert_eq!(init_pid(&inside.bundle), pid);
    assert_eq!(inside.ask("echo $i"), "2\n");
    assert_eq!(inside.ask("echo $i"), "3\n");
    inside
        .bundle
        .parhelion(&["delete", "--force", &inside.bundle.id])
        .success();
    restore(&inside.bundle, &[]).success();
    assert_eq!(inside.ask("echo $i"), "2\n");
}

fn a_restored_container_can_be_written_down_again() {
    let mut inside = counting();
    for expected in ["2\n", "3\n"] {
        checkpoint(&inside.bundle, &[]).success();
        restore(&inside.bundle, &[]).success();
        assert_eq!(inside.ask("echo $i"), expected);
    }
}

/// The container `other` is in the cgroup of its id, and sees no other; it is deleted.
fn ends_in_its_own_cgroup(inside: &mut Inside, other: &str) {
    let told = inside.bundle.parhelion(&["state", other]).success();
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    let cgroup = fs::read_to_string(format!("/proc/{}/cgroup", told["pid"])).unwrap();
    assert!(
        cgroup.ends_with(&format!("/parhelion/{other}\n")),
        "{cgroup}"
    );
    assert_eq!(inside.ask("cat /proc/self/cgroup"), "0::/\n");
    inside
        .bundle
        .parhelion(&["delete", "--force", other])
        .success();
}

fn another_id_gets_another_cgroup() {
    let mut inside = counting();
    checkpoint(&inside.bundle, &[]).success();
    let other = format!("{}-other", inside.bundle.id);
    restore_as(&inside.bundle, &other, &[]).success();
    assert_eq!(inside.ask("echo $i"), "2\n");
    ends_in_its_own_cgroup(&mut inside, &other);
    assert!(is_gone(&inside.bundle));
}

fn processes_stay_where_criu_is_when_cgroups_are_ignored() {
    let mut inside = counting();
    let flags = ["--manage-cgroups-mode", "ignore"];
    checkpoint(&inside.bundle, &flags).success();
    let other = format!("{}-other", inside.bundle.id);
    restore_as(&inside.bundle, &other, &flags).success();
    assert_eq!(inside.ask("echo $i"), "2\n");
    ends_in_its_own_cgroup(&mut inside, &other);
}

fn a_restore_in_the_foreground_ends_with_the_programs_code() {
    let mut inside = counting();
    checkpoint(&inside.bundle, &[]).success();
    let bundle = &inside.bundle;
    let arguments = restoring(bundle, &[], &bundle.id);
    // Its output was a file, which no pipe can be.
    let mut refused = Running::spawn(&mut command(bundle, &arguments), Stdio::null());
    let (status, _, errors) = refused.end();
    assert_eq!(status.code(), Some(1));
    let words = "standard output was a file when the container was created";
    assert!(errors.contains(words), "{errors}");
    assert!(is_gone(bundle));
    let file = fs::File::create(bundle.folder.join("output")).unwrap();
    let mut restored = command(bundle, &arguments);
    let restored = restored
        .stdin(Stdio::null())
        .stdout(file.try_clone().unwrap());
    let mut restored = restored.stderr(file).spawn().unwrap();
    assert_eq!(inside.ask("echo $i"), "2\n");
    inside.say("end 7");
    assert_eq!(restored.wait().unwrap().code(), Some(7));
    assert!(is_gone(&inside.bundle));
}

fn a_paused_container_can_be_written_down() {
    let mut inside = counting();
    inside.bundle.verb("pause").success();
    checkpoint(&inside.bundle, &["--leave-running"]).success();
    assert_eq!(inside.bundle.status(), "paused");
    inside.bundle.verb("resume").success();
    assert_eq!(inside.ask("echo $i"), "2\n");
    inside.bundle.verb("pause").success();
    checkpoint(&inside.bundle, &[]).success();
    restore(&inside.bundle, &[]).success();
    assert_eq!(inside.bundle.status(), "running");
    assert_eq!(inside.ask("echo $i"), "3\n");
}

fn limits_and_the_device_filter_hold_again() {
    let bundle = counter();
    bundle.edit(|config| {
        config["linux"]["resources"]["memory"] = json!({"limit": 100 << 20});
        config["linux"]["resources"]["pids"] = json!({"limit": 33});
        config["linux"]["devices"] =
            json!([{"path": "/dev/kmsg", "type": "c", "major": 1, "minor": 11}]);
    });
    let mut inside = Inside::of(bundle);
    let refused = inside.ask("cat /dev/kmsg");
    assert!(refused.contains("Operation not permitted"), "{refused}");
    checkpoint(&inside.bundle, &[]).success();
    restore(&inside.bundle, &[]).success();
    assert_eq!(inside.ask("cat /dev/kmsg"), refused);
    let limits = inside.ask("cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max");
    assert_eq!(limits, "104857600\n33\n");
    let used = inside.ask("cat /sys/fs/cgroup/pids.current; ls -d /sys/fs/cgroup/*/ | cat");
    assert!(used.starts_with("2\n") || used.starts_with("3\n"), "{used}");
    assert!(!used.contains("parhelion"), "criu's cgroup is left: {used}");
}

fn the_pid_file_names_the_restored_process() {
    let inside = counting();
    checkpoint(&inside.bundle, &[]).success();
    let file = format!("{}/pid", inside.bundle.path());
    restore(&inside.bundle, &["--pid-file", &file]).success();
    let pid = fs::read_to_string(&file).unwrap();
    assert_eq!(pid, state(&inside.bundle)["pid"].to_string());
}

fn the_output_goes_to_whoever_restores() {
    let bundle = counter();
    // In the foreground its streams are pipes.
    let fifos = ["ask", "answer"].map(|name| bundle.folder.join("rootfs/tmp").join(name));
    for fifo in &fifos {
        rustix::fs::mkfifoat(rustix::fs::CWD, fifo, 0o666.into()).unwrap();
    }
    let open = |path| {
        fs::File::options()
            .read(true)
            .write(true)
            .open(path)
            .unwrap()
    };
    let (mut asks, _answers) = (open(&fifos[0]), open(&fifos[1]));
    let mut say = |line: &str| std::io::Write::write_all(&mut asks, line.as_bytes()).unwrap();
    let mut before = Running::spawn(&mut crate::caller::run(&bundle), Stdio::null());
    say("echo out $i >/proc/1/fd/1\n");
    assert_eq!(before.line(), "out 1");
    checkpoint(&bundle, &[]).success();
    before.ends_with(137);
    let arguments = restoring(&bundle, &[], &bundle.id);
    let mut after = Running::spawn(&mut command(&bundle, &arguments), Stdio::null());
    say("echo out $i >/proc/1/fd/1; echo err >/proc/1/fd/2\n");
    assert_eq!(after.line(), "out 2");
    say("end 0\n");
    let (status, _, errors) = after.end();
    assert!(status.success() && errors.ends_with("err"), "{errors}");
}
