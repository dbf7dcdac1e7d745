//! Closes the file system: propagation, read-only and masked paths, the read-only root.
//!
//! Runs in init, after the root was entered and before privileges are dropped. A path that does
//! not exist is left out, as the kernel's set of files differs between versions.

use alloc::format;

use anyhow::Context as _;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{FileType, OFlags};

use super::{OpenTree, Plan, Prepared};
use crate::sys::confined::ContainerPath;
use crate::sys::mount::{self, Attributes};
use crate::sys::weakened::{Mitigation, is_off};
use crate::sys::{Call, Errno, SysError, SysResult};

pub(super) const READ_ONLY: Attributes = Attributes {
    set: libc::MOUNT_ATTR_RDONLY,
    clear: 0,
};

/// Makes a mount of the host's null device, which is to hide a file inside, one through which the device
/// does not change: its mode stays, and what is mounted on it inside is not seen outside.
///
/// # Errors
///
/// `EINVAL` for a descriptor that is no mount's root.
pub fn keep_from_changes(null: BorrowedFd<'_>) -> SysResult<()> {
    mount::set_attributes(null, READ_ONLY, false)?;
    mount::set_propagation(null, libc::MS_PRIVATE, false)
}

impl Prepared {
    /// Takes the closing steps of `plan`. `null` is a detached mount of the host's /dev/null.
    ///
    /// # Errors
    ///
    /// The step that failed, with its path.
    pub fn finish(self, plan: &Plan<OpenTree>, null: Option<OwnedFd>) -> anyhow::Result<()> {
        for mount in &self.read_only_late {
            mount::set_attributes(mount.as_fd(), READ_ONLY, false).context("mount option ro")?;
        }
        let read_only = plan.read_only_paths.iter();
        for path in read_only.filter(|_| !is_off(Mitigation::ReadOnlyPaths)) {
            self.make_read_only(path)
                .with_context(|| format!("readonlyPaths \"/{path}\""))?;
        }
        if !is_off(Mitigation::MaskedPaths) {
            self.mask(plan, null)?;
        }
        if let Some(propagation) = plan.propagation {
            mount::set_propagation(self.root.as_fd(), propagation.kind, propagation.recursive)
                .context("rootfsPropagation")?;
        }
        if plan.read_only {
            mount::set_attributes(self.root.as_fd(), READ_ONLY, false).context("root.readonly")?;
        }
        Ok(())
    }

    /// What `path` leads to, if it exists.
    fn existing(&self, path: &ContainerPath) -> Result<Option<OwnedFd>, SysError> {
        match self.root().open(path, OFlags::PATH) {
            Ok(fd) => Ok(Some(fd)),
            Err(error) if error.errno == Errno::NOENT || error.errno == Errno::NOTDIR => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn make_read_only(&self, path: &ContainerPath) -> Result<(), SysError> {
        let Some(place) = self.existing(path)? else {
            return Ok(());
        };
        let tree = mount::copy_tree(place.as_fd(), "", true)?;
        mount::set_attributes(tree.as_fd(), READ_ONLY, true)?;
        mount::attach(tree.as_fd(), place.as_fd())
    }

    /// Hides directories behind one empty read-only tmpfs, and files behind /dev/null.
    fn mask(&self, plan: &Plan<OpenTree>, null: Option<OwnedFd>) -> anyhow::Result<()> {
        if let Some(null) = &null
            && !is_off(Mitigation::NullDevice)
        {
            keep_from_changes(null.as_fd()).context("maskedPaths")?;
        }
        let mut file_cover = null.map(Cover::detached);
        let mut directory_cover = None;
        for path in &plan.masked_paths {
            let masked = || format!("maskedPaths \"/{path}\"");
            let Some(place) = self.existing(path).with_context(masked)? else {
                continue;
            };
            let stat = rustix::fs::fstat(&place).call(masked)?;
            let directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            if directory && directory_cover.is_none() {
                directory_cover = Some(Cover::detached(empty_directory(plan.label.as_deref())?));
            }
            let cover = if directory {
                &mut directory_cover
            } else {
                &mut file_cover
            };
            if let Some(cover) = cover {
                cover.hide(place.as_fd()).with_context(masked)?;
            }
        }
        Ok(())
    }
}

/// One mount that hides many places: the first time itself, then copies of it. (A mount that is
/// attached nowhere can be copied since Linux 6.15 only.)
struct Cover {
    mount: OwnedFd,
    attached: bool,
}

impl Cover {
    fn detached(mount: OwnedFd) -> Cover {
        Cover {
            mount,
            attached: false,
        }
    }

    fn hide(&mut self, place: BorrowedFd<'_>) -> Result<(), SysError> {
        if self.attached {
            let copy = mount::copy_tree(self.mount.as_fd(), "", false)?;
            return mount::attach(copy.as_fd(), place);
        }
        self.attached = true;
        mount::attach(self.mount.as_fd(), place)
    }
}

/// A detached, empty, read-only tmpfs, with the option `label` if there is one.
pub(super) fn empty_directory(label: Option<&str>) -> Result<OwnedFd, SysError> {
    let fs = mount::NewFileSystem::open("tmpfs")?;
    for option in ["size=0", "nr_inodes=1", "mode=755"]
        .into_iter()
        .chain(label)
    {
        fs.option(option)?;
    }
    fs.mount(
        libc::MOUNT_ATTR_RDONLY
            | libc::MOUNT_ATTR_NOSUID
            | libc::MOUNT_ATTR_NODEV
            | libc::MOUNT_ATTR_NOEXEC,
    )
}
