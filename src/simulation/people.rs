//! What people want: jobs and deployments, by control's transactions, several under way at once. The model beside it says
//! what was acknowledged.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use serde_json::json;

use super::disk::Failure;
use super::{Due, Invariant, Weakness, World, random};
use crate::agent::reconcile::Name;
use crate::api::{Deployment, Goal};
use crate::control::pure::Stored;
use crate::control::{changes, keys};
use crate::job::{Job, JobId};
use crate::keeper::policy::Moment;
use crate::store::{Error, KeyValue, Range, Store as _, Txn, TxnResponse};
use crate::sys::Errno;

/// The host's name.
pub const HOST: &str = "here";

/// The job that has an end, and when that is.
pub const ENDS: usize = 5;
const END: Moment = Duration::from_secs(150);

/// Within which time after its end nothing is left of it.
const SOON: Duration = Duration::from_secs(30);

/// What somebody wants of a job, by its number.
#[derive(Debug, Clone, Copy)]
pub enum Wish {
    Create(usize),
    Deploy(usize, Goal, u32),
    Undeploy(usize),
    Remove(usize),
}

/// What is about to be committed.
#[derive(Debug)]
pub struct Change(Txn);

/// What was acknowledged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Model {
    jobs: BTreeSet<usize>,
    deployed: BTreeMap<usize, (Goal, u32)>,
}

/// The job whose checks can have its instances restarted, of which there are several.
const CHECKED: usize = 6;

/// All jobs that there may be: with ports and without, with a check and without, with a network of their own and
/// without, of one task and of several, one with an end.
pub fn jobs() -> &'static [(JobId, Arc<Job>)] {
    static JOBS: OnceLock<Vec<(JobId, Arc<Job>)>> = OnceLock::new();
    JOBS.get_or_init(|| {
        let jobs = (0..=CHECKED).map(|number| {
            let mut job = json!({
                "name": format!("web{number}"),
                "version": "1",
                "tasks": { "main": { "bundle": "/srv/web" } },
            });
            match number {
                0 => job["ports"] = json!({ "http": { "external": 8080 } }),
                1 => job["ports"] = json!({ "http": {} }),
                2 | 4 => {
                    job["network"] = json!("bridge");
                    job["ports"] = json!({ "http": { "port": 80 } });
                }
                _ => {}
            }
            for more in ["first", "second"] {
                if number == 2 || number == 3 {
                    job["tasks"][more] = json!({ "bundle": "/srv/more" });
                }
            }
            if number == 3 {
                job["restart"] = json!({ "policy": "on-failure" });
            }
            if number % 2 == 1 {
                job["tasks"]["main"]["health"] =
                    json!({ "readiness": { "exec": ["x"], "interval": "1s" } });
            }
            if number == CHECKED {
                job["tasks"]["main"]["health"] =
                    json!({ "liveness": { "exec": ["x"], "interval": "1s", "failures": 2 } });
            }
            if number == ENDS {
                job["expires"] = json!("2030-01-01T00:02:30Z");
            }
            let job: Job = serde_json::from_value(job).unwrap();
            (job.id(), Arc::new(job))
        });
        jobs.collect()
    })
}

/// The number of an instance's job.
pub fn job_of(name: &Name) -> usize {
    let is_its = |(id, _): &(JobId, Arc<Job>)| {
        name.strip_prefix(id.name.as_str())
            .is_some_and(|rest| rest.starts_with('.'))
    };
    jobs().iter().position(is_its).unwrap()
}

impl Model {
    fn does(&mut self, wish: Wish) {
        match wish {
            Wish::Create(job) => drop(self.jobs.insert(job)),
            Wish::Deploy(job, goal, count) => drop(self.deployed.insert(job, (goal, count))),
            Wish::Undeploy(job) => drop(self.deployed.remove(&job)),
            Wish::Remove(job) => drop(self.jobs.remove(&job)),
        }
    }

    /// What the store says.
    fn read(pairs: &[Arc<KeyValue>]) -> anyhow::Result<Model> {
        let mut model = Model::default();
        let number = |id: &JobId| jobs().iter().position(|(other, _)| other == id).unwrap();
        for pair in pairs {
            if pair.key.starts_with(keys::JOBS.as_bytes()) {
                model.jobs.insert(number(&Stored::read(pair)?.id));
            } else {
                let found = keys::read_deployment(pair)?;
                let how = (found.goal, found.count);
                model.deployed.insert(number(&found.job), how);
            }
        }
        Ok(model)
    }

    /// Which instances there are to be.
    pub fn instances(&self) -> BTreeMap<Name, Goal> {
        let all = self.deployed.iter().flat_map(|(job, (goal, count))| {
            let id = &jobs()[*job].0;
            let name = move |index| format!("{}.{}.{:.7}.{index}", id.name, id.version, id.digest);
            (0..*count).map(move |index| (Name::from(name(index)), *goal))
        });
        all.collect()
    }
}

impl World {
    /// Somebody wants something.
    pub fn wish(&mut self) {
        let job = random(&mut self.random, jobs().len() as u64) as usize;
        let most = match job {
            0 => 1, // a port of one's own choice is one instance's
            CHECKED => 5,
            _ => 2,
        };
        let count = 1 + random(&mut self.random, most) as u32;
        let wish = match random(&mut self.random, 10) {
            0..4 => Wish::Create(job),
            4..7 => Wish::Deploy(job, Goal::Start, count),
            7 => Wish::Deploy(job, Goal::Stop, count),
            8 => Wish::Undeploy(job),
            _ => Wish::Remove(job),
        };
        self.start(wish);
    }

    /// Control looks how it is, and makes the transaction; others may be faster until it is committed.
    fn start(&mut self, wish: Wish) {
        let Some(daemon) = &self.daemon else { return };
        let all = daemon.store.get(&Range::Prefix(b"/".to_vec())).unwrap();
        let Some(txn) = transaction(wish, &all.keys) else {
            return;
        };
        let number = daemon.number;
        if self.weakness == Weakness::ToldTooEarly {
            self.model.does(wish);
        }
        self.soon(Due::Commit(number, wish, Box::new(Change(txn))));
    }

    /// The transaction comes to the store, and is acknowledged.
    pub fn commit(&mut self, wish: Wish, change: Change) {
        let Some(daemon) = &self.daemon else { return };
        let number = daemon.number;
        match daemon.store.txn(change.0) {
            Ok(TxnResponse::Committed { .. }) => {
                self.model.does(wish);
                self.soon(Due::Follow(number));
            }
            Ok(TxnResponse::Failed { .. }) => self.start(wish),
            Err(Error::NotWritten(_)) => {}
            Err(Error::Uncertain(_)) => {
                let mut other = self.model.clone();
                other.does(wish);
                self.doubt = Some(other);
                self.store_is_lost();
            }
            Err(Error::ReadOnly(_)) => self.store_is_lost(),
            Err(other) => self.must(false, Invariant::IntentIsKept, || other.to_string()),
        }
    }

    /// A store that can only be read is opened again by a new daemon, on the same host or after its end.
    fn store_is_lost(&mut self) {
        match self.chance(50) {
            true => self.lose_daemon(),
            false => self.lose_power(),
        }
    }

    /// One of the next calls fails, or all from it on, with some of a write done.
    pub fn disk_fails(&mut self) {
        let failure = Failure {
            at: self.disk.asked() + random(&mut self.random, 3) as usize,
            errno: Errno::NOSPC,
            forever: self.chance(50),
            eighths: random(&mut self.random, 9) as usize,
        };
        self.disk.fail(Some(failure));
    }

    /// What was acknowledged is in the store that was opened.
    pub fn check_store(&mut self) {
        let Some(daemon) = &self.daemon else { return };
        let all = daemon.store.get(&Range::Prefix(b"/".to_vec())).unwrap();
        let found = Model::read(&all.keys).unwrap();
        let before = self.model.clone();
        let doubt = self.doubt.take();
        let holds = found == before || doubt.as_ref() == Some(&found);
        self.must(holds, Invariant::IntentIsKept, || {
            format!("acknowledged {before:?} or {doubt:?}, stored {found:?}")
        });
        self.model = found;
    }

    /// A job whose end has come goes.
    pub fn expire(&mut self) {
        let Some(daemon) = &self.daemon else { return };
        let number = daemon.number;
        let expires = jobs()[ENDS].1.expires.as_ref().unwrap();
        let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(1_893_456_000) + self.now;
        if crate::control::pure::left(expires, wall).is_none() {
            self.start(Wish::Undeploy(ENDS));
            self.start(Wish::Remove(ENDS));
        }
        self.after(Duration::from_secs(2), Due::Expire(number));
    }

    /// Whether a job's end has just come, and it may be there or not.
    pub fn is_about_to_end(&self) -> bool {
        (END..END + SOON).contains(&self.now)
    }

    /// Whether a job is still there whose end has come some time ago.
    pub fn is_overdue(&self) -> bool {
        let is_over = self.now > END + SOON;
        is_over && (self.model.jobs.contains(&ENDS) || self.model.deployed.contains_key(&ENDS))
    }
}

/// What control makes of a wish, as the store is.
fn transaction(wish: Wish, all: &[Arc<KeyValue>]) -> Option<Txn> {
    let (Wish::Create(job) | Wish::Deploy(job, ..) | Wish::Undeploy(job) | Wish::Remove(job)) =
        wish;
    let (id, content) = &jobs()[job];
    let at = |key: &[u8]| all.iter().find(|pair| *pair.key == *key);
    let key = keys::deployment(HOST, id);
    let stored = at(&keys::job(id)).map(|pair| Stored::read(pair).unwrap());
    let before = at(&key).map(|pair| (keys::read_deployment(pair).unwrap(), pair.mod_revision));
    match wish {
        Wish::Create(_) if stored.is_some() => None,
        Wish::Create(_) => {
            let record = keys::JobRecord {
                created: String::new(),
                job: Job::clone(content),
            };
            Some(changes::create(id, keys::text(&record).unwrap()))
        }
        Wish::Deploy(_, goal, count) => {
            let deployment = Deployment {
                job: id.clone(),
                host: HOST.to_owned(),
                goal,
                count,
                created: String::new(),
            };
            let value = keys::text(&deployment).unwrap();
            let revision = before.map(|(_, revision)| revision);
            Some(changes::deploy(key, revision, value, &stored?))
        }
        Wish::Undeploy(_) => before.map(|(found, revision)| changes::undeploy(&found, revision)),
        Wish::Remove(_) if before.is_none() => {
            stored.map(|job| changes::remove(&job.id, job.revision))
        }
        Wish::Remove(_) => None,
    }
}
