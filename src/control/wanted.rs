//! The way of what is wanted, from the store to this host's agent: whole, with the revision that it is from.

use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use axum::http::StatusCode;
use tokio::sync::watch;
use tokio::time::timeout;

use super::jobs::damaged;
use super::problem::Refusal;
use super::{Control, changes, keys};
use crate::agent::{Refused, Wanted, WantedJob};
use crate::api::Deployment;
use crate::error;
use crate::job::{Job, JobId};
use crate::store::{self, Change, Event, KeyValue, Range, Revision};

/// How long it waits before it tries again what has failed: the disk or a value may be mended meanwhile.
const AGAIN: Duration = Duration::from_secs(5);

/// How many digits of a store's name are to be given at least.
const DIGITS: usize = 8;

/// Whether what was wanted last has reached the agent.
#[derive(Debug, Default)]
pub struct Health(watch::Sender<Option<Failure>>);

/// Why it has not.
#[derive(Debug, Clone)]
pub struct Failure {
    /// Whether the agent refuses it, as the store is another one or an older one.
    pub refused: bool,
    /// Why.
    pub why: String,
}

impl Health {
    /// Why it has not, if it has not.
    pub fn fault(&self) -> Option<Failure> {
        self.0.borrow().clone()
    }

    /// Waits until it has not.
    pub async fn fails(&self) {
        let mut health = self.0.subscribe();
        // Its sender lives as long as this.
        let _known = health.wait_for(Option::is_some).await;
    }

    /// Says so.
    pub fn set(&self, fault: Option<Failure>) {
        self.0.send_replace(fault);
    }
}

/// What the store wants of one host.
#[derive(Debug)]
pub struct Intent {
    host: String,
    /// The store's name, and the revision that gave it.
    identity: Option<(String, Revision)>,
    jobs: BTreeMap<JobId, Arc<Job>>,
    deployments: BTreeMap<JobId, Deployment>,
}

impl Intent {
    /// Nothing.
    pub fn new(host: &str) -> Intent {
        Intent {
            host: host.to_owned(),
            identity: None,
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
                if **key == *keys::IDENTITY.as_bytes() {
                    self.identity = None;
                }
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
        if *pair.key == *keys::IDENTITY.as_bytes() {
            self.identity = Some((keys::read_identity(pair)?, pair.mod_revision));
            return Ok(());
        }
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

    /// The host's ports that any job asks for by their numbers.
    fn reserved(&self) -> BTreeSet<u16> {
        let ports = self.jobs.values().flat_map(|job| job.ports.values());
        ports.filter_map(|port| port.external).collect()
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
            store: self.identity.as_ref().map(|(name, _)| name.clone()),
            revision: revision.0,
            jobs: jobs.collect::<Result<_>>()?,
            reserved: self.reserved(),
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
        let refused = problem.downcast_ref::<Refused>();
        let failure = Failure {
            refused: refused.is_some(),
            why: words,
        };
        let why = &failure.why;
        if control.health.fault().is_none_or(|last| last.why != *why) {
            error::warn(&format!(
                "what is wanted does not reach the agent, tried again every {AGAIN:?}: {why}"
            ));
        }
        control.health.set(Some(failure));
        // Somebody may say that it is the truth.
        let _sooner = timeout(AGAIN, control.accepted.notified()).await;
    }
}

fn in_words(refusal: Refusal) -> anyhow::Error {
    anyhow::anyhow!("{}", refusal.problem.error)
}

/// Gives the store a name of its own, in the place of the one that it got at that revision; unless somebody was faster.
async fn identify(control: &Control, before: Option<Revision>) -> Result<()> {
    let name = std::fs::read_to_string("/proc/sys/kernel/random/uuid").context("a random name")?;
    let name = name.trim().replace('-', "");
    let txn = changes::identify(before, keys::text(&name)?);
    let named = control.store(move |store| store.txn(txn)).await;
    named.map(drop).map_err(in_words)
}

impl Control {
    /// What the store wants of this host, and the revision at which it does.
    ///
    /// Not of one that could not be written when it was opened: of what it says, the last may never have come to the disk,
    /// and be gone after the next end of the host.
    async fn intent(&self) -> Result<(Intent, Revision)> {
        let all = Range::Prefix(b"/".to_vec());
        let found = self.store(move |store| match store.fault() {
            Some(fault @ store::Error::ReadOnly(_)) => Err(fault),
            Some(_) | None => store.get(&all),
        });
        let found = found.await;
        let found = found.map_err(in_words)?;
        let mut intent = Intent::new(&self.host);
        for pair in &found.keys {
            intent.put(pair)?;
        }
        Ok((intent, found.revision))
    }

    /// Makes what this store says the truth for the agent, if its name begins so; the name.
    ///
    /// # Errors
    ///
    /// It has another name; or it can not be read or followed.
    pub(super) async fn accept(&self, name: &str) -> Result<String, Refusal> {
        let broken = |problem: anyhow::Error| {
            let hint = "see the log of parheliond; instances run on as they are";
            Refusal::new(
                StatusCode::SERVICE_UNAVAILABLE,
                error::in_words(&problem),
                hint,
            )
        };
        let (intent, revision) = self.intent().await.map_err(broken)?;
        let Some((identity, _)) = &intent.identity else {
            let hint = "it gets one when it can be written: /healthz says what is in the way";
            let none = "the store has no name yet".to_owned();
            return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, none, hint));
        };
        if name.len() < DIGITS || !identity.starts_with(name) {
            let hint = format!("parctl store accept {identity:.12} takes it as it is");
            let other = format!("the store here is {identity}, and not {name:?}");
            return Err(Refusal::new(StatusCode::CONFLICT, other, hint));
        }
        let wanted = intent.wanted(revision).map_err(broken)?;
        self.agent.accept(wanted).await.map_err(broken)?;
        self.health.set(None);
        self.accepted.notify_one();
        Ok(identity.clone())
    }

    /// The store's name, if it has one.
    pub(super) async fn identity(&self) -> Result<Option<String>, Refusal> {
        let key = Range::Key(keys::IDENTITY.as_bytes().to_vec());
        let found = self.store(move |store| store.get(&key)).await?;
        let name = found.keys.first().map(|pair| keys::read_identity(pair));
        name.transpose().map_err(|problem| damaged(&problem))
    }
}

async fn follow_once(control: &Control) -> Result<std::convert::Infallible> {
    let (mut intent, mut revision) = control.intent().await?;
    if intent.identity.is_none() {
        // One that can not be written now gets it with a later change.
        let _or_not = identify(control, None).await;
        (intent, revision) = control.intent().await?;
    }
    let from = revision.next();
    let watch = control.store(move |store| store.watch(b"/", from)).await;
    let mut watch = watch.map_err(in_words)?;
    loop {
        let wanted = control.agent.want(intent.wanted(revision)?).await;
        if let Err(problem) = &wanted
            && problem.downcast_ref().is_some_and(Refused::is_earlier)
        {
            // It goes on from there as another store than that of which the agent knows more: at whatever revision.
            let before = intent.identity.as_ref().map(|(_, revision)| *revision);
            identify(control, before).await?;
        }
        wanted?;
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
        if intent.identity.is_none() {
            let _or_not = identify(control, None).await;
        }
    }
}
