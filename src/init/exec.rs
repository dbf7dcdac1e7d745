//! The recipe of a process that joins a container: from the clone to the program.
//!
//! The seed has joined the namespaces and cloned it into the cgroup. The order is init's: what needs a
//! privilege first, and then none is left.

use alloc::string::ToString;

use anyhow::{Result, bail};
use rustix::fd::AsFd;

use super::handshake::{self, FromInit, ToInit};
use super::main::{Owner, become_root, become_the_program_owner, stand_alone};
use super::plan::Exec;
use super::{program, terminal};
use crate::sys::Call;
use crate::sys::channel::Channel;
use crate::sys::confined::Root;
use crate::sys::fd::Inherited;

/// Everything, in order; returns only when something failed.
pub(super) fn run(
    talk: &Channel,
    mut plan: Exec,
    mut inherited: Inherited,
) -> Result<core::convert::Infallible> {
    become_root(talk, plan.user_namespace)?;
    let host_proc = inherited.claim(plan.host_proc)?;
    stand_alone(plan.keyring.as_deref(), &plan.labels, host_proc.as_fd())?;
    let root = inherited.claim(plan.root)?;
    rustix::process::fchdir(&root).call(|| "fchdir(root)".to_string())?;
    rustix::process::chroot(".").call(|| "chroot(\".\")".to_string())?;
    let inside = Root::new(root.as_fd());
    let uid = plan.identity.uid;
    program::add_home(&mut plan.program, uid, inside);
    program::add_listening(&mut plan.program, plan.listening);
    match plan.terminal {
        Some(size) => {
            let terminal = terminal::open(size, uid, inside, host_proc.as_fd())?;
            terminal::take_over(talk, terminal)?;
        }
        None => {
            terminal::give_streams(uid, terminal::null_device(inside), host_proc.as_fd())?;
        }
    }
    plan.labels.apply(host_proc.as_fd())?;
    drop((host_proc, root)); // no working directory is reached through them
    plan.identity.bound()?;
    let owner = Owner {
        limits: &plan.limits,
        settings: &plan.settings,
        landlock: plan.landlock.as_ref(),
        identity: &plan.identity,
    };
    let program = become_the_program_owner(&plan.program, &owner)?;
    let filter = plan.filter.as_ref();
    plan.identity.filter_with_listener(filter, talk)?;
    handshake::send(talk, &FromInit::Ready)?;
    let ToInit::Start = handshake::next(talk)? else {
        bail!("the runtime did not say Start");
    };
    handshake::send(talk, &FromInit::Executing)?;
    Err(program.execute(plan.preserved, &plan.identity, filter))
}
