//! A daemon with its state, and jobs for it; all of it gone at the end.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::caller::{Running, wait_for_exit};
use crate::support::{Bundle, Ran, program};
use crate::victims::{keepers, try_kill};

/// How long something is waited for: the virtual host is slow.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// A host with its own daemon.
pub struct Host {
    pub bundle: Bundle,
    pub daemon: Option<Running>,
    pub program: PathBuf,
    /// The network namespace of the daemon, where it is another one than the tests'.
    pub network: Option<PathBuf>,
}

/// The program of this name: this build's, or that of the variable where it was built elsewhere.
fn built(variable: &str, here: &str) -> PathBuf {
    std::env::var_os(variable).map_or_else(|| PathBuf::from(here), PathBuf::from)
}

/// parctl at a daemon's socket, yet to be started.
pub fn parctl_at(socket: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(built("PARCTL", env!("CARGO_BIN_EXE_parctl")));
    command.env("PARHELION_SOCKET", socket).args(words);
    command
}

impl Host {
    /// A host whose daemon is ready; its bundle runs `script`.
    pub fn new(script: &str) -> Host {
        Host::in_network(script, None)
    }

    /// As [`Host::new`], with its daemon in this network namespace.
    pub fn in_network(script: &str, network: Option<PathBuf>) -> Host {
        let mut host = Host::without_daemon(script);
        host.network = network;
        host.start();
        host
    }

    /// As [`Host::new`], with the daemon yet to be started.
    pub fn without_daemon(script: &str) -> Host {
        Host {
            bundle: Bundle::new(script),
            daemon: None,
            network: None,
            program: built("PARHELIOND", env!("CARGO_BIN_EXE_parheliond")),
        }
    }

    /// An answer of HTTP: its status and its body.
    pub fn get(&self, path: &str) -> (u16, String) {
        self.ask("GET", path, "")
    }

    /// What a request with this body is answered.
    pub fn ask(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let mut stream = UnixStream::connect(self.path("socket")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.bundle.folder.join(name)
    }

    pub fn cgroup(&self) -> String {
        format!("/parhelion-{}", self.bundle.id)
    }

    /// The daemon, yet to be started.
    pub fn command(&self) -> Command {
        let mut command = match &self.network {
            None => Command::new(&self.program),
            Some(network) => {
                let mut command = Command::new("nsenter");
                command.arg(format!("--net={}", network.display()));
                command.arg(&self.program);
                command
            }
        };
        command.args(["--host", "here", "--cgroup-parent", &self.cgroup()]);
        command.arg("--state").arg(self.path("supervisor"));
        command.arg("--socket").arg(self.path("socket"));
        command.arg("--runtime").arg(program());
        command.arg("--root").arg(self.path("state"));
        command
    }

    /// Starts the daemon and waits until it answers.
    pub fn start(&mut self) {
        self.start_as(&mut self.command());
    }

    /// The same with another command line.
    #[allow(clippy::disallowed_methods, reason = "a test has an end")]
    pub fn start_as(&mut self, command: &mut Command) {
        let mut daemon = Running::spawn(command, Stdio::null());
        let end = Instant::now() + PATIENCE;
        while !self.parctl(&["version"]).0.status.success() {
            if daemon.ends_within(Duration::from_millis(20)) {
                panic!("the daemon has ended: {:?}", daemon.end());
            }
            assert!(Instant::now() < end, "the daemon does not answer");
        }
        self.daemon = Some(daemon);
    }

    /// Kills the daemon, as nobody should.
    pub fn lose_daemon(&mut self) {
        let mut daemon = self.daemon.take().unwrap();
        daemon.signal(Signal::KILL);
        daemon.end();
    }

    /// Ends the daemon in order; what it has said on stderr.
    pub fn stop_daemon(&mut self) -> String {
        let mut daemon = self.daemon.take().unwrap();
        daemon.signal(Signal::TERM);
        let (status, _, told) = daemon.end();
        assert!(status.success(), "{status:?}: {told}");
        told
    }

    /// parctl with these words, yet to be started.
    pub fn parctl_command(&self, words: &[&str]) -> Command {
        parctl_at(&self.path("socket"), words)
    }

    /// What parctl answers.
    pub fn parctl(&self, words: &[&str]) -> Ran {
        let mut command = self.parctl_command(words);
        Ran(command.stdin(Stdio::null()).output().unwrap())
    }

    /// What parctl answers, as JSON.
    pub fn json(&self, words: &[&str]) -> Value {
        let words: Vec<&str> = ["--json"]
            .into_iter()
            .chain(words.iter().copied())
            .collect();
        serde_json::from_str(&self.parctl(&words).success()).unwrap()
    }

    /// Writes a job file with these further fields; its path.
    pub fn job(&self, version: &str, more: &Value) -> String {
        let mut job = json!({
            "name": "web",
            "version": version,
            "tasks": { "main": { "bundle": self.bundle.path() } },
            "stop": { "grace": "0s" },
        });
        for (name, value) in more.as_object().unwrap() {
            job[name] = value.clone();
        }
        let path = self.path(&format!("web-{version}.json"));
        fs::write(&path, job.to_string()).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Creates and deploys the job; the name of its first instance, which runs.
    pub fn deploy(&self, more: &Value) -> String {
        let file = self.job("1", more);
        self.parctl(&["create", &file]).success();
        self.parctl(&["deploy", "web", "--wait"]).success();
        self.instance()["name"].as_str().unwrap().to_owned()
    }

    /// The first instance.
    pub fn instance(&self) -> Value {
        self.json(&["status"])[0].clone()
    }

    /// The process of the first instance.
    pub fn pid(&self) -> i32 {
        let instance = self.instance();
        let pid = instance["tasks"]["main"]["pid"].as_i64();
        i32::try_from(pid.unwrap_or_else(|| panic!("{instance:#}"))).unwrap()
    }

    /// Waits until it is so.
    #[allow(clippy::disallowed_methods, reason = "a test has an end")]
    pub fn until(&self, what: &str, is_so: impl Fn() -> bool) {
        let end = Instant::now() + PATIENCE;
        while !is_so() {
            assert!(Instant::now() < end, "{what}: {:#}", self.instance());
            sleep(Duration::from_millis(20));
        }
    }
}

impl Host {
    /// Ends all keepers and containers.
    pub fn end_everything(&self) {
        let instances = self.path("supervisor/agent/instances");
        // As the kernel knows them: one that was just started has written nothing of itself.
        loop {
            let there = keepers(&instances);
            if there.is_empty() {
                break;
            }
            for pid in there.into_values().filter(|pid| try_kill(*pid)) {
                wait_for_exit(pid);
            }
        }
        for entry in fs::read_dir(self.path("state"))
            .into_iter()
            .flatten()
            .flatten()
        {
            let id = entry.file_name();
            self.bundle
                .parhelion(&["delete", "--force", id.to_str().unwrap()]);
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // The daemon first: it would bring everything back.
        if let Some(daemon) = self.daemon.take() {
            daemon.signal(Signal::KILL);
        }
        self.end_everything();
        remove_cgroups(&PathBuf::from(format!("/sys/fs/cgroup{}", self.cgroup())));
        // A disk of its own, if a test has given it one.
        let flags = rustix::mount::UnmountFlags::DETACH;
        while rustix::mount::unmount(self.path("supervisor"), flags).is_ok() {}
    }
}

fn remove_cgroups(path: &Path) {
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroups(&entry.path());
        }
    }
    let _gone = fs::remove_dir(path);
}
