//! What people ask for.

use std::os::fd::AsFd as _;
use std::time::Duration;

use anyhow::Result;

use super::super::control::{CONNECTIONS, Request, Said};
use super::super::policy::{Event, Phase, Stop};
use super::super::status;
use super::{Keeper, PEERS, watch};
use crate::sys::SysResult;

impl Keeper {
    pub(super) fn accept(&mut self) -> Result<()> {
        if let Some((number, fd)) = self.control.accept()? {
            watch(&self.epoll, fd, PEERS + number as u64)?;
            // Of one with this number that has gone before.
            self.end_visit_of(number);
        }
        Ok(())
    }

    pub(super) fn hear_peer(&mut self, number: usize) -> Result<()> {
        debug_assert!(number < CONNECTIONS);
        let request = match self.control.hear(number) {
            Said::Request(request) => request,
            Said::Gone => {
                self.end_visit_of(number);
                return Ok(());
            }
            Said::Nothing | Said::Refused => return Ok(()),
        };
        match request {
            Request::Status | Request::Watch => {}
            Request::Start => self.tell(Event::Start)?,
            Request::Stop => self.tell(Event::Stop)?,
            Request::Restart => self.tell(Event::Restart)?,
            Request::Unhealthy { reason } => self.unhealthy(reason)?,
            Request::Halt { within_ms } => {
                self.tell(Event::Halt(Duration::from_millis(within_ms)))?;
            }
            Request::Exec(command) => return self.visit(number, command),
        }
        self.count_output();
        self.control.answer(number, &self.status.text());
        Ok(())
    }

    fn unhealthy(&mut self, reason: String) -> Result<()> {
        self.tell(Event::Unhealthy)?;
        let stops = matches!(
            self.status.state.phase,
            Phase::Stopping {
                why: Stop::Unhealthy,
                ..
            }
        );
        if stops && let Some(attempt) = self.status.attempt() {
            attempt.reason = Some(status::reason(reason));
            self.publish();
        }
        Ok(())
    }

    /// Leaves the container to the next keeper.
    pub(super) fn leave(mut self) {
        let done = self.members.iter_mut().map(|member| member.logs.retry());
        let faults = done
            .filter_map(SysResult::err)
            .map(|error| error.to_string());
        self.status.faults.log = faults.reduce(|all, one| format!("{all}; {one}"));
        self.status.keeper = 0;
        self.publish();
        self.control.remove(self.ground.directory.as_fd());
    }
}
