//! containerd with the shim that it has for runc, which is told our program by BinaryName.

use std::fs;
use std::process::Stdio;
use std::sync::OnceLock;

use libtest_mimic::Trial;

use super::{
    IMAGE, archive, ask, call, cgroup_of, ends_with, host, limit, runtime, setting, start,
};
use crate::caller::Running;
use crate::support::{Ran, tests};
use crate::terminal::Pty;

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        containerd_runs_executes_and_deletes,
        containerd_pauses_measures_and_signals,
        containerd_makes_scopes_through_systemd,
        containerd_takes_a_terminal,
        containerd_tells_a_kill_for_want_of_memory,
        containerd_knows_the_runtime_by_its_settings,
    ]
}

/// containerd's settings are those of the documentation; before it is started, also by Docker's service.
pub fn settings() {
    static WRITTEN: OnceLock<()> = OnceLock::new();
    WRITTEN.get_or_init(|| {
        let file = "/etc/containerd/config.toml";
        fs::create_dir_all("/etc/containerd").unwrap();
        fs::write(file, setting(file)).unwrap();
    });
}

/// containerd with its image; once.
fn prepare() {
    static READY: OnceLock<()> = OnceLock::new();
    READY.get_or_init(|| {
        settings();
        start(&["containerd.service"]);
        ask(&["ctr", "images", "import", archive().to_str().unwrap()]);
    });
}

/// `ctr run` with these flags, of the image, with this id and command.
fn run(flags: &[&str], id: &str, command: &[&str]) -> Ran {
    prepare();
    let runtime = runtime();
    let run = ["ctr", "run", "--runc-binary", &runtime];
    call(&[&run, flags, &[IMAGE, id], command].concat())
}

/// A task, deleted on drop.
pub struct Task(pub &'static str);

impl Task {
    fn start(id: &'static str, flags: &[&str]) -> Task {
        Task::running(id, flags, "sleep 1000")
    }

    /// One that runs this script.
    pub fn running(id: &'static str, flags: &[&str], script: &str) -> Task {
        let task = Task(id);
        let flags = [&["--detach"], flags].concat();
        run(&flags, id, &["sh", "-c", script]).success();
        task
    }

    pub fn exec(&self, flags: &[&str], name: &str, command: &[&str]) -> Ran {
        let exec = ["ctr", "task", "exec", "--exec-id", name];
        call(&[&exec, flags, &[self.0], command].concat())
    }

    /// Its pid and status.
    fn listed(&self) -> (String, String) {
        let all = ask(&["ctr", "task", "list"]);
        let mut rows = all.lines().map(|line| line.split_whitespace());
        let row = rows.find(|row| row.clone().next() == Some(self.0));
        let mut row = row
            .unwrap_or_else(|| panic!("no {} in {all}", self.0))
            .skip(1);
        (
            row.next().unwrap().to_owned(),
            row.next().unwrap().to_owned(),
        )
    }

    pub fn status(&self) -> String {
        self.listed().1
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        call(&["ctr", "task", "delete", "--force", self.0]);
        call(&["ctr", "container", "delete", self.0]);
    }
}

/// What happens in containerd from now on, line by line. It is heard when events made for this are: that
/// of namespaces, which cost little.
fn listen(name: &str) -> Running {
    let events = Running::spawn(&mut host(&["ctr", "events"]), Stdio::null());
    for number in 0.. {
        ask(&["ctr", "namespaces", "create", &format!("{name}-{number}")]);
        if events.has_line() {
            break;
        }
    }
    events
}

fn containerd_runs_executes_and_deletes() {
    let script = ["sh", "-c", "echo out; echo err >&2; exit 7"];
    let ran = run(&["--rm"], "once", &script);
    let told = (ran.0.stdout.as_slice(), ran.stderr());
    assert_eq!(
        (ran.code(), told),
        (Some(7), (&b"out\n"[..], "err\n".to_owned()))
    );
    let none = run(&["--rm"], "none", &["nosuch"]).failure();
    let words = "OCI runtime create failed: create \"none\": exec: \"nosuch\": executable file not found in $PATH";
    assert!(none.contains(words), "{none}");

    let task = Task::start("executed", &[]);
    let script = ["sh", "-c", "id -u; id -g; pwd; exit 9"];
    let ran = task.exec(&["--cwd", "/tmp", "--user", "5:6"], "first", &script);
    assert_eq!(String::from_utf8_lossy(&ran.0.stdout), "5\n6\n/tmp\n");
    assert_eq!(ran.code(), Some(9));
    let none = task.exec(&[], "second", &["nosuch"]).failure();
    let words = "OCI runtime exec failed: exec \"executed\": exec: \"nosuch\": executable file not found in $PATH";
    assert!(none.contains(words), "{none}");

    // Refused while it runs, by force; then nothing of it is left.
    ends_with(1, &["ctr", "task", "delete", "executed"]);
    ask(&["ctr", "task", "delete", "--force", "executed"]);
    let list = [
        &runtime(),
        "--root",
        "/run/containerd/runc/default",
        "list",
        "--quiet",
    ];
    assert!(!ask(&list).lines().any(|id| id == "executed"));
}

fn containerd_pauses_measures_and_signals() {
    let task = Task::start("changed", &[]);
    let (pid, status) = task.listed();
    assert_eq!(status, "RUNNING");
    ask(&["ctr", "task", "pause", "changed"]);
    assert_eq!(
        (limit(&pid, "cgroup.freeze").as_str(), &*task.status()),
        ("1", "PAUSED")
    );
    ask(&["ctr", "task", "resume", "changed"]);
    assert_eq!(
        (limit(&pid, "cgroup.freeze").as_str(), &*task.status()),
        ("0", "RUNNING")
    );

    let metrics = ask(&["ctr", "task", "metrics", "changed"]);
    let mut rows = metrics.lines().map(|line| line.split_whitespace());
    let pids = rows.find(|row| row.clone().next() == Some("pids.current"));
    assert_eq!(pids.unwrap().nth(1), Some("1"), "{metrics}");
    let processes = ask(&["ctr", "task", "ps", "changed"]);
    let pids: Vec<&str> = processes
        .lines()
        .skip(1)
        .map(|row| row.split_once(' ').unwrap().0)
        .collect();
    assert_eq!(pids, [&*pid], "{processes}");

    let events = listen("kills");
    ask(&["ctr", "task", "kill", "--signal", "KILL", "changed"]);
    while !events
        .line()
        .contains("/tasks/exit {\"container_id\":\"changed\"")
    {}
    assert_eq!(task.status(), "STOPPED");
    // What the shim makes of the words of `kill` for one that has ended.
    let again = ends_with(1, &["ctr", "task", "kill", "--signal", "KILL", "changed"]);
    assert!(
        again.contains("process already finished: not found"),
        "{again}"
    );
}

fn containerd_makes_scopes_through_systemd() {
    let flags = [
        "--runc-systemd-cgroup",
        "--cgroup",
        "system.slice:ctr:scoped",
    ];
    let task = Task::start("scoped", &flags);
    let (pid, _) = task.listed();
    let cgroup = cgroup_of(&pid);
    assert!(
        cgroup.ends_with("system.slice/ctr-scoped.scope"),
        "{cgroup:?}"
    );
    let active = ask(&["systemctl", "is-active", "ctr-scoped.scope"]);
    assert_eq!(active, "active");
    // The shim does not say again that it is systemd's.
    let inside = task
        .exec(&[], "first", &["cat", "/proc/self/cgroup"])
        .success();
    assert_eq!(inside, "0::/system.slice/ctr-scoped.scope\n");
    drop(task);
    assert!(!cgroup.exists());
}

fn containerd_takes_a_terminal() {
    prepare();
    let mut pty = Pty::new();
    let runtime = runtime();
    let words = [
        "ctr",
        "run",
        "--rm",
        "--tty",
        "--runc-binary",
        &runtime,
        IMAGE,
        "terminal",
    ];
    let script = "busybox tty; read line; echo got $line; exit 3";
    let mut ctr = pty.start(&host(&[&words[..], &["sh", "-c", script]].concat()));
    assert_eq!(pty.line(), "/dev/pts/0");
    pty.type_keys(b"words\r");
    assert_eq!(pty.line(), "words"); // the echo
    assert_eq!(pty.line(), "got words");
    assert_eq!(ctr.code(), Some(3));
}

fn containerd_tells_a_kill_for_want_of_memory() {
    prepare();
    let events = listen("lacks");
    // The container stays: of one that ends with it, the shim may come too late to hear.
    let script = "(x=a; while :; do x=$x$x; done); exec sleep 1000";
    let flags = ["--detach", "--memory-limit", "20000000"];
    let _task = Task("eats");
    run(&flags, "eats", &["sh", "-c", script]).success();
    while !events
        .line()
        .contains("/tasks/oom {\"container_id\":\"eats\"")
    {}
}

fn containerd_knows_the_runtime_by_its_settings() {
    prepare();
    let all = ask(&["containerd", "config", "dump"]);
    let (_, ours) = all
        .split_once("runtimes.parhelion]")
        .expect("no such runtime");
    let (ours, _) = ours
        .split_once("[plugins.\"io.containerd.grpc.v1.cri\".cni]")
        .unwrap_or((ours, ""));
    for line in [
        format!("BinaryName = \"{}\"", runtime()),
        "SystemdCgroup = true".to_owned(),
    ] {
        assert!(ours.contains(&line), "no {line} in {ours}");
    }
    // A kubelet's part of it has found them to be in order.
    let plugins = ask(&["ctr", "plugins", "list"]);
    let mut rows = plugins.lines().map(|line| line.split_whitespace());
    let cri = rows.find(|row| row.clone().nth(1) == Some("cri"));
    assert_eq!(cri.unwrap().next_back(), Some("ok"), "{plugins}");
}
