//! Waiting until a cgroup has no process left, or is frozen, by the kernel's own events.
//!
//! cgroup.events says "populated" and "frozen"; poll(2) reports a change of it since the last
//! read. The kernel sends at most one such report in 10 ms (CGROUP_FILE_NOTIFY_MIN_INTV), so a
//! second change soon after a first is seen up to 10 ms late.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{Mode, OFlags};

use super::files;
use crate::sys::Errno;

/// An open cgroup.events.
pub(super) struct Events(OwnedFd);

impl Events {
    /// Opens the file of the cgroup whose directory is `cgroup`.
    pub(super) fn open(cgroup: BorrowedFd<'_>) -> Result<Events, Errno> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        rustix::fs::openat(cgroup, "cgroup.events", flags, Mode::empty()).map(Events)
    }

    /// True when `key` ("populated", "frozen") is 1; `ENODEV` when the cgroup is gone.
    pub(super) fn is(&self, key: &str) -> Result<bool, Errno> {
        // Two lines with one digit each; later kernels may add some.
        let mut buffer = [0; 256];
        let length = rustix::io::retry_on_intr(|| rustix::io::pread(&self.0, &mut buffer, 0))?;
        let text = String::from_utf8_lossy(&buffer[..length]);
        Ok(files::value_of(&text, key) == Some("1"))
    }

    /// Waits until `key` has `value`; false when it has not at `end`.
    pub(super) fn wait(&self, key: &str, value: bool, end: &Deadline) -> Result<bool, Errno> {
        // Read before every poll: poll reports what changed since the last read.
        while self.is(key)? != value {
            let Some(left) = end.left() else {
                return Ok(false);
            };
            let mut fds = [PollFd::new(&self.0, PollFlags::PRI)];
            match rustix::event::poll(&mut fds, Some(&left)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(true)
    }
}

/// A moment after which a wait ends.
#[derive(Debug)]
pub struct Deadline(Instant);

impl Deadline {
    /// The moment after this time.
    // Waiting is an effect, not a decision: nothing here is run in a simulation.
    #[allow(clippy::disallowed_methods)]
    #[must_use]
    pub fn after(timeout: Duration) -> Deadline {
        Deadline(Instant::now() + timeout)
    }

    /// The time left; None when there is none.
    #[allow(clippy::disallowed_methods)]
    #[must_use]
    pub fn left(&self) -> Option<Timespec> {
        let left = self.0.saturating_duration_since(Instant::now());
        (!left.is_zero()).then(|| Timespec {
            tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        })
    }
}
