//! Which process is meant, so that a pid that was given out again never passes for it.
//!
//! A pid alone names whatever process has that number now. With its inode in pidfs (Linux 6.9,
//! unique until the next boot) or, on older kernels, its start time, and with the boot, it names one
//! process for ever. Signals go through a descriptor that was opened before the comparison, so no
//! moment is left for the pid to change hands.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};

use crate::sys::{Call, Errno, SysError, SysResult};

/// Where the start time stands in /proc/PID/stat, counted from the field after the name.
const START_TIME_AFTER_NAME: usize = 19;

/// How long a process that was killed or gave up may take to end. The kernel needs microseconds,
/// unless it is frozen or stuck in a device or a network file system.
pub const END_LIMIT: Duration = Duration::from_secs(10);

/// linux/magic.h, `PID_FS_MAGIC`: the file system of pidfds whose inodes tell processes apart.
const PIDFS_MAGIC: u64 = 0x5049_4446;

/// One process, for as long as anybody asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its pid in the runtime's pid namespace.
    pub pid: i32,
    /// What no other process of this boot has.
    pub mark: Mark,
    /// The kernel's boot id: marks begin anew with every boot.
    pub boot: String,
}

/// What tells a process apart from all others of one boot that ever have its pid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Mark {
    /// The inode of its pidfd. Asked of the descriptor: nothing is looked up in /proc, which would
    /// cost once more when the process ends and its entry there is removed.
    PidfdInode(u64),
    /// Field 22 of /proc/PID/stat, in clock ticks since boot.
    StartTime(u64),
}

impl Mark {
    /// The mark of the process that `pidfd` refers to and that has this pid now; None when it is
    /// gone.
    fn of(pid: i32, pidfd: BorrowedFd<'_>) -> Result<Option<Mark>> {
        let call = || format!("fstatfs(pidfd of {pid})");
        let magic = rustix::fs::fstatfs(pidfd).call(call)?.f_type;
        if magic as u64 == PIDFS_MAGIC {
            let stat = rustix::fs::fstat(pidfd).call(|| format!("fstat(pidfd of {pid})"))?;
            return Ok(Some(Mark::PidfdInode(stat.st_ino)));
        }
        Ok(start_time(pid)?.map(Mark::StartTime))
    }
}

impl Process {
    /// The process that `pidfd` refers to: call it only for a child that is not reaped yet.
    ///
    /// # Errors
    ///
    /// When there is no such process.
    pub fn of(pid: Pid, pidfd: BorrowedFd<'_>) -> Result<Process> {
        let pid = pid.as_raw_nonzero().get();
        let mark = Mark::of(pid, pidfd)?.with_context(|| format!("process {pid} is gone"))?;
        Ok(Process {
            pid,
            mark,
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
        // What a damaged record says may be no pid at all.
        let Some(pid) = Some(self.pid)
            .filter(|pid| *pid > 0)
            .and_then(Pid::from_raw)
        else {
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
        let same = Mark::of(self.pid, pidfd.as_fd())? == Some(self.mark) && boot_id()? == self.boot;
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
    crate::sys::signals::send_signal(pidfd, number)
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

/// The start time in a line of /proc/PID/stat.
fn parse_start_time(stat: &[u8]) -> Option<u64> {
    let mut fields = fields_after_name(stat)?;
    fields.nth(START_TIME_AFTER_NAME)?.parse().ok()
}

/// The fields of a line of /proc/PID/stat from the third, the state, on (proc(5)). The name before them may
/// hold blanks and parentheses, and bytes that are no text, so they begin after the last parenthesis.
pub fn fields_after_name(stat: &[u8]) -> Option<impl Iterator<Item = &str>> {
    let end_of_name = stat.iter().rposition(|&byte| byte == b')')?;
    let rest = std::str::from_utf8(&stat[end_of_name + 1..]).ok()?;
    Some(rest.split_ascii_whitespace())
}

/// The id of this boot.
///
/// # Errors
///
/// Without /proc.
pub fn boot_id() -> Result<String> {
    const PATH: &str = "/proc/sys/kernel/random/boot_id";
    let call = || format!("read({PATH:?})");
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = rustix::fs::open(PATH, flags, Mode::empty()).call(call)?;
    let mut text = [0; 64]; // a UUID and a newline, which one read returns
    let length = rustix::io::read(&file, &mut text).call(call)?;
    let text = std::str::from_utf8(&text[..length]).context(PATH)?;
    Ok(text.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lifecycle::testing::{earlier, process_of};
    use std::process::{Child, Command};

    fn sleeper() -> Child {
        Command::new("sleep").arg("1000").spawn().unwrap()
    }

    fn end(mut child: Child) {
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_living_process_is_opened() {
        let child = sleeper();
        let process = process_of(&child);
        assert!(process.open().unwrap().is_some());
        end(child);
        assert!(process.open().unwrap().is_none(), "reaped");
    }

    #[test]
    fn a_number_that_is_no_pid_is_no_process() {
        for pid in [0, -1, i32::MIN] {
            let none = Process {
                pid,
                mark: Mark::StartTime(1),
                boot: boot_id().unwrap(),
            };
            assert!(none.open().unwrap().is_none(), "{pid}");
        }
    }

    #[test]
    fn a_zombie_is_not_alive() {
        let mut child = sleeper();
        let process = process_of(&child);
        let pidfd = process.open().unwrap().unwrap();
        child.kill().unwrap();
        assert!(wait_for_exit(pidfd.as_fd(), None).unwrap());
        assert!(process.open().unwrap().is_none());
        child.wait().unwrap();
    }

    #[test]
    fn another_process_with_the_same_pid_is_not_taken_for_it() {
        let child = sleeper();
        let real = process_of(&child);
        assert!(earlier(real.clone()).open().unwrap().is_none());
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
        let pidfd = process_of(&child).open().unwrap().unwrap();
        assert!(!wait_for_exit(pidfd.as_fd(), Some(Duration::from_millis(5))).unwrap());
        end(child);
    }
}
