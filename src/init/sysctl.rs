//! Writes kernel parameters of the container's namespaces.
//!
//! Through the host's procfs, which the runtime opened before the clone: what a container mounts at
//! /proc can not redirect the write (CVE-2019-16884, CVE-2025-52881). The kernel picks the
//! namespace by who opens the file, not by where procfs is mounted.

use alloc::format;

use anyhow::Result;
use rustix::fd::BorrowedFd;
use rustix::fs::{Mode, OFlags, ResolveFlags};

use super::plan::Sysctl;
use crate::sys::Call;
use crate::sys::weakened::{Mitigation, is_off};

/// Writes all of them, in order.
pub(super) fn write(host_proc: BorrowedFd<'_>, sysctls: &[Sysctl]) -> Result<()> {
    for sysctl in sysctls {
        let path = format!("sys/{}", sysctl.file);
        let resolve = match is_off(Mitigation::HostProc) {
            true => ResolveFlags::empty(),
            false => {
                ResolveFlags::BENEATH
                    | ResolveFlags::NO_MAGICLINKS
                    | ResolveFlags::NO_SYMLINKS
                    | ResolveFlags::NO_XDEV
            }
        };
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat2(host_proc, &path, flags, Mode::empty(), resolve)
            .call(|| format!("linux.sysctl: openat2(\"/proc/{path}\")"))?;
        rustix::io::write(&file, sysctl.value.as_bytes()).call(|| {
            format!(
                "linux.sysctl: write(\"/proc/{path}\", \"{}\")",
                sysctl.value
            )
        })?;
    }
    Ok(())
}
