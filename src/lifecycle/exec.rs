//! `exec`: another process in a container that runs, or that waits for its start.
//!
//! Its seed joins the namespaces of the container's init and clones the process straight into the
//! container's cgroup. The process starts from config.json's, changed by the command line, or from a
//! file; both are checked like config.json itself.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::fs::{Mode, OFlags};
use rustix::process::Pid;

use super::caller::announce;
use super::create::Sown;
use super::described::Given;
use super::descriptors::Passed;
use super::filters::Filters;
use super::foreground::{Child, Foreground, Orphans};
use super::id::ContainerId;
use super::interrupt::Interrupt;
use super::joinable::{ENDED, explain};
use super::pid_file::PidFile;
use super::process::wait_for_exit;
use super::record::Snapshot;
use super::terminal::Relay;
use super::{Status, Verb, devices, handover, hooks, limits, permit, place, query};
use crate::bundle::Bundle;
use crate::cgroups::Cgroup;
use crate::error::{self, Kind, Problems};
use crate::init::handshake::{FromInit, ToInit};
use crate::init::settings::Affinity;
use crate::init::{self, Birth, Init, Seed};
use crate::namespaces;
use crate::seccomp;
use crate::sys::Call;
use crate::sys::fd::Inheritance;
use crate::sys::rights::{Rights, setgroups_is_denied};

/// What `exec` is asked to do.
#[derive(Debug, Clone)]
pub struct ExecRequest {
    /// Directory of all state directories.
    pub root: PathBuf,
    /// The container's id.
    pub id: ContainerId,
    /// What is executed.
    pub process: Given,
    /// Return when the program was executed.
    pub detach: bool,
    /// A unix socket that receives the terminal's master.
    pub console_socket: Option<PathBuf>,
    /// A file that receives the process id.
    pub pid_file: Option<PathBuf>,
    /// A unix socket that receives the pidfd.
    pub pidfd_socket: Option<PathBuf>,
    /// How many descriptors after stderr the program gets, besides those of `LISTEN_FDS`.
    pub preserve_fds: u32,
    /// A cgroup below the container's.
    pub cgroup: Option<PathBuf>,
    /// Also in a container that is paused, where the process stands still until it is resumed.
    pub ignore_paused: bool,
}

/// Executes a process in a container; in the foreground, stands for it until it ends.
///
/// Returns its exit code, 128 and the number of the signal that ended it, or 0 for one that goes on in
/// the background.
///
/// # Errors
///
/// [`crate::error::Kind::NotFound`], [`crate::error::Kind::WrongStatus`]; everything that is wrong with
/// the process; the step that failed.
pub fn exec(request: &ExecRequest, sown: Sown) -> Result<i32> {
    let passed = Passed::find(request.preserve_fds)?;
    let foreground = match request.detach {
        true => None,
        false => Some(Foreground::prepare(Orphans::LeftToHost)?),
    };
    let (child, relay) = begin(request, passed, sown)?;
    match foreground {
        None => Ok(0),
        Some(foreground) => foreground.supervise(&child, relay, None),
    }
}

/// Executes a process in a container and returns when its program was executed: a child of this process,
/// which waits for it. Whether the request says `detach` changes nothing.
///
/// # Errors
///
/// As for [`exec`].
pub fn spawn(request: &ExecRequest) -> Result<Child> {
    let passed = Passed::find(request.preserve_fds)?;
    begin(request, passed, Sown::default()).map(|(child, _relay)| child)
}

fn begin(request: &ExecRequest, passed: Passed, sown: Sown) -> Result<(Child, Option<Relay>)> {
    let interrupt = Interrupt::prepare("the program was executed")?;
    let seed = sown.or_start(passed)?;
    let container = Container::find(request)?;
    let made = container.join(request, &interrupt, seed, passed);
    let made = made.map_err(|error| explain(container.init, container.pidfd.as_fd(), error))?;
    let pid = made.init.pid().as_raw_nonzero().get();
    made.pid_file.into_iter().for_each(PidFile::keep);
    let pidfd = made.init.release();
    let pidfd = Rc::try_unwrap(pidfd).map_or_else(|shared| shared.try_clone(), Ok)?;
    Ok((Child { pid, pidfd }, made.relay))
}

/// The container that is joined.
struct Container {
    snapshot: Snapshot,
    init: Pid,
    pidfd: OwnedFd,
    namespaces: namespaces::Plan,
    /// None where the process stays in the runtime's.
    cgroup: Option<Cgroup>,
    rights: Rights,
}

impl Container {
    fn find(request: &ExecRequest) -> Result<Container> {
        let snapshot = Snapshot::read(&request.root, &request.id)?;
        let status = query::status(&snapshot)?;
        if !(request.ignore_paused && matches!(status, Status::Paused { .. })) {
            permit(Verb::Exec, &request.id, &status)?;
        }
        let pidfd = match &snapshot.init {
            Some(init) => init.open()?.context(ENDED)?,
            None => bail!(ENDED),
        };
        let init = status.pid().and_then(Pid::from_raw).context(ENDED)?;
        let rights = Rights::find();
        let places = namespaces::Plan::of_process(init).and_then(|namespaces| {
            let cgroup = place::cgroup(&snapshot, init, rights, request.cgroup.as_deref())?;
            Ok((namespaces, cgroup))
        });
        let (namespaces, cgroup) = places.map_err(|error| explain(init, pidfd.as_fd(), error))?;
        Ok(Container {
            snapshot,
            init,
            pidfd,
            namespaces,
            cgroup,
            rights,
        })
    }

    fn join(
        &self,
        request: &ExecRequest,
        interrupt: &Interrupt,
        mut seed: Seed,
        passed: Passed,
    ) -> Result<Made> {
        let mut filters = Filters::below(&request.root);
        let bundle = self.bundle(request, &mut filters)?;
        let process = bundle.spec.process().as_ref();
        let affinity = process.map(Affinity::of).unwrap_or_default();
        seed.begin_on(&affinity)?;
        seed.adjust_oom_score(limits::oom_score_adj(process, self.rights));
        seed.enter(&self.namespaces)?;
        let birth = seed.clone_init(&self.namespaces, self.cgroup.as_ref().map(Cgroup::fd))?;
        let joining = Joining {
            request,
            container: self,
            bundle: &bundle,
            affinity: &affinity,
            interrupt,
        };
        joining.finish(birth, passed, filters)
    }

    /// The bundle with the process that is executed.
    fn bundle(&self, request: &ExecRequest, filters: &mut Filters) -> Result<Bundle> {
        let (facts, origin) = (&self.snapshot.facts, request.process.origin());
        let (dir, config) = (&facts.bundle, facts.config.as_deref());
        let known = |text: &str| filters.know(text);
        let bundle = Bundle::load_with(dir, config, known, &origin, |process| {
            request.process.apply(process)
        })?;
        let mut problems = Problems::default();
        init::labels::check_labels(&bundle.spec, &mut problems);
        devices::check_joining(facts, bundle.spec.process().as_ref(), &mut problems);
        problems.into_result()?;
        // Those about the rest were told when the container was created.
        let about_process = |warning: &&String| warning.starts_with("process.");
        for warning in bundle.warnings.iter().filter(about_process) {
            error::warn(warning);
        }
        let process = bundle.spec.process().as_ref();
        let terminal = process.and_then(|p| p.terminal()).unwrap_or(false);
        match (terminal, &request.console_socket, request.detach) {
            (true, None, true) => {
                bail!("a process in the background needs --console-socket for its terminal")
            }
            (false, Some(_), _) => {
                bail!("--console-socket: there is no terminal to send; ask for one with --tty")
            }
            (true, Some(_), _) | (true, None, false) | (false, None, _) => Ok(bundle),
        }
    }

    /// The container's root, as seen from the host. Everything that was found under init's number
    /// before is init's, if this succeeds: it has the number still.
    fn root(&self) -> Result<OwnedFd> {
        let path = format!("/proc/{}/root", self.init.as_raw_nonzero());
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(&path, flags, Mode::empty());
        let root = root.with_context(|| format!("open({path:?})"))?;
        self.is_entered(&root)?;
        if wait_for_exit(self.pidfd.as_fd(), Some(Duration::ZERO))? {
            bail!(ENDED);
        }
        Ok(root)
    }

    /// A container that is still being created may have its namespaces, and the host's root.
    fn is_entered(&self, root: &OwnedFd) -> Result<()> {
        let place = |fd: &OwnedFd| rustix::fs::fstat(fd).map(|stat| (stat.st_dev, stat.st_ino));
        let host = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let host = rustix::fs::open("/", host, Mode::empty()).call(|| "open(\"/\")".into())?;
        let rootfs = &self.snapshot.facts.rootfs;
        if rootfs != Path::new("/") && place(root) == place(&host) {
            bail!(Kind::NotRunning(self.snapshot.id.to_string()));
        }
        Ok(())
    }

    /// Whether setgroups(2) is refused inside, as may be where a user has made the user namespace.
    fn has_fixed_groups(&self) -> bool {
        let init = self.init.as_raw_nonzero().to_string();
        let may_be = self.has_user_namespace() || !self.rights.are_the_hosts();
        may_be && setgroups_is_denied(&init)
    }

    fn has_user_namespace(&self) -> bool {
        self.namespaces.is_own(namespaces::Kind::User)
    }
}

/// What the process needs from here on.
struct Joining<'a> {
    request: &'a ExecRequest,
    container: &'a Container,
    bundle: &'a Bundle,
    affinity: &'a Affinity,
    interrupt: &'a Interrupt,
}

/// A process that executes its program.
struct Made {
    init: Init,
    relay: Option<Relay>,
    pid_file: Option<PidFile>,
}

impl Joining<'_> {
    fn finish(&self, birth: Birth, passed: Passed, filters: Filters) -> Result<Made> {
        let process = self.bundle.spec.process().as_ref();
        let process = process.context("process is missing")?;
        let mut inheritance = Inheritance::default();
        let user_namespace = self.container.has_user_namespace();
        let seccomp = self.seccomp(filters)?;
        let root = inheritance.give(self.container.root()?);
        let id = &self.request.id;
        let keyring = self.container.snapshot.facts.keyring;
        let (plan, warnings) = init::build_exec(
            init::ExecRequest {
                process,
                keyring: keyring.then(|| init::keyring(id.as_str())),
                root,
                linux: self.bundle.spec.linux().as_ref(),
                landlock: init::landlock::Rules::of(&self.bundle.spec),
                seccomp: seccomp.as_ref(),
                user_namespace,
                groups_are_fixed: self.container.has_fixed_groups(),
                preserved: passed.total(),
                listening: passed.listening(),
            },
            &mut inheritance,
        )?;
        for warning in warnings {
            error::warn(&warning);
        }
        birth.send_exec(plan, &inheritance)?;
        self.interrupt.or_ready(birth.told())?;
        let mut init = birth.init()?;
        self.affinity.end(init.pid())?;
        limits::join(
            init.pid(),
            process,
            user_namespace,
            &self.container.snapshot.facts,
        )?;
        let terminal = self.until_ready(&init, seccomp.as_ref())?;
        limits::apply(init.pid(), process, user_namespace, self.container.rights)?;
        init.outlive_seed();
        let (socket, file) = (&self.request.pidfd_socket, &self.request.pid_file);
        let pid_file = announce(&init, socket.as_deref().into_iter(), file.as_deref())?;
        let relay = terminal.map(Relay::begin).transpose()?;
        init.say(&ToInit::Start)?;
        self.interrupt.or_ready(init.conversation())?;
        init.wait_until_executed()?;
        Ok(Made {
            init,
            relay,
            pid_file,
        })
    }

    /// The filter that the container's configuration asks for: it is for every process inside.
    fn seccomp(&self, mut filters: Filters) -> Result<Option<seccomp::Plan>> {
        let mut problems = Problems::default();
        let plan = filters.plan(&self.bundle.spec, &mut problems);
        problems.into_result()?;
        Ok(plan)
    }

    fn hand_over_listener(
        &self,
        init: &Init,
        seccomp: Option<&seccomp::Plan>,
        fd: OwnedFd,
    ) -> Result<()> {
        let listener = seccomp.and_then(seccomp::Plan::listener);
        let listener = listener.context("the process sent a listener that nobody waits for")?;
        let container = &self.container.snapshot;
        let pid = self.container.init.as_raw_nonzero().get();
        let state = hooks::state(container, &Status::Running { pid }, Some(pid));
        let pid = init.pid().as_raw_nonzero().get();
        handover::send_listener(listener, &container.facts.oci_version, pid, &state, fd)
    }

    /// The terminal's master, if this process keeps it.
    fn until_ready(&self, init: &Init, seccomp: Option<&seccomp::Plan>) -> Result<Option<OwnedFd>> {
        let mut terminal = None;
        loop {
            self.interrupt.or_ready(init.conversation())?;
            match init.hear()? {
                (FromInit::Terminal, Some(master)) => match &self.request.console_socket {
                    Some(socket) => handover::send_terminal(socket, master)?,
                    None => terminal = Some(master),
                },
                (FromInit::Listener, Some(fd)) => self.hand_over_listener(init, seccomp, fd)?,
                (FromInit::Ready, _) => return Ok(terminal),
                (said, _) => bail!("the process said {said:?} where it should have got ready"),
            }
        }
    }
}
