//! All processes of a container stop and go on: `pause` and `resume`.

use std::path::Path;

use anyhow::{Context, Result};

use super::id::ContainerId;
use super::record::Record;
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

/// The cgroup of a container that is not stopped.
pub(super) fn present_cgroup(record: &Record) -> Result<Cgroup> {
    query::cgroup(record)?.context("the container's cgroup is gone, though its init lives")
}
