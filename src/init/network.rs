//! The container's network namespace: made by the seed while init makes mounts, as it takes as long,
//! and joined by init before anything asks for it.

use alloc::format;
use alloc::string::{String, ToString};

use anyhow::{Context as _, Result, bail};
use rustix::fd::{AsFd, OwnedFd};
use rustix::process::PidfdFlags;

use crate::sys::channel::Channel;
use crate::sys::{Call, Errno, SysError, loopback, process};

/// The namespace that is made and joined, by its `CLONE_NEW*` flag.
const NETWORK: u64 = libc::CLONE_NEWNET as u64;

/// In the seed: makes the namespace.
#[derive(Debug)]
pub(super) struct Maker(Channel);

/// In init: joins it.
#[derive(Debug)]
pub(super) struct Joiner {
    /// Tells that it is made, by an empty message, or why not.
    told: Channel,
    /// The seed's pidfd: whose namespace it is.
    seed: OwnedFd,
}

/// What the seed and init need; called in the seed, before the clone.
///
/// # Errors
///
/// Out of descriptors.
pub(super) fn ends() -> Result<(Maker, Joiner)> {
    let (tell, told) = Channel::pair()?;
    let own = rustix::process::getpid();
    let seed = rustix::process::pidfd_open(own, PidfdFlags::empty())
        .call(|| format!("pidfd_open({})", own.as_raw_nonzero()))?;
    Ok((Maker(tell), Joiner { told, seed }))
}

impl Maker {
    /// Makes the namespace, and stays in it until init has joined it.
    pub(super) fn make(self) {
        let made = process::unshare(NETWORK);
        let words = made.map_or_else(|error| error.to_string(), |()| String::new());
        // When init is gone, it tells by itself why, or was killed.
        let _gone = self.0.send(words.as_bytes());
        let _closed = self.0.receive();
    }
}

/// Init's way into its network.
#[derive(Debug)]
pub(super) struct Network(Option<Joiner>);

impl Network {
    /// One that is made by the seed, or one in which init is already.
    pub(super) fn of(joiner: Option<Joiner>) -> Network {
        Network(joiner)
    }

    /// Joins the namespace, if that was not done before, and brings its loopback interface up.
    ///
    /// # Errors
    ///
    /// What the kernel answered to the seed or here; that the seed was killed.
    pub(super) fn enter(&mut self, has_loopback: &mut bool) -> Result<()> {
        if let Some(Joiner { told, seed }) = self.0.take() {
            told.expect();
            let joined = match told.receive()?.as_deref() {
                Some([]) => process::join_namespace(seed.as_fd(), NETWORK, "network"),
                Some(why) => bail!("network namespace: {}", String::from_utf8_lossy(why)),
                None => Err(SysError::new("recv()", Errno::SRCH)),
            };
            match joined {
                Err(error) if error.errno == Errno::SRCH => {
                    bail!("network namespace: the process that makes it was killed")
                }
                joined => joined.context("network namespace")?,
            }
        }
        if core::mem::take(has_loopback) {
            loopback::bring_up().context("loopback interface")?;
        }
        Ok(())
    }
}
