//! Docker, with the runtime as its default: what happens to a container that runs.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use libtest_mimic::Trial;
use serde_json::json;

use super::docker::{Container, docker, prepare};
use super::{IMAGE, archive, ask, call, cgroup_of, host, limit, runtime};
use crate::caller::Running;
use crate::support::{Ran, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        docker_pauses_and_goes_on,
        docker_update_changes_limits,
        docker_signals_stops_starts_and_restarts,
        docker_starts_again_what_failed,
        docker_tells_a_kill_for_want_of_memory,
        docker_checks_the_health,
        docker_with_cgroups_of_its_own_and_a_hook_for_gpus,
    ]
}

fn docker_pauses_and_goes_on() {
    let container = Container::start("pauses", &[], "sleep 1000");
    let pid = container.pid();
    docker(&["pause", "pauses"]);
    assert_eq!(limit(&pid, "cgroup.freeze"), "1");
    assert_eq!(container.inspect("{{.State.Status}}"), "paused");
    let error = container.exec(&["true"]).failure();
    assert!(error.contains("is paused"), "{error}");
    docker(&["unpause", "pauses"]);
    assert_eq!(limit(&pid, "cgroup.freeze"), "0");
    container.exec(&["true"]).success();
}

fn docker_update_changes_limits() {
    let container = Container::start("updates", &["--memory", "50m"], "sleep 1000");
    let pid = container.pid();
    assert!(cgroup_of(&pid).ends_with(format!(
        "system.slice/docker-{}.scope",
        container.inspect("{{.Id}}")
    )));
    assert_eq!(limit(&pid, "memory.max"), "52428800");
    let flags = ["--memory", "100m", "--memory-swap", "200m", "--cpus", "0.5"];
    let more = [
        "--pids-limit",
        "50",
        "--cpu-shares",
        "512",
        "--cpuset-cpus",
        "0",
    ];
    docker(&[&["update"], &flags[..], &more, &["updates"]].concat());
    for (file, value) in [
        ("memory.max", "104857600"),
        ("memory.swap.max", "104857600"),
        ("cpu.max", "50000 100000"),
        ("pids.max", "50"),
        ("cpu.weight", "59"),
        ("cpuset.cpus", "0"),
    ] {
        assert_eq!(limit(&pid, file), value, "{file}");
    }
}

fn docker_signals_stops_starts_and_restarts() {
    let script = "trap 'echo has USR1' USR1; trap 'echo has TERM; exit 5' TERM; echo ready; \
        while :; do sleep 1000 & wait; done";
    let container = Container::start("signals", &[], script);
    let first = container.pid();
    let lines = container.follow();
    assert_eq!(lines.line(), "ready");
    docker(&["kill", "--signal", "USR1", "signals"]);
    assert_eq!(lines.line(), "has USR1");
    docker(&["stop", "signals"]);
    assert_eq!(lines.line(), "has TERM");
    assert_eq!(
        container.inspect("{{.State.Status}} {{.State.ExitCode}}"),
        "exited 5"
    );
    let gone = call(&["docker", "kill", "signals"]).failure();
    assert!(gone.contains("is not running"), "{gone}");

    docker(&["start", "signals"]);
    let second = container.pid();
    docker(&["restart", "--time", "0", "signals"]);
    let third = container.pid();
    assert!(
        first != second && second != third,
        "{first} {second} {third}"
    );
    docker(&["kill", "signals"]);
    docker(&["wait", "signals"]);
    assert_eq!(container.inspect("{{.State.ExitCode}}"), "137");
}

fn docker_starts_again_what_failed() {
    let container = Container::start("fails", &["--restart", "on-failure:2"], "echo once; exit 3");
    assert_eq!(docker(&["wait", "fails"]), "3");
    assert_eq!(container.inspect("{{.RestartCount}}"), "2");
    assert_eq!(docker(&["logs", "fails"]), "once\nonce\nonce");
}

/// Of a process and not of all: of a container that ends with it, the shim may come too late to hear.
fn docker_tells_a_kill_for_want_of_memory() {
    let script = "(x=a; while :; do x=$x$x; done); echo $?; exec sleep 1000";
    let container = Container::start("eats", &["--memory", "20m"], script);
    let filters = ["--filter", "container=eats", "--filter", "event=oom"];
    let format = ["--since", "1h", "--format", "{{.Action}}"];
    let words = [&["docker", "events"], &filters[..], &format].concat();
    let events = Running::spawn(&mut host(&words), Stdio::null());
    assert_eq!(container.follow().line(), "137");
    assert_eq!(events.line(), "oom");
}

fn docker_checks_the_health() {
    let flags = [
        "--health-cmd",
        "echo looked; test -e /tmp/well",
        "--health-interval",
        "1s",
    ];
    let flags = [&flags[..], &["--health-retries", "1"]].concat();
    let container = Container::start("ails", &flags, "sleep 1000");
    let filters = [
        "--filter",
        "container=ails",
        "--filter",
        "event=health_status",
    ];
    let format = ["--since", "1h", "--format", "{{.Action}}"];
    let words = [&["docker", "events"], &filters[..], &format].concat();
    let events = Running::spawn(&mut host(&words), Stdio::null());
    assert_eq!(events.line(), "health_status: unhealthy");
    let log = container.inspect("{{range .State.Health.Log}}{{.ExitCode}} {{.Output}}{{end}}");
    assert!(log.contains("1 looked"), "{log}");
    container.exec(&["touch", "/tmp/well"]).success();
    assert_eq!(events.line(), "health_status: healthy");
}

/// A second dockerd, which makes cgroups itself and finds a hook of nvidia's name on its PATH.
struct Second {
    folder: &'static str,
    socket: String,
}

impl Second {
    fn start() -> Second {
        prepare(); // containerd is there, and the network's rules are not made twice at a time
        let folder = "/run/second-docker";
        let below = |name: &str| format!("{folder}/{name}");
        fs::create_dir_all(below("bin")).unwrap();
        let hook = below("bin/nvidia-container-runtime-hook");
        let script = format!("#!/bin/sh\ncat >{folder}/seen\necho \"no driver: $1\" >&2\nexit 1\n");
        fs::write(&hook, script).unwrap();
        fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
        let socket = format!("unix://{}", below("docker.sock"));
        let config = below("daemon.json");
        let settings = json!({
            "runtimes": {"parhelion": {"path": runtime()}}, "default-runtime": "parhelion",
            "exec-opts": ["native.cgroupdriver=cgroupfs"]});
        fs::write(&config, settings.to_string()).unwrap();
        let path = format!(
            "--setenv=PATH={}:/usr/sbin:/usr/bin:/sbin:/bin",
            below("bin")
        );
        let (exec, pid) = (below("exec"), below("pid"));
        let unit = [
            "systemd-run",
            "--quiet",
            "--collect",
            "--unit=second-docker",
        ];
        let kind = ["--property=Type=notify", "--property=Delegate=yes", &path];
        let dockerd = ["dockerd", "--config-file", &config, "--host", &socket];
        let own = [
            "--data-root",
            "/var/lib/second-docker",
            "--exec-root",
            &exec,
            "--pidfile",
            &pid,
        ];
        let network = ["--bridge", "none", "--iptables=false"];
        let names = [
            "--containerd-namespace",
            "second",
            "--containerd-plugins-namespace",
            "second-plugins",
        ];
        let containerd = ["--containerd", "/run/containerd/containerd.sock"];
        ask(&[
            &unit[..],
            &kind,
            &dockerd,
            &own,
            &network,
            &names,
            &containerd,
        ]
        .concat());
        let second = Second { folder, socket };
        let archive = archive().to_str().unwrap();
        second
            .docker(&["load", "--quiet", "--input", archive])
            .success();
        second
    }

    fn docker(&self, words: &[&str]) -> Ran {
        call(&[&["docker", "--host", &self.socket], words].concat())
    }

    fn run(&self, flags: &[&str], command: &[&str]) -> Ran {
        let run = ["run", "--network", "none"];
        self.docker(&[&run, flags, &[IMAGE], command].concat())
    }
}

impl Drop for Second {
    fn drop(&mut self) {
        call(&["systemctl", "stop", "second-docker.service"]);
    }
}

fn docker_with_cgroups_of_its_own_and_a_hook_for_gpus() {
    let second = Second::start();
    let driver = second.docker(&["info", "--format", "{{.CgroupDriver}} {{.DefaultRuntime}}"]);
    assert_eq!(driver.success(), "cgroupfs parhelion\n");

    let flags = ["--detach", "--name", "own", "--memory", "50m"];
    let id = second.run(&flags, &["sleep", "1000"]).success();
    let pid = second
        .docker(&["inspect", "--format", "{{.State.Pid}}", "own"])
        .success();
    let pid = pid.trim();
    assert_eq!(
        cgroup_of(pid),
        Path::new("/sys/fs/cgroup/docker").join(id.trim())
    );
    assert_eq!(limit(pid, "memory.max"), "52428800");
    second
        .docker(&["update", "--pids-limit", "30", "own"])
        .success();
    assert_eq!(limit(pid, "pids.max"), "30");
    let cgroup = second.docker(&["exec", "own", "cat", "/proc/self/cgroup"]);
    assert_eq!(cgroup.success(), "0::/\n");
    second.docker(&["rm", "--force", "own"]).success();
    assert!(!Path::new("/sys/fs/cgroup/docker").join(id.trim()).exists());

    // The hook fails: so does the start, with the hook's own words.
    let ran = second.run(&["--rm", "--gpus", "all"], &["true"]);
    let error = ran.failure();
    assert!(error.contains("hooks.prestart[0]"), "{error}");
    assert!(error.contains("no driver: prestart"), "{error}");
    let seen = fs::read_to_string(format!("{}/seen", second.folder)).unwrap();
    let state: serde_json::Value = serde_json::from_str(&seen).unwrap();
    assert!(
        state["bundle"].is_string() && state["pid"].is_number(),
        "{seen}"
    );
}
