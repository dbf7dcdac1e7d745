//! `start`: executes the program of a container that was created.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result};

use super::id::ContainerId;
use super::notify::Notify;
use super::process::{END_LIMIT, Process, wait_for_exit};
use super::record::Record;
use super::{Status, Verb, hooks, permit, query};
use crate::error;
use crate::init::handshake::{self, ToInit};
use crate::init::wait_until_executed;
use crate::sys::channel::Channel;

/// Starts a container, and returns when its program was executed.
///
/// # Errors
///
/// [`crate::error::Kind::NotFound`], [`crate::error::Kind::WrongStatus`]; or why the program could
/// not be executed: the container has stopped then.
pub fn start(root: &Path, id: &ContainerId) -> Result<()> {
    let record = Record::open(root, id)?;
    let status = query::status(&record)?;
    permit(Verb::Start, id, &status)?;
    let gate: OwnedFd = record.connect_to_init()?;
    let talk = Channel::over(gate);
    let notify = Notify::listen(&record)?;
    let executed = handshake::send(&talk, &ToInit::Start)
        .context("init has ended")
        .and_then(|()| wait_until_executed(&talk));
    if let Err(reason) = executed {
        wait_until_ended(record.init.as_ref())?;
        return Err(reason);
    }
    if let Some(pid) = status.pid() {
        run_poststart_hooks(&record, pid);
    }
    let init = record.init.clone();
    record.keep();
    // Without the lock: the program may take its time, and others may want to act on it.
    if let (Some(notify), Some(init)) = (notify, init)
        && let Some(pidfd) = init.open()?
    {
        notify.until_ready(init.pid, pidfd.as_fd())?;
    }
    Ok(())
}

/// Init says why it gives up before it ends: whoever reads it is to find the container stopped.
fn wait_until_ended(init: Option<&Process>) -> Result<()> {
    if let Some(pidfd) = init.map(Process::open).transpose()?.flatten() {
        // One that does not end in time is running, as `state` will tell.
        wait_for_exit(pidfd.as_fd(), Some(END_LIMIT))?;
    }
    Ok(())
}

/// Runs the hooks for after the start; one that fails is a warning, and the next one runs
/// (runtime.md, "Lifecycle", step 9).
pub(super) fn run_poststart_hooks(record: &Record, pid: i32) {
    let state = hooks::state(record, &Status::Running { pid }, Some(pid));
    let facts = &record.facts;
    for failure in hooks::run_each("poststart", &facts.poststart, &state, facts) {
        error::warn(&error::in_words(&failure));
    }
}
