//! Cgroups through systemd (`--systemd-cgroup`): each container in a scope of its own.
//!
//! Where systemd does not run, what is tested is that this is told.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::caller;
use crate::support::{Bundle, Ran};

mod delegated;
mod life;
mod limits;
mod names;
mod unreachable;
pub mod user;

/// The tests of this folder.
pub fn all() -> Vec<Trial> {
    let subjects = [
        delegated::all(),
        life::all(),
        limits::all(),
        names::all(),
        unreachable::all(),
        user::all(),
    ];
    subjects.into_iter().flatten().collect()
}

const HOST: &str = "/sys/fs/cgroup";

/// Runs a verb that makes the bundle's container, with its cgroup from systemd.
fn make(bundle: &Bundle, verb: &str) -> Ran {
    make_with(bundle, verb, &[])
}

/// As [`make`], with variables in the environment.
fn make_with(bundle: &Bundle, verb: &str, environment: &[(&str, &str)]) -> Ran {
    // Not through pipes: init keeps them open for as long as it waits.
    let [out, err] = ["out", "err"].map(|name| bundle.folder.join(name));
    let arguments = [
        "--systemd-cgroup",
        verb,
        "--bundle",
        bundle.path(),
        &bundle.id,
    ];
    let status = caller::command(bundle, &arguments)
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .stdout(fs::File::create(&out).unwrap())
        .stderr(fs::File::create(&err).unwrap())
        .status()
        .unwrap();
    let [stdout, stderr] = [out, err].map(|path| fs::read(path).unwrap());
    Ran(std::process::Output {
        status,
        stdout,
        stderr,
    })
}

/// A container that sleeps, started.
fn sleeper() -> Bundle {
    let bundle = Bundle::new("sleep 1000");
    start(&bundle);
    bundle
}

fn start(bundle: &Bundle) {
    make(bundle, "create").success();
    bundle.verb("start").success();
}

fn cgroups_path(bundle: &Bundle, path: &str) {
    bundle.edit(|config| config["linux"]["cgroupsPath"] = json!(path));
}

fn resources(bundle: &Bundle, resources: &Value) {
    bundle.edit(|config| {
        let all = config["linux"]["resources"].as_object_mut().unwrap();
        all.extend(resources.as_object().unwrap().clone());
    });
}

/// The scope of a bundle that has no `cgroupsPath`.
fn scope(bundle: &Bundle) -> String {
    format!("parhelion-{}.scope", bundle.id)
}

/// Its cgroup.
fn cgroup(bundle: &Bundle) -> PathBuf {
    Path::new(HOST).join("system.slice").join(scope(bundle))
}

fn read(directory: &Path, file: &str) -> String {
    let text = fs::read_to_string(directory.join(file));
    let text = text.unwrap_or_else(|error| panic!("{directory:?} {file}: {error}"));
    text.trim_end().to_owned()
}

/// The cgroup of a process, from the host's root on.
fn cgroup_of(pid: i32) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    text.trim_end().trim_start_matches("0::").to_owned()
}

/// Runs one of systemd's commands.
fn systemd(command: &[&str]) -> String {
    let ended = Command::new(command[0]).args(&command[1..]).output();
    let ended = ended.unwrap();
    let error = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{command:?}: {error}");
    String::from_utf8_lossy(&ended.stdout).into_owned()
}

/// Some properties of a unit.
fn properties(unit: &str, names: &[&str]) -> BTreeMap<String, String> {
    let names = format!("--property={}", names.join(","));
    let text = systemd(&["systemctl", "show", &names, unit]);
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    pairs
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

fn property(unit: &str, name: &str) -> String {
    properties(unit, &[name]).remove(name).unwrap()
}

/// Whether systemd knows the unit.
fn is_loaded(unit: &str) -> bool {
    property(unit, "LoadState") != "not-found"
}

/// What makes systemd look at all units again.
fn reload() {
    systemd(&["systemctl", "daemon-reload"]);
}

/// Waits until no process is left in a cgroup; one that is gone has none.
fn wait_until_empty(cgroup: &Path) {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let Ok(events) = fs::File::open(cgroup.join("cgroup.events")) else {
        return;
    };
    loop {
        let mut text = [0; 256];
        let Ok(length) = rustix::io::pread(&events, &mut text, 0) else {
            return;
        };
        if String::from_utf8_lossy(&text[..length]).contains("populated 0") {
            return;
        }
        let patience = Timespec {
            tv_sec: 60,
            tv_nsec: 0,
        };
        let mut fds = [PollFd::new(&events, PollFlags::PRI)];
        assert_eq!(poll(&mut fds, Some(&patience)), Ok(1), "still populated");
    }
}
