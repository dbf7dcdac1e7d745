//! Docker, with the runtime as its default: what runs, and what can be asked and executed meanwhile.

use std::fs;
use std::io::Write;
use std::process::Stdio;
use std::sync::OnceLock;

use libtest_mimic::Trial;
use serde_json::Value;

use super::{IMAGE, archive, ask, call, ends_with, host, runtime, setting, start};
use crate::caller::Running;
use crate::support::{Ran, program, tests};
use crate::terminal::Pty;

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        docker_knows_what_the_runtime_says_of_itself,
        docker_run_gives_back_output_and_code,
        docker_run_finds_the_words_for_a_program_that_can_not_be_executed,
        docker_exec_runs_further_programs,
        docker_logs_stats_and_top_tell_of_a_container,
        docker_run_knows_init_read_only_and_tmpfs,
        docker_run_takes_a_terminal,
        docker_run_refuses_gpus_clearly,
    ]
}

/// dockerd, set up as the documentation says; once.
pub fn prepare() {
    static READY: OnceLock<()> = OnceLock::new();
    READY.get_or_init(|| {
        fs::create_dir_all("/etc/docker").unwrap();
        let settings = setting("/etc/docker/daemon.json");
        let mut settings: Value = serde_json::from_str(&settings).unwrap();
        // For `docker checkpoint`.
        settings["experimental"] = true.into();
        fs::write("/etc/docker/daemon.json", settings.to_string()).unwrap();
        super::containerd::settings();
        start(&["docker.socket", "docker.service"]);
        let archive = archive().to_str().unwrap();
        ask(&["docker", "load", "--quiet", "--input", archive]);
    });
}

/// `docker` with these words.
pub fn docker(words: &[&str]) -> String {
    prepare();
    ask(&[&["docker"], words].concat())
}

/// `docker run` with these flags, of the image, with this command; without a network of its own, which
/// takes a second.
pub fn run(flags: &[&str], command: &[&str]) -> Ran {
    prepare();
    let run = ["docker", "run", "--rm", "--network", "none"];
    call(&[&run, flags, &[IMAGE], command].concat())
}

/// A container in the background, removed on drop.
pub struct Container(pub &'static str);

impl Container {
    pub fn start(name: &'static str, flags: &[&str], script: &str) -> Container {
        prepare();
        let container = Container(name);
        let run = ["run", "--detach", "--network", "none", "--name", name];
        docker(&[&run, flags, &[IMAGE, "sh", "-c", script]].concat());
        container
    }

    pub fn exec(&self, command: &[&str]) -> Ran {
        call(&[&["docker", "exec", self.0], command].concat())
    }

    /// One field, as a template of Go.
    pub fn inspect(&self, template: &str) -> String {
        docker(&["inspect", "--format", template, self.0])
    }

    /// Init's pid.
    pub fn pid(&self) -> String {
        self.inspect("{{.State.Pid}}")
    }

    /// What is printed from the beginning on, as it comes.
    pub fn follow(&self) -> Running {
        Running::spawn(
            &mut host(&["docker", "logs", "--follow", self.0]),
            Stdio::null(),
        )
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        call(&["docker", "rm", "--force", self.0]);
    }
}

fn docker_knows_what_the_runtime_says_of_itself() {
    assert_eq!(
        docker(&["info", "--format", "{{.DefaultRuntime}}"]),
        "parhelion"
    );
    assert_eq!(
        docker(&["info", "--format", "{{.CgroupDriver}}"]),
        "systemd"
    );
    let components = docker(&["version", "--format", "{{json .Server.Components}}"]);
    let components: Value = serde_json::from_str(&components).unwrap();
    let all = components.as_array().unwrap();
    let ours = all.iter().find(|one| one["Name"] == "parhelion");
    let version = &ours.expect("no component is named parhelion")["Version"];
    assert_eq!(version, env!("CARGO_PKG_VERSION"));
}

fn docker_run_gives_back_output_and_code() {
    prepare();
    // With Docker's own network, and by the runtime's name.
    let script = "echo out; echo err >&2; busybox ip -o link show eth0 >/dev/null && exit 7";
    let run = ["docker", "run", "--rm", "--runtime", "parhelion", IMAGE];
    let ran = call(&[&run[..], &["sh", "-c", script]].concat());
    let told = (ran.0.stdout.as_slice(), ran.0.stderr.as_slice());
    assert_eq!(
        (ran.code(), told),
        (Some(7), (&b"out\n"[..], &b"err\n"[..]))
    );

    let cat = [
        "run",
        "--rm",
        "--network",
        "none",
        "--interactive",
        IMAGE,
        "cat",
    ];
    let mut cat = Running::spawn(&mut host(&[&["docker"], &cat[..]].concat()), Stdio::piped());
    let mut stdin = cat.stdin();
    stdin.write_all(b"in and out\n").unwrap();
    assert_eq!(cat.line(), "in and out");
    drop(stdin); // its end is passed on
    cat.ends_with(0);
}

fn docker_run_finds_the_words_for_a_program_that_can_not_be_executed() {
    let none = run(&[], &["nosuch"]);
    let words = "exec: \"nosuch\": executable file not found in $PATH";
    assert!(none.stderr().contains(words), "{}", none.stderr());
    assert_eq!(none.code(), Some(127));

    let denied = run(&[], &["/etc/passwd"]);
    let words = "exec: \"/etc/passwd\": permission denied";
    assert!(denied.stderr().contains(words), "{}", denied.stderr());
    assert_eq!(denied.code(), Some(126));

    // A file over a folder is nothing that can not be executed.
    let file = run(&["--volume", "/etc/passwd:/tmp"], &["true"]);
    let words = "Are you trying to mount a directory onto a file (or vice-versa)?";
    assert!(file.stderr().contains(words), "{}", file.stderr());
    assert_eq!(file.code(), Some(125));
}

fn docker_exec_runs_further_programs() {
    let container = Container::start("executes", &[], "sleep 1000");
    let flags = ["--env", "A=b", "--workdir", "/tmp", "--user", "5:6"];
    let script = "echo $A; pwd; id -u; id -g; exit 9";
    let words = [
        &["docker", "exec"],
        &flags[..],
        &["executes", "sh", "-c", script],
    ]
    .concat();
    let ran = call(&words);
    assert_eq!(String::from_utf8_lossy(&ran.0.stdout), "b\n/tmp\n5\n6\n");
    assert_eq!(ran.code(), Some(9), "{}", ran.stderr());

    // In the container's cgroup, as its first process is.
    assert_eq!(
        container.exec(&["cat", "/proc/self/cgroup"]).success(),
        "0::/\n"
    );

    let mut cat = host(&["docker", "exec", "--interactive", "executes", "cat"]);
    let mut cat = Running::spawn(&mut cat, Stdio::piped());
    cat.stdin().write_all(b"in and out\n").unwrap();
    assert_eq!(cat.line(), "in and out");
    cat.ends_with(0);

    // Docker has one code for all failures of an exec.
    let none = container.exec(&["nosuch"]);
    let told = String::from_utf8_lossy(&none.0.stdout).into_owned() + &none.stderr();
    let words = "exec: \"nosuch\": executable file not found in $PATH";
    assert!(told.contains(words), "{told}");
    assert_eq!(none.code(), Some(126));
}

fn docker_logs_stats_and_top_tell_of_a_container() {
    let container = Container::start(
        "looked-at",
        &["--memory", "100m"],
        "echo out; exec sleep 1000",
    );
    assert_eq!(container.follow().line(), "out");
    let template = "{{.PIDs}} {{.MemUsage}} {{.CPUPerc}}";
    let stats = docker(&["stats", "--no-stream", "--format", template, "looked-at"]);
    let words: Vec<&str> = stats.split_whitespace().collect();
    assert_eq!((words[0], words[3]), ("1", "100MiB"), "{stats}");
    assert_ne!(words[1], "0B", "{stats}");
    let top = docker(&["top", "looked-at", "-o", "pid,args"]);
    let lines: Vec<&str> = top.lines().skip(1).collect();
    let [only] = lines[..] else { panic!("{top}") };
    let (pid, args) = only.split_once(' ').unwrap();
    assert_eq!((pid, args.trim()), (&*container.pid(), "sleep 1000"));

    // It is a container of this runtime, whose state tells the same.
    let root = "/run/docker/runtime-runc/moby";
    let program = program();
    let words = [program.to_str().unwrap(), "--root", root, "state"];
    let id = container.inspect("{{.Id}}");
    let state: Value = serde_json::from_str(&ask(&[&words[..], &[&id]].concat())).unwrap();
    assert_eq!(state["status"], "running");
    assert_eq!(state["pid"].to_string(), pid);
}

fn docker_run_knows_init_read_only_and_tmpfs() {
    let flags = ["--init", "--read-only", "--tmpfs", "/tmp:size=1m,mode=700"];
    let script = "cat /proc/1/cmdline | busybox tr '\\0' ' '; echo $$; \
        touch /no 2>&1; touch /tmp/yes && ls /tmp; stat -c %a /tmp; \
        busybox df -k /tmp | busybox awk 'END { print $2 }'";
    let told = run(&flags, &["sh", "-c", script]).success();
    let lines: Vec<&str> = told.lines().collect();
    let [first, refused, seen, mode, size] = lines[..] else {
        panic!("{told}")
    };
    // It ends without an end of line: what follows is the shell's own pid.
    assert!(first.starts_with("/sbin/docker-init -- sh -c"), "{told}");
    assert_ne!(first.split_whitespace().last(), Some("1"), "{told}");
    assert!(refused.contains("Read-only file system"), "{told}");
    assert_eq!((seen, mode, size), ("yes", "700", "1024"));
}

fn docker_run_takes_a_terminal() {
    prepare();
    let mut pty = Pty::new();
    pty.resize(33, 99);
    let script = "busybox tty; busybox stty size; read line; echo got $line; \
        trap 'busybox stty size' WINCH; trap 'exit 3' INT; echo ready; while :; do sleep 1000 & wait; done";
    let run = [
        "docker",
        "run",
        "--rm",
        "--network",
        "none",
        "-it",
        "--name",
        "terminal",
    ];
    let command = host(&[&run[..], &[IMAGE, "sh", "-c", script]].concat());
    let mut docker = pty.start(&command);
    assert_eq!(pty.line(), "/dev/pts/0");
    assert_eq!(pty.line(), "33 99");

    let exec = Pty::new();
    let words = [
        "docker",
        "exec",
        "-it",
        "terminal",
        "sh",
        "-c",
        "busybox tty; exit 4",
    ];
    let mut second = exec.start(&host(&words));
    assert_eq!(exec.line(), "/dev/pts/1");
    assert_eq!(second.code(), Some(4));

    pty.type_keys(b"words\r");
    assert_eq!(pty.line(), "words"); // the echo
    assert_eq!(pty.line(), "got words");
    assert_eq!(pty.line(), "ready");
    pty.resize(50, 132);
    // Docker also says again what the size was at first.
    while pty.line() != "50 132" {}
    pty.type_keys(b"\x03");
    assert_eq!(docker.code(), Some(3));
}

fn docker_run_refuses_gpus_clearly() {
    prepare();
    let error = ends_with(
        125,
        &["docker", "run", "--rm", "--gpus", "all", IMAGE, "true"],
    );
    let words = "could not select device driver \"\" with capabilities: [[gpu]]";
    assert!(error.contains(words), "{error}");
    assert!(!error.contains(&runtime()), "{error}");
}
