//! Init's way into its network namespace, which the runtime makes while init makes mounts, as it takes
//! as long; it is joined before anything asks for it. Its
//! loopback interface is up when the runtime has heard [`FromInit::Made`](super::handshake::FromInit).

use anyhow::{Context as _, Result, bail};
use rustix::fd::AsFd;

use super::handshake::{self, ToInit};
use super::plan::Network;
use crate::sys::channel::Channel;
use crate::sys::{loopback, process};

/// Enters the network, once.
///
/// # Errors
///
/// That the runtime is gone; `EPERM` for the loopback interface.
pub(super) fn enter(network: &mut Network, talk: &Channel) -> Result<()> {
    match core::mem::replace(network, Network::Entered) {
        Network::Entered => Ok(()),
        Network::Made => loopback::bring_up().context("loopback interface"),
        Network::Follows => {
            talk.expect();
            let (ToInit::Network, fds) = handshake::next_with(talk)? else {
                bail!("the runtime did not send the network namespace");
            };
            let namespace = fds.first().context("no network namespace came along")?;
            process::join_namespace(namespace.as_fd(), libc::CLONE_NEWNET as u64, "network")
                .context("network namespace")
        }
    }
}
