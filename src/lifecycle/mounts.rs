//! Mounts for a container that runs: `mounts add` and `mounts remove`, as crun has them.
//!
//! Everything of the host is opened here. What happens inside is done by a copy of this process that
//! has joined the container's mount namespace, and its user namespace, but never its pid namespace:
//! processes of the container do not see it.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use oci_spec::runtime::{Mount, Spec};
use rustix::fs::{Mode, OFlags};
use rustix::process::{DumpableBehavior, WaitOptions};
use rustix::thread::ThreadNameSpaceType;

use super::id::ContainerId;
use super::record::Record;
use super::trees::open_inside;
use super::{Verb, devices, permit, query};
use crate::bundle::read_mounts;
use crate::cgroups::Hierarchy;
use crate::error::{self, Problems};
use crate::rootfs::{Added, Context as Plans, HostTree, MountNamespace, OpenTree, Outside, detach};
use crate::sys::confined::ContainerPath;
use crate::sys::fd::Inheritance;
use crate::sys::process::{self, CloneRequest, Cloned};
use crate::sys::rights::Rights;

/// The largest file that is read.
const MAX_SIZE: u64 = 8 << 20;

/// File systems that show a namespace of who makes them, and that namespace; which ones may depend on
/// the network namespace, `rootfs` knows.
const SHOWING: [(&str, &str, ThreadNameSpaceType); 2] = [
    (
        "mqueue",
        "ipc",
        ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION,
    ),
    ("cgroup2", "cgroup", ThreadNameSpaceType::CONTROL_GROUP),
];

/// Adds the mounts in `file`, a JSON array as `mounts` of config.json; all of them, or none.
///
/// # Errors
///
/// Everything that is wrong with them; [`crate::error::Kind::NotFound`],
/// [`crate::error::Kind::NotRunning`]; or the mount that failed.
pub fn add(root: &Path, id: &ContainerId, file: &Path) -> Result<()> {
    let container = Inside::open(root, id)?;
    let spec = container.read(file)?;
    let hierarchy = Hierarchy::find()?;
    let user_namespace = container.own_user.then(|| container.namespace("user"));
    let facts = &container.record.facts;
    let context = Plans {
        bundle: &facts.bundle,
        rootfs: &facts.rootfs,
        cgroup_tree: hierarchy.mount_point(),
        mount_namespace: MountNamespace::Joined,
        binds_devices: container.own_user,
        joined_user_namespace: user_namespace.as_deref(),
        cgroup_namespace: container.has_own("cgroup")?,
        no_pivot: false,
    };
    let mut problems = Problems::default();
    let mut plan = Added::plan(&spec, context, &mut problems);
    if devices::are_kept_out(facts)
        && let Err(what) = plan.keep_devices_out()
    {
        let text = "a container that no cgroup keeps devices from";
        problems.add("mounts", format!("{text} takes {what}"));
    }
    if plan.file_systems().any(|fstype| fstype == "proc") {
        let text =
            "proc shows the pid namespace of who mounts it, which is not the container's here";
        problems.add("mounts", text);
    }
    problems.into_result()?;
    let mut namespaces = container.namespaces();
    for (fstype, file, kind) in SHOWING {
        if plan.file_systems().any(|used| used == fstype) && container.has_own(file)? {
            namespaces |= kind;
        }
    }
    let (plan, inheritance) = container.open_trees(plan)?;
    let own_network = container.has_own("net")?;
    container.act(namespaces, |root| {
        let outside = Outside {
            inherited: &mut inheritance.into_inherited(),
            enter_network: &mut || match own_network {
                true => container.join(ThreadNameSpaceType::NETWORK),
                false => Ok(()),
            },
        };
        plan.attach(root, outside)
    })
}

/// Removes what is mounted at the destinations in `file`, an array as for [`add`].
///
/// # Errors
///
/// As for [`add`]; nothing is removed when a destination does not exist.
pub fn remove(root: &Path, id: &ContainerId, file: &Path) -> Result<()> {
    let container = Inside::open(root, id)?;
    let spec = container.read(file)?;
    let target = |mount: &Mount| ContainerPath::new(&mount.destination().to_string_lossy());
    let targets: Vec<ContainerPath> = spec.mounts().iter().flatten().map(target).collect();
    if let Some(i) = targets.iter().position(ContainerPath::is_root) {
        bail!("mounts[{i}].destination: must be below /, which stays");
    }
    container.act(container.namespaces(), move |root| detach(root, &targets))
}

/// A container whose mounts change; locked, so that it is neither started nor deleted meanwhile.
struct Inside {
    record: Record,
    pid: i32,
    pidfd: OwnedFd,
    /// Its root directory, as its first process has it.
    root: OwnedFd,
    own_user: bool,
}

impl Inside {
    fn open(root: &Path, id: &ContainerId) -> Result<Inside> {
        let record = Record::open(root, id)?;
        let status = query::status(&record)?;
        permit(Verb::Mounts, id, &status)?;
        let not_running = || error::Kind::NotRunning(id.to_string());
        let init = record.init.as_ref().ok_or_else(not_running)?;
        let pid = init.pid;
        let path = format!("/proc/{pid}/root");
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = rustix::fs::open(&path, flags, Mode::empty());
        // After the root: it is this process' only if it lives now.
        let pidfd = init.open()?.ok_or_else(not_running)?;
        let root = opened.with_context(|| format!("open({path:?})"))?;
        let mut inside = Inside {
            record,
            pid,
            pidfd,
            root,
            own_user: false,
        };
        inside.own_user = inside.has_own("user")?;
        if !inside.has_own("mnt")? {
            bail!("the container has no mount namespace of its own: mounts would be the host's");
        }
        Ok(inside)
    }

    /// Opens what is mounted from the host; a user may do so inside the container's user namespace only.
    fn open_trees(&self, plan: Added<HostTree>) -> Result<(Added<OpenTree>, Inheritance)> {
        if Rights::find() == Rights::User {
            let namespace = self.namespace("user");
            let user_namespace =
                File::open(&namespace).with_context(|| format!("{namespace:?}"))?;
            return open_inside(Some(user_namespace.into()), |inheritance| {
                plan.open(inheritance)
            });
        }
        let mut inheritance = Inheritance::default();
        let plan = plan.open(&mut inheritance)?;
        Ok((plan, inheritance))
    }

    fn namespace(&self, file: &str) -> PathBuf {
        format!("/proc/{}/ns/{file}", self.pid).into()
    }

    /// Whether the container's namespace of this kind is another than the runtime's.
    fn has_own(&self, file: &str) -> Result<bool> {
        let inode = |path: PathBuf| {
            let found = std::fs::metadata(&path);
            let found = found.with_context(|| format!("stat({path:?})"))?;
            Ok::<_, anyhow::Error>((found.dev(), found.ino()))
        };
        let own = Path::new("/proc/self/ns").join(file);
        Ok(inode(self.namespace(file))? != inode(own)?)
    }

    /// The namespaces that are joined in any case.
    fn namespaces(&self) -> ThreadNameSpaceType {
        if self.own_user {
            ThreadNameSpaceType::MOUNT | ThreadNameSpaceType::USER
        } else {
            ThreadNameSpaceType::MOUNT
        }
    }

    /// A configuration with the checked mounts in `file`; `-` is standard input.
    fn read(&self, file: &Path) -> Result<Spec> {
        let name = || format!("{file:?}");
        let source: Box<dyn Read> = match file.to_str() {
            Some("-") => Box::new(std::io::stdin()),
            _ => Box::new(File::open(file).with_context(name)?),
        };
        let mut text = Vec::new();
        source
            .take(MAX_SIZE)
            .read_to_end(&mut text)
            .with_context(name)?;
        let (spec, warnings) = read_mounts(&text, self.own_user).with_context(name)?;
        for warning in warnings {
            error::warn(&warning);
        }
        Ok(spec)
    }

    /// Has a process in these namespaces of the container `act` on the container's root.
    fn act(
        &self,
        namespaces: ThreadNameSpaceType,
        act: impl FnOnce(OwnedFd) -> Result<()>,
    ) -> Result<()> {
        let (answer, told) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        match process::clone(CloneRequest::default())? {
            Cloned::Child => {
                let done = self.enter(namespaces).and_then(act);
                let words = done.map_or_else(|error| error::in_words(&error), |()| String::new());
                // Nobody is left to tell when the other end is closed. Nothing is dropped here:
                // what was opened is the parent's too.
                let _told = File::from(told).write_all(words.as_bytes());
                process::exit(0)
            }
            Cloned::Parent { pid, pidfd: _ } => {
                drop(told);
                let mut words = String::new();
                let read = File::from(answer).read_to_string(&mut words);
                let ended = rustix::process::waitpid(Some(pid), WaitOptions::empty())?;
                read.context("the process inside")?;
                let ended_well = ended.is_some_and(|(_, status)| status.exit_status() == Some(0));
                match (ended_well, words.is_empty()) {
                    (true, true) => Ok(()),
                    (_, false) => bail!(words),
                    (false, true) => bail!("the process inside was killed"),
                }
            }
        }
    }

    /// Joins the namespaces; the container's root, with which something is done then.
    fn enter(&self, namespaces: ThreadNameSpaceType) -> Result<OwnedFd> {
        let root = rustix::io::fcntl_dupfd_cloexec(&self.root, 3).context("dup")?;
        // Out of reach of processes in the same user namespace (ptrace(2)).
        rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).context("prctl")?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let own = rustix::fs::open("/proc/self/fd", flags, Mode::empty())
            .context("open(\"/proc/self/fd\")")?;
        self.join(namespaces)?;
        rustix::process::fchdir(&own).context("fchdir(\"/proc/self/fd\")")?;
        if self.own_user {
            become_root()?;
        }
        Ok(root)
    }

    fn join(&self, namespaces: ThreadNameSpaceType) -> Result<()> {
        rustix::thread::move_into_thread_name_spaces(self.pidfd.as_fd(), namespaces)
            .with_context(|| format!("setns(pidfd of {}, {namespaces:?})", self.pid))
    }
}

/// What is made for a container belongs to its root.
fn become_root() -> Result<()> {
    let (uid, gid) = (rustix::process::Uid::ROOT, rustix::process::Gid::ROOT);
    rustix::thread::set_thread_res_gid(gid, gid, gid).context("setresgid(0, 0, 0)")?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).context("setresuid(0, 0, 0)")
}
