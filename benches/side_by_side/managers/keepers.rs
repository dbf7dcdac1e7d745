//! Keepers, `parhelion keep`, without any daemon.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::Manager;
use super::stage::{INSIDE, Stage};
use crate::bundle::{self, Variant};
use crate::host::{self, Host};
use crate::os;

pub const NAME: &str = "keeper";

pub struct Keepers {
    program: PathBuf,
    pids: Vec<i32>,
}

/// How long a program runs before it is killed: longer than what counts as a good run, also on a busy machine.
pub const GOOD_RUN: Duration = Duration::from_millis(50);

impl Keepers {
    pub fn new() -> Result<Keepers> {
        let program = std::env::var_os("PARHELION").context("PARHELION is not set")?;
        let pids = Vec::new();
        Ok(Keepers {
            program: fs::canonicalize(program)?,
            pids,
        })
    }

    pub fn command(&self, host: &Host) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(host.state().join("parhelion"));
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    /// Starts a keeper of a container in this bundle.
    pub fn keep(&mut self, host: &Host, bundle: &Path, number: usize, more: &Value) -> Result<()> {
        let directory = directory(host, number);
        fs::create_dir_all(&directory)?;
        let mut spec = json!({
            "id": id(host, number), "bundle": bundle,
            "restart": { "goodRun": "1ms" }, "stop": { "grace": "0" },
        });
        for (name, value) in more.as_object().into_iter().flatten() {
            spec[name] = value.clone();
        }
        fs::write(directory.join("keeper.json"), spec.to_string())?;
        let keeper = self.command(host).arg("keep").arg(&directory).spawn()?;
        self.pids.push(i32::try_from(keeper.id())?);
        Ok(())
    }
}

/// An instance's directory.
pub fn directory(host: &Host, number: usize) -> PathBuf {
    host.folder.join(format!("instances/{number}"))
}

/// An instance's container.
pub fn id(host: &Host, number: usize) -> String {
    format!("{}-{number}", host.cgroup.trim_start_matches('/'))
}

/// The name of an instance's bundle, and of its cgroup.
fn name(number: usize) -> String {
    format!("stamp-{number}")
}

/// A bundle of stamp.c, with a cgroup of its own.
pub fn bundle(host: &Host, stage: &Stage, name: &str, lines: Option<usize>) -> Result<PathBuf> {
    let root = bundle::rootfs(host)?;
    let stamp = root.join("bin/stamp");
    if !stamp.exists() {
        fs::copy(host.stopwatch.with_file_name("stamp"), &stamp).context("stamp")?;
        fs::create_dir_all(root.join(INSIDE.trim_start_matches('/')))?;
    }
    let folder = bundle::write(host, name, Variant::default())?;
    let path = folder.join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path)?)?;
    let mut args = vec!["/bin/stamp".to_owned(), Stage::inside()];
    args.extend(lines.map(|lines| lines.to_string()));
    config["process"]["args"] = json!(args);
    // Without inheritable ones no ambient ones can be had, which the runtime would say in the log each time.
    if let Some(capabilities) = config["process"]["capabilities"].as_object_mut() {
        capabilities.remove("ambient");
    }
    if let Some(mounts) = config["mounts"].as_array_mut() {
        mounts.push(json!({ "destination": INSIDE, "source": stage.folder, "options": ["bind"] }));
    }
    fs::write(&path, config.to_string())?;
    Ok(folder)
}

impl Manager for Keepers {
    fn name(&self) -> &str {
        NAME
    }

    fn good_run(&self) -> Duration {
        GOOD_RUN
    }

    fn start(&mut self, host: &Host, stage: &Stage, count: usize) -> Result<()> {
        for number in 0..count {
            let bundle = bundle(host, stage, &name(number), None)?;
            self.keep(host, &bundle, number, &Value::Null)?;
        }
        Ok(())
    }

    fn processes(&self) -> Result<Vec<i32>> {
        Ok(self.pids.clone())
    }

    fn daemon(&self) -> Option<i32> {
        None
    }

    fn stop(&mut self, host: &Host) {
        for pid in self.pids.drain(..).filter_map(Pid::from_raw) {
            // One that has ended already is no fault here.
            let _ended = kill_process(pid, Signal::KILL);
            let _waited = os::reap(pid.as_raw_nonzero().get(), host.limit);
        }
        clear(host, &["instances"]);
    }
}

/// Ends and removes all containers, and these folders with what is known of them.
pub fn clear(host: &Host, folders: &[&str]) {
    let below = fs::read_dir(host.cgroup_path("")).into_iter().flatten();
    for entry in below.flatten().filter(|entry| entry.path().is_dir()) {
        // What is left is seen at the end, when the cgroup of all of them is removed.
        let _left = host::remove_cgroup(&entry.path());
    }
    let folders = folders.iter().map(|name| host.folder.join(name));
    for folder in folders.chain([host.state().join("parhelion")]) {
        let _gone = fs::remove_dir_all(folder);
    }
}
