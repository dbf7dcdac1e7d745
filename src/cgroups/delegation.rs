//! Where somebody without rights over the whole tree may make cgroups: in a part of it that was handed
//! over, around or above the place where this process runs.
//!
//! A container's cgroup is made in the nearest cgroup above this process that is the caller's and in
//! which nothing runs itself, as only such a one can hand its controllers on (cgroups(7), "no internal
//! processes"). If there is none, in the nearest that is the caller's: containers can then be paused and
//! killed as a whole there, and have no limits. The kernel clones a process into a cgroup for those who
//! may write to cgroup.procs of the first cgroup that is above both (cgroup-v2.rst, "Delegation
//! Containment"): it is that one.

use std::os::fd::AsFd as _;
use std::path::Path;

use rustix::fs::Access;

use super::create::undividable;
use super::systemd::{Manager, cgroup_of};
use super::{Hierarchy, tree};

/// Who makes the cgroup that has this `linux.cgroupsPath`.
pub(super) fn find(configured: Option<&Path>, hierarchy: &Hierarchy) -> Manager {
    // In a cgroup namespace that this process has left, as one in a joined namespace: nothing is ours.
    let Ok(own) = cgroup_of("self").map(|own| own.to_owned()) else {
        return Manager::Nobody;
    };
    if own.starts_with("..") {
        return Manager::Nobody;
    }
    if let Some(wanted) = configured.and_then(|path| path.strip_prefix("/").ok()) {
        return match may_make(hierarchy, wanted, &own) {
            true => Manager::Files,
            false => Manager::Nobody,
        };
    }
    let ours: Vec<&Path> = own.ancestors().filter(|c| is_ours(hierarchy, c)).collect();
    let divides = |cgroup: &&&Path| {
        let opened = tree::open(hierarchy.root(), in_root(cgroup));
        opened.is_ok_and(|directory| undividable(directory.as_fd()).is_none())
    };
    let best = ours.iter().find(divides).or(ours.first());
    best.map_or(Manager::Nobody, |cgroup| {
        Manager::Below((*cgroup).to_owned())
    })
}

/// Whether a process of the cgroup `from` can be cloned into the cgroup `to` by the caller, to whom both
/// need not belong.
pub(super) fn may_enter(hierarchy: &Hierarchy, to: &Path, from: &Path) -> bool {
    !from.starts_with("..")
        && accepts_processes(hierarchy, to)
        && to
            .ancestors()
            .find(|above| from.starts_with(above))
            .is_some_and(|both| accepts_processes(hierarchy, both))
}

/// Whether the cgroup `path` can be made, and a process of the cgroup `from` cloned into it.
fn may_make(hierarchy: &Hierarchy, path: &Path, from: &Path) -> bool {
    let exists = |place: &&Path| hierarchy.mount_point().join(place).is_dir();
    let Some(above) = path.ancestors().skip(1).find(exists) else {
        return false;
    };
    let both = above.ancestors().find(|above| from.starts_with(above));
    is_ours(hierarchy, above) && both.is_some_and(|both| accepts_processes(hierarchy, both))
}

/// Whether the caller may make cgroups in this one and clone processes into them.
fn is_ours(hierarchy: &Hierarchy, cgroup: &Path) -> bool {
    let place = hierarchy.mount_point().join(cgroup);
    rustix::fs::access(&place, Access::WRITE_OK | Access::EXEC_OK).is_ok()
        && accepts_processes(hierarchy, cgroup)
}

fn accepts_processes(hierarchy: &Hierarchy, cgroup: &Path) -> bool {
    let file = hierarchy.mount_point().join(cgroup).join("cgroup.procs");
    rustix::fs::access(file, Access::WRITE_OK).is_ok()
}

/// The path for openat(2) from the root.
fn in_root(cgroup: &Path) -> &Path {
    match cgroup.as_os_str().is_empty() {
        true => Path::new("."),
        false => cgroup,
    }
}
