//! The store: what should run, kept as keys and values with revisions.
//!
//! The words are etcd's: each committed transaction makes one [`Revision`], a key remembers the
//! revisions that made and changed it and its version, a [`Txn`] takes effect when its comparisons
//! hold, a watch tells every change from a revision on, keys on a lease go when it runs out.
//!
//! [`Store`] is what every backend answers; `tests/store/contract.rs` is what it must pass. The calls
//! block, and need no runtime: a daemon makes them on threads that may wait, a simulation from its
//! only thread, with a [`Clock`] of its own. A [`Watch`] is polled, as a future is, so that waiting for
//! a change takes no thread. Decides nothing about what the values mean.

pub mod embedded;
mod error;
mod key_value;
mod txn;
mod watch;

use std::time::Duration;

pub use error::{Error, Result};
pub use key_value::{Change, Event, Found, KeyValue, Lease, LeaseId, Range, Revision};
pub use txn::{Compare, MAX_OPERATIONS, MAX_TXN_BYTES, Operation, Txn, TxnResponse};
pub use watch::Watch;

/// Keys and values with revisions, leases and watches; one implementation a backend.
pub trait Store: Send + Sync {
    /// The keys of a range as they are at the newest revision, in the order of their bytes.
    ///
    /// Everything that was acknowledged before the call is in it.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for an empty key.
    fn get(&self, range: &Range) -> Result<Found>;

    /// Makes all of a transaction's changes as one revision if all of its comparisons hold, else none.
    ///
    /// When it returns [`TxnResponse::Committed`], the changes survive the loss of power. One that
    /// changes nothing (no operation, or the deletion of keys that are not there) makes no revision.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`], [`Error::LeaseNotFound`]: nothing happened. [`Error::NotWritten`] and
    /// [`Error::ReadOnly`]: nothing happened, by the disk's fault. [`Error::Uncertain`]: whether it
    /// happened shows when the store is opened again or mended; all or nothing in any case.
    fn txn(&self, txn: Txn) -> Result<TxnResponse>;

    /// Every change below a prefix from a revision on (the first is 2), in order, none twice, none lost.
    ///
    /// A revision that is yet to come is waited for. The watch ends with [`Error::Compacted`] when it
    /// asks for what is no longer kept, and with [`Error::Closed`] with the store.
    ///
    /// # Errors
    ///
    /// Those of the way to the backend.
    fn watch(&self, prefix: &[u8], from: Revision) -> Result<Box<dyn Watch>>;

    /// Makes a lease that lasts for a time, which a backend may lengthen, from now or its last renewal.
    ///
    /// When a store was closed, each lease begins anew with its opening.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for no time at all; those of [`Store::txn`] about the disk.
    fn grant(&self, ttl: Duration) -> Result<Lease>;

    /// Lets a lease begin anew; returns for how long.
    ///
    /// # Errors
    ///
    /// [`Error::LeaseNotFound`] when it was revoked or has run out.
    fn keep_alive(&self, id: LeaseId) -> Result<Duration>;

    /// Ends a lease and deletes its keys as one revision; returns the newest revision.
    ///
    /// # Errors
    ///
    /// [`Error::LeaseNotFound`]; those of [`Store::txn`] about the disk.
    fn revoke(&self, id: LeaseId) -> Result<Revision>;

    /// Forgets changes older than a revision: watches from it on go on, older ones are refused.
    ///
    /// # Errors
    ///
    /// [`Error::Compacted`] when that was done already, [`Error::FutureRevision`]; when the disk fails,
    /// [`Error::NotWritten`], and nothing is forgotten, or [`Error::ReadOnly`], and whether it is shows
    /// when the store is opened again.
    fn compact(&self, revision: Revision) -> Result<()>;

    /// Why the next change would be refused, as far as is known without trying: [`Error::ReadOnly`], or
    /// [`Error::NotWritten`] while there was no room for the last one.
    fn fault(&self) -> Option<Error>;

    /// Tries whether changes can be made again after [`Store::fault`]; does nothing where there is none. What was
    /// [`Error::Uncertain`] has not happened when it succeeds.
    ///
    /// # Errors
    ///
    /// They can not: those of [`Store::txn`] about the disk.
    fn mend(&self) -> Result<()>;
}

/// Where the time comes from: the daemon's clock, or a simulation's.
pub trait Clock: Send + Sync {
    /// The time since some fixed moment; it never goes back. Time that a host slept should count.
    fn now(&self) -> Duration;
}
