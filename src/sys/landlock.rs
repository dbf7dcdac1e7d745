//! Landlock (landlock(7)): a process gives up rights to files, ports and other processes, for itself
//! and all that come from it.

#![allow(unsafe_code)]

use alloc::format;

use rustix::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::raw::syscall;
use super::{Call, SysResult};

/// Rights to files: `LANDLOCK_ACCESS_FS_*` (linux/landlock.h).
pub mod files {
    #![allow(missing_docs, reason = "the names of linux/landlock.h")]
    pub const EXECUTE: u64 = 1 << 0;
    pub const WRITE_FILE: u64 = 1 << 1;
    pub const READ_FILE: u64 = 1 << 2;
    pub const READ_DIR: u64 = 1 << 3;
    pub const TRUNCATE: u64 = 1 << 14;
    pub const IOCTL_DEV: u64 = 1 << 15;
    /// Remove and make files of every kind, and move them between folders: bits 4 to 13.
    pub const CHANGE_DIR: u64 = (1 << 14) - (1 << 4);
    /// What there is of a file that is no folder.
    pub const OF_FILES: u64 = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV;
}

/// Rights to TCP ports: `LANDLOCK_ACCESS_NET_*`.
pub mod ports {
    #![allow(missing_docs, reason = "the names of linux/landlock.h")]
    pub const BIND_TCP: u64 = 1 << 0;
    pub const CONNECT_TCP: u64 = 1 << 1;
}

/// What is out of reach outside: `LANDLOCK_SCOPE_*`.
pub mod scopes {
    #![allow(missing_docs, reason = "the names of linux/landlock.h")]
    pub const ABSTRACT_UNIX_SOCKET: u64 = 1 << 0;
    pub const SIGNAL: u64 = 1 << 1;
}

/// `struct landlock_ruleset_attr`: the rights that are given up but for what rules allow.
#[repr(C)]
struct RulesetAttr {
    files: u64,
    ports: u64,
    scopes: u64,
}

/// `struct landlock_path_beneath_attr`.
#[repr(C, packed)]
struct PathBeneathAttr {
    allowed: u64,
    parent: i32,
}

/// `struct landlock_net_port_attr`.
#[repr(C)]
struct PortAttr {
    allowed: u64,
    port: u64,
}

/// The version of the interface that this kernel has, from 1 on.
///
/// # Errors
///
/// `ENOSYS` in a kernel without Landlock, `EOPNOTSUPP` where it was not enabled at boot.
pub fn version() -> SysResult<u32> {
    const LANDLOCK_CREATE_RULESET_VERSION: usize = 1;
    let args = [0, 0, LANDLOCK_CREATE_RULESET_VERSION, 0, 0, 0];
    // SAFETY: with this flag the kernel takes no structure, and makes no descriptor.
    unsafe { syscall(libc::SYS_landlock_create_ruleset, args) }
        .call(|| "landlock_create_ruleset(VERSION)".into())
        .map(|version| version as u32)
}

/// Rules, until a process takes them on.
#[derive(Debug)]
pub struct Ruleset(OwnedFd);

impl Ruleset {
    /// Rules by which these rights are given up, but for what is allowed.
    ///
    /// # Errors
    ///
    /// `EINVAL` or `E2BIG` for rights that this kernel does not know, `ENOMSG` for none.
    pub fn new(files: u64, ports: u64, scopes: u64) -> SysResult<Ruleset> {
        let attr = RulesetAttr {
            files,
            ports,
            scopes,
        };
        let (address, size) = ((&raw const attr) as usize, size_of::<RulesetAttr>());
        // SAFETY: the kernel reads a structure of the size given, which lives until it returns.
        let fd = unsafe {
            syscall(
                libc::SYS_landlock_create_ruleset,
                [address, size, 0, 0, 0, 0],
            )
        }
        .call(|| format!("landlock_create_ruleset({files:#x}, {ports:#x}, {scopes:#x})"))?;
        // SAFETY: the call returned a new descriptor, which nobody else knows.
        Ok(Ruleset(unsafe { OwnedFd::from_raw_fd(fd as i32) }))
    }

    /// Allows these rights to the file that `place` is, and to all below it.
    ///
    /// # Errors
    ///
    /// `EINVAL` for rights that were not given up, or that only a folder has.
    pub fn allow_files(&self, place: BorrowedFd<'_>, allowed: u64) -> SysResult<()> {
        const LANDLOCK_RULE_PATH_BENEATH: usize = 1;
        let attr = PathBeneathAttr {
            allowed,
            parent: place.as_raw_fd(),
        };
        let args = [
            self.0.as_raw_fd() as usize,
            LANDLOCK_RULE_PATH_BENEATH,
            (&raw const attr) as usize,
            0,
            0,
            0,
        ];
        // SAFETY: the kernel reads the structure of this kind of rule, which lives until it returns.
        unsafe { syscall(libc::SYS_landlock_add_rule, args) }
            .call(|| format!("landlock_add_rule(PATH_BENEATH, {allowed:#x})"))
            .map(drop)
    }

    /// Allows these rights to a TCP port.
    ///
    /// # Errors
    ///
    /// `EINVAL` for rights that were not given up.
    pub fn allow_port(&self, port: u16, allowed: u64) -> SysResult<()> {
        const LANDLOCK_RULE_NET_PORT: usize = 2;
        let attr = PortAttr {
            allowed,
            port: port.into(),
        };
        let args = [
            self.0.as_raw_fd() as usize,
            LANDLOCK_RULE_NET_PORT,
            (&raw const attr) as usize,
            0,
            0,
            0,
        ];
        // SAFETY: the kernel reads the structure of this kind of rule, which lives until it returns.
        unsafe { syscall(libc::SYS_landlock_add_rule, args) }
            .call(|| format!("landlock_add_rule(NET_PORT {port}, {allowed:#x})"))
            .map(drop)
    }

    /// Takes the rules on. There is no way back.
    ///
    /// # Errors
    ///
    /// `EPERM` without CAP_SYS_ADMIN in the user namespace and without no-new-privileges, `E2BIG`
    /// when this process has taken on 16 before.
    pub fn restrict_self(&self) -> SysResult<()> {
        let args = [self.0.as_raw_fd() as usize, 0, 0, 0, 0, 0];
        // SAFETY: takes no pointer.
        unsafe { syscall(libc::SYS_landlock_restrict_self, args) }
            .call(|| "landlock_restrict_self()".into())
            .map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_the_sizes_of_the_kernel_header() {
        assert_eq!(size_of::<RulesetAttr>(), 24);
        assert_eq!(size_of::<PathBeneathAttr>(), 12);
        assert_eq!(size_of::<PortAttr>(), 16);
    }
}
