//! What the runtime sets on init from outside, with the host's privileges, when init is ready: the
//! OOM score, and the resource limits of a program in a user namespace of its own.

use anyhow::Result;
use oci_spec::runtime::Process;
use rustix::process::Pid;

use crate::init;
use crate::sys::{Call, Errno};

/// True when there is nothing to apply.
pub(super) fn is_nothing(process: &Process, user_namespace: bool) -> bool {
    let limited = user_namespace && !init::limits(process).is_empty();
    !limited && process.oom_score_adj().is_none()
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
