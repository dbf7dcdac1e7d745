//! Mounts as descriptors: made detached, given their attributes, and attached last.
//!
//! The mount API of Linux 5.2 with mount_setattr(2) of Linux 5.12. A mount is complete before it
//! can be seen, and a target is a descriptor, so no path can be swapped in between.

#![allow(unsafe_code)]

use alloc::format;
use alloc::string::{String, ToString};
use core::fmt;

use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
};
use serde::{Deserialize, Serialize};

use super::raw::syscall;
use super::{Call, SysError, SysResult};

/// Mount attributes to set and to clear, as `MOUNT_ATTR_*` bits (mount_setattr(2)).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attributes {
    /// Attributes to set.
    pub set: u64,
    /// Attributes to clear; setting an access-time attribute asks for all of them here.
    pub clear: u64,
}

impl Attributes {
    /// True when nothing is to change.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self == Attributes::default()
    }
}

/// `struct mount_attr` (mount_setattr(2)).
#[repr(C)]
#[derive(Default)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

impl fmt::Display for MountAttr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "set {:#x}, clear {:#x}", self.attr_set, self.attr_clr)?;
        write!(f, ", propagation {:#x}", self.propagation)
    }
}

/// Copies the mount that `path` (below `dir`) lies on into a detached mount of its own
/// (open_tree(2)).
///
/// # Errors
///
/// `ENOENT`, `EACCES` for the path; `EINVAL` for a mount that may not be copied (unbindable, or
/// of another mount namespace).
pub fn copy_tree(dir: BorrowedFd<'_>, path: &str, recursive: bool) -> SysResult<OwnedFd> {
    let flags = match path.is_empty() {
        true => OpenTreeFlags::AT_EMPTY_PATH,
        false => OpenTreeFlags::empty(),
    };
    clone_tree(dir, path, recursive, flags)
}

/// As [`copy_tree`], where `path` is absolute; a symbolic link that it names is not followed and is itself
/// the root of the mount.
///
/// # Errors
///
/// As for [`copy_tree`].
#[cfg(feature = "runtime")]
pub fn copy_link(path: &str, recursive: bool) -> SysResult<OwnedFd> {
    let flags = OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    clone_tree(rustix::fs::CWD, path, recursive, flags)
}

fn clone_tree(
    dir: BorrowedFd<'_>,
    path: &str,
    recursive: bool,
    mut flags: OpenTreeFlags,
) -> SysResult<OwnedFd> {
    flags |= OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    rustix::mount::open_tree(dir, path, flags).call(|| {
        let rec = if recursive { "|RECURSIVE" } else { "" };
        format!("open_tree({}, \"{path}\", CLONE{rec})", dir.as_raw_fd())
    })
}

/// A new instance of a file system, being configured.
#[derive(Debug)]
pub struct NewFileSystem {
    context: OwnedFd,
    fstype: String,
}

impl NewFileSystem {
    /// Starts configuring a file system of type `fstype` (fsopen(2)).
    ///
    /// # Errors
    ///
    /// `ENODEV` for a type that the kernel does not know.
    pub fn open(fstype: &str) -> SysResult<Self> {
        let context = rustix::mount::fsopen(fstype, FsOpenFlags::FSOPEN_CLOEXEC)
            .call(|| format!("fsopen(\"{fstype}\")"))?;
        Ok(NewFileSystem {
            context,
            fstype: fstype.to_string(),
        })
    }

    /// Gives one option, `key=value` or a bare `key` (fsconfig(2)).
    ///
    /// # Errors
    ///
    /// `EINVAL` for what the file system does not accept, with the kernel's own words.
    pub fn option(&self, option: &str) -> SysResult<()> {
        match option.split_once('=') {
            Some((key, value)) => self.string(key, value),
            None => self.check(
                rustix::mount::fsconfig_set_flag(&self.context, option),
                || format!("fsconfig({}, \"{option}\")", self.fstype),
            ),
        }
    }

    /// Gives the option `key` the text `value`, which may hold any character.
    ///
    /// # Errors
    ///
    /// As for [`NewFileSystem::option`].
    pub fn string(&self, key: &str, value: &str) -> SysResult<()> {
        self.check(
            rustix::mount::fsconfig_set_string(&self.context, key, value),
            || format!("fsconfig({}, \"{key}\", \"{value}\")", self.fstype),
        )
    }

    /// Makes the file system and a detached mount of it with `attributes`, `MOUNT_ATTR_*` bits
    /// (fsmount(2)).
    ///
    /// # Errors
    ///
    /// What the file system answers, with the kernel's own words where it gives them.
    pub fn mount(self, attributes: u64) -> SysResult<OwnedFd> {
        self.check(rustix::mount::fsconfig_create(&self.context), || {
            format!("fsconfig({}, CREATE)", self.fstype)
        })?;
        let attributes = MountAttrFlags::from_bits_retain(attributes as u32);
        rustix::mount::fsmount(&self.context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
            .call(|| format!("fsmount({}, {:#x})", self.fstype, attributes.bits()))
    }

    /// Adds the call's text and what the kernel wrote into the context's log.
    fn check(
        &self,
        result: Result<(), rustix::io::Errno>,
        text: impl FnOnce() -> String,
    ) -> SysResult<()> {
        result.map_err(|errno| {
            let mut message = [0; 256];
            // An empty log answers ENODATA.
            let said = rustix::io::read(&self.context, &mut message).unwrap_or(0);
            let said = core::str::from_utf8(&message[..said]).unwrap_or("").trim();
            // Messages come as "e tmpfs: Bad value for 'size'": e, w or i is the severity.
            let said = said.get(2..).unwrap_or("");
            let call = text();
            let call = if said.is_empty() {
                call
            } else {
                format!("{call} [{said}]")
            };
            SysError::new(call, errno)
        })
    }
}

/// Changes options of the file system mounted at `mount`, and nothing of the mount itself
/// (fspick(2)).
///
/// # Errors
///
/// `EINVAL` for options that can not change.
pub fn reconfigure(mount: BorrowedFd<'_>, options: &[String]) -> SysResult<()> {
    use rustix::mount::{FsPickFlags, fspick};
    let flags = FsPickFlags::FSPICK_EMPTY_PATH | FsPickFlags::FSPICK_CLOEXEC;
    let context =
        fspick(mount, "", flags).call(|| format!("fspick({}, \"\")", mount.as_raw_fd()))?;
    let fs = NewFileSystem {
        context,
        fstype: "remount".to_string(),
    };
    for option in options {
        fs.option(option)?;
    }
    fs.check(rustix::mount::fsconfig_reconfigure(&fs.context), || {
        "fsconfig(remount, RECONFIGURE)".to_string()
    })
}

/// Changes attributes of a mount, or of the whole tree below it when `recursive`
/// (mount_setattr(2), Linux 5.12).
///
/// # Errors
///
/// `EPERM` for an attribute that is locked, `EINVAL` for a descriptor that is no mount's root.
pub fn set_attributes(mount: BorrowedFd<'_>, change: Attributes, recursive: bool) -> SysResult<()> {
    let attr = MountAttr {
        attr_set: change.set,
        attr_clr: change.clear,
        ..MountAttr::default()
    };
    set_attr(mount, &attr, recursive)
}

/// Changes the propagation of a mount: one of `MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE`,
/// `MS_UNBINDABLE`.
///
/// # Errors
///
/// `EINVAL` for a descriptor that is no mount's root.
pub fn set_propagation(mount: BorrowedFd<'_>, kind: u64, recursive: bool) -> SysResult<()> {
    let attr = MountAttr {
        propagation: kind,
        ..MountAttr::default()
    };
    set_attr(mount, &attr, recursive)
}

/// Maps the ids of a detached mount by the user namespace `user_namespace` (Linux 5.12).
///
/// # Errors
///
/// `EINVAL` for a file system that can not be id-mapped, `EPERM` for one that is already.
pub fn map_ids(
    mount: BorrowedFd<'_>,
    user_namespace: BorrowedFd<'_>,
    recursive: bool,
) -> SysResult<()> {
    let attr = MountAttr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        userns_fd: user_namespace.as_raw_fd() as u64,
        ..MountAttr::default()
    };
    set_attr(mount, &attr, recursive)
}

fn set_attr(mount: BorrowedFd<'_>, attr: &MountAttr, recursive: bool) -> SysResult<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    let args = [
        mount.as_raw_fd() as usize,
        c"".as_ptr() as usize,
        flags as usize,
        core::ptr::from_ref(attr) as usize,
        size_of::<MountAttr>(),
        0,
    ];
    // SAFETY: the kernel only reads: an empty path, ended by NUL, and `attr`, which has the size
    // given; both live until the call returns.
    let result = unsafe { syscall(libc::SYS_mount_setattr, args) }.map(drop);
    result.call(|| {
        let fd = mount.as_raw_fd();
        let rec = if recursive { ", RECURSIVE" } else { "" };
        format!("mount_setattr({fd}, \"\"{rec}, {attr})")
    })
}

/// Attaches a detached mount over `target`, an open directory or file (move_mount(2)).
///
/// # Errors
///
/// `ENOTDIR` when one is a directory and the other is not, `EINVAL` for a target outside this
/// mount namespace, `ELOOP` for a tree that would contain itself.
pub fn attach(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> SysResult<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(mount, "", target, "", flags).call(|| {
        let (from, to) = (mount.as_raw_fd(), target.as_raw_fd());
        format!("move_mount({from}, \"\", {to}, \"\")")
    })
}

/// Attaches a detached mount over the root of this mount namespace.
///
/// # Errors
///
/// As for [`attach`].
pub fn attach_over_root(mount: BorrowedFd<'_>) -> SysResult<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    rustix::mount::move_mount(mount, "", rustix::fs::CWD, "/", flags)
        .call(|| format!("move_mount({}, \"\", \"/\")", mount.as_raw_fd()))
}

/// Changes the propagation of every mount below `/`.
///
/// # Errors
///
/// `EINVAL` when `/` is no mount point.
pub fn set_root_propagation(kind: u64, recursive: bool) -> SysResult<()> {
    let root = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .call(|| "open(\"/\")".to_string())?;
    set_propagation(root.as_fd(), kind, recursive)
}

/// Makes the working directory, the root of a mount, this process' root, and forgets the old one.
///
/// `pivot_root(".", ".")` stacks the old root over the new one, from where it is detached: no
/// directory for it is needed (pivot_root(2)).
///
/// # Errors
///
/// `EINVAL` when the working directory is no mount point or has shared propagation.
pub fn pivot_into_working_directory() -> SysResult<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let old = rustix::fs::open("/", flags, Mode::empty()).call(|| "open(\"/\")".to_string())?;
    rustix::process::pivot_root(".", ".").call(|| "pivot_root(\".\", \".\")".to_string())?;
    // What is shared with the host's namespace would be unmounted there too.
    set_propagation(old.as_fd(), libc::MS_SLAVE, true)?;
    rustix::process::fchdir(&old).call(|| "fchdir(old root)".to_string())?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)
        .call(|| "umount2(old root, MNT_DETACH)".to_string())
}

/// Takes what is mounted at `path`, with all below it, out of this mount namespace.
///
/// # Errors
///
/// `EINVAL` for what is no mount point or is locked, `EPERM` without CAP_SYS_ADMIN.
pub fn detach(path: &str) -> SysResult<()> {
    rustix::mount::unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
        .call(|| format!("umount2(\"{path}\", MNT_DETACH)"))
}

/// Takes an open mount, with all below it, out of this mount namespace. The working directory must
/// be /proc/self/fd of the calling process: by its number there, and by no path that could lead
/// elsewhere meanwhile, umount2(2) finds the mount.
///
/// # Errors
///
/// `EINVAL` for what is no mount's root or is locked, `EPERM` without CAP_SYS_ADMIN.
pub fn detach_open(mounted: BorrowedFd<'_>) -> SysResult<()> {
    let number = mounted.as_raw_fd();
    rustix::mount::unmount(number.to_string().as_str(), UnmountFlags::DETACH)
        .call(|| format!("umount2(descriptor {number}, MNT_DETACH)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_the_sizes_of_the_kernel_header() {
        assert_eq!(size_of::<MountAttr>(), 32); // MOUNT_ATTR_SIZE_VER0
    }

    #[test]
    fn a_refused_change_names_everything_that_was_asked() {
        let file = std::fs::File::open("/proc/self/stat").unwrap();
        let change = Attributes {
            set: 1,
            clear: 0x70,
        };
        let error = set_attributes(file.as_fd(), change, true).unwrap_err();
        let fd = file.as_raw_fd();
        assert_eq!(
            error.call,
            format!("mount_setattr({fd}, \"\", RECURSIVE, set 0x1, clear 0x70, propagation 0x0)")
        );
    }
}
