//! What keepers cost, as one instance, as 100 and as 1,000 on this host: the time from a crash to the replacement's
//! execve, memory, processor time while nothing happens, and a command inside by the keeper's door beside `exec`.
//!
//! As root: `make build`, then `PARHELION=target/…/release/parhelion cargo bench --bench keeper [COUNT]…`.
//! BENCH_WITHOUT=network,ipc leaves namespaces out, to see what they cost.
//! One program, the default bundle with /bin/sleep of busybox, of which every instance has its own container.

#![allow(clippy::disallowed_methods, reason = "time is measured")]
#![allow(clippy::print_stdout, reason = "figures are what it is for")]
#![allow(clippy::unwrap_used, reason = "without keepers there is no figure")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use parhelion::keeper::Request;
use parhelion::keeper::client;
use parhelion::keeper::door;
use parhelion::keeper::policy::{Exit, Phase};
use parhelion::keeper::status::Status;
use rustix::process::{Pid, Signal, kill_process};

/// How often a program is killed, and how often a command is executed.
const ROUNDS: usize = 200;

/// How many keepers begin at once.
const BESIDE: usize = 8;

fn main() {
    let counts: Vec<usize> = std::env::args()
        .filter_map(|word| word.parse().ok())
        .collect();
    let counts = match counts.is_empty() {
        true => vec![1, 100, 1000],
        false => counts,
    };
    println!(
        "load {}",
        fs::read_to_string("/proc/loadavg").unwrap().trim()
    );
    for count in counts {
        let host = Host::new(count);
        host.restarts();
        host.memory();
        host.idle();
        host.commands();
    }
}

/// A directory with a bundle and instances, all of which end with this value.
struct Host {
    folder: PathBuf,
    count: usize,
}

impl Host {
    fn new(count: usize) -> Host {
        let folder = std::env::temp_dir().join(format!("parhelion-bench-{}", std::process::id()));
        let host = Host { folder, count };
        fs::create_dir_all(host.folder.join("rootfs/bin")).unwrap();
        for place in ["proc", "sys", "dev"] {
            fs::create_dir_all(host.folder.join("rootfs").join(place)).unwrap();
        }
        let busybox = std::env::var_os("BUSYBOX").unwrap_or_else(|| "/bin/busybox".into());
        for name in ["sleep", "true"] {
            fs::copy(&busybox, host.folder.join("rootfs/bin").join(name)).unwrap();
        }
        assert!(
            host.parhelion()
                .args(["spec", "--bundle"])
                .arg(&host.folder)
                .status()
                .unwrap()
                .success()
        );
        let config = host.folder.join("config.json");
        let mut spec: serde_json::Value =
            serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
        spec["process"]["terminal"] = false.into();
        spec["process"]["args"] = serde_json::json!(["/bin/sleep", "1000000"]);
        if let Ok(without) = std::env::var("BENCH_WITHOUT") {
            let namespaces = spec["linux"]["namespaces"].as_array_mut().unwrap();
            namespaces
                .retain(|namespace| !without.split(',').any(|kind| namespace["type"] == kind));
        }
        fs::write(&config, spec.to_string()).unwrap();
        host.begin();
        host
    }

    fn parhelion(&self) -> Command {
        let program =
            std::env::var_os("PARHELION").unwrap_or_else(|| env!("CARGO_BIN_EXE_parhelion").into());
        let mut command = Command::new(program);
        command.arg("--root").arg(self.folder.join("state"));
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }

    fn directory(&self, number: usize) -> PathBuf {
        self.folder.join(format!("instances/{number}"))
    }

    fn begin(&self) {
        let begun = Instant::now();
        for first in (0..self.count).step_by(BESIDE) {
            let some = first..self.count.min(first + BESIDE);
            for number in some.clone() {
                let directory = self.directory(number);
                fs::create_dir_all(&directory).unwrap();
                let spec = serde_json::json!({ "id": format!("bench-{}-{number}", std::process::id()),
                    "bundle": self.folder, "restart": { "goodRun": "1ms" }, "stop": { "grace": "0" } });
                fs::write(directory.join("keeper.json"), spec.to_string()).unwrap();
                // Ends when it is asked to, by its pid.
                drop(
                    self.parhelion()
                        .arg("keep")
                        .arg(&directory)
                        .spawn()
                        .unwrap(),
                );
            }
            some.for_each(|number| until_running(&self.directory(number)));
        }
        println!(
            "\n{} instances, all running after {:.1} s",
            self.count,
            begun.elapsed().as_secs_f64()
        );
    }

    /// From the KILL of a program to the news that the next one was executed.
    fn restarts(&self) {
        let mut times = Vec::new();
        for round in 0..ROUNDS {
            let directory = self.directory(round * 7919 % self.count);
            let news = watch(directory.clone());
            let before = next_running(&news, 0);
            let attempts = before.state.counts.attempts;
            // A good run, after which the next one comes at once.
            thread::sleep(Duration::from_millis(20));
            let begun = Instant::now();
            kill_process(program(&before), Signal::KILL).unwrap();
            next_running(&news, attempts + 1);
            times.push(begun.elapsed());
        }
        report("crash to the replacement's execve", &mut times);
    }

    fn memory(&self) {
        let mut pss = Vec::new();
        let mut private = Vec::new();
        for keeper in self.keepers() {
            let text = fs::read_to_string(format!("/proc/{keeper}/smaps_rollup")).unwrap();
            let field = |name: &str| {
                let line = text.lines().find(|line| line.starts_with(name));
                line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok())
                    .unwrap_or(0)
            };
            pss.push(field("Pss:"));
            private.push(field("Private_Clean:") + field("Private_Dirty:"));
        }
        let mean = |all: &[u64]| all.iter().sum::<u64>() / all.len() as u64;
        println!(
            "keeper's memory: {} kB proportional, {} kB private, mean",
            mean(&pss),
            mean(&private)
        );
    }

    fn idle(&self) {
        const TIME: Duration = Duration::from_secs(10);
        let keepers = self.keepers();
        let spent = || keepers.iter().map(|keeper| ticks(*keeper)).sum::<u64>();
        let before = spent();
        thread::sleep(TIME);
        println!(
            "all keepers' processor time in {TIME:?} without events: {} ms",
            (spent() - before) * 10
        );
    }

    /// A command inside, by the door and by a program; what it costs with all that is waited for.
    fn commands(&self) {
        let (mut door, mut exec) = (Vec::new(), Vec::new());
        let directory = self.directory(0);
        let keeper = until_status(&directory).keeper;
        let (children, ours) = (
            || ticks_of_children(keeper),
            || ticks_of_children(std::process::id()),
        );
        let before = (ticks(keeper) + children(), ours());
        for _ in 0..ROUNDS {
            let begun = Instant::now();
            let command = door::Command {
                task: None,
                args: vec!["/bin/true".into()],
                timeout_ms: 10_000,
            };
            let ran = client::check(&directory, command).unwrap().end().unwrap();
            assert_eq!(ran.exit, Exit::Code(0));
            door.push(begun.elapsed());
        }
        let spent_door = ticks(keeper) + children() - before.0;
        let id = format!("bench-{}-0", std::process::id());
        for _ in 0..ROUNDS {
            let begun = Instant::now();
            let ran = self
                .parhelion()
                .args(["exec", &id, "/bin/true"])
                .status()
                .unwrap();
            assert!(ran.success());
            exec.push(begun.elapsed());
        }
        let spent_exec = ours() - before.1;
        report("a command by the keeper's door", &mut door);
        report("a command by parhelion exec", &mut exec);
        let each = |ticks: u64| ticks as f64 * 10.0 / ROUNDS as f64;
        println!(
            "processor time of each: door {:.2} ms, exec {:.2} ms",
            each(spent_door),
            each(spent_exec)
        );
    }

    fn keepers(&self) -> Vec<u32> {
        (0..self.count)
            .map(|number| until_status(&self.directory(number)).keeper)
            .collect()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        for number in 0..self.count {
            let directory = self.directory(number);
            let Ok(status) = client::status(&directory) else {
                continue;
            };
            // What is left says the directory's removal below.
            let _stopped = client::ask(&directory, &Request::Stop);
            if let Some(keeper) = i32::try_from(status.keeper).ok().and_then(Pid::from_raw) {
                let _ended = kill_process(keeper, Signal::TERM);
            }
        }
        let _gone = fs::remove_dir_all(&self.folder);
    }
}

fn until_status(directory: &Path) -> Status {
    loop {
        match client::status(directory) {
            Ok(status) => return status,
            Err(_not_yet) => thread::sleep(Duration::from_millis(1)),
        }
    }
}

fn until_running(directory: &Path) {
    until_status(directory);
    next_running(&watch(directory.to_owned()), 0);
}

/// The statuses of an instance, from now on; the thread ends with the next one that nobody wants.
fn watch(directory: PathBuf) -> Receiver<Status> {
    let (say, hear) = channel();
    thread::spawn(move || client::watch(&directory, |status| Ok(say.send(status.clone())?)));
    hear
}

fn next_running(news: &Receiver<Status>, attempts: u64) -> Status {
    loop {
        let status = news.recv().unwrap();
        let runs = matches!(status.state.phase, Phase::Running { .. });
        if runs && status.state.counts.attempts >= attempts && status.tasks[0].container.is_some() {
            return status;
        }
    }
}

fn program(status: &Status) -> Pid {
    let container = status.tasks[0].container.as_ref().unwrap();
    Pid::from_raw(container.process.pid).unwrap()
}

/// Fields of /proc/PID/stat after the name (proc(5)).
fn stat(pid: u32, fields: [usize; 2]) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let rest: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    fields
        .map(|field| rest[field - 3].parse::<u64>().unwrap())
        .iter()
        .sum()
}

fn ticks(pid: u32) -> u64 {
    stat(pid, [14, 15])
}

fn ticks_of_children(pid: u32) -> u64 {
    stat(pid, [16, 17])
}

fn report(what: &str, times: &mut [Duration]) {
    times.sort_unstable();
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e3;
    println!(
        "{what}: {:.1} ms median, {:.1} ms p99, {:.1} ms at most",
        at(0.5),
        at(0.99),
        at(1.0)
    );
}
