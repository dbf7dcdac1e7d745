//! What happens to the container, and what it prints.

use std::os::fd::AsFd as _;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use rustix::event::epoll;
use rustix::process::{WaitOptions, wait};

use super::super::exit;
use super::super::policy::{Event, Exit, Others};
use super::{CHANGES, Keeper, Live, Member, PIPES, STRAYS, of_task};
use crate::cgroups::number_of;
use crate::error;
use crate::lifecycle::facts::now;
use crate::sys::{Call, Errno, SysError, SysResult};

impl Keeper {
    pub(super) fn hear_signals(&mut self) -> Result<()> {
        while let Some(info) = self.signals.read_signal().context("read(signalfd)")? {
            if info.ssi_signo != Signal::SIGCHLD as u32 {
                self.asked_to_end += 1;
            }
        }
        self.reap()
    }

    /// Waits for every child that has ended: the container's first process, helpers, orphans.
    fn reap(&mut self) -> Result<()> {
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => {
                    let is_it = |live: &Live| live.pid == pid;
                    let member = |member: &Member| member.live.as_ref().is_some_and(is_it);
                    if let Some(task) = self.members.iter().position(member) {
                        self.ended(task, exit::of_child(status))?;
                    } else if self.helper.is_some() {
                        if self.strays.len() == STRAYS {
                            self.strays.remove(0);
                        }
                        self.strays.push((pid, status));
                    }
                }
                Ok(None) | Err(Errno::CHILD) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(SysError::new("wait4(-1)", errno).into()),
            }
        }
    }

    /// The first process of a container that is no child of ours has ended.
    pub(super) fn stranger_ended(&mut self, task: usize) -> Result<()> {
        let Some(live) = &self.members[task].live else {
            return Ok(());
        };
        let pid = live.pid.as_raw_nonzero().get();
        let exit = exit::of_stranger(pid, live.pidfd.as_fd());
        self.ended(task, exit)
    }

    fn ended(&mut self, task: usize, exit: Exit) -> Result<()> {
        self.members[task].live = None;
        self.note_end(task, exit)?;
        let others = match self.members.iter().any(|member| member.live.is_some()) {
            true => Others::Run,
            false => Others::Ended,
        };
        self.tell_end(exit, others)
    }

    /// Tells the policy of an end that was noted, and in any case who watches.
    pub(super) fn tell_end(&mut self, exit: Exit, others: Others) -> Result<()> {
        if others == Others::Ended
            && let Some(attempt) = self.status.attempt()
        {
            attempt.ended = Some(now());
        }
        let before = self.status.state.clone();
        self.tell(Event::Exited(exit, others))?;
        if self.status.state == before {
            self.publish();
        }
        Ok(())
    }

    /// Notes how a program has ended, and takes what it has printed, which comes before what the next one prints.
    pub(super) fn note_end(&mut self, task: usize, exit: Exit) -> Result<()> {
        self.note_exit(task, exit);
        let done = self.members[task].logs.finish();
        self.note_log(task, done)?;
        self.status.tasks[task].container = None;
        Ok(())
    }

    /// Notes that a program has ended while it had no keeper, unless its end is known.
    pub(super) fn note_lost(&mut self, task: usize) {
        if self
            .status
            .program(task)
            .is_none_or(|program| program.exit.is_none())
        {
            self.note_exit(task, Exit::Unknown);
        }
        if !self.members.iter().any(|member| member.live.is_some())
            && let Some(attempt) = self.status.attempt()
        {
            attempt.ended = Some(now());
        }
    }

    fn note_exit(&mut self, task: usize, exit: Exit) {
        let container = self.status.tasks[task].container.as_ref();
        let cgroup = container.and_then(|container| container.cgroup.as_ref());
        let events =
            cgroup.and_then(|cgroup| std::fs::read_to_string(cgroup.join("memory.events")).ok());
        let kills = events.map_or(0, |text| number_of(&text, "oom_kill"));
        if let Some(program) = self.status.program(task) {
            program.ended = Some(now());
            program.exit = Some(exit);
            program.oom_kills = kills;
        }
    }

    /// Whether a task's program has ended well in this attempt, and is not to start again for itself.
    pub(super) fn has_completed(&self, task: usize) -> bool {
        let program = self.status.attempts.last();
        let exit = program.and_then(|attempt| attempt.programs.get(task)?.exit);
        exit.is_some_and(|exit| self.policy.completes(exit))
    }

    pub(super) fn serve_pipe(&mut self, task: usize, pipe: usize) -> Result<()> {
        let member = &mut self.members[task];
        if member.is_stuck {
            return Ok(());
        }
        let done = member.logs.serve(pipe);
        if let Ok(true) = done {
            // Others have their turn, then this one is told of again.
            let (fd, data) = (
                member.logs.pipes()[pipe],
                epoll::EventData::new_u64(of_task(PIPES[pipe], task)),
            );
            epoll::modify(&self.epoll, fd, data, CHANGES).call(|| "epoll_ctl(MOD)".into())?;
        }
        self.note_log(task, done.map(drop))
    }

    /// Notes whether the log could be written, and stops reading where nothing is to be lost.
    fn note_log(&mut self, task: usize, done: SysResult<()>) -> Result<()> {
        let fault = done.err().map(|error| error.to_string());
        let member = &mut self.members[task];
        if fault.is_some() && !member.logs.drops() && !member.is_stuck {
            member.is_stuck = true;
            for pipe in member.logs.pipes() {
                epoll::delete(&self.epoll, pipe).call(|| "epoll_ctl(DEL)".into())?;
            }
            self.retry_soon();
        }
        let is_stuck = self.members.iter().any(|member| member.is_stuck);
        if is_stuck && fault.is_none() || self.status.faults.log == fault {
            return Ok(());
        }
        if let Some(fault) = &fault {
            error::warn(&format!("{}: its log: {fault}", self.status.tasks[task].id));
        }
        self.status.faults.log = fault;
        self.publish();
        Ok(())
    }
}
