//! What the store holds in memory: keys, the changes that are kept, leases. Pure: it takes records that
//! are safe on disk already, and the time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use super::super::key_value::{Change, Event, Found, KeyValue, LeaseId, Range, Revision};
use super::record::Record;

/// A lease, and what goes with it.
#[derive(Debug, Clone)]
pub struct LeaseState {
    /// How long it lasts from a renewal on.
    pub ttl: Duration,
    /// When it runs out, on the store's clock.
    pub until: Duration,
    /// The keys that go with it.
    pub keys: BTreeSet<Arc<[u8]>>,
}

/// Everything committed.
#[derive(Debug)]
pub struct State {
    keys: BTreeMap<Arc<[u8]>, Arc<KeyValue>>,
    /// One change a revision, without gaps, up to the newest.
    history: VecDeque<Change>,
    revision: Revision,
    /// Watches start here at the earliest.
    oldest: Revision,
    leases: BTreeMap<LeaseId, LeaseState>,
    next_lease: LeaseId,
}

impl Default for State {
    fn default() -> State {
        State {
            keys: BTreeMap::new(),
            history: VecDeque::new(),
            revision: Revision::FIRST,
            oldest: Revision(0),
            leases: BTreeMap::new(),
            next_lease: LeaseId(1),
        }
    }
}

impl State {
    /// The newest revision.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The oldest revision that can be watched from.
    pub fn oldest(&self) -> Revision {
        self.oldest
    }

    /// The name of the next lease.
    pub fn next_lease(&self) -> LeaseId {
        self.next_lease
    }

    /// All leases, in the order of their names.
    pub fn leases(&self) -> &BTreeMap<LeaseId, LeaseState> {
        &self.leases
    }

    /// A key as it is.
    pub fn key(&self, key: &[u8]) -> Option<&Arc<KeyValue>> {
        self.keys.get(key)
    }

    /// All keys, in their order.
    pub fn keys(&self) -> impl Iterator<Item = &Arc<KeyValue>> {
        self.keys.values()
    }

    /// What a range holds.
    pub fn find(&self, range: &Range) -> Found {
        let keys = match range {
            Range::Key(key) => self.keys.get(key.as_slice()).cloned().into_iter().collect(),
            Range::Prefix(prefix) => self
                .keys
                .range::<[u8], _>((Bound::Included(prefix.as_slice()), Bound::Unbounded))
                .take_while(|(key, _)| key.starts_with(prefix))
                .map(|(_, pair)| Arc::clone(pair))
                .collect(),
        };
        Found {
            revision: self.revision,
            keys,
        }
    }

    /// The kept changes from a revision on, oldest first.
    pub fn changes_from(&self, from: Revision) -> impl Iterator<Item = &Change> {
        let first = self.revision.0 + 1 - self.history.len() as u64;
        let skipped = usize::try_from(from.0.saturating_sub(first)).unwrap_or(usize::MAX);
        self.history.range(skipped.min(self.history.len())..)
    }

    /// Does what a record says; false when it does not fit to what was before.
    #[must_use]
    pub fn apply(&mut self, record: Record, now: Duration) -> bool {
        match record {
            Record::Base {
                revision,
                oldest,
                next_lease,
            } => {
                self.revision = revision;
                self.oldest = oldest;
                self.next_lease = next_lease;
            }
            Record::Lease { id, ttl } => {
                let keys = BTreeSet::new();
                let until = now.saturating_add(ttl);
                self.leases.insert(id, LeaseState { ttl, until, keys });
                self.next_lease = self.next_lease.max(LeaseId(id.0 + 1));
            }
            Record::Key(pair) => self.set(pair),
            Record::Ready => {}
            Record::Revoke { id } => return self.leases.remove(&id).is_some(),
            Record::Commit(change) => {
                if change.revision != self.revision.next() {
                    return false;
                }
                self.commit(change);
            }
        }
        true
    }

    fn commit(&mut self, change: Change) {
        for event in &change.events {
            match event {
                Event::Put(pair) => self.set(Arc::clone(pair)),
                Event::Delete(key) => {
                    self.detach(key);
                    self.keys.remove(key);
                }
            }
        }
        self.revision = change.revision;
        self.history.push_back(change);
    }

    fn set(&mut self, pair: Arc<KeyValue>) {
        self.detach(&pair.key);
        // A change that is older than the end of its lease names one that is no longer there.
        if let Some(lease) = pair.lease.and_then(|id| self.leases.get_mut(&id)) {
            lease.keys.insert(Arc::clone(&pair.key));
        }
        self.keys.insert(Arc::clone(&pair.key), pair);
    }

    fn detach(&mut self, key: &[u8]) {
        let lease = self.keys.get(key).and_then(|pair| pair.lease);
        if let Some(lease) = lease.and_then(|id| self.leases.get_mut(&id)) {
            lease.keys.remove(key);
        }
    }

    /// Lets a lease begin anew.
    pub fn renew(&mut self, id: LeaseId, now: Duration) {
        if let Some(lease) = self.leases.get_mut(&id) {
            lease.until = now.saturating_add(lease.ttl);
        }
    }

    /// Forgets changes before a revision.
    pub fn forget_before(&mut self, oldest: Revision) {
        let gone = self.history.partition_point(|c| c.revision < oldest);
        self.history.drain(..gone);
        self.history.shrink_to_fit();
        self.oldest = oldest;
    }
}
