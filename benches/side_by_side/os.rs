//! The system calls that the standard library lacks. The only unsafe code of the benchmark.
//! Decides nothing.
#![expect(unsafe_code, reason = "the benchmark's one home of system calls")]

use anyhow::{Context, Result, ensure};
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

/// The processor time of a process so far, with that of threads that have ended.
pub fn cpu_time(pid: i32) -> Result<Duration> {
    let mut clock = 0;
    // SAFETY: the pointer is to a value on this stack that outlives the call.
    let error = unsafe { libc::clock_getcpuclockid(pid, &raw mut clock) };
    ensure!(error == 0, "process {pid} has ended: error {error}");
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the pointer is to a value on this stack that outlives the call.
    check(unsafe { libc::clock_gettime(clock, &raw mut time) })
        .with_context(|| format!("clock_gettime(process {pid})"))?;
    let (seconds, nanos) = (u64::try_from(time.tv_sec)?, u32::try_from(time.tv_nsec)?);
    Ok(Duration::new(seconds, nanos))
}

/// Kills everything that this process has started, parents before their children, and waits for it: as the sub-reaper
/// it is an ancestor of all of them.
pub fn end_descendants() {
    while let Some(pid) = children().first().copied() {
        // SAFETY: kill takes two numbers and touches no memory.
        if unsafe { libc::kill(pid, libc::SIGKILL) } != 0 || wait(pid, 0).is_err() {
            break;
        }
    }
}

fn children() -> Vec<i32> {
    let ours = format!("/proc/self/task/{}/children", std::process::id());
    let text = std::fs::read_to_string(ours).unwrap_or_default();
    text.split_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .collect()
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
