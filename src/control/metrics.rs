//! Figures in Prometheus' text format, made when they are asked for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::{Atomic, ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::Registry;

use super::faults::{Fault, Part};
use crate::agent::Snapshot;
use crate::api::{Deployment, Instance};

/// What this daemon counts itself.
#[derive(Debug, Default)]
pub struct Counts {
    requests: Arc<AtomicU64>,
    refused: Arc<AtomicU64>,
}

impl Counts {
    /// One more request was answered.
    pub fn answered(&self, well: bool) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        if !well {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct State {
    job: String,
    version: String,
    phase: String,
    health: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Job {
    job: String,
    version: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Of {
    of: &'static str,
}

fn job(instance: &Instance) -> Job {
    Job {
        job: instance.job.name.clone(),
        version: instance.job.version.clone(),
    }
}

/// A word as the API writes it.
fn word<T: serde::Serialize>(value: T) -> String {
    let value = serde_json::to_value(value).unwrap_or_default();
    value.as_str().unwrap_or_default().to_owned()
}

fn faulty(faults: &[Fault]) -> Family<Of, Gauge> {
    let faulty = Family::<Of, Gauge>::default();
    for part in Part::ALL {
        let is_faulty = faults.iter().any(|fault| fault.part == part);
        let of = Of { of: part.name() };
        faulty.get_or_create(&of).set(i64::from(is_faulty));
    }
    faulty
}

/// All figures.
///
/// # Errors
///
/// None in practice: what is written to is memory.
pub fn text(
    snapshot: &Snapshot,
    deployments: &[Deployment],
    counts: &Counts,
    faults: &[Fault],
) -> Result<String, std::fmt::Error> {
    let mut registry = Registry::with_prefix("parhelion");
    let instances = Family::<State, Gauge>::default();
    let restarts = Family::<Job, Counter>::default();
    let flapping = Family::<Job, Gauge>::default();
    let wanted = Family::<Job, Gauge>::default();
    for instance in &snapshot.instances {
        let state = State {
            job: instance.job.name.clone(),
            version: instance.job.version.clone(),
            phase: word(instance.phase),
            health: word(instance.health),
        };
        instances.get_or_create(&state).inc();
        let restarted = restarts.get_or_create(&job(instance)).clone();
        restarted.inner().inc_by(instance.restarts);
        let flaps = i64::from(instance.flapping);
        flapping.get_or_create(&job(instance)).inc_by(flaps);
    }
    for deployment in deployments {
        let job = Job {
            job: deployment.job.name.clone(),
            version: deployment.job.version.clone(),
        };
        wanted.get_or_create(&job).inc_by(deployment.count.into());
    }
    registry.register("instances", "Instances, by what they are", instances);
    registry.register(
        "instance_restarts",
        "How often the instances that there are were started again",
        restarts,
    );
    registry.register(
        "instances_flapping",
        "Instances that fail again and again",
        flapping,
    );
    registry.register(
        "instances_wanted",
        "Instances that there are to be, running or stopped",
        wanted,
    );
    let requests = ConstCounter::new(counts.requests.load(Ordering::Relaxed));
    registry.register("requests", "Requests that were answered", requests);
    let refused = ConstCounter::new(counts.refused.load(Ordering::Relaxed));
    registry.register("requests_refused", "Those with an error", refused);
    registry.register("fault", "1 for what does not work", faulty(faults));
    let reaches = faults
        .iter()
        .all(|fault| !matches!(fault.part, Part::Wanted | Part::Identity));
    registry.register(
        "agent_reached",
        "1 if what is wanted has reached the agent",
        ConstGauge::new(i64::from(reaches)),
    );
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}
