//! Those who are measured: how each is found, called, and cleaned up after.
//!
//! Decides that a container's own life between `start` and `delete` is not the runtime's time, but
//! that its CPU time is counted, because setting up happens in that process. A failure is counted
//! and never dropped; what it leaves behind is removed before the next measurement.

use crate::bundle::{self, Variant};
use crate::host::{self, Host};
use crate::os;
use anyhow::{Context, Result, bail, ensure};
use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    Run,
    CreateStartDelete,
    /// `run`, under Docker's default seccomp profile.
    RunFiltered,
}

/// One success, added up over its commands.
#[derive(Clone, Copy, Default)]
pub struct Sample {
    pub wall: Duration,
    pub cpu: Duration,
    pub peak_kib: u64,
}

pub struct Contestant {
    pub name: String,
    pub version: String,
    program: PathBuf,
    variant: Variant,
    bundle: PathBuf,
    filtered: PathBuf,
    run: Outcomes,
    create_start_delete: Outcomes,
    run_filtered: Outcomes,
}

#[derive(Default)]
pub struct Outcomes {
    pub good: Vec<Sample>,
    pub failures: usize,
}

/// The kernel floor, by system calls alone.
pub const FLOOR: &str = "floor";
/// The same program with what every C program has, a libc: static glibc, as parhelion's.
pub const FLOOR_WITH_LIBC: &str = "floor+libc";

/// The floors, parhelion and every other runtime on PATH, with notes on those that need less work
/// than the whole bundle or cannot run it at all.
pub fn find(host: &Host) -> Result<(Vec<Contestant>, Vec<String>)> {
    let mut found = vec![
        Contestant::new(host, FLOOR, host.floor.clone())?,
        Contestant::new(host, FLOOR_WITH_LIBC, host.floor_with_libc.clone())?,
    ];
    let mut notes = Vec::new();
    let ours = std::env::var_os("PARHELION")
        .or_else(|| option_env!("CARGO_BIN_EXE_parhelion").map(OsString::from));
    for name in ["parhelion", "crun", "runc", "youki"] {
        let named = ours
            .clone()
            .map(PathBuf::from)
            .filter(|_| name == "parhelion");
        match named.filter(|path| path.exists()).or_else(|| on_path(name)) {
            Some(program) => found.push(Contestant::new(host, name, program)?),
            None => notes.push(format!("{name}: not found")),
        }
    }
    let mut able = Vec::new();
    for mut contestant in found {
        match contestant.settle_variant(host)? {
            Ok(note) => {
                notes.extend(note);
                able.push(contestant);
            }
            Err(error) => notes.push(format!("{}: left out: {error:#}", contestant.name)),
        }
    }
    Ok((able, notes))
}

fn is_floor(name: &str) -> bool {
    name == FLOOR || name == FLOOR_WITH_LIBC
}

fn on_path(name: &str) -> Option<PathBuf> {
    let folders = std::env::var_os("PATH")?;
    std::env::split_paths(&folders)
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
}

impl Contestant {
    fn new(host: &Host, name: &str, program: PathBuf) -> Result<Self> {
        let program = install(host, name, &program)?;
        let bundle = bundle::write(host, name, Variant::default())?;
        let version = match is_floor(name) {
            true => String::new(),
            false => version(&program),
        };
        Ok(Self {
            name: name.into(),
            version,
            program,
            variant: Variant::default(),
            bundle,
            filtered: bundle::filtered(host, name, Variant::default())?,
            run: Outcomes::default(),
            create_start_delete: Outcomes::default(),
            run_filtered: Outcomes::default(),
        })
    }

    /// Finds the largest part of the bundle that this runtime can run here.
    fn settle_variant(&mut self, host: &Host) -> Result<Result<Option<String>>> {
        let Err(error) = self.measure(host, Shape::CreateStartDelete)? else {
            return Ok(Ok(None));
        };
        self.variant.without_devices = true;
        bundle::write(host, &self.name, self.variant)?;
        bundle::filtered(host, &self.name, self.variant)?;
        let lesser = self.measure(host, Shape::CreateStartDelete)?;
        let name = &self.name;
        Ok(lesser.map(|_| {
            Some(format!(
                "{name}: measured with less work, without resources.devices, as with it: {error:#}"
            ))
        }))
    }

    /// Keeps the lack of device rules that `settle_variant` found necessary.
    pub fn limit_memory(&self, host: &Host, limit: u64) -> Result<()> {
        let variant = Variant {
            memory_limit: Some(limit),
            ..self.variant
        };
        bundle::write(host, &self.name, variant)?;
        Ok(())
    }

    /// No runtime, but what one is measured against.
    pub fn is_floor(&self) -> bool {
        is_floor(&self.name)
    }

    /// A floor has no filter.
    pub fn can(&self, shape: Shape) -> bool {
        shape != Shape::RunFiltered || !self.is_floor()
    }

    pub fn outcomes(&self, shape: Shape) -> &Outcomes {
        match shape {
            Shape::Run => &self.run,
            Shape::CreateStartDelete => &self.create_start_delete,
            Shape::RunFiltered => &self.run_filtered,
        }
    }

    pub fn keep(&mut self, shape: Shape, outcome: Result<Sample>) {
        let outcomes = match shape {
            Shape::Run => &mut self.run,
            Shape::CreateStartDelete => &mut self.create_start_delete,
            Shape::RunFiltered => &mut self.run_filtered,
        };
        match outcome {
            Ok(sample) => outcomes.good.push(sample),
            Err(_) => outcomes.failures += 1,
        }
    }

    /// One measurement, with nothing left behind. The outer error ends the benchmark.
    pub fn measure(&self, host: &Host, shape: Shape) -> Result<Result<Sample>> {
        let mut total = Sample::default();
        let result = match shape {
            Shape::Run => self.verb(host, "run", &self.bundle, &mut total),
            Shape::RunFiltered => self.verb(host, "run", &self.filtered, &mut total),
            Shape::CreateStartDelete => self.create_start_delete_once(host, &mut total),
        };
        if result.is_err() {
            self.clean_up(host)?;
        }
        os::reap_leftovers();
        Ok(result.map(|()| total))
    }

    fn create_start_delete_once(&self, host: &Host, total: &mut Sample) -> Result<()> {
        self.verb(host, "create", &self.bundle, total)?;
        let pid = self.container_pid(host)?;
        self.verb(host, "start", &self.bundle, total)?;
        let ended = os::reap(pid, host.limit)?.context("the container does not end")?;
        ensure!(
            ended.status == 0,
            "the container ended with wait status {:#x}",
            ended.status
        );
        total.cpu += ended.cpu;
        self.verb(host, "delete", &self.bundle, total)
    }

    fn container_pid(&self, host: &Host) -> Result<i32> {
        let path = if self.is_floor() {
            host.cgroup_path(&self.name).join("cgroup.procs")
        } else {
            self.pid_file()
        };
        let text = fs::read_to_string(&path).with_context(|| format!("read {path:?}"))?;
        text.trim().parse().with_context(|| format!("pid {text:?}"))
    }

    fn pid_file(&self) -> PathBuf {
        self.bundle.join("pid")
    }

    /// One command under the stopwatch; whatever is not success within the limit is an error.
    fn verb(&self, host: &Host, verb: &str, bundle: &Path, total: &mut Sample) -> Result<()> {
        let log = bundle.join("log");
        let output = Command::new(&host.stopwatch)
            .arg(host.limit.as_millis().to_string())
            .arg(&self.program)
            .args(self.arguments(host, verb, bundle)?)
            .stdin(Stdio::null())
            .stderr(File::create(&log)?)
            .output()
            .with_context(|| format!("{:?}", host.stopwatch))?;
        let report = String::from_utf8_lossy(&output.stdout);
        let fields: Vec<u64> = report
            .split_whitespace()
            .filter_map(|f| f.parse().ok())
            .collect();
        let [wall, user, system, peak_kib, status, late] = fields[..] else {
            bail!("stopwatch said {report:?} {}", last_error(&log));
        };
        ensure!(late == 0, "{verb} took longer than {:?}", host.limit);
        ensure!(status == 0, "{verb} failed: {}", last_error(&log));
        total.wall += Duration::from_nanos(wall);
        total.cpu += Duration::from_micros(user + system);
        total.peak_kib = total.peak_kib.max(peak_kib);
        Ok(())
    }

    fn arguments(&self, host: &Host, verb: &str, bundle: &Path) -> Result<Vec<OsString>> {
        let makes = matches!(verb, "run" | "create");
        if self.is_floor() {
            let rootfs = bundle::rootfs(host)?;
            let cgroup = host.cgroup_path(&self.name);
            let all: &[&Path] = match makes {
                true => &[Path::new(verb), &rootfs, &cgroup, Path::new("/bin/true")],
                false => &[Path::new(verb), &cgroup],
            };
            return Ok(all.iter().map(OsString::from).collect());
        }
        let mut all = vec!["--root".into(), self.state_folder(host).into(), verb.into()];
        if makes {
            all.extend(["--bundle".into(), bundle.into()]);
        }
        if verb == "create" {
            all.extend(["--pid-file".into(), self.pid_file().into()]);
        }
        all.push(format!("bench-{}", self.name).into());
        Ok(all)
    }

    fn state_folder(&self, host: &Host) -> PathBuf {
        host.state().join(&self.name)
    }

    /// After a failure: first as a user would, then by force.
    fn clean_up(&self, host: &Host) -> Result<()> {
        if !self.is_floor() {
            let state = self.state_folder(host);
            let mut delete = Command::new(&self.program);
            delete.arg("--root").arg(&state).args(["delete", "--force"]);
            delete
                .arg(format!("bench-{}", self.name))
                .stdin(Stdio::null());
            // It fails when the container never came to be; what matters is what follows.
            let _ = delete.stdout(Stdio::null()).stderr(Stdio::null()).status();
            if state.exists() {
                fs::remove_dir_all(&state)?;
            }
        }
        host::remove_cgroup(&host.cgroup_path(&self.name))
    }
}

/// A copy of the program, made like all the others': how a file came to be, by a linker or by an
/// installation, and how long ago, decides how the kernel keeps its pages, and makes a start up to 15 %
/// faster or slower.
fn install(host: &Host, name: &str, program: &Path) -> Result<PathBuf> {
    let folder = host.folder.join("programs");
    fs::create_dir_all(&folder).with_context(|| format!("make {folder:?}"))?;
    let installed = folder.join(name);
    fs::copy(program, &installed).with_context(|| format!("copy {program:?}"))?;
    Ok(installed)
}

fn version(program: &Path) -> String {
    let output = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .output();
    let text = output
        .map(|o| String::from_utf8_lossy(&o.stdout).into_owned())
        .unwrap_or_default();
    text.lines().next().unwrap_or("version unknown").to_owned()
}

/// What a failed command said: its last error, or else its last words (youki ends with a backtrace).
fn last_error(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let said = |wanted: fn(&str) -> bool| text.lines().rfind(|line| wanted(line.trim()));
    let words = said(|line| line.to_lowercase().contains("error"));
    let words = words.or_else(|| said(|line| !line.is_empty()));
    words.unwrap_or("(said nothing)").to_owned()
}
