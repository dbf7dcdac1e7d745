//! Who the program is, what it may do, and how much it may use.

use std::fs;

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::support::{Bundle, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        user_group_further_groups_and_umask_are_the_ones_asked_for,
        without_further_groups_there_are_none_of_the_callers,
        capabilities_are_the_ones_asked_for,
        the_five_sets_of_capabilities_are_set_each_for_itself,
        ambient_capabilities_need_to_be_permitted_and_inheritable,
        an_unknown_capability_is_left_out_with_a_warning,
        without_capabilities_the_program_has_none,
        new_privileges_are_given_up_only_when_asked,
        every_kind_of_resource_limit_is_set,
        a_limit_above_the_runtimes_own_needs_a_capability,
        a_limit_on_open_files_does_not_stop_the_start,
        the_oom_score_is_adjusted,
    ]
}

const CHOWN: u64 = 1 << 0;
const KILL: u64 = 1 << 5;
const SETUID: u64 = 1 << 7;
const NET_RAW: u64 = 1 << 13;
const SYS_RESOURCE: u64 = 1 << 24;

/// A bundle that prints its own status, as an ordinary user.
fn showing_status() -> Bundle {
    let bundle = Bundle::new("");
    bundle.edit(|config| {
        let process = &mut config["process"];
        process["args"] = json!(["/bin/cat", "/proc/self/status"]);
        process["user"] = json!({"uid": 1000, "gid": 1000});
    });
    bundle
}

/// A set of capabilities in a status file.
fn set_in(status: &str, name: &str) -> u64 {
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    u64::from_str_radix(line[name.len() + 1..].trim(), 16).unwrap()
}

/// Whether tests, and so the runtime, have CAP_SYS_RESOURCE: root does not everywhere.
fn may_raise_limits() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    set_in(&status, "CapEff") & SYS_RESOURCE != 0
}

fn user_group_further_groups_and_umask_are_the_ones_asked_for() {
    for (umask, told, mode) in [(json!(null), "0022", "644"), (json!(0o027), "0027", "640")] {
        let script = "id -u; id -g; grep -E '^(Uid|Gid|Groups)' /proc/self/status; umask; \
            touch /tmp/f; stat -c '%u:%g %a' /tmp/f";
        let bundle = Bundle::new(&script.replace("grep", "busybox grep"));
        bundle.edit(|config| {
            let user = json!({"uid": 1000, "gid": 2000, "additionalGids": [3001, 3000, 3001]});
            config["process"]["user"] = user;
            if !umask.is_null() {
                config["process"]["user"]["umask"] = umask.clone();
            }
            let tmpfs = json!({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs",
                "options": ["mode=1777"]});
            config["mounts"].as_array_mut().unwrap().push(tmpfs);
        });
        let seen = bundle.run().success();
        let expected = format!(
            "1000\n2000\nUid:\t1000\t1000\t1000\t1000\nGid:\t2000\t2000\t2000\t2000\n\
            Groups:\t3000 3001 \n{told}\n1000:2000 {mode}\n"
        );
        assert_eq!(seen, expected);
    }
}

fn without_further_groups_there_are_none_of_the_callers() {
    let bundle = showing_status();
    let seen = bundle.run().success();
    let groups = seen.lines().find(|line| line.starts_with("Groups:"));
    assert_eq!(groups.unwrap().trim(), "Groups:");
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
    });
    let seen = bundle.run().success();
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(set_in(&seen, set), KILL, "{set}");
    }
}

fn the_five_sets_of_capabilities_are_set_each_for_itself() {
    let bundle = showing_status();
    bundle.edit(|config| {
        config["process"]["capabilities"] = json!({
            "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW", "CAP_SETUID"],
            "permitted": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW"],
            "inheritable": ["CAP_CHOWN", "CAP_KILL"],
            "effective": ["CAP_CHOWN"],
            "ambient": ["CAP_KILL"],
        });
    });
    // A hook runs between capset(2) and the program's execve, and sees what execve makes of the
    // sets too; what init itself has can be asked of its status while it waits.
    bundle.create().success();
    let pid = crate::caller::init_pid(&bundle);
    let waiting = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let all = ["CapBnd", "CapPrm", "CapInh", "CapEff", "CapAmb"];
    let bounding = CHOWN | KILL | NET_RAW | SETUID;
    let sets = [bounding, CHOWN | KILL | NET_RAW, CHOWN | KILL, CHOWN, KILL];
    assert_eq!(all.map(|name| set_in(&waiting, name)), sets);
    bundle.verb("delete").success();
    // An ordinary user keeps the ambient ones across execve (capabilities(7)).
    let seen = bundle.run().success();
    let sets = [bounding, KILL, CHOWN | KILL, KILL, KILL];
    assert_eq!(all.map(|name| set_in(&seen, name)), sets);
}

fn ambient_capabilities_need_to_be_permitted_and_inheritable() {
    let bundle = showing_status();
    bundle.edit(|config| {
        config["process"]["capabilities"] = json!({
            "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW"],
            "permitted": ["CAP_CHOWN", "CAP_KILL"],
            "inheritable": ["CAP_KILL", "CAP_NET_RAW"],
            "ambient": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW"],
        });
    });
    let ran = bundle.run();
    assert_eq!(set_in(&ran.success(), "CapAmb"), KILL);
    for name in ["CAP_CHOWN is not in inheritable", "CAP_NET_RAW is not in"] {
        let words = format!("process.capabilities.ambient: {name}");
        assert!(ran.stderr().contains(&words), "{}", ran.stderr());
    }
}

fn an_unknown_capability_is_left_out_with_a_warning() {
    let bundle = showing_status();
    bundle.edit(|config| {
        config["process"]["capabilities"] = json!({"bounding": ["CAP_KILL", "CAP_UNHEARD_OF"]});
    });
    let ran = bundle.run();
    assert_eq!(set_in(&ran.success(), "CapBnd"), KILL);
    let words = "warning: process.capabilities.bounding[1]: unknown capability \"CAP_UNHEARD_OF\"";
    assert!(ran.stderr().contains(words), "{}", ran.stderr());
}

fn without_capabilities_the_program_has_none() {
    let bundle = Bundle::new("cat /proc/self/status");
    bundle.edit(|config| {
        config["process"]
            .as_object_mut()
            .unwrap()
            .remove("capabilities");
    });
    let seen = bundle.run().success();
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(set_in(&seen, set), 0, "{set}");
    }
}

fn new_privileges_are_given_up_only_when_asked() {
    for wanted in [true, false] {
        let bundle = showing_status();
        bundle.edit(|config| config["process"]["noNewPrivileges"] = json!(wanted));
        let seen = bundle.run().success();
        let line = format!("NoNewPrivs:\t{}", u8::from(wanted));
        assert!(seen.contains(&line), "{line} in {seen}");
    }
}

/// Each limit, its name in /proc/PID/limits, and a value that the hosts' own limits allow.
const LIMITS: [(&str, &str, u64); 16] = [
    ("RLIMIT_AS", "Max address space", 1 << 40),
    ("RLIMIT_CORE", "Max core file size", 4096),
    ("RLIMIT_CPU", "Max cpu time", 1000),
    ("RLIMIT_DATA", "Max data size", 1 << 36),
    ("RLIMIT_FSIZE", "Max file size", 1 << 30),
    ("RLIMIT_LOCKS", "Max file locks", 99),
    ("RLIMIT_MEMLOCK", "Max locked memory", 65_536),
    ("RLIMIT_MSGQUEUE", "Max msgqueue size", 8192),
    ("RLIMIT_NICE", "Max nice priority", 9),
    ("RLIMIT_NOFILE", "Max open files", 200),
    ("RLIMIT_NPROC", "Max processes", 500),
    ("RLIMIT_RSS", "Max resident set", 1 << 40),
    ("RLIMIT_RTPRIO", "Max realtime priority", 5),
    ("RLIMIT_RTTIME", "Max realtime timeout", 5000),
    ("RLIMIT_SIGPENDING", "Max pending signals", 300),
    ("RLIMIT_STACK", "Max stack size", 8 << 20),
];

/// The two numbers of a limit.
fn limit_in(limits: &str, name: &str) -> (u64, u64) {
    let line = limits.lines().find(|line| line.starts_with(name)).unwrap();
    let mut fields = line[name.len()..]
        .split_whitespace()
        .map(|field| match field {
            "unlimited" => u64::MAX,
            number => number.parse().unwrap(),
        });
    (fields.next().unwrap(), fields.next().unwrap())
}

fn every_kind_of_resource_limit_is_set() {
    let own = fs::read_to_string("/proc/self/limits").unwrap();
    let wanted = LIMITS.map(|(kind, name, value)| {
        // Never above what the tests have themselves; soft below hard where there is room.
        let hard = value.min(limit_in(&own, name).1);
        (kind, name, hard - hard / 4, hard)
    });
    let bundle = Bundle::new("");
    bundle.edit(|config| {
        config["process"]["args"] = json!(["/bin/cat", "/proc/self/limits"]);
        let limit = |(kind, _, soft, hard)| json!({"type": kind, "soft": soft, "hard": hard});
        config["process"]["rlimits"] = Value::from(wanted.map(limit).to_vec());
    });
    let seen = bundle.run().success();
    for (kind, name, soft, hard) in wanted {
        assert_eq!(limit_in(&seen, name), (soft, hard), "{kind}");
    }
}

fn a_limit_above_the_runtimes_own_needs_a_capability() {
    let own = fs::read_to_string("/proc/self/limits").unwrap();
    let above = limit_in(&own, "Max msgqueue size").1 + 1;
    let bundle = Bundle::new("");
    bundle.edit(|config| {
        config["process"]["args"] = json!(["/bin/cat", "/proc/self/limits"]);
        let limit = json!({"type": "RLIMIT_MSGQUEUE", "soft": 1, "hard": above});
        config["process"]["rlimits"] = json!([limit]);
    });
    let ran = bundle.run();
    if may_raise_limits() {
        let seen = limit_in(&ran.success(), "Max msgqueue size");
        assert_eq!(seen, (1, above));
        return;
    }
    let words = format!(
        "process.rlimits[0]: prlimit(RLIMIT_MSGQUEUE, soft 1, hard {above}): operation not permitted"
    );
    assert!(ran.failure().contains(&words), "{}", ran.stderr());
    assert!(bundle.verb("state").failure().contains("does not exist"));
}

fn a_limit_on_open_files_does_not_stop_the_start() {
    // What the shell needs; init accepts the connection of `start` under this limit.
    let bundle = Bundle::new("echo started");
    bundle.edit(|config| {
        let limit = json!({"type": "RLIMIT_NOFILE", "soft": 4, "hard": 4});
        config["process"]["rlimits"] = json!([limit]);
        config["process"]["args"] = json!(["/bin/echo", "started"]);
    });
    crate::caller::start(&bundle);
    crate::caller::wait_for_end(&bundle);
    assert_eq!(crate::caller::output(&bundle), "started\n");
}

fn the_oom_score_is_adjusted() {
    let own: i32 = fs::read_to_string("/proc/self/oom_score_adj")
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    let bundle = Bundle::new("cat /proc/self/oom_score_adj");
    assert_eq!(bundle.run().success(), format!("{own}\n"), "unless asked");
    bundle.edit(|config| config["process"]["oomScoreAdj"] = json!(500));
    assert_eq!(bundle.run().success(), "500\n");
    bundle.edit(|config| config["process"]["oomScoreAdj"] = json!(-500));
    let ran = bundle.run();
    if may_raise_limits() {
        assert_eq!(ran.success(), "-500\n");
        return;
    }
    let error = ran.failure();
    let words = "process.oomScoreAdj: write(\"/proc/";
    assert!(error.contains(words), "{error}");
    assert!(error.contains("/oom_score_adj\", -500): "), "{error}");
    assert!(bundle.verb("state").failure().contains("does not exist"));
}
