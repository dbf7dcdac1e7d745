//! What is wanted: on disk before it is followed.

use std::collections::HashMap;
use std::sync::PoisonError;

use anyhow::{Context, Result, bail};
use tokio::sync::oneshot;

use super::troubles::Trouble;
use super::{Driver, Flatten as _, Host, Input, disk, instance_name, place};
use crate::agent::Wanted;
use crate::agent::reconcile::{Event, Name, Want, WantedSlot};
use crate::error;

/// What is to be followed: how each instance is made, and which are wanted.
pub type Plan = (HashMap<Name, place::Recipe>, Want);

/// Who hears what came of it.
pub type Answer = oneshot::Sender<Result<()>>;

impl Driver {
    /// Has it written; instances do not wait for the disk meanwhile. [`Input::Recorded`] follows.
    pub(super) fn want(&self, wanted: Wanted, answer: Answer) {
        let planned = not_older(self.state.revision, wanted.revision).and_then(|()| plan(&wanted));
        let planned = match planned {
            Ok(planned) => planned,
            Err(error) => return drop(answer.send(Err(error))),
        };
        let (host, inbox) = (self.host.clone(), self.inbox.clone());
        tokio::spawn(async move {
            let recorded = tokio::task::spawn_blocking(move || host.record(&wanted)).await;
            match recorded.context("write what is wanted").flatten_() {
                Ok(()) => inbox.send(Input::Recorded(planned, answer)),
                Err(error) => drop(answer.send(Err(error))),
            }
        });
    }

    /// It is on disk: it is followed, unless something newer is already.
    pub(super) fn recorded(&mut self, (jobs, want): Plan, answer: Answer) {
        if not_older(self.state.revision, want.revision).is_ok() {
            self.note_wanted(&want);
            self.jobs = jobs;
            self.step(Event::Want(want));
        }
        let _gone = answer.send(Ok(()));
    }
}

impl Host {
    /// Writes down what is wanted, one after the other and never an older revision. Blocks.
    fn record(&self, wanted: &Wanted) -> Result<()> {
        let mut last = self.recorded.lock().unwrap_or_else(PoisonError::into_inner);
        not_older(*last, wanted.revision)?;
        let written = match *last {
            Some(_) => disk::write_wanted(&self.options.state, wanted),
            None => self.write_first(wanted),
        };
        let why = written.as_ref().err().map(error::in_words);
        self.troubles.set(Trouble::Wanted, why.as_deref());
        written?;
        *last = Some(wanted.revision);
        Ok(())
    }

    /// Writes what is wanted first after a start, unless it is there already: then no room is needed.
    fn write_first(&self, wanted: &Wanted) -> Result<()> {
        let state = &self.options.state;
        match disk::read_wanted(state) {
            // Whoever wrote it may not have been able to make its name safe.
            Ok(Some(there)) if there == *wanted => disk::keep_names(state),
            Ok(_) | Err(_) => disk::write_wanted(state, wanted),
        }
    }
}

fn not_older(last: Option<u64>, revision: u64) -> Result<()> {
    if let Some(last) = last.filter(|last| revision < *last) {
        bail!(
            "revision {revision} is older than {last}, which is wanted already: everything goes on as it is. If the \
             store was emptied or put back on purpose, stop the daemon, remove {:?} in the agent's directory, and start it",
            disk::WANTED
        );
    }
    Ok(())
}

/// Which instances are wanted, by their names.
///
/// # Errors
///
/// Two of them would have one name.
pub fn plan(wanted: &Wanted) -> Result<Plan> {
    let mut jobs = HashMap::new();
    let mut slots = Vec::new();
    for one in &wanted.jobs {
        let id = one.job.id();
        for index in 0..one.count {
            let name: Name = instance_name(&one.job, &id.digest, index).into();
            let recipe = place::Recipe {
                name: name.clone(),
                job: one.job.clone(),
                id: id.clone(),
                index,
            };
            if jobs.insert(name.clone(), recipe).is_some() {
                bail!(
                    "two jobs would have instances of the name {name:?}: give one another version"
                );
            }
            slots.push(WantedSlot {
                name,
                job: id.clone(),
                index,
                goal: one.goal,
            });
        }
    }
    let revision = wanted.revision;
    Ok((jobs, Want { revision, slots }))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::start::tests::host;
    use super::*;

    #[test]
    fn an_older_revision_is_never_written_over_a_newer_one() {
        let (folder, host) = host("wanted");
        let wanted = |revision| Wanted {
            revision,
            jobs: Vec::new(),
        };
        host.record(&wanted(6)).unwrap();
        // What was put in before and comes to the disk later.
        let told = host.record(&wanted(5)).unwrap_err().to_string();
        assert!(told.starts_with("revision 5 is older than 6"), "{told}");
        assert!(told.contains("remove \"wanted\""), "{told}");
        let there = disk::read_wanted(&host.options.state).unwrap();
        assert_eq!(there, Some(wanted(6)));
        fs::remove_dir_all(folder).unwrap();
    }
}
