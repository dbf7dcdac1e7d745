//! What the runtime sets on init from outside, with the host's privileges: the OOM score, and for a
//! program in a user namespace of its own its scheduling and its resource limits.

use anyhow::Result;
use oci_spec::runtime::{Process, Spec};
use rustix::process::Pid;

use crate::init;
use crate::init::settings::Scheduling;
use crate::namespaces::{Kind, Plan};
use crate::sys::{Call, Errno};

/// Applies `process.scheduler` and `process.ioPriority` to `pid`, if it is in a user namespace of its
/// own, while it waits for its plan.
///
/// # Errors
///
/// What the kernel answered; the field is named.
pub(super) fn schedule(pid: Pid, spec: &Spec, namespaces: &Plan) -> Result<()> {
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
