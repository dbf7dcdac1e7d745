//! In which cgroup a process starts that joins a container.

use std::path::{Component, Path};

use anyhow::{Context, Result, bail};
use rustix::process::Pid;

use super::freeze::NO_CGROUP;
use super::record::Snapshot;
use crate::cgroups::{Cgroup, Hierarchy};
use crate::error;
use crate::sys::rights::Rights;

/// The cgroup in which the process starts: the one below the container's that was asked for, else the
/// container's own, or init's where the container has divided its own and no process can be in it. None
/// where it stays in the caller's.
///
/// # Errors
///
/// There is no such cgroup; or what the cgroup file system or systemd answered.
pub(super) fn cgroup(
    snapshot: &Snapshot,
    init: Pid,
    rights: Rights,
    below: Option<&Path>,
) -> Result<Option<Cgroup>> {
    let Some(own) = snapshot.facts.cgroup.as_deref() else {
        return match below {
            Some(below) => bail!("--cgroup {below:?}: {NO_CGROUP}"),
            None => Ok(None),
        };
    };
    let hierarchy = Hierarchy::find()?;
    let (root, own) = match &snapshot.facts.inner {
        Some(inner) => (inner.root(own), inner.place(own)),
        None => (own.to_owned(), own.to_owned()),
    };
    if let Some(below) = below {
        let stays = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
        let inside = below.strip_prefix("/").unwrap_or(below);
        if !inside.components().all(stays) {
            bail!("--cgroup {below:?}: must be below the container's cgroup");
        }
        let found = Cgroup::open(&hierarchy, &root.join(inside))?;
        let found = found.with_context(|| format!("--cgroup {below:?}: there is no such cgroup"));
        return found.map(Some);
    }
    let found = Cgroup::open(&hierarchy, &own)?;
    let mut found = found.with_context(|| format!("the container's cgroup {own:?} is gone"))?;
    if found.is_divided()? {
        let of_init = hierarchy.of_process(init)?;
        let place = Cgroup::open(&hierarchy, &of_init)?;
        found = place
            .with_context(|| format!("the cgroup {of_init:?} of the container's init is gone"))?;
    }
    if rights.are_the_hosts() || found.may_be_entered(&hierarchy) {
        return Ok(Some(found));
    }
    if let Some(unit) = &snapshot.facts.unit {
        unit.approach()?;
        if found.may_be_entered(&hierarchy) {
            return Ok(Some(found));
        }
    }
    error::warn(&format!(
        "the process is not in the container's {found} and its limits: a user may put one there only from \
         a cgroup that was handed over together with it"
    ));
    Ok(None)
}
