//! Opens what a container takes from the host, for a runtime that may not mount where it is.
//!
//! A copy of the runtime joins the container's user namespace, in which it has every capability, and has
//! the host's mounts in a mount namespace of its own there. What it opens, as detached mounts, it sends
//! back and ends. It is in no pid namespace of the container's, so nothing inside sees it.

use anyhow::{Context as _, Result, bail};
use rustix::fd::{AsFd, OwnedFd};
use rustix::process::{DumpableBehavior, WaitOptions};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error;
use crate::init::handshake;
use crate::sys::channel::Channel;
use crate::sys::fd::Inheritance;
use crate::sys::process::{self, CloneRequest, Cloned};

/// What the copy says.
#[derive(Serialize, Deserialize)]
enum Said<T> {
    /// Descriptors that do not go with one message.
    More,
    /// What was opened, with the rest of its descriptors.
    Opened(T),
    /// What went wrong, as one line.
    Failed(String),
}

/// What `open` opens, in the user namespace if there is one, and what that names.
///
/// # Errors
///
/// What `open` says; that the namespace can not be joined.
pub(super) fn open_inside<T: Serialize + DeserializeOwned>(
    user_namespace: Option<OwnedFd>,
    open: impl FnOnce(&mut Inheritance) -> Result<T>,
) -> Result<(T, Inheritance)> {
    let (ours, theirs) = Channel::pair()?;
    match process::clone(CloneRequest::default())? {
        Cloned::Child => {
            let mut inheritance = Inheritance::default();
            let opened = enter(user_namespace).and_then(|()| open(&mut inheritance));
            // Nobody is left to tell when the other end is closed. Nothing is dropped here: what was
            // opened before is the parent's too.
            let _told = tell(&theirs, opened, &inheritance);
            process::exit(0)
        }
        Cloned::Parent { pid, pidfd: _ } => {
            drop(theirs);
            let heard = hear(&ours);
            rustix::process::waitpid(Some(pid), WaitOptions::empty())?;
            heard
        }
    }
}

fn enter(user_namespace: Option<OwnedFd>) -> Result<()> {
    // Out of reach of processes that are in the same user namespace already (ptrace(2)).
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).context("prctl")?;
    if let Some(namespace) = user_namespace {
        process::join_namespace(namespace.as_fd(), libc::CLONE_NEWUSER as u64, "user")?;
    }
    Ok(process::unshare(libc::CLONE_NEWNS as u64)?)
}

fn tell<T: Serialize>(talk: &Channel, opened: Result<T>, inheritance: &Inheritance) -> Result<()> {
    let opened = match opened {
        Ok(opened) => opened,
        Err(error) => {
            return handshake::send(talk, &Said::<T>::Failed(error::in_words(&error)));
        }
    };
    let messages = (&Said::More, &Said::Opened(opened));
    handshake::send_with_all(talk, messages, inheritance.descriptors())
}

fn hear<T: DeserializeOwned>(talk: &Channel) -> Result<(T, Inheritance)> {
    let mut inheritance = Inheritance::default();
    loop {
        let said = handshake::receive(talk)?;
        let (said, fds) = said.context("the process that opens mounts was killed")?;
        for fd in fds {
            let _place = inheritance.give(fd);
        }
        match said {
            Said::More => {}
            Said::Opened(opened) => return Ok((opened, inheritance)),
            Said::Failed(words) => bail!(words),
        }
    }
}
