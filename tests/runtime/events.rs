//! `events`: figures that are true, a stream that waits for what happens and ends with the container.

use std::fs;
use std::process::{Command, Stdio};

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::caller::{Running, command, start, wait_for_end};
use crate::support::{Bundle, needs_controllers, program, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    let mut all = tests![
        stats_have_runcs_names,
        stats_count_processes_and_time,
        the_stream_has_stats_in_its_interval_and_ends_with_the_container,
        pressure_is_told_while_processes_wait_for_a_processor,
        the_stream_waits_without_looking,
        thresholds_and_intervals_that_mean_nothing_are_refused,
        a_container_that_has_stopped_has_no_events,
    ];
    all.extend(needs_controllers(
        &["cpu", "cpuset", "io", "memory", "pids"],
        tests![
            stats_have_the_figures_of_every_controller,
            a_kill_for_want_of_memory_is_told,
            the_kill_that_ends_the_container_is_told_before_the_end,
        ],
    ));
    all
}

fn events(bundle: &Bundle, flags: &[&str]) -> Running {
    let arguments = [&["events"], flags, &[&bundle.id]].concat();
    Running::spawn(&mut command(bundle, &arguments), Stdio::null())
}

/// The data of `events --stats`.
fn stats(bundle: &Bundle) -> Value {
    let line = bundle.parhelion(&["events", "--stats", &bundle.id]);
    let line: Value = serde_json::from_str(&line.success()).unwrap();
    assert_eq!(
        (&line["type"], &line["id"]),
        (&json!("stats"), &json!(bundle.id))
    );
    line["data"].clone()
}

fn event(line: &str) -> Value {
    serde_json::from_str(line).unwrap()
}

fn stats_have_runcs_names() {
    let bundle = Bundle::new("sleep 1000");
    start(&bundle);
    let line = bundle.parhelion(&["events", "--stats", &bundle.id]);
    let line = line.success();
    let first = format!(
        "{{\"type\":\"stats\",\"id\":\"{}\",\"data\":{{\"cpu\":",
        bundle.id
    );
    assert!(line.starts_with(&first), "{line}");
    assert_eq!(line.lines().count(), 1);
    let data = stats(&bundle);
    let keys: Vec<&String> = data.as_object().unwrap().keys().collect();
    for key in [
        "blkio",
        "cpu",
        "cpuset",
        "hugetlb",
        "intel_rdt",
        "memory",
        "network_interfaces",
        "pids",
    ] {
        assert!(keys.iter().any(|found| *found == key), "{key}: {line}");
    }
    if fs::exists("/proc/pressure/cpu").unwrap() {
        for resource in ["cpu", "memory", "blkio"] {
            for figure in ["avg10", "avg60", "avg300", "total"] {
                for kind in ["some", "full"] {
                    assert!(data[resource]["psi"][kind][figure].is_number(), "{line}");
                }
            }
        }
    }
}

fn stats_count_processes_and_time() {
    let script = "n=0; while [ $n -lt 20000 ]; do n=$((n+1)); done; sleep 1000 & sleep 1000 & \
                  echo done; wait";
    let bundle = Bundle::new(script);
    let mut run = Running::spawn(&mut crate::caller::run(&bundle), Stdio::null());
    assert_eq!(run.line(), "done");
    let data = stats(&bundle);
    assert_eq!(data["pids"]["current"], 3);
    let usage = &data["cpu"]["usage"];
    let [total, user, kernel] = ["total", "user", "kernel"].map(|key| usage[key].as_u64().unwrap());
    // Nanoseconds: the loop takes more than a millisecond, and less than a minute.
    assert!((1_000_000..60_000_000_000).contains(&total), "{data}");
    assert!(user > 0 && user + kernel <= total + 2000, "{data}");
    bundle.parhelion(&["kill", &bundle.id, "KILL"]).success();
    run.ends_with(137);
}

fn the_stream_has_stats_in_its_interval_and_ends_with_the_container() {
    let bundle = Bundle::new("sleep 1000");
    start(&bundle);
    let mut events = events(&bundle, &["--interval=50ms", "--pressure=none"]);
    for _ in 0..3 {
        assert_eq!(event(&events.line())["type"], "stats");
    }
    bundle.parhelion(&["kill", &bundle.id, "KILL"]).success();
    events.ends_with(0);
}

fn pressure_is_told_while_processes_wait_for_a_processor() {
    let bundle = Bundle::new(
        "n=0; while [ $n -lt $((4 * $(busybox nproc))) ]; do (while :; do :; done) & n=$((n+1)); done; wait",
    );
    start(&bundle);
    let flags = [
        "--interval=0",
        "--pressure=cpu=20ms/2s",
        "--pressure=io:full=10s/10s",
    ];
    let mut events = events(&bundle, &flags);
    let told = event(&events.line());
    assert_eq!(
        (&told["type"], &told["id"]),
        (&json!("pressure"), &json!(bundle.id))
    );
    let data = &told["data"];
    assert_eq!(
        (&data["resource"], &data["kind"]),
        (&json!("cpu"), &json!("some"))
    );
    assert_eq!(
        (&data["stall_us"], &data["window_us"]),
        (&json!(20_000), &json!(2_000_000))
    );
    assert!(
        data["psi"]["some"]["total"].as_u64().unwrap() >= 20_000,
        "{data}"
    );
    bundle.parhelion(&["kill", &bundle.id, "KILL"]).success();
    let (status, rest, errors) = events.end();
    assert!(status.success(), "{errors}");
    for line in rest.lines() {
        assert_eq!(event(line)["data"]["resource"], "cpu");
    }
}

/// Without stats it sleeps in one call until something happens, for as long as nothing does.
fn the_stream_waits_without_looking() {
    let bundle = Bundle::new("read line < /tmp/go");
    let fifo = bundle.folder.join("rootfs/tmp/go");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::from(0o666)).unwrap();
    start(&bundle);
    let trace = bundle.folder.join("trace");
    let mut strace = Command::new("strace");
    strace.args([
        "-e",
        "trace=poll,ppoll,select,pselect6,epoll_wait,nanosleep,clock_nanosleep",
    ]);
    strace.arg("-o").arg(&trace).arg(program());
    strace.arg("--root").arg(bundle.folder.join("state"));
    strace.args(["events", "--interval=0", &bundle.id]);
    let mut events = Running::spawn(&mut strace, Stdio::null());
    // Time goes by, in which nothing happens: this one's intervals measure it.
    let other = self::events(&bundle, &["--interval=300ms", "--pressure=none"]);
    for _ in 0..3 {
        other.line();
    }
    fs::write(&fifo, "go\n").unwrap();
    events.ends_with(0);
    let trace = fs::read_to_string(trace).unwrap();
    // Whether the container lives is asked without waiting.
    let waits = |line: &&str| !line.contains("{tv_sec=0, tv_nsec=0}") && !line.contains("+++");
    let waits: Vec<&str> = trace.lines().filter(waits).collect();
    assert!((1..5).contains(&waits.len()), "{trace}");
    for wait in waits {
        let until_something_happens = wait.contains("poll(") && wait.contains(", NULL, ");
        assert!(until_something_happens, "{trace}");
    }
}

fn thresholds_and_intervals_that_mean_nothing_are_refused() {
    let bundle = Bundle::new("sleep 1000");
    start(&bundle);
    for (flag, words) in [
        ("--interval=5", "--interval: must be a time"),
        ("--interval=-1s", "--interval: must be a time"),
        ("--pressure=disk=1s/2s", "--pressure: must be none, or as"),
        (
            "--pressure=cpu=1s/20s",
            "--pressure: must be a stall within a window",
        ),
    ] {
        let told = bundle.parhelion(&["events", flag, &bundle.id]).failure();
        assert!(told.contains(words), "{flag}: {told}");
    }
}

fn a_container_that_has_stopped_has_no_events() {
    let bundle = Bundle::new("true");
    let ask = |flag| bundle.parhelion(&["events", flag, &bundle.id]).failure();
    assert!(ask("--stats").contains("does not exist"));
    start(&bundle);
    wait_for_end(&bundle);
    for flag in ["--stats", "--interval=1s"] {
        assert!(ask(flag).ends_with("container not running\n"));
    }
}

const MIB: u64 = 1 << 20;

/// A container that takes more memory than it may have, at the writing of a line to /tmp/go.
fn greedy(script: &str) -> Bundle {
    let bundle = Bundle::new(script);
    let fifo = bundle.folder.join("rootfs/tmp/go");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::from(0o666)).unwrap();
    bundle.edit(|config| {
        config["linux"]["resources"]["memory"] = json!({"limit": 32 * MIB, "swap": 32 * MIB});
    });
    bundle
}

/// The next line that is no pressure, which comes along with the want of memory.
fn next(events: &Running) -> String {
    loop {
        let line = events.line();
        if event(&line)["type"] != "pressure" {
            return line;
        }
    }
}

fn stats_have_the_figures_of_every_controller() {
    let bundle = greedy("sleep 1000");
    bundle.edit(|config| {
        let resources = config["linux"]["resources"].as_object_mut().unwrap();
        resources.insert("pids".into(), json!({"limit": 99}));
        resources.insert("cpu".into(), json!({"quota": 50000, "cpus": "0"}));
    });
    start(&bundle);
    let data = stats(&bundle);
    assert_eq!(data["pids"], json!({"current": 1, "limit": 99}));
    assert_eq!(data["cpuset"]["cpus"], json!([0]));
    let usage = &data["memory"]["usage"];
    assert_eq!(usage["limit"], 32 * MIB);
    let used = usage["usage"].as_u64().unwrap();
    assert!((4096..32 * MIB).contains(&used), "{data}");
    assert!(usage["max"].as_u64().unwrap() >= used, "{data}");
    let raw = data["memory"]["raw"].as_object().unwrap();
    for key in ["anon", "file", "kernel_stack", "pgfault"] {
        assert!(raw[key].is_u64(), "{key}: {data}");
    }
    assert_eq!(data["memory"]["swap"]["limit"], 32 * MIB);
}

fn a_kill_for_want_of_memory_is_told() {
    let bundle = greedy("read line < /tmp/go; busybox tail /dev/zero; sleep 1000");
    start(&bundle);
    let mut events = events(&bundle, &["--interval=100ms"]);
    assert_eq!(event(&next(&events))["type"], "stats");
    fs::write(bundle.folder.join("rootfs/tmp/go"), "go\n").unwrap();
    let oom = format!("{{\"type\":\"oom\",\"id\":\"{}\"}}", bundle.id);
    while next(&events) != oom {}
    assert_eq!(bundle.status(), "running");
    bundle.parhelion(&["kill", &bundle.id, "KILL"]).success();
    let (status, rest, _) = events.end();
    assert!(
        status.success() && !rest.contains("oom"),
        "told twice: {rest}"
    );
}

fn the_kill_that_ends_the_container_is_told_before_the_end() {
    let bundle = greedy("read line < /tmp/go; exec busybox tail /dev/zero");
    start(&bundle);
    let mut events = events(&bundle, &["--interval=100ms"]);
    next(&events);
    fs::write(bundle.folder.join("rootfs/tmp/go"), "go\n").unwrap();
    let (status, told, _) = events.end();
    assert!(status.success());
    assert_eq!(told.matches("\"type\":\"oom\"").count(), 1, "{told}");
}
