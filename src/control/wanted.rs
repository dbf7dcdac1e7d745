//! The way of what is wanted, from the store to this host's agent: whole, with the revision that it is from.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::sync::watch;

use super::Control;
use super::keys;
use crate::agent::{Wanted, WantedJob};
use crate::api::Deployment;
use crate::error;
use crate::job::{Job, JobId};
use crate::store::{Change, Event, KeyValue, Range, Revision};

/// How long it waits before it tries again what has failed: the disk or a value may be mended meanwhile.
const AGAIN: Duration = Duration::from_secs(5);

/// Whether what was wanted last has reached the agent.
#[derive(Debug, Default)]
pub struct Health(watch::Sender<Option<String>>);

impl Health {
    /// Why it has not, if it has not.
    pub fn fault(&self) -> Option<String> {
        self.0.borrow().clone()
    }

    /// Waits until it has not.
    pub async fn fails(&self) {
        let mut health = self.0.subscribe();
        // Its sender lives as long as this.
        let _known = health.wait_for(Option::is_some).await;
    }

    /// Says so.
    pub fn set(&self, fault: Option<String>) {
        self.0.send_replace(fault);
    }
}

/// What the store wants of one host.
#[derive(Debug)]
pub struct Intent {
    host: String,
    jobs: BTreeMap<JobId, Arc<Job>>,
    deployments: BTreeMap<JobId, Deployment>,
}

impl Intent {
    /// Nothing.
    pub fn new(host: &str) -> Intent {
        Intent {
            host: host.to_owned(),
            jobs: BTreeMap::new(),
            deployments: BTreeMap::new(),
        }
    }

    /// Goes on with a change.
    ///
    /// # Errors
    ///
    /// It can not be read.
    pub fn apply(&mut self, event: &Event) -> Result<()> {
        match event {
            Event::Put(pair) => self.put(pair),
            Event::Delete(key) => {
                if let Some((place, id)) = self.place(key)? {
                    match place {
                        Place::Job => drop(self.jobs.remove(&id)),
                        Place::Deployment => drop(self.deployments.remove(&id)),
                    }
                }
                Ok(())
            }
        }
    }

    /// Goes on with what a key holds.
    ///
    /// # Errors
    ///
    /// It can not be read.
    pub fn put(&mut self, pair: &KeyValue) -> Result<()> {
        let Some((place, id)) = self.place(&pair.key)? else {
            return Ok(());
        };
        match place {
            // A job never changes: it was put again for the sake of its revision.
            Place::Job if self.jobs.contains_key(&id) => {}
            Place::Job => {
                let record = keys::read_job(pair)?;
                self.jobs.insert(id, Arc::new(record.job));
            }
            Place::Deployment => {
                self.deployments.insert(id, keys::read_deployment(pair)?);
            }
        }
        Ok(())
    }

    /// What a key is about; None for what is not about this host.
    fn place(&self, key: &[u8]) -> Result<Option<(Place, JobId)>> {
        let key = String::from_utf8_lossy(key);
        let on_host = format!("{}{}/", keys::DEPLOYMENTS, self.host);
        let parsed = if let Some(id) = key.strip_prefix(keys::JOBS) {
            (Place::Job, id)
        } else if let Some(id) = key.strip_prefix(&on_host) {
            (Place::Deployment, id)
        } else {
            return Ok(None);
        };
        let id = parsed.1.parse().with_context(|| format!("key {key:?}"))?;
        Ok(Some((parsed.0, id)))
    }

    /// All that is wanted, as it was at a revision.
    ///
    /// # Errors
    ///
    /// A job is deployed and not stored.
    pub fn wanted(&self, revision: Revision) -> Result<Wanted> {
        let jobs = self.deployments.values().map(|deployment| {
            let job = self.jobs.get(&deployment.job);
            let job =
                job.with_context(|| format!("job {} is deployed and not stored", deployment.job))?;
            Ok(WantedJob {
                job: Arc::clone(job),
                goal: deployment.goal,
                count: deployment.count,
            })
        });
        Ok(Wanted {
            revision: revision.0,
            jobs: jobs.collect::<Result<_>>()?,
        })
    }
}

#[derive(Debug, Clone, Copy)]
enum Place {
    Job,
    Deployment,
}

/// Tells the agent what is wanted, now and with every change, for ever.
///
/// A fault is told, and tried again. Until then the agent goes on with what it was told last: what can not be
/// read ends no instance.
pub async fn follow(control: Arc<Control>) {
    loop {
        let Err(problem) = follow_once(&control).await;
        let words = error::in_words(&problem);
        error::warn(&format!(
            "what is wanted does not reach the agent, tried again in {AGAIN:?}: {words}"
        ));
        control.health.set(Some(words));
        tokio::time::sleep(AGAIN).await;
    }
}

async fn follow_once(control: &Control) -> Result<std::convert::Infallible> {
    let refused = |refusal: super::Refusal| anyhow::anyhow!("{}", refusal.problem.error);
    let all = Range::Prefix(b"/".to_vec());
    let found = control.store(move |store| store.get(&all)).await;
    let found = found.map_err(refused)?;
    let mut intent = Intent::new(&control.host);
    for pair in &found.keys {
        intent.put(pair)?;
    }
    let mut revision = found.revision;
    let from = revision.next();
    let watch = control.store(move |store| store.watch(b"/", from)).await;
    let mut watch = watch.map_err(refused)?;
    loop {
        control.agent.want(intent.wanted(revision)?).await?;
        control.health.set(None);
        let change: Change = poll_fn(|context| watch.poll_next(context)).await?;
        for event in &change.events {
            intent.apply(event)?;
        }
        revision = change.revision;
        // What came meanwhile is told at once.
        while let Some(change) = watch.try_next()? {
            for event in &change.events {
                intent.apply(event)?;
            }
            revision = change.revision;
        }
    }
}
