//! Clones a process that does a few system calls and executes an open file.
//!
//! It runs in this process's memory, on a stack of its own, until its execve: nothing is copied, and
//! no page of either is copied later because the other wrote to it. The caller goes on meanwhile, so
//! the child may not do what needs memory: it follows [`Orders`] and nothing else. It is in no
//! namespace and no cgroup but the caller's, so nobody reaches the caller's memory through it.

#![allow(unsafe_code)]

use alloc::boxed::Box;
use alloc::ffi::CString;
use alloc::string::String;
use alloc::vec::Vec;
use core::arch::asm;
use core::ffi::{CStr, c_char};
use core::mem::ManuallyDrop;

use rustix::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use rustix::process::Pid;
use serde::{Deserialize, Serialize};

use super::channel::Channel;
use super::process::{self, CloneArgs};
use super::processors;
use super::raw::syscall;
use super::{Call, Errno, SysResult};

/// Room for the child: its frames are those of a few small functions, also without optimization.
const STACK: usize = 64 * 1024;

/// What the child does, in this order, with all signals blocked, before it executes the program.
#[derive(Debug)]
pub struct Orders<'a> {
    /// Closed in the child: an end of a socket whose other end it listens to.
    pub close: BorrowedFd<'a>,
    /// The program.
    pub program: BorrowedFd<'a>,
    /// What is done to the program's file first. May not allocate.
    pub complete: fn(BorrowedFd<'_>) -> Result<(), Errno>,
    /// Descriptors that stay open across the execve.
    pub keep: &'a [RawFd],
    /// The program's arguments.
    pub args: &'a [CString],
    /// Where a failure is told.
    pub talk: BorrowedFd<'a>,
    /// Makes that message. May not allocate.
    pub failure: fn(Step, Errno) -> Message,
}

/// A step of [`Orders`] that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// [`Orders::complete`].
    Complete,
    /// `fcntl(F_SETFD)` of a descriptor to keep.
    Keep(i32),
    /// `execveat` of the program.
    Execute,
}

/// A short message: its bytes, and how many count.
pub type Message = ([u8; 32], usize);

/// What the child reads and its stack: dropped only when it has executed the program or has ended.
#[derive(Debug)]
pub struct ChildMemory {
    _copy: Box<Copied>,
    _stack: Vec<u8>,
}

/// The orders as the child follows them: numbers and pointers.
#[derive(Debug)]
struct Copied {
    close: RawFd,
    program: RawFd,
    complete: fn(BorrowedFd<'_>) -> Result<(), Errno>,
    keep: Vec<RawFd>,
    pointers: Vec<*const c_char>,
    _args: Vec<CString>,
    talk: RawFd,
    failure: fn(Step, Errno) -> Message,
}

impl Copied {
    fn of(orders: &Orders<'_>) -> Box<Copied> {
        let args = orders.args.to_vec();
        Box::new(Copied {
            close: orders.close.as_raw_fd(),
            program: orders.program.as_raw_fd(),
            complete: orders.complete,
            keep: orders.keep.to_vec(),
            pointers: process::pointers(&args),
            _args: args,
            talk: orders.talk.as_raw_fd(),
            failure: orders.failure,
        })
    }
}

/// Clones a process by clone3(2) that follows `orders`: its id, and its memory.
///
/// It begins at once, on another processor than the caller if there is one.
///
/// # Errors
///
/// `EAGAIN` or `ENOMEM` when no process can be made. A failure of the child comes through
/// [`Orders::talk`], and it ends.
pub fn spawn(orders: &Orders<'_>) -> SysResult<(Pid, ChildMemory)> {
    let text = || String::from("clone3(CLONE_VM)");
    let copy = Copied::of(orders);
    let mut stack: Vec<u8> = Vec::with_capacity(STACK);
    let mut args = CloneArgs::default();
    args.flags = libc::CLONE_VM as u64;
    args.exit_signal = libc::SIGCHLD as u64;
    // The kernel takes the sum of both as the stack pointer; it has to be a multiple of 16.
    args.stack = (stack.as_mut_ptr() as u64).next_multiple_of(16);
    args.stack_size = (STACK - 16) as u64;
    // SAFETY: the stack is the child's alone; it and the copy stay where they are until the caller
    // drops them, which it does after the child's execve or end.
    let pid = unsafe { clone_onto(&args, &raw const *copy) }.call(text)?;
    // A process id is never 0 in its parent: the child does not return from the call.
    let pid = Pid::from_raw(pid as i32).ok_or(Errno::CHILD).call(text)?;
    processors::send_away(pid);
    let memory = ChildMemory {
        _copy: copy,
        _stack: stack,
    };
    Ok((pid, memory))
}

/// clone3(2) with a stack for the child, which calls [`child`] on it.
///
/// # Safety
///
/// The stack in `args` and the memory at `orders` must be valid, and nobody else's, until the child
/// has executed a program or ended.
unsafe fn clone_onto(args: &CloneArgs, orders: *const Copied) -> Result<usize, Errno> {
    let entry: extern "C" fn(*const Copied) -> ! = child;
    let result: isize;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the caller's process sees a system call that changes rax, rcx and r11. The child has
    // rax = 0 and an empty, aligned stack, and never leaves `entry`.
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r13",
            "call r12",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone3 as isize => result,
            in("rdi") args, in("rsi") size_of::<CloneArgs>(),
            in("r12") entry, in("r13") orders,
            lateout("rcx") _, lateout("r11") _,
        );
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above; the system call changes x0 alone.
    unsafe {
        asm!(
            "svc 0",
            "cbnz x0, 2f",
            "mov x29, #0",
            "mov x30, #0",
            "mov x0, x22",
            "blr x21",
            "brk #1",
            "2:",
            in("x8") libc::SYS_clone3 as isize,
            inlateout("x0") args => result,
            in("x1") size_of::<CloneArgs>(),
            in("x21") entry, in("x22") orders,
        );
    }
    match result {
        -4095..=-1 => Err(Errno::from_raw_os_error(-result as i32)),
        _ => Ok(result as usize),
    }
}

/// The child: follows its orders by bare system calls. It shares the caller's heap, which goes on
/// using it: so nothing here allocates, frees or panics.
extern "C" fn child(orders: *const Copied) -> ! {
    // SAFETY: the caller of `clone_onto` keeps it valid and unchanged.
    let orders = unsafe { &*orders };
    let (step, errno) = follow(orders);
    let (bytes, length) = (orders.failure)(step, errno);
    // SAFETY: the descriptor table is the child's own, and so is this descriptor.
    let talk = unsafe { OwnedFd::from_raw_fd(orders.talk) };
    let talk = ManuallyDrop::new(Channel::over(talk));
    // It fails only when the caller has died; then nobody is left to tell, nor to share memory with.
    let _nobody_left = talk.send(bytes.get(..length).unwrap_or(&bytes));
    process::exit(1)
}

/// Returns only when a step failed.
fn follow(orders: &Copied) -> (Step, Errno) {
    super::signals::block_signals();
    // It is open, as the caller lent it; a close of a socket does not fail otherwise.
    let _closed = call(libc::SYS_close, [orders.close as usize, 0, 0]);
    // SAFETY: the caller lent it open, and this table of descriptors is the child's own.
    let program = unsafe { BorrowedFd::borrow_raw(orders.program) };
    if let Err(errno) = (orders.complete)(program) {
        return (Step::Complete, errno);
    }
    for &fd in &orders.keep {
        if let Err(errno) = call(libc::SYS_fcntl, [fd as usize, libc::F_SETFD as usize, 0]) {
            return (Step::Keep(fd), errno);
        }
    }
    let environment: [*const c_char; 1] = [core::ptr::null()];
    let path: &CStr = c"";
    let args = [
        orders.program as usize,
        path.as_ptr() as usize,
        orders.pointers.as_ptr() as usize,
        environment.as_ptr() as usize,
        libc::AT_EMPTY_PATH as usize,
        0,
    ];
    // SAFETY: the arrays and the strings they point to live until the call returns, if it does.
    let failed = unsafe { syscall(libc::SYS_execveat, args) };
    (Step::Execute, failed.err().unwrap_or(Errno::INVAL))
}

/// A call that takes numbers only.
fn call(number: libc::c_long, [a, b, c]: [usize; 3]) -> Result<usize, Errno> {
    // SAFETY: no call that is made through this takes a pointer.
    unsafe { syscall(number, [a, b, c, 0, 0, 0]) }
}
