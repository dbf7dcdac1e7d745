//! Network namespaces, which the runtime's own process enters and leaves again.

use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result};
use rustix::fs::{Mode, OFlags};
use rustix::process::Pid;

use super::Kind;
use crate::sys::{Call, SysResult, loopback, process};

/// Makes a network namespace, gives it to who waits for it, and brings its loopback interface up.
///
/// # Errors
///
/// `EPERM` without CAP_SYS_ADMIN, `ENOSPC` beyond `user.max_net_namespaces`; a /proc that is not there;
/// what `give` answers.
pub fn make(give: impl FnOnce(OwnedFd) -> Result<()>) -> Result<()> {
    let enter = || process::unshare(Kind::Network.flag());
    visit(enter, || {
        give(open("self")?)?;
        loopback::bring_up().context("loopback interface")
    })
}

/// Brings up the loopback interface in the network namespace of the process `pid`.
///
/// # Errors
///
/// That the process is gone; `EPERM` without CAP_SYS_ADMIN there.
pub fn bring_up_loopback(pid: Pid) -> Result<()> {
    let namespace = open(&pid.as_raw_nonzero().to_string())?;
    let join = || process::join_namespace(namespace.as_fd(), Kind::Network.flag(), "network");
    visit(join, || Ok(loopback::bring_up()?))
}

/// Does something in another network namespace, and comes back.
fn visit<T>(
    enter: impl FnOnce() -> SysResult<()>,
    inside: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let own = open("self")?;
    enter()?;
    let done = inside();
    process::join_namespace(own.as_fd(), Kind::Network.flag(), "network")
        .context("the way back into the runtime's own")?;
    done
}

fn open(process: &str) -> SysResult<OwnedFd> {
    let path = format!("/proc/{process}/ns/net");
    rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .call(|| format!("open(\"{path}\")"))
}
