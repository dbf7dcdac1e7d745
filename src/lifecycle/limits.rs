//! What the runtime does to init from outside, with the host's privileges: before it gets its plan
//! ([`apply_early`]), and when it is ready ([`apply`]).

use anyhow::Result;
use oci_spec::runtime::{Process, Spec};
use rustix::process::Pid;

use super::record::Record;
use crate::init;
use crate::init::settings::Scheduling;
use crate::namespaces::{self, Kind, Plan};
use crate::sys::{Call, Errno};

/// Applies to `pid`, while it waits for its plan, what later steps of it need or would stand in the
/// way of: its groups in resctrl, the host's network interfaces that become its own, and in a user
/// namespace `process.scheduler` and `process.ioPriority`.
///
/// # Errors
///
/// What the kernel answered; the field is named.
pub(super) fn apply_early(pid: Pid, spec: &Spec, namespaces: &Plan, record: &Record) -> Result<()> {
    if let Some(groups) = &record.facts.resctrl {
        groups.join(pid.as_raw_nonzero().get())?;
    }
    namespaces::move_devices(namespaces, pid)?;
    match spec.process() {
        Some(process) if namespaces.is_own(Kind::User) => Scheduling::of(process).apply(Some(pid)),
        Some(_) | None => Ok(()),
    }
}

/// Applies `process.oomScoreAdj`, and with a user namespace `process.rlimits`, to `pid`.
///
/// # Errors
///
/// `EPERM` for a limit above the runtime's own, `EACCES` for a lower score, without
/// CAP_SYS_RESOURCE; the field is named.
pub(super) fn apply(pid: Pid, process: &Process, user_namespace: bool) -> Result<()> {
    if user_namespace {
        init::limits::apply(Some(pid), &init::limits(process))?;
    }
    if let Some(adjustment) = process.oom_score_adj() {
        let file = format!("/proc/{}/oom_score_adj", pid.as_raw_nonzero());
        std::fs::write(&file, adjustment.to_string())
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
            .call(|| format!("process.oomScoreAdj: write(\"{file}\", {adjustment})"))?;
    }
    Ok(())
}
