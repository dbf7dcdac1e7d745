//! Services: where the instances that may be used answer. Pure.

use std::collections::BTreeMap;

use crate::agent::Snapshot;
use crate::api::{Endpoint, Health, Instance, Phase, Service};
use crate::job::{Job, JobId};

/// Whether it may be used: it runs, and its checks do not say otherwise.
pub fn is_ready(instance: &Instance, job: &Job) -> bool {
    let healthy = match instance.health {
        Health::Ready => true,
        Health::Unknown => !has_checks(job),
        Health::Starting | Health::NotReady | Health::Unhealthy => false,
    };
    instance.phase == Phase::Running && healthy
}

fn has_checks(job: &Job) -> bool {
    job.tasks
        .values()
        .any(|task| task.health != Default::default())
}

/// All services that the jobs register, each with its endpoints, by their names.
pub fn services(snapshot: &Snapshot, jobs: &BTreeMap<JobId, Job>) -> Vec<Service> {
    let mut services: BTreeMap<&str, Vec<Endpoint>> = BTreeMap::new();
    for (id, job) in jobs {
        for registered in &job.registration {
            let endpoints = services.entry(&registered.service).or_default();
            for instance in snapshot.instances.iter().filter(|one| one.job == *id) {
                let port = instance.ports.get(&registered.port);
                if let (true, Some(port)) = (is_ready(instance, job), port) {
                    endpoints.push(Endpoint {
                        instance: instance.name.clone(),
                        host: instance.host.clone(),
                        port: *port,
                        name: registered.port.clone(),
                        protocol: registered.protocol.clone(),
                        tags: registered.tags.clone(),
                        domain: registered.domain.clone(),
                    });
                }
            }
        }
    }
    let service = |(name, endpoints): (&str, _)| Service {
        name: name.to_owned(),
        endpoints,
    };
    services.into_iter().map(service).collect()
}
