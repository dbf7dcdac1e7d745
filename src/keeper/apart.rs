//! A process of its own for what takes memory that this one would keep until its end.

use std::os::fd::{AsFd as _, OwnedFd};

use anyhow::{Context as _, Result};
use rustix::process::{WaitId, WaitIdOptions, waitid};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::sys::channel::Channel;
use crate::sys::process::{self, CloneRequest, Cloned};

/// What came of it.
#[derive(Debug)]
pub enum Apart<T> {
    /// A value, and descriptors with it.
    Value(T, Vec<OwnedFd>),
    /// It is this process' work to do.
    Declined,
    /// Everything was done, or has failed and was told: the exit code.
    Done(i32),
}

/// The exit code of a copy that leaves the work to this process; no command has it.
const DECLINED: i32 = 113;

/// Does `work` in a copy of this process that ends with it.
///
/// # Errors
///
/// Out of memory, processes or descriptors.
pub fn apart<T, W>(work: W) -> Result<Apart<T>>
where
    T: Serialize + DeserializeOwned,
    W: FnOnce() -> Apart<T>,
{
    let (talk, theirs) = Channel::pair()?;
    match process::clone(CloneRequest::default())? {
        Cloned::Child => {
            drop(talk);
            process::exit(match work() {
                Apart::Value(value, fds) => send(&theirs, &value, &fds),
                Apart::Declined => DECLINED,
                Apart::Done(code) => code,
            })
        }
        Cloned::Parent { pidfd, .. } => {
            drop(theirs);
            let told = talk.receive_with()?;
            let status = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
            let status = status.context("waitid")?;
            match (told, status.and_then(|status| status.exit_status())) {
                (Some((text, fds)), _) => Ok(Apart::Value(postcard::from_bytes(&text)?, fds)),
                (None, Some(DECLINED)) => Ok(Apart::Declined),
                (None, code) => Ok(Apart::Done(code.unwrap_or(1))),
            }
        }
    }
}

fn send(talk: &Channel, value: &impl Serialize, fds: &[OwnedFd]) -> i32 {
    let fds: Vec<_> = fds.iter().map(|fd| fd.as_fd()).collect();
    let sent = postcard::to_allocvec(value)
        .ok()
        .and_then(|text| talk.send_with(&text, &fds).ok());
    i32::from(sent.is_none())
}
