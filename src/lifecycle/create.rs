//! `create` and `run`: from a bundle to a process that waits for its start.
//!
//! Everything is read, checked and planned before the first effect. Each effect is undone when a
//! later step fails, and can be found by `delete --force` when this process is killed: the record
//! that names the cgroup is written before the cgroup is made.

use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use anyhow::{Context, Result, bail};
use oci_spec::runtime::Spec;
use rustix::process::geteuid;

use super::descriptors::Passed;
use super::foreground::{Child, Foreground, Orphans};
use super::guide::Guide;
use super::interrupt::Interrupt;
use super::pid_file::PidFile;
use super::process::Process;
use super::record::{Facts, Record, now};
use super::terminal::Relay;
use super::{CreateRequest, RunOptions, Status, delete, handover, hooks, limits, query, start};
use crate::bundle::Bundle;
use crate::cgroups::{self, Cgroup, Hierarchy};
use crate::error::{self, Problems};
use crate::init::handshake::ToInit;
use crate::init::{self, Init, Spawn};
use crate::namespaces::{self, Kind};
use crate::rootfs::{self, HostTree};
use crate::sys::fd::Inheritance;

/// Creates a container; its program waits for `start`.
///
/// # Errors
///
/// Everything that is wrong with the bundle, or the step that failed; nothing is left then.
pub fn create(request: &CreateRequest) -> Result<()> {
    let passed = Passed::find(request.preserve_fds)?;
    let made = make(request, Start::Later, passed)?;
    if let Err(error) = made.init.say(&ToInit::Continue) {
        return Err(made.undo(error));
    }
    let _init_lives_on = made.keep();
    Ok(())
}

/// Creates a container and starts it; in the foreground, stands for it until it ends.
///
/// Returns the program's exit code, 128 and the number of the signal that ended it, or 0 for one
/// that goes on in the background.
///
/// # Errors
///
/// As for [`create`]; nothing is left then.
pub fn run(request: &CreateRequest, options: &RunOptions) -> Result<i32> {
    // Before anything is opened here, which would be taken for a descriptor of the caller.
    let passed = Passed::find(request.preserve_fds)?;
    let foreground = match options.detach {
        true => None,
        false => Some(Foreground::prepare(orphans(*options))?),
    };
    let start = if options.detach {
        Start::Detached
    } else {
        Start::Foreground
    };
    let mut made = make(request, start, passed)?;
    let relay = match begin(&mut made) {
        Ok(relay) => relay,
        Err(error) => return Err(made.undo(error)),
    };
    let pid = made.init.pid().as_raw_nonzero().get();
    start::run_poststart_hooks(&made.record, pid);
    let id = made.record.id.clone();
    let pidfd = made.keep();
    let Some(foreground) = foreground else {
        return Ok(0);
    };
    let pidfd = Rc::try_unwrap(pidfd).map_or_else(|shared| shared.try_clone(), Ok)?;
    let code = foreground.supervise(&Child { pid, pidfd }, relay)?;
    if !options.keep {
        delete::delete(&request.root, &id, delete::Force::Yes)?;
    }
    Ok(code)
}

fn orphans(options: RunOptions) -> Orphans {
    if options.no_subreaper {
        Orphans::LeftToHost
    } else {
        Orphans::Adopted
    }
}

/// Starts the program. Its terminal is connected before, so that it finds the size that will stay.
fn begin(made: &mut Made) -> Result<Option<Relay>> {
    let relay = made.terminal.take().map(Relay::begin).transpose()?;
    made.init.say(&ToInit::Continue)?;
    made.init.say(&ToInit::Start)?;
    made.interrupt.or_ready(made.init.conversation())?;
    made.init.wait_until_executed()?;
    Ok(relay)
}

/// Who says that the program is to be executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Start {
    /// A later `start`.
    Later,
    /// This process, which then ends.
    Detached,
    /// This process, which then stands for the container.
    Foreground,
}

/// A container that is complete but for its start.
struct Made {
    record: Record,
    init: Init,
    /// The terminal's master, when this process relays it.
    terminal: Option<OwnedFd>,
    pid_file: Option<PidFile>,
    interrupt: Interrupt,
}

impl Made {
    /// Leaves the container to itself; its pidfd.
    fn keep(self) -> Rc<OwnedFd> {
        self.pid_file.into_iter().for_each(PidFile::keep);
        self.record.keep();
        self.init.release()
    }

    /// Ends and removes it, as its creation failed with `error`.
    fn undo(self, error: anyhow::Error) -> anyhow::Error {
        drop((self.init, self.pid_file));
        undo(self.record, error)
    }
}

/// What whoever called this process wants of it besides the container.
struct Caller {
    start: Start,
    passed: Passed,
    interrupt: Interrupt,
}

fn make(request: &CreateRequest, start: Start, passed: Passed) -> Result<Made> {
    request.check()?;
    let caller = Caller {
        start,
        passed,
        interrupt: Interrupt::prepare()?,
    };
    let bundle = Bundle::load(&request.bundle)?;
    for warning in &bundle.warnings {
        error::warn(warning);
    }
    check_terminal(&bundle.spec, request, start)?;
    let hierarchy = Hierarchy::find()?;
    let plans = Plans::new(&bundle, request, &hierarchy)?; // nothing has changed yet
    let mut record = Record::reserve(&request.root, &request.id, facts(&bundle, &plans))?;
    let cgroup = match Cgroup::create(&plans.cgroup, &hierarchy) {
        Ok(cgroup) => cgroup,
        // Only the record: a cgroup that was there before is not ours.
        Err(error) => return Err(with_leftovers(error, record.remove())),
    };
    match set_up(request, &bundle, plans, cgroup, &mut record, &caller) {
        Ok((init, terminal, pid_file)) => Ok(Made {
            record,
            init,
            terminal,
            pid_file,
            interrupt: caller.interrupt,
        }),
        Err(error) => Err(undo(record, error)),
    }
}

/// Removes what a failed creation left, and keeps its error as the one to be told.
fn undo(record: Record, error: anyhow::Error) -> anyhow::Error {
    let error = match query::cgroup(&record) {
        Ok(Some(cgroup)) => cgroup.explain(error),
        Ok(None) | Err(_) => error,
    };
    with_leftovers(error, delete::destroy(record))
}

fn with_leftovers(error: anyhow::Error, removed: Result<()>) -> anyhow::Error {
    match removed {
        Ok(()) => error,
        Err(left) => {
            let left = error::in_words(&left);
            error.context(format!(
                "not all of it could be removed ({left}) after this failure"
            ))
        }
    }
}

/// What is decided before the first effect.
struct Plans {
    namespaces: namespaces::Plan,
    cgroup: cgroups::Plan,
    rootfs: rootfs::Plan<HostTree>,
}

impl Plans {
    fn new(bundle: &Bundle, request: &CreateRequest, hierarchy: &Hierarchy) -> Result<Plans> {
        let mut problems = Problems::default();
        let namespaces = namespaces::Plan::new(&bundle.spec, &mut problems);
        let id = request.id.as_str();
        let cgroup = cgroups::Plan::new(&bundle.spec, id, hierarchy, &mut problems);
        let context = rootfs::Context {
            bundle: &bundle.dir,
            rootfs: &bundle.rootfs,
            cgroup_tree: hierarchy.mount_point(),
            mount_namespace: mount_namespace(&namespaces),
            user_namespace: namespaces.is_own(Kind::User),
            joined_user_namespace: namespaces.joined(Kind::User),
            cgroup_namespace: namespaces.is_own(Kind::Cgroup),
            no_pivot: request.no_pivot,
        };
        let rootfs = rootfs::Plan::new(&bundle.spec, context, &mut problems);
        problems
            .into_result()
            .with_context(|| format!("{:?}", bundle.dir.join("config.json")))?;
        error::debug(|| format!("plan:\n{namespaces}{cgroup}{rootfs}"));
        Ok(Plans {
            namespaces,
            cgroup,
            rootfs,
        })
    }
}

fn mount_namespace(namespaces: &namespaces::Plan) -> rootfs::MountNamespace {
    if namespaces.is_new(Kind::Mount) {
        rootfs::MountNamespace::New
    } else if namespaces.is_own(Kind::Mount) {
        rootfs::MountNamespace::Joined
    } else {
        rootfs::MountNamespace::Host
    }
}

/// A terminal needs somebody at its other end, and a socket for one needs a terminal.
fn check_terminal(spec: &Spec, request: &CreateRequest, start: Start) -> Result<()> {
    let wanted = spec
        .process()
        .as_ref()
        .and_then(|p| p.terminal())
        .unwrap_or(false);
    match (wanted, &request.console_socket, start) {
        (true, None, Start::Later | Start::Detached) => bail!(
            "process.terminal: a container in the background needs --console-socket for its terminal"
        ),
        (false, Some(_), _) => bail!(
            "--console-socket: there is no terminal to send; set process.terminal, or leave it out"
        ),
        (true, Some(_), _) | (true, None, Start::Foreground) | (false, None, _) => Ok(()),
    }
}

fn facts(bundle: &Bundle, plans: &Plans) -> Facts {
    let spec = &bundle.spec;
    let hooks = spec.hooks().as_ref();
    let list = |list: Option<&Vec<_>>| list.cloned().unwrap_or_default();
    Facts {
        oci_version: spec.version().clone(),
        bundle: bundle.dir.clone(),
        rootfs: bundle.rootfs.clone(),
        cgroup: Some(plans.cgroup.path().to_path_buf()),
        annotations: spec
            .annotations()
            .clone()
            .unwrap_or_default()
            .into_iter()
            .collect(),
        created: now(),
        owner: geteuid().as_raw(),
        device_rules: plans.cgroup.device_rules(),
        own_pid_namespace: plans.namespaces.is_new(Kind::Pid),
        poststart: list(hooks.and_then(|h| h.poststart().as_ref())),
        poststop: list(hooks.and_then(|h| h.poststop().as_ref())),
    }
}

/// Clones init and takes it as far as it goes without its start.
fn set_up(
    request: &CreateRequest,
    bundle: &Bundle,
    plans: Plans,
    mut cgroup: Cgroup,
    record: &mut Record,
    caller: &Caller,
) -> Result<(Init, Option<OwnedFd>, Option<PidFile>)> {
    let mut inheritance = Inheritance::default();
    let rootfs = plans.rootfs.open(&mut inheritance)?;
    let lock = inheritance.give(record.lock_for_init()?);
    let gate = match caller.start {
        Start::Later => Some(inheritance.give(record.listen_for_start()?)),
        Start::Detached | Start::Foreground => None,
    };
    let wanted = init::Request {
        spec: &bundle.spec,
        bundle: &bundle.dir,
        id: request.id.as_str(),
        namespaces: &plans.namespaces,
        rootfs,
        keyring: !request.no_new_keyring,
        gate,
        lock,
        preserved: caller.passed.total(),
        listening: caller.passed.listening(),
        creating: hooks::state_around_pid(record, &Status::Creating),
        created: hooks::state_around_pid(record, &Status::Created { pid: 0 }),
    };
    let (plan, warnings) = init::build(wanted, &mut inheritance)?;
    for warning in warnings {
        error::warn(&warning);
    }
    let init = init::spawn(Spawn {
        namespaces: &plans.namespaces,
        cgroup: cgroup.fd(),
        inheritance,
        preserved: caller.passed.total(),
    })?;
    init.say(&ToInit::Plan(Box::new(plan)))?;
    // Init is at work now; what waits for none of it is done beside it.
    let mut filter = plans.cgroup.load_device_filter()?;
    let process = Process::of(init.pid(), init.pidfd())?;
    let mut restrict = || match filter.take() {
        Some(filter) => cgroup.filter_devices(&filter),
        None => Ok(()),
    };
    let terminal = Guide {
        init: &init,
        bundle,
        record,
        request,
        interrupt: &caller.interrupt,
    }
    .until_ready(&mut restrict)?;
    restrict()?;
    cgroup.apply_late(&plans.cgroup)?;
    if let Some(process) = bundle.spec.process() {
        limits::apply(init.pid(), process, plans.namespaces.is_own(Kind::User))
            .map_err(|error| cgroup.explain(error))?;
    }
    record.created(process)?;
    let pid_file = announce(&init, request)?;
    cgroup.keep();
    Ok((init, terminal, pid_file))
}

/// Tells whoever asked which process it is.
fn announce(init: &Init, request: &CreateRequest) -> Result<Option<PidFile>> {
    let pid = init.pid().as_raw_nonzero().get();
    if let Some(socket) = &request.pidfd_socket {
        handover::send_pidfd(socket, init.pidfd().as_fd())?;
    }
    let write =
        |path| PidFile::write(path, pid).with_context(|| format!("--pid-file {}", path.display()));
    request.pid_file.as_deref().map(write).transpose()
}
