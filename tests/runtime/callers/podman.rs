//! Podman as root, with the runtime as its default: containers of their own.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;
use std::sync::OnceLock;

use libtest_mimic::Trial;

use super::{IMAGE, archive, ask, call, cgroup_of, host, limit, setting};
use crate::caller::Running;
use crate::support::{Ran, tests};
use crate::terminal::Pty;

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        podman_run_gives_back_output_and_code,
        podman_executes_further_programs_and_tells_of_a_container,
        podman_pauses_and_updates,
        podman_signals_stops_and_starts_again,
        podman_checks_the_health,
        podman_run_knows_init_read_only_and_tmpfs,
        podman_run_takes_a_terminal,
        podman_run_gives_each_container_ids_of_its_own,
        podman_makes_cgroups_itself_where_it_is_told_to,
        podman_run_does_without_a_cgroup,
        podman_writes_a_container_down_and_lets_it_go_on,
    ]
}

/// Podman, set up as the documentation says, and its image; once.
pub fn prepare() {
    static READY: OnceLock<()> = OnceLock::new();
    READY.get_or_init(|| {
        let file = "/etc/containers/containers.conf.d/parhelion.conf";
        fs::create_dir_all("/etc/containers/containers.conf.d").unwrap();
        fs::write(file, setting(file)).unwrap();
        let archive = archive().to_str().unwrap();
        ask(&["podman", "load", "--quiet", "--input", archive]);
    });
}

/// `podman` with these words.
pub fn podman(words: &[&str]) -> String {
    prepare();
    ask(&[&["podman"], words].concat())
}

/// `podman run` with these flags, of the image, with this command; without a network of its own,
/// which takes seconds.
fn run(flags: &[&str], command: &[&str]) -> Ran {
    prepare();
    let run = ["podman", "run", "--rm", "--network", "none"];
    call(&[&run, flags, &[IMAGE], command].concat())
}

/// A container in the background, removed on drop.
pub struct Container(&'static str);

impl Container {
    pub fn start(name: &'static str, flags: &[&str], script: &str) -> Container {
        prepare();
        let container = Container(name);
        let run = ["run", "--detach", "--name", name];
        podman(&[&run, flags, &[IMAGE, "sh", "-c", script]].concat());
        container
    }

    /// A container that shares nothing, not even a network.
    fn alone(name: &'static str, flags: &[&str], script: &str) -> Container {
        Container::start(name, &[&["--network", "none"], flags].concat(), script)
    }

    fn exec(&self, command: &[&str]) -> Ran {
        call(&[&["podman", "exec", self.0], command].concat())
    }

    /// Some fields, as a template of Go.
    pub fn inspect(&self, template: &str) -> String {
        podman(&["inspect", "--format", template, self.0])
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        call(&["podman", "rm", "--force", "--time", "0", self.0]);
    }
}

fn podman_run_gives_back_output_and_code() {
    assert_eq!(
        podman(&["info", "--format", "{{.Host.OCIRuntime.Name}}"]),
        "parhelion"
    );
    // With Podman's own network.
    let script = "echo out; echo err >&2; busybox ip -o link show eth0 >/dev/null && exit 7";
    let ran = call(&["podman", "run", "--rm", IMAGE, "sh", "-c", script]);
    let told = (ran.0.stdout.as_slice(), ran.stderr());
    assert_eq!(
        (ran.code(), told),
        (Some(7), (&b"out\n"[..], "err\n".to_owned()))
    );

    for (program, code, words) in [
        (
            "nosuch",
            127,
            "exec: \"nosuch\": executable file not found in $PATH",
        ),
        (
            "/etc/passwd",
            126,
            "exec: \"/etc/passwd\": permission denied",
        ),
    ] {
        let ran = run(&[], &[program]);
        assert!(ran.stderr().contains(words), "{}", ran.stderr());
        assert_eq!(ran.code(), Some(code), "{}", ran.stderr());
    }
}

fn podman_executes_further_programs_and_tells_of_a_container() {
    // A container that may have systemd inside can divide its cgroup.
    let flags = ["--memory", "100m", "--systemd", "always"];
    let container = Container::alone("asked", &flags, "echo out; exec sleep 1000");
    container
        .exec(&["busybox", "mkdir", "/sys/fs/cgroup/below"])
        .success();
    let flags = [
        "--env",
        "A=b",
        "--workdir",
        "/tmp",
        "--user",
        "5:6",
        "--interactive",
    ];
    let script = "echo $A; pwd; id -u; id -g; cat /proc/self/cgroup; cat; exit 9";
    let words = [
        &["podman", "exec"],
        &flags[..],
        &["asked", "sh", "-c", script],
    ]
    .concat();
    let mut exec = Running::spawn(&mut host(&words), Stdio::piped());
    exec.stdin().write_all(b"in and out\n").unwrap();
    let (status, out, errors) = exec.end();
    assert_eq!(out, "b\n/tmp\n5\n6\n0::/\nin and out", "{errors}");
    assert_eq!(status.code(), Some(9));
    let none = container.exec(&["nosuch"]);
    let words = "exec: \"nosuch\": executable file not found in $PATH";
    assert!(none.stderr().contains(words), "{}", none.stderr());
    assert_eq!(none.code(), Some(127));

    assert_eq!(podman(&["logs", "asked"]), "out");
    let top = podman(&["top", "asked", "pid", "args"]);
    let words: Vec<&str> = top.split_whitespace().collect();
    assert_eq!(words, ["PID", "COMMAND", "1", "sleep", "1000"]);
    let template = "{{.PIDs}} {{.MemUsage}}";
    let stats = podman(&["stats", "--no-stream", "--format", template, "asked"]);
    let words: Vec<&str> = stats.split_whitespace().collect();
    assert_eq!((words[0], words[3]), ("1", "104.9MB"), "{stats}");
    assert_ne!(words[1], "0B", "{stats}");
}

fn podman_pauses_and_updates() {
    let container = Container::alone("changed", &["--memory", "50m"], "sleep 1000");
    let pid = container.inspect("{{.State.Pid}}");
    let scope = format!(
        "machine.slice/libpod-{}.scope",
        container.inspect("{{.Id}}")
    );
    let cgroup = cgroup_of(&pid);
    assert!(cgroup.ends_with(&scope), "{cgroup:?}");
    assert_eq!(limit(&pid, "memory.max"), "52428800");

    podman(&["pause", "changed"]);
    assert_eq!(limit(&pid, "cgroup.freeze"), "1");
    assert_eq!(container.inspect("{{.State.Status}}"), "paused");
    podman(&["unpause", "changed"]);
    assert_eq!(limit(&pid, "cgroup.freeze"), "0");

    let flags = ["--memory", "100m", "--cpus", "0.5", "--pids-limit", "50"];
    let more = ["--cpu-shares", "512", "--cpuset-cpus", "0"];
    podman(&[&["update"], &flags[..], &more, &["changed"]].concat());
    for (file, value) in [
        ("memory.max", "104857600"),
        ("cpu.max", "50000 100000"),
        ("pids.max", "50"),
        ("cpu.weight", "59"),
        ("cpuset.cpus", "0"),
    ] {
        assert_eq!(limit(&pid, file), value, "{file}");
    }
}

fn podman_signals_stops_and_starts_again() {
    let script = "trap 'echo has USR1' USR1; trap 'echo has TERM; exit 5' TERM; echo ready; \
        while :; do sleep 1000 & wait; done";
    let container = Container::alone("signals", &[], script);
    let first = container.inspect("{{.State.Pid}}");
    let logs = || {
        Running::spawn(
            &mut host(&["podman", "logs", "--follow", "signals"]),
            Stdio::null(),
        )
    };
    let lines = logs();
    assert_eq!(lines.line(), "ready");
    podman(&["kill", "--signal", "USR1", "signals"]);
    assert_eq!(lines.line(), "has USR1");
    podman(&["stop", "signals"]);
    assert_eq!(lines.line(), "has TERM");
    assert_eq!(
        container.inspect("{{.State.Status}} {{.State.ExitCode}}"),
        "exited 5"
    );
    podman(&["start", "signals"]);
    let second = container.inspect("{{.State.Pid}}");
    podman(&["restart", "--time", "0", "signals"]);
    let third = container.inspect("{{.State.Pid}}");
    assert!(
        first != second && second != third,
        "{first} {second} {third}"
    );
}

fn podman_checks_the_health() {
    let flags = [
        "--health-cmd",
        "echo looked; test -e /tmp/well",
        "--health-interval",
        "disable",
    ];
    let flags = [&flags[..], &["--health-retries", "1"]].concat();
    let container = Container::alone("ails", &flags, "sleep 1000");
    assert_eq!(
        call(&["podman", "healthcheck", "run", "ails"]).code(),
        Some(1)
    );
    let health =
        "{{.State.Health.Status}} {{range .State.Health.Log}}{{.ExitCode}} {{.Output}}{{end}}";
    let told = container.inspect(health);
    assert!(told.starts_with("unhealthy 1 looked"), "{told}");
    container.exec(&["touch", "/tmp/well"]).success();
    podman(&["healthcheck", "run", "ails"]);
    assert!(container.inspect(health).starts_with("healthy"));
}

fn podman_run_knows_init_read_only_and_tmpfs() {
    // Podman's own init, catatonit, is a package of its own; Docker's comes with Docker.
    let init = ["--init", "--init-path", "/usr/bin/docker-init"];
    let flags = [
        &init[..],
        &["--read-only", "--tmpfs", "/tmp:size=1m,mode=700"],
    ]
    .concat();
    let script = "cat /proc/1/cmdline | busybox tr '\\0' ' '; echo $$; touch /no 2>&1; \
        touch /tmp/yes && ls /tmp; stat -c %a /tmp; busybox df -k /tmp | busybox awk 'END { print $2 }'";
    let told = run(&flags, &["sh", "-c", script]).success();
    let lines: Vec<&str> = told.lines().collect();
    let [first, refused, seen, mode, size] = lines[..] else {
        panic!("{told}")
    };
    assert!(first.starts_with("/run/podman-init -- sh -c"), "{told}");
    assert_ne!(first.split_whitespace().last(), Some("1"), "{told}");
    assert!(refused.contains("Read-only file system"), "{told}");
    assert_eq!((seen, mode, size), ("yes", "700", "1024"));
}

fn podman_run_takes_a_terminal() {
    prepare();
    let mut pty = Pty::new();
    pty.resize(33, 99);
    let script = "busybox tty; busybox stty size; read line; echo got $line; exit 3";
    let run = ["podman", "run", "--rm", "--network", "none", "-it"];
    let command = host(&[&run[..], &[IMAGE, "sh", "-c", script]].concat());
    let mut podman = pty.start(&command);
    assert_eq!(pty.line(), "/dev/pts/0");
    assert_eq!(pty.line(), "33 99");
    pty.type_keys(b"words\r");
    assert_eq!(pty.line(), "words"); // the echo
    assert_eq!(pty.line(), "got words");
    assert_eq!(podman.code(), Some(3));
}

fn podman_run_gives_each_container_ids_of_its_own() {
    for file in ["/etc/subuid", "/etc/subgid"] {
        let mut file = fs::OpenOptions::new().append(true).open(file).unwrap();
        file.write_all(b"containers:500000:65536\n").unwrap();
    }
    let script =
        "busybox awk '{ print $1, $2, $3 }' /proc/self/uid_map; id -u; touch /x && stat -c %u /x";
    let told = run(&["--userns", "auto:size=1000"], &["sh", "-c", script]).success();
    assert_eq!(told, "0 500000 1000\n0\n0\n");
}

fn podman_makes_cgroups_itself_where_it_is_told_to() {
    prepare();
    let flags = [
        "--detach",
        "--network",
        "none",
        "--name",
        "plain",
        "--memory",
        "50m",
    ];
    let run = ["podman", "--cgroup-manager", "cgroupfs", "run"];
    let container = Container("plain");
    ask(&[&run[..], &flags, &[IMAGE, "sleep", "1000"]].concat());
    let pid = container.inspect("{{.State.Pid}}");
    let cgroup = cgroup_of(&pid);
    let below = format!("libpod_parent/libpod-{}", container.inspect("{{.Id}}"));
    assert_eq!(cgroup, Path::new("/sys/fs/cgroup").join(below));
    assert_eq!(limit(&pid, "memory.max"), "52428800");
    drop(container);
    assert!(!cgroup.exists());
}

fn podman_run_does_without_a_cgroup() {
    prepare();
    let folder = std::env::temp_dir().join("parhelion-volume");
    fs::create_dir(&folder).unwrap();
    let node = folder.join("zero");
    ask(&["mknod", "-m", "666", node.to_str().unwrap(), "c", "1", "5"]);
    let volume = format!("{}:/volume", folder.display());
    let flags = ["--cgroups=disabled", "--volume", &volume];
    let container = Container::alone("without", &flags, "exec sleep 1000");
    let pid = container.inspect("{{.State.Pid}}");
    assert_eq!(cgroup_of(&pid), cgroup_of("self"));
    let script = "(: </dev/zero) && echo dev; (: </volume/zero) || stat -c %F /volume/zero";
    let told = container.exec(&["sh", "-c", script]).success();
    assert_eq!(told, "dev\ncharacter special file\n");
    podman(&["stop", "--time", "0", "without"]);
    drop(container);
    let disabled = ["--cgroups=disabled"];
    assert_eq!(run(&disabled, &["sh", "-c", "exit 4"]).code(), Some(4));
    // What would undo it is refused, and Podman says why.
    for capability in ["MKNOD", "SYS_ADMIN"] {
        let ran = run(
            &[&disabled[..], &["--cap-add", capability]].concat(),
            &["true"],
        );
        assert_eq!(ran.code(), Some(126), "{}", ran.stderr());
        let told = format!("process.capabilities without CAP_{capability}");
        assert!(ran.stderr().contains(&told), "{}", ran.stderr());
    }
    fs::remove_dir_all(folder).unwrap();
}

fn podman_writes_a_container_down_and_lets_it_go_on() {
    let script = "busybox mkfifo /tmp/ask; exec 3<>/tmp/ask; i=0; \
        while read -r line <&3; do i=$((i + 1)); echo $line $i >>/tmp/said; done";
    let container = Container::alone("counts", &[], script);
    let ask = |word: &str| {
        let script = "until test -p /tmp/ask; do :; done; echo $0 >/tmp/ask; \
            until busybox grep -qs $0 /tmp/said; do :; done; cat /tmp/said";
        container.exec(&["sh", "-c", script, word]).success()
    };
    assert_eq!(ask("one"), "one 1\n");
    podman(&["container", "checkpoint", "counts"]);
    let state = "{{.State.Status}} {{.State.Checkpointed}}";
    assert_eq!(container.inspect(state), "exited true");
    podman(&["container", "restore", "counts"]);
    assert_eq!(container.inspect(state), "running false");
    assert_eq!(ask("two"), "one 1\ntwo 2\n");
}
