//! Signals: sending, blocking, and what this process does when one arrives.

#![allow(unsafe_code)]

use alloc::format;

use rustix::fd::{AsRawFd, BorrowedFd};

use super::process::exit;
use super::raw::syscall;
use super::{Call, Errno, SysResult};

/// Sends signal `number` to the process that `pidfd` refers to (pidfd_send_signal(2), Linux 5.1); 0
/// only asks whether one could be sent. Any number, also a real-time signal's.
///
/// # Errors
///
/// `ESRCH` when it has ended, `EINVAL` for a number that is no signal.
pub fn send_signal(pidfd: BorrowedFd<'_>, number: i32) -> SysResult<()> {
    let args = [pidfd.as_raw_fd() as usize, number as usize, 0, 0, 0, 0];
    // SAFETY: the third argument, a siginfo_t, is null: the kernel fills in its own.
    unsafe { syscall(libc::SYS_pidfd_send_signal, args) }
        .call(|| format!("pidfd_send_signal({}, {number})", pidfd.as_raw_fd()))
        .map(drop)
}

/// What must be true before the runtime does anything: the three standard streams are open, as a
/// file that took the number of a closed one would receive what is written for people, and a
/// broken pipe is an error like any other (init gives the program the default back).
#[cfg(feature = "runtime")]
pub fn prepare_main() {
    for number in 0..=2 {
        // SAFETY: only asked whether it is open, which is what it may not be.
        let stream = unsafe { BorrowedFd::borrow_raw(number) };
        if rustix::io::fcntl_getfd(stream) == Err(Errno::BADF) {
            let flags = rustix::fs::OFlags::RDWR;
            // Takes the lowest free number: this one. Without /dev/null there is nothing to do.
            if let Ok(null) = rustix::fs::open("/dev/null", flags, rustix::fs::Mode::empty()) {
                core::mem::forget(null);
            }
        }
    }
    let ignore: SignalAction = [libc::SIG_IGN, 0, 0, 0];
    // It can not fail with these arguments.
    let _cannot_fail = set_action(libc::SIGPIPE as usize, &ignore);
}

/// Unblocks all signals, as a program expects at its start (rt_sigprocmask(2)).
pub fn unblock_signals() {
    set_mask(0);
}

/// Blocks all signals that can be blocked.
pub fn block_signals() {
    set_mask(u64::MAX);
}

fn set_mask(mask: u64) {
    let args = [
        libc::SIG_SETMASK as usize,
        (&raw const mask) as usize,
        0,
        size_of::<u64>(), // sizeof(sigset_t) in the kernel
        0,
        0,
    ];
    // SAFETY: the kernel reads the eight bytes of `mask`, which lives until the call returns. It
    // can not fail with these arguments.
    let _cannot_fail = unsafe { syscall(libc::SYS_rt_sigprocmask, args) };
}

/// True when this process ignores the signal, as its caller may have wished (nohup(1)).
#[cfg(feature = "runtime")]
#[must_use]
pub fn is_ignored(signal: i32) -> bool {
    // The kernel's struct sigaction, the handler first; no architecture has a larger one.
    let mut old = [0_usize; 8];
    let args = [
        signal as usize,
        0,
        (&raw mut old) as usize,
        size_of::<u64>(), // sizeof(sigset_t) in the kernel
        0,
        0,
    ];
    // SAFETY: writes at most 32 bytes to a local of 64, or on 32 bits 20 of 32; changes nothing.
    let asked = unsafe { syscall(libc::SYS_rt_sigaction, args) };
    asked.is_ok() && old[0] == libc::SIG_IGN
}

/// What ends a process that does not expect it, and is meant to.
#[cfg(feature = "runtime")]
pub const REQUESTS_TO_END: [nix::sys::signal::Signal; 4] = [
    nix::sys::signal::Signal::SIGHUP,
    nix::sys::signal::Signal::SIGINT,
    nix::sys::signal::Signal::SIGQUIT,
    nix::sys::signal::Signal::SIGTERM,
];

/// `struct sigaction` of the kernel (linux/signal_types.h): handler, flags, restorer, mask. Zero is
/// the default action.
type SignalAction = [usize; 4];

/// The last signal: real-time signals go up to it (signal(7)).
const LAST_SIGNAL: usize = 64;

/// Gives every signal its default action, as a program expects at its start: execve(2) keeps what
/// is ignored, and std ignores SIGPIPE.
pub fn reset_signals() {
    (1..=LAST_SIGNAL).for_each(reset_signal);
}

/// Lets this process wait for its children whatever its caller does with SIGCHLD: while that is
/// ignored, the kernel throws away how they ended.
pub fn keep_ended_children() {
    reset_signal(libc::SIGCHLD as usize);
}

fn reset_signal(signal: usize) {
    // Fails for SIGKILL and SIGSTOP only, which can not be ignored in the first place.
    let _not_changeable = set_action(signal, &[0; 4]);
}

/// Ends this process with status 128 and the number of the signal when one of `signals` arrives,
/// until the next `execve`. Without a handler the first process of a pid namespace ignores them.
pub fn end_at(signals: &[rustix::process::Signal]) {
    extern "C" fn end(signal: i32) {
        exit(128 + signal)
    }
    const SA_RESTORER: usize = 0x0400_0000; // asked for on x86_64; `end` never returns to it
    let action = [end as extern "C" fn(i32) as usize, SA_RESTORER, 0, 0];
    for signal in signals {
        // Fails for SIGKILL and SIGSTOP only, which end it anyway.
        let _not_changeable = set_action(signal.as_raw() as usize, &action);
    }
}

fn set_action(signal: usize, action: &SignalAction) -> Result<usize, Errno> {
    let mask_size = size_of::<u64>(); // sizeof(sigset_t) in the kernel
    let args = [signal, action.as_ptr() as usize, 0, mask_size, 0, 0];
    // SAFETY: reads the action, which lives until the call returns; a handler in it runs on this
    // stack, touches no memory and does not return.
    unsafe { syscall(libc::SYS_rt_sigaction, args) }
}
