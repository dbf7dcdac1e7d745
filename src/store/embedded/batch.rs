//! Requests that are written together: each sees the ones before it, readers see none of them yet.
//!
//! Pure: a batch lies over the committed state and says which records would make it so.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::super::error::{Error, Result};
use super::super::key_value::{Change, Event, KeyValue, Lease, LeaseId, Revision};
use super::super::txn::{Compare, Operation, Txn, TxnResponse};
use super::record::Record;
use super::state::State;

/// What requests have changed since the committed state.
pub struct Batch<'a> {
    state: &'a State,
    now: Duration,
    /// Changed keys; None for a deleted one.
    keys: BTreeMap<Arc<[u8]>, Option<Arc<KeyValue>>>,
    /// Whether a lease was granted (true) or revoked.
    leases: BTreeMap<LeaseId, bool>,
    next_lease: LeaseId,
    revision: Revision,
    effects: Effects,
}

/// What is left to do when all requests of a batch were answered.
#[derive(Debug, Default)]
pub struct Effects {
    /// To be written, then applied.
    pub records: Vec<Record>,
    /// Leases that begin anew. On disk a lease has no end, so nothing is written of it.
    pub renewed: Vec<LeaseId>,
}

impl<'a> Batch<'a> {
    /// An empty one.
    pub fn new(state: &'a State, now: Duration) -> Batch<'a> {
        Batch {
            state,
            now,
            keys: BTreeMap::new(),
            leases: BTreeMap::new(),
            next_lease: state.next_lease(),
            revision: state.revision(),
            effects: Effects::default(),
        }
    }

    /// What all requests together need.
    pub fn into_effects(self) -> Effects {
        self.effects
    }

    /// A transaction that was checked.
    pub fn txn(&mut self, txn: &Txn) -> Result<TxnResponse> {
        let holds = |c: &Compare| c.holds(self.key(c.key()).map(|pair| &**pair));
        if !txn.compare.iter().all(holds) {
            let found = txn.compare.iter().filter_map(|c| self.key(c.key()));
            return Ok(TxnResponse::Failed {
                revision: self.revision,
                found: found.cloned().collect(),
            });
        }
        let revision = self.revision.next();
        let mut events = Vec::new();
        for operation in &txn.then {
            events.extend(self.event(operation, revision)?);
        }
        Ok(TxnResponse::Committed {
            revision: self.commit(events),
        })
    }

    /// A new lease.
    pub fn grant(&mut self, ttl: Duration) -> Lease {
        let id = self.next_lease;
        self.next_lease = LeaseId(id.0 + 1);
        self.leases.insert(id, true);
        self.effects.records.push(Record::Lease { id, ttl });
        Lease { id, ttl }
    }

    /// Lets a lease begin anew.
    pub fn keep_alive(&mut self, id: LeaseId) -> Result<Duration> {
        let lease = self.state.leases().get(&id);
        let lease = lease.filter(|_| self.lasts(id));
        let ttl = lease.ok_or(Error::LeaseNotFound(id))?.ttl;
        self.effects.renewed.push(id);
        Ok(ttl)
    }

    /// Ends a lease, and its keys with it.
    pub fn revoke(&mut self, id: LeaseId) -> Result<Revision> {
        if !self.is_alive(id) {
            return Err(Error::LeaseNotFound(id));
        }
        self.leases.insert(id, false);
        self.effects.records.push(Record::Revoke { id });
        let before = self.state.leases().get(&id);
        let before = before.into_iter().flat_map(|lease| &lease.keys);
        let candidates: BTreeSet<_> = before.chain(self.keys.keys()).cloned().collect();
        let on_it = |key: &Arc<[u8]>| self.key(key).is_some_and(|pair| pair.lease == Some(id));
        let events = candidates.into_iter().filter(on_it).map(Event::Delete);
        let events = events.collect();
        Ok(self.commit(events))
    }

    /// Ends every lease whose time is over, a revision each; returns when the next one's is.
    pub fn expire(&mut self) -> Result<Option<Duration>> {
        let state = self.state;
        let mut next = None;
        for (id, lease) in state.leases() {
            if !self.is_alive(*id) {
                continue;
            }
            if lease.until <= self.now {
                self.revoke(*id)?;
                continue;
            }
            let until = match self.effects.renewed.contains(id) {
                true => self.now.saturating_add(lease.ttl),
                false => lease.until,
            };
            next = Some(next.map_or(until, |next| until.min(next)));
        }
        Ok(next)
    }

    /// A key as it will be after the requests so far.
    fn key(&self, key: &[u8]) -> Option<&Arc<KeyValue>> {
        match self.keys.get(key) {
            Some(changed) => changed.as_ref(),
            None => self.state.key(key),
        }
    }

    /// Whether a lease is there, run out or not.
    fn is_alive(&self, id: LeaseId) -> bool {
        let before = || self.state.leases().contains_key(&id);
        self.leases.get(&id).copied().unwrap_or_else(before)
    }

    /// Whether a lease is there and its time is not over: it can be renewed, and takes keys.
    fn lasts(&self, id: LeaseId) -> bool {
        let lease = self.state.leases().get(&id);
        self.is_alive(id) && lease.is_none_or(|lease| self.now < lease.until)
    }

    /// What an operation does; None for the deletion of a key that is not there.
    fn event(&self, operation: &Operation, revision: Revision) -> Result<Option<Event>> {
        let found = self.key(operation.key());
        match operation {
            Operation::Put { key, value, lease } => {
                if let Some(id) = lease.filter(|id| !self.lasts(*id)) {
                    return Err(Error::LeaseNotFound(id));
                }
                Ok(Some(Event::Put(Arc::new(KeyValue {
                    key: found.map_or_else(|| key.as_slice().into(), |f| Arc::clone(&f.key)),
                    value: value.as_slice().into(),
                    create_revision: found.map_or(revision, |found| found.create_revision),
                    mod_revision: revision,
                    version: found.map_or(1, |found| found.version + 1),
                    lease: *lease,
                }))))
            }
            Operation::Delete { .. } => Ok(found.map(|pair| Event::Delete(Arc::clone(&pair.key)))),
        }
    }

    /// Makes events a revision, if there are any; returns the newest one.
    fn commit(&mut self, events: Vec<Event>) -> Revision {
        if events.is_empty() {
            return self.revision;
        }
        for event in &events {
            let now = match event {
                Event::Put(pair) => Some(Arc::clone(pair)),
                Event::Delete(_) => None,
            };
            self.keys.insert(Arc::clone(event.key()), now);
        }
        self.revision = self.revision.next();
        let revision = self.revision;
        let change = Change { revision, events };
        self.effects.records.push(Record::Commit(change));
        revision
    }
}
