//! Which namespaces a container has: new ones, joined ones, and the host's.
//!
//! Decides the flags of the clone and what is joined before it. Leaves the clone itself to
//! `init::spawn`, which knows the order that this plan asks for.

mod devices;
mod idmap;

use std::fmt;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use oci_spec::runtime::{LinuxNamespaceType, Spec};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::error::Problems;
use crate::sys::spawn::Memory;
use crate::sys::{Errno, process};

pub use devices::{Device, move_devices};
pub use idmap::IdMaps;

/// A kind of namespace (namespaces(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Mount points.
    Mount,
    /// Process ids.
    Pid,
    /// Network devices, addresses, ports.
    Network,
    /// System V IPC and POSIX message queues.
    Ipc,
    /// Host and domain name.
    Uts,
    /// User and group ids, capabilities.
    User,
    /// The root of the cgroup tree.
    Cgroup,
    /// Monotonic and boot-time clocks (Linux 5.6).
    Time,
}

/// Every kind: its name in config.json's `linux.namespaces[].type`, and its `CLONE_NEW*` flag.
pub const KINDS: &[(Kind, &str, u64)] = &[
    (Kind::Mount, "mount", libc::CLONE_NEWNS as u64),
    (Kind::Pid, "pid", libc::CLONE_NEWPID as u64),
    (Kind::Network, "network", libc::CLONE_NEWNET as u64),
    (Kind::Ipc, "ipc", libc::CLONE_NEWIPC as u64),
    (Kind::Uts, "uts", libc::CLONE_NEWUTS as u64),
    (Kind::User, "user", libc::CLONE_NEWUSER as u64),
    (Kind::Cgroup, "cgroup", libc::CLONE_NEWCGROUP as u64),
    (Kind::Time, "time", libc::CLONE_NEWTIME as u64),
];

impl Kind {
    fn of(typ: LinuxNamespaceType) -> Kind {
        match typ {
            LinuxNamespaceType::Mount => Kind::Mount,
            LinuxNamespaceType::Pid => Kind::Pid,
            LinuxNamespaceType::Network => Kind::Network,
            LinuxNamespaceType::Ipc => Kind::Ipc,
            LinuxNamespaceType::Uts => Kind::Uts,
            LinuxNamespaceType::User => Kind::User,
            LinuxNamespaceType::Cgroup => Kind::Cgroup,
            LinuxNamespaceType::Time => Kind::Time,
        }
    }

    fn row(self) -> (&'static str, u64) {
        KINDS
            .iter()
            .find(|(kind, _, _)| *kind == self)
            .map_or(("", 0), |row| (row.1, row.2))
    }

    /// The name in config.json.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.row().0
    }

    /// The name in /proc/PID/ns.
    fn file(self) -> &'static str {
        match self {
            Kind::Mount => "mnt",
            Kind::Network => "net",
            Kind::Pid | Kind::Ipc | Kind::Uts | Kind::User | Kind::Cgroup | Kind::Time => {
                self.name()
            }
        }
    }

    /// The `CLONE_NEW*` flag.
    #[must_use]
    pub fn flag(self) -> u64 {
        self.row().1
    }
}

/// The name of the kind with this `CLONE_NEW*` flag.
#[must_use]
pub fn name_of(flag: u64) -> &'static str {
    KINDS
        .iter()
        .find(|(_, _, of_kind)| *of_kind == flag)
        .map_or("unknown", |(_, name, _)| name)
}

/// The container's namespaces; a kind that stands nowhere here is the host's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    new: Vec<Kind>,
    joined: Vec<(Kind, PathBuf)>,
    id_maps: Option<IdMaps>,
    /// Lines for /proc/PID/timens_offsets.
    time_offsets: String,
    devices: Vec<Device>,
}

impl Plan {
    /// The plan for `spec`.
    #[must_use]
    pub fn new(spec: &Spec, problems: &mut Problems) -> Self {
        let Some(linux) = spec.linux() else {
            return Plan::default();
        };
        let mut plan = Plan::default();
        for (i, namespace) in linux.namespaces().iter().flatten().enumerate() {
            let kind = Kind::of(namespace.typ());
            match namespace.path() {
                None => plan.new.push(kind),
                Some(path) => match is_other(kind, path) {
                    Ok(true) => plan.joined.push((kind, path.clone())),
                    Ok(false) => {} // the host's, in which the container is anyway
                    Err(e) => problems.add(format!("linux.namespaces[{i}].path"), format!("{e:#}")),
                },
            }
        }
        plan.devices = devices::plan(spec, problems);
        if plan.is_new(Kind::User) {
            plan.id_maps = Some(IdMaps::new(linux.uid_mappings(), linux.gid_mappings()));
        }
        // Sorted, as the map has no order of its own and the plan is compared as text.
        let offsets = linux.time_offsets().iter().flatten();
        let mut lines: Vec<String> = offsets
            .map(|(clock, offset)| {
                let (secs, nanosecs) = (offset.secs().unwrap_or(0), offset.nanosecs().unwrap_or(0));
                format!("{clock} {secs} {nanosecs}\n")
            })
            .collect();
        lines.sort();
        plan.time_offsets = lines.concat();
        plan
    }

    /// True for a namespace that is made for the container.
    #[must_use]
    pub fn is_new(&self, kind: Kind) -> bool {
        self.new.contains(&kind)
    }

    /// True for a namespace that is not the host's: new or joined.
    #[must_use]
    pub fn is_own(&self, kind: Kind) -> bool {
        self.is_new(kind) || self.joined(kind).is_some()
    }

    /// Where the namespace is that is joined, if one of this kind is.
    #[must_use]
    pub fn joined(&self, kind: Kind) -> Option<&Path> {
        let joined = self.joined.iter().find(|(joined, _)| *joined == kind);
        joined.map(|(_, path)| path.as_path())
    }

    /// The flags of the clone. A time namespace is not among them: its offsets must be written
    /// before its first process enters it, so it is unshared by the parent.
    #[must_use]
    pub fn clone_flags(&self) -> u64 {
        self.new
            .iter()
            .filter(|kind| **kind != Kind::Time)
            .fold(0, |flags, k| flags | k.flag())
    }

    /// The maps of a new user namespace.
    #[must_use]
    pub fn id_maps(&self) -> Option<&IdMaps> {
        self.id_maps.as_ref()
    }

    /// Joining must happen in a process of its own, whose child is init: a joined pid namespace
    /// holds only the children of who joins it, and the owner of new namespaces is the user
    /// namespace in which the clone happens.
    #[must_use]
    pub fn needs_a_step_between(&self) -> bool {
        let user = self.is_own(Kind::User);
        self.joined
            .iter()
            .any(|(kind, _)| *kind == Kind::Pid || *kind == Kind::User)
            || (user && !self.joined.is_empty())
    }

    /// Whether init may have the runtime's memory until its execve: not where processes of others
    /// reach it before that, by its pid or as its user namespace's root, nor where the kernel forbids
    /// it, as for another time namespace.
    #[must_use]
    pub fn memory(&self) -> Memory {
        let joins_pids = self.is_own(Kind::Pid) && !self.is_new(Kind::Pid);
        if self.is_own(Kind::User) || self.is_own(Kind::Time) || joins_pids {
            Memory::Copied
        } else {
            Memory::Shared
        }
    }

    /// Opens the namespaces to be joined, on the host.
    ///
    /// # Errors
    ///
    /// The path that can not be opened.
    pub fn open(&self) -> Result<Joins> {
        let join = |(kind, path): &(Kind, PathBuf)| {
            let file = open(path).with_context(|| format!("{} namespace", kind.name()))?;
            Ok((*kind, OwnedFd::from(file)))
        };
        self.joined
            .iter()
            .map(join)
            .collect::<Result<_>>()
            .map(Joins)
    }

    /// Makes the new time namespace, which this process' next child enters. The returned guard
    /// must live until after that clone.
    ///
    /// # Errors
    ///
    /// `EINVAL` in a kernel without time namespaces, or for an offset out of range.
    pub fn enter_time(&self) -> Result<Option<TimeGuard>> {
        if !self.is_new(Kind::Time) {
            return Ok(None);
        }
        let own = File::open("/proc/self/ns/time").context("open(/proc/self/ns/time)")?;
        process::unshare(Kind::Time.flag()).context("time namespace")?;
        let guard = TimeGuard(own.into());
        if !self.time_offsets.is_empty() {
            let file = File::options()
                .write(true)
                .open("/proc/self/timens_offsets");
            file.and_then(|mut file| file.write_all(self.time_offsets.as_bytes()))
                .with_context(|| format!("linux.timeOffsets {:?}", self.time_offsets))?;
        }
        Ok(Some(guard))
    }
}

/// Opens the file of a namespace; what is a FIFO instead must not hold the runtime up.
fn open(path: &Path) -> Result<File> {
    let mut options = File::options();
    options.read(true).custom_flags(libc::O_NONBLOCK);
    let opened = options.open(path);
    opened.with_context(|| format!("open(\"{}\")", path.display()))
}

/// True when the file at `path` is a namespace of this kind other than the runtime's own.
fn is_other(kind: Kind, path: &Path) -> Result<bool> {
    let file = open(path)?;
    let name = path.display();
    let flag = match process::namespace_type(file.as_fd()) {
        Err(error) if error.errno == Errno::NOTTY => bail!("\"{name}\" is no namespace"),
        answered => answered?,
    };
    if flag != kind.flag() {
        let found = KINDS.iter().find(|(_, _, f)| *f == flag);
        let found = found.map_or("unknown", |(_, name, _)| name);
        let wanted = kind.name();
        bail!("\"{name}\" is a namespace of type {found}, not {wanted}");
    }
    let own = std::fs::metadata(format!("/proc/self/ns/{}", kind.file()))?;
    let joined = file.metadata()?;
    Ok((own.dev(), own.ino()) != (joined.dev(), joined.ino()))
}

/// Takes the runtime back to its own time namespace, so that hooks do not run in the container's.
#[derive(Debug)]
pub struct TimeGuard(OwnedFd);

impl Drop for TimeGuard {
    fn drop(&mut self) {
        // Joining the namespace one came from needs nothing that unshare did not need before.
        let _back = process::join_namespace(self.0.as_fd(), Kind::Time.flag(), "time");
    }
}

/// Open namespaces, to be joined.
#[derive(Debug)]
pub struct Joins(Vec<(Kind, OwnedFd)>);

impl Joins {
    /// All of them with their `CLONE_NEW*` flags, for a process that can join them in any order:
    /// there is no user namespace among them.
    #[must_use]
    pub fn all(&self) -> Vec<(BorrowedFd<'_>, u64)> {
        self.0
            .iter()
            .map(|(kind, fd)| (fd.as_fd(), kind.flag()))
            .collect()
    }

    /// Joins all of them, in the calling process.
    ///
    /// With the host's privileges first; what those do not allow (a namespace that belongs to the
    /// user namespace to be joined) is joined again after that one. The user namespace comes
    /// last but those, as it takes the host's privileges away.
    ///
    /// # Errors
    ///
    /// The namespace that could not be joined.
    pub fn join(&self) -> Result<()> {
        let (user, others): (Vec<_>, Vec<_>) = self.0.iter().partition(|(k, _)| *k == Kind::User);
        let mut refused = Vec::new();
        for &(kind, fd) in &others {
            match join(kind, fd) {
                Ok(()) => {}
                Err(_) if !user.is_empty() => refused.push((kind, fd)),
                Err(error) => return Err(error),
            }
        }
        for (kind, fd) in user.into_iter().map(|(k, fd)| (k, fd)).chain(refused) {
            join(kind, fd)?;
        }
        Ok(())
    }
}

fn join(kind: &Kind, namespace: &OwnedFd) -> Result<()> {
    process::join_namespace(namespace.as_fd(), kind.flag(), kind.name())
        .with_context(|| format!("joining the {} namespace", kind.name()))
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for kind in &self.new {
            writeln!(f, "new    {}", kind.name())?;
        }
        for (kind, path) in &self.joined {
            writeln!(f, "join   {} {}", kind.name(), path.display())?;
        }
        for line in self.time_offsets.lines() {
            writeln!(f, "offset {line}")?;
        }
        for device in &self.devices {
            writeln!(f, "move   {} -> {}", device.host, device.inside)?;
        }
        match &self.id_maps {
            Some(maps) => write!(f, "{maps}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(linux: &str) -> Plan {
        let json = format!("{{\"ociVersion\": \"1.3.0\", \"linux\": {linux}}}");
        let mut problems = Problems::default();
        let plan = Plan::new(&serde_json::from_str(&json).unwrap(), &mut problems);
        assert!(problems.is_empty(), "{problems}");
        plan
    }

    #[test]
    fn a_plan_prints_one_namespace_per_line() {
        let mut plan = plan(
            r#"{"namespaces": [{"type": "pid"}, {"type": "user"}, {"type": "time"}],
                "uidMappings": [{"containerID": 0, "hostID": 1000, "size": 1},
                    {"containerID": 1, "hostID": 100000, "size": 65536}],
                "gidMappings": [{"containerID": 0, "hostID": 1000, "size": 1}],
                "timeOffsets": {"monotonic": {"secs": 5, "nanosecs": 7}}}"#,
        );
        plan.joined.push((Kind::Network, "/run/netns/web".into()));
        assert_eq!(
            plan.to_string(),
            "new    pid\nnew    user\nnew    time\njoin   network /run/netns/web\n\
             offset monotonic 5 7\nuids   0 1000 1, 1 100000 65536\ngids   0 1000 1\n"
        );
    }

    #[test]
    fn joining_next_to_a_user_namespace_takes_a_step_between() {
        let with = |new: &[Kind], joined: &[Kind]| {
            let joined = joined.iter().map(|kind| (*kind, PathBuf::from("/run/ns")));
            let plan = Plan {
                new: new.to_vec(),
                joined: joined.collect(),
                ..Plan::default()
            };
            plan.needs_a_step_between()
        };
        assert!(!with(&[], &[Kind::Network]));
        assert!(!with(&[Kind::User], &[]));
        assert!(with(&[Kind::User], &[Kind::Network]));
        assert!(with(&[], &[Kind::Pid]));
    }

    #[test]
    fn the_namespace_of_the_runtime_itself_is_not_joined() {
        let plan = plan(
            r#"{"namespaces": [{"type": "user", "path": "/proc/self/ns/user"},
            {"type": "mount", "path": "/proc/self/ns/mnt"}]}"#,
        );
        assert_eq!(plan, Plan::default());
    }

    #[test]
    fn a_file_that_is_another_thing_is_refused_with_its_place() {
        let linux = r#"{"namespaces": [{"type": "uts", "path": "/proc/self/ns/net"},
            {"type": "ipc", "path": "/proc/self/status"}, {"type": "pid", "path": "/nowhere"}]}"#;
        let json = format!("{{\"ociVersion\": \"1.3.0\", \"linux\": {linux}}}");
        let mut problems = Problems::default();
        let _plan = Plan::new(&serde_json::from_str(&json).unwrap(), &mut problems);
        assert_eq!(
            problems.to_string(),
            "linux.namespaces[0].path: \"/proc/self/ns/net\" is a namespace of type network, not \
             uts; linux.namespaces[1].path: \"/proc/self/status\" is no namespace; \
             linux.namespaces[2].path: open(\"/nowhere\"): No such file or directory (os error 2)"
        );
    }

    #[test]
    fn a_time_namespace_is_no_flag_of_the_clone() {
        let plan = plan(r#"{"namespaces": [{"type": "time"}, {"type": "uts"}]}"#);
        assert_eq!(plan.clone_flags(), libc::CLONE_NEWUTS as u64);
    }
}
