//! How a container's program has ended, for a keeper that is its parent and for one that is not.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::process::{WaitIdStatus, WaitStatus};

use super::policy::Exit;
use crate::lifecycle::process::fields_after_name;
use crate::sys::exit_info;

/// Where the wait status stands in /proc/PID/stat, counted from the field after the name (proc(5), field 52).
const STATUS_AFTER_NAME: usize = 49;

/// By the status of a child that was waited for.
pub fn of_child(status: WaitStatus) -> Exit {
    of(status.exit_status(), status.terminating_signal())
}

/// By the status of a child that waitid(2) tells.
pub fn of_ended(status: &WaitIdStatus) -> Exit {
    of(status.exit_status(), status.terminating_signal())
}

fn of(code: Option<i32>, signal: Option<i32>) -> Exit {
    match (code, signal) {
        (Some(code), _) => u8::try_from(code).map_or(Exit::Unknown, Exit::Code),
        (None, Some(signal)) => Exit::Signal(signal),
        (None, None) => Exit::Unknown,
    }
}

/// Of a process that has ended and is no child: from its entry in /proc while nobody has waited for it, and
/// then from its descriptor, where the kernel keeps it (Linux 6.15).
pub fn of_stranger(pid: i32, pidfd: BorrowedFd<'_>) -> Exit {
    let zombie = std::fs::read(format!("/proc/{pid}/stat"));
    // Only a process of this descriptor can be a zombie with this pid, as it has not been waited for.
    let seen = zombie.ok().and_then(|stat| zombie_status(&stat));
    let kept = || exit_info::exit_status(pidfd.as_fd()).ok().flatten();
    match kept().or(seen) {
        Some(status) if status & 0x7f == 0 => Exit::Code((status >> 8) as u8),
        Some(status) => Exit::Signal(status & 0x7f),
        None => Exit::Unknown,
    }
}

/// The wait status in a zombie's line of /proc/PID/stat; None for a process that lives.
fn zombie_status(stat: &[u8]) -> Option<i32> {
    let mut fields = fields_after_name(stat)?;
    if fields.next()? != "Z" {
        return None;
    }
    fields.nth(STATUS_AFTER_NAME - 1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, pidfd_open, waitid};
    use std::process::{Command, Stdio};

    #[test]
    fn a_zombies_status_is_read_and_no_living_process() {
        for (script, exit) in [
            ("read x; exit 7", Exit::Code(7)),
            ("read x; kill -9 $$", Exit::Signal(9)),
        ] {
            let mut command = Command::new("sh");
            let mut child = command
                .args(["-c", script])
                .stdin(Stdio::piped())
                .spawn()
                .unwrap();
            let id = i32::try_from(child.id()).unwrap();
            let pidfd = pidfd_open(Pid::from_raw(id).unwrap(), PidfdFlags::empty()).unwrap();
            assert_eq!(of_stranger(id, pidfd.as_fd()), Exit::Unknown);
            drop(child.stdin.take());
            let ended = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
            waitid(WaitId::PidFd(pidfd.as_fd()), ended).unwrap();
            assert_eq!(of_stranger(id, pidfd.as_fd()), exit);
            child.wait().unwrap();
        }
    }
}
