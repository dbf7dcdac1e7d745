//! What leads from one phase to another: ends, failures, and what follows from them.

use std::time::Duration;

use super::{
    Action, Cause, Event, Exit, InARow, Moment, Next, Others, Phase, Policy, Rest, Restart, State,
    Step, Stop,
};

impl Policy {
    /// Its program runs, whoever has started it.
    pub(super) fn alive(&self, mut state: State, now: Moment) -> Step {
        if !state.wanted {
            return self.stop(state, Stop::Asked, now);
        }
        if state.is_halted() {
            return self.stop_for_host(state, now + self.grace);
        }
        state.phase = Phase::Running { since: now };
        (state, vec![])
    }

    /// The host is going down.
    pub(super) fn halt(&self, mut state: State, within: Duration, now: Moment) -> Step {
        let kill_by = now + self.grace.min(within);
        match state.phase {
            Phase::Resting { why: Rest::New } | Phase::Waiting { .. } => {
                state.phase = Phase::Resting { why: Rest::Halted };
            }
            Phase::Starting { since, kill_at } => {
                let kill_at = Some(kill_at.map_or(kill_by, |at| at.min(kill_by)));
                state.phase = Phase::Starting { since, kill_at };
            }
            Phase::Running { .. } => return self.stop_for_host(state, kill_by),
            Phase::Stopping {
                why,
                signal_at,
                kill_at,
                killed,
            } => {
                state.phase = Phase::Stopping {
                    why: if state.wanted { Stop::Host } else { why },
                    signal_at: None,
                    kill_at: kill_at.min(kill_by),
                    killed,
                };
                // Nobody finds another one on this host any more.
                return (
                    state,
                    signal_at.map(|_| Action::Signal).into_iter().collect(),
                );
            }
            Phase::Removing {
                next: Next::Attempt(..),
                again_at,
            } => {
                let next = Next::Rest(Rest::Halted);
                state.phase = Phase::Removing { next, again_at };
            }
            Phase::Resting { .. } | Phase::Removing { .. } => {}
        }
        (state, vec![])
    }

    /// What a keeper begins with after one that was told that the host was going down: it runs again.
    #[must_use]
    pub fn resumed(&self, mut state: State, now: Moment) -> State {
        match state.phase {
            Phase::Resting { why: Rest::Halted } => {
                state.phase = Phase::Resting { why: Rest::New };
                state
            }
            // What it asks for follows from what is found.
            _ if state.is_halted() => self.step(&state, Event::Start, now).0,
            Phase::Resting { .. }
            | Phase::Waiting { .. }
            | Phase::Starting { .. }
            | Phase::Running { .. }
            | Phase::Stopping { .. }
            | Phase::Removing { .. } => state,
        }
    }

    fn stop_for_host(&self, mut state: State, kill_by: Moment) -> Step {
        let kill_at = match state.phase {
            Phase::Starting { kill_at, .. } => kill_at.unwrap_or(kill_by),
            Phase::Resting { .. }
            | Phase::Waiting { .. }
            | Phase::Running { .. }
            | Phase::Stopping { .. }
            | Phase::Removing { .. } => kill_by,
        };
        state.phase = Phase::Stopping {
            why: Stop::Host,
            signal_at: None,
            kill_at,
            killed: false,
        };
        (state, vec![Action::Signal])
    }

    pub(super) fn stop(&self, mut state: State, why: Stop, now: Moment) -> Step {
        state.phase = Phase::Stopping {
            why,
            signal_at: None,
            kill_at: now + self.grace,
            killed: false,
        };
        (state, vec![Action::Signal])
    }

    /// The same of a program that works: it is told after the delay, in which it is known to stop.
    pub(super) fn stop_later(&self, mut state: State, why: Stop, now: Moment) -> Step {
        if self.delay.is_zero() {
            return self.stop(state, why, now);
        }
        let signal_at = now + self.delay;
        state.phase = Phase::Stopping {
            why,
            signal_at: Some(signal_at),
            kill_at: signal_at + self.grace,
            killed: false,
        };
        (state, vec![])
    }

    /// A new keeper goes on to stop what runs. Moments of another boot may be far away.
    pub(super) fn goes_on_to_stop(
        &self,
        mut state: State,
        why: Stop,
        moments: (Option<Moment>, Moment, bool),
        now: Moment,
    ) -> Step {
        let (signal_at, kill_at, killed) = moments;
        let signal_at = signal_at.filter(|at| now < *at);
        let signal_at = signal_at.map(|at| at.min(now + self.delay));
        let kill_at = match signal_at {
            Some(at) => at + self.grace,
            None => kill_at.min(now + self.grace),
        };
        state.phase = Phase::Stopping {
            why,
            signal_at,
            kill_at,
            killed,
        };
        // The signal may not have been sent by the keeper that has died.
        let actions = match signal_at {
            Some(_) => vec![],
            None => vec![Action::Signal],
        };
        (state, actions)
    }

    /// A program that was told to end has ended.
    pub(super) fn stopped(&self, state: State, why: Stop, now: Moment) -> Step {
        match why {
            Stop::Asked => remove(state, Next::Rest(Rest::Stopped)),
            // There is one attempt, however it ends.
            Stop::Host if self.restart == Restart::Never => remove(state, Next::Rest(Rest::Failed)),
            Stop::Host => remove(state, Next::Rest(Rest::Halted)),
            Stop::Restart => asked(state, now),
            Stop::Unhealthy => self.failed(state, Cause::Unhealthy, now),
            Stop::Group => self.failed(state, Cause::Crash, now),
        }
    }

    /// A program has ended by itself. One of a group that has ended well, and is not started again after such
    /// an end, leaves the others alone; any other end is the end of the whole group.
    pub(super) fn exited(
        &self,
        mut state: State,
        end: (Exit, Others),
        since: Moment,
        now: Moment,
    ) -> Step {
        let (exit, others) = end;
        self.forgive(&mut state, since, now);
        match self.is_success(exit) {
            true => state.counts.completed += 1,
            false => state.counts.crashes += 1,
        }
        match (self.completes(exit), others) {
            (true, Others::Run) => (state, vec![]),
            (true, Others::Ended) => remove(state, Next::Rest(Rest::Completed)),
            (false, Others::Run) => self.stop(state, Stop::Group, now),
            (false, Others::Ended) => self.failed(state, Cause::Crash, now),
        }
    }

    fn is_success(&self, exit: Exit) -> bool {
        matches!(exit, Exit::Code(code) if self.success.contains(&code))
    }

    /// Whether a program that ends so by itself has completed, and is not started again for that.
    #[must_use]
    pub fn completes(&self, exit: Exit) -> bool {
        self.is_success(exit) && self.restart != Restart::Always
    }

    /// Some programs of a group run, and others have ended in a way that nobody knows.
    pub(super) fn parted(&self, state: State, since: Moment, now: Moment) -> Step {
        if !state.wanted {
            return self.stop(state, Stop::Asked, now);
        }
        if state.is_halted() {
            return self.stop_for_host(state, now + self.grace);
        }
        self.exited(state, (Exit::Unknown, Others::Run), since, now)
    }

    /// An attempt has come to an end that is to be followed by another one, if any is.
    pub(super) fn failed(&self, mut state: State, cause: Cause, now: Moment) -> Step {
        let nth = state.in_a_row.add(cause);
        if self.restart == Restart::Never {
            return remove(state, Next::Rest(Rest::Failed));
        }
        let delay = self.curves.of(cause).delay(nth, &mut state.seed);
        if delay.is_zero() {
            return create(state, now);
        }
        remove(state, Next::Attempt(cause, now + delay))
    }

    /// The moment of an attempt, which was set before the keeper began: another boot's may be far away.
    pub(super) fn of_this_boot(&self, cause: Cause, until: Moment, now: Moment) -> Moment {
        until.min(now + self.curves.of(cause).cap)
    }

    /// Forgets failures if the run was a good one.
    pub(super) fn forgive(&self, state: &mut State, since: Moment, now: Moment) {
        if now.saturating_sub(since) >= self.good_run {
            state.in_a_row = InARow::default();
        }
    }
}

/// Somebody wants it to run now.
pub(super) fn asked(mut state: State, now: Moment) -> Step {
    (state.wanted, state.in_a_row) = (true, InARow::default());
    create(state, now)
}

pub(super) fn create(mut state: State, now: Moment) -> Step {
    state.counts.attempts += 1;
    state.phase = Phase::Starting {
        since: now,
        kill_at: None,
    };
    (state, vec![Action::Create])
}

pub(super) fn remove(mut state: State, next: Next) -> Step {
    state.phase = Phase::Removing {
        next,
        again_at: None,
    };
    (state, vec![Action::Remove])
}

/// Nothing is there, and nothing is wanted.
pub(super) fn rest(mut state: State, why: Rest) -> Step {
    state.wanted = false;
    state.phase = Phase::Resting { why };
    (state, vec![])
}
