//! A walk through a cgroup and everything below it.
//!
//! What is below may have been made by the container, to any depth: the walk holds one descriptor
//! and no path, so that neither RLIMIT_NOFILE nor PATH_MAX ends it.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Dir, FileType, Mode, OFlags};

use crate::sys::Errno;

/// What happens on the way. Each can end the walk with an error.
pub(super) trait Visit {
    /// At every directory, the top one first, before what is below it.
    fn enter(&mut self, _directory: BorrowedFd<'_>) -> Result<(), Errno> {
        Ok(())
    }

    /// At every directory but the top one, named within its parent, after what is below it.
    fn leave(&mut self, _parent: BorrowedFd<'_>, _name: &CString) -> Result<(), Errno> {
        Ok(())
    }
}

/// Walks from `top` down. A directory that vanishes meanwhile is passed over.
pub(super) fn walk(top: BorrowedFd<'_>, visit: &mut dyn Visit) -> Result<(), Errno> {
    visit.enter(top)?;
    // For each directory from the top to where we are: its name, and its children still to visit.
    let mut way: Vec<(CString, Vec<CString>)> = vec![(CString::default(), children(top)?)];
    let mut here: Option<OwnedFd> = None; // None at the top
    while let Some((_, to_visit)) = way.last_mut() {
        let current = here.as_ref().map_or(top, AsFd::as_fd);
        let Some(name) = to_visit.pop() else {
            let (name, _) = way.pop().unwrap_or_default();
            if !way.is_empty() {
                let parent = open(current, c"..")?;
                visit.leave(parent.as_fd(), &name)?;
                here = Some(parent);
            }
            continue;
        };
        let child = match open(current, name.as_c_str()) {
            Ok(child) => child,
            Err(Errno::NOENT | Errno::NODEV) => continue,
            Err(errno) => return Err(errno),
        };
        visit.enter(child.as_fd())?;
        way.push((name, children(child.as_fd())?));
        here = Some(child);
    }
    Ok(())
}

/// Opens a directory for reading its files and entries.
pub(super) fn open(at: BorrowedFd<'_>, name: impl rustix::path::Arg) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(at, name, flags, Mode::empty())
}

/// The names of the directories in `directory`; none when it has been removed.
fn children(directory: BorrowedFd<'_>) -> Result<Vec<CString>, Errno> {
    // kernfs counts a link for each child, beside "." and the name itself. Most cgroups have no
    // child, and dozens of files whose names need not be read.
    if rustix::fs::fstat(directory)?.st_nlink <= 2 {
        return Ok(Vec::new());
    }
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = match entry {
            Ok(entry) => entry,
            Err(Errno::NOENT) => break,
            Err(errno) => return Err(errno),
        };
        let is_dots = matches!(entry.file_name().to_bytes(), b"." | b"..");
        if entry.file_type() == FileType::Directory && !is_dots {
            names.push(entry.file_name().to_owned());
        }
    }
    Ok(names)
}
