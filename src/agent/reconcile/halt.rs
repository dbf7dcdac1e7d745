//! What is done while the host is going down: every program is told to end, all at once, and nothing is started.

use super::{ASK_AGAIN, Action, Begin, Health, Moment, Name, Request, Slot, Stage, State};
use crate::api::{Instance, Phase};

impl State {
    /// How many instances have not ended yet; None while the host is not going down.
    #[must_use]
    pub fn left(&self) -> Option<usize> {
        self.halting?;
        Some(self.slots.values().filter(|slot| !slot.is_down()).count())
    }
}

impl Slot {
    /// Begins what is to be done now; `end` is when the last process is to be killed.
    pub(super) fn halt(
        &mut self,
        name: &Name,
        end: Moment,
        now: Moment,
        actions: &mut Vec<Action>,
    ) {
        match self.stage {
            // Its container may run, without a keeper.
            Stage::Unmade { at } | Stage::Unkept { at } if self.exists && at <= now => {
                self.stage = Stage::Keeping;
                actions.push(Action::Keep(name.clone(), Begin::Halting));
            }
            Stage::Kept { since, asked } => {
                let ended = self.report.as_ref().is_none_or(|report| report.is_at_rest);
                let is_due = asked.is_none_or(|moment| now >= moment + ASK_AGAIN);
                if ended {
                    self.stage = Stage::Kept { since, asked: None };
                } else if is_due {
                    let asked = Some(now);
                    self.stage = Stage::Kept { since, asked };
                    let left = end.saturating_sub(now).as_millis();
                    let within_ms = u64::try_from(left).unwrap_or(u64::MAX);
                    actions.push(Action::Ask(name.clone(), Request::Halt { within_ms }));
                }
            }
            Stage::Unmade { .. }
            | Stage::Making
            | Stage::Unkept { .. }
            | Stage::Keeping
            | Stage::Deleting
            | Stage::Remaining { .. } => {}
        }
    }

    /// When [`super::Event::Time`] is to come meanwhile.
    pub(super) fn halt_at(&self) -> Option<Moment> {
        match self.stage {
            Stage::Unmade { at } | Stage::Unkept { at } => self.exists.then_some(at),
            Stage::Kept { asked, .. } => asked.map(|moment| moment + ASK_AGAIN),
            Stage::Making | Stage::Keeping | Stage::Deleting | Stage::Remaining { .. } => None,
        }
    }

    /// Whether nothing of it runs, as far as can be known.
    fn is_down(&self) -> bool {
        match self.stage {
            Stage::Unmade { .. } | Stage::Unkept { .. } => !self.exists,
            Stage::Kept { .. } => self.report.as_ref().is_some_and(|report| report.is_at_rest),
            Stage::Deleting | Stage::Remaining { .. } => true,
            Stage::Making | Stage::Keeping => false,
        }
    }
}

/// An instance as others see it while the host is going down: nobody may use it, from the first moment on.
#[must_use]
pub fn going_down(mut view: Instance) -> Instance {
    match view.phase {
        Phase::Starting | Phase::Running | Phase::Waiting => {
            view.phase = Phase::Stopping;
        }
        Phase::Pending
        | Phase::Stopping
        | Phase::Stopped
        | Phase::Completed
        | Phase::Failed
        | Phase::Broken => {}
    }
    if view.health == Health::Ready {
        view.health = Health::NotReady;
    }
    view
}
