//! How a process has ended that is no child of the caller.

#![allow(unsafe_code)]

use std::format;

use rustix::fd::{AsRawFd, BorrowedFd};

use super::raw::syscall;
use super::{Call, Errno, SysResult};

/// `struct pidfd_info` in its first size (linux/pidfd.h, Linux 6.13; `exit_code` since 6.15).
#[repr(C)]
#[derive(Default)]
struct PidfdInfo {
    mask: u64,
    cgroup: u64,
    /// Process ids and user and group ids, of which none is asked for.
    ids: [u32; 11],
    exit_code: i32,
}

/// `PIDFD_INFO_EXIT`: asks for the exit code, and says that there is one.
const EXIT: u64 = 1 << 3;

/// `PIDFD_GET_INFO`: `_IOWR(0xff, 11, struct pidfd_info)`.
const PIDFD_GET_INFO: rustix::ioctl::Opcode =
    rustix::ioctl::opcode::read_write::<PidfdInfo>(0xff, 11);

/// The wait status (wait(2)) of the process that `pidfd` refers to, once it was reaped; None before, and on
/// kernels that do not keep it (older than Linux 6.15).
///
/// # Errors
///
/// `EBADF` or `ENOTTY` for what is no pidfd, on a kernel that has the call.
pub fn exit_status(pidfd: BorrowedFd<'_>) -> SysResult<Option<i32>> {
    let mut info = PidfdInfo {
        mask: EXIT,
        ..PidfdInfo::default()
    };
    let args = [
        pidfd.as_raw_fd() as usize,
        PIDFD_GET_INFO as usize,
        (&raw mut info) as usize,
        0,
        0,
        0,
    ];
    // SAFETY: the kernel writes at most the structure's size, which is part of the request's number, and
    // `info` lives until the call returns.
    match unsafe { syscall(libc::SYS_ioctl, args) } {
        Ok(_) => Ok((info.mask & EXIT != 0).then_some(info.exit_code)),
        // Before 6.13 there is no such request; in 6.13 and 6.14 nothing is known of a process that is gone.
        Err(Errno::NOTTY | Errno::INVAL | Errno::SRCH) => Ok(None),
        Err(errno) => Err(errno).call(|| format!("ioctl({}, PIDFD_GET_INFO)", pidfd.as_raw_fd())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fd::AsFd;
    use rustix::process::{Pid, PidfdFlags, pidfd_open};
    use std::process::Command;

    #[test]
    fn the_structure_has_the_size_of_the_kernel_header() {
        assert_eq!(size_of::<PidfdInfo>(), 64); // PIDFD_INFO_SIZE_VER0
        assert_eq!(PIDFD_GET_INFO, 0xc040_ff0b);
    }

    #[test]
    fn a_process_that_was_reaped_has_left_its_status_where_the_kernel_keeps_it() {
        let mut child = Command::new("sh");
        let child = child.args(["-c", "read x; exit 7"]);
        let mut child = child.stdin(std::process::Stdio::piped()).spawn().unwrap();
        let pid = Pid::from_raw(child.id().try_into().unwrap()).unwrap();
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).unwrap();
        assert_eq!(exit_status(pidfd.as_fd()).unwrap(), None);
        drop(child.stdin.take());
        child.wait().unwrap();
        let status = exit_status(pidfd.as_fd()).unwrap();
        let release = rustix::system::uname();
        let mut numbers = release.release().to_str().unwrap().split(['.', '-']);
        let mut number = || numbers.next().unwrap().parse::<u32>().unwrap();
        let keeps = (number(), number()) >= (6, 15);
        assert_eq!(status, keeps.then_some(7 << 8));
    }
}
