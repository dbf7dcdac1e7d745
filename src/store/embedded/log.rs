//! The file: read whole when the store is opened, written anew then and at each compaction, and added
//! to in between, one unit a batch, each safe before it is acknowledged.
//!
//! A unit that was being written when power went can only be the last one, and was not acknowledged: it
//! is left out. Anything else that can not be read is damage, and an error. To tell the two apart for
//! the last unit as well, an empty one is written after it, at leisure: a seal. It says that all before
//! it was safe, and the next unit overwrites it.
//!
//! Every opening writes the file anew, because what is read from a file that was not closed may be in
//! memory only: after a failed fsync(2) the kernel takes pages for written that are not.

use std::path::PathBuf;
use std::time::Duration;

use super::super::error::{Error, Result};
use super::super::key_value::Revision;
use super::medium::{File, Medium};
use super::record::Record;
use super::state::State;
use super::unit;
use crate::sys::{SysError, SysResult};

/// The file's name in the store's directory.
pub const STORE: &str = "store";
/// Its name until it is complete.
const STORE_NEW: &str = "store.new";

/// How many bytes of records a unit has at the beginning of a file, about.
const CHUNK: usize = 256 << 10;

/// For how many bytes there has to be room until a store that had none takes changes again.
const PROBE: usize = 64 << 10;

/// The end of a file that was left out: a write that was interrupted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Torn {
    /// Where it began.
    pub offset: u64,
    /// How many bytes it had.
    pub length: u64,
}

/// What was read.
#[derive(Debug)]
pub struct Loaded {
    /// Everything that was written.
    pub state: State,
    /// What was left out.
    pub torn: Option<Torn>,
}

/// Reads a store; None when its directory is new.
pub fn load(medium: &dyn Medium, now: Duration) -> Result<Option<Loaded>> {
    if medium.is_new() {
        return Ok(None);
    }
    let file = medium.path().join(STORE);
    let bytes = medium.read(STORE).map_err(Error::Open)?;
    let bytes = bytes.ok_or_else(|| Error::Missing { file: file.clone() })?;
    match unit::format_of(&bytes) {
        Some(unit::FORMAT) => Reader::new(file, &bytes).read(now).map(Some),
        Some(found) => Err(Error::Version {
            file,
            found,
            known: unit::FORMAT,
        }),
        None => Err(Error::Damaged {
            file,
            offset: 0,
            what: format!("{} bytes do not begin as a store", bytes.len()),
            usable_before: false,
        }),
    }
}

/// Goes through a file's units.
struct Reader<'a> {
    file: PathBuf,
    bytes: &'a [u8],
    at: usize,
    sequence: u64,
    /// Whether the units that were written together with the file are all read.
    ready: bool,
    state: State,
}

impl<'a> Reader<'a> {
    fn new(file: PathBuf, bytes: &'a [u8]) -> Reader<'a> {
        Reader {
            file,
            bytes,
            at: unit::HEADER,
            sequence: 0,
            ready: false,
            state: State::default(),
        }
    }

    fn read(mut self, now: Duration) -> Result<Loaded> {
        while let Some((sequence, records)) = unit::unit_at(self.bytes, self.at) {
            if sequence != self.sequence {
                return Err(self.damaged(format!("unit {sequence} in the place of another")));
            }
            let Some(all) = Record::all_from(records) else {
                return Err(self.damaged("a unit of unknown records".to_owned()));
            };
            for record in all {
                self.ready |= record == Record::Ready;
                if !self.state.apply(record, now) {
                    return Err(self.damaged("a record that does not follow the last".to_owned()));
                }
            }
            self.at += unit::length_of(records);
            self.sequence += 1;
        }
        if !self.ready {
            return Err(self.damaged("the beginning of the store is incomplete".to_owned()));
        }
        if let Some(later) = self.later_unit() {
            let what = format!("no unit is there, but one follows at {later}");
            return Err(self.damaged(what));
        }
        let torn = (self.at < self.bytes.len()).then(|| Torn {
            offset: self.at as u64,
            length: (self.bytes.len() - self.at) as u64,
        });
        let state = self.state;
        Ok(Loaded { state, torn })
    }

    /// A unit after the one that can not be read, which therefore was safe once.
    fn later_unit(&self) -> Option<usize> {
        let mut places = self.at + 1..self.bytes.len();
        places.find(|at| {
            let found = unit::unit_at(self.bytes, *at);
            found.is_some_and(|(sequence, _)| sequence > self.sequence)
        })
    }

    fn damaged(&self, what: String) -> Error {
        Error::Damaged {
            file: self.file.clone(),
            offset: self.at as u64,
            what,
            usable_before: self.ready,
        }
    }
}

/// The file as it is added to.
pub struct Log {
    medium: Box<dyn Medium>,
    end: End,
    /// Why the last records were not taken, where the end is known all the same: there was no room.
    refused: Option<SysError>,
}

/// Where the file ends.
enum End {
    Known(Tail),
    /// Nobody knows: the disk has failed.
    Failed(SysError),
}

/// The end of a file, after a unit that is safe.
struct Tail {
    file: Box<dyn File>,
    /// Where the next unit goes, and its number.
    length: u64,
    sequence: u64,
    sealed: bool,
}

impl Log {
    /// Begins a file of a state. When that fails the store can only be read, unless it is a new one.
    pub fn begin(mut medium: Box<dyn Medium>, state: &State) -> Result<Log> {
        let is_new = medium.is_new();
        let begun = rewrite(&*medium, state, state.oldest()).and_then(|tail| {
            medium.publish().map_err(Error::NotWritten)?;
            Ok(End::Known(tail))
        });
        let end = match begun {
            Err(Error::NotWritten(error) | Error::ReadOnly(error)) if is_new => {
                return Err(Error::Open(error));
            }
            Err(Error::NotWritten(error) | Error::ReadOnly(error)) => End::Failed(error),
            other => other?,
        };
        Ok(Log {
            medium,
            end,
            refused: None,
        })
    }

    /// Adds records as one unit, and returns when they are safe.
    ///
    /// After [`Error::Uncertain`] the store can only be read.
    pub fn append(&mut self, records: &[Record]) -> Result<()> {
        let appended = self.tail()?.append(records);
        self.note(&appended);
        appended
    }

    /// Remembers how the last write has ended.
    fn note(&mut self, written: &Result<()>) {
        self.refused = None;
        match written {
            Err(Error::Uncertain(error)) => self.end = End::Failed(error.clone()),
            Err(Error::NotWritten(error)) => self.refused = Some(error.clone()),
            Ok(()) | Err(_) => {}
        }
    }

    /// Why the next records may not be taken: the disk has failed, or had no room for the last ones.
    pub fn fault(&self) -> Option<Error> {
        match (&self.end, &self.refused) {
            (End::Failed(error), _) => Some(Error::ReadOnly(error.clone())),
            (End::Known(_), Some(error)) => Some(Error::NotWritten(error.clone())),
            (End::Known(_), None) => None,
        }
    }

    /// Tries whether the disk takes records again.
    ///
    /// Where nobody knows the file's end, a new one takes its place, with what is in memory: that is what was
    /// acknowledged, and what was uncertain has not happened then.
    pub fn mend(&mut self, state: &State) -> Result<()> {
        if let End::Known(tail) = &mut self.end {
            let tried = self.refused.as_ref().map_or(Ok(()), |_| tail.probe());
            self.note(&tried);
            return tried;
        }
        self.end = match rewrite(&*self.medium, state, state.oldest()) {
            Ok(tail) => End::Known(tail),
            Err(Error::NotWritten(error) | Error::ReadOnly(error)) => End::Failed(error),
            Err(error) => return Err(error),
        };
        self.tail().map(drop)
    }

    /// How many units the file has; None when the disk has failed.
    #[cfg(test)]
    pub fn units(&mut self) -> Option<u64> {
        self.tail().ok().map(|tail| tail.sequence)
    }

    fn tail(&mut self) -> Result<&mut Tail> {
        match &mut self.end {
            End::Known(tail) => Ok(tail),
            End::Failed(error) => Err(Error::ReadOnly(error.clone())),
        }
    }

    /// Says on the disk that all units so far were safe, without waiting for it.
    pub fn seal(&mut self) {
        if let Ok(tail) = self.tail() {
            tail.seal();
        }
    }

    /// Seals the file and makes the seal safe as well.
    pub fn close(&mut self) {
        if let Ok(tail) = self.tail() {
            tail.seal();
            let _ = tail.file.sync(); // nothing depends on it, as on the seal
        }
    }

    /// Writes the file anew, without the changes before a revision.
    ///
    /// After [`Error::NotWritten`] the old one is in use as before.
    pub fn compact(&mut self, state: &State, oldest: Revision) -> Result<()> {
        self.tail()?;
        self.refused = None;
        self.end = match rewrite(&*self.medium, state, oldest) {
            Ok(tail) => End::Known(tail),
            Err(Error::ReadOnly(error)) => End::Failed(error),
            Err(error) => return Err(error),
        };
        self.tail().map(drop)
    }
}

impl Tail {
    fn append(&mut self, records: &[Record]) -> Result<()> {
        let records: Vec<_> = records.iter().map(Record::to_bytes).collect();
        let unit = unit::unit(self.sequence, &records.concat());
        self.write(&unit)?;
        // Asked again, the kernel would say that all is well (fsync(2), EIO).
        self.file.sync().map_err(Error::Uncertain)?;
        self.length += unit.len() as u64;
        self.sequence += 1;
        Ok(())
    }

    /// Writes at the end, or leaves the file as it was.
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.sealed = false;
        let Err(error) = self.file.write_at(bytes, self.length) else {
            return Ok(());
        };
        // Part of it may be there. When it is gone for certain, nothing has happened.
        Err(match self.cut() {
            Ok(()) => Error::NotWritten(error),
            Err(_) => Error::Uncertain(error),
        })
    }

    /// Takes away, for certain, what is behind the end.
    fn cut(&mut self) -> SysResult<()> {
        self.file.truncate(self.length)?;
        self.file.sync()
    }

    /// Whether there is room for more. What it writes is no unit, and is taken away again.
    fn probe(&mut self) -> Result<()> {
        self.write(&[0; PROBE])?;
        self.file.sync().map_err(Error::Uncertain)?;
        self.cut().map_err(Error::Uncertain)
    }

    fn seal(&mut self) {
        if !self.sealed {
            self.sealed = true;
            // Without a seal the file is as good as after a loss of power; nothing depends on it.
            let _ = self
                .file
                .write_at(&unit::unit(self.sequence, &[]), self.length);
        }
    }
}

/// Puts a new file in the place of the old one.
///
/// After [`Error::NotWritten`] the old one is there; after [`Error::ReadOnly`] nobody knows which.
fn rewrite(medium: &dyn Medium, state: &State, oldest: Revision) -> Result<Tail> {
    let written = write_new(medium, state, oldest);
    let renamed = written.and_then(|tail| {
        medium.rename(STORE_NEW, STORE)?;
        Ok(tail)
    });
    let tail = renamed.map_err(|error| {
        // It is overwritten the next time, and has been reported as a failure by then.
        let _ = medium.remove(STORE_NEW);
        Error::NotWritten(error)
    })?;
    medium.sync().map_err(Error::ReadOnly)?;
    Ok(tail)
}

fn write_new(medium: &dyn Medium, state: &State, oldest: Revision) -> SysResult<Tail> {
    let mut tail = Tail {
        file: medium.create(STORE_NEW)?,
        length: 0,
        sequence: 0,
        sealed: false,
    };
    let mut bytes = unit::header().to_vec();
    let mut records = Vec::new();
    let mut all = beginning(state, oldest).peekable();
    while let Some(record) = all.next() {
        records.extend(record.to_bytes());
        if records.len() >= CHUNK || all.peek().is_none() {
            bytes.extend(unit::unit(tail.sequence, &records));
            tail.file.write_at(&bytes, tail.length)?;
            tail.length += bytes.len() as u64;
            tail.sequence += 1;
            bytes.clear();
            records.clear();
        }
    }
    tail.file.sync()?;
    Ok(tail)
}

/// The records with which the file of a state begins.
fn beginning(state: &State, oldest: Revision) -> impl Iterator<Item = Record> {
    let first = state.changes_from(oldest).next().map(|c| c.revision);
    let base = Record::Base {
        revision: first.map_or(state.revision(), |first| Revision(first.0 - 1)),
        oldest,
        next_lease: state.next_lease(),
    };
    let leases = state.leases().iter();
    let leases = leases.map(|(id, lease)| Record::Lease {
        id: *id,
        ttl: lease.ttl,
    });
    // What was put by a kept change comes with that.
    let keys = state.keys();
    let keys = keys.filter(move |pair| first.is_none_or(|first| pair.mod_revision < first));
    let keys = keys.map(|pair| Record::Key(pair.clone()));
    let changes = state.changes_from(oldest).cloned().map(Record::Commit);
    let all = [base].into_iter().chain(leases).chain(keys).chain(changes);
    all.chain([Record::Ready])
}

#[cfg(test)]
mod tests {
    use super::super::medium::Directory;
    use super::*;

    #[test]
    fn a_newer_format_is_refused_by_its_number() {
        let name = format!("parhelion-format-{}", std::process::id());
        let place = std::env::temp_dir().join(name);
        let medium = Box::new(Directory::open(&place).unwrap());
        drop(Log::begin(medium, &State::default()).unwrap());
        let newer = unit::header_of(unit::FORMAT + 1);
        std::fs::write(place.join(STORE), newer).unwrap();
        let error = load(&Directory::open(&place).unwrap(), Duration::ZERO).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("has format 2, and 1 is the newest"), "{text}");
        std::fs::remove_dir_all(&place).unwrap();
    }
}
