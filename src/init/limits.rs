//! Resource limits of the program: as data, and how they are set.
//!
//! Init sets them itself, as the last thing before it becomes another user: nothing before is
//! subject to them, and nobody needs a privilege over a process of that user. In a user namespace
//! the runtime sets them from outside: the kernel asks for privileges on the host to raise one.

use alloc::format;
use alloc::string::String;

use rustix::process::{Pid, Resource, Rlimit};
use serde::{Deserialize, Serialize};

use crate::sys::{Call, Errno, SysError, SysResult};

/// One limit.
#[derive(Debug, Serialize, Deserialize)]
pub struct Limit {
    /// Where config.json has it.
    pub json_path: String,
    /// Which, as config.json names it: `RLIMIT_NOFILE`.
    pub kind: String,
    /// What the kernel enforces.
    pub soft: u64,
    /// Up to where the program itself may raise it.
    pub hard: u64,
}

const KINDS: [(&str, Resource); 16] = [
    ("RLIMIT_AS", Resource::As),
    ("RLIMIT_CORE", Resource::Core),
    ("RLIMIT_CPU", Resource::Cpu),
    ("RLIMIT_DATA", Resource::Data),
    ("RLIMIT_FSIZE", Resource::Fsize),
    ("RLIMIT_LOCKS", Resource::Locks),
    ("RLIMIT_MEMLOCK", Resource::Memlock),
    ("RLIMIT_MSGQUEUE", Resource::Msgqueue),
    ("RLIMIT_NICE", Resource::Nice),
    ("RLIMIT_NOFILE", Resource::Nofile),
    ("RLIMIT_NPROC", Resource::Nproc),
    ("RLIMIT_RSS", Resource::Rss),
    ("RLIMIT_RTPRIO", Resource::Rtprio),
    ("RLIMIT_RTTIME", Resource::Rttime),
    ("RLIMIT_SIGPENDING", Resource::Sigpending),
    ("RLIMIT_STACK", Resource::Stack),
];

/// Sets `limits` on the process `pid`, or on this one.
///
/// # Errors
///
/// `EPERM` for a limit above the process' own without CAP_SYS_RESOURCE; the field is named.
pub fn apply(pid: Option<Pid>, limits: &[Limit]) -> SysResult<()> {
    limits.iter().try_for_each(|limit| {
        let new = Rlimit {
            current: bounded(limit.soft),
            maximum: bounded(limit.hard),
        };
        let call = || {
            let (path, kind, soft, hard) = (&limit.json_path, &limit.kind, limit.soft, limit.hard);
            format!("{path}: prlimit({kind}, soft {soft}, hard {hard})")
        };
        let Some((_, resource)) = KINDS.iter().find(|(name, _)| *name == limit.kind) else {
            return Err(SysError::new(call(), Errno::INVAL));
        };
        rustix::process::prlimit(pid, *resource, new)
            .map(drop)
            .call(call)
    })
}

/// RLIM_INFINITY is the largest number.
fn bounded(value: u64) -> Option<u64> {
    (value != u64::MAX).then_some(value)
}
