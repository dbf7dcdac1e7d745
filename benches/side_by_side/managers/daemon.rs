//! parheliond: keepers, and the daemon that starts them and looks after them.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::stage::{INSIDE, Stage};
use super::{Manager, keepers};
use crate::host::Host;
use crate::os;

const NAME: &str = "parheliond";

/// The folder of its state.
const STATE: &str = "supervisor";

/// How long it takes with all instances.
pub struct Ends {
    /// From the start of a daemon after one that was killed, until it knows that they run.
    pub known: Duration,
    /// From the wish that they be gone.
    pub removed: Duration,
}

pub struct Daemon {
    program: PathBuf,
    parctl: PathBuf,
    runtime: PathBuf,
    /// The daemon, and where instances of this state are.
    pid: Option<i32>,
    instances: PathBuf,
}

impl Daemon {
    pub fn new() -> Result<Daemon> {
        let program = |name: &str| {
            let path: OsString =
                std::env::var_os(name).with_context(|| format!("{name} is not set"))?;
            fs::canonicalize(&path).with_context(|| format!("{name}={path:?}"))
        };
        Ok(Daemon {
            program: program("PARHELIOND")?,
            parctl: program("PARCTL")?,
            runtime: program("PARHELION")?,
            pid: None,
            instances: PathBuf::new(),
        })
    }

    fn begin(&mut self, host: &Host) -> Result<()> {
        let state = host.folder.join(STATE);
        self.instances = state.join("agent/instances");
        let mut command = Command::new(&self.program);
        command.args(["--host", "here", "--cgroup-parent", &host.cgroup]);
        command.arg("--state").arg(&state);
        command.arg("--socket").arg(host.folder.join("control"));
        command.arg("--runtime").arg(&self.runtime);
        command.arg("--root").arg(host.state().join("parhelion"));
        command.stdin(Stdio::null()).stdout(Stdio::null());
        self.pid = Some(i32::try_from(command.spawn()?.id())?);
        for _ in 0..1000 {
            if self.parctl(host, &["version"]).is_ok() {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(20));
        }
        anyhow::bail!("the daemon does not answer")
    }

    fn parctl(&self, host: &Host, words: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.parctl);
        command.env("PARHELION_SOCKET", host.folder.join("control"));
        let ran = command.args(words).stdin(Stdio::null()).output()?;
        let told = String::from_utf8_lossy(&ran.stderr);
        ensure!(ran.status.success(), "parctl {words:?}: {}", told.trim());
        Ok(String::from_utf8_lossy(&ran.stdout).into_owned())
    }

    fn kill(&mut self, host: &Host) {
        self.pid.take().into_iter().for_each(|pid| kill(host, pid));
    }

    /// How many instances it knows to run.
    fn running(&self, host: &Host) -> Result<usize> {
        let all: Value = serde_json::from_str(&self.parctl(host, &["--json", "status"])?)?;
        let all = all.as_array().into_iter().flatten();
        Ok(all.filter(|one| one["phase"] == "running").count())
    }

    fn keepers(&self) -> Vec<i32> {
        let entries = fs::read_dir(&self.instances).into_iter().flatten();
        let pids = entries.flatten().filter_map(|entry| {
            let text = fs::read(entry.path().join("status.json")).ok()?;
            let status: Value = serde_json::from_slice(&text).ok()?;
            i32::try_from(status["keeper"].as_i64()?).ok()
        });
        pids.filter(|pid| *pid > 1).collect()
    }
}

impl Manager for Daemon {
    fn name(&self) -> &str {
        NAME
    }

    fn good_run(&self) -> Duration {
        keepers::GOOD_RUN
    }

    fn start(&mut self, host: &Host, stage: &Stage, count: usize) -> Result<()> {
        let bundle = keepers::bundle(host, stage, "stamp", None)?;
        let job = json!({
            "name": "stamp", "version": "1", "network": "none",
            "restart": { "goodRun": "1ms" }, "stop": { "grace": "0s" },
            "tasks": { "main": { "bundle": bundle, "volumes": { INSIDE: { "host": stage.folder } } } },
        });
        let path = host.folder.join("job.json");
        fs::write(&path, job.to_string())?;
        self.begin(host)?;
        self.parctl(host, &["create", &path.to_string_lossy()])?;
        self.parctl(host, &["deploy", "stamp", "--count", &count.to_string()])?;
        Ok(())
    }

    fn processes(&self) -> Result<Vec<i32>> {
        let mut all = self.keepers();
        all.extend(self.pid);
        Ok(all)
    }

    fn daemon(&self) -> Option<i32> {
        self.pid
    }

    #[allow(clippy::disallowed_methods, reason = "it measures")]
    fn end(&mut self, host: &Host, count: usize) -> Result<Option<Ends>> {
        self.kill(host);
        let begun = Instant::now();
        self.begin(host)?;
        while self.running(host)? < count {
            thread::sleep(Duration::from_millis(10));
        }
        let known = begun.elapsed();
        let begun = Instant::now();
        self.parctl(host, &["undeploy", "stamp", "--wait", "--timeout", "10m"])?;
        let removed = begun.elapsed();
        Ok(Some(Ends { known, removed }))
    }

    fn stop(&mut self, host: &Host) {
        // The daemon first, as it brings everything back.
        self.kill(host);
        self.keepers().into_iter().for_each(|pid| kill(host, pid));
        keepers::clear(host, &[STATE, "stamp"]);
    }
}

fn kill(host: &Host, pid: i32) {
    if let Some(pid) = Pid::from_raw(pid) {
        // One that has ended already is no fault here.
        let _ended = kill_process(pid, Signal::KILL);
        let _waited = os::reap(pid.as_raw_nonzero().get(), host.limit);
    }
}
