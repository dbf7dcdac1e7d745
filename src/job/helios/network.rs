//! Ports and services. As in Helios a container has a network of its own, from which ports are published, unless its job
//! says another one.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Deserialize;
use serde_json::Value;

use super::{Import, Options};
use crate::job::{Network, Port, Protocol, Service, Time};

/// PortMapping.java.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mapping {
    ip: Option<IpAddr>,
    internal_port: u16,
    external_port: Option<u16>,
    protocol: Option<Protocol>,
}

/// ServicePorts.java.
#[derive(Deserialize)]
struct ServicePorts {
    ports: Option<BTreeMap<String, Option<Parameters>>>,
}

/// ServicePortParameters.java.
#[derive(Deserialize, Default)]
struct Parameters {
    tags: Option<Vec<String>>,
}

pub(super) fn mode(import: &mut Import, _options: &Options) {
    let mode = import.text("networkMode");
    match mode.as_deref() {
        Some("host") => {}
        Some("none") => import.job.network = Network::None,
        None | Some("bridge" | "default") => import.job.network = Network::Bridge,
        Some(other) => import.problem(
            "networkMode",
            format!("{other:?} is a network of another container's: make both tasks of one job, with share"),
        ),
    }
}

pub(super) fn ports(import: &mut Import, _options: &Options) {
    let given: BTreeMap<String, Value> = import.take("ports").unwrap_or_default();
    for (name, value) in given {
        let path = format!("ports.{name}");
        let Some(mapping) = import.read::<Mapping>(&path, value) else {
            continue;
        };
        let internal = mapping.internal_port;
        let mapped = import.job.network == Network::Bridge;
        if !mapped {
            import_unmapped(import, &path, &mapping);
        }
        let port = Port {
            port: mapped.then_some(internal),
            external: match mapped {
                true => mapping.external_port,
                false => Some(internal),
            },
            protocol: mapping.protocol.unwrap_or_default(),
            address: mapping.ip.filter(|ip| !(mapped && ip.is_unspecified())),
        };
        import.job.ports.insert(name, port);
    }
}

/// A port of a program in the host's network.
fn import_unmapped(import: &mut Import, path: &str, mapping: &Mapping) {
    let internal = mapping.internal_port;
    match mapping.external_port {
        Some(external) if external != internal => import.problem(
            format!("{path}.externalPort"),
            format!(
                "is {external}, and internalPort is {internal}: in the host's network ports are not mapped, so the \
                 program has to listen at {external}; make both {external}, or networkMode bridge"
            ),
        ),
        Some(_) => {}
        None => import.note(
            path,
            format!("is {internal} on the host too, as its network is the host's: one instance a host"),
        ),
    }
    if mapping.ip.is_some() {
        import.note(
            format!("{path}.ip"),
            "is where checks ask: the program chooses where it listens",
        );
    }
}

pub(super) fn registration(import: &mut Import, _options: &Options) {
    let given: BTreeMap<String, Value> = import.take("registration").unwrap_or_default();
    for (endpoint, value) in given {
        let path = format!("registration[{endpoint:?}]");
        let Some(service) = import.read::<ServicePorts>(&path, value) else {
            continue;
        };
        // ServiceEndpoint.java: http, unless it says otherwise.
        let (name, protocol) = endpoint.split_once('/').unwrap_or((&endpoint, "http"));
        let only = || {
            let name = import
                .job
                .ports
                .keys()
                .next()
                .filter(|_| import.job.ports.len() == 1)?;
            Some(BTreeMap::from([(name.clone(), None)]))
        };
        let Some(ports) = service.ports.or_else(only) else {
            import.problem(path, "must have ports, as the job has not exactly one");
            continue;
        };
        for (port, parameters) in ports {
            import.job.registration.push(Service {
                service: name.to_owned(),
                port,
                protocol: protocol.to_owned(),
                tags: parameters.unwrap_or_default().tags.unwrap_or_default(),
                domain: None,
            });
        }
    }
}

pub(super) fn domain(import: &mut Import, _options: &Options) {
    let Some(domain) = import.text("registrationDomain") else {
        return;
    };
    if import.job.registration.is_empty() {
        import.note(
            "registrationDomain",
            "is left out, as there is no registration",
        );
    }
    for service in &mut import.job.registration {
        service.domain = Some(domain.clone());
    }
}

pub(super) fn grace_period(import: &mut Import, _options: &Options) {
    let Some(seconds) = import
        .take::<u32>("gracePeriod")
        .filter(|seconds| *seconds > 0)
    else {
        return;
    };
    if import.job.registration.is_empty() {
        import.note(
            "gracePeriod",
            "is left out, as in Helios where there is no registration",
        );
    } else {
        import.job.stop.delay = Time::from_secs(u64::from(seconds));
    }
}
