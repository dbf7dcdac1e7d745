//! The oracle: a store as simple as it can be, all changes in one list, everything read off that list.

use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use super::crash::Seen;
use parhelion::store::{
    Change, Clock, Compare, Error, Event, Found, KeyValue, Lease, LeaseId, Operation, Range,
    Result, Revision, Store, Txn, TxnResponse, Watch,
};

/// A store in memory that forgets nothing.
pub struct Model {
    clock: Arc<dyn Clock>,
    told: Arc<Mutex<Told>>,
}

#[derive(Clone, Default)]
struct Told {
    changes: Vec<Change>,
    oldest: u64,
    /// Name, time, when it runs out.
    leases: Vec<(LeaseId, Duration, Duration)>,
    granted: u64,
    wakers: Vec<std::task::Waker>,
}

impl Told {
    fn revision(&self) -> Revision {
        Revision(1 + self.changes.len() as u64)
    }

    /// A key, by going through all that ever happened.
    fn key(&self, key: &[u8]) -> Option<Arc<KeyValue>> {
        let mut events = self.changes.iter().flat_map(|change| &change.events);
        match events.rfind(|event| **event.key() == *key)? {
            Event::Put(pair) => Some(Arc::clone(pair)),
            Event::Delete(_) => None,
        }
    }

    fn keys(&self) -> Vec<Arc<KeyValue>> {
        let events = self.changes.iter().flat_map(|change| &change.events);
        let mut names: Vec<_> = events.map(|event| event.key().to_vec()).collect();
        names.sort();
        names.dedup();
        names.iter().filter_map(|name| self.key(name)).collect()
    }

    fn push(&mut self, events: Vec<Event>) -> Revision {
        if !events.is_empty() {
            let revision = self.revision().next();
            self.changes.push(Change { revision, events });
            self.wakers.drain(..).for_each(|waker| waker.wake());
        }
        self.revision()
    }

    fn revoke(&mut self, id: LeaseId) -> Result<Revision> {
        let at = self.leases.iter().position(|lease| lease.0 == id);
        self.leases.remove(at.ok_or(Error::LeaseNotFound(id))?);
        let keys = self.keys().into_iter();
        let keys = keys.filter(|pair| pair.lease == Some(id));
        let events = keys.map(|pair| Event::Delete(Arc::clone(&pair.key)));
        let events = events.collect();
        Ok(self.push(events))
    }
}

impl Model {
    pub fn new(clock: Arc<dyn Clock>) -> Model {
        let told = Arc::default();
        Model { clock, told }
    }

    /// Another one, which goes its own way from here on.
    pub fn fork(&self) -> Model {
        Model {
            clock: self.clock.clone(),
            told: Arc::new(Mutex::new(self.told.lock().unwrap().clone())),
        }
    }

    /// Ends what has run out.
    pub fn expire(&self) {
        let now = self.clock.now();
        let mut told = self.told.lock().unwrap();
        let over = told.leases.iter().filter(|lease| lease.2 <= now);
        let over: Vec<_> = over.map(|lease| lease.0).collect();
        for id in over {
            told.revoke(id).unwrap();
        }
    }

    /// Leases begin anew, as when a store was closed and opened.
    pub fn reopen(&self) {
        let now = self.clock.now();
        for lease in &mut self.told.lock().unwrap().leases {
            lease.2 = now + lease.1;
        }
    }

    /// What there is to see, without a renewal of leases.
    pub fn seen(&self) -> Seen {
        let told = self.told.lock().unwrap();
        let kept = told.changes.iter().filter(|c| c.revision.0 >= told.oldest);
        Seen {
            found: Found {
                revision: told.revision(),
                keys: told.keys(),
            },
            oldest: Revision(told.oldest),
            changes: kept.cloned().collect(),
            leases: told.leases.iter().map(|lease| lease.0).collect(),
        }
    }

    /// Every change there ever was.
    pub fn changes(&self) -> Vec<Change> {
        self.told.lock().unwrap().changes.clone()
    }

    /// The oldest revision that may be watched from.
    pub fn oldest(&self) -> Revision {
        Revision(self.told.lock().unwrap().oldest)
    }
}

fn holds(compare: &Compare, found: Option<&KeyValue>) -> bool {
    let Some(found) = found else {
        return matches!(compare, Compare::Absent(_));
    };
    match compare {
        Compare::Absent(_) => false,
        Compare::CreateRevision(_, revision) => found.create_revision == *revision,
        Compare::ModRevision(_, revision) => found.mod_revision == *revision,
        Compare::Version(_, version) => found.version == *version,
        Compare::Value(_, value) => found.value.to_vec() == *value,
    }
}

impl Store for Model {
    fn get(&self, range: &Range) -> Result<Found> {
        let told = self.told.lock().unwrap();
        let keys = told.keys().into_iter();
        let keys = match range {
            Range::Key(key) if key.is_empty() => return Err(Error::Invalid("empty".to_owned())),
            Range::Key(key) => keys.filter(|pair| *pair.key == **key).collect(),
            Range::Prefix(prefix) => keys.filter(|pair| pair.key.starts_with(prefix)).collect(),
        };
        let revision = told.revision();
        Ok(Found { revision, keys })
    }

    fn txn(&self, txn: Txn) -> Result<TxnResponse> {
        txn.check()?;
        let now = self.clock.now();
        let mut told = self.told.lock().unwrap();
        let found: Vec<_> = txn.compare.iter().map(|c| told.key(c.key())).collect();
        let mut pairs = txn.compare.iter().zip(&found);
        if !pairs.all(|(compare, found)| holds(compare, found.as_deref())) {
            let found = found.into_iter().flatten().collect();
            let revision = told.revision();
            return Ok(TxnResponse::Failed { revision, found });
        }
        let mut events = Vec::new();
        for operation in &txn.then {
            let before = told.key(operation.key());
            match operation {
                Operation::Put { key, value, lease } => {
                    let alive = |id| told.leases.iter().any(|l| l.0 == id && now < l.2);
                    if let Some(id) = lease.filter(|id| !alive(*id)) {
                        return Err(Error::LeaseNotFound(id));
                    }
                    let revision = told.revision().next();
                    let before = before.as_ref();
                    events.push(Event::Put(Arc::new(KeyValue {
                        key: key.as_slice().into(),
                        value: value.as_slice().into(),
                        create_revision: before.map_or(revision, |pair| pair.create_revision),
                        mod_revision: revision,
                        version: before.map_or(0, |pair| pair.version) + 1,
                        lease: *lease,
                    })));
                }
                Operation::Delete { key } if before.is_some() => {
                    events.push(Event::Delete(key.as_slice().into()));
                }
                Operation::Delete { .. } => {}
            }
        }
        let revision = told.push(events);
        Ok(TxnResponse::Committed { revision })
    }

    fn watch(&self, prefix: &[u8], from: Revision) -> Result<Box<dyn Watch>> {
        Ok(Box::new(ModelWatch {
            told: Arc::clone(&self.told),
            prefix: prefix.to_vec(),
            next: from,
        }))
    }

    fn grant(&self, ttl: Duration) -> Result<Lease> {
        if ttl.is_zero() {
            return Err(Error::Invalid("no time".to_owned()));
        }
        let mut told = self.told.lock().unwrap();
        told.granted += 1;
        let id = LeaseId(told.granted);
        let until = self.clock.now() + ttl;
        told.leases.push((id, ttl, until));
        Ok(Lease { id, ttl })
    }

    fn keep_alive(&self, id: LeaseId) -> Result<Duration> {
        let now = self.clock.now();
        let mut told = self.told.lock().unwrap();
        let mut leases = told.leases.iter_mut();
        let lease = leases.find(|lease| lease.0 == id && now < lease.2);
        let lease = lease.ok_or(Error::LeaseNotFound(id))?;
        lease.2 = now + lease.1;
        Ok(lease.1)
    }

    fn revoke(&self, id: LeaseId) -> Result<Revision> {
        self.told.lock().unwrap().revoke(id)
    }

    fn fault(&self) -> Option<Error> {
        None
    }

    fn mend(&self) -> Result<()> {
        Ok(())
    }

    fn compact(&self, asked: Revision) -> Result<()> {
        let mut told = self.told.lock().unwrap();
        let (oldest, newest) = (Revision(told.oldest), told.revision());
        if asked <= oldest {
            return Err(Error::Compacted { oldest });
        }
        if asked > newest {
            return Err(Error::FutureRevision { asked, newest });
        }
        told.oldest = asked.0;
        Ok(())
    }
}

struct ModelWatch {
    told: Arc<Mutex<Told>>,
    prefix: Vec<u8>,
    next: Revision,
}

impl Watch for ModelWatch {
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Result<Change>> {
        let mut told = self.told.lock().unwrap();
        let oldest = Revision(told.oldest);
        if self.next < oldest {
            return Poll::Ready(Err(Error::Compacted { oldest }));
        }
        let seen = told.changes.iter().filter(|c| c.revision >= self.next);
        let mut seen = seen.map(|change| below(change, &self.prefix));
        if let Some(change) = seen.find(|change| !change.events.is_empty()) {
            self.next = change.revision.next();
            return Poll::Ready(Ok(change));
        }
        told.wakers.push(context.waker().clone());
        Poll::Pending
    }
}

/// What of a change is below a prefix.
pub fn below(change: &Change, prefix: &[u8]) -> Change {
    let events = change.events.iter();
    let events = events.filter(|event| event.key().starts_with(prefix));
    Change {
        revision: change.revision,
        events: events.cloned().collect(),
    }
}
