//! What the policy asks for, and what comes of it.

use std::os::fd::AsFd as _;

use anyhow::{Context, Result};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::super::exit;
use super::super::helper::{Helper, Report, Task};
use super::super::policy::{Action, Event};
use super::super::status::{self, Container};
use super::{HELPER, Keeper, Live, watch};
use crate::error;
use crate::lifecycle::facts::now;
use crate::sys::signals::send_signal;
use crate::sys::{Call, Errno, SysResult};

impl Keeper {
    pub(super) fn act(&mut self, action: Action) -> Result<()> {
        match action {
            Action::Create => self.start_helper(Task::Create),
            Action::Remove => self.start_helper(Task::Remove),
            Action::Signal => {
                if let Some(live) = &self.live {
                    allow_ended(send_signal(live.pidfd.as_fd(), self.signal))?;
                }
                Ok(())
            }
            Action::Kill => {
                self.kill();
                Ok(())
            }
        }
    }

    fn start_helper(&mut self, task: Task) -> Result<()> {
        let started = Helper::start(task, &self.recipe).and_then(|helper| {
            watch(&self.epoll, helper.fd(), HELPER)?;
            Ok(helper)
        });
        match started {
            Ok(helper) => {
                self.helper = Some(helper);
                Ok(())
            }
            Err(error) => {
                let why = error::in_words(&error);
                self.follow(match task {
                    Task::Create => Report::NotMade(why),
                    Task::Remove => Report::NotRemoved(why),
                })
            }
        }
    }

    /// Kills every process of the container, and whoever is making it. What can not be done now is asked for
    /// again by the policy.
    fn kill(&mut self) {
        if let Some(helper) = &self.helper {
            helper.kill();
        }
        let mut failed = None;
        if let Some(cgroup) = self
            .status
            .container
            .as_ref()
            .and_then(|c| c.cgroup.as_ref())
            && let Err(error) = std::fs::write(cgroup.join("cgroup.kill"), "1")
        {
            failed = Some(format!("{:?}: {error}", cgroup.join("cgroup.kill")));
        }
        if let Some(live) = &self.live
            && let Err(error) = allow_ended(send_signal(live.pidfd.as_fd(), libc::SIGKILL))
        {
            failed = Some(error.to_string());
        }
        self.status.faults.container = failed;
    }

    pub(super) fn hear_helper(&mut self) -> Result<()> {
        let Some(helper) = self.helper.take() else {
            return Ok(());
        };
        let report = helper.report();
        // Before there is another one: with a copy of this descriptor it would be told of for ever.
        drop(helper);
        self.follow(report)
    }

    /// Follows what a helper has done.
    fn follow(&mut self, report: Report) -> Result<()> {
        match report {
            Report::Made(container) => self.made(container),
            Report::NotMade(why) => {
                self.strays.clear();
                if let Some(attempt) = self.status.attempt() {
                    attempt.ended = Some(now());
                    attempt.reason = Some(status::reason(why));
                }
                self.tell(Event::NotMade)
            }
            Report::Removed => {
                self.status.faults.container = None;
                self.tell(Event::Removed)
            }
            Report::NotRemoved(why) => {
                self.status.faults.container = Some(status::reason(why));
                self.tell(Event::NotRemoved)
            }
        }
    }

    fn made(&mut self, container: Container) -> Result<()> {
        let pid = Pid::from_raw(container.process.pid).context("a container without a pid")?;
        if let Some(attempt) = self.status.attempt() {
            attempt.pid = Some(container.process.pid);
        }
        self.status.faults.container = None;
        self.status.container = Some(container);
        let ended = self.strays.iter().find(|(stray, _)| *stray == pid);
        let ended = ended.map(|(_, status)| *status);
        self.strays.clear();
        if let Some(status) = ended {
            self.tell(Event::Made)?;
            return self.ended(exit::of_child(status));
        }
        // A child of the helper or ours, and not waited for: the pid is still its.
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).call(|| format!("pidfd_open({pid:?})"))?;
        self.live = Some(Live { pid, pidfd });
        self.tell(Event::Made)
    }
}

/// A process that has ended gets no signal, which is told by its end.
fn allow_ended(sent: SysResult<()>) -> SysResult<()> {
    match sent {
        Err(error) if error.errno == Errno::SRCH => Ok(()),
        other => other,
    }
}
