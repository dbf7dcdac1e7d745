//! The recipe of `parhelion-init`: every step between the clone and the program, in order.
//!
//! It starts as the seed (`seed.rs`), which clones init and ends; the rest is init's.
//!
//! The order is not free. Mounts come before devices, both before the root is entered, masking
//! after it. Privileges go last: each step before needs one that the program must not have.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;

use anyhow::{Context as _, Result, bail};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Gid, Mode, OFlags, Uid};
use rustix::process::{DumpableBehavior, Signal};

use super::handshake::{self, FromInit, ToInit};
use super::network::Network;
use super::plan::{Plan, UserNamespace};
use super::{hooks, limits, program, seed, sysctl, terminal};
use crate::rootfs::Outside;
use crate::sys::channel::Channel;
use crate::sys::confined::{ContainerPath, Missing};
use crate::sys::fd::{self, Inherited};
use crate::sys::{Call, mount, process, signals};

/// Runs seed and init on the handshake descriptor with this number; returns the exit status, if at
/// all.
pub fn main(handshake: i32) -> i32 {
    let mut talk = match fd::from_command_line(handshake) {
        Ok(fd) => Channel::over(fd),
        Err(error) => {
            // Started by hand: there is nobody to tell but whoever reads stderr, if that is open.
            let text = format!("parhelion-init: is started by parhelion alone: {error}\n");
            let _ = rustix::io::write(process::standard_stream(2), text.as_bytes());
            return 1;
        }
    };
    let failed = match seed::grow(&talk) {
        Ok(None) => return 0,
        Ok(Some(network)) => run(&mut talk, network),
        Err(error) => Err(error),
    };
    match failed {
        Ok(never) => match never {},
        Err(error) => {
            // When the listener is gone too, the exit status is all that is left to say.
            let _ = handshake::send(&talk, &FromInit::Failed(format!("{error:#}")));
            1
        }
    }
}

/// Everything, in order. `talk` is replaced by the connection of a later `start`, if one comes.
fn run(talk: &mut Channel, mut network: Network) -> Result<core::convert::Infallible> {
    let (mut plan, mut inherited) = plan(talk)?;
    become_root(talk, plan.user_namespace)?;
    begin(&plan)?;
    let null = null_device(&plan)?;
    let mut enter_network = || network.enter(&mut plan.loopback);
    let mut root = plan.rootfs.prepare(Outside {
        inherited: &mut inherited,
        enter_network: &mut enter_network,
    })?;
    enter_network()?;
    make_working_directory(&plan, &mut root)?;
    let terminal = terminal::make(plan.terminal, plan.identity.uid, root.root())?;
    run_creation_hooks(talk, &plan)?;
    root.enter(&plan.rootfs)?;
    let host_proc = inherited.claim(plan.host_proc)?;
    sysctl::write(host_proc.as_fd(), &plan.sysctls)?;
    program::add_home(&mut plan, root.root());
    let own_null = terminal::null_device(root.root());
    program::add_listening(&mut plan);
    root.finish(&plan.rootfs, null)?;
    drop(host_proc);
    if let Some(terminal) = terminal {
        terminal::take_over(talk, terminal)?;
    } else {
        terminal::give_streams(plan.identity.uid, own_null)?;
    }
    let program = become_the_program_owner(&plan)?;
    let lock = inherited.claim(plan.lock)?;
    let gate = plan.gate.map(|fd| inherited.claim(fd)).transpose()?;
    if gate.is_some() {
        // A container that was never started ends like any program when it is asked to.
        signals::end_at(&[Signal::HUP, Signal::INT, Signal::QUIT, Signal::TERM]);
    }
    handshake::send(talk, &FromInit::Ready)?;
    wait_for_start(talk, gate)?;
    hooks::run(&plan.hooks.start_container, &plan.hooks.created)?;
    handshake::send(talk, &FromInit::Executing)?;
    let failed = program.execute(plan.preserved);
    drop(lock);
    Err(failed)
}

/// The plan, and what it names by its place.
fn plan(talk: &Channel) -> Result<(Box<Plan>, Inherited)> {
    let mut received = Vec::new();
    loop {
        let (message, fds) = handshake::next_with(talk)?;
        received.extend(fds);
        match message {
            ToInit::Plan(plan) => return Ok((plan, Inherited::of(received))),
            ToInit::Inherit => {}
            other @ (ToInit::Mapped | ToInit::Continue | ToInit::Start) => {
                bail!("the runtime said {other:?} where it should have sent a plan")
            }
        }
    }
}

/// Becomes root of the container's user namespace.
fn become_root(talk: &Channel, namespace: UserNamespace) -> Result<()> {
    match namespace {
        UserNamespace::Host => return Ok(()),
        UserNamespace::Joined => {}
        UserNamespace::New => match handshake::next(talk)? {
            ToInit::Mapped => {}
            other @ (ToInit::Inherit | ToInit::Plan(_) | ToInit::Continue | ToInit::Start) => {
                bail!("the runtime said {other:?} where it should have mapped ids")
            }
        },
    }
    let (gid, uid) = (Gid::ROOT, Uid::ROOT);
    rustix::thread::set_thread_res_gid(gid, gid, gid).call(|| "setresgid(0, 0, 0)".to_string())?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).call(|| "setresuid(0, 0, 0)".to_string())?;
    Ok(())
}

/// What comes before the file system.
fn begin(plan: &Plan) -> Result<()> {
    signals::unblock_signals();
    rustix::process::umask(Mode::from_raw_mode(0o022));
    // A process of a shared pid namespace must not look into this one (CVE-2016-9962).
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .call(|| "prctl(PR_SET_DUMPABLE, 0)".to_string())?;
    rustix::process::setsid().call(|| "setsid()".to_string())?;
    if let Some(keyring) = &plan.keyring {
        match process::join_session_keyring(keyring) {
            Err(error) if error.errno == crate::sys::Errno::NOSYS => {} // a kernel without keys
            joined => joined.context("session keyring (--no-new-keyring does without)")?,
        }
    }
    if let Some(name) = &plan.hostname {
        rustix::system::sethostname(name.as_bytes()).call(|| format!("sethostname(\"{name}\")"))?;
    }
    if let Some(name) = &plan.domainname {
        rustix::system::setdomainname(name.as_bytes())
            .call(|| format!("setdomainname(\"{name}\")"))?;
    }
    Ok(())
}

/// The host's /dev/null as a detached mount, to cover files with. Nothing of the container is
/// mounted yet, so the path is the host's; that it is the null device is checked all the same.
fn null_device(plan: &Plan) -> Result<Option<OwnedFd>> {
    if plan.rootfs.masked_paths.is_empty() {
        return Ok(None);
    }
    let null = rustix::fs::open("/dev/null", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .call(|| "open(\"/dev/null\")".to_string())?;
    let stat = rustix::fs::fstat(&null).call(|| "fstat(\"/dev/null\")".to_string())?;
    if stat.st_rdev != rustix::fs::makedev(1, 3) {
        bail!("the host's /dev/null is not the null device (1:3)");
    }
    Ok(Some(mount::copy_tree(null.as_fd(), "", false)?))
}

/// Makes `process.cwd` while the root can still be written to.
fn make_working_directory(plan: &Plan, root: &mut crate::rootfs::Prepared) -> Result<()> {
    let cwd = ContainerPath::new(&plan.program.cwd);
    root.root()
        .ensure(&cwd, Missing::Directory(0o755))
        .map(drop)
        .with_context(|| format!("process.cwd \"{}\"", plan.program.cwd))
}

/// The hooks between the mounts and the entering of the root: the runtime's, then init's own.
fn run_creation_hooks(talk: &Channel, plan: &Plan) -> Result<()> {
    handshake::send(talk, &FromInit::Made)?;
    if plan.hooks.host {
        expect_continue(talk)?;
    }
    if !plan.hooks.create_container.is_empty() {
        // A mount namespace that was joined need not have the bundle; its root is where we are then.
        let _no_bundle = rustix::process::chdir(&plan.bundle);
    }
    hooks::run(&plan.hooks.create_container, &plan.hooks.creating)
}

fn expect_continue(talk: &Channel) -> Result<()> {
    match handshake::next(talk)? {
        ToInit::Continue => Ok(()),
        other @ (ToInit::Mapped | ToInit::Inherit | ToInit::Plan(_) | ToInit::Start) => {
            bail!("the runtime said {other:?} where it should have said Continue")
        }
    }
}

/// Gives up every privilege that the program is not to have, and finds the program as its user.
fn become_the_program_owner(plan: &Plan) -> Result<program::Found> {
    let entered = program::enter_working_directory(&plan.program.cwd);
    limits::apply(None, &plan.limits)?;
    plan.identity.assume()?;
    if entered.is_err() {
        // The user may enter where root without capabilities in the file's owner may not.
        program::enter_working_directory(&plan.program.cwd)?;
    }
    program::refuse_a_place_outside()?;
    program::find(&plan.program)
}

/// Waits until the program is to be executed: said by whoever created the container, or by a later
/// `start` that connects at the gate. Then `talk` is that connection.
fn wait_for_start(talk: &mut Channel, gate: Option<OwnedFd>) -> Result<()> {
    expect_continue(talk)?;
    let Some(gate) = gate else {
        let ToInit::Start = handshake::next(talk)? else {
            bail!("the runtime did not say Start");
        };
        return Ok(());
    };
    loop {
        let flags = rustix::net::SocketFlags::CLOEXEC;
        let connection = rustix::io::retry_on_intr(|| rustix::net::accept_with(&gate, flags))
            .call(|| "accept(start.sock)".to_string())?;
        let connection = Channel::over(connection);
        // A caller that connects and dies before it says Start has not started anything.
        if let Ok(Some((ToInit::Start, _))) = handshake::receive::<ToInit>(&connection) {
            *talk = connection;
            return Ok(());
        }
    }
}
