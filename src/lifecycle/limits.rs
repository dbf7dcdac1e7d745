//! What the runtime sets on init from outside, with the host's privileges, when init is ready:
//! resource limits and the OOM score. Setting up is not subject to them, the program is.

use anyhow::{Context, Result};
use oci_spec::runtime::{PosixRlimitType, Spec};
use rustix::process::{Pid, Resource, Rlimit};

/// Applies `process.rlimits` and `process.oomScoreAdj` to `pid`.
///
/// # Errors
///
/// `EPERM` for a limit above the runtime's own without CAP_SYS_RESOURCE; the field is named.
pub(super) fn apply(pid: Pid, spec: &Spec) -> Result<()> {
    let Some(process) = spec.process() else {
        return Ok(());
    };
    for (i, limit) in process.rlimits().iter().flatten().enumerate() {
        let new = Rlimit {
            current: bounded(limit.soft()),
            maximum: bounded(limit.hard()),
        };
        rustix::process::prlimit(Some(pid), resource(limit.typ()), new).with_context(|| {
            let (typ, soft, hard) = (limit.typ(), limit.soft(), limit.hard());
            format!("process.rlimits[{i}]: prlimit({typ}, soft {soft}, hard {hard})")
        })?;
    }
    if let Some(adjustment) = process.oom_score_adj() {
        let file = format!("/proc/{}/oom_score_adj", pid.as_raw_nonzero());
        std::fs::write(&file, adjustment.to_string())
            .with_context(|| format!("process.oomScoreAdj: write(\"{file}\", {adjustment})"))?;
    }
    Ok(())
}

/// RLIM_INFINITY is the largest number.
fn bounded(value: u64) -> Option<u64> {
    (value != u64::MAX).then_some(value)
}

fn resource(typ: PosixRlimitType) -> Resource {
    match typ {
        PosixRlimitType::RlimitCpu => Resource::Cpu,
        PosixRlimitType::RlimitFsize => Resource::Fsize,
        PosixRlimitType::RlimitData => Resource::Data,
        PosixRlimitType::RlimitStack => Resource::Stack,
        PosixRlimitType::RlimitCore => Resource::Core,
        PosixRlimitType::RlimitRss => Resource::Rss,
        PosixRlimitType::RlimitNproc => Resource::Nproc,
        PosixRlimitType::RlimitNofile => Resource::Nofile,
        PosixRlimitType::RlimitMemlock => Resource::Memlock,
        PosixRlimitType::RlimitAs => Resource::As,
        PosixRlimitType::RlimitLocks => Resource::Locks,
        PosixRlimitType::RlimitSigpending => Resource::Sigpending,
        PosixRlimitType::RlimitMsgqueue => Resource::Msgqueue,
        PosixRlimitType::RlimitNice => Resource::Nice,
        PosixRlimitType::RlimitRtprio => Resource::Rtprio,
        PosixRlimitType::RlimitRttime => Resource::Rttime,
    }
}
