//! What is worth a line in the history.
//!
//! Ends and beginnings of programs come from the attempts that a keeper remembers, the last 16: what has
//! happened while there was no agent is told afterwards, and nothing is told twice.

use super::events::{Note, REMOVED};
use super::reaper::Reaped;
use super::{Driver, about};
use crate::agent::Origin;
use crate::agent::reconcile::{Event, Name, Want};
use crate::agent::report::{Told, told_in_words};
use crate::api::{Health, Instance};
use crate::error;
use crate::job::JobId;

impl Driver {
    /// A keeper tells how its instance is.
    pub(super) fn told(&mut self, name: Name, told: Told) {
        let (begun, ended) = self.told.get(&*name).copied().unwrap_or_default();
        let mut now = (begun, ended);
        for attempt in &told.attempts {
            let number = attempt.number;
            let pids: Option<Vec<String>> = (attempt.programs.iter())
                .map(|program| Some(program.pid?.to_string()))
                .collect();
            if let Some(pids) = pids.filter(|pids| !pids.is_empty())
                && number > now.0
            {
                now.0 = number;
                let cause = format!("process {}", pids.join(", "));
                self.note(&name, "started", cause, Some(number));
            }
            if attempt.ended.is_some() && number > now.1 {
                now = (number.max(now.0), number);
                let mut cause = told.end_in_words(attempt);
                if let Some(why) = told_in_words(attempt) {
                    cause = format!("{cause}, as {why}");
                }
                self.note(&name, "ended", cause, Some(number));
            }
        }
        if now != (begun, ended) {
            self.told.insert(name.to_string(), now);
        }
        self.step(Event::Told(name, told.report.into()));
    }

    /// Notes what an event of `step` means to people.
    pub(super) fn note_event(&mut self, event: &Event) {
        let Some(name) = about(event).cloned() else {
            return;
        };
        let (kind, cause) = match event {
            Event::NotMade(_, why) | Event::NotKept(_, why) | Event::NotDeleted(_, why) => {
                ("broken", why.clone())
            }
            Event::Lost(_) if self.is_kept(&name) => ("keeper-lost", "its keeper has ended".into()),
            Event::Deleted(_) => (
                REMOVED,
                "it is not wanted, and nothing is left of it".into(),
            ),
            Event::Checked(_, Health::Unhealthy, why) => ("unhealthy", why.clone()),
            Event::Checked(_, Health::Ready, why) if self.health(&name) != Some(Health::Ready) => {
                ("ready", why.clone())
            }
            Event::Begun { .. }
            | Event::Want(_)
            | Event::Halt(_)
            | Event::Made(..)
            | Event::Kept(_)
            | Event::Told(..)
            | Event::Lost(_)
            | Event::Checked(..)
            | Event::Time => return,
        };
        // What fails again in the same way is one line.
        let fault = self
            .state
            .slots
            .get(&name)
            .and_then(|slot| slot.fault.as_ref());
        if kind != "broken" || fault != Some(&cause) {
            self.note(&name, kind, cause, None);
        }
        if kind == REMOVED {
            self.told.remove(&*name);
        }
    }

    fn health(&self, name: &Name) -> Option<Health> {
        self.state.slots.get(name).map(|slot| slot.health)
    }

    /// Notes what is new in what is wanted, before it is followed.
    pub(super) fn note_wanted(&mut self, want: &Want) {
        for one in &want.slots {
            if !self.state.slots.contains_key(&one.name) {
                self.log.add(Note {
                    job: Some(&one.job),
                    instance: Some(&one.name),
                    kind: "deployed",
                    cause: format!("it is wanted since revision {}", want.revision),
                    attempt: None,
                });
            }
        }
    }

    /// Notes that an instance begins or ceases to fail again and again.
    pub(super) fn note_change(&mut self, name: &Name, now: &Instance) {
        let before = self.views.get(name).is_some_and(|view| view.flapping);
        match (before, now.flapping) {
            (false, true) => {
                let next = now.next_attempt.as_deref().unwrap_or("soon");
                let cause =
                    format!("it has failed at least twice in a row; the next attempt: {next}");
                self.note(name, "flapping", cause, None);
            }
            (true, false) => {
                let cause = "it has had a good run, or somebody has asked for it".to_owned();
                self.note(name, "steady", cause, None);
            }
            (true, true) | (false, false) => {}
        }
    }

    pub(super) fn note_asked(&mut self, name: &str, reason: String) {
        let name: Name = name.into();
        self.note(&name, "restart", reason, None);
    }

    pub(super) fn note_job(&mut self, job: &JobId, kind: &str, cause: String) {
        self.log.add(Note {
            job: Some(job),
            instance: None,
            kind,
            cause,
            attempt: None,
        });
    }

    pub(super) fn note_accepted(&mut self, origin: &Origin) {
        let store = origin.store.as_deref().unwrap_or("without a name");
        let revision = origin.revision;
        let cause =
            format!("what store {store} says at revision {revision} is the truth from now on");
        self.note_host("accepted", None, cause);
    }

    pub(super) fn note_fault(&mut self, cause: String) {
        self.note_host("fault", None, cause);
    }

    pub(super) fn note_reaped(&mut self, reaped: Reaped) {
        for (container, why) in reaped {
            let cause = format!("container {container:?} was removed: {why}");
            error::warn(&cause);
            self.note_host("reaped", None, cause);
        }
    }

    fn note_host(&mut self, kind: &str, instance: Option<&str>, cause: String) {
        self.log.add(Note {
            job: None,
            instance,
            kind,
            cause,
            attempt: None,
        });
    }

    fn note(&mut self, name: &Name, kind: &str, cause: String, attempt: Option<u64>) {
        let slot = self.state.slots.get(name);
        self.log.add(Note {
            job: slot.map(|slot| &slot.job),
            instance: Some(name),
            kind,
            cause,
            attempt,
        });
    }
}
