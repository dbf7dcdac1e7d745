//! Jobs in the store: made once, never changed, removed when nothing of them is deployed.

use axum::http::StatusCode;
use serde_json::Value;

use super::Control;
use super::changes;
use super::find::Meant;
use super::keys::{self, JobRecord};
use super::problem::Refusal;
use crate::api::{Deployment, JobInfo};
use crate::error;
use crate::job::{Job, JobId};
use crate::lifecycle::facts;
use crate::store::{KeyValue, Range, Revision, Txn, TxnResponse};

/// How often a change is tried anew when somebody else was faster.
pub const TRIES: usize = 16;

/// A job with the revision that changed it last.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Its identity.
    pub id: JobId,
    /// What is stored.
    pub record: JobRecord,
    /// The revision.
    pub revision: Revision,
    /// The stored text.
    pub text: Vec<u8>,
}

impl Control {
    /// Keeps a job.
    ///
    /// # Errors
    ///
    /// It is there already.
    pub(super) async fn create(&self, job: Job) -> Result<JobId, Refusal> {
        let id = job.id();
        let created = facts::now();
        let value = text(&JobRecord { created, job })?;
        let txn = changes::create(&id, value);
        match self.store(move |store| store.txn(txn)).await? {
            TxnResponse::Committed { .. } => {
                self.created.notify_one();
                Ok(id)
            }
            TxnResponse::Failed { .. } => Err(Refusal::conflict(
                format!("job {id} is there already"),
                format!(
                    "deploy it: parctl deploy {}; or give what is new another version",
                    id.short()
                ),
            )
            .with(vec![id.to_string()])),
        }
    }

    /// All jobs of which the keys begin so.
    pub(super) async fn jobs(&self, prefix: &str) -> Result<Vec<Stored>, Refusal> {
        let range = Range::Prefix(format!("{}{prefix}", keys::JOBS).into_bytes());
        let found = self.store(move |store| store.get(&range)).await?;
        let pairs = found.keys.iter();
        pairs
            .map(|pair| Stored::read(pair).map_err(|e| damaged(&e)))
            .collect()
    }

    /// The job that is meant.
    pub(super) async fn job(&self, meant: &Meant) -> Result<Stored, Refusal> {
        let jobs = self.jobs(&meant.prefix()).await?;
        let ids = jobs.iter().map(|job| job.id.clone()).collect();
        let id = meant.one_of(ids, "here")?;
        let found = jobs.into_iter().find(|job| job.id == id);
        found.ok_or_else(|| Refusal::raced(&id.short()))
    }

    /// Removes a job.
    ///
    /// # Errors
    ///
    /// It is deployed somewhere, or `may` says that it is not to be.
    pub(super) async fn remove(
        &self,
        meant: &Meant,
        may: impl Fn(&Stored) -> Result<(), Refusal>,
    ) -> Result<JobId, Refusal> {
        let mut what = meant.to_string();
        for _ in 0..TRIES {
            let job = self.job(meant).await?;
            may(&job)?;
            // Whoever deploys the job changes its key as well, so that no deployment is overlooked between this
            // look and the deletion.
            let hosts: Vec<String> = self
                .deployments()
                .await?
                .into_iter()
                .filter(|deployment| deployment.job == job.id)
                .map(|deployment| deployment.host)
                .collect();
            if !hosts.is_empty() {
                let short = job.id.short();
                let error = format!("job {short} is deployed on {}", hosts.join(", "));
                let hint = format!("undeploy it first: parctl undeploy {short}");
                return Err(Refusal::conflict(error, hint));
            }
            let txn = changes::remove(&job.id, job.revision);
            if self.commit(txn).await? {
                return Ok(job.id);
            }
            what = job.id.short();
        }
        Err(Refusal::raced(&what))
    }

    /// Whether a transaction has taken effect.
    pub(super) async fn commit(&self, txn: Txn) -> Result<bool, Refusal> {
        let response = self.store(move |store| store.txn(txn)).await?;
        Ok(matches!(response, TxnResponse::Committed { .. }))
    }
}

impl Stored {
    /// The job that a key holds.
    pub fn read(pair: &KeyValue) -> anyhow::Result<Stored> {
        let name = String::from_utf8_lossy(&pair.key);
        Ok(Stored {
            id: name.trim_start_matches(keys::JOBS).parse()?,
            record: keys::read_job(pair)?,
            revision: pair.mod_revision,
            text: pair.value.to_vec(),
        })
    }

    /// What is told of it. A token is a secret of whoever deploys, and not shown.
    pub fn info(&self, deployments: &[Deployment]) -> Result<JobInfo, Refusal> {
        let mut job =
            serde_json::to_value(&self.record.job).map_err(|e| damaged(&anyhow::Error::new(e)))?;
        if let Some(token) = job.get_mut("token") {
            *token = Value::String("(not shown)".to_owned());
        }
        Ok(JobInfo {
            id: self.id.clone(),
            created: self.record.created.clone(),
            job,
            deployments: deployments
                .iter()
                .filter(|deployment| deployment.job == self.id)
                .cloned()
                .collect(),
        })
    }

    /// Refuses who does not know the token of a job that has one.
    pub fn check_token(&self, given: Option<&str>) -> Result<(), Refusal> {
        let Some(token) = &self.record.job.token else {
            return Ok(());
        };
        let is_it = given.is_some_and(|given| same(given.as_bytes(), token.as_bytes()));
        if is_it {
            return Ok(());
        }
        let error = match given {
            Some(_) => format!("job {} has another token", self.id.short()),
            None => format!("job {} has a token, and none was given", self.id.short()),
        };
        let hint = "give the one of its job file: parctl --token TOKEN, or PARHELION_TOKEN";
        Err(Refusal::new(StatusCode::FORBIDDEN, error, hint))
    }
}

/// Compares in a time that says nothing of where they differ.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |all, (a, b)| all | (a ^ b)) == 0
}

/// A value for the store.
pub fn text<T: serde::Serialize>(value: &T) -> Result<Vec<u8>, Refusal> {
    keys::text(value).map_err(|e| damaged(&e))
}

/// What the store holds is not understood.
pub fn damaged(problem: &anyhow::Error) -> Refusal {
    let hint = "use the version of parheliond that wrote it, or a newer one";
    Refusal::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        error::in_words(problem),
        hint,
    )
}
