//! Where a container's processes are, told a second time: by a link beside the record, so that a record that
//! was lost or damaged costs the container's past and not the host a process that nobody finds.

use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::directory::Directory;
use super::process::END_LIMIT;
use crate::cgroups::{Cgroup, Hierarchy};
use crate::sys::{Call, Errno, SysError, SysResult};

/// A symbolic link whose text is the cgroup's path below the hierarchy's mount point. It leads nowhere, and can
/// be neither cut off nor half written. It comes after the record and goes before it.
pub(super) const CGROUP: &str = "cgroup";

/// Makes the link.
///
/// # Errors
///
/// What the file system answered.
pub(super) fn lay(directory: &Directory, cgroup: &Path) -> SysResult<()> {
    rustix::fs::symlinkat(cgroup, directory.as_fd(), CGROUP)
        .call(|| format!("symlink({cgroup:?}, {:?})", directory.file(CGROUP)))
}

/// The cgroup that the link names, if there is one.
///
/// # Errors
///
/// What the file system answered.
pub(super) fn find(directory: &Directory) -> SysResult<Option<PathBuf>> {
    match rustix::fs::readlinkat(directory.as_fd(), CGROUP, Vec::new()) {
        Ok(text) => Ok(Some(PathBuf::from(OsStr::from_bytes(text.as_bytes())))),
        // INVAL: not a link, so not ours.
        Err(Errno::NOENT | Errno::INVAL) => Ok(None),
        Err(errno) => {
            let call = format!("readlink({:?})", directory.file(CGROUP));
            Err(SysError::new(call, errno))
        }
    }
}

/// Ends whatever is in the cgroup that the link names, and removes it; false when there is no link.
///
/// # Errors
///
/// What the kernel refused, or processes that do not end.
pub(super) fn end(directory: &Directory) -> Result<bool> {
    let Some(path) = find(directory)? else {
        return Ok(false);
    };
    if let Some(cgroup) = Cgroup::open(&Hierarchy::find()?, &path)? {
        cgroup.kill_all()?;
        cgroup.wait_empty(END_LIMIT)?;
        cgroup.remove()?;
    }
    Ok(true)
}
