//! Commands in containers that somebody has asked for: each by a copy of the keeper, which is told when its
//! time is over, or nobody waits for it any more.

use std::time::Duration;

use anyhow::{Result, bail};
use rustix::event::epoll;
use rustix::process::Signal;

use super::super::clock;
use super::super::control::{Answer, CONNECTIONS};
use super::super::copied::Copied;
use super::super::door::{self, Command, Report};
use super::super::policy::Moment;
use super::{Keeper, VISITS, watch};
use crate::error;

/// How long a copy may take to end a command before it is killed itself, and the command is left alone.
const PATIENCE: Duration = Duration::from_secs(10);

/// A command at work.
pub(super) struct Visit {
    /// What epoll tells of it by.
    number: usize,
    /// Who waits for it; None when they have gone.
    peer: Option<usize>,
    copy: Copied,
    /// When its time is over, for the first time or for good.
    due: Moment,
    was_ended: bool,
}

impl Keeper {
    /// Begins what a peer asks for, or says why not.
    pub(super) fn visit(&mut self, peer: usize, command: Command) -> Result<()> {
        if let Err(why) = self.begin_visit(peer, command) {
            self.control.refuse(peer, &error::in_words(&why));
        }
        Ok(())
    }

    fn begin_visit(&mut self, peer: usize, command: Command) -> Result<()> {
        let limit = door::limit(command.timeout_ms);
        let Some(limit) = limit else {
            bail!(
                "timeoutMs: must be 1 to {}, is {}",
                door::LONGEST,
                command.timeout_ms
            );
        };
        if command.args.is_empty() {
            bail!("args: a program is needed");
        }
        if self.visits.iter().any(|visit| visit.peer == Some(peer)) {
            bail!("one at a time for each connection: the last command has not ended");
        }
        let mut tasks = self.status.tasks.iter().zip(&self.members);
        let found = match &command.task {
            None if self.members.len() > 1 => {
                bail!("task: say in which, as there is a group")
            }
            None => tasks.next(),
            Some(name) => tasks.find(|(task, _)| task.name.as_ref() == Some(name)),
        };
        let Some((task, member)) = found else {
            bail!("task: there is no {:?}", command.task.unwrap_or_default());
        };
        if member.live.is_none() {
            bail!("its program does not run");
        }
        let is_free = |number: &usize| self.visits.iter().all(|visit| visit.number != *number);
        let Some(number) = (0..CONNECTIONS).find(is_free) else {
            bail!("{CONNECTIONS} commands run: try again");
        };
        let copy = door::open_door(&self.recipe.root, &task.id, command.args)?;
        watch(&self.epoll, copy.fd(), VISITS + number as u64)?;
        self.visits.push(Visit {
            number,
            peer: Some(peer),
            copy,
            due: clock::now() + limit,
            was_ended: false,
        });
        Ok(())
    }

    /// A copy has reported, or was killed.
    pub(super) fn hear_visit(&mut self, number: usize) -> Result<()> {
        let Some(place) = self.visits.iter().position(|visit| visit.number == number) else {
            return Ok(());
        };
        let visit = self.visits.swap_remove(place);
        let report = visit.copy.report();
        // Another copy may have this descriptor too, so that closing it would not end that it is told of.
        epoll::delete(&self.epoll, visit.copy.fd())?;
        let Some(peer) = visit.peer else {
            return Ok(());
        };
        match report {
            Some(Report::Ran(mut ran)) => {
                ran.timed_out = visit.was_ended;
                let text = serde_json::to_vec(&Answer { exec: ran })?;
                self.control.answer(peer, &text);
            }
            Some(Report::NotExecuted(_)) if visit.was_ended => {
                self.control
                    .refuse(peer, "its time was over before it was executed");
            }
            Some(Report::NotExecuted(why)) => self.control.refuse(peer, &why),
            None => self
                .control
                .refuse(peer, "the process that stood for it was killed"),
        }
        Ok(())
    }

    /// Ends commands whose time is over.
    pub(super) fn end_visits(&mut self, now: Moment) {
        for visit in self.visits.iter_mut().filter(|visit| now >= visit.due) {
            visit.end(now);
        }
    }

    /// Ends the command that a peer has waited for which has gone.
    pub(super) fn end_visit_of(&mut self, peer: usize) {
        for visit in &mut self.visits {
            if visit.peer == Some(peer) {
                visit.peer = None;
                visit.end(clock::now());
            }
        }
    }

    /// When the time of the next one is over.
    pub(super) fn visit_due(&self) -> Option<Moment> {
        self.visits.iter().map(|visit| visit.due).min()
    }
}

impl Visit {
    fn end(&mut self, now: Moment) {
        let signal = match self.was_ended {
            false => Signal::TERM,
            true => Signal::KILL,
        };
        self.copy.signal(signal);
        (self.was_ended, self.due) = (true, now + PATIENCE);
    }
}
