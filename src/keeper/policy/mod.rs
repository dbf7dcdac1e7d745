//! When an instance is started, stopped and started again: pure.
//!
//! [`Policy::step`] takes a state, what has happened and the moment, and returns the next state and what is
//! to be done. Moments are given, and jitter comes from a seed in the state: the same events at the same
//! moments lead to the same actions. Nothing is ever given up in silence: an instance that is wanted is
//! starting, running, stopping in order to start again, or waiting for a moment that is in the state.
//!
//! An instance has one container or a group of them, which live and die together. The policy does not count
//! them: it is told whether others run.
//!
//! Who drives it performs the actions in their order and tells of their end as events. After its own death
//! a new driver says what it has found ([`Event::Found`]), by the same door.

use std::time::Duration;

use serde::{Deserialize, Serialize};

mod backoff;
mod between;
#[cfg(test)]
mod simulation;
mod state;
#[cfg(test)]
mod tests;

pub use backoff::{Cause, Counts, Curve, Curves, InARow};
use between::{asked, create, remove, rest};
pub use state::{Action, Event, Exit, Found, Next, Others, Phase, Rest, State, Stop};

/// A moment: the time since the host has booted, sleep included (CLOCK_BOOTTIME, time_namespaces(7)).
pub type Moment = Duration;

/// How soon what could not be killed or removed is tried again.
pub const AGAIN: Duration = Duration::from_secs(1);

/// After which ends of its program an instance is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    /// After every end.
    Always,
    /// After every end but one with a success code.
    OnFailure,
    /// After none: there is one attempt.
    Never,
}

/// What was asked for one instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Policy {
    /// After which ends it is started again.
    pub restart: Restart,
    /// Exit codes that are no failure.
    pub success: Vec<u8>,
    /// How long it waits before each attempt.
    pub curves: Curves,
    /// A run of this length is a good one, after which failures are counted anew.
    pub good_run: Duration,
    /// From the end that somebody asks for to the stop signal: whoever uses it finds another one meanwhile.
    #[serde(default)]
    pub delay: Duration,
    /// From the stop signal to the KILL of every process.
    pub grace: Duration,
}

type Step = (State, Vec<Action>);

impl Policy {
    /// What follows from an event.
    #[must_use]
    pub fn step(&self, state: &State, event: Event, now: Moment) -> Step {
        let state = state.clone();
        if let Event::Halt(within) = event {
            return self.halt(state, within, now);
        }
        match state.phase {
            Phase::Resting { why } => self.resting(state, why, event, now),
            Phase::Waiting { cause, until } => self.waiting(state, (cause, until), event, now),
            Phase::Starting { since, kill_at } => self.starting(state, since, kill_at, event, now),
            Phase::Running { since } => self.running(state, since, event, now),
            Phase::Stopping {
                why,
                signal_at,
                kill_at,
                killed,
            } => self.stopping(state, why, (signal_at, kill_at, killed), event, now),
            Phase::Removing { next, again_at } => self.removing(state, next, again_at, event, now),
        }
    }

    /// When [`Event::Time`] is to come; None when nothing waits for a moment.
    #[must_use]
    pub fn wake_at(&self, state: &State) -> Option<Moment> {
        match state.phase {
            Phase::Resting { .. } => None,
            Phase::Waiting { until, .. } => Some(until),
            Phase::Starting { kill_at, .. } => kill_at,
            Phase::Running { since } if state.in_a_row != InARow::default() => {
                Some(since + self.good_run)
            }
            Phase::Running { .. } => None,
            Phase::Stopping {
                signal_at, kill_at, ..
            } => Some(signal_at.unwrap_or(kill_at)),
            Phase::Removing { again_at, .. } => again_at,
        }
    }

    fn resting(&self, state: State, why: Rest, event: Event, now: Moment) -> Step {
        match event {
            Event::Start | Event::Restart => asked(state, now),
            Event::Found(Found::Alive) => self.alive(state, now),
            Event::Found(Found::Part) => self.parted(state, now, now),
            Event::Found(Found::Nothing) if state.wanted && why == Rest::New => create(state, now),
            // What a keeper that was killed may have left.
            Event::Found(Found::Nothing) => remove(state, Next::Rest(why)),
            Event::Stop => rest(state, Rest::Stopped),
            Event::Unhealthy
            | Event::Halt(_)
            | Event::Made
            | Event::NotMade
            | Event::Exited(..)
            | Event::Removed
            | Event::NotRemoved
            | Event::Time => (state, vec![]),
        }
    }

    fn waiting(&self, mut state: State, wait: (Cause, Moment), event: Event, now: Moment) -> Step {
        let (cause, until) = wait;
        match event {
            Event::Start | Event::Restart => asked(state, now),
            Event::Stop => rest(state, Rest::Stopped),
            Event::Time if now >= until => create(state, now),
            Event::Found(Found::Alive) => self.alive(state, now),
            Event::Found(Found::Part) => self.parted(state, now, now),
            Event::Found(Found::Nothing) => {
                let until = self.of_this_boot(cause, until, now);
                state.phase = Phase::Waiting { cause, until };
                (state, vec![])
            }
            Event::Time
            | Event::Unhealthy
            | Event::Halt(_)
            | Event::Made
            | Event::NotMade
            | Event::Exited(..)
            | Event::Removed
            | Event::NotRemoved => (state, vec![]),
        }
    }

    fn starting(
        &self,
        mut state: State,
        since: Moment,
        kill_at: Option<Moment>,
        event: Event,
        now: Moment,
    ) -> Step {
        let again = |kill_at| Phase::Starting { since, kill_at };
        match event {
            Event::Made | Event::Found(Found::Alive) => self.alive(state, now),
            // It is not wanted, or the host is going down.
            Event::NotMade | Event::Found(Found::Nothing | Found::Part) if kill_at.is_some() => {
                let why = match state.wanted {
                    true => Rest::Halted,
                    false => Rest::Stopped,
                };
                remove(state, Next::Rest(why))
            }
            Event::NotMade => {
                state.counts.not_made += 1;
                self.failed(state, Cause::Image, now)
            }
            // Its keeper has died, which is no failure of the instance.
            Event::Found(Found::Nothing | Found::Part) => create(state, now),
            Event::Stop => {
                state.wanted = false;
                state.phase = again(kill_at.or(Some(now + self.grace)));
                (state, vec![])
            }
            Event::Start | Event::Restart => {
                state.wanted = true;
                state.phase = again(None);
                (state, vec![])
            }
            Event::Time if kill_at.is_some_and(|moment| now >= moment) => {
                state.phase = again(Some(now + AGAIN));
                (state, vec![Action::Kill])
            }
            Event::Time
            | Event::Unhealthy
            | Event::Halt(_)
            | Event::Exited(..)
            | Event::Removed
            | Event::NotRemoved => (state, vec![]),
        }
    }

    fn running(&self, mut state: State, since: Moment, event: Event, now: Moment) -> Step {
        match event {
            Event::Exited(exit, others) => self.exited(state, (exit, others), since, now),
            Event::Found(Found::Nothing) => {
                self.exited(state, (Exit::Unknown, Others::Ended), since, now)
            }
            Event::Found(Found::Part) => self.parted(state, since, now),
            Event::Stop => {
                state.wanted = false;
                self.stop_later(state, Stop::Asked, now)
            }
            Event::Restart => self.stop_later(state, Stop::Restart, now),
            Event::Unhealthy => {
                state.counts.unhealthy += 1;
                self.forgive(&mut state, since, now);
                self.stop(state, Stop::Unhealthy, now)
            }
            Event::Time => {
                self.forgive(&mut state, since, now);
                (state, vec![])
            }
            Event::Found(Found::Alive)
            | Event::Start
            | Event::Halt(_)
            | Event::Made
            | Event::NotMade
            | Event::Removed
            | Event::NotRemoved => (state, vec![]),
        }
    }

    fn stopping(
        &self,
        mut state: State,
        why: Stop,
        moments: (Option<Moment>, Moment, bool),
        event: Event,
        now: Moment,
    ) -> Step {
        let (signal_at, kill_at, killed) = moments;
        let for_reason = |why| Phase::Stopping {
            why,
            signal_at,
            kill_at,
            killed,
        };
        match event {
            Event::Exited(_, Others::Ended) | Event::Found(Found::Nothing) => {
                self.stopped(state, why, now)
            }
            Event::Stop => {
                state.wanted = false;
                state.phase = for_reason(Stop::Asked);
                (state, vec![])
            }
            Event::Start | Event::Restart => {
                state.wanted = true;
                state.phase = for_reason(Stop::Restart);
                (state, vec![])
            }
            Event::Time if signal_at.is_some_and(|moment| now >= moment) => {
                self.stop(state, why, now)
            }
            Event::Time if signal_at.is_none() && now >= kill_at => {
                state.phase = Phase::Stopping {
                    why,
                    signal_at,
                    kill_at: now + AGAIN,
                    killed: true,
                };
                (state, vec![Action::Kill])
            }
            Event::Found(Found::Alive | Found::Part) => {
                self.goes_on_to_stop(state, why, (signal_at, kill_at, killed), now)
            }
            Event::Exited(_, Others::Run)
            | Event::Time
            | Event::Unhealthy
            | Event::Halt(_)
            | Event::Made
            | Event::NotMade
            | Event::Removed
            | Event::NotRemoved => (state, vec![]),
        }
    }

    fn removing(
        &self,
        mut state: State,
        next: Next,
        again_at: Option<Moment>,
        event: Event,
        now: Moment,
    ) -> Step {
        let then = |next| Phase::Removing { next, again_at };
        match event {
            Event::Removed => match next {
                Next::Rest(why) => {
                    state.phase = Phase::Resting { why };
                    (state, vec![])
                }
                Next::Attempt(_, until) if now >= until => create(state, now),
                Next::Attempt(cause, until) => {
                    state.phase = Phase::Waiting { cause, until };
                    (state, vec![])
                }
            },
            Event::NotRemoved => {
                let again_at = Some(now + AGAIN);
                state.phase = Phase::Removing { next, again_at };
                (state, vec![])
            }
            Event::Time if again_at.is_some_and(|moment| now >= moment) => remove(state, next),
            Event::Found(Found::Nothing) => match next {
                Next::Rest(_) => remove(state, next),
                Next::Attempt(cause, until) => {
                    let until = self.of_this_boot(cause, until, now);
                    remove(state, Next::Attempt(cause, until))
                }
            },
            Event::Found(Found::Alive) => self.alive(state, now),
            Event::Found(Found::Part) => self.parted(state, now, now),
            Event::Start | Event::Restart => {
                (state.wanted, state.in_a_row) = (true, InARow::default());
                state.phase = then(Next::Attempt(Cause::Asked, now));
                (state, vec![])
            }
            Event::Stop => {
                state.wanted = false;
                state.phase = then(Next::Rest(Rest::Stopped));
                (state, vec![])
            }
            Event::Time
            | Event::Unhealthy
            | Event::Halt(_)
            | Event::Made
            | Event::NotMade
            | Event::Exited(..) => (state, vec![]),
        }
    }
}
