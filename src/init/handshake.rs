//! What the runtime and init say to each other, and in which order.
//!
//! ```text
//! runtime                                 init
//!   id maps written ->  Mapped              (only with a new user namespace, before its execve)
//!                       Plan ->             mounts, devices
//!                       <- HostHooksDue     (only when there are such hooks)
//!   prestart, createRuntime; Continue ->    createContainer hooks, root entered, privileges
//!                       <- Terminal         (only with a terminal; its descriptor comes along)
//!                       <- Listener         (only with SCMP_ACT_NOTIFY; likewise)
//!                       <- Ready
//!   late limits, state; Continue ->         waits: for Start, here or at the gate
//!                       Start ->            startContainer hooks
//!                       <- Executing        execve; the kernel closes this end
//! ```
//! At any point init may say `Failed`. Either end that finds the other gone gives up, so nothing
//! waits for ever on a process that was killed.

use alloc::format;
use alloc::string::String;

use anyhow::{Context as _, Result, bail};
use rustix::fd::OwnedFd;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::plan::Plan;
use crate::sys::Errno;
use crate::sys::channel::Channel;
use crate::sys::spawn::{Message, Step};

/// What init hears.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToInit {
    /// The user namespace has its maps.
    Mapped,
    /// What to do.
    Plan(alloc::boxed::Box<Plan>),
    /// Go on.
    Continue,
    /// Execute the program.
    Start,
}

/// What init says.
#[derive(Debug, Serialize, Deserialize)]
pub enum FromInit {
    /// The runtime's own hooks are due.
    HostHooksDue,
    /// The terminal's master side, a descriptor with this message.
    Terminal,
    /// The descriptor that tells of calls for somebody else to decide, with this message.
    Listener,
    /// Set up; only the program is missing.
    Ready,
    /// The next call is the program's execve.
    Executing,
    /// What went wrong, as one line.
    Failed(String),
    /// Which step before init's own execve went wrong, and its errno.
    NotExecuted(Step, i32),
}

/// The bytes that [`ToInit::Mapped`] has on its way: init waits for them before its execve, where it
/// can not read them.
#[must_use]
pub fn length_of_mapped() -> usize {
    let mut space = [0; 16];
    let message = postcard::to_slice(&ToInit::Mapped, &mut space).map_or(0, |bytes| bytes.len());
    Channel::framed_length(message)
}

/// The whole message [`FromInit::NotExecuted`], made without allocating.
#[must_use]
pub fn not_executed(step: Step, errno: Errno) -> Message {
    let mut space = [0; size_of::<Message>() - size_of::<usize>()];
    let message = FromInit::NotExecuted(step, errno.raw_os_error());
    let length = postcard::to_slice(&message, &mut space).map_or(0, |bytes| bytes.len());
    (space, length)
}

/// Sends one message.
///
/// # Errors
///
/// `EPIPE` when the other end is gone.
pub fn send<M: Serialize>(channel: &Channel, message: &M) -> Result<()> {
    let bytes = postcard::to_allocvec(message).map_err(|e| anyhow::anyhow!("{e}"))?;
    Ok(channel.send(&bytes)?)
}

/// Sends one message and a descriptor with it.
///
/// # Errors
///
/// `EPIPE` when the other end is gone.
pub fn send_with<M: Serialize>(channel: &Channel, message: &M, fd: &OwnedFd) -> Result<()> {
    let bytes = postcard::to_allocvec(message).map_err(|e| anyhow::anyhow!("{e}"))?;
    Ok(channel.send_with(&bytes, rustix::fd::AsFd::as_fd(fd))?)
}

/// The next message, with its descriptor if one came; None when the other end is gone.
///
/// # Errors
///
/// Bytes that are no message, which only another version of the other side could send.
pub fn receive<M: DeserializeOwned>(channel: &Channel) -> Result<Option<(M, Option<OwnedFd>)>> {
    let Some((bytes, fd)) = channel.receive_with()? else {
        return Ok(None);
    };
    Ok(Some((decode(&bytes)?, fd)))
}

fn decode<M: DeserializeOwned>(bytes: &[u8]) -> Result<M> {
    postcard::from_bytes(bytes)
        .map_err(|e| anyhow::anyhow!("{e}"))
        .with_context(|| {
            format!(
                "a message of {} bytes between runtime and init",
                bytes.len()
            )
        })
}

/// The next message to init.
///
/// # Errors
///
/// The runtime is gone: init has nobody to work for.
pub fn next(channel: &Channel) -> Result<ToInit> {
    match receive(channel)? {
        Some((message, _no_fd)) => Ok(message),
        None => bail!("the runtime ended before the container was complete"),
    }
}
