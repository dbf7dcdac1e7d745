//! The system calls that the standard library lacks. The only unsafe code of the benchmark.
//! Decides nothing.
#![expect(unsafe_code, reason = "the benchmark's one home of system calls")]

use anyhow::{Context, Result};
use std::ffi::CString;
use std::io::Error;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// A process that has ended: its wait status and its CPU time.
pub struct Ended {
    pub status: i32,
    pub cpu: Duration,
}

/// A mount namespace of this process alone, from which nothing propagates to the host.
/// Call it before any thread exists.
pub fn private_mounts() -> Result<()> {
    // SAFETY: unshare touches no memory; there is one thread, as the caller promises.
    check(unsafe { libc::unshare(libc::CLONE_NEWNS) }).context("unshare(NEWNS)")?;
    mount("none", "/", "", libc::MS_REC | libc::MS_PRIVATE)
}

pub fn mount(source: &str, target: &str, kind: &str, flags: libc::c_ulong) -> Result<()> {
    let [from, to, fs] = [source, target, kind].map(CString::new);
    let (from, to, fs) = (from?, to?, fs?);
    // SAFETY: the three strings end with NUL and live until the call returns; no data is passed.
    let result = unsafe {
        libc::mount(
            from.as_ptr(),
            to.as_ptr(),
            fs.as_ptr(),
            flags,
            std::ptr::null(),
        )
    };
    check(result).with_context(|| format!("mount({source:?}, {target:?}, {kind:?})"))
}

pub fn detach(target: &str) -> Result<()> {
    let path = CString::new(target)?;
    // SAFETY: the string ends with NUL and lives until the call returns.
    check(unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) })
        .with_context(|| format!("umount2({target:?}, DETACH)"))
}

/// Makes this process the parent of every container whose runtime has ended.
pub fn become_subreaper() -> Result<()> {
    // SAFETY: PR_SET_CHILD_SUBREAPER takes one number and touches no memory.
    check(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) }).context("become sub-reaper")
}

/// Waits for a process that is, or became, a child of this one; None when it took too long.
pub fn reap(pid: i32, limit: Duration) -> Result<Option<Ended>> {
    // SAFETY: pidfd_open takes two numbers and touches no memory.
    let raw = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let raw = i32::try_from(raw)?;
    check(raw).with_context(|| format!("pidfd_open({pid})"))?;
    // SAFETY: the kernel has just made this descriptor for us; nobody else owns it.
    let pidfd = unsafe { OwnedFd::from_raw_fd(raw) };
    let mut wanted = libc::pollfd {
        fd: pidfd.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    let limit = i32::try_from(limit.as_millis())?;
    // SAFETY: the pointer is to one pollfd that lives on this stack, and one is what is announced.
    let ready = unsafe { libc::poll(&raw mut wanted, 1, limit) };
    check(ready).context("poll(pidfd)")?;
    if ready == 0 { Ok(None) } else { wait(pid, 0) }
}

/// Collects children that nobody waits for, so that they do not pile up as zombies.
pub fn reap_leftovers() {
    // An error (no children at all) ends the search as well as finding none does.
    while let Ok(Some(_)) = wait(-1, libc::WNOHANG) {}
}

fn wait(pid: i32, options: i32) -> Result<Option<Ended>> {
    let mut status = 0;
    // SAFETY: rusage is plain numbers, for which zero is a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to values on this stack that outlive the call.
    let found = unsafe { libc::wait4(pid, &raw mut status, options, &raw mut usage) };
    check(found).with_context(|| format!("wait4({pid})"))?;
    let cpu = duration(usage.ru_utime) + duration(usage.ru_stime);
    Ok((found > 0).then_some(Ended { status, cpu }))
}

fn duration(time: libc::timeval) -> Duration {
    let micros = time
        .tv_sec
        .saturating_mul(1_000_000)
        .saturating_add(time.tv_usec);
    Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}

fn check(result: i32) -> Result<(), Error> {
    if result < 0 {
        Err(Error::last_os_error())
    } else {
        Ok(())
    }
}
