//! Clones a process that does a few system calls and executes an open file.
//!
//! As a rule it runs in this process's memory, on a stack of its own, until its execve: nothing is
//! copied, and no page of either is copied later because the other wrote to it. The caller goes on
//! meanwhile, so the child may not do what needs memory: it follows [`Orders`] and nothing else.

#![allow(unsafe_code)]

use alloc::boxed::Box;
use alloc::ffi::CString;
use alloc::vec::Vec;
use core::arch::asm;
use core::ffi::{CStr, c_char};
use core::mem::ManuallyDrop;

use rustix::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use rustix::process::Pid;
use serde::{Deserialize, Serialize};

use super::channel::Channel;
use super::process::{self, CloneArgs, CloneRequest};
use super::raw::syscall;
use super::{Call, Errno, SysResult};

/// Room for the child: its frames are those of a few small functions, also without optimization.
const STACK: usize = 64 * 1024;

/// Whether the child has the caller's memory until its execve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Memory {
    /// It runs in the caller's. Not for a child that processes of a container can reach before its
    /// execve: through it they would reach the caller.
    Shared,
    /// It has a copy, as after fork(2).
    Copied,
}

/// What the child does, in this order, before it executes the program.
#[derive(Debug)]
pub struct Orders<'a> {
    /// Closed in the child: an end of a socket whose other end it listens to.
    pub close: BorrowedFd<'a>,
    /// Namespaces to join, with their `CLONE_NEW*` flag.
    pub join: &'a [(BorrowedFd<'a>, u64)],
    /// Becomes root of its user namespace, when so many bytes have come through `talk`: a new
    /// namespace gets its maps from the caller first.
    pub become_root_after: Option<usize>,
    /// Descriptors that stay open across the execve.
    pub keep: &'a [RawFd],
    /// The program.
    pub program: BorrowedFd<'a>,
    /// Its arguments.
    pub args: &'a [CString],
    /// Where a failure is told.
    pub talk: BorrowedFd<'a>,
    /// Makes that message. May not allocate.
    pub failure: fn(Step, Errno) -> Message,
}

/// A step of [`Orders`] that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// `setns`, of a namespace of the kind with this `CLONE_NEW*` flag.
    Join(u64),
    /// Waiting for the caller.
    Wait,
    /// `setresgid(0, 0, 0)`.
    Group,
    /// `setresuid(0, 0, 0)`.
    User,
    /// `fcntl(F_SETFD)` of a descriptor to keep.
    Keep(i32),
    /// `execveat` of the program.
    Execute,
}

/// A short message: its bytes, and how many count.
pub type Message = ([u8; 32], usize);

/// A process that was cloned, and the memory that it uses until its execve: dropped only when that
/// has happened or the process has ended.
#[derive(Debug)]
pub struct Spawned {
    /// Its process id, as the caller's pid namespace sees it.
    pub pid: Pid,
    /// Its pidfd, close-on-exec.
    pub pidfd: OwnedFd,
    /// The child's memory, kept for it.
    pub memory: ChildMemory,
}

/// What the child reads and its stack.
#[derive(Debug)]
pub struct ChildMemory {
    _copy: Box<Copied>,
    _stack: Vec<u8>,
}

/// The orders as the child follows them: numbers and pointers.
#[derive(Debug)]
struct Copied {
    close: RawFd,
    join: Vec<(RawFd, u64)>,
    become_root_after: Option<usize>,
    keep: Vec<RawFd>,
    program: RawFd,
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
            join: orders
                .join
                .iter()
                .map(|(fd, flag)| (fd.as_raw_fd(), *flag))
                .collect(),
            become_root_after: orders.become_root_after,
            keep: orders.keep.to_vec(),
            program: orders.program.as_raw_fd(),
            pointers: process::pointers(&args),
            _args: args,
            talk: orders.talk.as_raw_fd(),
            failure: orders.failure,
        })
    }
}

/// Clones a process by clone3(2) that follows `orders`.
///
/// # Errors
///
/// What the kernel answers to the clone, as for [`process::clone`]; `EINVAL` for shared memory
/// when the child enters another time namespace. A failure of the child comes through
/// [`Orders::talk`], and it ends.
pub fn spawn(request: CloneRequest<'_>, memory: Memory, orders: &Orders<'_>) -> SysResult<Spawned> {
    let copy = Copied::of(orders);
    let mut stack: Vec<u8> = Vec::with_capacity(STACK);
    let mut pidfd: i32 = -1;
    let mut args = CloneArgs::new(request, &mut pidfd)?;
    if memory == Memory::Shared {
        args.flags |= libc::CLONE_VM as u64;
    }
    // The kernel takes the sum of both as the stack pointer; it has to be a multiple of 16.
    args.stack = (stack.as_mut_ptr() as u64).next_multiple_of(16);
    args.stack_size = (STACK - 16) as u64;
    // SAFETY: the stack is the child's alone; it and the copy stay where they are until the caller
    // drops them, which it does after the child's execve or end.
    let pid =
        unsafe { clone_onto(&args, &raw const *copy) }.call(|| process::clone_text(request))?;
    // A process id is never 0 in its parent: the child does not return from the call.
    let pid = Pid::from_raw(pid as i32)
        .ok_or(Errno::CHILD)
        .call(|| process::clone_text(request))?;
    // SAFETY: CLONE_PIDFD made the kernel store a new descriptor there.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    let memory = ChildMemory {
        _copy: copy,
        _stack: stack,
    };
    Ok(Spawned { pid, pidfd, memory })
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
    // It is open, as the caller lent it; a close of a socket does not fail otherwise.
    let _closed = call(libc::SYS_close, [orders.close as usize, 0, 0]);
    for &(fd, flag) in &orders.join {
        if let Err(errno) = call(libc::SYS_setns, [fd as usize, flag as usize, 0]) {
            return (Step::Join(flag), errno);
        }
    }
    if let Some(bytes) = orders.become_root_after {
        if let Err(errno) = wait_for(orders.talk, bytes) {
            return (Step::Wait, errno);
        }
        // Another user's capabilities would not survive the execve.
        if let Err(errno) = call(libc::SYS_setresgid, [0; 3]) {
            return (Step::Group, errno);
        }
        if let Err(errno) = call(libc::SYS_setresuid, [0; 3]) {
            return (Step::User, errno);
        }
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

/// Reads exactly `count` bytes, which say only that it is time.
fn wait_for(talk: RawFd, count: usize) -> Result<(), Errno> {
    if count == 0 {
        return Ok(());
    }
    let mut bytes = [0_u8; 16];
    let count = count.min(bytes.len());
    let args = [
        talk as usize,
        bytes.as_mut_ptr() as usize,
        count,
        libc::MSG_WAITALL as usize,
        0,
        0,
    ];
    // SAFETY: writes at most `count` bytes, which a local has room for.
    match unsafe { syscall(libc::SYS_recvfrom, args) }? {
        received if received == count => Ok(()),
        _ => Err(Errno::PIPE), // the caller has died
    }
}
