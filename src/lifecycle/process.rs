//! Which process is meant, so that a pid that was given out again never passes for it.
//!
//! A pid alone names whatever process has that number now. With its start time (in clock ticks
//! since boot) and the boot it names one process for ever. Signals go through a descriptor that
//! was opened before the comparison, so no moment is left for the pid to change hands.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};

use crate::sys::{Call, Errno, SysError, SysResult};

/// Where the start time stands in /proc/PID/stat, counted from the field after the name.
const START_TIME_AFTER_NAME: usize = 19;

/// One process, for as long as anybody asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its pid in the runtime's pid namespace.
    pub pid: i32,
    /// Field 22 of /proc/PID/stat.
    pub start_time: u64,
    /// The kernel's boot id: start times begin anew with every boot.
    pub boot: String,
}

impl Process {
    /// The process that has this pid now: call it only for a child that is not reaped yet.
    ///
    /// # Errors
    ///
    /// When there is no such process.
    pub fn of(pid: i32) -> Result<Process> {
        let start_time = start_time(pid)?.with_context(|| format!("process {pid} is gone"))?;
        Ok(Process {
            pid,
            start_time,
            boot: boot_id()?,
        })
    }

    /// A pidfd of this process if it is still alive, and of no other.
    ///
    /// A zombie is not alive. A process whose first thread has ended while others go on is: the
    /// kernel makes its pidfd readable only when the last one has ended.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to tell.
    pub fn open(&self) -> Result<Option<OwnedFd>> {
        let Some(pid) = Pid::from_raw(self.pid) else {
            return Ok(None);
        };
        let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            // INVAL: the number belongs to a thread by now, not to a process.
            Err(Errno::SRCH | Errno::INVAL) => return Ok(None),
            Err(errno) => {
                return Err(SysError::new(format!("pidfd_open({})", self.pid), errno).into());
            }
        };
        let same = start_time(self.pid)? == Some(self.start_time) && boot_id()? == self.boot;
        let alive = same && !wait_for_exit(pidfd.as_fd(), Some(Duration::ZERO))?;
        Ok(alive.then_some(pidfd))
    }
}

/// Waits until the process ends; false when it still lives after `timeout` (`None`: no limit).
///
/// # Errors
///
/// When poll fails.
pub fn wait_for_exit(pidfd: BorrowedFd<'_>, timeout: Option<Duration>) -> Result<bool> {
    let timeout = timeout.map(|limit| Timespec {
        tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: limit.subsec_nanos().into(),
    });
    loop {
        let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
        match poll(&mut fds, timeout.as_ref()) {
            Ok(ready) => return Ok(ready > 0),
            // Signals are blocked or end the program; a debugger may still interrupt: ask again.
            Err(Errno::INTR) => {}
            Err(errno) => return Err(SysError::new("poll(pidfd)", errno).into()),
        }
    }
}

/// Sends a signal by number; 0 only asks whether one could be sent, to which a process that was
/// just opened is the answer.
///
/// # Errors
///
/// `ESRCH` when it has ended, `EINVAL` for a number that is no signal.
pub fn send_signal(pidfd: BorrowedFd<'_>, number: i32) -> SysResult<()> {
    crate::sys::process::send_signal(pidfd, number)
}

/// When the process with this pid started, or `None` when there is none.
fn start_time(pid: i32) -> Result<Option<u64>> {
    let path = format!("/proc/{pid}/stat");
    let stat = match fs::read(&path) {
        Ok(stat) => stat,
        Err(error) => match Errno::from_io_error(&error) {
            Some(Errno::NOENT | Errno::SRCH) => return Ok(None),
            Some(errno) => return Err(SysError::new(format!("read({path:?})"), errno).into()),
            None => return Err(error).context(path),
        },
    };
    let parsed = parse_start_time(&stat).with_context(|| format!("{path}: no start time in it"))?;
    Ok(Some(parsed))
}

/// The start time in a line of /proc/PID/stat. The name may hold blanks and parentheses, and bytes
/// that are no text, so counting begins after the last parenthesis.
fn parse_start_time(stat: &[u8]) -> Option<u64> {
    let end_of_name = stat.iter().rposition(|&byte| byte == b')')?;
    let rest = std::str::from_utf8(&stat[end_of_name + 1..]).ok()?;
    rest.split_ascii_whitespace()
        .nth(START_TIME_AFTER_NAME)?
        .parse()
        .ok()
}

/// The id of this boot.
fn boot_id() -> Result<String> {
    const PATH: &str = "/proc/sys/kernel/random/boot_id";
    let text = fs::read_to_string(PATH)
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
        .call(|| format!("read({PATH:?})"))?;
    Ok(text.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command};

    fn sleeper() -> Child {
        Command::new("sleep").arg("1000").spawn().unwrap()
    }

    fn pid_of(child: &Child) -> i32 {
        child.id().try_into().unwrap()
    }

    fn end(mut child: Child) {
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_living_process_is_opened() {
        let child = sleeper();
        let process = Process::of(pid_of(&child)).unwrap();
        assert!(process.open().unwrap().is_some());
        end(child);
        assert!(process.open().unwrap().is_none(), "reaped");
    }

    #[test]
    fn a_zombie_is_not_alive() {
        let mut child = sleeper();
        let process = Process::of(pid_of(&child)).unwrap();
        let pidfd = process.open().unwrap().unwrap();
        child.kill().unwrap();
        assert!(wait_for_exit(pidfd.as_fd(), None).unwrap());
        assert!(process.open().unwrap().is_none());
        child.wait().unwrap();
    }

    #[test]
    fn another_process_with_the_same_pid_is_not_taken_for_it() {
        let child = sleeper();
        let real = Process::of(pid_of(&child)).unwrap();
        let earlier = Process {
            start_time: real.start_time - 1,
            ..real.clone()
        };
        assert!(earlier.open().unwrap().is_none());
        let last_boot = Process {
            boot: "another".into(),
            ..real
        };
        assert!(last_boot.open().unwrap().is_none());
        end(child);
    }

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_start_time() {
        let fields: Vec<String> = (3..=52).map(|field| field.to_string()).collect();
        let line = format!("7 (a) R (b c)) {}", fields.join(" "));
        assert_eq!(parse_start_time(line.as_bytes()), Some(22));
        assert_eq!(parse_start_time(b"7 (x"), None);
    }

    #[test]
    fn waiting_for_a_process_that_goes_on_ends_with_the_time_limit() {
        let child = sleeper();
        let pidfd = Process::of(pid_of(&child))
            .unwrap()
            .open()
            .unwrap()
            .unwrap();
        assert!(!wait_for_exit(pidfd.as_fd(), Some(Duration::from_millis(5))).unwrap());
        end(child);
    }
}
