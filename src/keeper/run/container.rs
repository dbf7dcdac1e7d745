//! What happens to the container, and what it prints.

use std::os::fd::AsFd as _;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use rustix::event::epoll;
use rustix::process::{WaitOptions, wait};

use super::super::exit;
use super::super::policy::{Event, Exit};
use super::{CHANGES, Keeper, PIPES, STRAYS};
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
                    if self.live.as_ref().is_some_and(|live| live.pid == pid) {
                        self.ended(exit::of_child(status))?;
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
    pub(super) fn stranger_ended(&mut self) -> Result<()> {
        let Some(live) = &self.live else {
            return Ok(());
        };
        let pid = live.pid.as_raw_nonzero().get();
        let exit = exit::of_stranger(pid, live.pidfd.as_fd());
        self.ended(exit)
    }

    pub(super) fn ended(&mut self, exit: Exit) -> Result<()> {
        self.live = None;
        self.note_end(exit);
        // What it has printed comes before what the next one prints.
        let done = self.logs.finish();
        self.note_log(done)?;
        self.status.container = None;
        self.tell(Event::Exited(exit))
    }

    pub(super) fn note_end(&mut self, exit: Exit) {
        let cgroup = self
            .status
            .container
            .as_ref()
            .and_then(|c| c.cgroup.as_ref());
        let events =
            cgroup.and_then(|cgroup| std::fs::read_to_string(cgroup.join("memory.events")).ok());
        let kills = events.map_or(0, |text| number_of(&text, "oom_kill"));
        if let Some(attempt) = self.status.attempt() {
            attempt.ended = Some(now());
            attempt.exit = Some(exit);
            attempt.oom_kills = kills;
        }
    }

    pub(super) fn serve_pipe(&mut self, pipe: usize) -> Result<()> {
        if self.is_stuck {
            return Ok(());
        }
        let done = self.logs.serve(pipe);
        if let Ok(true) = done {
            // Others have their turn, then this one is told of again.
            let (fd, data) = (
                self.logs.pipes()[pipe],
                epoll::EventData::new_u64(PIPES[pipe]),
            );
            epoll::modify(&self.epoll, fd, data, CHANGES).call(|| "epoll_ctl(MOD)".into())?;
        }
        self.note_log(done.map(drop))
    }

    /// Notes whether the log could be written, and stops reading where nothing is to be lost.
    fn note_log(&mut self, done: SysResult<()>) -> Result<()> {
        let fault = done.err().map(|error| error.to_string());
        if fault.is_some() && !self.logs.drops() && !self.is_stuck {
            self.is_stuck = true;
            for pipe in self.logs.pipes() {
                epoll::delete(&self.epoll, pipe).call(|| "epoll_ctl(DEL)".into())?;
            }
            self.retry_soon();
        }
        if self.is_stuck && fault.is_none() || self.status.faults.log == fault {
            return Ok(());
        }
        if let Some(fault) = &fault {
            error::warn(&format!("{}: its log: {fault}", self.recipe.id));
        }
        self.status.faults.log = fault;
        self.publish();
        Ok(())
    }
}
