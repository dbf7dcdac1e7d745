//! The container's cgroup: limits, devices, and the handle by which its processes are reached.
//!
//! [`Plan`] is made from config.json before any effect. [`Cgroup::create`] makes the directory,
//! writes what must hold before init is cloned into it (CLONE_INTO_CGROUP);
//! [`Cgroup::filter_devices`] and [`Cgroup::apply_late`] do the rest when init has made the devices
//! and is ready. No process is ever moved into a cgroup, but for one by [`Cgroup::settle`]: that
//! would wait for an RCU grace period of the kernel, several milliseconds.
//!
//! Only cgroup v2. Who makes the directory is a [`Manager`]: this program, or systemd, in a scope of
//! its own for each container (systemd/).
//!
//! A new controller is a file here and its line in [`CONTROLLERS`].

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::Result;
use oci_spec::runtime::LinuxResources;

use crate::sys::{Call, Errno, SysResult};

mod cpu;
mod cpuset;
mod create;
mod delegation;
mod devices;
mod events;
mod files;
mod hierarchy;
mod hugetlb;
mod inner;
mod io;
mod memory;
mod network;
mod owner;
mod path;
mod pids;
mod plan;
mod pressure;
mod processes;
mod rdma;
mod remove;
pub mod resctrl;
mod stats;
mod systemd;
mod tree;
mod unified;
mod update;
mod watch;
mod without;

pub use devices::{DeviceFilter, denies_devices};
pub use events::Deadline;
pub use hierarchy::Hierarchy;
pub use inner::{Inner, inner_annotation};
pub use plan::{Draft, Plan};
pub use pressure::Pressure;
pub use stats::{Stats, number_of};
pub use systemd::{Manager, ManagerChoice, Systemd, UNIT_PROPERTY, Unit, Whose};
pub use update::Change;
pub use watch::{Happening, Threshold, Watch, Woken};

/// One of the kernel's resource controllers.
pub trait Controller: Sync {
    /// The name in `cgroup.controllers`, which is also the first part of its files' names.
    fn name(&self) -> &'static str;

    /// Adds to the plan what `linux.resources` asks of this controller, or what is wrong with it.
    fn plan(&self, resources: &LinuxResources, draft: &mut Draft<'_>);
}

/// All controllers, in the order in which their limits are written: first where a container runs,
/// then how much it gets.
pub const CONTROLLERS: &[&dyn Controller] = &[
    &cpuset::Cpuset,
    &cpu::Cpu,
    &io::Io,
    &hugetlb::Hugetlb,
    &rdma::Rdma,
    &memory::Memory,
    &pids::Pids,
];

/// Who can make a container's cgroup: this program in the cgroup file system, the host's systemd, or a
/// user's. The variants of [`Manager`] and [`Whose`].
pub const MANAGERS: &[&str] = &["cgroupfs", "systemd", "systemd-user"];

/// A cgroup: its open directory and its place.
///
/// One that was created is removed again when this is dropped, with whatever runs in it, unless it
/// is kept.
#[derive(Debug)]
pub struct Cgroup {
    directory: OwnedFd,
    mount_point: PathBuf,
    path: PathBuf,
    /// How many directories at the end of `path` were made by this value and not kept.
    made: usize,
    /// The scope whose cgroup it is, if this value has made it.
    scope: Option<Box<systemd::Scope>>,
    /// Those below it in which processes begin, if this value has made them.
    inner: Option<Box<inner::Made>>,
}

impl Cgroup {
    /// Opens an existing cgroup by its path below the mount point; None when there is none.
    ///
    /// # Errors
    ///
    /// It exists and can not be opened.
    pub fn open(hierarchy: &Hierarchy, path: &Path) -> Result<Option<Cgroup>> {
        match tree::open(hierarchy.root(), path) {
            Ok(directory) => Ok(Some(Cgroup::new(hierarchy, path, directory, 0))),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => {
                let place = hierarchy.mount_point().join(path);
                Ok(Err(errno).call(|| format!("open({place:?}, O_DIRECTORY)"))?)
            }
        }
    }

    fn new(hierarchy: &Hierarchy, path: &Path, directory: OwnedFd, made: usize) -> Cgroup {
        let (mount_point, path) = (hierarchy.mount_point().to_owned(), path.to_owned());
        Cgroup {
            directory,
            mount_point,
            path,
            made,
            scope: None,
            inner: None,
        }
    }

    /// Whether a process of this one's cgroup can be cloned into it, by a caller without rights over the
    /// whole tree.
    #[must_use]
    pub fn may_be_entered(&self, hierarchy: &Hierarchy) -> bool {
        let own = systemd::cgroup_of("self");
        own.is_ok_and(|own| delegation::may_enter(hierarchy, &self.path, &own))
    }

    /// Leaves the cgroup in place when this value is dropped.
    pub fn keep(&mut self) {
        self.made = 0;
    }

    /// As [`Self::keep`], for the end of a chain.
    #[must_use]
    pub fn into_kept(mut self) -> Cgroup {
        self.keep();
        self
    }

    /// The path below the hierarchy's mount point, as "parhelion/web".
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory, open for reading: for CLONE_INTO_CGROUP (Linux 5.7).
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// The text of one of the cgroup's files, as `memory.current`; None when there is no such
    /// file: its controller is not enabled here, or the cgroup is gone.
    ///
    /// # Errors
    ///
    /// The file can not be read.
    pub fn read(&self, file: &str) -> Result<Option<String>> {
        match files::read(self.fd(), file) {
            Ok(text) => Ok(Some(text)),
            Err(Errno::NOENT | Errno::NODEV) => Ok(None),
            Err(errno) => Ok(Err(errno).call(|| format!("read({:?})", self.place(file)))?),
        }
    }

    fn write(&self, file: &str, value: &str) -> SysResult<()> {
        files::write(self.fd(), file, value)
            .call(|| format!("write({:?}, {value:?})", self.place(file)))
    }

    /// A file's full path, for messages.
    fn place(&self, file: &str) -> PathBuf {
        self.mount_point.join(&self.path).join(file)
    }
}

impl fmt::Display for Cgroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cgroup {}", self.path.display())
    }
}

impl AsFd for Cgroup {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd()
    }
}
