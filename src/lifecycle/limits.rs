//! What the runtime does to init from outside, with the host's privileges: when its mounts are made
//! ([`apply_when_made`]), and when it is ready ([`apply`]).

use anyhow::Result;
use oci_spec::runtime::{Process, Spec};
use rustix::process::Pid;

use super::facts::Facts;
use super::record::Record;
use crate::init;
use crate::init::settings::Scheduling;
use crate::namespaces::{self, Kind, Plan};
use crate::sys::rights::Rights;
use crate::sys::{Call, Errno};

/// True when there is nothing to apply.
pub(super) fn is_nothing(process: &Process, user_namespace: bool, rights: Rights) -> bool {
    let limited = user_namespace && !init::limits(process).is_empty();
    !limited && (process.oom_score_adj().is_none() || !rights.are_the_hosts())
}

/// What the seed adjusts its own OOM score by, as the runtime may not do so from outside: the files of a
/// process that nobody may look into are root's (proc(5)).
pub(super) fn oom_score_adj(process: Option<&Process>, rights: Rights) -> Option<i32> {
    let asked = process.and_then(Process::oom_score_adj);
    asked.filter(|_| !rights.are_the_hosts())
}

/// Applies to `pid`, when its mounts are made, what later steps of it need or would stand in the
/// way of: its groups in resctrl, the host's network interfaces that become its own, and in a user
/// namespace `process.scheduler` and `process.ioPriority`.
///
/// # Errors
///
/// What the kernel answered; the field is named.
pub(super) fn apply_when_made(
    pid: Pid,
    spec: &Spec,
    namespaces: &Plan,
    record: &Record,
) -> Result<()> {
    namespaces::move_devices(namespaces, pid)?;
    let user_namespace = namespaces.is_own(Kind::User);
    let process = spec.process().as_ref();
    process.map_or(Ok(()), |p| join(pid, p, user_namespace, &record.facts))
}

/// Puts `pid` into the container's groups in resctrl, and sets what in a user namespace only the host's
/// privileges can.
///
/// # Errors
///
/// What the kernel answered; the field is named.
pub(super) fn join(pid: Pid, process: &Process, user_namespace: bool, facts: &Facts) -> Result<()> {
    if let Some(groups) = &facts.resctrl {
        groups.join(pid.as_raw_nonzero().get())?;
    }
    match user_namespace {
        true => Scheduling::of(process).apply(Some(pid)),
        false => Ok(()),
    }
}

/// Applies `process.oomScoreAdj`, unless the seed had it, and with a user namespace `process.rlimits`,
/// to `pid`.
///
/// # Errors
///
/// `EPERM` for a limit above the runtime's own, `EACCES` for a lower score, without
/// CAP_SYS_RESOURCE; the field is named.
pub(super) fn apply(
    pid: Pid,
    process: &Process,
    user_namespace: bool,
    rights: Rights,
) -> Result<()> {
    if user_namespace {
        init::limits::apply(Some(pid), &init::limits(process))?;
    }
    if let Some(adjustment) = process.oom_score_adj()
        && rights.are_the_hosts()
    {
        let file = format!("/proc/{}/oom_score_adj", pid.as_raw_nonzero());
        std::fs::write(&file, adjustment.to_string())
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
            .call(|| format!("process.oomScoreAdj: write(\"{file}\", {adjustment})"))?;
    }
    Ok(())
}
