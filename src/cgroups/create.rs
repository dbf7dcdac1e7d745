//! Makes the planned cgroup: the directory, its controllers, its owner, its limits, its devices.
//!
//! Acts on a [`Plan`] and decides nothing of it. A cgroup of this name that is there already is
//! refused when processes are in it, and otherwise removed and made anew: limits and device
//! programs that an earlier container left behind must not hold for this one.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Error, Result, bail};
use rustix::fs::{Mode, OFlags};

use super::inner::Made;
use super::plan::{Action, Missing, Phase, Plan, Step, needed_controllers};
use super::systemd::{Manager, Scope};
use super::{CONTROLLERS, Cgroup, DeviceFilter, Hierarchy, devices, files, owner, remove, tree};
use crate::sys::{Call, Errno, SysError, SysResult};

/// Enabled besides [`CONTROLLERS`]: config.json has no field for it but `unified`.
const MISC: &str = "misc";

/// How often directories that others make and remove at the same time are tried.
const ATTEMPTS: usize = 8;

impl Cgroup {
    /// Makes the cgroup, with everything that must hold before a process is in it; None where the plan
    /// has none. Removed again on drop unless it is kept.
    ///
    /// All controllers that the host offers are enabled for it, as their figures are wanted too.
    ///
    /// # Errors
    ///
    /// The directory exists and has processes in it; a limit's controller can not be enabled; the
    /// kernel refuses a limit or the device program. Nothing is left behind then.
    pub fn create(plan: &Plan, hierarchy: &Hierarchy, manager: Manager) -> Result<Option<Cgroup>> {
        let Some(path) = plan.path() else {
            return Ok(None);
        };
        let mut cgroup = match (&plan.scope, manager) {
            (Some(scope), Manager::Systemd(systemd)) => {
                in_scope(path, hierarchy, Scope::start(scope, *systemd)?)?
            }
            (None, _) | (Some(_), _) => make(path, hierarchy)?,
        };
        match (cgroup.prepare(plan, hierarchy), &mut cgroup.scope) {
            (Ok(()), _) => Ok(Some(cgroup)),
            (Err(error), None) => Err(error),
            (Err(error), Some(scope)) => Err(scope.take_back(error)),
        }
    }

    fn prepare(&mut self, plan: &Plan, hierarchy: &Hierarchy) -> Result<()> {
        enable(self, &plan.steps, hierarchy)?;
        if let Some(inner) = &plan.inner {
            self.make_inner(inner)?;
        }
        if let Some(owner) = plan.owner {
            let inner = self.inner.as_deref().map(Made::root);
            match owner::give(inner.unwrap_or(self.fd()), owner) {
                // It is the caller's then, and the container has that user's cgroup read-only.
                Err(Errno::PERM) if !plan.privileged => {}
                given => given.call(|| format!("chown({:?}, {owner})", self.place("")))?,
            }
        }
        self.apply(plan, Phase::Early)
    }

    /// The file to which a process writes itself into this cgroup.
    ///
    /// # Errors
    ///
    /// It can not be opened.
    pub fn entrance(&self) -> Result<OwnedFd> {
        const FILE: &str = "cgroup.procs";
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let opened = rustix::fs::openat(self.fd(), FILE, flags, Mode::empty());
        Ok(opened.call(|| format!("open({:?})", self.place(FILE)))?)
    }

    /// To be called when the container's first process is in the cgroup.
    pub fn entered(&mut self) {
        if let Some(scope) = &mut self.scope {
            scope.entered();
        }
    }

    /// Puts a device filter into force for all who are or will be in this cgroup. To be called when
    /// the container's own devices were made, which the rules need not allow.
    ///
    /// # Errors
    ///
    /// The kernel refuses it.
    pub fn filter_devices(&self, filter: &DeviceFilter) -> Result<()> {
        devices::attach(self.fd(), filter)
    }

    /// Writes the limits by which setting up is not to be measured: processes and processor time. To be
    /// called when init is ready, before it executes anything.
    ///
    /// # Errors
    ///
    /// The kernel or systemd refuses a limit.
    pub fn apply_late(&mut self, plan: &Plan) -> Result<()> {
        if let (Some(scope), Some(planned)) = (&mut self.scope, &plan.scope) {
            scope.set_late(planned)?;
        }
        self.apply(plan, Phase::Late)
    }

    /// Adds to an error of a container's start that the kernel has killed a process of it for want
    /// of memory, if so: init's end alone does not tell.
    #[must_use]
    pub fn explain(&self, error: Error) -> Error {
        let events = self.read("memory.events").ok().flatten();
        match events
            .as_deref()
            .and_then(|text| files::value_of(text, "oom_kill"))
        {
            None | Some("0") => error,
            Some(_) => error.context(
                "out of memory while it was set up (linux.resources.memory.limit may be too low)",
            ),
        }
    }

    fn apply(&self, plan: &Plan, phase: Phase) -> Result<()> {
        plan.steps(phase)
            .try_for_each(|step| self.take(step).context(step.field.clone()))
    }

    pub(super) fn take(&self, step: &Step) -> Result<()> {
        let (value, missing) = match &step.action {
            Action::Write { value, missing } => (value, missing),
            Action::CheckBelow(limit) => return self.check_below(&step.file, *limit),
        };
        let mut result = self.write(&step.file, value);
        if matches!(&result, Err(error) if error.errno == Errno::NOENT) {
            self.wait_for_files();
            result = self.write(&step.file, value);
        }
        match (result, missing) {
            (Ok(()), _) => Ok(()),
            (Err(error), _) if error.errno != Errno::NOENT => Err(error.into()),
            (Err(_), Missing::Ignore) => Ok(()),
            (Err(_), Missing::Instead { file, value }) => Ok(self.write(file, value)?),
            (Err(error), Missing::Fail) => Err(error.into()),
        }
    }

    /// Waits until the files are there of controllers that somebody else has just enabled above, as for a
    /// neighbour: `cgroup.controllers` names them before, and does not wait for the lock that this write of
    /// nothing takes.
    fn wait_for_files(&self) {
        // Not allowed, it was for nobody who divides this cgroup either; the next step tells.
        let _no_change = files::write(self.fd(), "cgroup.subtree_control", "\n");
    }

    pub(super) fn check_below(&self, file: &str, limit: u64) -> Result<()> {
        let text = self.read(file)?.unwrap_or_default();
        match text.trim().parse::<u64>() {
            Ok(present) if present >= limit => {
                bail!("{file} is {present} already, the limit would be {limit}")
            }
            // Without a figure there is nothing to compare: the limit itself will fail.
            Ok(_) | Err(_) => Ok(()),
        }
    }
}

/// The cgroup of a scope that was just made.
fn in_scope(path: &Path, hierarchy: &Hierarchy, mut scope: Scope) -> Result<Cgroup> {
    match tree::open(hierarchy.root(), path).call(|| call("open", hierarchy, path)) {
        Ok(directory) => {
            let mut cgroup = Cgroup::new(hierarchy, path, directory, 0);
            cgroup.scope = Some(Box::new(scope));
            Ok(cgroup)
        }
        Err(error) => Err(scope.take_back(error.into())),
    }
}

/// Makes the directory and those above it that are missing.
fn make(path: &Path, hierarchy: &Hierarchy) -> Result<Cgroup> {
    let root = hierarchy.root();
    let mut made = 0;
    let result = make_directories(hierarchy, path, &mut made)
        .and_then(|()| Ok(tree::open(root, path).call(|| call("open", hierarchy, path))?));
    match result {
        Ok(directory) => Ok(Cgroup::new(hierarchy, path, directory, made)),
        Err(error) => {
            remove::made(root, path, made);
            Err(error)
        }
    }
}

/// `made` is how many directories at the end of `path` are new, also after an error.
fn make_directories(hierarchy: &Hierarchy, path: &Path, made: &mut usize) -> Result<()> {
    for _ in 0..ATTEMPTS {
        match mkdir(hierarchy.root(), path) {
            Ok(()) => {
                *made += 1;
                return Ok(());
            }
            Err(Errno::NOENT) => *made = make_parents(hierarchy, path)?,
            Err(Errno::EXIST) => remove_left_over(hierarchy, path)?,
            Err(errno) => return Ok(Err(errno).call(|| call("mkdir", hierarchy, path))?),
        }
    }
    bail!(
        "{}: others make and remove it at the same time",
        call("mkdir", hierarchy, path)
    )
}

fn mkdir(root: BorrowedFd<'_>, path: &Path) -> Result<(), Errno> {
    rustix::fs::mkdirat(root, path, Mode::from_raw_mode(0o755))
}

/// Makes the directories above `path`. Says how many of the last ones are new.
fn make_parents(hierarchy: &Hierarchy, path: &Path) -> Result<usize> {
    let mut parents: Vec<&Path> = path.ancestors().skip(1).collect();
    parents.pop(); // the root itself
    let mut made = 0;
    for parent in parents.into_iter().rev() {
        match mkdir(hierarchy.root(), parent) {
            Ok(()) => made += 1,
            Err(Errno::EXIST) => made = 0,
            Err(errno) => {
                let above = parent.parent().unwrap_or(parent);
                remove::made(hierarchy.root(), above, made);
                return Ok(Err(errno).call(|| call("mkdir", hierarchy, parent))?);
            }
        }
    }
    Ok(made)
}

/// Removes a cgroup without processes that an earlier container left behind.
fn remove_left_over(hierarchy: &Hierarchy, path: &Path) -> Result<()> {
    let Some(left_over) = Cgroup::open(hierarchy, path)? else {
        return Ok(());
    };
    if left_over.is_populated()? {
        let pids: Vec<String> = left_over.pids()?.iter().map(i32::to_string).collect();
        bail!(
            "cgroup {path:?} has processes of others in it ({}): end them, or choose another \
             linux.cgroupsPath",
            pids.join(", ")
        );
    }
    left_over.remove()
}

fn call(name: &str, hierarchy: &Hierarchy, path: &Path) -> String {
    format!("{name}({:?})", hierarchy.mount_point().join(path))
}

/// Enables all offered controllers for the cgroup, from the root down; an error when one of `steps`
/// needs one that can not be enabled.
///
/// What the cgroup has is looked at first: as a rule the directories above are set up already.
pub(super) fn enable(cgroup: &Cgroup, steps: &[Step], hierarchy: &Hierarchy) -> Result<()> {
    let present = files::read(cgroup.fd(), "cgroup.controllers")
        .call(|| format!("read({:?})", cgroup.place("cgroup.controllers")))?;
    let known = CONTROLLERS
        .iter()
        .map(|controller| controller.name())
        .chain([MISC]);
    let missing: Vec<&str> = known
        .filter(|&name| hierarchy.controllers().contains(name) && !has(&present, name))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let mut refused = enable_down_to(hierarchy, cgroup.path(), missing)?;
    for (controller, field) in needed_controllers(steps) {
        if let Some(error) = refused.remove(controller) {
            let reason = reason(error.errno);
            let text = format!("{field}: can not enable the controller {controller}{reason}");
            return Err(Error::new(error).context(text));
        }
    }
    // A controller that serves no limit of this container would only have given figures.
    Ok(())
}

/// Whether a list of controllers, as the kernel prints it, has this one.
fn has(list: &str, name: &str) -> bool {
    list.split_whitespace().any(|controller| controller == name)
}

/// Enables `controllers` in every directory above `path`. Returns those that the kernel refused.
fn enable_down_to<'a>(
    hierarchy: &Hierarchy,
    path: &Path,
    mut controllers: Vec<&'a str>,
) -> Result<BTreeMap<&'a str, SysError>> {
    let mut refused = BTreeMap::new();
    let mut parents: Vec<&Path> = path.ancestors().skip(1).collect();
    parents.reverse();
    for parent in parents {
        let opened;
        let directory = match parent.as_os_str().is_empty() {
            true => hierarchy.root(),
            false => {
                opened = tree::open(hierarchy.root(), parent)
                    .call(|| call("open", hierarchy, parent))?;
                opened.as_fd()
            }
        };
        let place = hierarchy
            .mount_point()
            .join(parent)
            .join("cgroup.subtree_control");
        for (name, error) in enable_in(directory, &place, &controllers)? {
            controllers.retain(|&other| other != name);
            refused.insert(name, error);
        }
    }
    Ok(refused)
}

/// Enables `controllers` for the children of one cgroup, if possible with one write. Returns those
/// that the kernel refused, or would have to.
fn enable_in<'a>(
    directory: BorrowedFd<'_>,
    place: &PathBuf,
    controllers: &[&'a str],
) -> SysResult<Vec<(&'a str, SysError)>> {
    const FILE: &str = "cgroup.subtree_control";
    let enabled = files::read(directory, FILE).call(|| format!("read({place:?})"))?;
    let missing = || controllers.iter().filter(|&&name| !has(&enabled, name));
    let all: String = missing().map(|name| format!("+{name} ")).collect();
    if all.is_empty() {
        return Ok(Vec::new());
    }
    let undividable = undividable(directory);
    if undividable.is_none() && files::write(directory, FILE, all.trim_end()).is_ok() {
        return Ok(Vec::new());
    }
    // The kernel enables all or none: find out which one it is.
    let one = |name: &&'a str| {
        let value = format!("+{name}");
        let write = match undividable {
            None => files::write(directory, FILE, &value),
            Some(errno) => Err(errno),
        };
        let error = write
            .call(|| format!("write({place:?}, {value:?})"))
            .err()?;
        Some((*name, error))
    };
    Ok(missing().filter_map(one).collect())
}

/// Why a cgroup can not divide controllers: there are processes in it.
///
/// The kernel would still enable those that can divide threads (cpu, cpuset, pids), but this makes
/// the cgroup the root of a threaded subtree: somebody's service would never get another domain
/// controller, and no process could be cloned into a cgroup below it. The first cgroup of all,
/// which has no type, can have both.
pub(super) fn undividable(directory: BorrowedFd<'_>) -> Option<Errno> {
    files::read(directory, "cgroup.type").ok()?;
    match files::read(directory, "cgroup.procs") {
        Ok(processes) => (!processes.is_empty()).then_some(Errno::BUSY),
        // It is threaded already; for everything else the write itself will tell.
        Err(errno) => (errno == Errno::OPNOTSUPP).then_some(errno),
    }
}

/// Why the kernel refuses to enable a controller (cgroup_subtree_control_write), where the errno
/// alone does not tell.
fn reason(errno: Errno) -> &'static str {
    match errno {
        Errno::BUSY => {
            ", as there are processes in the cgroup itself: it can have processes or divide \
             controllers, not both"
        }
        Errno::NOENT => ", as the cgroup above does not have it",
        Errno::ACCESS => ", as the cgroup above was not handed over to this user with it",
        Errno::INVAL => ", as there are real-time processes outside of the root cgroup",
        Errno::OPNOTSUPP => ", as the cgroup is threaded",
        _ => "",
    }
}
