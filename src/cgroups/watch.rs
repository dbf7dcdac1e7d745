//! Waiting for what happens to a container: kills for want of memory, and pressure.
//!
//! The kernel wakes the waiter: memory.events is polled as cgroup.events is, and a trigger that was
//! written to a pressure file (Linux 5.2) makes that file's descriptor ready. Nothing is looked at
//! in intervals. Decides nothing about thresholds.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags};
use rustix::fs::{Mode, OFlags};

use super::events::Deadline;
use super::stats::number_of;
use super::{Cgroup, Pressure};
use crate::sys::{Call, Errno, SysResult};

const READ: OFlags = OFlags::RDONLY.union(OFlags::CLOEXEC);

/// A threshold of pressure: so much stall within a window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Threshold {
    /// "cpu", "memory" or "io".
    pub resource: &'static str,
    /// Whether all processes must stall, and not only some.
    pub full: bool,
    /// The time of stall from which on it is told.
    pub stall: Duration,
    /// The time within which it must come together: half a second to ten seconds.
    pub window: Duration,
}

/// What has happened.
#[derive(Debug)]
pub enum Happening {
    /// The kernel has killed processes for want of memory.
    OomKill,
    /// A threshold was reached, and this is the pressure now.
    Pressure(Threshold, Pressure),
}

/// Why [`Watch::wait`] has returned.
#[derive(Debug, PartialEq, Eq)]
pub enum Woken {
    /// Something has happened.
    Happenings,
    /// The process has ended.
    Ended,
    /// The time is up.
    Time,
}

/// A cgroup that is watched.
#[derive(Debug)]
pub struct Watch<'a> {
    cgroup: &'a Cgroup,
    /// memory.events, until the cgroup is gone; None without the memory controller.
    memory: Option<OwnedFd>,
    /// How many kills were told.
    kills: u64,
    /// Thresholds with their open pressure files, until the cgroup is gone.
    triggers: Vec<(Threshold, OwnedFd)>,
}

impl<'a> Watch<'a> {
    /// Watches a cgroup from now on, without any threshold.
    ///
    /// # Errors
    ///
    /// memory.events can not be read.
    pub fn new(cgroup: &'a Cgroup) -> Result<Watch<'a>> {
        let file = "memory.events";
        let memory = match rustix::fs::openat(cgroup.fd(), file, READ, Mode::empty()) {
            Ok(memory) => Some(memory),
            Err(Errno::NOENT | Errno::NODEV) => None,
            Err(errno) => Err(errno).call(|| format!("open({:?})", cgroup.place(file)))?,
        };
        let mut watch = Watch {
            cgroup,
            memory,
            kills: 0,
            triggers: Vec::new(),
        };
        watch.has_new_kills()?;
        Ok(watch)
    }

    /// Whether kills for want of memory can be seen at all.
    #[must_use]
    pub fn sees_kills(&self) -> bool {
        self.memory.is_some()
    }

    /// Watches for a threshold too; false where the kernel has no pressure to tell of.
    ///
    /// # Errors
    ///
    /// `EINVAL` for a window out of range, and without CAP_SYS_RESOURCE for one that is no multiple
    /// of two seconds.
    pub fn add(&mut self, threshold: Threshold) -> Result<bool> {
        let file = format!("{}.pressure", threshold.resource);
        let kind = if threshold.full { "full" } else { "some" };
        let (stall, window) = (threshold.stall.as_micros(), threshold.window.as_micros());
        let trigger = format!("{kind} {stall} {window}");
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let opened = rustix::fs::openat(self.cgroup.fd(), &file, flags, Mode::empty());
        let place = || self.cgroup.place(&file);
        let pressure = match opened {
            Ok(pressure) => pressure,
            Err(Errno::NOENT | Errno::NODEV | Errno::OPNOTSUPP) => return Ok(false),
            Err(errno) => Err(errno).call(|| format!("open({:?}, O_RDWR)", place()))?,
        };
        match rustix::io::write(&pressure, trigger.as_bytes()) {
            Ok(_) => {}
            Err(Errno::OPNOTSUPP) => return Ok(false),
            Err(errno) => Err(errno)
                .call(|| format!("write({:?}, {trigger:?})", place()))
                .with_context(|| format!("a threshold for {}", threshold.resource))?,
        }
        self.triggers.push((threshold, pressure));
        Ok(true)
    }

    /// Waits for something to happen, for the end of the process behind `pidfd`, or for a moment.
    /// What has happened goes to `happenings`, also what came just before the end.
    ///
    /// # Errors
    ///
    /// What the kernel answered.
    pub fn wait(
        &mut self,
        pidfd: BorrowedFd<'_>,
        until: Option<&Deadline>,
        happenings: &mut Vec<Happening>,
    ) -> Result<Woken> {
        loop {
            let ready = self.poll(pidfd, until)?;
            if ready.memory && self.has_new_kills()? {
                happenings.push(Happening::OomKill);
            }
            for place in ready.triggers {
                let threshold = self.triggers[place].0.clone();
                if let Some(pressure) = self.cgroup.pressure(threshold.resource)? {
                    happenings.push(Happening::Pressure(threshold, pressure));
                }
            }
            if ready.ended {
                if self.has_new_kills()? {
                    happenings.push(Happening::OomKill);
                }
                return Ok(Woken::Ended);
            }
            if !happenings.is_empty() {
                return Ok(Woken::Happenings);
            }
            if until.is_some_and(|until| until.left().is_none()) {
                return Ok(Woken::Time);
            }
        }
    }

    /// Waits once. Triggers whose cgroup is gone are dropped, as they would be ready for ever.
    fn poll(&mut self, pidfd: BorrowedFd<'_>, until: Option<&Deadline>) -> SysResult<Ready> {
        let mut fds = vec![PollFd::from_borrowed_fd(pidfd, PollFlags::IN)];
        let watched = self
            .memory
            .iter()
            .chain(self.triggers.iter().map(|(_, fd)| fd));
        fds.extend(watched.map(|fd| PollFd::new(fd, PollFlags::PRI)));
        let left = until.map(|until| until.left().unwrap_or_default());
        match rustix::event::poll(&mut fds, left.as_ref()) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(Ready::default()),
            Err(errno) => Err(errno).call(|| "poll(memory.events, pressure)".to_owned())?,
        }
        let got: Vec<PollFlags> = fds.iter().map(PollFd::revents).collect();
        let (ended, rest) = (!got[0].is_empty(), &got[1..]);
        let (memory, triggers) = rest.split_at(usize::from(self.memory.is_some()));
        let memory = memory.iter().any(|flags| !flags.is_empty());
        let gone = |flags: &PollFlags| flags.contains(PollFlags::ERR);
        let (mut kept, mut ready) = (Vec::new(), Vec::new());
        for (trigger, flags) in std::mem::take(&mut self.triggers).into_iter().zip(triggers) {
            if gone(flags) {
                continue;
            }
            if flags.contains(PollFlags::PRI) {
                ready.push(kept.len());
            }
            kept.push(trigger);
        }
        self.triggers = kept;
        Ok(Ready {
            ended,
            memory,
            triggers: ready,
        })
    }

    /// Whether there were kills since this was last asked. Reading makes the file wait for the next
    /// change.
    fn has_new_kills(&mut self) -> Result<bool> {
        let Some(memory) = &self.memory else {
            return Ok(false);
        };
        // Some ten short lines.
        let mut buffer = [0; 1024];
        let length = match rustix::io::retry_on_intr(|| rustix::io::pread(memory, &mut buffer, 0)) {
            Ok(length) => length,
            // The cgroup is gone.
            Err(Errno::NODEV) => {
                self.memory = None;
                return Ok(false);
            }
            Err(errno) => {
                let place = || format!("read({:?})", self.cgroup.place("memory.events"));
                return Ok(Err(errno).call(place)?);
            }
        };
        let kills = number_of(&String::from_utf8_lossy(&buffer[..length]), "oom_kill");
        let new = kills > self.kills;
        self.kills = kills;
        Ok(new)
    }
}

/// What poll(2) has told.
#[derive(Debug, Default)]
struct Ready {
    ended: bool,
    memory: bool,
    /// Places in `Watch::triggers`.
    triggers: Vec<usize>,
}
