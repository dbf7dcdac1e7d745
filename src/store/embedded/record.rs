//! What is written: records, as bytes and back.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::super::key_value::{Change, Event, KeyValue, LeaseId, Revision};

/// One thing that happened, or, at the beginning of a file, one that is so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// The first record: what can not be read off the others.
    Base {
        /// The revision before the first [`Record::Commit`].
        revision: Revision,
        /// The oldest revision that can be watched from.
        oldest: Revision,
        /// The name of the next lease.
        next_lease: LeaseId,
    },
    /// A lease was granted.
    Lease {
        /// Its name.
        id: LeaseId,
        /// How long it lasts; whole milliseconds.
        ttl: Duration,
    },
    /// A key that was changed last by a revision that is no longer kept.
    Key(Arc<KeyValue>),
    /// A lease has ended. The deletion of its keys follows in the same unit.
    Revoke {
        /// Its name.
        id: LeaseId,
    },
    /// A revision.
    Commit(Change),
    /// The end of what a file began with: what comes after it was added one unit at a time.
    Ready,
}

/// The form on disk, of which format 1 is made: fields and variants are never changed, only added at the
/// end together with a new format.
#[derive(Serialize, Deserialize)]
enum Stored<'a> {
    Base {
        revision: u64,
        oldest: u64,
        next_lease: u64,
    },
    Lease {
        id: u64,
        milliseconds: u64,
    },
    #[serde(borrow)]
    Key(StoredKey<'a>),
    Revoke {
        id: u64,
    },
    Commit {
        revision: u64,
        #[serde(borrow)]
        events: Vec<StoredEvent<'a>>,
    },
    Ready,
}

#[derive(Serialize, Deserialize)]
struct StoredKey<'a> {
    key: &'a [u8],
    value: &'a [u8],
    create_revision: u64,
    mod_revision: u64,
    version: u64,
    lease: Option<u64>,
}

#[derive(Serialize, Deserialize)]
enum StoredEvent<'a> {
    #[serde(borrow)]
    Put(StoredKey<'a>),
    Delete(&'a [u8]),
}

impl Record {
    /// The record's bytes, which say where they end.
    pub fn to_bytes(&self) -> Vec<u8> {
        let stored = match self {
            Record::Base {
                revision,
                oldest,
                next_lease,
            } => Stored::Base {
                revision: revision.0,
                oldest: oldest.0,
                next_lease: next_lease.0,
            },
            Record::Lease { id, ttl } => Stored::Lease {
                id: id.0,
                milliseconds: u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX),
            },
            Record::Key(pair) => Stored::Key(StoredKey::from(&**pair)),
            Record::Revoke { id } => Stored::Revoke { id: id.0 },
            Record::Commit(change) => Stored::Commit {
                revision: change.revision.0,
                events: change.events.iter().map(StoredEvent::from).collect(),
            },
            Record::Ready => Stored::Ready,
        };
        postcard::to_allocvec(&stored).expect("numbers and bytes can be written to memory")
    }

    /// All records of a unit; None when they are not records.
    pub fn all_from(mut bytes: &[u8]) -> Option<Vec<Record>> {
        let mut records = Vec::new();
        while !bytes.is_empty() {
            let (stored, rest) = postcard::take_from_bytes::<Stored<'_>>(bytes).ok()?;
            records.push(Record::from(stored));
            bytes = rest;
        }
        Some(records)
    }
}

impl<'a> From<&'a KeyValue> for StoredKey<'a> {
    fn from(pair: &'a KeyValue) -> Self {
        StoredKey {
            key: &pair.key,
            value: &pair.value,
            create_revision: pair.create_revision.0,
            mod_revision: pair.mod_revision.0,
            version: pair.version,
            lease: pair.lease.map(|id| id.0),
        }
    }
}

impl<'a> From<&'a Event> for StoredEvent<'a> {
    fn from(event: &'a Event) -> Self {
        match event {
            Event::Put(pair) => StoredEvent::Put(StoredKey::from(&**pair)),
            Event::Delete(key) => StoredEvent::Delete(key),
        }
    }
}

impl From<StoredKey<'_>> for Arc<KeyValue> {
    fn from(stored: StoredKey<'_>) -> Self {
        Arc::new(KeyValue {
            key: stored.key.into(),
            value: stored.value.into(),
            create_revision: Revision(stored.create_revision),
            mod_revision: Revision(stored.mod_revision),
            version: stored.version,
            lease: stored.lease.map(LeaseId),
        })
    }
}

impl From<Stored<'_>> for Record {
    fn from(stored: Stored<'_>) -> Self {
        match stored {
            Stored::Base {
                revision,
                oldest,
                next_lease,
            } => Record::Base {
                revision: Revision(revision),
                oldest: Revision(oldest),
                next_lease: LeaseId(next_lease),
            },
            Stored::Lease { id, milliseconds } => Record::Lease {
                id: LeaseId(id),
                ttl: Duration::from_millis(milliseconds),
            },
            Stored::Key(key) => Record::Key(key.into()),
            Stored::Revoke { id } => Record::Revoke { id: LeaseId(id) },
            Stored::Commit { revision, events } => {
                let event = |event| match event {
                    StoredEvent::Put(key) => Event::Put(key.into()),
                    StoredEvent::Delete(key) => Event::Delete(key.into()),
                };
                Record::Commit(Change {
                    revision: Revision(revision),
                    events: events.into_iter().map(event).collect(),
                })
            }
            Stored::Ready => Record::Ready,
        }
    }
}
