//! When checks of one run of an instance are made, and what their answers mean. Pure: time is given in.
//!
//! Readiness and liveness wait for startup. An instance whose last verdict is known, as after a restart of the daemon,
//! goes on from there: it is neither ready nor unready because somebody looked away.

use std::time::Duration;

use crate::api::Health;
use crate::job::{Job, Purpose, Rhythm};

/// Nanoseconds of the caller's clock.
pub type Moment = Duration;

/// One check of one task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// The task.
    pub task: String,
    /// What it is for.
    pub purpose: Purpose,
    /// How often, and when its answers count.
    pub rhythm: Rhythm,
}

/// The checks of a job, in a fixed order.
#[must_use]
pub fn plan(job: &Job) -> Vec<Planned> {
    let tasks = job.tasks.iter();
    let checks = tasks.flat_map(|(name, task)| {
        task.health.checks().map(|(purpose, check)| Planned {
            task: name.clone(),
            purpose,
            rhythm: check.rhythm(purpose),
        })
    });
    checks.collect()
}

/// What happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Time has passed.
    Time,
    /// A check was answered: well, or with this failure.
    Answer(usize, Result<(), String>),
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Make this check: [`Event::Answer`] follows.
    Probe(usize),
    /// What is now true of the instance, and why.
    Tell(Health, String),
}

/// Where one check is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Course {
    /// When the next one is made; None while one is under way.
    due: Option<Moment>,
    /// When the last one began.
    began: Moment,
    /// How many in a row passed, or failed.
    passes: u32,
    failures: u32,
    /// What counts now.
    passed: bool,
    /// Why the last one failed, when that is what counts.
    reason: String,
}

/// The checks of one run of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    plan: Vec<Planned>,
    courses: Vec<Course>,
    health: Health,
}

impl State {
    /// A run that begins, or goes on with this verdict. `spread` is from 0 to 1, another one for each instance: the
    /// first checks of a thousand instances come at different moments.
    #[must_use]
    pub fn new(plan: Vec<Planned>, last: Option<Health>, spread: f64, now: Moment) -> State {
        let lives = plan.iter().any(|one| one.purpose == Purpose::Liveness);
        let up = match last {
            Some(Health::Ready | Health::NotReady) => true,
            // Its startup has failed, if it has no liveness that could.
            Some(Health::Unhealthy) => lives,
            Some(Health::Starting | Health::Unknown) | None => false,
        };
        let course = |planned: &Planned| {
            let whole = planned.rhythm.interval.duration();
            // Startup asks soon: what waits for it is a user.
            let first = match planned.purpose {
                Purpose::Startup => whole.min(Duration::from_millis(200)),
                Purpose::Readiness | Purpose::Liveness => whole,
            };
            Course {
                due: Some(now + first.mul_f64(spread.clamp(0.0, 1.0))),
                began: now,
                passes: 0,
                failures: 0,
                passed: match planned.purpose {
                    Purpose::Startup => up,
                    Purpose::Readiness => last == Some(Health::Ready),
                    // Alive until it is found dead.
                    Purpose::Liveness => last != Some(Health::Unhealthy),
                },
                reason: String::new(),
            }
        };
        let mut state = State {
            courses: plan.iter().map(course).collect(),
            plan,
            health: Health::Unknown,
        };
        state.health = state.verdict().0;
        state
    }

    /// What is true of the instance now.
    #[must_use]
    pub fn health(&self) -> Health {
        self.health
    }

    /// When [`Event::Time`] is to come.
    #[must_use]
    pub fn wake_at(&self) -> Option<Moment> {
        let open = (0..self.plan.len()).filter(|i| self.is_open(*i));
        open.filter_map(|i| self.courses[i].due).min()
    }

    /// Goes on, and says what is to be done.
    #[must_use]
    pub fn step(&mut self, event: Event, now: Moment) -> Vec<Action> {
        let mut actions = Vec::new();
        if let Event::Answer(index, answer) = event {
            self.answer(index, answer, now);
            let (health, reason) = self.verdict();
            if health != self.health {
                self.health = health;
                actions.push(Action::Tell(health, reason));
            }
        }
        for index in 0..self.plan.len() {
            let due = self.courses[index].due.is_some_and(|due| due <= now);
            if due && self.is_open(index) {
                self.courses[index].due = None;
                self.courses[index].began = now;
                actions.push(Action::Probe(index));
            }
        }
        actions
    }

    /// Whether a check is made now: startup until it has passed, the others when all of their task's instance have.
    fn is_open(&self, index: usize) -> bool {
        let is_startup = |i: usize| self.plan[i].purpose == Purpose::Startup;
        if is_startup(index) {
            return !self.courses[index].passed;
        }
        let mut startups = (0..self.plan.len()).filter(|i| is_startup(*i));
        startups.all(|i| self.courses[i].passed)
    }

    fn answer(&mut self, index: usize, answer: Result<(), String>, now: Moment) {
        let Some(course) = self.courses.get_mut(index) else {
            return;
        };
        let Planned {
            purpose, rhythm, ..
        } = &self.plan[index];
        course.due = Some(now.max(course.began + rhythm.interval.duration()));
        match answer {
            Ok(()) => {
                course.passes = course.passes.saturating_add(1);
                course.failures = 0;
                if course.passes >= rhythm.successes {
                    course.passed = true;
                }
            }
            Err(reason) => {
                course.failures = course.failures.saturating_add(1);
                course.passes = 0;
                course.reason = reason;
                let counts = rhythm.failures > 0 && course.failures >= rhythm.failures;
                // A startup check that has not passed fails for good when it does; see the verdict.
                if counts && *purpose != Purpose::Startup {
                    course.passed = false;
                }
            }
        }
        if *purpose == Purpose::Startup && course.passed {
            // What waited for it begins now, at its own pace.
            for (other, planned) in self.courses.iter_mut().zip(&self.plan) {
                if planned.purpose != Purpose::Startup && other.due.is_some() {
                    let first = planned.rhythm.interval.duration() / 10;
                    let soon = now + first.min(Duration::from_secs(1));
                    other.due = other.due.map(|due| due.max(now).min(soon));
                }
            }
        }
    }

    /// What all checks together say, and why.
    fn verdict(&self) -> (Health, String) {
        let all = || self.plan.iter().zip(&self.courses);
        let failed = |planned: &Planned, course: &Course| match planned.purpose {
            Purpose::Startup => {
                let most = planned.rhythm.failures;
                !course.passed && most > 0 && course.failures >= most
            }
            Purpose::Liveness => !course.passed,
            Purpose::Readiness => false,
        };
        let why = |(planned, course): (&Planned, &Course)| {
            let (task, purpose) = (&planned.task, planned.purpose.name());
            let count = course.failures;
            match course.reason.as_str() {
                "" => format!("{purpose} of {task} has not passed yet"),
                reason => format!("{purpose} of {task} has failed {count} times: {reason}"),
            }
        };
        if self.plan.is_empty() {
            return (Health::Unknown, String::new());
        }
        if let Some(dead) = all().find(|(planned, course)| failed(planned, course)) {
            return (Health::Unhealthy, why(dead));
        }
        let missing =
            |purpose| all().find(|(planned, course)| planned.purpose == purpose && !course.passed);
        if let Some(starting) = missing(Purpose::Startup) {
            return (Health::Starting, why(starting));
        }
        if let Some(unready) = missing(Purpose::Readiness) {
            return (Health::NotReady, why(unready));
        }
        (Health::Ready, "its checks pass".to_owned())
    }
}
