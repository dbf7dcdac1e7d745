//! The ground all contestants stand on: a view of the host with cgroup v2 only, one cgroup that
//! holds every container, one temporary folder that holds everything else. Both are removed at the
//! end, whatever happened.

use crate::os;
use anyhow::{Context, Result, bail};
use nix::sys::signal::{SigSet, Signal};
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

const CGROUP_ROOT: &str = "/sys/fs/cgroup";

#[derive(Clone)]
pub struct Host {
    /// Temporary folder: bundles, state folders, logs.
    pub folder: PathBuf,
    /// The cgroup's path below the root of the cgroup tree, as in `cgroupsPath`.
    pub cgroup: String,
    pub floor: PathBuf,
    pub floor_with_libc: PathBuf,
    pub stopwatch: PathBuf,
    /// A command that takes longer has failed.
    pub limit: Duration,
    /// Controllers that the root of the cgroup tree did not give to its children before.
    enabled: Vec<String>,
}

impl Host {
    /// Needs root, and a process that has no second thread yet.
    pub fn prepare() -> Result<Self> {
        os::private_mounts().context("a private mount namespace needs root")?;
        if !has_pure_cgroup2()? {
            show_cgroup2_only()?;
        }
        os::become_subreaper()?;
        let name = format!("parhelion-bench-{}", std::process::id());
        let floor = PathBuf::from(std::env::var_os("FLOOR").context("FLOOR is not set")?);
        let floor = fs::canonicalize(&floor).with_context(|| format!("FLOOR {floor:?}"))?;
        let limit = number_from_env("BENCH_TIMEOUT_MS", 3000)?;
        let host = Self {
            folder: std::env::temp_dir().join(&name),
            cgroup: format!("/{name}"),
            stopwatch: floor.with_file_name("stopwatch"),
            floor_with_libc: floor.with_file_name("floor-libc"),
            floor,
            limit: Duration::from_millis(u64::try_from(limit)?),
            enabled: missing_below_root()?,
        };
        let state = host.state();
        fs::create_dir_all(&state).with_context(|| format!("make {state:?}"))?;
        // Where runtimes keep their state, /run, is a tmpfs on every host with systemd.
        os::mount("tmpfs", &state.to_string_lossy(), "tmpfs", 0)?;
        fs::create_dir(host.cgroup_path("")).context("make the benchmark's cgroup (root?)")?;
        host.enable_controllers()?;
        Ok(host)
    }

    /// The folder of all state folders.
    pub fn state(&self) -> PathBuf {
        self.folder.join("state")
    }

    /// Where a container's cgroup (or with "" the one that holds them all) is in the file system.
    pub fn cgroup_path(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("{CGROUP_ROOT}{}/{name}", self.cgroup))
    }

    /// Ends as Drop does when it is asked to end. Call it once, before other threads are there.
    pub fn end_on_request(&self) -> Result<()> {
        let requests: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]
            .into_iter()
            .collect();
        // Programs that are started get none of this: std empties their mask.
        requests.thread_block().context("block signals")?;
        let host = self.clone();
        thread::spawn(move || {
            if requests.wait().is_ok() {
                drop(host);
                std::process::exit(130);
            }
            std::mem::forget(host);
        });
        Ok(())
    }

    /// Ends and removes all that is there. Nothing can be done about what is left; the names tell where it comes from.
    fn leave(&self) {
        os::end_descendants();
        let _ = remove_cgroup(&self.cgroup_path(""));
        for name in &self.enabled {
            let _ = fs::write(subtree_control(), format!("-{name}"));
        }
        let _ = os::detach(&self.state().to_string_lossy());
        let _ = fs::remove_dir_all(&self.folder);
    }

    pub fn has_controller(&self, name: &str) -> Result<bool> {
        let path = self.cgroup_path("").join("cgroup.subtree_control");
        Ok(fs::read_to_string(path)?
            .split_whitespace()
            .any(|found| found == name))
    }

    /// All of them for all: else the first runtime that wants one makes the others' cgroups dearer.
    fn enable_controllers(&self) -> Result<()> {
        let ours = self.cgroup_path("");
        for folder in [Path::new(CGROUP_ROOT), &ours] {
            for name in fs::read_to_string(folder.join("cgroup.controllers"))?.split_whitespace() {
                // One that cannot be enabled here (cpu, with real-time processes) is missing for
                // every contestant alike; who needs memory asks has_controller.
                let _ = fs::write(folder.join("cgroup.subtree_control"), format!("+{name}"));
            }
        }
        Ok(())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Kills what is inside, then removes the cgroup and those below it.
pub fn remove_cgroup(path: &Path) -> Result<()> {
    if !path.exists() {
        return Ok(());
    }
    fs::write(path.join("cgroup.kill"), "1").context("cgroup.kill")?;
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_cgroup(&entry.path())?;
        }
    }
    for _ in 0..200 {
        os::reap_leftovers();
        if fs::remove_dir(path).is_ok() {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(5));
    }
    bail!("cgroup {path:?} does not become empty")
}

fn subtree_control() -> PathBuf {
    Path::new(CGROUP_ROOT).join("cgroup.subtree_control")
}

/// Whoever enables these, this benchmark or a runtime, they are disabled again at the end.
fn missing_below_root() -> Result<Vec<String>> {
    let enabled = fs::read_to_string(subtree_control()).context("cgroup v2")?;
    let known = fs::read_to_string(Path::new(CGROUP_ROOT).join("cgroup.controllers"))?;
    let given: Vec<&str> = enabled.split_whitespace().collect();
    let missing = known
        .split_whitespace()
        .filter(|name| !given.contains(name));
    Ok(missing.map(String::from).collect())
}

pub fn number_from_env(name: &str, default: usize) -> Result<usize> {
    match std::env::var(name) {
        Ok(text) => text.parse().with_context(|| format!("{name}={text:?}")),
        Err(_) => Ok(default),
    }
}

fn has_pure_cgroup2() -> Result<bool> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("read mounts")?;
    let mut found = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        Some((fields.next()?, fields.next()?))
    });
    Ok(found.any(|(target, kind)| target == CGROUP_ROOT && kind == "cgroup2"))
}

/// On a hybrid host crun refuses to work and others take the v1 tree: hide that, for us alone.
fn show_cgroup2_only() -> Result<()> {
    if fs::read_to_string("/proc/self/mounts")?.contains(&format!(" {CGROUP_ROOT} ")) {
        os::detach(CGROUP_ROOT)?;
    }
    os::mount("cgroup2", CGROUP_ROOT, "cgroup2", 0)
}
