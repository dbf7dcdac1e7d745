//! What the runtime and init say to each other, and in which order.
//!
//! ```text
//! runtime                                 seed
//!                       Settle ->           (only when it could not clone into the cgroup later)
//!                       Enter ->            joins namespaces, makes some
//!                       Clone ->            clones init, tells its pid through a pipe, ends when
//!                                           that is closed
//!
//! runtime                                 init
//!                       Plan ->
//!   network made;       Network ->          (only one that init was not cloned into)
//!   id maps written;    Mapped ->           (only with a new user namespace)
//!                                           mounts, devices
//!                       <- Made             (here only when there are such hooks)
//!   prestart, createRuntime; Continue ->
//!                                           createContainer hooks, root entered
//!                       <- Made             (here when it waits for no answer)
//!   device filter, state                    masking, privileges
//!                       <- Terminal         (only with a terminal; its descriptor comes along)
//!                       <- Listener         (only with SCMP_ACT_NOTIFY; likewise)
//!                       <- Ready
//!   late limits; Continue ->                waits: for Start, here or at the gate
//!                       Start ->            startContainer hooks
//!                       <- Executing        execve; the kernel closes this end
//! ```
//! A process that joins a container (`exec.rs`) hears `Exec` in place of `Plan`, is ready as soon as it is
//! its user, and hears `Start`.
//!
//! A runtime without the host's rights writes the id maps before it sends the plan: it opens what that names
//! in init's user namespace.
//!
//! Where nothing is left to be done when init is ready, the runtime says `Continue` and `Start` before
//! it hears so, and init does not wait; where nothing of what it does waits for the mounts either, it says so
//! beside them. At any point seed and init may say `Failed`. Either end that finds the other gone gives up, so
//! nothing waits for ever on a process that was killed.

use alloc::format;
use alloc::string::String;

use alloc::vec::Vec;

use anyhow::{Context as _, Result};
use rustix::fd::{AsFd as _, BorrowedFd, OwnedFd};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::plan::{Exec, Plan};
use crate::sys::Errno;
use crate::sys::channel::{Channel, DESCRIPTORS};
use crate::sys::spawn::{Message, Step};

/// What the seed hears, with descriptors in this order.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToSeed {
    /// Go on as a copy of yourself in a cgroup, and tell its process id. Comes with: the pipe that is
    /// told, the cgroup.
    Settle,
    /// Enter namespaces. Comes with: those that are joined.
    Enter(Entering),
    /// Clone init, and tell its process id. Comes with: the pipe that is told, the cgroup unless
    /// settled.
    Clone(Cloning),
}

/// The namespaces that init's parent is to be in.
#[derive(Debug, Serialize, Deserialize)]
pub struct Entering {
    /// Those that exist.
    pub joined: Vec<Joined>,
    /// What its OOM score is adjusted by, and that of all it clones: where nobody could do so later.
    pub oom_score_adj: Option<i32>,
    /// Offsets of a new time namespace, as lines for /proc/PID/timens_offsets; None without one.
    pub time_offsets: Option<String>,
    /// `CLONE_NEW*` flags of others that are made before the clone.
    pub new: u64,
}

/// A namespace that is joined.
#[derive(Debug, Serialize, Deserialize)]
pub struct Joined {
    /// Its `CLONE_NEW*` flag.
    pub flag: u64,
    /// Its name in config.json.
    pub name: String,
}

/// How init is cloned.
#[derive(Debug, Serialize, Deserialize)]
pub struct Cloning {
    /// `CLONE_NEW*` flags of the clone.
    pub namespaces: u64,
    /// The cgroup comes along; else init starts where the seed is.
    pub into_cgroup: bool,
    /// Init stays on the processors that the runtime has bound the seed to; else it runs on every one
    /// of its cpuset.
    pub stays_bound: bool,
}

/// What init hears.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToInit {
    /// Comes with descriptors that init inherits and that do not go with one message.
    Inherit,
    /// What to do. Comes with the rest of what init inherits.
    Plan(alloc::boxed::Box<Plan>),
    /// What to do in a container that is there already. Comes with the rest of what is inherited.
    Exec(alloc::boxed::Box<Exec>),
    /// The user namespace has its maps.
    Mapped,
    /// The network is made. Comes with: its namespace.
    Network,
    /// Go on.
    Continue,
    /// Execute the program.
    Start,
}

/// What init says.
#[derive(Debug, Serialize, Deserialize)]
pub enum FromInit {
    /// Mounts and devices are made, and the root is entered unless the runtime's own hooks are due, for
    /// which init waits.
    Made,
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
    /// Which step before the seed's execve went wrong, and its errno.
    NotExecuted(Step, i32),
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

/// Sends one message and descriptors with it.
///
/// # Errors
///
/// As for [`Channel::send_with`].
pub fn send_with<M: Serialize>(
    channel: &Channel,
    message: &M,
    fds: &[BorrowedFd<'_>],
) -> Result<()> {
    let bytes = postcard::to_allocvec(message).map_err(|e| anyhow::anyhow!("{e}"))?;
    Ok(channel.send_with(&bytes, fds)?)
}

/// Sends one message and any number of descriptors: as many as do not go with it, go before with `more`.
///
/// # Errors
///
/// As for [`Channel::send_with`].
pub fn send_with_all<M: Serialize>(
    channel: &Channel,
    (more, message): (&M, &M),
    fds: &[OwnedFd],
) -> Result<()> {
    let all: Vec<_> = fds.iter().map(OwnedFd::as_fd).collect();
    let last = all.len() - all.len() % DESCRIPTORS;
    let (first, rest) = all.split_at(last);
    for some in first.chunks(DESCRIPTORS) {
        send_with(channel, more, some)?;
    }
    send_with(channel, message, rest)
}

/// The next message, with the descriptors that came along; None when the other end is gone.
///
/// # Errors
///
/// Bytes that are no message, which only another version of the other side could send.
pub fn receive<M: DeserializeOwned>(channel: &Channel) -> Result<Option<(M, Vec<OwnedFd>)>> {
    let Some((bytes, fds)) = channel.receive_with()? else {
        return Ok(None);
    };
    Ok(Some((decode(&bytes)?, fds)))
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
    next_with(channel).map(|(message, _no_fds)| message)
}

/// The next message to the seed or to init, with the descriptors that came along.
///
/// # Errors
///
/// The runtime is gone.
pub fn next_with<M: DeserializeOwned>(channel: &Channel) -> Result<(M, Vec<OwnedFd>)> {
    receive(channel)?.context("the runtime ended before the container was complete")
}
