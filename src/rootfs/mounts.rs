//! Attaches the root and everything that is mounted in it, in the order of the plan.
//!
//! Runs in init, before devices are made and before the root is entered.

use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;

use anyhow::Context as _;
use libc::{DEVPTS_SUPER_MAGIC, PROC_SUPER_MAGIC, SYSFS_MAGIC};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{FileType, Mode, OFlags, Stat, XattrFlags};

use super::{Entry, Mount, NewFileSystem, OpenTree, Plan, Source, copy_up};
use crate::sys::confined::{ContainerPath, Missing, Root};
use crate::sys::fd::Inherited;
use crate::sys::mount::{self, Attributes};
use crate::sys::weakened::{Mitigation, is_off};
use crate::sys::{Call, Errno, SysError};

/// File systems that are the same in every network namespace.
const WITHOUT_NETWORK: &[&str] = &[
    "proc", "tmpfs", "ramfs", "devpts", "mqueue", "cgroup", "cgroup2", "overlay",
];

/// What the mounts need from outside.
pub struct Outside<'a> {
    /// The trees of the host.
    pub inherited: &'a mut Inherited,
    /// Enters the container's network namespace, if that was not done before: called before the
    /// first mount that might depend on it.
    pub enter_network: &'a mut dyn FnMut() -> anyhow::Result<()>,
}

/// The container's file system, mounted and not yet entered.
#[derive(Debug)]
pub struct Prepared {
    pub(super) root: OwnedFd,
    /// Mounts that become read-only when nothing has to be made in them any more.
    pub(super) read_only_late: Vec<OwnedFd>,
}

impl Prepared {
    /// The root, to resolve paths in.
    #[must_use]
    pub fn root(&self) -> Root<'_> {
        Root::new(self.root.as_fd())
    }
}

impl Plan<OpenTree> {
    /// Makes all mounts, then devices and links.
    ///
    /// # Errors
    ///
    /// The first step that fails: which of how many, and the call.
    pub fn prepare(&mut self, mut outside: Outside<'_>) -> anyhow::Result<Prepared> {
        let root = outside.inherited.claim(self.root.fd)?;
        self.attach_root(root.as_fd()).context("rootfs")?;
        let mut prepared = Prepared {
            root,
            read_only_late: Vec::new(),
        };
        let total = self.mounts.len();
        for (i, mount) in core::mem::take(&mut self.mounts).into_iter().enumerate() {
            let label = format!(
                "mount {} of {total} (mounts[{i}], to \"/{}\")",
                i + 1,
                mount.target
            );
            let _mounted = prepared.mount(mount, &mut outside).context(label)?;
        }
        prepared.make_nodes(core::mem::take(&mut self.nodes), outside.inherited)?;
        Ok(prepared)
    }

    /// Puts the root where it can be reached: over `/`, out of sight of the host's namespace.
    fn attach_root(&self, root: BorrowedFd<'_>) -> Result<(), SysError> {
        if let Some(host) = self.host_propagation {
            mount::set_root_propagation(host.kind, host.recursive)?;
            if host.kind == libc::MS_SHARED {
                // Else attaching the root would be seen on the host; pivot_root(2) asks for it too.
                mount::set_root_propagation(libc::MS_PRIVATE, false)?;
            }
        }
        match self.entry {
            Entry::Pivot | Entry::Move | Entry::Cover => mount::attach_over_root(root),
            Entry::Chroot => Ok(()),
        }
    }
}

impl Prepared {
    /// Makes one mount; its root, or None where a link is made instead.
    pub(super) fn mount(
        &mut self,
        mount: Mount<OpenTree>,
        outside: &mut Outside<'_>,
    ) -> anyhow::Result<Option<OwnedFd>> {
        let mounted = match mount.source {
            Source::Tree(tree) => self.bind(tree, &mount.target, outside.inherited)?,
            Source::New(new) => {
                if !WITHOUT_NETWORK.contains(&new.fstype.as_str()) {
                    (outside.enter_network)()?;
                }
                self.mount_new(&new, &mount.target)?
            }
            Source::Remount {
                attributes,
                options,
            } => self.remount(&mount.target, attributes, &options)?,
            Source::Link(text) => return self.link(&mount.target, &text).map(|()| None),
        };
        for propagation in mount.propagation {
            mount::set_propagation(mounted.as_fd(), propagation.kind, propagation.recursive)?;
        }
        Ok(Some(mounted))
    }

    /// Makes a symbolic link, and the folders on the way; where it goes is not followed.
    pub(super) fn link(&self, target: &ContainerPath, text: &str) -> anyhow::Result<()> {
        let folder = self.root().folder_of(target, None)?;
        Ok(folder.ensure_link(target, text)?)
    }

    /// Attaches a tree of the host.
    pub(super) fn bind(
        &self,
        tree: OpenTree,
        target: &ContainerPath,
        inherited: &mut Inherited,
    ) -> anyhow::Result<OwnedFd> {
        let missing = if tree.directory {
            Missing::Directory(0o755)
        } else {
            Missing::File
        };
        let place = match tree.onto_link {
            true => self.link_or_place(target, missing)?,
            false => self.root().ensure(target, missing)?,
        };
        if !tree.directory && is_directory(&place, target)? {
            let call = format!("\"/{target}\" is a folder, and what is mounted there a file");
            // As mount(2) says of it. Docker takes EISDIR for the program's and ENOTDIR for a mount's.
            return Err(SysError::new(call, Errno::NOTDIR).into());
        }
        let mounted = inherited.claim(tree.fd)?;
        mount::attach(mounted.as_fd(), place.as_fd())?;
        Ok(mounted)
    }

    /// What is at the target itself, a symbolic link or not. Links of these file systems lead to what no
    /// path does, and the runtime and programs go by them: `/proc/self` is one.
    fn link_or_place(&self, target: &ContainerPath, missing: Missing) -> anyhow::Result<OwnedFd> {
        let place = self.root().ensure_itself(target, missing)?;
        if missing != Missing::File && !is_directory(&place, target)? {
            let call = format!("\"/{target}\" is no folder, and what is mounted there is one");
            return Err(SysError::new(call, Errno::NOTDIR).into());
        }
        let kind = rustix::fs::fstatfs(&place).call(|| format!("fstatfs(\"/{target}\")"))?;
        let kernels = [PROC_SUPER_MAGIC, SYSFS_MAGIC, DEVPTS_SUPER_MAGIC];
        if kernels.contains(&kind.f_type) {
            let call = format!("dest-nofollow: \"/{target}\" is of proc, sysfs or devpts");
            return Err(SysError::new(call, Errno::PERM).into());
        }
        Ok(place)
    }

    fn mount_new(
        &mut self,
        new: &NewFileSystem,
        target: &ContainerPath,
    ) -> anyhow::Result<OwnedFd> {
        let mode = self.mode_of_target(new, target)?;
        let mut place = self.root().ensure(target, Missing::Directory(0o755))?;
        let guarded = new.fstype == "proc" || new.fstype == "sysfs";
        if guarded && !is_off(Mitigation::PlainProc) {
            place = no_link(self.root(), target)?;
        }
        let mounted = make(new, mode)?;
        if let Some(label) = &new.root_label {
            set_label(mounted.as_fd(), label).context("linux.mountLabel")?;
        }
        if new.copy_up {
            copy_up::copy(place.as_fd(), mounted.as_fd(), &new.options).context("tmpcopyup")?;
        }
        mount::attach(mounted.as_fd(), place.as_fd())?;
        if new.read_only_late {
            let copy = rustix::io::fcntl_dupfd_cloexec(&mounted, 3).call(|| "dup".to_string())?;
            self.read_only_late.push(copy);
        }
        Ok(mounted)
    }

    /// The mode of the folder that a tmpfs covers, which it has too unless an option says otherwise.
    fn mode_of_target(
        &self,
        new: &NewFileSystem,
        target: &ContainerPath,
    ) -> Result<Option<u32>, SysError> {
        if new.fstype != "tmpfs" || new.options.iter().any(|o| o.starts_with("mode=")) {
            return Ok(None);
        }
        match self.root().open(target, OFlags::PATH | OFlags::DIRECTORY) {
            Ok(place) => Ok(Some(stat(&place, target)?.st_mode & 0o7777)),
            Err(error) if error.errno == Errno::NOENT => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn remount(
        &self,
        target: &ContainerPath,
        attributes: Attributes,
        options: &[alloc::string::String],
    ) -> anyhow::Result<OwnedFd> {
        let mounted = self.root().open(target, OFlags::PATH)?;
        if !attributes.is_empty() {
            mount::set_attributes(mounted.as_fd(), attributes, false)?;
        }
        if !options.is_empty() {
            mount::reconfigure(mounted.as_fd(), options)?;
        }
        Ok(mounted)
    }
}

fn stat(place: &OwnedFd, target: &ContainerPath) -> Result<Stat, SysError> {
    rustix::fs::fstat(place).call(|| format!("fstat(\"{target}\")"))
}

fn is_directory(place: &OwnedFd, target: &ContainerPath) -> Result<bool, SysError> {
    let mode = stat(place, target)?.st_mode;
    Ok(FileType::from_raw_mode(mode) == FileType::Directory)
}

/// The file system, detached, with its attributes.
fn make(new: &NewFileSystem, mode: Option<u32>) -> Result<OwnedFd, SysError> {
    let fs = mount::NewFileSystem::open(&new.fstype)?;
    if let Some(source) = &new.source {
        fs.string("source", source)?;
    }
    if let Some(mode) = mode {
        fs.string("mode", &format!("{mode:o}"))?;
    }
    for option in &new.options {
        fs.option(option)?;
    }
    let late = if new.read_only_late {
        libc::MOUNT_ATTR_RDONLY
    } else {
        0
    };
    fs.mount(new.attributes.set & !late)
}

/// Gives the root of a mount an SELinux label.
fn set_label(mount: BorrowedFd<'_>, label: &str) -> Result<(), SysError> {
    const NAME: &str = "security.selinux";
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::openat(mount, ".", flags, Mode::empty())
        .call(|| "openat(mount, \".\")".to_string())?;
    rustix::fs::fsetxattr(&root, NAME, label.as_bytes(), XattrFlags::empty())
        .call(|| format!("fsetxattr(\"{NAME}\", \"{label}\")"))
}

/// The folder that `target` itself is. An image whose `/proc` or `/sys` is a link would send writes of
/// label or sysctl files elsewhere (CVE-2019-19921, CVE-2023-27561); one that is a link for a moment, too.
fn no_link(root: Root<'_>, target: &ContainerPath) -> Result<OwnedFd, SysError> {
    match root.open(target, OFlags::PATH | OFlags::NOFOLLOW | OFlags::DIRECTORY) {
        Ok(folder) => Ok(folder),
        Err(error) if error.errno == Errno::LOOP || error.errno == Errno::NOTDIR => Err(
            SysError::new(format!("\"/{target}\" is a link in the image"), Errno::LOOP),
        ),
        Err(error) => Err(error),
    }
}
