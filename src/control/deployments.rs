//! Deployments in the store: which job is wanted on which host, in how many instances.

use std::sync::Arc;

use super::Control;
use super::changes;
use super::find::Meant;
use super::jobs::{Stored, TRIES, damaged, text};
use super::keys;
use super::problem::Refusal;
use crate::api::{Deploy, Deployment, Goal, Patch};
use crate::job::JobId;
use crate::lifecycle::facts;
use crate::store::{KeyValue, Range, Revision};

/// How many instances of a job there may be on a host.
const MOST: u32 = 10_000;

impl Control {
    /// All there are.
    pub(super) async fn deployments(&self) -> Result<Vec<Deployment>, Refusal> {
        let found = self.pairs(keys::DEPLOYMENTS.as_bytes().to_vec()).await?;
        Ok(found
            .into_iter()
            .map(|(deployment, _)| deployment)
            .collect())
    }

    /// Those of which the keys begin so, with the revisions that changed them last.
    async fn pairs(&self, prefix: Vec<u8>) -> Result<Vec<(Deployment, Revision)>, Refusal> {
        let range = Range::Prefix(prefix);
        let found = self.store(move |store| store.get(&range)).await?;
        let read = |pair: &Arc<KeyValue>| {
            let deployment = keys::read_deployment(pair).map_err(|e| damaged(&e))?;
            Ok((deployment, pair.mod_revision))
        };
        found.keys.iter().map(read).collect()
    }

    /// Refuses a host that is not there.
    pub(super) fn check_host(&self, host: &str) -> Result<(), Refusal> {
        if host == self.host {
            return Ok(());
        }
        let hint = format!("the host here is {}", self.host);
        Err(Refusal::missing(format!("there is no host {host:?}"), hint))
    }

    /// Wants a job on a host; answers whether it was not wanted there before.
    pub(super) async fn deploy(
        &self,
        host: &str,
        meant: &Meant,
        wish: Deploy,
        token: Option<&str>,
        by: &str,
    ) -> Result<(Deployment, bool), Refusal> {
        self.check_host(host)?;
        check_count(wish.count)?;
        for _ in 0..TRIES {
            let job = self.job(meant).await?;
            job.check_token(token)?;
            let key = keys::deployment(host, &job.id);
            let before = self.pairs(key.clone()).await?.pop();
            let (revision, created) = match &before {
                None => (None, facts::now()),
                Some((before, revision)) => {
                    let same = before.goal == wish.goal && before.count == wish.count;
                    if same {
                        return Ok((before.clone(), false));
                    }
                    (Some(*revision), before.created.clone())
                }
            };
            let deployment = Deployment {
                job: job.id.clone(),
                host: host.to_owned(),
                goal: wish.goal,
                count: wish.count,
                created,
            };
            let txn = changes::deploy(key, revision, text(&deployment)?, &job);
            if self.commit(txn).await? {
                self.note_wanted(before.as_ref().map(|(before, _)| before), &deployment, by);
                return Ok((deployment, before.is_none()));
            }
        }
        Err(Refusal::raced(&meant.to_string()))
    }

    /// Changes how a job is wanted on a host.
    pub(super) async fn patch(
        &self,
        host: &str,
        meant: &Meant,
        patch: Patch,
        token: Option<&str>,
        by: &str,
    ) -> Result<Deployment, Refusal> {
        for _ in 0..TRIES {
            let (before, revision, job) = self.deployed(host, meant).await?;
            job.check_token(token)?;
            let mut after = before.clone();
            after.goal = patch.goal.unwrap_or(before.goal);
            after.count = patch.count.unwrap_or(before.count);
            check_count(after.count)?;
            let key = keys::deployment(host, &job.id);
            if after == before {
                return Ok(after);
            }
            let txn = changes::deploy(key, Some(revision), text(&after)?, &job);
            if self.commit(txn).await? {
                self.note_wanted(Some(&before), &after, by);
                return Ok(after);
            }
        }
        Err(Refusal::raced(&meant.to_string()))
    }

    /// Wants a job on a host no longer.
    pub(super) async fn undeploy(
        &self,
        host: &str,
        meant: &Meant,
        token: Option<&str>,
        by: &str,
    ) -> Result<Deployment, Refusal> {
        for _ in 0..TRIES {
            let (deployment, revision, job) = self.deployed(host, meant).await?;
            job.check_token(token)?;
            if self.delete_deployment(&deployment, revision).await? {
                self.note_unwanted(&deployment, by);
                return Ok(deployment);
            }
        }
        Err(Refusal::raced(&meant.to_string()))
    }

    /// Notes what is wanted now, and what was before if that is known.
    fn note_wanted(&self, before: Option<&Deployment>, now: &Deployment, by: &str) {
        let (kind, was) = match before {
            None => ("deployed", String::new()),
            Some(before) => ("changed", format!(", and was {}", words(before))),
        };
        let cause = format!("{} on {}{was}, {by}", words(now), now.host);
        self.agent.note(&now.job, kind, cause);
    }

    /// Notes that a deployment is no more.
    pub(super) fn note_unwanted(&self, before: &Deployment, by: &str) {
        let cause = format!("on {}, it was {}, {by}", before.host, words(before));
        self.agent.note(&before.job, "undeployed", cause);
    }

    /// Deletes a deployment if it is as it was.
    pub(super) async fn delete_deployment(
        &self,
        deployment: &Deployment,
        revision: Revision,
    ) -> Result<bool, Refusal> {
        self.commit(changes::undeploy(deployment, revision)).await
    }

    /// All deployments of a job, with the revisions that changed them last.
    pub(super) async fn deployments_of(
        &self,
        job: &JobId,
    ) -> Result<Vec<(Deployment, Revision)>, Refusal> {
        let all = self.pairs(keys::DEPLOYMENTS.as_bytes().to_vec()).await?;
        Ok(all.into_iter().filter(|(one, _)| one.job == *job).collect())
    }

    /// The deployment on a host that is meant, and its job.
    async fn deployed(
        &self,
        host: &str,
        meant: &Meant,
    ) -> Result<(Deployment, Revision, Stored), Refusal> {
        self.check_host(host)?;
        let mut all = self.pairs(keys::on_host(host)).await?;
        let ids = all.iter().map(|(deployment, _)| deployment.job.clone());
        let place = format!("deployed on {host}");
        let id = meant.one_of(ids.collect(), &place)?;
        all.retain(|(deployment, _)| deployment.job == id);
        let (deployment, revision) = all.pop().ok_or_else(|| Refusal::raced(&id.short()))?;
        let job = self.job(&Meant::parse(&id.to_string())?).await?;
        Ok((deployment, revision, job))
    }
}

/// How a job is wanted, in words.
fn words(deployment: &Deployment) -> String {
    let goal = match deployment.goal {
        Goal::Start => "start",
        Goal::Stop => "stop",
    };
    format!("goal {goal}, count {}", deployment.count)
}

fn check_count(count: u32) -> Result<(), Refusal> {
    if (1..=MOST).contains(&count) {
        return Ok(());
    }
    let error = format!("count must be from 1 to {MOST}, is {count}");
    let hint = "parctl undeploy ends all of them; parctl stop keeps the deployment";
    Err(Refusal::bad(error, hint))
}
