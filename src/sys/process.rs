//! Processes: clone, execute, join namespaces, wait, end.

#![allow(unsafe_code)]

use alloc::ffi::CString;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::ffi::{CStr, c_char};

use rustix::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use rustix::process::Pid;

use super::raw::syscall;
use super::{Call, Errno, SysError, SysResult};

/// How a process is cloned: a copy of the caller, as fork(2) makes, with what is asked here.
#[derive(Debug, Clone, Copy, Default)]
pub struct CloneRequest<'a> {
    /// `CLONE_NEW*` flags: the namespaces that are new.
    pub namespaces: u64,
    /// The cgroup in which the process starts (`CLONE_INTO_CGROUP`, Linux 5.7).
    pub cgroup: Option<BorrowedFd<'a>>,
    /// The new process becomes the caller's sibling (`CLONE_PARENT`): its parent's child.
    pub sibling: bool,
}

/// What [`clone`] returns, once in each process.
#[derive(Debug)]
pub enum Cloned {
    /// In the caller: the child's id, as the caller's pid namespace sees it, and its pidfd.
    Parent {
        /// The child's process id.
        pid: Pid,
        /// A descriptor of the child (pidfd_open(2)), close-on-exec.
        pidfd: OwnedFd,
    },
    /// In the child.
    Child,
}

/// linux/sched.h; libc's constant of this name is too narrow to hold it.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Every namespace that clone3(2) and unshare(2) can make. Their other flags share memory or
/// descriptors behind Rust's back and are refused here.
const NAMESPACES: u64 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWTIME) as u64;

/// `struct clone_args` of Linux 5.7 (clone(2)), of which `set_tid` is not used.
#[repr(C)]
#[derive(Default)]
pub(super) struct CloneArgs {
    pub(super) flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    pub(super) exit_signal: u64,
    pub(super) stack: u64,
    pub(super) stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

impl CloneArgs {
    /// What `request` asks for. The kernel stores the pidfd in `pidfd`, which must still be there
    /// when the call is made.
    ///
    /// # Errors
    ///
    /// `EINVAL` for flags other than namespaces.
    fn new(request: CloneRequest<'_>, pidfd: &mut i32) -> SysResult<CloneArgs> {
        if request.namespaces & !NAMESPACES != 0 {
            return Err(SysError::new(clone_text(request), Errno::INVAL));
        }
        let mut args = CloneArgs {
            flags: request.namespaces | libc::CLONE_PIDFD as u64,
            pidfd: (&raw mut *pidfd) as u64,
            exit_signal: libc::SIGCHLD as u64,
            ..CloneArgs::default()
        };
        if let Some(cgroup) = request.cgroup {
            args.flags |= CLONE_INTO_CGROUP;
            args.cgroup = cgroup.as_raw_fd() as u64;
        }
        if request.sibling {
            args.flags |= libc::CLONE_PARENT as u64;
            args.exit_signal = 0; // taken over from the caller (clone(2), CLONE_PARENT)
        }
        Ok(args)
    }
}

/// The call as an error prints it.
fn clone_text(request: CloneRequest<'_>) -> String {
    let (namespaces, sibling) = (request.namespaces, request.sibling);
    let cgroup = request.cgroup.map(|fd| fd.as_raw_fd());
    format!("clone3(namespaces {namespaces:#x}, cgroup {cgroup:?}, sibling {sibling})")
}

/// Makes a copy of this process by clone3(2) (Linux 5.3; 5.7 for a cgroup).
///
/// The caller should have a single thread, as both programs of this crate have: the child has only
/// the calling thread, so a lock that another one holds at this moment is never released in it.
///
/// # Errors
///
/// `EINVAL` for flags other than namespaces, and what the kernel answers: `EPERM` without privilege for a namespace, `ENOSPC` beyond a limit on
/// namespaces, `EBUSY` or `EOPNOTSUPP` for a cgroup that can hold no process.
pub fn clone(request: CloneRequest<'_>) -> SysResult<Cloned> {
    let mut pidfd: i32 = -1;
    let args = CloneArgs::new(request, &mut pidfd)?;
    let call = [
        (&raw const args) as usize,
        size_of::<CloneArgs>(),
        0,
        0,
        0,
        0,
    ];
    // SAFETY: without CLONE_VM (refused above) the child runs on its own copy of this memory and
    // stack; the kernel reads `args`, of the size given, and writes `pidfd` before it returns.
    let pid = unsafe { syscall(libc::SYS_clone3, call) }.call(|| clone_text(request))?;
    match Pid::from_raw(pid as i32) {
        None => Ok(Cloned::Child),
        Some(pid) => {
            // SAFETY: CLONE_PIDFD made the kernel store a new descriptor there, in this process
            // alone; nobody else knows it.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Cloned::Parent { pid, pidfd })
        }
    }
}

/// Pointers to `strings`, with the null pointer at the end that execve(2) asks for.
pub(super) fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    strings
        .iter()
        .map(|s| s.as_ptr())
        .chain([core::ptr::null()])
        .collect()
}

/// An execve(2) that is ready to be made: making it needs no memory.
#[derive(Debug)]
pub struct Execve<'a> {
    path: &'a CStr,
    argv: Vec<*const c_char>,
    envp: Vec<*const c_char>,
    /// What the pointers point to.
    _strings: (&'a [CString], &'a [CString]),
}

impl<'a> Execve<'a> {
    /// Of the file at `path`.
    #[must_use]
    pub fn new(path: &'a CStr, args: &'a [CString], env: &'a [CString]) -> Self {
        Execve {
            path,
            argv: pointers(args),
            envp: pointers(env),
            _strings: (args, env),
        }
    }

    /// Makes it; returns only when it failed.
    pub fn call(self) -> SysError {
        let call = [
            self.path.as_ptr() as usize,
            self.argv.as_ptr() as usize,
            self.envp.as_ptr() as usize,
            0,
            0,
            0,
        ];
        // SAFETY: both arrays end with a null pointer and point to NUL-ended strings, which are
        // borrowed until the call returns, if it does.
        let errno = unsafe { syscall(libc::SYS_execve, call) }
            .err()
            .unwrap_or(Errno::INVAL);
        SysError::new(format!("execve({:?})", self.path), errno)
    }
}

/// Executes the file at `path` (execve(2)); returns only when that failed.
pub fn execute(path: &CStr, args: &[CString], env: &[CString]) -> SysError {
    Execve::new(path, args, env).call()
}

/// Ends this process at once, without running anything else (exit_group(2)).
pub fn exit(status: i32) -> ! {
    loop {
        let args = [status as usize, 0, 0, 0, 0, 0];
        // SAFETY: takes no pointer, and nothing of this process runs afterwards.
        let _never = unsafe { syscall(libc::SYS_exit_group, args) };
    }
}

/// Joins the namespace that `namespace` refers to (setns(2)).
///
/// # Errors
///
/// `EPERM` without CAP_SYS_ADMIN in the namespace's owner, `EINVAL` for a namespace of another
/// kind than `kind`, or one that can not be joined again.
pub fn join_namespace(namespace: BorrowedFd<'_>, kind: u64, name: &str) -> SysResult<()> {
    let args = [namespace.as_raw_fd() as usize, kind as usize, 0, 0, 0, 0];
    // SAFETY: takes no pointer; it changes what later calls mean, not this process' memory.
    unsafe { syscall(libc::SYS_setns, args) }
        .call(|| format!("setns({name})"))
        .map(drop)
}

/// The `CLONE_NEW*` flag of the kind of namespace that `file` is (NS_GET_NSTYPE, ioctl_nsfs(2)).
///
/// # Errors
///
/// `ENOTTY` for what is no namespace.
pub fn namespace_type(file: BorrowedFd<'_>) -> SysResult<u64> {
    const NS_GET_NSTYPE: rustix::ioctl::Opcode = rustix::ioctl::opcode::none(0xb7, 3);
    let args = [
        file.as_raw_fd() as usize,
        NS_GET_NSTYPE as usize,
        0,
        0,
        0,
        0,
    ];
    // SAFETY: NS_GET_NSTYPE takes no pointer.
    unsafe { syscall(libc::SYS_ioctl, args) }
        .call(|| String::from("ioctl(NS_GET_NSTYPE)"))
        .map(|flag| flag as u64)
}

/// Leaves the namespaces in `flags` for new ones (unshare(2)).
///
/// # Errors
///
/// `EPERM` without CAP_SYS_ADMIN, `EINVAL` for a kind the kernel lacks and for other flags.
pub fn unshare(flags: u64) -> SysResult<()> {
    let text = || format!("unshare({flags:#x})");
    if flags & !NAMESPACES != 0 {
        return Err(SysError::new(text(), Errno::INVAL));
    }
    // SAFETY: namespaces only (checked above), so no memory and no descriptor table is unshared.
    unsafe { syscall(libc::SYS_unshare, [flags as usize, 0, 0, 0, 0, 0]) }
        .call(text)
        .map(drop)
}

/// Joins the session keyring called `name`, a new one if there is none that this user may search
/// (keyctl(2), KEYCTL_JOIN_SESSION_KEYRING), and lets later processes of this user join it as well.
///
/// # Errors
///
/// `ENOSYS` in a kernel without keys, `EDQUOT` beyond the user's quota.
pub fn join_session_keyring(name: &str) -> SysResult<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: usize = 1; // linux/keyctl.h
    const KEYCTL_SETPERM: usize = 5;
    // All for who has it, and for its user the default, which is to view, read and link, and to search:
    // without that, joining by name makes another one (keyrings(7)).
    const PERMISSIONS: usize = 0x3f1b_0000;
    let text = c_string(name)?;
    let args = [
        KEYCTL_JOIN_SESSION_KEYRING,
        text.as_ptr() as usize,
        0,
        0,
        0,
        0,
    ];
    // SAFETY: `text` is NUL-ended, only read, and lives until the call returns.
    let keyring = unsafe { syscall(libc::SYS_keyctl, args) }
        .call(|| format!("keyctl(JOIN_SESSION_KEYRING, \"{name}\")"))?;
    let args = [KEYCTL_SETPERM, keyring, PERMISSIONS, 0, 0, 0];
    // SAFETY: KEYCTL_SETPERM takes numbers only.
    unsafe { syscall(libc::SYS_keyctl, args) }
        .call(|| format!("keyctl(SETPERM, {keyring}, {PERMISSIONS:#x})"))
        .map(drop)
}

/// Marks every descriptor from `first` on close-on-exec (close_range(2), Linux 5.11).
///
/// # Errors
///
/// `ENOSYS` or `EINVAL` on an older kernel.
pub fn close_on_exec_from(first: u32) -> SysResult<()> {
    const CLOSE_RANGE_CLOEXEC: usize = 4; // linux/close_range.h
    let args = [
        first as usize,
        u32::MAX as usize,
        CLOSE_RANGE_CLOEXEC,
        0,
        0,
        0,
    ];
    // SAFETY: a flag of descriptors changes; none is closed behind its owner.
    unsafe { syscall(libc::SYS_close_range, args) }
        .call(|| format!("close_range({first}, MAX, CLOEXEC)"))
        .map(drop)
}

/// Lets descriptor `number` stay open across the next `execve` (fcntl(2), F_SETFD).
///
/// # Errors
///
/// `EBADF` when it is not open.
pub fn keep_on_exec(number: i32) -> SysResult<()> {
    let args = [number as usize, libc::F_SETFD as usize, 0, 0, 0, 0];
    // SAFETY: a flag of a descriptor changes; F_SETFD takes no pointer.
    unsafe { syscall(libc::SYS_fcntl, args) }
        .call(|| format!("fcntl({number}, F_SETFD, 0)"))
        .map(drop)
}

/// Makes `terminal` the controlling terminal of this session (TIOCSCTTY, ioctl_tty(2)).
///
/// # Errors
///
/// `EPERM` when this process leads no session or has a terminal already.
pub fn set_controlling_terminal(terminal: BorrowedFd<'_>) -> SysResult<()> {
    let args = [
        terminal.as_raw_fd() as usize,
        libc::TIOCSCTTY as usize,
        0,
        0,
        0,
        0,
    ];
    // SAFETY: the argument of TIOCSCTTY is a number, no pointer.
    unsafe { syscall(libc::SYS_ioctl, args) }
        .call(|| format!("ioctl({}, TIOCSCTTY, 0)", terminal.as_raw_fd()))
        .map(drop)
}

/// Makes `fd` the standard stream `number` (0, 1 or 2), open across an execve (dup3(2)).
///
/// # Errors
///
/// `EINVAL` when `fd` has that number already.
///
/// # Panics
///
/// On another number: it would close a descriptor that somebody owns.
pub fn duplicate_onto(fd: BorrowedFd<'_>, number: i32) -> SysResult<()> {
    assert!((0..=2).contains(&number));
    let args = [fd.as_raw_fd() as usize, number as usize, 0, 0, 0, 0];
    // SAFETY: a standard stream is replaced (checked above), and no OwnedFd owns one.
    unsafe { syscall(libc::SYS_dup3, args) }
        .call(|| format!("dup3({}, {number}, 0)", fd.as_raw_fd()))
        .map(drop)
}

/// The standard stream `number` (0, 1 or 2).
///
/// # Panics
///
/// On another number.
#[must_use]
pub fn standard_stream(number: i32) -> BorrowedFd<'static> {
    assert!((0..=2).contains(&number));
    // SAFETY: neither program closes a standard stream; std opens /dev/null in place of one that
    // was closed when `parhelion` started, and `parhelion-init` inherits them from there.
    unsafe { BorrowedFd::borrow_raw(number) }
}

/// A NUL-ended copy of `text`.
///
/// # Errors
///
/// `EINVAL` when there is a NUL inside.
pub fn c_string(text: &str) -> SysResult<CString> {
    CString::new(text)
        .map_err(|_| SysError::new(format!("{text:?} has a NUL inside"), Errno::INVAL))
}

/// NUL-ended copies of `texts`.
///
/// # Errors
///
/// `EINVAL` when there is a NUL inside one.
pub fn c_strings(texts: &[String]) -> SysResult<Vec<CString>> {
    texts.iter().map(|t| c_string(t)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_the_sizes_of_the_kernel_header() {
        assert_eq!(size_of::<CloneArgs>(), 88); // CLONE_ARGS_SIZE_VER2
    }

    #[test]
    fn flags_that_are_no_namespaces_are_refused() {
        let request = CloneRequest {
            namespaces: libc::CLONE_VM as u64,
            ..CloneRequest::default()
        };
        let error = clone(request).unwrap_err();
        assert_eq!(
            error.to_string(),
            "clone3(namespaces 0x100, cgroup None, sibling false): invalid argument"
        );
        let error = unshare(libc::CLONE_FILES as u64).unwrap_err();
        assert_eq!(error.to_string(), "unshare(0x400): invalid argument");
    }
}
