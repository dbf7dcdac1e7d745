//! From plans, a cgroup and a seed to an init that waits for its start or has heard of it.

use std::os::fd::OwnedFd;

use anyhow::Result;

use super::caller::{Caller, Start, announce, pidfd_sockets};
use super::guide::Guide;
use super::pid_file::PidFile;
use super::plans::Plans;
use super::record::Record;
use super::{CreateRequest, Status, hooks, limits, notify};
use crate::bundle::Bundle;
use crate::cgroups::{self, Cgroup};
use crate::error;
use crate::init::{self, Init, Seed};
use crate::namespaces::{self, Kind};
use crate::rootfs::{self, HostTree};
use crate::seccomp;
use crate::sys::fd::Inheritance;

/// What a container is made of.
pub(super) struct Parts<'a> {
    pub bundle: &'a Bundle,
    pub plans: Plans,
    pub seed: Seed,
    pub cgroup: &'a mut Cgroup,
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
        cgroup,
    } = parts;
    let birth = seed.clone_init(&plans.namespaces, cgroup.fd())?;
    // Seed and init are at work now; what waits for neither is done beside them.
    let order = Order {
        request,
        bundle,
        caller,
        namespaces: &plans.namespaces,
        seccomp: plans.seccomp.as_ref(),
    };
    let notify = notify::mount(record)?;
    let at_once = caller.start != Start::Later && notify.is_none();
    plans.rootfs.mounts.extend(notify);
    let (plan, inheritance) = order.plan(plans.rootfs, record)?;
    let waits_when_made = plan.waits_when_made;
    let late = Late {
        bundle,
        cgroup: &plans.cgroup,
        user_namespace: plans.namespaces.is_own(Kind::User),
    };
    let is_told = at_once && plan.terminal.is_none() && late.is_nothing();
    birth.send_plan(plan, &inheritance)?;
    drop(inheritance);
    caller.interrupt.or_ready(birth.told())?;
    let init = birth.init()?;
    cgroup.entered();
    // The kernel takes time for it, which is nobody's on two processors when the seed is done.
    caller.interrupt.or_ready(init.seeds_end())?;
    let filter = plans.cgroup.load_device_filter()?;
    let guide = Guide {
        init: &init,
        bundle,
        request,
        listener: order.seccomp.and_then(seccomp::Plan::listener),
        waits_when_made,
        interrupt: &caller.interrupt,
    };
    let made = |record: &Record| {
        if let Some(filter) = filter {
            cgroup.filter_devices(&filter)?;
        }
        limits::apply_when_made(init.pid(), &bundle.spec, &plans.namespaces, record)
    };
    let terminal = guide.until_ready(made, record, is_told)?;
    late.apply(&init, cgroup)?;
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
    namespaces: &'a namespaces::Plan,
    seccomp: Option<&'a seccomp::Plan>,
}

impl Order<'_> {
    /// Init's plan, and the descriptors that it names.
    fn plan(
        &self,
        rootfs: rootfs::Plan<HostTree>,
        record: &Record,
    ) -> Result<(init::plan::Plan, Inheritance)> {
        let mut inheritance = Inheritance::default();
        let rootfs = rootfs.open(&mut inheritance)?;
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
            gate,
            lock,
            preserved: self.caller.passed.total(),
            listening: self.caller.passed.listening(),
            creating: hooks::state_around_pid(record, &Status::Creating),
            created: hooks::state_around_pid(record, &Status::Created { pid: 0 }),
        };
        let (mut plan, warnings) = init::build(wanted, &mut inheritance)?;
        notify::add_variable(&mut plan.program.env);
        let outputs = hooks::outputs(&record.facts)?;
        plan.hooks.outputs = outputs.map(|file| file.map(|file| inheritance.give(file.into())));
        warnings.iter().for_each(|warning| error::warn(warning));
        Ok((plan, inheritance))
    }
}

/// What is set on init only when it has nothing left to do before the program.
struct Late<'a> {
    bundle: &'a Bundle,
    cgroup: &'a cgroups::Plan,
    user_namespace: bool,
}

impl Late<'_> {
    fn is_nothing(&self) -> bool {
        let process = self.bundle.spec.process().as_ref();
        !self.cgroup.has_late_limits()
            && process.is_none_or(|process| limits::is_nothing(process, self.user_namespace))
    }

    fn apply(&self, init: &Init, cgroup: &mut Cgroup) -> Result<()> {
        cgroup.apply_late(self.cgroup)?;
        if let Some(process) = self.bundle.spec.process() {
            limits::apply(init.pid(), process, self.user_namespace)?;
        }
        Ok(())
    }
}
