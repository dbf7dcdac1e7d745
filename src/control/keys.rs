//! The store's keys, and what their values say: JSON, read as strictly as it was written.
//!
//! `/identity` names the store; `/jobs/NAME:VERSION:DIGEST` is a [`JobRecord`]; `/deployments/HOST/NAME:VERSION:DIGEST` an [`api::Deployment`].

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::api::Deployment;
use crate::job::{Job, JobId};
use crate::store::KeyValue;

/// Which store it is: a number that no other one has, as 32 hexadecimal digits.
pub const IDENTITY: &str = "/identity";

/// Below it are all jobs.
pub const JOBS: &str = "/jobs/";

/// Below it are all deployments.
pub const DEPLOYMENTS: &str = "/deployments/";

/// A job as it is stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct JobRecord {
    /// When it was created.
    pub created: String,
    /// What it says.
    pub job: Job,
}

/// A job's key.
pub fn job(id: &JobId) -> Vec<u8> {
    format!("{JOBS}{id}").into_bytes()
}

/// The key of a job on a host.
pub fn deployment(host: &str, id: &JobId) -> Vec<u8> {
    format!("{DEPLOYMENTS}{host}/{id}").into_bytes()
}

/// Below it is all that is deployed on a host.
pub fn on_host(host: &str) -> Vec<u8> {
    format!("{DEPLOYMENTS}{host}/").into_bytes()
}

/// A value as JSON.
///
/// # Errors
///
/// None in practice: these types can all be written.
pub fn text<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    serde_json::to_vec(value).context("a value for the store")
}

/// What a job's key holds.
///
/// # Errors
///
/// It was written by a newer version, or by hand.
pub fn read_job(pair: &KeyValue) -> Result<JobRecord> {
    read(pair)
}

/// What a deployment's key holds.
///
/// # Errors
///
/// As for [`read_job`].
pub fn read_deployment(pair: &KeyValue) -> Result<Deployment> {
    read(pair)
}

/// What the store's name is.
///
/// # Errors
///
/// As for [`read_job`].
pub fn read_identity(pair: &KeyValue) -> Result<String> {
    read(pair)
}

fn read<'a, T: Deserialize<'a>>(pair: &'a KeyValue) -> Result<T> {
    serde_json::from_slice(&pair.value).with_context(|| {
        let key = String::from_utf8_lossy(&pair.key);
        format!("the store's {key:?} can not be read: was it written by a newer version?")
    })
}
