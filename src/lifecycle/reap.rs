//! Takes the exit status of a container's init, a child of this process.

use std::os::fd::AsFd as _;

use anyhow::{Result, bail};
use rustix::process::{WaitId, WaitIdOptions, WaitOptions, wait, waitid};

use super::foreground::Child;
use crate::sys::{Call, Errno, SysError};

/// What the shell adds to a signal's number to make an exit code of it.
const KILLED: i32 = 128;

/// Reaps every child that has ended: init's exit code if it is among them.
pub fn all(child: &Child) -> Result<Option<i32>> {
    let mut ended = None;
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if pid.as_raw_nonzero().get() == child.pid => {
                ended = Some(code(status.exit_status(), status.terminating_signal())?);
            }
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Ok(None) => return Ok(ended),
            // No child is left, the container's init included.
            Err(Errno::CHILD) if ended.is_some() => return Ok(ended),
            Err(errno) => return Err(SysError::new("wait4(-1)", errno).into()),
        }
    }
}

/// Reaps init alone, if it has ended: its exit code.
pub fn one(child: &Child) -> Result<Option<i32>> {
    let id = WaitId::PidFd(child.pidfd.as_fd());
    let status = waitid(id, WaitIdOptions::EXITED | WaitIdOptions::NOHANG)
        .call(|| format!("waitid({})", child.pid))?;
    status
        .map(|status| code(status.exit_status(), status.terminating_signal()))
        .transpose()
}

fn code(exit: Option<i32>, signal: Option<i32>) -> Result<i32> {
    match (exit, signal) {
        (Some(code), _) => Ok(code),
        (None, Some(signal)) => Ok(KILLED + signal),
        (None, None) => bail!("the container's init ended in a way the kernel does not name"),
    }
}
