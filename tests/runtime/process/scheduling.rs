//! How the program is scheduled, which personality it has and where its memory comes from.

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::caller::from_shell;
use crate::support::{Bundle, Ran, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        the_scheduler_is_the_one_asked_for,
        a_nice_value_is_never_the_callers,
        a_real_time_policy_is_set_with_its_priority,
        a_deadline_is_set_with_its_times,
        a_schedule_that_the_kernel_refuses_is_told_by_its_field,
        children_of_a_program_that_resets_on_fork_are_scheduled_as_usual,
        in_a_user_namespace_the_runtime_schedules_the_program,
        the_priority_of_io_is_the_one_asked_for,
        affinity_of_exec_does_not_concern_the_first_process,
        a_32_bit_personality_shows_a_32_bit_machine,
        flags_of_the_personality_reach_the_program,
        memory_comes_from_the_nodes_asked_for,
        a_memory_node_that_is_not_there_is_told_by_its_field,
    ]
}

/// Fields of /proc/PID/stat (proc(5)), counted from the one after the name.
const NICE: usize = 16;
const REAL_TIME_PRIORITY: usize = 37;
const POLICY: usize = 38;

/// A bundle whose program prints its own stat file.
fn showing_stat(scheduler: Value) -> Bundle {
    let bundle = Bundle::new("");
    bundle.edit(|config| {
        config["process"]["args"] = json!(["/bin/cat", "/proc/self/stat"]);
        config["process"]["scheduler"] = scheduler;
    });
    bundle
}

/// Nice value, real-time priority and policy of a stat line.
fn scheduled(stat: &str) -> (i32, u32, u32) {
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    let number = |at: usize| fields[at].parse::<i32>().unwrap();
    let positive = |at: usize| u32::try_from(number(at)).unwrap();
    (number(NICE), positive(REAL_TIME_PRIORITY), positive(POLICY))
}

fn the_scheduler_is_the_one_asked_for() {
    for (policy, nice, number) in [
        ("SCHED_OTHER", 7, 0),
        ("SCHED_OTHER", -20, 0),
        ("SCHED_BATCH", 19, 3),
        ("SCHED_IDLE", 11, 5),
    ] {
        let bundle = showing_stat(json!({"policy": policy, "nice": nice}));
        assert_eq!(
            scheduled(&bundle.run().success()),
            (nice, 0, number),
            "{policy}"
        );
    }
}

/// One that is not set is 0, whatever the caller's is, also for a policy that has no use for it.
fn a_nice_value_is_never_the_callers() {
    for (policy, number) in [("SCHED_OTHER", 0), ("SCHED_BATCH", 3), ("SCHED_IDLE", 5)] {
        let bundle = showing_stat(json!({"policy": policy}));
        let run = ["run", "--bundle", bundle.path(), &bundle.id];
        let called = from_shell(&bundle, "exec nice -n 7 \"$@\"", &run).output();
        let seen = scheduled(&Ran(called.unwrap()).success());
        assert_eq!(seen, (0, 0, number), "{policy}");
    }
}

/// Whether this process may have real-time policies at all: not in every cgroup (v1's cpu
/// controller with RT_GROUP_SCHED).
fn may_be_real_time() -> bool {
    let tried = std::process::Command::new("chrt")
        .args(["--fifo", "1", "true"])
        .output();
    tried.unwrap().status.success()
}

fn a_real_time_policy_is_set_with_its_priority() {
    for (policy, number) in [("SCHED_FIFO", 1), ("SCHED_RR", 2)] {
        let bundle = showing_stat(json!({"policy": policy, "priority": 42}));
        if may_be_real_time() {
            let seen = scheduled(&bundle.run().success());
            assert_eq!(seen, (0, 42, number));
        } else {
            let refused = bundle.run().failure();
            assert!(
                refused.contains("process.scheduler: sched_setattr(0, "),
                "{refused}"
            );
            assert!(refused.ends_with("operation not permitted\n"), "{refused}");
        }
    }
}

fn a_deadline_is_set_with_its_times() {
    let bundle = showing_stat(json!({"policy": "SCHED_DEADLINE", "runtime": 5_000_000,
        "deadline": 50_000_000, "period": 100_000_000}));
    let ran = bundle.run();
    if ran.code() == Some(0) {
        assert_eq!(scheduled(&ran.success()).2, 6);
    } else {
        // The processors are divided (cpuset), or their time is given away.
        let refused = ran.failure();
        assert!(
            refused.contains("process.scheduler: sched_setattr(0, "),
            "{refused}"
        );
    }
}

fn a_schedule_that_the_kernel_refuses_is_told_by_its_field() {
    // More than all processors have.
    let hog = json!({"policy": "SCHED_DEADLINE", "runtime": u64::MAX >> 1, "deadline": u64::MAX >> 1,
        "period": u64::MAX >> 1});
    let refused = showing_stat(hog).run().failure();
    assert!(
        refused.contains("process.scheduler: sched_setattr(0, "),
        "{refused}"
    );
}

fn children_of_a_program_that_resets_on_fork_are_scheduled_as_usual() {
    let script = "read stat < /proc/self/stat; echo $stat; cat /proc/self/stat; echo";
    let bundle = Bundle::new(script);
    bundle.edit(|config| {
        config["process"]["scheduler"] = json!({"policy": "SCHED_BATCH", "nice": -5,
            "flags": ["SCHED_FLAG_RESET_ON_FORK"]});
    });
    let seen = bundle.run().success();
    let both: Vec<_> = seen.lines().take(2).map(scheduled).collect();
    assert_eq!(both, [(-5, 0, 3), (0, 0, 3)]);
}

fn in_a_user_namespace_the_runtime_schedules_the_program() {
    let bundle = showing_stat(json!({"policy": "SCHED_OTHER", "nice": -7}));
    bundle.edit(|config| {
        config["process"]["ioPriority"] = json!({"class": "IOPRIO_CLASS_RT", "priority": 3});
        config["process"]["args"] =
            json!(["/bin/sh", "-c", "cat /proc/self/stat; busybox ionice -p 1"]);
        config["process"]["user"] = json!({"uid": 5, "gid": 5});
        let map = json!([{"containerID": 0, "hostID": 100_000, "size": 1000}]);
        config["linux"]["uidMappings"] = map.clone();
        config["linux"]["gidMappings"] = map;
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.push(json!({"type": "user"}));
    });
    let seen = bundle.run().success();
    let (stat, io) = seen.split_once('\n').unwrap();
    assert_eq!(scheduled(stat), (-7, 0, 0));
    assert_eq!(io, "realtime: prio 3\n");
}

fn the_priority_of_io_is_the_one_asked_for() {
    for (class, level, told) in [
        ("IOPRIO_CLASS_BE", 6, "best-effort: prio 6\n"),
        ("IOPRIO_CLASS_RT", 1, "realtime: prio 1\n"),
        ("IOPRIO_CLASS_IDLE", 0, "idle\n"),
    ] {
        let bundle = Bundle::new("busybox ionice -p 1");
        bundle.edit(|config| {
            config["process"]["ioPriority"] = json!({"class": class, "priority": level});
        });
        assert_eq!(bundle.run().success(), told);
    }
}

fn affinity_of_exec_does_not_concern_the_first_process() {
    let bundle = Bundle::new("busybox grep Cpus_allowed_list /proc/self/status");
    let before = bundle.run().success();
    bundle.edit(|config| {
        config["process"]["execCPUAffinity"] = json!({"initial": "0", "final": " 0,"});
    });
    assert_eq!(bundle.run().success(), before);
}

fn a_32_bit_personality_shows_a_32_bit_machine() {
    let (machine, other) = match cfg!(target_arch = "x86_64") {
        true => ("i686", "x86_64"),
        false => ("armv8l", "aarch64"),
    };
    for (domain, told) in [("LINUX32", machine), ("LINUX", other)] {
        let bundle = Bundle::new("busybox uname -m");
        bundle.edit(|config| config["linux"]["personality"] = json!({"domain": domain}));
        assert_eq!(bundle.run().success(), format!("{told}\n"));
    }
}

fn flags_of_the_personality_reach_the_program() {
    let bundle = Bundle::new("cat /proc/self/personality; busybox uname -r");
    bundle.edit(|config| {
        config["linux"]["personality"] =
            json!({"domain": "LINUX", "flags": ["ADDR_NO_RANDOMIZE", "UNAME26"]});
    });
    let seen = bundle.run().success();
    let lines: Vec<&str> = seen.lines().collect();
    assert_eq!(lines[0], "00060000");
    assert!(lines[1].starts_with("2.6."), "{seen}");
}

fn memory_comes_from_the_nodes_asked_for() {
    for (policy, told) in [
        (json!({"mode": "MPOL_BIND", "nodes": "0"}), "bind:0"),
        (
            json!({"mode": "MPOL_INTERLEAVE", "nodes": "0"}),
            "interleave:0",
        ),
        (
            json!({"mode": "MPOL_PREFERRED", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]}),
            "prefer=static:0",
        ),
        (
            json!({"mode": "MPOL_PREFERRED_MANY", "nodes": "0-0"}),
            "prefer (many):0",
        ),
        (json!({"mode": "MPOL_LOCAL"}), "local"),
        (json!({"mode": "MPOL_DEFAULT"}), "default"),
    ] {
        let bundle = Bundle::new("cat /proc/self/numa_maps");
        bundle.edit(|config| config["linux"]["memoryPolicy"] = policy.clone());
        let seen = bundle.run().success();
        let first = seen.lines().next().unwrap();
        assert!(first.contains(&format!(" {told} ")), "{policy}: {first}");
    }
}

fn a_memory_node_that_is_not_there_is_told_by_its_field() {
    let bundle = Bundle::new("true");
    bundle.edit(|config| {
        config["linux"]["memoryPolicy"] = json!({"mode": "MPOL_BIND", "nodes": "1000"});
    });
    let refused = bundle.run().failure();
    assert!(
        refused.contains("linux.memoryPolicy: set_mempolicy(0x2, 1000): invalid argument"),
        "{refused}"
    );
}
