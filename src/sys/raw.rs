//! One system call instruction per architecture, for calls that rustix has no safe form of.
//!
//! Used by both programs, hence no libc `syscall()`: in `parhelion-init` no libc code runs.

#![allow(unsafe_code)]

use core::arch::asm;

use super::Errno;

/// The arguments of a call; unused ones are 0.
pub(super) type Args = [usize; 6];

/// Makes system call `number`.
///
/// # Safety
///
/// The caller must uphold whatever the call asks for: pointers valid for what it reads and
/// writes, descriptors open, no memory unmapped or shared behind Rust's back.
pub(super) unsafe fn syscall(number: libc::c_long, args: Args) -> Result<usize, Errno> {
    let value: isize;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the kernel's calling convention (syscall(2)): rcx and r11 are overwritten, memory
    // is touched only as the call says, for which our caller answers.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as isize => value,
            in("rdi") args[0], in("rsi") args[1], in("rdx") args[2],
            in("r10") args[3], in("r8") args[4], in("r9") args[5],
            lateout("rcx") _, lateout("r11") _,
            options(nostack),
        );
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: the kernel's calling convention (syscall(2)): no register but x0 changes, memory is
    // touched only as the call says, for which our caller answers.
    unsafe {
        asm!(
            "svc 0",
            in("x8") number as isize,
            inlateout("x0") args[0] as isize => value,
            in("x1") args[1], in("x2") args[2], in("x3") args[3],
            in("x4") args[4], in("x5") args[5],
            options(nostack),
        );
    }
    match value {
        -4095..=-1 => Err(Errno::from_raw_os_error(-value as i32)),
        _ => Ok(value as usize),
    }
}

/// Makes a call without arguments, for tests of what filters answer.
#[cfg(all(test, feature = "supervisor", target_arch = "x86_64"))]
pub(crate) fn probe(number: libc::c_long) -> Result<usize, Errno> {
    // SAFETY: without pointers and descriptors nothing of ours is touched; a copy of this process that it may
    // make is told by the answer.
    unsafe { syscall(number, [0; 6]) }
}
