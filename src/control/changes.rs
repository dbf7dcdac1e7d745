//! What a wish changes in the store: one transaction, which takes effect only if nobody was faster. Pure.

use super::jobs::Stored;
use super::keys;
use crate::api::Deployment;
use crate::job::JobId;
use crate::store::{Compare, Operation, Revision, Txn};

/// The store gets a name, or another one than it had at that revision.
pub fn identify(before: Option<Revision>, value: Vec<u8>) -> Txn {
    let key = keys::IDENTITY.as_bytes().to_vec();
    let compare = match before {
        None => Compare::Absent(key.clone()),
        Some(revision) => Compare::ModRevision(key.clone(), revision),
    };
    Txn {
        compare: vec![compare],
        then: vec![put(key, value)],
    }
}

/// A job is kept that was not there.
pub fn create(id: &JobId, value: Vec<u8>) -> Txn {
    let key = keys::job(id);
    Txn {
        compare: vec![Compare::Absent(key.clone())],
        then: vec![put(key, value)],
    }
}

/// A deployment is as `value` says; `before` is the revision that changed it last, if it is there. Its job is put again
/// as it is: who has looked for deployments of the job before, to remove it, has to look once more.
pub fn deploy(key: Vec<u8>, before: Option<Revision>, value: Vec<u8>, job: &Stored) -> Txn {
    let compare = match before {
        None => Compare::Absent(key.clone()),
        Some(revision) => Compare::ModRevision(key.clone(), revision),
    };
    let job_key = keys::job(&job.id);
    Txn {
        compare: vec![compare, Compare::ModRevision(job_key.clone(), job.revision)],
        then: vec![put(key, value), put(job_key, job.text.clone())],
    }
}

/// A deployment goes, if it is as it was.
pub fn undeploy(deployment: &Deployment, revision: Revision) -> Txn {
    delete(
        keys::deployment(&deployment.host, &deployment.job),
        revision,
    )
}

/// A job goes, if nobody has deployed it meanwhile.
pub fn remove(id: &JobId, revision: Revision) -> Txn {
    delete(keys::job(id), revision)
}

fn put(key: Vec<u8>, value: Vec<u8>) -> Operation {
    Operation::Put {
        key,
        value,
        lease: None,
    }
}

fn delete(key: Vec<u8>, revision: Revision) -> Txn {
    Txn {
        compare: vec![Compare::ModRevision(key.clone(), revision)],
        then: vec![Operation::Delete { key }],
    }
}
