//! An instance as others see it.

use super::{Aim, Slot, Stage};
use crate::api::{Goal, Instance, Phase};

impl Slot {
    /// What is told of it.
    #[must_use]
    pub fn view(&self, name: &str, host: &str) -> Instance {
        let report = self.report.as_deref();
        Instance {
            name: name.to_owned(),
            job: self.job.clone(),
            host: host.to_owned(),
            index: self.index,
            goal: self.goal(),
            phase: self.phase(),
            health: self.health,
            flapping: report.is_some_and(|report| report.flapping),
            restarts: report.map_or(0, |report| report.restarts),
            next_attempt: report.and_then(|report| report.next_attempt.clone()),
            since: report.and_then(|report| report.since.clone()),
            address: self.address,
            ports: self.ports.clone(),
            tasks: report
                .map(|report| report.tasks.clone())
                .unwrap_or_default(),
            fault: self
                .fault
                .clone()
                .or_else(|| report.and_then(|report| report.fault.clone())),
        }
    }

    fn goal(&self) -> Option<Goal> {
        match self.aim {
            Aim::Run => Some(Goal::Start),
            Aim::Rest => Some(Goal::Stop),
            Aim::AsItIs => Some(match &self.report {
                Some(report) if !report.wanted => Goal::Stop,
                Some(_) | None => Goal::Start,
            }),
            Aim::Gone => None,
        }
    }

    /// What its last keeper has told is true until another one tells, as it leaves the container.
    fn phase(&self) -> Phase {
        let told = self.report.as_ref().map(|report| report.phase);
        match self.stage {
            Stage::Unmade { .. } | Stage::Making | Stage::Unkept { .. } | Stage::Keeping => {
                match (told, &self.fault) {
                    (_, Some(_)) => Phase::Broken,
                    (Some(phase), None) => phase,
                    (None, None) => Phase::Pending,
                }
            }
            Stage::Kept { .. } => told.unwrap_or(Phase::Pending),
            Stage::Deleting => Phase::Stopping,
            Stage::Remaining { .. } => Phase::Broken,
        }
    }
}
