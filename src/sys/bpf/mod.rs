//! eBPF programs that decide which devices a cgroup may use: their instructions, loading, attaching.
//!
//! Decides nothing: what a program answers comes from `cgroups::devices`. Knows only the few
//! instructions that such a program needs. The numbers are those of `linux/bpf.h`.
//!
//! RLIMIT_MEMLOCK stays as it is: since Linux 5.11 programs are charged to the memory cgroup
//! instead, and the container would inherit a raised limit.

#![allow(unsafe_code)]

mod attached;

use std::ffi::CStr;

use rustix::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use super::raw::syscall;
use super::{Call, Errno, SysError, SysResult};

pub use attached::{attached_device_program, detach_device_program, replace_device_program};

/// A register. The kernel calls the program with the context in [`Register::CONTEXT`] and takes
/// its answer from R0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Register(u8);

impl Register {
    /// R1: at the start, the address of `struct bpf_cgroup_dev_ctx`.
    pub const CONTEXT: Register = Register(1);
    /// R2, free to use.
    pub const R2: Register = Register(2);
    /// R3, free to use.
    pub const R3: Register = Register(3);
    /// R4, free to use.
    pub const R4: Register = Register(4);
    /// R5, free to use.
    pub const R5: Register = Register(5);

    /// The register's number, 0 to 10.
    #[must_use]
    pub const fn number(self) -> usize {
        self.0 as usize
    }
}

/// When a jump is taken. All comparisons are of 32 bits (Linux 5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Test {
    /// The register equals the value.
    Equal,
    /// The register differs from the value.
    Differs,
    /// The register has a bit of the value.
    HasBitOf,
}

/// One instruction. Jumps count the instructions which they pass over, forward only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Insn {
    /// `to = *(u32 *)(context + offset)`, with 0 in the upper half.
    Load {
        /// Where the value goes.
        to: Register,
        /// Byte in the context, a multiple of 4.
        offset: i16,
    },
    /// `to = from`, the lower 32 bits.
    Copy {
        /// Where the value goes.
        to: Register,
        /// Where it comes from.
        from: Register,
    },
    /// `register &= mask`
    And {
        /// What changes.
        register: Register,
        /// The bits that stay.
        mask: u32,
    },
    /// `register >>= bits`
    ShiftRight {
        /// What changes.
        register: Register,
        /// How far, 0 to 31.
        bits: u8,
    },
    /// `if test(register, value) goto pc + skip`
    JumpIf {
        /// The comparison.
        test: Test,
        /// Its left side.
        register: Register,
        /// Its right side.
        value: u32,
        /// How many instructions are passed over.
        skip: i16,
    },
    /// `goto pc + skip`
    Jump {
        /// How many instructions are passed over.
        skip: i16,
    },
    /// `r0 = value`, the answer: 1 allows, 0 denies with `EPERM`.
    Answer(bool),
    /// Ends the program.
    Exit,
}

/// `struct bpf_insn`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Encoded {
    code: u8,
    /// Destination in the low half and source in the high half, on little-endian machines.
    registers: u8,
    offset: i16,
    immediate: i32,
}

#[cfg(target_endian = "big")]
compile_error!("the register halves of struct bpf_insn are swapped on big-endian machines");

// Operation codes: class | operation | source of the operand.
const LDX_MEM_W: u8 = 0x61;
const ALU32_MOV_X: u8 = 0xbc;
const ALU32_MOV_K: u8 = 0xb4;
const ALU32_AND_K: u8 = 0x54;
const ALU32_RSH_K: u8 = 0x74;
const JMP32_JEQ_K: u8 = 0x16;
const JMP32_JNE_K: u8 = 0x56;
const JMP32_JSET_K: u8 = 0x46;
const JMP_JA: u8 = 0x05;
const JMP_EXIT: u8 = 0x95;

impl Insn {
    fn encode(self) -> Encoded {
        let (code, to, from, offset, immediate) = match self {
            Insn::Load { to, offset } => (LDX_MEM_W, to.0, Register::CONTEXT.0, offset, 0),
            Insn::Copy { to, from } => (ALU32_MOV_X, to.0, from.0, 0, 0),
            Insn::And { register, mask } => (ALU32_AND_K, register.0, 0, 0, mask),
            Insn::ShiftRight { register, bits } => (ALU32_RSH_K, register.0, 0, 0, bits.into()),
            Insn::JumpIf {
                test,
                register,
                value,
                skip,
            } => {
                let code = match test {
                    Test::Equal => JMP32_JEQ_K,
                    Test::Differs => JMP32_JNE_K,
                    Test::HasBitOf => JMP32_JSET_K,
                };
                (code, register.0, 0, skip, value)
            }
            Insn::Jump { skip } => (JMP_JA, 0, 0, skip, 0),
            Insn::Answer(allowed) => (ALU32_MOV_K, 0, 0, 0, allowed.into()),
            Insn::Exit => (JMP_EXIT, 0, 0, 0, 0),
        };
        let registers = to | from << 4;
        Encoded {
            code,
            registers,
            offset,
            immediate: immediate.cast_signed(),
        }
    }
}

/// Commands of bpf(2).
const BPF_PROG_LOAD: usize = 5;

/// How often a load that a signal has ended is tried again.
const LOAD_TRIES: usize = 16;
const BPF_PROG_ATTACH: usize = 8;
/// `enum bpf_prog_type`
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
/// `enum bpf_attach_type`
const BPF_CGROUP_DEVICE: u32 = 6;
/// Programs attached here and above are all asked, and all must allow. Without it a program
/// replaces the ones above or is refused below them.
const BPF_F_ALLOW_MULTI: u32 = 2;

/// Seen in `bpftool prog`; at most 15 bytes.
const PROGRAM_NAME: &[u8; 16] = b"parhelion_dev\0\0\0";
/// Asked for by the kernel; what it says matters only to programs that call GPL-only helpers.
const LICENSE: &CStr = c"Apache-2.0";
/// Room for the verifier's explanation of a refused program.
const LOG_SIZE: usize = 64 * 1024;

/// The part of `union bpf_attr` that BPF_PROG_LOAD reads, as far as Linux 4.15 defines it.
#[repr(C)]
struct LoadAttr {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
}

/// The part of `union bpf_attr` that BPF_PROG_ATTACH and BPF_PROG_DETACH read.
#[repr(C)]
struct AttachAttr {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
    replace_bpf_fd: u32,
}

/// Loads a program of type BPF_PROG_TYPE_CGROUP_DEVICE (bpf(2), Linux 4.15).
///
/// # Errors
///
/// `EPERM` without CAP_BPF in the first user namespace; `EINVAL` or `EACCES` when the verifier
/// refuses the program: its log is then part of the error.
pub fn load_device_program(program: &[Insn]) -> SysResult<OwnedFd> {
    let encoded: Vec<Encoded> = program.iter().map(|insn| insn.encode()).collect();
    // A log slows a load down, so it is asked for only to explain a refusal.
    load(&encoded, &mut []).or_else(|errno| {
        let mut log = vec![0; LOG_SIZE];
        let call = format!(
            "bpf(PROG_LOAD, CGROUP_DEVICE, {} instructions",
            encoded.len()
        );
        load(&encoded, &mut log).map_err(|_same_again| {
            let text = CStr::from_bytes_until_nul(&log)
                .unwrap_or_default()
                .to_string_lossy();
            let log = if text.is_empty() {
                String::new()
            } else {
                format!(", log {text:?}")
            };
            SysError::new(format!("{call}{log})"), errno)
        })
    })
}

fn load(program: &[Encoded], log: &mut [u8]) -> Result<OwnedFd, Errno> {
    let attr = LoadAttr {
        prog_type: BPF_PROG_TYPE_CGROUP_DEVICE,
        insn_cnt: u32::try_from(program.len()).unwrap_or(u32::MAX),
        insns: program.as_ptr() as u64,
        license: LICENSE.as_ptr() as u64,
        log_level: u32::from(!log.is_empty()),
        log_size: u32::try_from(log.len()).unwrap_or(u32::MAX),
        // The kernel refuses a buffer without a log level.
        log_buf: if log.is_empty() {
            0
        } else {
            log.as_mut_ptr() as u64
        },
        kern_version: 0,
        prog_flags: 0,
        prog_name: *PROGRAM_NAME,
    };
    let (address, size) = (&raw const attr as usize, size_of::<LoadAttr>());
    let mut tries = 0;
    let fd = loop {
        // SAFETY: `attr` has the size that is passed; `program` and `LICENSE` are only read, `log` is
        // written up to its length, and all live until the call returns.
        match unsafe { syscall(libc::SYS_bpf, [BPF_PROG_LOAD, address, size, 0, 0, 0]) } {
            // The verifier gives up when a signal comes, as of a child's end to a traced process.
            Err(Errno::AGAIN) if tries < LOAD_TRIES => tries += 1,
            loaded => break loaded?,
        }
    };
    // SAFETY: the kernel made this descriptor (close-on-exec) for us; nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Attaches a device program to the cgroup whose directory is `cgroup`, beside those of others
/// (bpf(2), Linux 4.15).
///
/// The program stays for as long as the cgroup exists; the descriptor can be closed.
///
/// # Errors
///
/// `EPERM` when a cgroup above holds a program that was attached without BPF_F_ALLOW_MULTI;
/// `EBADF` when `cgroup` was opened with O_PATH or is no cgroup2 directory; `E2BIG` when 64
/// programs are attached already.
pub fn attach_device_program(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> SysResult<()> {
    let attr = AttachAttr {
        target_fd: cgroup.as_raw_fd().cast_unsigned(),
        attach_bpf_fd: program.as_raw_fd().cast_unsigned(),
        attach_type: BPF_CGROUP_DEVICE,
        attach_flags: BPF_F_ALLOW_MULTI,
        replace_bpf_fd: 0,
    };
    attached::change(BPF_PROG_ATTACH, &attr).call(|| {
        let (cgroup, program) = (attr.target_fd, attr.attach_bpf_fd);
        format!("bpf(PROG_ATTACH, cgroup {cgroup}, program {program}, CGROUP_DEVICE, ALLOW_MULTI)")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_the_sizes_of_the_kernel_header() {
        assert_eq!(size_of::<Encoded>(), 8);
        assert_eq!(size_of::<LoadAttr>(), 64);
        assert_eq!(size_of::<AttachAttr>(), 20);
    }

    #[test]
    fn instructions_are_encoded_as_the_kernel_reads_them() {
        let bytes = |insn: Insn| {
            let Encoded {
                code,
                registers,
                offset,
                immediate,
            } = insn.encode();
            (code, registers, offset, immediate)
        };
        assert_eq!(
            bytes(Insn::Load {
                to: Register::R4,
                offset: 4
            }),
            (0x61, 0x14, 4, 0)
        );
        let copy = Insn::Copy {
            to: Register::R3,
            from: Register::R2,
        };
        assert_eq!(bytes(copy), (0xbc, 0x23, 0, 0));
        let jump = |test, value| {
            bytes(Insn::JumpIf {
                test,
                register: Register::R5,
                value,
                skip: 9,
            })
        };
        assert_eq!(jump(Test::Equal, 7), (0x16, 0x05, 9, 7));
        assert_eq!(jump(Test::Differs, u32::MAX), (0x56, 0x05, 9, -1));
        assert_eq!(jump(Test::HasBitOf, 6), (0x46, 0x05, 9, 6));
        assert_eq!(bytes(Insn::Answer(true)), (0xb4, 0, 0, 1));
        assert_eq!(bytes(Insn::Exit), (0x95, 0, 0, 0));
    }
}
