//! What a program without std and libc needs: an entry, memory, an end.
//!
//! Only in `parhelion-init`. The entry finds the arguments where the kernel puts them
//! (System V ABI, "process initialization"); memory comes from a bump allocator, as the program
//! lives for milliseconds and holds little.

#![allow(unsafe_code)]

use core::alloc::{GlobalAlloc, Layout};
use core::arch::global_asm;
use core::cell::UnsafeCell;
use core::fmt::Write as _;

#[cfg(target_arch = "x86_64")]
global_asm!(
    ".globl _start",
    "_start:",
    "xor ebp, ebp",
    "mov rdi, rsp",
    "and rsp, -16",
    "call {entry}",
    "ud2",
    entry = sym entry,
);

#[cfg(target_arch = "aarch64")]
global_asm!(
    ".globl _start",
    "_start:",
    "mov x29, #0",
    "mov x30, #0",
    "mov x0, sp",
    "bl {entry}",
    "brk #1",
    entry = sym entry,
);

unsafe extern "Rust" {
    /// The program itself, defined in `src/bin/parhelion-init.rs`; returns the exit status.
    fn parhelion_init_main(handshake: i32) -> i32;
}

/// Reads the one argument, the number of the handshake descriptor, and runs the program.
extern "C" fn entry(stack: *const usize) -> ! {
    // SAFETY: `_start` hands on the stack pointer of the entry, which points to argc (ABI).
    let argc = unsafe { stack.read() };
    let handshake = if argc < 2 {
        -1
    } else {
        // SAFETY: argv[1] stands two words above argc, and argc says that it is there.
        let argument = unsafe { stack.wrapping_add(2).read() } as *const core::ffi::c_char;
        // SAFETY: the kernel ends every argument with a NUL and keeps it mapped.
        let text = unsafe { core::ffi::CStr::from_ptr(argument) };
        text.to_str()
            .ok()
            .and_then(|t| t.parse().ok())
            .unwrap_or(-1)
    };
    // SAFETY: its one definition, in the program that links this module, has this signature.
    let status = unsafe { parhelion_init_main(handshake) };
    super::process::exit(status)
}

/// Size of the first chunk, in .bss: enough for most containers without a system call.
const FIRST_CHUNK: usize = 128 * 1024;
/// Size of later chunks, mapped on demand; a larger allocation gets a mapping of its own.
const CHUNK: usize = 1024 * 1024;
/// The smallest page of both architectures; aarch64 may have larger ones, which are aligned to it.
const PAGE: usize = 4096;

#[repr(align(16))]
struct Chunk(UnsafeCell<[u8; FIRST_CHUNK]>);

/// Hands out memory from the front of a chunk. Only the newest allocation can grow in place or be
/// given back; the rest ends with the program.
struct Bump {
    first: Chunk,
    state: UnsafeCell<BumpState>,
}

struct BumpState {
    next: usize,
    end: usize,
}

// SAFETY: the program has one thread and never makes another.
unsafe impl Sync for Bump {}

#[global_allocator]
static MEMORY: Bump = Bump {
    first: Chunk(UnsafeCell::new([0; FIRST_CHUNK])),
    state: UnsafeCell::new(BumpState { next: 0, end: 0 }),
};

impl Bump {
    /// Address of `layout` bytes, from the present chunk or a new one; 0 when memory is out, or for
    /// an alignment that a mapping does not have.
    fn take(&self, layout: Layout) -> usize {
        // SAFETY: one thread, and no reference to the state outlives a method of this type.
        let state = unsafe { &mut *self.state.get() };
        if state.end == 0 {
            state.next = self.first.0.get() as usize;
            state.end = state.next + FIRST_CHUNK;
        }
        let start = state.next.next_multiple_of(layout.align());
        if start + layout.size() <= state.end {
            state.next = start + layout.size();
            return start;
        }
        if layout.align() > PAGE {
            return 0;
        }
        let size = layout.size().max(CHUNK).next_multiple_of(PAGE);
        let args = [
            0,
            size,
            (libc::PROT_READ | libc::PROT_WRITE) as usize,
            (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as usize,
            usize::MAX,
            0,
        ];
        // SAFETY: a new anonymous mapping at an address of the kernel's choice (no MAP_FIXED)
        // touches no memory that exists.
        let Ok(start) = (unsafe { super::raw::syscall(libc::SYS_mmap, args) }) else {
            return 0;
        };
        state.next = start + layout.size();
        state.end = start + size;
        start
    }
}

// SAFETY: `take` never hands out the same bytes twice but after `dealloc` of the newest ones.
unsafe impl GlobalAlloc for Bump {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.take(layout) as *mut u8
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: one thread, and no reference to the state outlives a method of this type.
        let state = unsafe { &mut *self.state.get() };
        if pointer as usize + layout.size() == state.next {
            state.next = pointer as usize;
        }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        {
            // SAFETY: one thread; this reference ends before `take` makes its own.
            let state = unsafe { &mut *self.state.get() };
            let newest = pointer as usize + layout.size() == state.next;
            if newest && pointer as usize + new_size <= state.end {
                state.next = pointer as usize + new_size;
                return pointer;
            }
        }
        let Ok(new_layout) = Layout::from_size_align(new_size, layout.align()) else {
            return core::ptr::null_mut();
        };
        let new = self.take(new_layout) as *mut u8;
        if !new.is_null() {
            let length = layout.size().min(new_size);
            // SAFETY: `new` was just taken, so it overlaps nothing, and both hold `length` bytes.
            unsafe { core::ptr::copy_nonoverlapping(pointer, new, length) };
        }
        new
    }
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    // A failed write leaves nobody to tell: stderr is all there is.
    let _ = writeln!(Stderr, "parhelion-init: {info}");
    super::process::exit(101)
}

// The precompiled `alloc` names these two for unwinding. A panic aborts here, so neither is ever
// called; reaching one all the same ends the program by an illegal instruction.
#[cfg(target_arch = "x86_64")]
global_asm!(
    ".globl rust_eh_personality",
    ".globl _Unwind_Resume",
    "rust_eh_personality:",
    "_Unwind_Resume:",
    "ud2",
);
#[cfg(target_arch = "aarch64")]
global_asm!(
    ".globl rust_eh_personality",
    ".globl _Unwind_Resume",
    "rust_eh_personality:",
    "_Unwind_Resume:",
    "brk #1",
);

struct Stderr;

impl core::fmt::Write for Stderr {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        let stderr = super::process::standard_stream(2);
        rustix::io::write(stderr, text.as_bytes()).map_or(Err(core::fmt::Error), |_| Ok(()))
    }
}

/// The compiler's own needs, as no libc is linked. Byte loops through volatile accesses would be
/// slow and plain ones are compiled into calls of these very functions; x86_64 has string
/// instructions, aarch64 gets one-instruction-per-byte assembly.
mod memory {
    use core::arch::asm;
    use core::ffi::c_int;

    #[unsafe(no_mangle)]
    unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, length: usize) -> *mut u8 {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the caller vouches for both ranges; the direction flag is clear (ABI).
        unsafe {
            asm!("rep movsb", inout("rcx") length => _, inout("rdi") to => _,
                inout("rsi") from => _, options(nostack, preserves_flags));
        }
        #[cfg(target_arch = "aarch64")]
        // SAFETY: the caller vouches for both ranges.
        unsafe {
            asm!("cbz {n}, 3f", "2:", "ldrb {b:w}, [{f}], #1", "strb {b:w}, [{t}], #1",
                "subs {n}, {n}, #1", "b.ne 2b", "3:", n = inout(reg) length => _,
                f = inout(reg) from => _, t = inout(reg) to => _, b = out(reg) _,
                options(nostack));
        }
        to
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, length: usize) -> *mut u8 {
        if (to as usize).wrapping_sub(from as usize) >= length {
            // SAFETY: the ranges do not overlap in the direction in which bytes are copied.
            return unsafe { memcpy(to, from, length) };
        }
        let mut i = length;
        while i > 0 {
            i -= 1;
            // SAFETY: i is below the length that the caller vouches for.
            let byte = unsafe { from.wrapping_add(i).read_volatile() };
            // SAFETY: likewise; volatile, so that this loop is not made a call of itself.
            unsafe { to.wrapping_add(i).write_volatile(byte) };
        }
        to
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn memset(to: *mut u8, value: c_int, length: usize) -> *mut u8 {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the caller vouches for the range; the direction flag is clear (ABI).
        unsafe {
            asm!("rep stosb", inout("rcx") length => _, inout("rdi") to => _,
                in("al") value as u8, options(nostack, preserves_flags));
        }
        #[cfg(target_arch = "aarch64")]
        // SAFETY: the caller vouches for the range.
        unsafe {
            asm!("cbz {n}, 3f", "2:", "strb {v:w}, [{t}], #1", "subs {n}, {n}, #1", "b.ne 2b",
                "3:", n = inout(reg) length => _, t = inout(reg) to => _, v = in(reg) value,
                options(nostack));
        }
        to
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, length: usize) -> c_int {
        let mut i = 0;
        while i < length {
            // SAFETY: i is below the length that the caller vouches for.
            let x = unsafe { a.wrapping_add(i).read_volatile() };
            // SAFETY: likewise.
            let y = unsafe { b.wrapping_add(i).read_volatile() };
            if x != y {
                return c_int::from(x) - c_int::from(y);
            }
            i += 1;
        }
        0
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn bcmp(a: *const u8, b: *const u8, length: usize) -> c_int {
        // SAFETY: the caller vouches for `length` bytes at both, which is memcmp's contract.
        unsafe { memcmp(a, b, length) }
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn strlen(text: *const u8) -> usize {
        let mut length = 0;
        // SAFETY: the caller vouches for a NUL at the end.
        while unsafe { text.wrapping_add(length).read_volatile() } != 0 {
            length += 1;
        }
        length
    }
}
