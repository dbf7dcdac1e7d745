//! The container's file system, as an ordered plan and the code that carries it out.
//!
//! `Plan::new` (in `plan/`) decides everything on the host, before any effect, and prints as
//! one step per line. Host paths are opened there as detached mounts (`trees.rs`). Init then takes
//! the steps one by one (`mounts.rs`, `nodes.rs`, `pivot.rs`, `finish.rs`) and decides nothing.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::sys::confined::ContainerPath;
use crate::sys::fd::InheritedFd;
use crate::sys::mount::Attributes;

#[cfg(feature = "runtime")]
mod added;
mod copy_up;
mod finish;
mod mounts;
mod nodes;
#[cfg(feature = "runtime")]
mod options;
mod pivot;
#[cfg(feature = "runtime")]
mod plan;
#[cfg(feature = "runtime")]
mod stage;
#[cfg(feature = "runtime")]
mod trees;

#[cfg(feature = "runtime")]
pub use added::{Added, detach};
pub use finish::keep_from_changes;
pub use mounts::{Outside, Prepared};
#[cfg(feature = "runtime")]
pub use options::{Effect, MOUNT_OPTIONS};
#[cfg(feature = "runtime")]
pub use plan::nodev::DeviceNode;
#[cfg(feature = "runtime")]
pub use plan::{Context, MountNamespace};
#[cfg(feature = "runtime")]
pub use trees::mount_points_below;

/// Everything that is done to the file system. `T` is what a bind mount comes from: a
/// `HostTree` in the plan that is printed, an [`OpenTree`] in the one that init gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan<T> {
    /// What becomes the root.
    pub root: T,
    /// How it becomes the root.
    pub entry: Entry,
    /// Mounts of the host that are taken away before the root is entered by [`Entry::Move`].
    pub hidden: Vec<String>,
    /// Propagation of every mount that was copied from the host, set before anything else; None
    /// where the mount namespace is not the container's own.
    pub host_propagation: Option<Propagation>,
    /// Mounts, in the order of config.json.
    pub mounts: Vec<Mount<T>>,
    /// Devices and links, made after the mounts.
    pub nodes: Vec<Node<T>>,
    /// Propagation of the root, set after everything else was mounted.
    pub propagation: Option<Propagation>,
    /// Paths made read-only, where they exist.
    pub read_only_paths: Vec<ContainerPath>,
    /// Paths hidden, where they exist.
    pub masked_paths: Vec<ContainerPath>,
    /// The option by which a new file system gets the container's SELinux label.
    pub label: Option<String>,
    /// The root itself becomes read-only, last.
    pub read_only: bool,
}

/// How a file system becomes the root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Entry {
    /// By pivot_root(2), in a mount namespace of the container's own.
    Pivot,
    /// By mounting it over `/` and chroot(2), where pivot_root is not possible (a ramdisk).
    Move,
    /// Likewise, over the root of a mount namespace that others are in: their own root stays as it
    /// is, as a root directory that is mounted over is not left. The mounts stay for as long as
    /// that namespace does.
    Cover,
    /// By chroot(2) alone, in a mount namespace that belongs to others too.
    Chroot,
}

/// A kind of propagation (`MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE`, `MS_UNBINDABLE`) and its reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Propagation {
    /// One of the `MS_*` values above.
    pub kind: u64,
    /// Also for all mounts below.
    pub recursive: bool,
}

/// One entry of `mounts`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount<T> {
    /// Where it goes.
    pub target: ContainerPath,
    /// What is mounted.
    pub source: Source<T>,
    /// Changes of propagation, in the order given.
    pub propagation: Vec<Propagation>,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source<T> {
    /// A tree of the host (bind mount); its attributes are set when it is opened.
    Tree(T),
    /// A file system made for the container.
    New(NewFileSystem),
    /// What is mounted there already, with other options.
    Remount {
        /// Attributes of the mount.
        attributes: Attributes,
        /// Options of the file system.
        options: Vec<String>,
    },
    /// Nothing: a symbolic link of the host is made again, with this text.
    Link(String),
}

/// A file system made for the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewFileSystem {
    /// The type, as in /proc/filesystems.
    pub fstype: String,
    /// The source, if one is named.
    pub source: Option<String>,
    /// Options of the file system, `key=value` or a bare `key`.
    pub options: Vec<String>,
    /// Attributes of the mount.
    pub attributes: Attributes,
    /// What the image has at the target is copied into it.
    pub copy_up: bool,
    /// The SELinux label of its root, where no option can set it.
    pub root_label: Option<String>,
    /// It becomes read-only only when devices and mount points have been made in it.
    pub read_only_late: bool,
}

/// A device, FIFO or link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Node<T> {
    /// A device node or FIFO, by mknod(2).
    Device(Device),
    /// The host's device, where a user namespace forbids mknod(2).
    Bound {
        /// Where.
        path: ContainerPath,
        /// The host's node.
        tree: T,
    },
    /// A symbolic link.
    Link {
        /// Where.
        path: ContainerPath,
        /// What it says.
        target: String,
    },
}

/// A device node or FIFO.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Where.
    pub path: ContainerPath,
    /// `c`, `b` or `p`.
    pub kind: char,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// A detached copy of a host's tree, ready to be attached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenTree {
    /// The detached mount.
    pub fd: InheritedFd,
    /// It is a directory, so its target has to be one.
    pub directory: bool,
    /// A symbolic link at the target is mounted over, and not followed.
    pub onto_link: bool,
}

/// A tree of the host, named in the plan and opened by the runtime before the clone, with the
/// host's privileges.
#[cfg(feature = "runtime")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostTree {
    /// Where it is on the host: absolute.
    pub path: std::path::PathBuf,
    /// A symbolic link at the path is what is mounted, and not followed.
    pub link: bool,
    /// A symbolic link at the target is mounted over, and not followed.
    pub onto_link: bool,
    /// With all mounts below it.
    pub recursive: bool,
    /// Attributes of its topmost mount.
    pub attributes: Attributes,
    /// Attributes that its topmost mount loses, unless they are locked (mount_namespaces(7)).
    pub lifted: u64,
    /// Attributes of all its mounts.
    pub recursive_attributes: Attributes,
    /// Ids on the mount are mapped.
    pub id_map: Option<IdMap>,
    /// Where config.json names it.
    pub json_path: String,
}

/// How the ids of a bind mount are mapped.
#[cfg(feature = "runtime")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdMap {
    /// Which ids become which.
    pub ids: Ids,
    /// Also for all mounts below.
    pub recursive: bool,
}

/// Where the map of ids comes from.
#[cfg(feature = "runtime")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ids {
    /// From lines of a uid_map and a gid_map file.
    Lines {
        /// Lines of a uid_map file.
        uid_map: String,
        /// Lines of a gid_map file.
        gid_map: String,
    },
    /// From the user namespace at this path.
    Of(std::path::PathBuf),
}
