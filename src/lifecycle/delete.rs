//! The end of a container: `delete`, and what `create` and `run` do when theirs has failed or ended.
//!
//! In this order, so that the record goes last: every process is killed and has ended, the cgroup
//! is removed, the poststop hooks run, the state directory is removed. A failure does not stop
//! what can still be done, and all failures are reported; the record then stays, so that the next
//! `delete` finds what is left.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use anyhow::{Result, anyhow, bail};

use super::id::ContainerId;
use super::process::{END_LIMIT, Process, send_signal, wait_for_exit};
use super::record::{Known, Record, Snapshot, Unread};
use super::{Status, Verb, hooks, permit, query};
use crate::cgroups::{Cgroup, Unit};
use crate::error::{self, Kind};
use crate::sys::{Errno, lock};

/// Whether a container may be deleted while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Force {
    /// Only one that is stopped, or was never started.
    No,
    /// Any, and that there is none is no error.
    Yes,
}

/// Deletes a container.
///
/// # Errors
///
/// [`Kind::NotFound`], [`Kind::WrongStatus`]; or everything that could not be removed.
pub fn delete(root: &Path, id: &ContainerId, force: Force) -> Result<()> {
    delete_known(root, id, force, Prepared::default())
}

/// What a container's deletion needs to know, found while the container runs: its caller waits for the deletion.
#[derive(Debug, Default)]
pub struct Prepared {
    known: Option<Known>,
    cgroup: Option<Cgroup>,
}

impl Prepared {
    /// For the container of `record`. What can not be found now is looked for when it is deleted, and told then.
    #[must_use]
    pub fn of(record: &Record) -> Prepared {
        Prepared {
            known: record.known().ok(),
            cgroup: query::cgroup(record).unwrap_or_default(),
        }
    }
}

/// As [`delete`], by force, for who has made the container. What others have done to it since is not overlooked.
///
/// # Errors
///
/// As for [`delete`].
pub fn delete_prepared(root: &Path, id: &ContainerId, prepared: Prepared) -> Result<()> {
    delete_known(root, id, Force::Yes, prepared)
}

fn delete_known(
    root: &Path,
    id: &ContainerId,
    force: Force,
    Prepared { known, cgroup }: Prepared,
) -> Result<()> {
    let unread = match lock(root, id, force) {
        Err(error) if force == Force::Yes && Kind::is_not_found(&error) => return Ok(()),
        other => other?,
    };
    let record = match unread.read(known) {
        Ok(record) => record,
        Err((error, unread)) if force == Force::Yes => {
            if !unread.remove()? {
                return Err(error.context("deleted without knowing its processes and cgroup"));
            }
            let error =
                error.context("deleted with its processes and cgroup, without poststop hooks");
            error::warn(&format!(
                "delete {:?}: {}",
                id.as_str(),
                error::in_words(&error)
            ));
            return Ok(());
        }
        Err((error, _)) => return Err(error),
    };
    if !record.is_written() && !record.holds_only_our_files()? {
        return Err(Kind::NotFound(id.to_string()).into());
    }
    if force == Force::No {
        permit(Verb::Delete, id, &query::status(&record)?)?;
    }
    // Where it is not empty it is opened anew: another one may be in its place.
    let is_gone = record.facts.unit.is_none()
        && cgroup.is_some_and(|cgroup| {
            record.facts.cgroup.as_deref() == Some(cgroup.path()) && cgroup.remove_at_once()
        });
    match is_gone {
        true => destroy_beside(record, Ok(None)),
        false => destroy(record),
    }
}

/// Ends and removes everything that the record speaks of, and the record.
///
/// # Errors
///
/// Everything that could not be removed; the record stays then.
pub fn destroy(record: Record) -> Result<()> {
    let cgroup = query::cgroup(&record);
    destroy_beside(record, cgroup)
}

fn destroy_beside(record: Record, cgroup: Result<Option<Cgroup>>) -> Result<()> {
    let (cgroup, found) = match cgroup {
        Ok(cgroup) => (cgroup, Ok(())),
        Err(error) => (None, Err(error)),
    };
    // As a rule nobody is in it any more, and nothing below it. A unit's cgroup is systemd's.
    let unit = record.facts.unit.as_ref();
    let left = cgroup.filter(|cgroup| unit.is_some() || !cgroup.remove_at_once());
    let ended = end_processes(&record, left.as_ref());
    let stopped = unit.map_or(Ok(()), Unit::stop);
    let removed = left.map_or(Ok(()), |cgroup| cgroup.remove());
    let groups = record.facts.resctrl.as_ref();
    let regrouped = groups.map_or(Ok(()), |groups| groups.remove());
    let failures: Vec<_> = [found, ended, stopped, removed, regrouped]
        .into_iter()
        .filter_map(Result::err)
        .collect();
    if !failures.is_empty() {
        record.keep();
        return Err(all_of(&failures));
    }
    // OCI: a poststop hook that fails is a warning, and the next one runs.
    let state = hooks::state(&record, &Status::Stopped, None);
    for error in hooks::run_each("poststop", &record.facts.poststop, &state, &record.facts) {
        error::warn(&error::in_words(&error));
    }
    record.remove()
}

/// Locks the container. Whoever is changing it is given the chance to end: with force, its
/// processes are killed, so that a `create` or `start` that waits for one of them fails.
fn lock(root: &Path, id: &ContainerId, force: Force) -> Result<Unread> {
    if force == Force::No {
        return Unread::wait(root, id);
    }
    loop {
        if let Some(unread) = Unread::at_once(root, id)? {
            return Ok(unread);
        }
        let kill = |busy: Snapshot| kill_processes(&busy, query::cgroup(&busy)?.as_ref()).map(drop);
        if let Err(error) = Snapshot::read(root, id).and_then(kill) {
            // What is left is ended under the lock; this was only to get it sooner.
            error::debug(|| format!("delete {id}: before its lock: {}", error::in_words(&error)));
            return Unread::wait(root, id);
        }
        // Again: a create may clone its init only now.
        lock::wait_a_moment();
    }
}

/// Kills init and every process in the cgroup, and waits until all have ended.
fn end_processes(container: &Snapshot, cgroup: Option<&Cgroup>) -> Result<()> {
    let init = kill_processes(container, cgroup)?;
    if let Some(cgroup) = cgroup {
        cgroup.wait_empty(END_LIMIT)?;
    }
    let Some(pidfd) = init else { return Ok(()) };
    if !wait_for_exit(pidfd.as_fd(), Some(END_LIMIT))? {
        let pid = container
            .init
            .as_ref()
            .map_or(0, |Process { pid, .. }| *pid);
        bail!(
            "process {pid} has not ended {} s after SIGKILL",
            END_LIMIT.as_secs()
        );
    }
    Ok(())
}

/// Kills every process; the living init, if it is there.
fn kill_processes(container: &Snapshot, cgroup: Option<&Cgroup>) -> Result<Option<OwnedFd>> {
    // Opened before it is killed, and if it can not be, the others are killed all the same.
    let init = container.init.as_ref().map(Process::open).transpose();
    if let Some(cgroup) = cgroup {
        cgroup.kill_all()?;
    }
    let init = init?.flatten();
    if let Some(pidfd) = &init {
        // Normally dead by now; it lives if someone has moved it out of its cgroup.
        match send_signal(pidfd.as_fd(), libc::SIGKILL) {
            Err(error) if error.errno != Errno::SRCH => return Err(error.into()),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(init)
}

/// Several errors as one, in the order in which they came; the same one only once.
fn all_of(errors: &[anyhow::Error]) -> anyhow::Error {
    let mut texts: Vec<String> = errors.iter().map(error::in_words).collect();
    texts.dedup();
    anyhow!(texts.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lifecycle::facts::Facts;
    use crate::lifecycle::testing::{Root, Sleeper, facts, id};
    use oci_spec::runtime::HookBuilder;
    use std::fs;

    fn running(root: &Root, child: &Sleeper, facts: Facts) {
        let mut record = Record::reserve(root.path(), &id("web"), facts).unwrap();
        record.created(child.process()).unwrap();
        record.keep();
    }

    #[test]
    fn delete_refuses_a_running_container() {
        let root = Root::new();
        let child = Sleeper::new();
        running(&root, &child, facts());
        let error = delete(root.path(), &id("web"), Force::No).unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot delete container web that is not stopped: running"
        );
        assert!(root.path().join("web/state.json").exists());
    }

    #[test]
    fn delete_removes_a_stopped_container_and_one_that_is_only_created() {
        let root = Root::new();
        let child = Sleeper::new();
        running(&root, &child, facts());
        child.end_without_reaping();
        delete(root.path(), &id("web"), Force::No).unwrap();
        let child = Sleeper::new();
        let mut record = Record::reserve(root.path(), &id("web"), facts()).unwrap();
        record.created(child.process()).unwrap();
        let _lock = record.lock_for_init().unwrap();
        record.keep();
        delete(root.path(), &id("web"), Force::No).unwrap();
        assert_eq!(child.ended_by(), Some(9));
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    }

    #[test]
    fn delete_by_force_ends_a_running_container() {
        let root = Root::new();
        let child = Sleeper::new();
        running(&root, &child, facts());
        delete(root.path(), &id("web"), Force::Yes).unwrap();
        assert_eq!(child.ended_by(), Some(9));
        assert!(!root.path().join("web").exists());
    }

    #[test]
    fn what_was_prepared_is_deleted_as_it_is_by_then() {
        let root = Root::new();
        for is_changed in [false, true] {
            let (before, after) = (Sleeper::new(), Sleeper::new());
            let mut record = Record::reserve(root.path(), &id("web"), facts()).unwrap();
            record.created(before.process()).unwrap();
            let prepared = Prepared::of(&record);
            if is_changed {
                record.created(after.process()).unwrap();
            }
            record.keep();
            delete_prepared(root.path(), &id("web"), prepared).unwrap();
            assert!(!root.path().join("web").exists());
            let named = if is_changed { after } else { before };
            assert_eq!(named.ended_by(), Some(9), "changed: {is_changed}");
        }
        // Somebody else was first.
        let record = Record::reserve(root.path(), &id("web"), facts()).unwrap();
        let prepared = Prepared::of(&record);
        record.keep();
        delete(root.path(), &id("web"), Force::Yes).unwrap();
        delete_prepared(root.path(), &id("web"), prepared).unwrap();
    }

    #[test]
    fn an_unknown_container_is_an_error_only_without_force() {
        let root = Root::new();
        let error = delete(root.path(), &id("no"), Force::No).unwrap_err();
        assert_eq!(error.downcast_ref(), Some(&Kind::NotFound("no".into())));
        delete(root.path(), &id("no"), Force::Yes).unwrap();
    }

    #[test]
    fn what_a_killed_create_leaves_is_deleted() {
        let root = Root::new();
        for force in [Force::No, Force::Yes] {
            fs::create_dir(root.path().join("half")).unwrap();
            delete(root.path(), &id("half"), force).unwrap();
            Record::reserve(root.path(), &id("half"), facts())
                .unwrap()
                .keep();
            delete(root.path(), &id("half"), force).unwrap();
        }
    }

    #[test]
    fn a_damaged_record_needs_force_and_is_told() {
        let root = Root::new();
        let damaged = || {
            let record = Record::reserve(root.path(), &id("web"), facts());
            record.unwrap().keep();
            fs::write(root.path().join("web/state.json"), "").unwrap();
        };
        damaged();
        delete(root.path(), &id("web"), Force::No).unwrap_err();
        delete(root.path(), &id("web"), Force::Yes).unwrap();
        damaged();
        fs::remove_file(root.path().join("web/cgroup")).unwrap();
        let error = delete(root.path(), &id("web"), Force::Yes)
            .unwrap_err()
            .to_string();
        assert_eq!(error, "deleted without knowing its processes and cgroup");
        delete(root.path(), &id("web"), Force::Yes).unwrap();
    }

    #[test]
    fn somebody_elses_directory_is_not_deleted() {
        let root = Root::new();
        fs::create_dir_all(root.path().join("home/files")).unwrap();
        fs::create_dir(root.path().join("runc")).unwrap();
        fs::write(root.path().join("runc/state.json"), "{\"id\":\"runc\"}").unwrap();
        fs::write(root.path().join("runc/exec.fifo"), "").unwrap();
        for name in ["home", "runc"] {
            assert!(delete(root.path(), &id(name), Force::Yes).is_err());
        }
        assert!(
            root.path().join("home/files").exists() && root.path().join("runc/state.json").exists()
        );
    }

    #[test]
    fn poststop_hooks_run_before_the_record_goes_and_their_failure_is_no_error() {
        let root = Root::new();
        let seen = root.path().join("seen");
        let state = root.path().join("web/state.json");
        let script = format!(
            "test -e {} && cat > {}; exit 1",
            state.display(),
            seen.display()
        );
        let args = ["sh", "-c", &script].map(String::from);
        let hook = HookBuilder::default().path("/bin/sh").args(args);
        let hook = hook.env(["PATH=/bin:/usr/bin".to_owned()]).build().unwrap();
        let facts = Facts {
            poststop: vec![hook],
            ..facts()
        };
        Record::reserve(root.path(), &id("web"), facts)
            .unwrap()
            .keep();
        delete(root.path(), &id("web"), Force::No).unwrap();
        let state = fs::read_to_string(seen).unwrap();
        assert!(state.contains("\"status\":\"stopped\""), "{state}");
    }
}
