//! `restore`: images become the processes of a container again.
//!
//! What is around the processes is made as for `create`, and undone as there when a later step fails.
//! CRIU works in a cgroup below the container's, so that whatever is left of a restore that was killed
//! is found by `delete --force`.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::images::Images;
use super::stage::{Laid, Stage};
use super::{RestoreRequest, labels, outside, require_root, streams};
use crate::bundle::Bundle;
use crate::cgroups::{self, Cgroup, DeviceFilter};
use crate::criu::{
    CgroupsMode, Criu, Feature, Flag, Kind, Notice, Options, Request, Session, Text,
};
use crate::error::{self, Problems};
use crate::init;
use crate::lifecycle::caller::{Start as Caller, check_terminal};
use crate::lifecycle::create::orphans;
use crate::lifecycle::filters::Filters;
use crate::lifecycle::foreground::{Child, Foreground};
use crate::lifecycle::ground::Ground;
use crate::lifecycle::interrupt::{Interrupt, Stop};
use crate::lifecycle::notify::{self, Notify};
use crate::lifecycle::pid_file::PidFile;
use crate::lifecycle::plans::Plans;
use crate::lifecycle::process::Process;
use crate::lifecycle::record::Record;
use crate::lifecycle::terminal::Relay;
use crate::lifecycle::{ManagerChoice, delete, handover, hooks};
use crate::namespaces;
use crate::rootfs::{self, HostTree};
use crate::sys::Call;
use crate::sys::command::Start;
use crate::sys::fd::Inheritance;
use crate::sys::rights::Rights;

/// The name of CRIU's log.
const LOG: &str = "restore.log";

/// The cgroup below the container's in which CRIU works.
const CGROUP: &str = "parhelion.restore";

/// Restores a container; in the foreground, stands for it until it ends.
///
/// Returns its program's exit code, 128 and the number of the signal that ended it, or 0 for one that
/// goes on in the background.
///
/// # Errors
///
/// Everything that is wrong with the bundle, or the step that failed; nothing is left then.
pub fn restore(request: &RestoreRequest) -> Result<i32> {
    let foreground = match request.options.detach {
        true => None,
        false => Some(Foreground::prepare(orphans(request.options))?),
    };
    let made = make(request)?;
    let Made {
        record,
        init,
        terminal,
        pid_file,
    } = made;
    pid_file.into_iter().for_each(PidFile::keep);
    let id = record.id.clone();
    let relay = terminal.map(Relay::begin).transpose()?;
    let notify = match &foreground {
        Some(_) => Notify::listen(&record)?,
        None => None,
    };
    record.keep();
    let Some(foreground) = foreground else {
        return Ok(0);
    };
    let code = foreground.supervise(&init, relay, notify)?;
    if !request.options.keep {
        delete::delete(&request.create.root, &id, delete::Force::Yes)?;
    }
    Ok(code)
}

/// A container that was restored.
struct Made {
    record: Record,
    init: Child,
    terminal: Option<OwnedFd>,
    pid_file: Option<PidFile>,
}

fn make(request: &RestoreRequest) -> Result<Made> {
    let create = &request.create;
    require_root()?;
    if create.cgroup_manager == ManagerChoice::Nobody {
        bail!("--cgroup-manager disabled: criu needs a cgroup for the processes: leave it out");
    }
    let interrupt = Interrupt::prepare("the container was restored")?;
    let criu = Criu::find(request.images.criu.as_deref())?;
    if request.images.lazy_pages {
        criu.require(Feature::LazyPages)?;
    }
    let images = Images::of_checkpoint(&request.images)?;
    let bundle = Bundle::load(&create.bundle, create.config.as_deref())?;
    for warning in &bundle.warnings {
        error::warn(warning);
    }
    let start = match request.options.detach {
        true => Caller::Detached,
        false => Caller::Foreground,
    };
    check_terminal(&bundle.spec, create, start)?;
    let mut problems = Problems::default();
    let namespaces = namespaces::Plan::new(&bundle.spec, Rights::Host, &mut problems);
    outside::check(&bundle.spec, &namespaces, &mut problems);
    let filters = Filters::below(&create.root);
    let laid = Ground::lay(
        create,
        (&bundle, filters),
        namespaces,
        Rights::Host,
        problems,
    )?;
    let (plans, mut ground) = laid;
    let bringing = Bringing {
        request,
        bundle: &bundle,
        images: &images,
        interrupt: &interrupt,
        criu: &criu,
    };
    match bringing.back(plans, &mut ground) {
        Ok((init, terminal, pid_file)) => Ok(Made {
            record: ground.keep_cgroup(),
            init,
            terminal,
            pid_file,
        }),
        Err(error) => Err(ground.take_back(error)),
    }
}

/// What a container is brought back from.
struct Bringing<'a> {
    request: &'a RestoreRequest,
    bundle: &'a Bundle,
    images: &'a Images,
    interrupt: &'a Interrupt,
    criu: &'a Criu,
}

impl Bringing<'_> {
    fn back(
        &self,
        mut plans: Plans,
        ground: &mut Ground,
    ) -> Result<(Child, Option<OwnedFd>, Option<PidFile>)> {
        let Ground { record, cgroup } = ground;
        let cgroup = cgroup.as_mut().context("a cgroup is needed")?;
        let filter = plans.cgroup.load_device_filter()?;
        let place = Place::find(cgroup, &plans.namespaces, self.request.images.cgroups)?;
        plans.rootfs.mounts.push(notify::restored_mount(record)?);
        let mut options = self.options(record, cgroup)?;
        let mut kept = outside::restore_namespaces(&plans.namespaces, &mut options)?;
        kept.extend(streams::restore(self.images, &mut options)?);
        let (session, _open) = self.start(plans.rootfs, record, &place, &kept, &mut options)?;
        drop(kept);
        cgroup.entered();
        if let Some(groups) = &record.facts.resctrl {
            groups.join(session.pid())?;
        }
        let mut steps = Steps {
            bringing: self,
            namespaces: &plans.namespaces,
            limits: &plans.cgroup,
            filter,
            record,
            cgroup,
            init: None,
            terminal: None,
        };
        let served = Request {
            kind: Kind::Restore,
            options: &options,
            log: &self.images.log(LOG),
        };
        session.serve(
            &served,
            &|socket| self.interrupt.or_ready(socket),
            &mut |notice, fd| steps.told(notice, fd),
        )?;
        let Steps { init, terminal, .. } = steps;
        let init = init.context("criu has told of no process that it restored")?;
        place.give_up()?;
        let write = |path: &Path| {
            let written = PidFile::write(path, init.pid);
            written.with_context(|| format!("--pid-file {}", path.display()))
        };
        let pid_file = self.request.create.pid_file.as_deref();
        let pid_file = pid_file.map(write).transpose()?;
        Ok((init, terminal, pid_file))
    }

    fn options(&self, record: &Record, cgroup: &Cgroup) -> Result<Options> {
        let request = self.request;
        let mut options = self.images.options(&request.images, &record.facts, LOG);
        options.flag(Flag::RestoreSibling, true);
        options.flag(Flag::EvasiveDevices, true);
        options.flag(Flag::TcpClose, request.tcp_close);
        let path = cgroup.path().to_str();
        let path = path.context("linux.cgroupsPath: is not UTF-8")?;
        options.cgroup_root(&format!("/{path}"));
        request.set_labels(&mut options);
        Ok(options)
    }

    /// Starts CRIU where it finds the root and the mounts of the host, with the descriptors that it is to have.
    fn start(
        &self,
        rootfs: rootfs::Plan<HostTree>,
        record: &Record,
        place: &Place,
        kept: &[OwnedFd],
        options: &mut Options,
    ) -> Result<(Session, Images)> {
        let names: Vec<(String, bool)> = outside::trees(&rootfs)
            .map(|(target, recursive)| (outside::name(target), recursive))
            .collect();
        let mut inheritance = Inheritance::default();
        let rootfs = rootfs.open(&mut inheritance)?;
        let stage = Stage::enter()?;
        let Laid { root, mounts } = stage.lay_out(rootfs, inheritance, &names)?;
        let images = self.images.opened_here()?;
        images.name(options);
        outside::restore_mounts(&mounts, options)?;
        options.text(Text::Root, root.to_str().context("no UTF-8")?);
        let session = self.criu.start(Start {
            ends_with_us: true,
            kept: kept.iter().map(AsRawFd::as_raw_fd).collect(),
            cgroup: Some(rustix::io::fcntl_dupfd_cloexec(&place.processes, 3)?),
            keyring: Some(init::keyring(record.id.as_str())),
            namespaces: place.namespaces,
            ..Start::default()
        })?;
        stage.leave()?;
        Ok((session, images))
    }
}

impl RestoreRequest {
    fn set_labels(&self, options: &mut Options) {
        if let Some(profile) = &self.lsm_profile {
            options.text(Text::LsmProfile, profile);
        }
        if let Some(context) = &self.lsm_mount_context {
            options.text(Text::LsmMountContext, context);
        }
    }
}

/// Where CRIU works.
struct Place {
    /// `cgroup.procs` of its cgroup.
    processes: OwnedFd,
    /// That cgroup, where it is not the container's own.
    below: Option<Cgroup>,
    /// What it hands on to the processes, as it does not restore it itself.
    namespaces: u64,
}

impl Place {
    /// Below the container's cgroup, from where CRIU puts every process into its own; where it leaves
    /// them with itself, in the container's.
    fn find(cgroup: &Cgroup, namespaces: &namespaces::Plan, mode: CgroupsMode) -> Result<Place> {
        let (below, namespaces) = match (mode, namespaces.is_new(namespaces::Kind::Cgroup)) {
            (CgroupsMode::Ignore, true) => (None, libc::CLONE_NEWCGROUP as u64),
            (CgroupsMode::Ignore, false) => (None, 0),
            (CgroupsMode::Soft | CgroupsMode::Full | CgroupsMode::Strict, _) => {
                (Some(cgroup.make_below(CGROUP)?), 0)
            }
        };
        Ok(Place {
            processes: below.as_ref().unwrap_or(cgroup).entrance()?,
            below,
            namespaces,
        })
    }

    /// Removes what only CRIU was in.
    fn give_up(self) -> Result<()> {
        match self.below {
            Some(below) => below.into_kept().remove(),
            None => Ok(()),
        }
    }
}

/// What is done at the steps that CRIU tells of.
struct Steps<'a> {
    bringing: &'a Bringing<'a>,
    namespaces: &'a namespaces::Plan,
    limits: &'a cgroups::Plan,
    filter: Option<DeviceFilter>,
    record: &'a mut Record,
    cgroup: &'a mut Cgroup,
    init: Option<Child>,
    terminal: Option<OwnedFd>,
}

impl Steps<'_> {
    fn told(&mut self, notice: &Notice, fd: Option<OwnedFd>) -> Result<()> {
        match (notice.step.as_str(), fd) {
            ("setup-namespaces", _) => self.namespaces_are_made(notice.pid),
            ("orphan-pts-master", Some(master)) => {
                match &self.bringing.request.create.console_socket {
                    Some(socket) => handover::send_terminal(socket, master),
                    None => {
                        self.terminal = Some(master);
                        Ok(())
                    }
                }
            }
            ("post-restore", _) => self.processes_are_made(),
            ("pre-resume", _) => self.processes_are_labelled(),
            (_, _) => Ok(()),
        }
    }

    /// The first process exists and waits; in its namespaces is nothing yet.
    fn namespaces_are_made(&mut self, pid: i32) -> Result<()> {
        let init = Pid::from_raw(pid).context("no process is named")?;
        let pidfd = pidfd_open(init, PidfdFlags::empty()).call(|| format!("pidfd_open({pid})"))?;
        if self.namespaces.is_new(namespaces::Kind::Network) {
            // CRIU leaves it as a new one has it.
            namespaces::network::bring_up_loopback(init)?;
        }
        namespaces::move_devices(self.namespaces, init)?;
        let stop = Stop {
            interrupt: self.bringing.interrupt,
            init: pidfd.as_fd(),
        };
        hooks::run_at_creation(self.bringing.bundle, self.record, pid, stop)?;
        self.init = Some(Child { pid, pidfd });
        Ok(())
    }

    /// All processes have their credentials, and go on next.
    fn processes_are_labelled(&self) -> Result<()> {
        let profile = self.bringing.request.lsm_profile.as_deref();
        let wanted = labels::wanted(&self.bringing.bundle.spec, profile);
        match (wanted, &self.init) {
            (Some(label), Some(init)) => labels::check(init, &label),
            (_, _) => Ok(()),
        }
    }

    /// All processes are there, and do not run yet.
    fn processes_are_made(&mut self) -> Result<()> {
        let init = self
            .init
            .as_ref()
            .context("no namespaces were made before")?;
        if let Some(filter) = &self.filter {
            self.cgroup.filter_devices(filter)?;
        }
        self.cgroup.apply_late(self.limits)?;
        let pid = Pid::from_raw(init.pid).context("no process is named")?;
        self.record.created(Process::of(pid, init.pidfd.as_fd())?)
    }
}
