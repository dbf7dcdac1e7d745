//! A transaction: what must hold, and what is done then. Checked here for every backend alike.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::error::{Error, Result};
use super::key_value::{KeyValue, LeaseId, Revision};

/// How many comparisons, and how many operations, a transaction may have: etcd's default.
pub const MAX_OPERATIONS: usize = 128;

/// How many bytes the keys and values of a transaction may have together: below etcd's default for a
/// request, 1.5 MiB.
pub const MAX_TXN_BYTES: usize = 1 << 20;

/// Changes that are made together, if all comparisons hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Txn {
    /// What must hold; without any, the changes are made in any case.
    pub compare: Vec<Compare>,
    /// What is done then. No key may occur twice.
    pub then: Vec<Operation>,
}

/// Something about one key that must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Compare {
    /// The key is not there.
    Absent(Vec<u8>),
    /// The key is there and was made by this revision.
    CreateRevision(Vec<u8>, Revision),
    /// The key is there and was changed last by this revision.
    ModRevision(Vec<u8>, Revision),
    /// The key is there and has this version.
    Version(Vec<u8>, u64),
    /// The key is there and has this value.
    Value(Vec<u8>, Vec<u8>),
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Makes or changes a key.
    Put {
        /// The key.
        key: Vec<u8>,
        /// Its new value.
        value: Vec<u8>,
        /// The lease that it goes with from now on; without one it stays until it is deleted.
        lease: Option<LeaseId>,
    },
    /// Deletes a key, if it is there.
    Delete {
        /// The key.
        key: Vec<u8>,
    },
}

/// What became of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TxnResponse {
    /// Its changes are made and safe.
    Committed {
        /// Its own revision, or the newest one where there was nothing to change.
        revision: Revision,
    },
    /// A comparison did not hold, and nothing was changed.
    Failed {
        /// The newest revision at that moment.
        revision: Revision,
        /// The compared keys as they are, as far as they are there, in the order of the comparisons.
        found: Vec<Arc<KeyValue>>,
    },
}

impl Compare {
    /// The key it is about.
    pub fn key(&self) -> &[u8] {
        match self {
            Compare::Absent(key)
            | Compare::CreateRevision(key, _)
            | Compare::ModRevision(key, _)
            | Compare::Version(key, _)
            | Compare::Value(key, _) => key,
        }
    }

    /// Whether it holds for the key as it is.
    pub fn holds(&self, found: Option<&KeyValue>) -> bool {
        match (self, found) {
            (Compare::Absent(_), found) => found.is_none(),
            (_, None) => false,
            (Compare::CreateRevision(_, revision), Some(pair)) => pair.create_revision == *revision,
            (Compare::ModRevision(_, revision), Some(pair)) => pair.mod_revision == *revision,
            (Compare::Version(_, version), Some(pair)) => pair.version == *version,
            (Compare::Value(_, value), Some(pair)) => *pair.value == **value,
        }
    }

    fn bytes(&self) -> usize {
        let value = match self {
            Compare::Value(_, value) => value.len(),
            Compare::Absent(_)
            | Compare::CreateRevision(..)
            | Compare::ModRevision(..)
            | Compare::Version(..) => 0,
        };
        self.key().len() + value
    }
}

impl Operation {
    /// The key it changes.
    pub fn key(&self) -> &[u8] {
        match self {
            Operation::Put { key, .. } | Operation::Delete { key } => key,
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Operation::Put { key, value, .. } => key.len() + value.len(),
            Operation::Delete { key } => key.len(),
        }
    }
}

impl Txn {
    /// Refuses what no backend takes.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`]: an empty key, a key that is changed twice, more than [`MAX_OPERATIONS`] or
    /// [`MAX_TXN_BYTES`].
    pub fn check(&self) -> Result<()> {
        let invalid = |what: String| Err(Error::Invalid(what));
        let count = self.compare.len().max(self.then.len());
        if count > MAX_OPERATIONS {
            return invalid(format!(
                "a transaction of {count} comparisons or operations: split it, {MAX_OPERATIONS} are taken"
            ));
        }
        let compared: usize = self.compare.iter().map(Compare::bytes).sum();
        let bytes = compared + self.then.iter().map(Operation::bytes).sum::<usize>();
        if bytes > MAX_TXN_BYTES {
            return invalid(format!(
                "a transaction of {bytes} bytes: split it, {MAX_TXN_BYTES} are taken"
            ));
        }
        let mut changed = BTreeSet::new();
        for operation in &self.then {
            if !changed.insert(operation.key()) {
                let key = String::from_utf8_lossy(operation.key());
                return invalid(format!("key {key:?} is changed twice in one transaction"));
            }
        }
        let compared = self.compare.iter().map(Compare::key);
        if compared.chain(changed).any(<[u8]>::is_empty) {
            return invalid("an empty key: each key has a name".to_owned());
        }
        Ok(())
    }
}
