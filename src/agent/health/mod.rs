//! Health checks: when they are made (`policy.rs`), how one asks (`probe.rs`), how many restarts may follow
//! (`limiter.rs`), and the loop around them, which is here.
//!
//! Whoever knows which instances run says so with [`Checks::set`], and hears of each change of what is true of one.

pub mod limiter;
mod memory;
pub mod policy;
mod probe;
#[cfg(test)]
mod simulation;
mod target;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::api::Health;
use crate::job::JobId;
use limiter::Limiter;
use memory::{Verdict, Verdicts};
use policy::{Action, Moment, State};
pub use probe::{Exec, ExecAnswer, Keepers};
pub use target::{Target, target};

/// A change is on disk within this time.
pub const SAVED_WITHIN: Duration = Duration::from_millis(500);

/// Reads the last verdicts.
#[cfg(feature = "fuzzing")]
pub fn read_verdicts(path: &std::path::Path) {
    memory::load(path, |_| true);
}

/// What is true of an instance now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// Its name.
    pub instance: String,
    /// What is true of it. [`Health::Unhealthy`] is told when its turn to be restarted has come, and until then
    /// [`Health::NotReady`].
    pub health: Health,
    /// Why.
    pub reason: String,
}

/// Who hears of it.
pub type Teller = Box<dyn Fn(Told) + Send>;

/// The checks of a host.
#[derive(Debug, Clone)]
pub struct Checks(mpsc::UnboundedSender<Vec<Target>>);

impl Checks {
    /// Begins, without an instance. `memory` is the file of the last verdicts. It ends when this is dropped.
    #[must_use]
    pub fn start(exec: Arc<dyn Exec>, memory: PathBuf, tell: Teller) -> Checks {
        let (sender, inbox) = mpsc::unbounded_channel();
        tokio::spawn(run(inbox, exec, memory, tell));
        Checks(sender)
    }

    /// Says which instances there are; all others are not checked any more.
    pub fn set(&self, targets: Vec<Target>) {
        // The loop ends with the runtime only: then nobody is checked.
        let _ended = self.0.send(targets);
    }
}

/// One instance under checks.
struct Watched {
    target: Target,
    run: String,
    id: JobId,
    ports: Arc<BTreeMap<String, u16>>,
    plan: Vec<policy::Planned>,
    state: State,
    /// Probes under way; they end with this.
    probes: JoinSet<()>,
}

/// A probe's answer: of which instance and run, which check, and what.
type Answer = (String, String, usize, Result<(), String>);

struct Loop {
    exec: Arc<dyn Exec>,
    tell: Teller,
    began: Instant,
    watched: BTreeMap<String, Watched>,
    /// Those whose programs do not run now.
    down: BTreeMap<String, JobId>,
    limiter: Limiter,
    /// How many of a job there are, as the limiter knows it.
    counts: BTreeMap<JobId, usize>,
    answers: mpsc::UnboundedSender<Answer>,
    verdicts: Verdicts,
    /// When the verdicts are to be written.
    save_at: Option<Moment>,
}

async fn run(
    mut inbox: mpsc::UnboundedReceiver<Vec<Target>>,
    exec: Arc<dyn Exec>,
    memory: PathBuf,
    tell: Teller,
) {
    let (answers, mut answered) = mpsc::unbounded_channel();
    let verdicts = memory::load(&memory, |instance| exec.is_there(instance));
    let mut this = Loop {
        exec,
        tell,
        began: Instant::now(),
        watched: BTreeMap::new(),
        down: BTreeMap::new(),
        limiter: Limiter::new(Duration::ZERO),
        counts: BTreeMap::new(),
        answers,
        verdicts,
        save_at: None,
    };
    loop {
        let wake = this.wake_at().map(|moment| this.began + moment);
        let far = Instant::now() + Duration::from_secs(3600);
        tokio::select! {
            targets = inbox.recv() => match targets {
                Some(targets) => this.set(targets),
                None => return,
            },
            answer = answered.recv() => {
                if let Some((instance, run, index, answer)) = answer {
                    this.answer(&instance, &run, index, answer);
                }
            }
            () = tokio::time::sleep_until(wake.unwrap_or(far)) => this.time(),
        }
        let now = this.now();
        if this.save_at.is_some_and(|at| at <= now) {
            this.save_at = None;
            let (path, verdicts) = (memory.clone(), this.verdicts.clone());
            let saved = tokio::task::spawn_blocking(move || memory::save(path, &verdicts)).await;
            if !matches!(saved, Ok(Ok(()))) {
                // A full disk is told of elsewhere; it is tried again.
                this.save_at = Some(now + Duration::from_secs(10));
            }
        }
    }
}

impl Loop {
    fn now(&self) -> Moment {
        self.began.elapsed()
    }

    fn wake_at(&self) -> Option<Moment> {
        let states = self.watched.values();
        let checks = states.filter_map(|one| one.state.wake_at()).min();
        let turns = self.limiter.wake_at(self.now());
        [checks, turns, self.save_at].into_iter().flatten().min()
    }

    fn set(&mut self, targets: Vec<Target>) {
        let now = self.now();
        let mut before = std::mem::take(&mut self.watched);
        let mut were_down = std::mem::take(&mut self.down);
        let mut counts: BTreeMap<JobId, usize> = BTreeMap::new();
        let mut begun = Vec::new();
        for target in targets {
            let name = target.instance.clone();
            let old = before.remove(&name);
            let was_down = were_down.remove(&name);
            let id = old.as_ref().map(|old| old.id.clone()).or(was_down);
            let id = id.unwrap_or_else(|| target.job.id());
            *counts.entry(id.clone()).or_default() += 1;
            let Some(run) = target.run.clone() else {
                if old.is_some() {
                    self.verdicts.remove(&name);
                    self.limit(limiter::Event::New(id.clone(), name.clone()));
                }
                self.down.insert(name, id);
                continue;
            };
            let same = old.filter(|old| {
                let last = &old.target;
                old.run == run && last.ports == target.ports && last.address == target.address
            });
            match same {
                Some(same) => drop(self.watched.insert(name, same)),
                None => begun.push(self.begin(target, run, id, now)),
            }
        }
        let before = before.into_iter().map(|(name, one)| (name, one.id));
        for (name, id) in before.chain(were_down) {
            self.verdicts.remove(&name);
            self.limit(limiter::Event::Gone(id, name));
        }
        self.count(counts);
        for (one, reason) in begun {
            let name = one.target.instance.clone();
            self.limit(limiter::Event::New(one.id.clone(), name.clone()));
            self.say(&one, one.state.health(), reason.to_owned());
            self.watched.insert(name, one);
        }
        self.time();
    }

    /// Tells how many there are of each job. What is as before is not told: each of these looks at all jobs.
    fn count(&mut self, counts: BTreeMap<JobId, usize>) {
        let gone = self.counts.keys().filter(|id| !counts.contains_key(id));
        let gone: Vec<_> = gone.map(|id| (id.clone(), 0)).collect();
        let before = std::mem::replace(&mut self.counts, counts.clone());
        for (id, count) in counts.into_iter().chain(gone) {
            if before.get(&id) != Some(&count) {
                self.limit(limiter::Event::Count(id, count));
            }
        }
    }

    /// A run that was not known, and why it is as it is.
    fn begin(
        &self,
        target: Target,
        run: String,
        id: JobId,
        now: Moment,
    ) -> (Watched, &'static str) {
        let plan = policy::plan(&target.job);
        let last = self.verdicts.get(&target.instance);
        let last = last.filter(|last| last.run == run).map(|last| last.health);
        let mut hasher = DefaultHasher::new();
        target.instance.hash(&mut hasher);
        let spread = (hasher.finish() % 1_000_000) as f64 / 1e6;
        let state = State::new(plan.clone(), last, spread, now);
        let one = Watched {
            id,
            ports: Arc::new(target.ports.clone()),
            run,
            target,
            plan,
            state,
            probes: JoinSet::new(),
        };
        let reason = if last.is_some() {
            "as before"
        } else {
            "it has begun"
        };
        (one, reason)
    }

    fn note(&mut self, one: &Watched, health: Health) {
        if one.plan.is_empty() {
            return;
        }
        let verdict = Verdict {
            run: one.run.clone(),
            health,
        };
        let name = &one.target.instance;
        if self.verdicts.get(name) != Some(&verdict) {
            self.verdicts.insert(name.clone(), verdict);
            self.save_at
                .get_or_insert(self.began.elapsed() + SAVED_WITHIN);
        }
    }

    fn answer(&mut self, name: &str, run: &str, index: usize, answer: Result<(), String>) {
        let now = self.now();
        let Some(one) = self.watched.get_mut(name).filter(|one| one.run == run) else {
            return; // of a run that has ended
        };
        // Answered probes are taken away, so that they do not gather.
        while one.probes.try_join_next().is_some() {}
        let actions = one.state.step(policy::Event::Answer(index, answer), now);
        self.act(name, actions);
    }

    fn time(&mut self) {
        let now = self.now();
        let due = self.watched.iter();
        let due = due.filter(|(_, one)| one.state.wake_at().is_some_and(|at| at <= now));
        let due: Vec<String> = due.map(|(name, _)| name.clone()).collect();
        for name in due {
            if let Some(one) = self.watched.get_mut(&name) {
                let actions = one.state.step(policy::Event::Time, now);
                self.act(&name, actions);
            }
        }
        self.limit(limiter::Event::Time);
    }

    fn act(&mut self, name: &str, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Probe(index) => self.probe(name, index),
                Action::Tell(health, reason) => self.found(name, health, reason),
            }
        }
    }

    fn probe(&mut self, name: &str, index: usize) {
        let Some(one) = self.watched.get_mut(name) else {
            return;
        };
        let asked = probe::Asked {
            job: Arc::clone(&one.target.job),
            ports: Arc::clone(&one.ports),
            address: one.target.address,
            instance: name.to_owned(),
            planned: one.plan[index].clone(),
            exec: Arc::clone(&self.exec),
        };
        let (answers, run) = (self.answers.clone(), one.run.clone());
        one.probes.spawn(async move {
            let answer = probe::ask(&asked).await;
            // The loop has ended: nobody wants to know.
            let _ended = answers.send((asked.instance, run, index, answer));
        });
    }

    /// Something else is true of an instance.
    fn found(&mut self, name: &str, health: Health, reason: String) {
        if let Some(one) = self.watched.remove(name) {
            self.say(&one, health, reason);
            self.watched.insert(name.to_owned(), one);
        }
    }

    fn say(&mut self, one: &Watched, health: Health, reason: String) {
        self.note(one, health);
        let (id, instance) = (one.id.clone(), one.target.instance.clone());
        let told = |health| Told {
            instance: instance.clone(),
            health,
            reason: reason.clone(),
        };
        match health {
            Health::Unhealthy => {
                (self.tell)(told(Health::NotReady));
                self.limit(limiter::Event::Ask(id, instance, reason));
            }
            Health::Ready => {
                (self.tell)(told(health));
                self.limit(limiter::Event::Well(id, instance));
            }
            Health::Unknown | Health::Starting | Health::NotReady => (self.tell)(told(health)),
        }
    }

    /// Tells of those whose turn it is.
    fn limit(&mut self, event: limiter::Event) {
        let now = self.now();
        for restart in self.limiter.step(event, now) {
            (self.tell)(Told {
                instance: restart.instance,
                health: Health::Unhealthy,
                reason: restart.reason,
            });
        }
    }
}
