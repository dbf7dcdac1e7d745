//! One container on disk: what is written about it, by whom and when.
//!
//! The directory `<root>/<id>` is the id's reservation: `mkdir` is atomic, so of any number of
//! parallel creates one wins. Everything that `delete` needs is written before the first effect
//! outside the directory; after `kill -9` at any step `delete --force` therefore finds all of it.
//!
//! Who changes a container holds its lock ([`Record`]); who only asks reads without it
//! ([`Snapshot`]). Decides nothing about status: that is [`super::query`]'s, from what is written
//! here and the kernel.

use std::ops::Deref;
use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::{Context, Result, bail};

use serde::{Deserialize, Serialize};

use super::directory::{Directory, STATE};
use super::facts::Facts;
use super::id::ContainerId;
use super::process::Process;
use super::trail;
use crate::error::{Kind, rfc3339};

/// The content of state.json.
#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    /// The directory's name once more, for people who read the file.
    id: String,
    facts: Facts,
    /// Absent until the first process was cloned.
    init: Option<Process>,
}

/// A container as it was written at one moment.
#[derive(Debug)]
pub struct Snapshot {
    /// The container's id.
    pub id: ContainerId,
    /// What was written when the id was reserved.
    pub facts: Facts,
    /// Init, once it was cloned.
    pub init: Option<Process>,
    directory: Directory,
}

impl Snapshot {
    /// Reads a container without locking it: for queries.
    ///
    /// # Errors
    ///
    /// [`Kind::NotFound`]; what the file system answered; or a record that is none.
    pub fn read(root: &Path, id: &ContainerId) -> Result<Snapshot> {
        Snapshot::load(id, Directory::open(root, id)?)
    }

    fn load(id: &ContainerId, directory: Directory) -> Result<Snapshot> {
        let (facts, init) = read_contents(&directory, None)?;
        Ok(Snapshot {
            id: id.clone(),
            facts,
            init,
            directory,
        })
    }

    /// False when the creation ended before a record was written, or is just about to write one.
    pub fn is_written(&self) -> bool {
        !self.facts.oci_version.is_empty()
    }

    /// True when the state directory holds nothing but what a container's does. Asked where no
    /// record tells a container from any other directory.
    ///
    /// # Errors
    ///
    /// What the file system answered.
    pub fn holds_only_our_files(&self) -> Result<bool> {
        self.directory.holds_only_our_files()
    }

    /// True while init is between clone and `execve`: it holds a lock until then, which the kernel
    /// drops in the moment of the `execve` (close-on-exec) or of its death.
    ///
    /// # Errors
    ///
    /// When the lock is there and cannot be asked.
    pub fn is_locked_by_init(&self) -> Result<bool> {
        Ok(self.directory.is_locked_by_init()?)
    }
}

/// A container that nobody else changes while this value lives.
///
/// Reads like a [`Snapshot`], which here cannot become outdated.
#[derive(Debug)]
pub struct Record {
    snapshot: Snapshot,
    on_drop: OnDrop,
}

/// What becomes of the state directory when its [`Record`] goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OnDrop {
    Remove,
    Keep,
}

impl Deref for Record {
    type Target = Snapshot;

    fn deref(&self) -> &Snapshot {
        &self.snapshot
    }
}

impl Record {
    /// Takes an id and writes down what `delete` will need. Removed on drop unless kept.
    ///
    /// # Errors
    ///
    /// [`Kind::Exists`] when the id is taken; or what the file system answered.
    pub fn reserve(root: &Path, id: &ContainerId, facts: Facts) -> Result<Record> {
        // Between mkdir and lock, `delete --force` may have removed the directory: the id is free
        // again, or belongs to another create that came meanwhile.
        let directory = loop {
            match Directory::make(root, id) {
                Ok(directory) if directory.is_named()? => break directory,
                Ok(_) => {}
                Err(error) if Kind::is_not_found(&error) => {}
                Err(error) => return Err(error),
            }
        };
        // Who finds a record came second.
        if directory.has_state()? {
            return Err(Kind::Exists(id.to_string()).into());
        }
        let snapshot = Snapshot {
            id: id.clone(),
            facts,
            init: None,
            directory,
        };
        let record = Record {
            snapshot,
            on_drop: OnDrop::Remove,
        };
        record.write()?;
        if let Some(cgroup) = &record.facts.cgroup {
            trail::lay(&record.directory, cgroup)?;
        }
        Ok(record)
    }

    /// Locks a container that exists, after whoever is changing it, and reads it.
    ///
    /// # Errors
    ///
    /// [`Kind::NotFound`]; what the file system answered; or a record that is none.
    pub fn open(root: &Path, id: &ContainerId) -> Result<Record> {
        Unread::wait(root, id)?
            .read(None)
            .map_err(|(error, _unread)| error)
    }

    /// Notes the container's first process. From now on its status follows that process.
    ///
    /// # Errors
    ///
    /// When the record cannot be written; the one before stays.
    pub fn created(&mut self, init: Process) -> Result<()> {
        self.snapshot.init = Some(init);
        self.write()
    }

    /// Notes the rules of a device filter that is in force from now on.
    ///
    /// # Errors
    ///
    /// When the record cannot be written; the one before stays.
    pub fn set_device_rules(&mut self, rules: String) -> Result<()> {
        self.snapshot.facts.device_rules = rules;
        self.write()
    }

    /// Makes init's lock and takes it: until every copy of the descriptor is closed, the container
    /// counts as *created* only. The descriptor is close-on-exec.
    ///
    /// # Errors
    ///
    /// What the file system answered.
    pub fn lock_for_init(&self) -> Result<OwnedFd> {
        Ok(self.directory.lock_for_init()?)
    }

    /// Makes the socket at which init waits for `start`. The descriptor is close-on-exec.
    ///
    /// # Errors
    ///
    /// What the kernel answered.
    pub fn listen_for_start(&self) -> Result<OwnedFd> {
        Ok(self.directory.listen_for_start()?)
    }

    /// Connects to init, which waits for `start`.
    ///
    /// # Errors
    ///
    /// `ECONNREFUSED` when init has ended.
    pub fn connect_to_init(&self) -> Result<OwnedFd> {
        Ok(self.directory.connect_to_init()?)
    }

    /// The state directory, for files that the record does not speak of.
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Leaves the state directory in place and lets go of the lock.
    pub fn keep(mut self) {
        self.on_drop = OnDrop::Keep;
    }

    /// Removes the state directory: the id is free afterwards.
    ///
    /// # Errors
    ///
    /// What could not be removed, as files that are not ours.
    pub fn remove(mut self) -> Result<()> {
        self.on_drop = OnDrop::Keep;
        Ok(self.directory.remove()?)
    }

    /// What is written, for who deletes the container later: [`Unread::read`].
    ///
    /// # Errors
    ///
    /// What can not be written as JSON.
    pub fn known(&self) -> Result<Known> {
        let (facts, init) = (self.facts.clone(), self.init.clone());
        let text = text(self.id.as_str(), facts.clone(), init.clone()).context(STATE)?;
        Ok(Known { text, facts, init })
    }

    fn write(&self) -> Result<()> {
        let (facts, init) = (self.facts.clone(), self.init.clone());
        let text = text(self.id.as_str(), facts, init).context(STATE)?;
        Ok(self.directory.write_state(&text)?)
    }
}

/// What a record has said before its lock was given back, and the text that says so.
#[derive(Debug)]
pub struct Known {
    text: Vec<u8>,
    facts: Facts,
    init: Option<Process>,
}

impl Drop for Record {
    fn drop(&mut self) {
        if self.on_drop == OnDrop::Remove {
            // Dropped on the way out of an error, which is the one to be told; what may stay is
            // found by `delete --force`.
            let _ = self.directory.remove();
        }
    }
}

/// A container that is locked and not read yet, so that one with a damaged record can be removed.
#[derive(Debug)]
pub struct Unread {
    id: ContainerId,
    directory: Directory,
}

impl Unread {
    /// Locks a container after whoever is changing it.
    ///
    /// # Errors
    ///
    /// [`Kind::NotFound`], also when it was deleted meanwhile.
    pub fn wait(root: &Path, id: &ContainerId) -> Result<Unread> {
        let directory = Directory::open(root, id)?;
        directory.lock()?;
        Unread::checked(id, directory)
    }

    /// Locks a container unless somebody is changing it: then the answer is `None`.
    ///
    /// # Errors
    ///
    /// [`Kind::NotFound`].
    pub fn at_once(root: &Path, id: &ContainerId) -> Result<Option<Unread>> {
        let directory = Directory::open(root, id)?;
        if directory.lock_at_once()? {
            Unread::checked(id, directory).map(Some)
        } else {
            Ok(None)
        }
    }

    /// The directory may have been removed, even made anew, while we waited for its lock.
    fn checked(id: &ContainerId, directory: Directory) -> Result<Unread> {
        if directory.is_named()? {
            Ok(Unread {
                id: id.clone(),
                directory,
            })
        } else {
            Err(Kind::NotFound(id.to_string()).into())
        }
    }

    /// Reads the container under its lock. What is `known` is not parsed again unless it was changed.
    ///
    /// # Errors
    ///
    /// What is wrong with the record, and the container, still locked.
    pub fn read(self, known: Option<Known>) -> Result<Record, (anyhow::Error, Unread)> {
        match read_contents(&self.directory, known) {
            Ok((facts, init)) => {
                let snapshot = Snapshot {
                    id: self.id,
                    facts,
                    init,
                    directory: self.directory,
                };
                Ok(Record {
                    snapshot,
                    on_drop: OnDrop::Keep,
                })
            }
            Err(error) => Err((error, self)),
        }
    }

    /// Removes a container without knowing what it was: what is in the cgroup of which there is still a
    /// trail, and the state directory. True when there was one.
    ///
    /// # Errors
    ///
    /// What could not be removed; or that the directory does not look like a container's.
    pub fn remove(self) -> Result<bool> {
        if !self.directory.holds_only_our_files()? {
            bail!("not removed: files that are no container's lie there too");
        }
        let ended = trail::end(&self.directory)?;
        self.directory.remove()?;
        Ok(ended)
    }
}

/// What the text of a record says.
pub(super) fn parse(text: &[u8]) -> serde_json::Result<(Facts, Option<Process>)> {
    let Stored { facts, init, .. } = serde_json::from_slice(text)?;
    Ok((facts, init))
}

/// The text of a record.
pub(super) fn text(id: &str, facts: Facts, init: Option<Process>) -> serde_json::Result<Vec<u8>> {
    let id = id.to_owned();
    let mut text = serde_json::to_vec_pretty(&Stored { id, facts, init })?;
    text.push(b'\n');
    Ok(text)
}

/// What a state directory says; without a record, only when it was made.
fn read_contents(directory: &Directory, known: Option<Known>) -> Result<(Facts, Option<Process>)> {
    let file = directory.file(STATE);
    let mut text = directory.read_state()?;
    if text.is_none() && trail::find(directory)?.is_some() {
        // The record is written before the trail: while a container is made, it may have come since.
        let lost = || format!("{}: missing: the record of a container", file.display());
        text = Some(directory.read_state()?.with_context(lost)?);
    }
    match (text, known) {
        (Some(text), Some(known)) if text == known.text => Ok((known.facts, known.init)),
        (Some(text), _) => {
            parse(&text).with_context(|| format!("{}: not a record of a container", file.display()))
        }
        (None, _) => {
            let created = rfc3339(directory.modified()?);
            Ok((
                Facts {
                    created,
                    ..Facts::default()
                },
                None,
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lifecycle::process::Mark;
    use crate::lifecycle::testing::{Root, facts, id};
    use std::fs;
    use std::sync::mpsc;
    use std::thread;

    fn kind(error: &anyhow::Error) -> Option<&Kind> {
        error.downcast_ref()
    }

    #[test]
    fn the_folder_of_the_notify_socket_is_one_of_ours() {
        let root = Root::new();
        let record = Record::reserve(root.path(), &id("web"), facts()).unwrap();
        assert!(record.directory().listen_for_notify().unwrap().is_none());
        let folder = record.directory().make_notify_folder().unwrap();
        // A start that comes again, after one that was killed, makes the socket anew.
        for _ in 0..2 {
            assert!(record.directory().listen_for_notify().unwrap().is_some());
            assert!(folder.join("notify.sock").exists());
        }
        assert!(record.holds_only_our_files().unwrap());
        fs::write(folder.join("theirs"), "").unwrap();
        assert!(record.directory().remove().is_err());
        fs::remove_file(folder.join("theirs")).unwrap();
        record.remove().unwrap();
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_reserved_id_is_free_again_unless_it_is_kept() {
        let root = Root::new();
        drop(Record::reserve(root.path(), &id("web"), facts()).unwrap());
        Record::reserve(root.path(), &id("web"), facts())
            .unwrap()
            .keep();
        let error = Record::reserve(root.path(), &id("web"), facts()).unwrap_err();
        assert_eq!(kind(&error), Some(&Kind::Exists("web".into())));
        Record::open(root.path(), &id("web"))
            .unwrap()
            .remove()
            .unwrap();
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    }

    #[test]
    fn of_fifty_parallel_creates_of_one_id_one_wins() {
        let root = Root::new();
        let results: Vec<bool> = thread::scope(|scope| {
            let create = || match Record::reserve(root.path(), &id("one"), facts()) {
                Ok(record) => {
                    record.keep();
                    true
                }
                Err(error) => {
                    assert_eq!(kind(&error), Some(&Kind::Exists("one".into())), "{error:#}");
                    false
                }
            };
            let creates: Vec<_> = (0..50).map(|_| scope.spawn(create)).collect();
            creates
                .into_iter()
                .map(|create| create.join().unwrap())
                .collect()
        });
        assert_eq!(results.iter().filter(|won| **won).count(), 1);
    }

    #[test]
    fn what_was_written_is_read_again() {
        let root = Root::new();
        let mut record = Record::reserve(root.path(), &id("web"), facts()).unwrap();
        let init = Process {
            pid: 7,
            mark: Mark::StartTime(8),
            boot: "b".into(),
        };
        record.created(init.clone()).unwrap();
        let read = Snapshot::read(root.path(), &id("web")).unwrap();
        assert_eq!((&read.facts, read.init.as_ref()), (&facts(), Some(&init)));
        assert!(read.is_written());
    }

    #[test]
    fn a_directory_without_a_record_is_a_container_whose_creation_ended() {
        let root = Root::new();
        fs::create_dir(root.path().join("half")).unwrap();
        let half = Snapshot::read(root.path(), &id("half")).unwrap();
        assert!(!half.is_written() && half.holds_only_our_files().unwrap());
        assert!(half.facts.created.ends_with('Z'), "{}", half.facts.created);
        Record::open(root.path(), &id("half"))
            .unwrap()
            .remove()
            .unwrap();
    }

    #[test]
    fn files_that_are_not_ours_survive_a_removal() {
        let root = Root::new();
        let home = root.path().join("home");
        fs::create_dir(&home).unwrap();
        fs::write(home.join("thesis.tex"), "x").unwrap();
        let record = Record::open(root.path(), &id("home")).unwrap();
        assert!(!record.holds_only_our_files().unwrap());
        let error = record.remove().unwrap_err().to_string();
        assert!(error.ends_with("directory not empty"), "{error}");
        assert!(home.join("thesis.tex").exists());
    }

    #[test]
    fn an_unknown_id_and_a_damaged_record_are_told_apart() {
        let root = Root::new();
        let unknown = Snapshot::read(root.path(), &id("no")).unwrap_err();
        assert_eq!(kind(&unknown), Some(&Kind::NotFound("no".into())));
        Record::reserve(root.path(), &id("web"), facts())
            .unwrap()
            .keep();
        fs::write(root.path().join("web/state.json"), "{").unwrap();
        let damaged = format!("{:#}", Snapshot::read(root.path(), &id("web")).unwrap_err());
        assert!(
            damaged.contains("web/state.json: not a record of a container"),
            "{damaged}"
        );
        let (_error, unread) = Unread::wait(root.path(), &id("web"))
            .unwrap()
            .read(None)
            .unwrap_err();
        unread.remove().unwrap();
    }

    #[test]
    fn a_symbolic_link_is_no_container() {
        let root = Root::new();
        std::os::unix::fs::symlink("/tmp", root.path().join("link")).unwrap();
        assert!(Snapshot::read(root.path(), &id("link")).is_err());
    }

    #[test]
    fn who_waited_for_a_container_that_was_deleted_does_not_find_it() {
        let root = Root::new();
        let record = Record::reserve(root.path(), &id("web"), facts()).unwrap();
        assert!(Unread::at_once(root.path(), &id("web")).unwrap().is_none());
        thread::scope(|scope| {
            let (begun, begin) = mpsc::channel();
            let waiting = scope.spawn({
                let path = root.path();
                move || {
                    let directory = Directory::open(path, &id("web")).unwrap();
                    begun.send(()).unwrap();
                    directory.lock().unwrap();
                    Unread::checked(&id("web"), directory).unwrap_err()
                }
            });
            begin.recv().unwrap();
            record.remove().unwrap();
            let error = waiting.join().unwrap();
            assert_eq!(kind(&error), Some(&Kind::NotFound("web".into())));
        });
    }

    #[test]
    fn init_holds_its_lock_until_every_copy_of_the_descriptor_is_closed() {
        let root = Root::new();
        let record = Record::reserve(root.path(), &id("web"), facts()).unwrap();
        assert!(!record.is_locked_by_init().unwrap(), "no lock was made yet");
        let lock = record.lock_for_init().unwrap();
        let copy = lock.try_clone().unwrap();
        drop(lock);
        assert!(record.is_locked_by_init().unwrap());
        drop(copy);
        assert!(!record.is_locked_by_init().unwrap());
    }
}
