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
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{Gid, Mode, OFlags, Uid};
use rustix::process::{DumpableBehavior, Signal};

use super::handshake::{self, FromInit, ToInit};
use super::labels::Labels;
use super::landlock::Rules;
use super::limits::Limit;
use super::plan::{Exec, Identity, Plan, Program, UserNamespace};
use super::seed::Grown;
use super::settings::Settings;
use super::{exec, hooks, limits, network, program, seed, sysctl, terminal};
use crate::rootfs::{self, Outside};
use crate::sys::channel::Channel;
use crate::sys::confined::{ContainerPath, Missing};
use crate::sys::fd::{self, Inherited};
use crate::sys::weakened::{Mitigation, is_off};
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
    #[cfg(all(feature = "weakened", not(feature = "runtime")))]
    crate::sys::weakened::learn();
    let failed = match seed::grow(&talk) {
        Ok(Grown::Seed) => return 0,
        Ok(Grown::Init) => run(&mut talk),
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
fn run(talk: &mut Channel) -> Result<core::convert::Infallible> {
    let (mut plan, mut inherited) = match task(talk)? {
        (Task::Container(plan), inherited) => (plan, inherited),
        (Task::Exec(plan), inherited) => return exec::run(talk, *plan, inherited),
    };
    become_root(talk, plan.user_namespace)?;
    let host_proc = inherited.claim(plan.host_proc)?;
    begin(&plan, host_proc.as_fd())?;
    let null = null_device(&plan)?;
    let mut enter_network = || {
        if plan.hooks.create_container.is_empty() {
            plan.identity.bound()?; // done while the runtime makes the namespace
        }
        network::enter(&mut plan.network, talk)
    };
    let mut root = plan.rootfs.prepare(Outside {
        inherited: &mut inherited,
        enter_network: &mut enter_network,
    })?;
    enter_network()?;
    make_working_directory(&plan, &mut root)?;
    let terminal = terminal::make(&plan, root.root(), host_proc.as_fd())?;
    let outputs = hooks::Outputs::claim(&plan.hooks, &mut inherited)?;
    let own_null = enter_root(talk, &plan, &mut root, &outputs)?;
    let host_proc = weakened_proc(host_proc)?;
    let null = weakened_null(null, &root)?;
    sysctl::write(host_proc.as_fd(), &plan.sysctls)?;
    plan.labels.apply(host_proc.as_fd())?;
    program::add_home(&mut plan.program, plan.identity.uid, root.root());
    program::add_listening(&mut plan.program, plan.listening);
    root.finish(&plan.rootfs, null)?;
    if let Some(terminal) = terminal {
        terminal::take_over(talk, terminal)?;
    } else {
        terminal::give_streams(plan.identity.uid, own_null, host_proc.as_fd())?;
    }
    drop(host_proc);
    plan.identity.bound()?;
    let owner = Owner {
        limits: &plan.limits,
        settings: &plan.settings,
        landlock: plan.landlock.as_ref(),
        identity: &plan.identity,
    };
    let program = become_the_program_owner(&plan.program, &owner)?;
    let lock = inherited.claim(plan.lock)?;
    let gate = plan.gate.map(|fd| inherited.claim(fd)).transpose()?;
    if gate.is_some() {
        // A container that was never started ends like any program when it is asked to.
        signals::end_at(&[Signal::HUP, Signal::INT, Signal::QUIT, Signal::TERM]);
    }
    plan.identity
        .filter_with_listener(plan.filter.as_ref(), talk)?;
    handshake::send(talk, &FromInit::Ready)?;
    wait_for_start(talk, gate)?;
    hooks::run(&plan.hooks.start_container, &plan.hooks.created, &outputs)?;
    handshake::send(talk, &FromInit::Executing)?;
    let failed = program.execute(plan.preserved, &plan.identity, plan.filter.as_ref());
    drop(lock);
    Err(failed)
}

/// What the process is for.
enum Task {
    /// It becomes a container's first process.
    Container(Box<Plan>),
    /// It joins a container.
    Exec(Box<Exec>),
}

/// The plan, and what it names by its place.
fn task(talk: &Channel) -> Result<(Task, Inherited)> {
    let mut received = Vec::new();
    loop {
        let (message, fds) = handshake::next_with(talk)?;
        received.extend(fds);
        match message {
            ToInit::Plan(plan) => return Ok((Task::Container(plan), Inherited::of(received))),
            ToInit::Exec(plan) => return Ok((Task::Exec(plan), Inherited::of(received))),
            ToInit::Inherit => {}
            ToInit::Mapped | ToInit::Network | ToInit::Continue | ToInit::Start => {
                bail!("the runtime did not send a plan")
            }
        }
    }
}

/// Becomes root of the container's user namespace.
pub(super) fn become_root(talk: &Channel, namespace: UserNamespace) -> Result<()> {
    match namespace {
        UserNamespace::Host => return Ok(()),
        UserNamespace::Joined => {}
        UserNamespace::New => match handshake::next(talk)? {
            ToInit::Mapped => {}
            ToInit::Inherit
            | ToInit::Plan(_)
            | ToInit::Exec(_)
            | ToInit::Network
            | ToInit::Continue
            | ToInit::Start => {
                bail!("the runtime did not say that the ids are mapped")
            }
        },
    }
    let (gid, uid) = (Gid::ROOT, Uid::ROOT);
    rustix::thread::set_thread_res_gid(gid, gid, gid).call(|| "setresgid(0, 0, 0)".to_string())?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).call(|| "setresuid(0, 0, 0)".to_string())?;
    Ok(())
}

/// Becomes a process that owes nothing to the runtime's session and that nobody inside looks into.
pub(super) fn stand_alone(
    keyring: Option<&str>,
    labels: &Labels,
    host_proc: BorrowedFd<'_>,
) -> Result<()> {
    signals::unblock_signals();
    rustix::process::umask(Mode::from_raw_mode(0o022));
    // A process of a shared pid namespace must not look into this one (CVE-2016-9962).
    if !is_off(Mitigation::Dumpable) {
        rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
            .call(|| "prctl(PR_SET_DUMPABLE, 0)".to_string())?;
    }
    // Nor can the program type into the caller's terminal (TIOCSTI), which is not that of its session.
    if !is_off(Mitigation::Session) {
        rustix::process::setsid().call(|| "setsid()".to_string())?;
    }
    if let Some(keyring) = keyring {
        let join = || match process::join_session_keyring(keyring) {
            Err(error) if error.errno == crate::sys::Errno::NOSYS => Ok(()), // a kernel without keys
            joined => joined.context("session keyring (--no-new-keyring does without)"),
        };
        labels.with_keys(host_proc, join)?;
    }
    Ok(())
}

/// What comes before the file system.
fn begin(plan: &Plan, host_proc: BorrowedFd<'_>) -> Result<()> {
    stand_alone(plan.keyring.as_deref(), &plan.labels, host_proc)?;
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
    if !terminal::is_device(&stat, 1, 3) {
        bail!("the host's /dev/null is not the null device (1:3)");
    }
    Ok(Some(mount::copy_tree(null.as_fd(), "", false)?))
}

/// The host's procfs; what is at /proc inside, in a build for tests that does without it.
fn weakened_proc(host_proc: OwnedFd) -> Result<OwnedFd> {
    if !is_off(Mitigation::HostProc) {
        return Ok(host_proc);
    }
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    Ok(rustix::fs::open("/proc", flags, Mode::empty()).call(|| "open(\"/proc\")".to_string())?)
}

/// What hides files; what the image has at /dev/null, in a build for tests that does without the host's.
fn weakened_null(null: Option<OwnedFd>, root: &rootfs::Prepared) -> Result<Option<OwnedFd>> {
    if !is_off(Mitigation::NullDevice) {
        return Ok(null);
    }
    let null = root
        .root()
        .open(&ContainerPath::new("dev/null"), OFlags::PATH)?;
    Ok(Some(mount::copy_tree(null.as_fd(), "", false)?))
}

/// Makes `process.cwd` while the root can still be written to.
fn make_working_directory(plan: &Plan, root: &mut rootfs::Prepared) -> Result<()> {
    let cwd = ContainerPath::new(&plan.program.cwd);
    root.root()
        .ensure(&cwd, Missing::Directory(0o755))
        .map(drop)
        .with_context(|| format!("process.cwd \"{}\"", plan.program.cwd))
}

/// The hooks that come before the root is entered, the runtime's and init's own, and its entering. The
/// container's own null device, as hooks have left it.
fn enter_root(
    talk: &Channel,
    plan: &Plan,
    root: &mut rootfs::Prepared,
    outputs: &hooks::Outputs,
) -> Result<Option<OwnedFd>> {
    if plan.waits_when_made {
        handshake::send(talk, &FromInit::Made)?;
        expect_continue(talk)?;
    }
    if !plan.hooks.create_container.is_empty() {
        // A mount namespace that was joined need not have the bundle; its root is where we are then.
        let _no_bundle = rustix::process::chdir(&plan.bundle);
    }
    hooks::run(&plan.hooks.create_container, &plan.hooks.creating, outputs)?;
    let own_null = terminal::null_device(root.root());
    root.enter(&plan.rootfs)?;
    if !plan.waits_when_made {
        // Not before: what the runtime does then would hold up the end of the old root, for which all
        // processors are waited for.
        handshake::send(talk, &FromInit::Made)?;
    }
    Ok(own_null)
}

fn expect_continue(talk: &Channel) -> Result<()> {
    match handshake::next(talk)? {
        ToInit::Continue => Ok(()),
        // Not what it said: to print a plan would take a tenth of this program.
        ToInit::Mapped
        | ToInit::Inherit
        | ToInit::Plan(_)
        | ToInit::Exec(_)
        | ToInit::Network
        | ToInit::Start => {
            bail!("the runtime did not say Continue")
        }
    }
}

/// Who the program is, and what is set before it becomes that.
pub(super) struct Owner<'a> {
    pub limits: &'a [Limit],
    pub settings: &'a Settings,
    pub landlock: Option<&'a Rules>,
    pub identity: &'a Identity,
}

/// Gives up every privilege that the program is not to have, and finds the program as its user.
pub(super) fn become_the_program_owner(
    program: &Program,
    owner: &Owner<'_>,
) -> Result<program::Found> {
    let entered = program::enter_working_directory(&program.cwd);
    limits::apply(None, owner.limits)?;
    owner.settings.apply()?;
    if let Some(rules) = owner.landlock {
        rules.apply(owner.identity.no_new_privileges)?;
    }
    owner.identity.assume()?;
    if entered.is_err() {
        // The user may enter where root without capabilities in the file's owner may not.
        program::enter_working_directory(&program.cwd)?;
    }
    program::refuse_a_place_outside()?;
    program::find(program)
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
