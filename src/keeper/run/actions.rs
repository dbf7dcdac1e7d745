//! What the policy asks for, and what comes of it.

use std::os::fd::AsFd as _;

use anyhow::{Context, Result};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::super::exit;
use super::super::helper::{Helper, Report, Task};
use super::super::policy::{Action, Event, Others};
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
                for member in &self.members {
                    if let Some(live) = &member.live {
                        allow_ended(send_signal(live.pidfd.as_fd(), member.signal))?;
                    }
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

    /// Kills every process of the containers, and whoever is making them. What can not be done now is asked for
    /// again by the policy.
    fn kill(&mut self) {
        if let Some(helper) = &self.helper {
            helper.kill();
        }
        let mut failed = None;
        for (task, member) in self.status.tasks.iter().zip(&self.members) {
            if let Some(cgroup) = task.container.as_ref().and_then(|c| c.cgroup.as_ref())
                && let Err(error) = std::fs::write(cgroup.join("cgroup.kill"), "1")
            {
                failed = Some(format!("{:?}: {error}", cgroup.join("cgroup.kill")));
            }
            if let Some(live) = &member.live
                && let Err(error) = allow_ended(send_signal(live.pidfd.as_fd(), libc::SIGKILL))
            {
                failed = Some(error.to_string());
            }
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
            Report::Made(containers) => self.made(containers),
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

    fn made(&mut self, containers: Vec<Container>) -> Result<()> {
        self.status.faults.container = None;
        let mut ended = Vec::new();
        for (task, container) in containers.into_iter().enumerate() {
            let pid = container.process.pid;
            if let Some(program) = self.status.program(task) {
                program.pid = Some(pid);
            }
            self.status.tasks[task].container = Some(container);
            let pid = Pid::from_raw(pid).context("a container without a pid")?;
            if let Some((_, status)) = self.strays.iter().find(|(stray, _)| *stray == pid) {
                ended.push((task, exit::of_child(*status)));
                continue;
            }
            // A child of the helper or ours, and not waited for: the pid is still its.
            let pidfd =
                pidfd_open(pid, PidfdFlags::empty()).call(|| format!("pidfd_open({pid:?})"))?;
            self.members[task].live = Some(Live { pid, pidfd });
        }
        self.strays.clear();
        self.tell(Event::Made)?;
        // All are noted as ends of this attempt before one of them may begin another.
        for (task, exit) in &ended {
            self.note_end(*task, *exit)?;
        }
        let mut left = ended.len();
        for (_, exit) in ended {
            left -= 1;
            let run = left > 0 || self.members.iter().any(|member| member.live.is_some());
            let others = if run { Others::Run } else { Others::Ended };
            self.tell_end(exit, others)?;
        }
        Ok(())
    }
}

/// A process that has ended gets no signal, which is told by its end.
fn allow_ended(sent: SysResult<()>) -> SysResult<()> {
    match sent {
        Err(error) if error.errno == Errno::SRCH => Ok(()),
        other => other,
    }
}
