//! Mounts that a container gets, or loses, while it runs.
//!
//! Planned and opened on the host as those of config.json are, and attached by the same code: by a
//! process in the container's mount namespace, which resolves every target inside the root. All are
//! made, or none: when one fails, those before it are taken away again.

use anyhow::{Context as _, Result};
use oci_spec::runtime::Spec;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, OFlags, StatxAttributes, StatxFlags};
use serde::{Deserialize, Serialize};

use super::plan::{self, Context};
use super::{HostTree, Mount, OpenTree, Outside, Prepared, Propagation, Source, finish, trees};
use crate::error::Problems;
use crate::sys::confined::{ContainerPath, Root};
use crate::sys::fd::Inheritance;
use crate::sys::mount;

/// Mounts to be added, in their order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Added<T>(Vec<Mount<T>>);

impl Added<HostTree> {
    /// The plan for `spec.mounts`. What can not be done is noted in `problems` with its JSON path.
    #[must_use]
    pub fn plan(spec: &Spec, context: Context<'_>, problems: &mut Problems) -> Self {
        let mounts = plan::mounts(spec, context, problems);
        for (i, mount) in mounts.iter().enumerate() {
            if matches!(mount.source, Source::Link(_)) {
                // Which could not be taken away again as a mount is.
                let message = "copy-symlink would make a link, and only mounts are added here";
                problems.add(format!("mounts[{i}].options"), message);
            }
        }
        Added(mounts)
    }

    /// Takes the devices from all of them.
    ///
    /// # Errors
    ///
    /// What stands in the way, in words that follow on "takes".
    pub fn keep_devices_out(&mut self) -> Result<(), String> {
        self.0.iter_mut().try_for_each(plan::nodev::keep_out)
    }

    /// The types of the file systems that are made for the container.
    pub fn file_systems(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|mount| match &mount.source {
            Source::New(new) => Some(new.fstype.as_str()),
            Source::Tree(_) | Source::Remount { .. } | Source::Link(_) => None,
        })
    }

    /// The plan with every tree of the host opened, for the process that attaches them.
    ///
    /// # Errors
    ///
    /// The tree that could not be opened: its JSON path, and the call.
    pub fn open(self, inheritance: &mut Inheritance) -> Result<Added<OpenTree>> {
        // As for a container whose config.json says nothing of propagation.
        let slave = Propagation {
            kind: libc::MS_SLAVE,
            recursive: true,
        };
        let mut open = |tree| trees::open_tree(tree, slave, inheritance);
        let mounts = self.0.into_iter().map(|m| trees::open_mount(m, &mut open));
        Ok(Added(mounts.collect::<Result<_>>()?))
    }
}

impl Added<OpenTree> {
    /// Attaches all of them below `root`. To be called in the root's mount namespace, with the
    /// process' own descriptors as the working directory ([`mount::detach_open`]).
    ///
    /// # Errors
    ///
    /// The first that fails: which, and the call. None is left then.
    pub fn attach(self, root: OwnedFd, mut outside: Outside<'_>) -> Result<()> {
        let mut prepared = Prepared {
            root,
            read_only_late: Vec::new(),
        };
        let total = self.0.len();
        let mut attached = Vec::new();
        for (i, mount) in self.0.into_iter().enumerate() {
            let is_new = !matches!(mount.source, Source::Remount { .. });
            let label = format!(
                "mount {} of {total} (mounts[{i}], to \"/{}\")",
                i + 1,
                mount.target
            );
            match prepared.mount(mount, &mut outside).context(label) {
                Ok(Some(mounted)) if is_new => attached.push(mounted),
                Ok(Some(_) | None) => {}
                Err(error) => return Err(take_back(attached, error)),
            }
        }
        match prepared.set_late_read_only() {
            Ok(()) => Ok(()),
            Err(error) => Err(take_back(attached, error)),
        }
    }
}

fn take_back(attached: Vec<OwnedFd>, error: anyhow::Error) -> anyhow::Error {
    for mounted in attached.into_iter().rev() {
        if let Err(left) = mount::detach_open(mounted.as_fd()) {
            return error.context(format!("not all mounts before it could be undone ({left})"));
        }
    }
    error
}

/// Takes away what is mounted at each of these targets, the last first. To be called as
/// [`Added::attach`].
///
/// # Errors
///
/// The first that fails, before any is taken away if it is not there; those after it are gone then.
pub fn detach(root: OwnedFd, targets: &[ContainerPath]) -> Result<()> {
    let open = |target: &ContainerPath| {
        let mounted = open_mounted(Root::new(root.as_fd()), target);
        mounted.with_context(|| format!("\"/{target}\""))
    };
    let mounted: Vec<OwnedFd> = targets.iter().map(open).collect::<Result<_>>()?;
    for (mounted, target) in mounted.iter().zip(targets).rev() {
        mount::detach_open(mounted.as_fd())
            .with_context(|| format!("\"/{target}\" is no mount that can be removed"))?;
    }
    Ok(())
}

/// Opens what a mount covers `target` with. A symbolic link there is followed, unless it is mounted itself.
fn open_mounted(root: Root<'_>, target: &ContainerPath) -> Result<OwnedFd> {
    let itself = root.open(target, OFlags::PATH | OFlags::NOFOLLOW)?;
    let flags = StatxFlags::TYPE;
    let found = rustix::fs::statx(&itself, "", AtFlags::EMPTY_PATH, flags).context("statx")?;
    let link = FileType::from_raw_mode(found.stx_mode.into()) == FileType::Symlink;
    match link && !found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
        true => Ok(root.open(target, OFlags::PATH)?),
        false => Ok(itself),
    }
}

impl Prepared {
    /// Makes read-only what had to be written to first.
    fn set_late_read_only(&self) -> Result<()> {
        for mount in &self.read_only_late {
            mount::set_attributes(mount.as_fd(), finish::READ_ONLY, false)
                .context("mount option ro")?;
        }
        Ok(())
    }
}
