//! From plans, a cgroup and a seed to an init that waits for its start or has heard of it.

use std::os::fd::OwnedFd;

use anyhow::Result;

use super::caller::{Caller, Start, announce, pidfd_sockets};
use super::guide::{Guide, Word};
use super::pid_file::PidFile;
use super::plans::Plans;
use super::record::Record;
use super::trees::open_inside;
use super::{CreateRequest, Status, hooks, limits, notify};
use crate::bundle::Bundle;
use crate::cgroups::{self, Cgroup};
use crate::error;
use crate::init::{self, Birth, Init, Seed};
use crate::namespaces::{self, Kind};
use crate::rootfs::{self, HostTree, OpenTree};
use crate::seccomp;
use crate::sys::fd::Inheritance;
use crate::sys::rights::{Rights, setgroups_is_denied};
use crate::sys::weakened::{Mitigation, is_off};
use crate::sys::{Errno, SysError};

/// What a container is made of.
pub(super) struct Parts<'a> {
    pub bundle: &'a Bundle,
    pub plans: Plans,
    pub seed: Seed,
    pub rights: Rights,
    /// None where the container stays in the runtime's.
    pub cgroup: Option<&'a mut Cgroup>,
}

/// What [`set_up`] has made beside the record.
pub(super) struct SetUp {
    pub init: Init,
    pub terminal: Option<OwnedFd>,
    pub pid_file: Option<PidFile>,
    /// Init knows already that it is to execute the program.
    pub is_told: bool,
}

/// Has init cloned and takes it as far as it goes without its start.
///
/// # Errors
///
/// The step that failed.
pub(super) fn set_up(
    request: &CreateRequest,
    parts: Parts<'_>,
    record: &mut Record,
    caller: &Caller,
) -> Result<SetUp> {
    let Parts {
        bundle,
        mut plans,
        seed,
        rights,
        mut cgroup,
    } = parts;
    let birth = seed.clone_init(&plans.namespaces, cgroup.as_ref().map(|c| c.birthplace()))?;
    // Seed and init are at work now; what waits for neither is done beside them.
    let order = Order {
        request,
        bundle,
        caller,
        rights,
        namespaces: &plans.namespaces,
        seccomp: plans.seccomp.as_ref(),
    };
    let notify = notify::mount(record)?;
    let at_once = caller.start != Start::Later && notify.is_none();
    plans.rootfs.mounts.extend(notify);
    let late_plans = (&plans.cgroup, &plans.namespaces, &plans.rootfs);
    let late = Late::new(bundle, late_plans, rights);
    let (mut init, task) = order.give(birth, plans.rootfs, record)?;
    let is_told = at_once && !task.makes_terminal && late.is_nothing();
    let word = Word::of(is_told, task.waits_when_made || late.waits_for_mounts());
    if let Some(cgroup) = &mut cgroup {
        cgroup.entered();
        cgroup.settle(init.pid())?;
    }
    let filter = plans.cgroup.load_device_filter()?;
    let guide = Guide {
        init: &init,
        bundle,
        request,
        listener: order.seccomp.and_then(seccomp::Plan::listener),
        waits_when_made: task.waits_when_made,
        word,
        interrupt: &caller.interrupt,
    };
    let made = |record: &Record| {
        if let (Some(filter), Some(cgroup)) = (filter, &cgroup)
            && !is_off(Mitigation::DeviceFilter)
        {
            cgroup.filter_devices(&filter)?;
        }
        limits::apply_when_made(init.pid(), &bundle.spec, &plans.namespaces, record)
    };
    let terminal = guide.until_ready(made, record)?;
    late.apply(&init, cgroup)?;
    init.outlive_seed();
    let sockets = pidfd_sockets(request, &record.facts.annotations);
    let pid_file = announce(&init, sockets, request.pid_file.as_deref())?;
    Ok(SetUp {
        init,
        terminal,
        pid_file,
        is_told,
    })
}

/// What init's plan is made from.
struct Order<'a> {
    request: &'a CreateRequest,
    bundle: &'a Bundle,
    caller: &'a Caller,
    rights: Rights,
    namespaces: &'a namespaces::Plan,
    seccomp: Option<&'a seccomp::Plan>,
}

/// What init was told to do, as far as the runtime has a part in it.
struct Task {
    waits_when_made: bool,
    makes_terminal: bool,
}

impl Task {
    fn of(plan: &init::plan::Plan) -> Task {
        Task {
            waits_when_made: plan.waits_when_made,
            makes_terminal: plan.terminal.is_some(),
        }
    }
}

impl Order<'_> {
    /// Gives init its plan, while it is still being made where the runtime has the host's rights.
    fn give(
        &self,
        birth: Birth,
        rootfs: rootfs::Plan<HostTree>,
        record: &Record,
    ) -> Result<(Init, Task)> {
        let interrupt = &self.caller.interrupt;
        if self.rights.are_the_hosts() {
            let mut inheritance = Inheritance::default();
            let rootfs = rootfs.open(&mut inheritance)?;
            let plan = self.plan(rootfs, &mut inheritance, record, false)?;
            let task = Task::of(&plan);
            birth.send_plan(plan, &inheritance)?;
            drop(inheritance);
            if self.namespaces.network_follows() {
                birth.give_network()?;
            }
            interrupt.or_ready(birth.told())?;
            return Ok((birth.init()?, task));
        }
        interrupt.or_ready(birth.told())?;
        let init = birth.without_plan()?;
        let pid = init.pid().as_raw_nonzero().to_string();
        let (rootfs, mut inheritance) = self.open(rootfs, &pid)?;
        let groups_are_fixed = setgroups_is_denied(&pid);
        let plan = self.plan(rootfs, &mut inheritance, record, groups_are_fixed)?;
        let task = Task::of(&plan);
        init.send_plan(plan, &inheritance)?;
        Ok((init, task))
    }

    /// Opens what the container takes from the host: here where that is allowed, else inside.
    fn open(
        &self,
        rootfs: rootfs::Plan<HostTree>,
        init: &str,
    ) -> Result<(rootfs::Plan<OpenTree>, Inheritance)> {
        if self.rights == Rights::Namespace || !self.namespaces.is_own(Kind::Mount) {
            let mut inheritance = Inheritance::default();
            match rootfs.clone().open(&mut inheritance) {
                // The mount namespace belongs to a user namespace above.
                Err(error) if is_not_permitted(&error) => {}
                opened => return Ok((opened?, inheritance)),
            }
        }
        let user_namespace = self.namespaces.user_namespace(init)?;
        open_inside(user_namespace, |inheritance| rootfs.open(inheritance))
    }

    /// Init's plan, for which what `rootfs` names is in `inheritance`.
    fn plan(
        &self,
        rootfs: rootfs::Plan<OpenTree>,
        inheritance: &mut Inheritance,
        record: &Record,
        groups_are_fixed: bool,
    ) -> Result<init::plan::Plan> {
        let lock = inheritance.give(record.lock_for_init()?);
        let gate = match self.caller.start {
            Start::Later => Some(inheritance.give(record.listen_for_start()?)),
            Start::Detached | Start::Foreground => None,
        };
        let wanted = init::Request {
            spec: &self.bundle.spec,
            bundle: &self.bundle.dir,
            id: self.request.id.as_str(),
            namespaces: self.namespaces,
            rootfs,
            seccomp: self.seccomp,
            keyring: !self.request.no_new_keyring,
            groups_are_fixed,
            gate,
            lock,
            preserved: self.caller.passed.total(),
            listening: self.caller.passed.listening(),
            creating: hooks::state_around_pid(record, &Status::Creating),
            created: hooks::state_around_pid(record, &Status::Created { pid: 0 }),
        };
        let (mut plan, warnings) = init::build(wanted, inheritance)?;
        notify::add_variable(&mut plan.program.env);
        let outputs = hooks::outputs(&record.facts)?;
        plan.hooks.outputs = outputs.map(|file| file.map(|file| inheritance.give(file.into())));
        warnings.iter().for_each(|warning| error::warn(warning));
        Ok(plan)
    }
}

fn is_not_permitted(error: &anyhow::Error) -> bool {
    let call = error
        .chain()
        .find_map(|cause| cause.downcast_ref::<SysError>());
    call.is_some_and(|call| call.errno == Errno::PERM)
}

/// What is set on init only when it has nothing left to do before the program.
struct Late<'a> {
    bundle: &'a Bundle,
    cgroup: &'a cgroups::Plan,
    user_namespace: bool,
    opens_devices: bool,
    moves_devices: bool,
    rights: Rights,
}

impl<'a> Late<'a> {
    fn new(
        bundle: &'a Bundle,
        plans: (
            &'a cgroups::Plan,
            &namespaces::Plan,
            &rootfs::Plan<HostTree>,
        ),
        rights: Rights,
    ) -> Self {
        let (cgroup, namespaces, rootfs) = plans;
        Late {
            bundle,
            cgroup,
            user_namespace: namespaces.is_own(Kind::User),
            opens_devices: rootfs.opens_devices(),
            moves_devices: namespaces.moves_devices(),
            rights,
        }
    }

    fn is_nothing(&self) -> bool {
        let process = self.bundle.spec.process().as_ref();
        !self.cgroup.has_late_limits()
            && process
                .is_none_or(|process| limits::is_nothing(process, self.user_namespace, self.rights))
    }

    /// Whether something comes before that which may only be done when the mounts are made: the device
    /// filter where they are of devices, and what `limits::apply_when_made` does.
    fn waits_for_mounts(&self) -> bool {
        self.opens_devices || self.moves_devices || self.user_namespace
    }

    fn apply(&self, init: &Init, cgroup: Option<&mut Cgroup>) -> Result<()> {
        if let Some(cgroup) = cgroup {
            cgroup.apply_late(self.cgroup)?;
        }
        if let Some(process) = self.bundle.spec.process() {
            limits::apply(init.pid(), process, self.user_namespace, self.rights)?;
        }
        Ok(())
    }
}
