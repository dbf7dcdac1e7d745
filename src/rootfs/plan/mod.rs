//! Decides every step on the file system, from config.json and nothing else.
//!
//! `words.rs` adds up the options of a mount, `mounts.rs` and `nodes.rs` make steps of `mounts`
//! and `linux.devices`, `print.rs` prints the plan.

mod mounts;
mod nodes;
mod print;
mod words;

use std::path::Path;

use oci_spec::runtime::Spec;

use super::options::{Effect, effect};
use super::{Entry, HostTree, Mount, Plan, Propagation};
use crate::error::Problems;
use crate::sys::confined::ContainerPath;
use crate::sys::mount::Attributes;

/// What the plan depends on beside config.json.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The bundle's root on the host, absolute.
    pub rootfs: &'a Path,
    /// The container's cgroup on the host, absolute: what a `cgroup` mount shows when the cgroup
    /// namespace is the host's.
    pub cgroup: &'a Path,
    /// A mount namespace of the container's own.
    pub own_mount_namespace: bool,
    /// A user namespace other than the host's: devices are bound, not made.
    pub user_namespace: bool,
    /// A cgroup namespace other than the host's.
    pub cgroup_namespace: bool,
    /// `--no-pivot`.
    pub no_pivot: bool,
}

impl Plan<HostTree> {
    /// The plan for `spec`. What can not be done is noted in `problems` with its JSON path.
    #[must_use]
    pub fn new(spec: &Spec, context: Context<'_>, problems: &mut Problems) -> Self {
        let linux = spec.linux().as_ref();
        let mounts: Vec<Mount<HostTree>> = spec
            .mounts()
            .iter()
            .flatten()
            .enumerate()
            .filter_map(|(i, mount)| mounts::plan(i, mount, spec, context, problems))
            .collect();
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
        let host = propagation.unwrap_or(Propagation {
            kind: libc::MS_SLAVE,
            recursive: true,
        });
        Plan {
            root: root_tree(context.rootfs),
            entry: match (context.own_mount_namespace, context.no_pivot) {
                (false, _) => Entry::Chroot,
                (true, true) => Entry::Move,
                (true, false) => Entry::Pivot,
            },
            host_propagation: context.own_mount_namespace.then_some(host),
            nodes: if nodes::dev_is_bound(&mounts) {
                Vec::new()
            } else {
                nodes::plan(spec, context)
            },
            mounts,
            propagation,
            read_only_paths: paths(linux.and_then(|l| l.readonly_paths().as_ref())),
            masked_paths: paths(linux.and_then(|l| l.masked_paths().as_ref())),
            read_only: spec
                .root()
                .as_ref()
                .and_then(|r| r.readonly())
                .unwrap_or(false),
        }
    }
}

fn root_tree(rootfs: &Path) -> HostTree {
    HostTree {
        path: rootfs.to_path_buf(),
        recursive: true,
        attributes: Attributes::default(),
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
