//! What is wanted: on disk before it is followed.

use std::collections::HashMap;
use std::sync::PoisonError;

use anyhow::{Context, Result, bail};
use tokio::sync::oneshot;

use super::troubles::Trouble;
use super::{Driver, Flatten as _, Host, Input, disk, instance_name, place};
use crate::agent::reconcile::{Event, Name, Want, WantedSlot};
use crate::agent::{Origin, Wanted};
use crate::error;

/// What is to be followed: how each instance is made, and which are wanted.
pub type Plan = (HashMap<Name, place::Recipe>, Want);

/// Who hears what came of it.
pub type Answer = oneshot::Sender<Result<()>>;

impl Driver {
    /// Has it written; instances do not wait for the disk meanwhile. [`Input::Recorded`] follows.
    /// With `anyway` it is taken whatever store or revision it is from.
    pub(super) fn want(&self, wanted: Wanted, anyway: bool, answer: Answer) {
        let checked = match anyway {
            true => Ok(()),
            false => Origin::of(&wanted).check(self.origin.as_ref()),
        };
        let planned = checked.map_err(anyhow::Error::new);
        let planned = planned.and_then(|()| plan(&wanted)).map(|(jobs, want)| {
            let want = Want { anyway, ..want };
            (jobs, want)
        });
        let planned = match planned {
            Ok(planned) => planned,
            Err(error) => return drop(answer.send(Err(error))),
        };
        let (host, inbox) = (self.host.clone(), self.inbox.clone());
        tokio::spawn(async move {
            let origin = Origin::of(&wanted);
            let recorded = tokio::task::spawn_blocking(move || host.record(&wanted, anyway)).await;
            match recorded.context("write what is wanted").flatten_() {
                Ok(()) => inbox.send(Input::Recorded(planned, origin, answer)),
                Err(error) => drop(answer.send(Err(error))),
            }
        });
    }

    /// It is on disk: it is followed, unless something newer is already.
    pub(super) fn recorded(&mut self, (jobs, want): Plan, origin: Origin, answer: Answer) {
        if want.anyway || origin.check(self.origin.as_ref()).is_ok() {
            if want.anyway {
                self.note_accepted(&origin);
            }
            self.note_wanted(&want);
            (self.jobs, self.origin) = (jobs, Some(origin));
            self.step(Event::Want(want));
        }
        let _gone = answer.send(Ok(()));
    }
}

impl Host {
    /// Writes down what is wanted, one after the other and never an older revision, but `anyway`. Blocks.
    fn record(&self, wanted: &Wanted, anyway: bool) -> Result<()> {
        let mut last = self.recorded.lock().unwrap_or_else(PoisonError::into_inner);
        let origin = Origin::of(wanted);
        if !anyway {
            origin.check(last.as_ref())?;
        }
        let written = match *last {
            Some(_) => disk::write_wanted(&self.options.state, wanted),
            None => self.write_first(wanted),
        };
        let why = written.as_ref().err().map(error::in_words);
        self.troubles.set(Trouble::Wanted, why.as_deref());
        written?;
        *last = Some(origin);
        self.reserve(wanted);
        Ok(())
    }

    /// Sees to it that no port is chosen which a job asks for.
    pub(super) fn reserve(&self, wanted: &Wanted) {
        let ports = self.ports.lock();
        let mut ports = ports.unwrap_or_else(PoisonError::into_inner);
        ports.reserve(wanted.reserved.clone());
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
    let want = Want {
        revision,
        anyway: false,
        slots,
    };
    Ok((jobs, want))
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
            store: Some("aa".to_owned()),
            revision,
            jobs: Vec::new(),
            reserved: [20_000].into(),
        };
        host.record(&wanted(6), false).unwrap();
        // What was put in before and comes to the disk later.
        let told = host.record(&wanted(5), false).unwrap_err().to_string();
        assert!(told.starts_with("revision 5 is older than 6"), "{told}");
        let there = || disk::read_wanted(&host.options.state).unwrap();
        assert_eq!(there(), Some(wanted(6)));
        let other = Wanted {
            store: Some("bb".to_owned()),
            ..wanted(900)
        };
        let told = host.record(&other, false).unwrap_err().to_string();
        assert!(told.starts_with("this is store bb"), "{told}");
        assert_eq!(there(), Some(wanted(6)));
        host.record(&wanted(5), true).unwrap();
        assert_eq!(there(), Some(wanted(5)));
        fs::remove_dir_all(folder).unwrap();
    }
}
