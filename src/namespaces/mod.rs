//! Which namespaces a container has: new ones, joined ones, and the host's.
//!
//! Decides the flags of the clone, and what is joined and made before it. Leaves the doing to
//! `init::spawn` and `init::seed`.

mod devices;
mod idmap;
pub mod network;

use std::fmt;
use std::fs::{File, Metadata};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use oci_spec::runtime::{LinuxNamespaceType, Spec};
use rustix::fd::{AsFd, AsRawFd as _, OwnedFd};
use rustix::process::Pid;

use crate::error::Problems;
use crate::sys::process;
use crate::sys::rights::Rights;

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

/// linux/magic.h: the file system of namespaces' files (nsfs).
const NSFS_MAGIC: i64 = 0x6e73_6673;

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

    /// The kind of this name in config.json.
    #[must_use]
    pub fn named(name: &str) -> Option<Kind> {
        let row = KINDS.iter().find(|(_, known, _)| *known == name);
        row.map(|(kind, _, _)| *kind)
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

    /// Whether this kernel has such namespaces.
    fn is_known(self) -> bool {
        Path::new("/proc/self/ns").join(self.file()).exists()
    }

    /// The `CLONE_NEW*` flag.
    #[must_use]
    pub fn flag(self) -> u64 {
        self.row().1
    }
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
    /// The runtime gets back from a network namespace that it has entered.
    gets_back: bool,
}

impl Plan {
    /// The plan for `spec`, of a runtime that has `rights`.
    #[must_use]
    pub fn new(spec: &Spec, rights: Rights, problems: &mut Problems) -> Self {
        let Some(linux) = spec.linux() else {
            return Plan::default();
        };
        let mut plan = Plan {
            gets_back: rights.are_the_hosts(),
            ..Plan::default()
        };
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

    /// The plan of a process that joins a running one: all of its namespaces that are not the
    /// runtime's own.
    ///
    /// # Errors
    ///
    /// They can not be looked at, as when the process has ended.
    pub fn of_process(pid: Pid) -> Result<Self> {
        let mut plan = Plan::default();
        for &(kind, _, _) in KINDS {
            let path = PathBuf::from(format!("/proc/{}/ns/{}", pid.as_raw_nonzero(), kind.file()));
            // The kernel's own file, of the kind that its name says.
            let file = std::fs::metadata(&path);
            let file = file.with_context(|| format!("stat(\"{}\")", path.display()));
            match file.and_then(|file| differs(kind, &file)) {
                Ok(true) => plan.joined.push((kind, path)),
                Ok(false) => {}
                // A kernel without this kind has one for all.
                Err(_) if !kind.is_known() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(plan)
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

    /// What init's parent makes before the clone, as it takes time and the cgroup and the id maps
    /// are not needed for it: while the runtime plans and makes the cgroup. A time namespace is not among these flags: the parent makes it first,
    /// as its offsets are written before a process enters it.
    #[must_use]
    pub fn early_flags(&self) -> u64 {
        if self.is_new(Kind::User) {
            return 0; // the new user namespace is to own them, and comes with the clone
        }
        let network = !self.network_follows();
        self.flags(|kind| match kind {
            Kind::Mount | Kind::Pid | Kind::Ipc | Kind::Uts => true,
            Kind::Network => network,
            Kind::User | Kind::Cgroup | Kind::Time => false,
        })
    }

    /// Whether the runtime makes the network namespace after the clone, beside init, which joins it: no
    /// other takes so long. Not beside a user namespace of the container's own, which is to own the
    /// network too; nor where the runtime could not leave it again, as its own is the host's and not
    /// that of its user namespace.
    #[must_use]
    pub fn network_follows(&self) -> bool {
        self.gets_back && self.is_new(Kind::Network) && !self.is_own(Kind::User)
    }

    /// What comes with the clone.
    #[must_use]
    pub fn clone_flags(&self) -> u64 {
        let elsewhere = |kind| match kind {
            Kind::Time => true,
            Kind::Network => self.network_follows(),
            Kind::Mount | Kind::Pid | Kind::Ipc | Kind::Uts | Kind::User | Kind::Cgroup => false,
        };
        self.flags(|kind| !elsewhere(kind)) & !self.early_flags()
    }

    fn flags(&self, among: impl Fn(Kind) -> bool) -> u64 {
        let new = self.new.iter().filter(|kind| among(**kind));
        new.fold(0, |flags, kind| flags | kind.flag())
    }

    /// Whether interfaces of the host become the container's.
    #[must_use]
    pub fn moves_devices(&self) -> bool {
        !self.devices.is_empty()
    }

    /// Lines for /proc/PID/timens_offsets, if there is a new time namespace.
    #[must_use]
    pub fn time_offsets(&self) -> Option<&str> {
        self.is_new(Kind::Time).then_some(&self.time_offsets)
    }

    /// The maps of a new user namespace.
    #[must_use]
    pub fn id_maps(&self) -> Option<&IdMaps> {
        self.id_maps.as_ref()
    }

    /// The user namespace of the process `init`, if that is the container's own and not the host's.
    ///
    /// # Errors
    ///
    /// It can not be opened.
    pub fn user_namespace(&self, init: &str) -> Result<Option<OwnedFd>> {
        let path = match self.joined(Kind::User) {
            Some(path) => path.to_owned(),
            None if self.is_new(Kind::User) => PathBuf::from(format!("/proc/{init}/ns/user")),
            None => return Ok(None),
        };
        Ok(Some(open(&path).context("user namespace")?.into()))
    }

    /// Whether init's parent has to be in the container's cgroup before it joins namespaces: in
    /// another user or cgroup namespace it may not choose one of the host's any more.
    #[must_use]
    pub fn settles_first(&self) -> bool {
        self.joined(Kind::User).is_some() || self.joined(Kind::Cgroup).is_some()
    }

    /// Opens the namespaces to be joined, on the host.
    ///
    /// # Errors
    ///
    /// The path that can not be opened.
    pub fn open(&self) -> Result<Vec<(Kind, OwnedFd)>> {
        let joined = self.joined.iter();
        joined
            .map(|(kind, path)| {
                let file = open(path).with_context(|| format!("{} namespace", kind.name()))?;
                Ok((*kind, OwnedFd::from(file)))
            })
            .collect()
    }
}

/// Opens the namespace of this kind that a process is in.
///
/// # Errors
///
/// What the kernel answered, as when the process has ended.
pub fn open_of(pid: i32, kind: Kind) -> Result<OwnedFd> {
    let path = PathBuf::from(format!("/proc/{pid}/ns/{}", kind.file()));
    open(&path).map(OwnedFd::from)
}

/// Opens the file of a namespace. What is something else is not opened for use: whoever opens a device or a FIFO may set
/// something off, or wait.
fn open(path: &Path) -> Result<File> {
    let name = path.display();
    let mut place = File::options();
    place.read(true).custom_flags(libc::O_PATH);
    let place = place.open(path);
    let place = place.with_context(|| format!("open(\"{name}\")"))?;
    let found = rustix::fs::fstatfs(&place).with_context(|| format!("fstatfs(\"{name}\")"))?;
    if found.f_type != NSFS_MAGIC {
        bail!("\"{name}\" is no namespace");
    }
    let opened = File::open(format!("/proc/self/fd/{}", place.as_raw_fd()));
    opened.with_context(|| format!("open(\"{name}\")"))
}

/// True when the file at `path` is a namespace of this kind other than the runtime's own.
fn is_other(kind: Kind, path: &Path) -> Result<bool> {
    let file = open(path)?;
    let flag = process::namespace_type(file.as_fd())?;
    if flag != kind.flag() {
        let found = KINDS.iter().find(|(_, _, f)| *f == flag);
        let found = found.map_or("unknown", |(_, name, _)| name);
        let (name, wanted) = (path.display(), kind.name());
        bail!("\"{name}\" is a namespace of type {found}, not {wanted}");
    }
    differs(kind, &file.metadata()?)
}

/// True for the file of a namespace of this kind other than the runtime's own.
fn differs(kind: Kind, file: &Metadata) -> Result<bool> {
    let own = std::fs::metadata(format!("/proc/self/ns/{}", kind.file()))?;
    Ok((own.dev(), own.ino()) != (file.dev(), file.ino()))
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
        let spec = serde_json::from_str(&json).unwrap();
        let plan = Plan::new(&spec, Rights::Namespace, &mut problems);
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
    fn who_joins_a_user_or_cgroup_namespace_is_in_the_cgroup_before() {
        let with = |new: &[Kind], joined: &[Kind]| {
            let joined = joined.iter().map(|kind| (*kind, PathBuf::from("/run/ns")));
            let plan = Plan {
                new: new.to_vec(),
                joined: joined.collect(),
                ..Plan::default()
            };
            plan.settles_first()
        };
        assert!(!with(&[], &[Kind::Network]));
        assert!(!with(&[Kind::User], &[Kind::Pid]));
        assert!(with(&[], &[Kind::User, Kind::Network]));
        assert!(with(&[Kind::User], &[Kind::Cgroup]));
    }

    #[test]
    fn a_new_user_namespace_owns_the_other_new_ones() {
        let new = |kinds: &[Kind]| Plan {
            new: kinds.to_vec(),
            gets_back: true,
            ..Plan::default()
        };
        let (ipc, network) = (Kind::Ipc.flag(), Kind::Network.flag());
        let without = new(&[Kind::Network, Kind::Ipc, Kind::Cgroup]);
        assert!(without.network_follows());
        assert_eq!(without.early_flags(), ipc);
        assert_eq!(without.clone_flags(), Kind::Cgroup.flag());
        let stays = Plan {
            gets_back: false,
            ..without
        };
        assert!(!stays.network_follows());
        assert_eq!(stays.early_flags(), ipc | network);
        let with = new(&[Kind::Network, Kind::Ipc, Kind::User]);
        assert!(!with.network_follows());
        assert_eq!(with.early_flags(), 0);
        assert_eq!(with.clone_flags(), ipc | network | Kind::User.flag());
        let mut beside = new(&[Kind::Network, Kind::Ipc]);
        beside.joined.push((Kind::User, "/run/ns".into()));
        assert!(!beside.network_follows());
        assert_eq!(beside.early_flags(), ipc | network);
        assert_eq!(beside.clone_flags(), 0);
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
        let spec = serde_json::from_str(&json).unwrap();
        let _plan = Plan::new(&spec, Rights::Host, &mut problems);
        assert_eq!(
            problems.to_string(),
            "linux.namespaces[0].path: \"/proc/self/ns/net\" is a namespace of type network, not \
             uts; linux.namespaces[1].path: \"/proc/self/status\" is no namespace; \
             linux.namespaces[2].path: open(\"/nowhere\"): No such file or directory (os error 2)"
        );
    }

    #[test]
    fn what_is_no_namespace_is_not_opened() {
        use rustix::fs::inotify;
        let name = format!("parhelion-namespace-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, "").unwrap();
        let watch = inotify::init(inotify::CreateFlags::NONBLOCK).unwrap();
        inotify::add_watch(&watch, &path, inotify::WatchFlags::OPEN).unwrap();
        let mut events = [0; 64];
        let error = is_other(Kind::Uts, &path).unwrap_err();
        assert_eq!(error.to_string(), format!("{path:?} is no namespace"));
        let opened = rustix::io::read(&watch, &mut events);
        assert_eq!(opened, Err(rustix::io::Errno::AGAIN));
        drop(File::open(&path).unwrap());
        assert!(rustix::io::read(&watch, &mut events).is_ok());
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_time_namespace_is_no_flag_of_the_clone() {
        let plan = plan(r#"{"namespaces": [{"type": "time"}, {"type": "uts"}]}"#);
        assert_eq!(plan.clone_flags(), 0);
        assert_eq!(plan.early_flags(), libc::CLONE_NEWUTS as u64);
        assert_eq!(plan.time_offsets(), Some(""));
    }
}
