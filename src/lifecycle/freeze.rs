//! All processes of a container stop and go on: `pause` and `resume`.

use std::path::Path;

use anyhow::{Context, Result, bail};

use super::id::ContainerId;
use super::record::{Record, Snapshot};
use super::{Verb, permit, query};
use crate::cgroups::Cgroup;

/// Freezes every process of a container that is created or runs.
///
/// # Errors
///
/// [`crate::error::Kind::NotFound`], [`crate::error::Kind::NotRunning`]; or what the cgroup file
/// system answered.
pub fn pause(root: &Path, id: &ContainerId) -> Result<()> {
    let record = Record::open(root, id)?;
    permit(Verb::Pause, id, &query::status(&record)?)?;
    present_cgroup(&record)?.freeze()
}

/// Lets the processes of a paused container go on.
///
/// # Errors
///
/// [`crate::error::Kind::NotFound`], [`crate::error::Kind::WrongStatus`]; or what the cgroup file
/// system answered.
pub fn resume(root: &Path, id: &ContainerId) -> Result<()> {
    let record = Record::open(root, id)?;
    permit(Verb::Resume, id, &query::status(&record)?)?;
    present_cgroup(&record)?.thaw()
}

/// What is missing where nobody has made a cgroup: as it was asked for, or as a user without rights over
/// cgroups may make none.
pub(super) const NO_CGROUP: &str = "the container has no cgroup of its own, by --cgroup-manager disabled or \
     as its user may make none where it was created: create it without that option, in a cgroup that was \
     handed over (systemd-run --user --scope -p Delegate=yes), or with --systemd-cgroup";

/// The cgroup of a container that is not stopped.
pub(super) fn present_cgroup(container: &Snapshot) -> Result<Cgroup> {
    if container.facts.cgroup.is_none() {
        bail!(NO_CGROUP);
    }
    query::cgroup(container)?.context("the container's cgroup is gone, though its init lives")
}
