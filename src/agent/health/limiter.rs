//! How many instances may be restarted because of their checks: a check that is broken itself must not take a service
//! down. Pure: time is given in.
//!
//! Of a job's instances, one is restarted at a time: the next one when it is ready again, or has had its time. When
//! every instance of a job that has several fails at once, it is more likely that the check, or what it asks for, is
//! broken: then they follow each other slowly, and the reason says so. All of a host's together have a limit too.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::policy::Moment;
use crate::job::JobId;

/// How long the next instance of a job waits for the last one, if that does not become ready.
const PATIENCE: Duration = Duration::from_secs(60);

/// How far restarts are apart when all instances of a job fail.
const SLOWLY: Duration = Duration::from_secs(120);

/// The time in which restarts are counted.
const WINDOW: Duration = Duration::from_secs(60);

/// The part of a job's instances, and of a host's, that is restarted in [`WINDOW`]; at least one, and at least
/// [`HOST_LEAST`] of the host's.
const PART: usize = 5;

const HOST_LEAST: usize = 5;

/// What happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Instances that have checks and are to run: how many of the job there are on this host.
    Count(JobId, usize),
    /// An instance is to be restarted, for this reason.
    Ask(JobId, String, String),
    /// An instance is well: it does not wait any more, and the next one need not wait for it.
    Well(JobId, String),
    /// An instance runs anew, by our restart or another, or is about to: it does not wait any more.
    New(JobId, String),
    /// An instance is gone.
    Gone(JobId, String),
    /// Time has passed.
    Time,
}

/// An instance's turn has come: restart it, for this reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restart {
    /// The instance.
    pub instance: String,
    /// Why, and whether it is one of all.
    pub reason: String,
}

#[derive(Debug, Default)]
struct Group {
    /// How many there are.
    count: usize,
    /// Those that wait, and why, in their order.
    waiting: VecDeque<(String, String)>,
    /// The one that was restarted last, until it is well.
    away: Option<Away>,
    /// When it was restarted.
    last: Option<Moment>,
    /// When those of the last minute were.
    recent: VecDeque<Moment>,
    /// Whether every one failed, at the last look; until one is well.
    all: bool,
}

/// An instance that was to be restarted.
#[derive(Debug)]
struct Away {
    instance: String,
    reason: String,
    /// Whether it was: its keeper may have been away itself.
    renewed: bool,
}

/// The restarts of a host.
#[derive(Debug, Default)]
pub struct Limiter {
    jobs: BTreeMap<JobId, Group>,
    recent: VecDeque<Moment>,
    /// What counts as a restart of each job: nobody knows what was restarted before.
    began: Option<Moment>,
}

fn forget(recent: &mut VecDeque<Moment>, now: Moment) {
    while recent.front().is_some_and(|moment| *moment + WINDOW <= now) {
        recent.pop_front();
    }
}

impl Group {
    /// When the next one's turn is, if it is not now.
    fn turn(&self, now: Moment) -> Option<Moment> {
        let apart = if self.all { SLOWLY } else { PATIENCE };
        let waits = self.all || self.away.is_some();
        let after_last = self.last.filter(|_| waits).map(|last| last + apart);
        let most = (self.count / PART).max(1);
        let full = self.recent.len() >= most && self.count > 1;
        let after_window = self
            .recent
            .front()
            .filter(|_| full)
            .map(|first| *first + WINDOW);
        after_last.max(after_window).filter(|moment| *moment > now)
    }

    fn drop(&mut self, instance: &str) {
        self.waiting.retain(|(name, _)| name != instance);
        self.away.take_if(|away| away.instance == instance);
    }

    /// When it is too late for the last restart to come yet.
    fn given_up_at(&self) -> Option<Moment> {
        let lost = self.away.as_ref().is_some_and(|away| !away.renewed);
        self.last.filter(|_| lost).map(|last| last + PATIENCE)
    }
}

impl Limiter {
    /// Begins. What the daemon before has restarted is not known: of each job that has several instances it is taken for
    /// one just now, so that a daemon that dies again and again restarts no more than one that lives.
    #[must_use]
    pub fn new(now: Moment) -> Limiter {
        Limiter {
            began: Some(now),
            ..Limiter::default()
        }
    }

    fn group(&mut self, job: JobId) -> &mut Group {
        let began = self.began;
        self.jobs.entry(job).or_insert_with(|| Group {
            recent: began.into_iter().collect(),
            ..Group::default()
        })
    }

    /// Goes on: whose turn it is now.
    #[must_use]
    pub fn step(&mut self, event: Event, now: Moment) -> Vec<Restart> {
        match event {
            Event::Count(job, 0) => drop(self.jobs.remove(&job)),
            Event::Count(job, count) => self.group(job).count = count,
            Event::Ask(job, instance, reason) => {
                let group = self.group(job);
                group.drop(&instance);
                group.waiting.push_back((instance, reason));
                let failing = group.waiting.len() + usize::from(group.away.is_some());
                group.all |= group.count > 1 && failing >= group.count;
            }
            Event::Well(job, instance) => {
                if let Some(group) = self.jobs.get_mut(&job) {
                    group.drop(&instance);
                    group.all = false;
                }
            }
            Event::New(job, instance) => {
                if let Some(group) = self.jobs.get_mut(&job) {
                    group.waiting.retain(|(name, _)| *name != instance);
                    if let Some(away) = &mut group.away {
                        away.renewed |= away.instance == instance;
                    }
                }
            }
            Event::Gone(job, instance) => {
                if let Some(group) = self.jobs.get_mut(&job) {
                    group.drop(&instance);
                }
            }
            Event::Time => {}
        }
        self.turns(now)
    }

    fn turns(&mut self, now: Moment) -> Vec<Restart> {
        forget(&mut self.recent, now);
        let most = self.most();
        let mut restarts = Vec::new();
        for group in self.jobs.values_mut() {
            forget(&mut group.recent, now);
            if group.given_up_at().is_some_and(|at| at <= now)
                && let Some(away) = group.away.take()
            {
                group.waiting.push_back((away.instance, away.reason));
            }
            if self.recent.len() >= most || group.turn(now).is_some() {
                continue;
            }
            let Some((instance, why)) = group.waiting.pop_front() else {
                continue;
            };
            let mut reason = why.clone();
            if group.all {
                let count = group.count;
                reason.push_str(&format!(
                    "; all {count} instances of the job fail, which points at the check or what it asks for: they are \
                     restarted one after another, {} seconds apart",
                    SLOWLY.as_secs()
                ));
            }
            group.away = Some(Away {
                instance: instance.clone(),
                reason: why,
                renewed: false,
            });
            group.last = Some(now);
            group.recent.push_back(now);
            self.recent.push_back(now);
            restarts.push(Restart { instance, reason });
        }
        restarts
    }

    /// How many of the host are restarted in a window.
    fn most(&self) -> usize {
        let all: usize = self.jobs.values().map(|group| group.count).sum();
        (all / PART).max(HOST_LEAST)
    }

    /// When [`Event::Time`] is to come; None when nobody waits.
    #[must_use]
    pub fn wake_at(&self, now: Moment) -> Option<Moment> {
        let full = self.recent.len() >= self.most();
        let host = self
            .recent
            .front()
            .filter(|_| full)
            .map(|first| *first + WINDOW);
        let groups = self.jobs.values();
        groups
            .filter_map(|group| {
                let turn = || group.turn(now).max(host).unwrap_or(now);
                let turn = (!group.waiting.is_empty()).then(turn);
                turn.into_iter().chain(group.given_up_at()).min()
            })
            .min()
    }
}
