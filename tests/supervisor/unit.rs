//! The daemon as systemd's unit: ready, reloaded, watched, restarted, with and without its socket. What it holds runs on.
//!
//! Only in the virtual host, whose units may be changed: the files of packaging/ are installed as they are. Reboots are
//! tests/vhost/reboot's.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{fs, thread};

use libtest_mimic::Trial;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::host::{PATIENCE, parctl_at};
use crate::support::{Bundle, Ran, needs_controllers, needs_systemd, only_where, program, tests};

/// The variable by which the virtual host says where the files of packaging/ are.
const UNITS: &str = "PARHELION_UNITS";

pub fn all() -> Vec<Trial> {
    let trials = tests![
        a_reload_is_another_program_in_the_same_process,
        a_daemon_that_stands_still_is_replaced_and_containers_run_on,
        a_restart_leaves_containers_alone,
        with_the_units_socket_no_request_is_refused_during_a_restart,
        containers_have_nothing_of_the_units_own_settings,
        a_program_that_needs_more_memory_than_its_job_has_is_killed_and_history_says_so,
    ];
    let trials = needs_controllers(&["memory"], needs_systemd(trials));
    let here = std::env::var_os(UNITS).is_some();
    only_where(here, "units of systemd may not be installed", trials)
}

const SERVICE: &str = "parheliond.service";
/// All of packaging/.
const FILES: [&str; 3] = [SERVICE, "parheliond.socket", "parhelion-shutdown.service"];
const SOCKET: &str = "/run/parhelion/parheliond.sock";
/// Long enough for a daemon that gets no processor for some seconds, on a busy host.
const WATCHED: &str = "WatchdogSec=20";
const SLEEP: &str = "while :; do sleep 1; done";

/// There is one systemd.
static ALONE: Mutex<()> = Mutex::new(());

/// The installed units and programs, and a bundle; all of it gone at the end.
struct Unit {
    bundle: Bundle,
    _alone: MutexGuard<'static, ()>,
}

fn run(words: &[&str]) -> Ran {
    Ran(Command::new(words[0]).args(&words[1..]).output().unwrap())
}

fn systemctl(words: &[&str]) -> String {
    let all: Vec<&str> = ["systemctl"].iter().chain(words).copied().collect();
    let ran = run(&all);
    if !ran.0.status.success() {
        let told = run(&["journalctl", "--no-pager", "-n", "30", "-u", SERVICE]);
        panic!("{words:?}: {}\n{}", ran.stderr(), told.success());
    }
    ran.success().trim().to_owned()
}

/// A property of the service.
fn property(name: &str) -> String {
    systemctl(&["show", "--value", "-p", name, SERVICE])
}

fn main_process() -> i32 {
    property("MainPID").parse().unwrap()
}

/// Puts a program at this path by a rename, as packages do.
fn put(from: &Path, to: &Path) {
    let new = to.with_extension("new");
    fs::copy(from, &new).unwrap();
    fs::rename(&new, to).unwrap();
}

fn installed(name: &str) -> PathBuf {
    Path::new("/usr/local/bin").join(name)
}

fn built(variable: &str) -> PathBuf {
    std::env::var_os(variable).unwrap().into()
}

#[allow(clippy::disallowed_methods, reason = "a test has an end")]
fn until(what: &str, is_so: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "{what}");
        thread::sleep(Duration::from_millis(50));
    }
}

impl Unit {
    /// The service with these further settings, started.
    fn new(settings: &str) -> Unit {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let unit = Unit {
            bundle: Bundle::new(SLEEP),
            _alone: alone,
        };
        put(&program(), &installed("parhelion"));
        put(&built("PARHELIOND"), &installed("parheliond"));
        put(&built("PARCTL"), &installed("parctl"));
        for name in FILES {
            fs::copy(built(UNITS).join(name), Unit::file(name)).unwrap();
        }
        fs::create_dir_all(Unit::file("parheliond.service.d")).unwrap();
        let more = Unit::file("parheliond.service.d/test.conf");
        fs::write(more, format!("[Service]\n{settings}\n")).unwrap();
        systemctl(&["daemon-reload"]);
        // Ends when the daemon has said that it is ready.
        systemctl(&["start", SERVICE]);
        unit.parctl(&["version"]).success();
        unit
    }

    fn file(name: &str) -> PathBuf {
        Path::new("/etc/systemd/system").join(name)
    }

    fn parctl(&self, words: &[&str]) -> Ran {
        Ran(parctl_at(Path::new(SOCKET), words).output().unwrap())
    }

    fn instance(&self) -> Value {
        let told = self.parctl(&["--json", "status"]).success();
        serde_json::from_str::<Value>(&told).unwrap()[0].clone()
    }

    /// Deploys a job of the bundle: its instance, which runs.
    fn deploy(&self, task: &Value) -> Value {
        let mut main = json!({ "bundle": self.bundle.path() });
        for (name, value) in task.as_object().unwrap() {
            main[name] = value.clone();
        }
        let job = json!({
            "name": "web", "version": "1", "tasks": { "main": main }, "stop": { "grace": "0s" },
        });
        let file = self.bundle.folder.join("web.json");
        fs::write(&file, job.to_string()).unwrap();
        self.parctl(&["create", file.to_str().unwrap()]).success();
        self.parctl(&["deploy", "web", "--wait"]).success();
        self.instance()
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        // For people who look at a test that has failed.
        if thread::panicking() {
            let told = run(&["journalctl", "--no-pager", "-n", "30", "-u", SERVICE]);
            println!("{}", String::from_utf8_lossy(&told.0.stdout));
        }
        // In order where that is still possible; then whatever is left. Keepers are in the service's cgroup.
        let _or_not = run(&[
            "timeout",
            "30",
            "/usr/local/bin/parctl",
            "undeploy",
            "web",
            "--wait",
        ]);
        let _or_not = run(&["systemctl", "stop", "parheliond.socket", SERVICE]);
        let _or_not = run(&[
            "systemctl",
            "kill",
            "--kill-whom=all",
            "-s",
            "KILL",
            SERVICE,
        ]);
        let _or_not = fs::write("/sys/fs/cgroup/parhelion/cgroup.kill", "1");
        for folder in ["/var/lib/parhelion", "/run/parhelion"] {
            let _or_not = fs::remove_dir_all(folder);
        }
        for name in FILES {
            let _or_not = fs::remove_file(Unit::file(name));
        }
        let _or_not = fs::remove_dir_all(Unit::file("parheliond.service.d"));
        let _or_not = run(&["systemctl", "daemon-reload"]);
        // While it has a file, nobody may stop it.
        let _or_not = run(&["systemctl", "stop", FILES[2]]);
        let _or_not = run(&["systemctl", "reset-failed"]);
    }
}

fn pid(instance: &Value) -> i32 {
    let pid = instance["tasks"]["main"]["pid"].as_i64();
    i32::try_from(pid.unwrap_or_else(|| panic!("{instance:#}"))).unwrap()
}

/// The same process, never restarted.
fn assert_untouched(unit: &Unit, before: &Value) {
    // A daemon that has just started may not have heard of its keepers yet.
    until("it is known again", || {
        unit.instance()["phase"] == "running"
    });
    let after = unit.instance();
    assert_eq!(pid(&after), pid(before));
    assert_eq!(
        (&after["phase"], &after["restarts"]),
        (&json!("running"), &json!(0))
    );
    assert!(Path::new(&format!("/proc/{}", pid(before))).exists());
}

/// Whether a request that begins now is answered.
fn ask() -> std::io::Result<()> {
    let mut stream = UnixStream::connect(SOCKET)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    match answer.starts_with("HTTP/1.1 200") && answer.ends_with("ok\n") {
        true => Ok(()),
        false => Err(std::io::Error::other(format!("answered: {answer:?}"))),
    }
}

/// Does `deed` while two clients ask without a pause; each request must be answered.
fn while_asked(deed: impl FnOnce()) {
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        let clients = [(); 2].map(|()| {
            scope.spawn(|| {
                let mut answered = 0;
                while !ended.load(Ordering::Relaxed) {
                    ask().unwrap_or_else(|error| panic!("after {answered} answers: {error}"));
                    answered += 1;
                }
                answered
            })
        });
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(deed));
        ended.store(true, Ordering::Relaxed);
        let answered = clients.map(|client| client.join().unwrap());
        done.unwrap();
        println!("answered meanwhile: {answered:?}");
        assert!(answered.iter().all(|count| *count > 1));
    });
}

/// Which file the daemon executes.
fn executable() -> u64 {
    let file = fs::metadata(format!("/proc/{}/exe", main_process()));
    file.unwrap().ino()
}

fn a_reload_is_another_program_in_the_same_process() {
    let unit = Unit::new(WATCHED);
    let before = unit.deploy(&json!({}));
    let (daemon, old) = (main_process(), executable());
    put(&built("PARHELIOND"), &installed("parheliond"));
    while_asked(|| {
        systemctl(&["reload", SERVICE]);
        until("another program runs", || executable() != old);
        until("the unit is as before", || {
            property("SubState") == "running"
        });
    });
    assert_eq!(main_process(), daemon);
    assert_untouched(&unit, &before);
    // The watchdog hears of the new program.
    let heard = || {
        property("WatchdogTimestampMonotonic")
            .parse::<u64>()
            .unwrap()
    };
    let first = heard();
    until("the watchdog is told", || heard() > first);
    assert_eq!(
        (main_process(), property("NRestarts")),
        (daemon, "0".into())
    );
}

fn a_daemon_that_stands_still_is_replaced_and_containers_run_on() {
    let unit = Unit::new(WATCHED);
    let before = unit.deploy(&json!({}));
    let daemon = main_process();
    kill_process(Pid::from_raw(daemon).unwrap(), Signal::STOP).unwrap();
    until("systemd starts another", || property("NRestarts") == "1");
    until("it is ready", || property("SubState") == "running");
    assert_ne!(main_process(), daemon);
    assert_untouched(&unit, &before);
}

fn a_restart_leaves_containers_alone() {
    let unit = Unit::new("");
    let before = unit.deploy(&json!({}));
    let daemon = main_process();
    systemctl(&["restart", SERVICE]);
    assert_ne!(main_process(), daemon);
    assert_untouched(&unit, &before);
    systemctl(&["stop", SERVICE]);
    assert!(Path::new(&format!("/proc/{}", pid(&before))).exists());
    systemctl(&["start", SERVICE]);
    assert_untouched(&unit, &before);
    // What it finds again it also ends.
    unit.parctl(&["undeploy", "web", "--wait"]).success();
    assert!(!Path::new(&format!("/proc/{}", pid(&before))).exists());
}

fn with_the_units_socket_no_request_is_refused_during_a_restart() {
    let unit = Unit::new("");
    systemctl(&["stop", SERVICE]);
    systemctl(&["start", "parheliond.socket"]);
    // Nobody is there yet: the first request brings it.
    assert_eq!(property("ActiveState"), "inactive");
    ask().unwrap();
    let before = unit.deploy(&json!({}));
    let daemon = main_process();
    while_asked(|| {
        systemctl(&["restart", SERVICE]);
    });
    let second = main_process();
    assert_ne!(second, daemon);
    // A program that took over has systemd's socket as well.
    let old = executable();
    put(&built("PARHELIOND"), &installed("parheliond"));
    while_asked(|| {
        systemctl(&["reload", SERVICE]);
        until("another program runs", || executable() != old);
    });
    while_asked(|| {
        systemctl(&["restart", SERVICE]);
    });
    assert_untouched(&unit, &before);
}

fn containers_have_nothing_of_the_units_own_settings() {
    let unit = Unit::new("");
    let script = "umask; echo $NOTIFY_SOCKET $LISTEN_FDS $WATCHDOG_USEC; while :; do sleep 1; done";
    let instance = unit.deploy(&json!({ "command": ["/bin/sh", "-c", script] }));
    let of = |file: &str| fs::read_to_string(format!("/proc/{}/{file}", pid(&instance))).unwrap();
    assert_eq!(of("oom_score_adj").trim(), "0");
    let status = of("status");
    assert!(status.contains("Seccomp_filters:\t0\n"), "{status}");
    let cgroup = of("cgroup");
    assert!(cgroup.starts_with("0::/parhelion/"), "{cgroup}");
    let name = instance["name"].as_str().unwrap();
    let told = || unit.parctl(&["logs", name]).success();
    until("it has said all", || told().lines().count() == 2);
    let told = told();
    assert!(told.contains("0022"), "{told}");
    assert!(told.lines().nth(1).unwrap().trim_end().len() <= 1, "{told}");
    let inside = ["exec", name, "--", "cat", "/proc/self/oom_score_adj"];
    assert_eq!(unit.parctl(&inside).success().trim(), "0");
    // The daemon and the keeper are protected.
    let adjusted = |pid: &str| fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap();
    let procs = "/sys/fs/cgroup/system.slice/parheliond.service/cgroup.procs";
    let group = || fs::read_to_string(procs).unwrap();
    // What has executed the program above may be about to end.
    until("only they are there", || group().lines().count() == 2);
    assert!(group().lines().all(|pid| adjusted(pid).trim() == "-900"));
}

fn a_program_that_needs_more_memory_than_its_job_has_is_killed_and_history_says_so() {
    let unit = Unit::new("");
    let script = "sleep 1; x=a; while :; do x=$x$x; done";
    let task = json!({
        "command": ["/bin/sh", "-c", script],
        "resources": { "memory": "16MiB", "memorySwap": "16MiB" },
    });
    let instance = unit.deploy(&task);
    let name = instance["name"].as_str().unwrap();
    let history = || unit.parctl(&["history", name]).success();
    until("its history says why", || {
        history().contains("out of memory")
    });
}
