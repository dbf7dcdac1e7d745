//! Attributes of a process that its children and what it executes inherit: scheduling, processors,
//! I/O priority, personality, memory policy.

#![allow(unsafe_code)]

use alloc::format;

use rustix::process::Pid;
use serde::{Deserialize, Serialize};

use super::bitmap::Bitmap;
use super::raw::syscall;
use super::{Call, SysError, SysResult};

/// How a process is scheduled: the fields of `struct sched_attr` (sched_setattr(2)) under their
/// names there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names of sched_setattr(2)")]
pub struct Schedule {
    pub policy: u32,
    pub flags: u64,
    pub nice: i32,
    pub priority: u32,
    pub runtime: u64,
    pub deadline: u64,
    pub period: u64,
}

/// `struct sched_attr` of Linux 5.3, with the clamps that config.json has no values for.
#[repr(C)]
struct SchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
    util_min: u32,
    util_max: u32,
}

/// The number by which these calls know a process: 0 is the caller.
fn number(pid: Option<Pid>) -> usize {
    pid.map_or(0, |pid| pid.as_raw_nonzero().get() as usize)
}

/// Schedules the process `pid`, or this one, as asked (sched_setattr(2), setpriority(2)).
///
/// # Errors
///
/// `EPERM` without CAP_SYS_NICE for more than the process has, for a real-time policy in a cgroup
/// without real-time runtime, and for a deadline within less than all processors; `EACCES` likewise
/// for a nice value; `EBUSY` for a deadline that can not be kept; `EINVAL` for what the kernel lacks.
pub fn set_schedule(pid: Option<Pid>, schedule: &Schedule) -> SysResult<()> {
    const SCHED_FLAG_KEEP_PARAMS: u64 = 0x10; // linux/sched.h
    set_attributes(pid, schedule)?;
    match schedule.flags & SCHED_FLAG_KEEP_PARAMS {
        // sched_setattr(2) takes it for SCHED_OTHER and SCHED_BATCH alone. The other policies have no
        // use for it, but keep it for what the process may be scheduled by later.
        0 => set_nice(pid, schedule.nice),
        _ => Ok(()),
    }
}

fn set_nice(pid: Option<Pid>, nice: i32) -> SysResult<()> {
    const PRIO_PROCESS: usize = 0; // linux/resource.h
    let args = [PRIO_PROCESS, number(pid), nice as usize, 0, 0, 0];
    // SAFETY: takes no pointer.
    unsafe { syscall(libc::SYS_setpriority, args) }
        .call(|| format!("setpriority(PROCESS, {}, {nice})", number(pid)))
        .map(drop)
}

fn set_attributes(pid: Option<Pid>, schedule: &Schedule) -> SysResult<()> {
    let attr = SchedAttr {
        size: size_of::<SchedAttr>() as u32,
        policy: schedule.policy,
        flags: schedule.flags,
        nice: schedule.nice,
        priority: schedule.priority,
        runtime: schedule.runtime,
        deadline: schedule.deadline,
        period: schedule.period,
        util_min: 0,
        util_max: 0,
    };
    let args = [number(pid), (&raw const attr) as usize, 0, 0, 0, 0];
    // SAFETY: the kernel reads a struct of the size that its first field gives, which lives until
    // the call returns.
    unsafe { syscall(libc::SYS_sched_setattr, args) }
        .call(|| {
            let Schedule {
                policy,
                flags,
                nice,
                priority,
                runtime,
                deadline,
                period,
            } = *schedule;
            let what =
                format!("policy {policy}, flags {flags:#x}, nice {nice}, priority {priority}");
            let times = format!("runtime {runtime}, deadline {deadline}, period {period}");
            format!("sched_setattr({}, {what}, {times})", number(pid))
        })
        .map(drop)
}

/// Lets the process `pid`, or this one, run on the processors in `cpus` only, of those that its
/// cgroup has (sched_setaffinity(2)).
///
/// # Errors
///
/// `EINVAL` when none of them is there, `EPERM` for a process of another user.
pub fn set_affinity(pid: Option<Pid>, cpus: &Bitmap) -> SysResult<()> {
    let words = cpus.words();
    let args = [
        number(pid),
        size_of_val(words),
        words.as_ptr() as usize,
        0,
        0,
        0,
    ];
    // SAFETY: the kernel reads as many bytes as the array has, which is borrowed until the call
    // returns.
    unsafe { syscall(libc::SYS_sched_setaffinity, args) }
        .call(|| format!("sched_setaffinity({}, {})", number(pid), cpus.to_list()))
        .map(drop)
}

/// The priority of the I/O of the process `pid`, or of this one: a class (`IOPRIO_CLASS_*`) and a
/// level in it (ioprio_set(2)).
///
/// # Errors
///
/// `EPERM` without CAP_SYS_NICE for the real-time class, `EINVAL` for what is none.
pub fn set_io_priority(pid: Option<Pid>, class: u16, level: u16) -> SysResult<()> {
    const IOPRIO_WHO_PROCESS: usize = 1; // linux/ioprio.h, as the rest
    const IOPRIO_CLASS_SHIFT: u32 = 13;
    let value = usize::from(class) << IOPRIO_CLASS_SHIFT | usize::from(level);
    let args = [IOPRIO_WHO_PROCESS, number(pid), value, 0, 0, 0];
    // SAFETY: takes no pointer.
    unsafe { syscall(libc::SYS_ioprio_set, args) }
        .call(|| format!("ioprio_set(PROCESS, {}, {class}:{level})", number(pid)))
        .map(drop)
}

/// The flags of personality(2), under their names in linux/personality.h.
pub const PERSONALITY_FLAGS: [(&str, u32); 11] = [
    ("UNAME26", 0x002_0000),
    ("ADDR_NO_RANDOMIZE", 0x004_0000),
    ("FDPIC_FUNCPTRS", 0x008_0000),
    ("MMAP_PAGE_ZERO", 0x010_0000),
    ("ADDR_COMPAT_LAYOUT", 0x020_0000),
    ("READ_IMPLIES_EXEC", 0x040_0000),
    ("ADDR_LIMIT_32BIT", 0x080_0000),
    ("SHORT_INODE", 0x100_0000),
    ("WHOLE_SECONDS", 0x200_0000),
    ("STICKY_TIMEOUTS", 0x400_0000),
    ("ADDR_LIMIT_3GB", 0x800_0000),
];

/// The execution domain and the flags of this process (personality(2)).
///
/// # Errors
///
/// `EINVAL` for a value that the architecture refuses.
pub fn set_personality(persona: u32) -> SysResult<()> {
    let args = [persona as usize, 0, 0, 0, 0, 0];
    // SAFETY: takes no pointer; what flags change of the memory's layout they change at the next
    // execve.
    unsafe { syscall(libc::SYS_personality, args) }
        .call(|| format!("personality({persona:#x})"))
        .map(drop)
}

/// From which memory nodes this process gets its memory (set_mempolicy(2)): a mode with its flags.
///
/// # Errors
///
/// `EINVAL` for nodes that are not there or not allowed, for none where the mode needs some or
/// some where it takes none; `ENOSYS` in a kernel without NUMA.
pub fn set_memory_policy(mode: u32, nodes: &Bitmap) -> SysResult<()> {
    let words = nodes.words();
    // The kernel takes one bit less than it is told.
    let bits = match nodes.is_empty() {
        true => 0,
        false => words.len() * usize::BITS as usize + 1,
    };
    let mask = if bits == 0 {
        0
    } else {
        words.as_ptr() as usize
    };
    let args = [mode as usize, mask, bits, 0, 0, 0];
    // SAFETY: the kernel reads `bits - 1` bits, which the array has, or nothing; it is borrowed
    // until the call returns.
    unsafe { syscall(libc::SYS_set_mempolicy, args) }
        .map_err(|errno| {
            SysError::new(
                format!("set_mempolicy({mode:#x}, {})", nodes.to_list()),
                errno,
            )
        })
        .map(drop)
}

/// The user that this process was started as, without a system call (getauxval(3), AT_EUID): that of
/// all its life where nobody changes it.
#[cfg(feature = "runtime")]
#[must_use]
pub fn effective_uid() -> u32 {
    // SAFETY: reads what the kernel has left on the stack at the execve; takes no pointer.
    let uid = unsafe { libc::getauxval(libc::AT_EUID) };
    uid as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_the_sizes_of_the_kernel_header() {
        assert_eq!(size_of::<SchedAttr>(), 56); // SCHED_ATTR_SIZE_VER1
    }

    #[test]
    fn a_refused_schedule_is_printed_with_its_values() {
        let schedule = Schedule {
            policy: 99,
            ..Schedule::default()
        };
        let error = set_schedule(None, &schedule).unwrap_err();
        assert_eq!(
            error.to_string(),
            "sched_setattr(0, policy 99, flags 0x0, nice 0, priority 0, runtime 0, deadline 0, \
             period 0): invalid argument"
        );
    }

    #[test]
    fn no_processor_of_this_host_is_no_affinity() {
        let error = set_affinity(None, &Bitmap::parse("8191").unwrap()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "sched_setaffinity(0, 8191): invalid argument"
        );
    }
}
