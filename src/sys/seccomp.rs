//! Installs a filter of system calls: classic BPF, seccomp(2).
//!
//! Decides nothing: what a program answers comes from `seccomp` by way of init's plan.

#![allow(unsafe_code)]

use alloc::format;

use rustix::fd::{FromRawFd, OwnedFd, RawFd};
use serde::{Deserialize, Serialize};

use super::raw::syscall;
use super::{Call, Errno, SysError, SysResult};

/// `struct sock_filter`: one instruction.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instruction {
    /// Class, operation and source of the operand.
    pub code: u16,
    /// How many instructions are passed over when a test holds.
    pub jump_true: u8,
    /// How many when it does not.
    pub jump_false: u8,
    /// The operand.
    pub k: u32,
}

/// The longest program that the kernel takes (BPF_MAXINSNS).
pub const LONGEST: usize = 4096;

/// Flags of seccomp(2), SECCOMP_SET_MODE_FILTER.
pub mod flag {
    /// All threads of the process get the filter.
    pub const TSYNC: u32 = 1 << 0;
    /// Everything but ALLOW is logged.
    pub const LOG: u32 = 1 << 1;
    /// Speculative store bypass stays as it is.
    pub const SPEC_ALLOW: u32 = 1 << 2;
    /// The call returns a descriptor that is asked for a decision (Linux 5.0).
    pub const NEW_LISTENER: u32 = 1 << 3;
    /// With TSYNC, a thread that fails is ESRCH and no thread id (Linux 5.7).
    pub const TSYNC_ESRCH: u32 = 1 << 4;
    /// Only a fatal signal interrupts a call whose notification was received (Linux 5.19).
    pub const WAIT_KILLABLE_RECV: u32 = 1 << 5;
}

/// `struct sock_fprog`.
#[repr(C)]
struct Program {
    length: u16,
    instructions: *const Instruction,
}

/// Lets this thread's calls be decided by `program`, for good; the listener if `flags` ask for one.
///
/// # Errors
///
/// `EACCES` without no-new-privileges and CAP_SYS_ADMIN; `EINVAL` for a flag that the kernel does
/// not know, or a program that it does not take; `EBUSY` when an ancestor has a listener already.
pub fn load(program: &[Instruction], flags: u32) -> SysResult<Option<OwnedFd>> {
    const SECCOMP_SET_MODE_FILTER: usize = 1; // linux/seccomp.h
    let call = || {
        format!(
            "seccomp(SET_MODE_FILTER, {flags:#x}, {} instructions)",
            program.len()
        )
    };
    let length = u16::try_from(program.len()).map_err(|_| SysError::new(call(), Errno::INVAL))?;
    let fprog = Program {
        length,
        instructions: program.as_ptr(),
    };
    let address = &raw const fprog as usize;
    let args = [SECCOMP_SET_MODE_FILTER, flags as usize, address, 0, 0, 0];
    // SAFETY: `fprog` names `program` with its own length; both are only read, until the call
    // returns.
    let fd = unsafe { syscall(libc::SYS_seccomp, args) }.call(call)?;
    if flags & flag::NEW_LISTENER == 0 {
        return Ok(None);
    }
    // SAFETY: with this flag the kernel answers a new descriptor (close-on-exec); nobody else
    // knows it.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(fd as RawFd) }))
}

/// Whether this kernel takes these flags. Nothing is loaded: a program at no address is `EFAULT`, which
/// the kernel says when it has found the flags good.
#[must_use]
pub fn takes(flags: u32) -> bool {
    const SECCOMP_SET_MODE_FILTER: usize = 1; // linux/seccomp.h
    let args = [SECCOMP_SET_MODE_FILTER, flags as usize, 0, 0, 0, 0];
    // SAFETY: the only pointer is null, which the kernel refuses to read.
    let taken = unsafe { syscall(libc::SYS_seccomp, args) };
    taken == Err(Errno::FAULT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_the_sizes_of_the_kernel_header() {
        assert_eq!(size_of::<Instruction>(), 8);
        assert_eq!(size_of::<Program>(), 16);
    }

    #[test]
    fn a_flag_that_no_kernel_has_is_not_taken_and_nothing_is_loaded() {
        let mode = || {
            let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
            let line = status.lines().find(|line| line.starts_with("Seccomp:"));
            line.map(str::to_owned)
        };
        let before = mode();
        assert!(!takes(1 << 31));
        // An emulator of one process has no such call at all.
        assert!(takes(flag::LOG) || load(&[], 0).unwrap_err().errno == Errno::NOSYS);
        assert_eq!(mode(), before);
    }

    #[test]
    fn a_program_that_the_kernel_does_not_take_is_an_error() {
        let error = load(&[], 0).unwrap_err();
        let call = "seccomp(SET_MODE_FILTER, 0x0, 0 instructions)";
        assert_eq!(error.call, call);
        // An emulator of one process has no such call at all.
        assert!([Errno::INVAL, Errno::NOSYS].contains(&error.errno));
    }
}
