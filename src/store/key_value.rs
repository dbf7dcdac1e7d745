//! What a store holds and tells: keys with their revisions, changes, leases.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// The number of a committed transaction. An empty store is at 1, its first change makes 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

impl Revision {
    /// The revision of a store in which nothing has happened.
    pub const FIRST: Revision = Revision(1);

    /// The one after it.
    #[must_use]
    pub fn next(self) -> Revision {
        Revision(self.0 + 1)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The name of a lease, given by the store and never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub u64);

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A lease as it was granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// Its name.
    pub id: LeaseId,
    /// How long it lasts without renewal: what was asked for, or longer.
    pub ttl: Duration,
}

/// A key with its value and what is known about its changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyValue {
    /// The key, never empty.
    pub key: Arc<[u8]>,
    /// The value.
    pub value: Arc<[u8]>,
    /// The revision that made the key (again, if it was deleted before).
    pub create_revision: Revision,
    /// The revision that changed it last.
    pub mod_revision: Revision,
    /// How often it was put since it was made: 1 for a new key.
    pub version: u64,
    /// The lease with which it goes.
    pub lease: Option<LeaseId>,
}

/// Which keys are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Range {
    /// One key.
    Key(Vec<u8>),
    /// All keys that begin so; with an empty prefix all there are.
    Prefix(Vec<u8>),
}

/// What was found in a range, and at which revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The newest revision at that moment: a watch from the next one misses nothing.
    pub revision: Revision,
    /// The keys, in the order of their bytes.
    pub keys: Vec<Arc<KeyValue>>,
}

/// One key's part of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The key was made or changed, to this.
    Put(Arc<KeyValue>),
    /// The key was deleted.
    Delete(Arc<[u8]>),
}

impl Event {
    /// The key it is about.
    pub fn key(&self) -> &Arc<[u8]> {
        match self {
            Event::Put(pair) => &pair.key,
            Event::Delete(key) => key,
        }
    }
}

/// All that one revision did, as far as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The revision.
    pub revision: Revision,
    /// In the order of the transaction's operations, or of the keys' bytes at the end of a lease.
    pub events: Vec<Event>,
}
