//! Decides every step on the file system, from config.json and nothing else.
//!
//! `words.rs` adds up the options of a mount, `mounts.rs` and `nodes.rs` make steps of `mounts`
//! and `linux.devices`, `print.rs` prints the plan.

mod ids;
mod labels;
mod mounts;
mod nodes;
pub(super) mod nodev;
mod print;
mod words;

use std::path::Path;

use oci_spec::runtime::Spec;

use super::options::{Effect, effect};
use super::{Entry, HostTree, Mount, Plan, Propagation, Source};
use crate::error::Problems;
use crate::sys::confined::ContainerPath;
use crate::sys::mount::Attributes;

/// What the plan depends on beside config.json.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The bundle on the host, absolute: what a relative source is relative to.
    pub bundle: &'a Path,
    /// The bundle's root on the host, absolute.
    pub rootfs: &'a Path,
    /// Where the host's cgroup v2 tree is mounted: what a `cgroup` mount shows when the cgroup
    /// namespace is the host's.
    pub cgroup_tree: &'a Path,
    /// Whose mounts the container's are among.
    pub mount_namespace: MountNamespace,
    /// Devices are bound, not made: in a user namespace other than the first the kernel makes none.
    pub binds_devices: bool,
    /// The user namespace that is joined: `idmap` takes the map from there.
    pub joined_user_namespace: Option<&'a Path>,
    /// A cgroup namespace other than the host's.
    pub cgroup_namespace: bool,
    /// `--no-pivot`.
    pub no_pivot: bool,
}

/// Where a container's mounts are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MountNamespace {
    /// In a namespace of its own.
    New,
    /// In a namespace that others are in already.
    Joined,
    /// Nowhere: the host's namespace is not touched.
    Host,
}

/// File systems that are on no device.
const WITHOUT_DEVICE: [&str; 7] = [
    "tmpfs", "proc", "sysfs", "devpts", "mqueue", "cgroup2", "cgroup",
];

impl Plan<HostTree> {
    /// The plan for `spec`. What can not be done is noted in `problems` with its JSON path.
    #[must_use]
    pub fn new(spec: &Spec, context: Context<'_>, problems: &mut Problems) -> Self {
        let linux = spec.linux().as_ref();
        let mut mounts = self::mounts(spec, context, problems);
        let label = labels::option(spec, problems);
        if let Some(label) = &label {
            labels::add(&mut mounts, label);
        }
        let paths = |paths: Option<&Vec<String>>| {
            paths
                .into_iter()
                .flatten()
                .map(|p| ContainerPath::new(p))
                .collect()
        };
        let propagation = linux
            .and_then(|l| l.rootfs_propagation().as_deref())
            .filter(|word| !word.is_empty())
            .and_then(|word| propagation(word, problems));
        Plan {
            root: root_tree(context.rootfs),
            entry: match (context.mount_namespace, context.no_pivot) {
                (MountNamespace::Host, _) => Entry::Chroot,
                (MountNamespace::Joined, _) => Entry::Cover,
                (MountNamespace::New, true) => Entry::Move,
                (MountNamespace::New, false) => Entry::Pivot,
            },
            hidden: Vec::new(), // known when the trees are opened
            host_propagation: host_propagation(context.mount_namespace, propagation),
            nodes: if nodes::dev_is_bound(&mounts) {
                Vec::new()
            } else {
                nodes::plan(spec, context, problems)
            },
            mounts,
            propagation,
            read_only_paths: paths(linux.and_then(|l| l.readonly_paths().as_ref())),
            masked_paths: paths(linux.and_then(|l| l.masked_paths().as_ref())),
            label,
            read_only: spec
                .root()
                .as_ref()
                .and_then(|r| r.readonly())
                .unwrap_or(false),
        }
    }
}

impl<T> Plan<T> {
    /// Whether a device may be opened for a mount, as for a disk's file system: not by those of the kernel alone.
    #[must_use]
    pub fn opens_devices(&self) -> bool {
        self.mounts.iter().any(|mount| match &mount.source {
            Source::New(new) => !WITHOUT_DEVICE.contains(&new.fstype.as_str()),
            Source::Tree(_) | Source::Remount { .. } | Source::Link(_) => false,
        })
    }
}

/// The steps for `spec.mounts`.
pub(super) fn mounts(
    spec: &Spec,
    context: Context<'_>,
    problems: &mut Problems,
) -> Vec<Mount<HostTree>> {
    let mounts = spec.mounts().iter().flatten().enumerate();
    mounts
        .filter_map(|(i, mount)| mounts::plan(i, mount, spec, context, problems))
        .collect()
}

/// What becomes of the mounts copied from the host: slaves, unless `rootfsPropagation` says
/// otherwise. Unbindable ones would be of no use, as nothing of them can be bound; that word is for
/// the container's root. A joined namespace is changed at its root only, and no further than that
/// what is mounted there is not seen elsewhere.
fn host_propagation(namespace: MountNamespace, asked: Option<Propagation>) -> Option<Propagation> {
    let slave = |recursive| Propagation {
        kind: libc::MS_SLAVE,
        recursive,
    };
    match (namespace, asked) {
        (MountNamespace::Host, _) => None,
        (MountNamespace::Joined, _) => Some(slave(false)),
        (MountNamespace::New, None) => Some(slave(true)),
        (MountNamespace::New, Some(asked)) if asked.kind == libc::MS_UNBINDABLE => {
            Some(Propagation {
                kind: libc::MS_PRIVATE,
                recursive: true,
            })
        }
        (MountNamespace::New, Some(asked)) => Some(asked),
    }
}

fn root_tree(rootfs: &Path) -> HostTree {
    HostTree {
        path: rootfs.to_path_buf(),
        link: false,
        onto_link: false,
        recursive: true,
        attributes: Attributes::default(),
        lifted: 0,
        recursive_attributes: Attributes::default(),
        id_map: None,
        json_path: "root.path".into(),
    }
}

/// `rootfsPropagation` as one of the propagation words of mount options.
fn propagation(word: &str, problems: &mut Problems) -> Option<Propagation> {
    match effect(word) {
        Some(Effect::Propagation(kind, recursive)) => Some(Propagation { kind, recursive }),
        _ => {
            let message = format!(
                "\"{word}\" is none of shared, slave, private, unbindable, \
                rshared, rslave, rprivate, runbindable"
            );
            problems.add("linux.rootfsPropagation", message);
            None
        }
    }
}

#[cfg(test)]
mod tests;
