//! The health check, which in Helios is asked until it passes, and never again.

use serde::Deserialize;

use super::{Import, Options};
use crate::job::{Check, Http, Tcp, Time};

/// HealthCheck.java and its kinds.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum HealthCheck {
    Exec { command: Vec<String> },
    Http { path: String, port: String },
    Tcp { port: String },
}

pub(super) fn health_check(import: &mut Import, _options: &Options) {
    let Some(given) = import.take::<HealthCheck>("healthCheck") else {
        return;
    };
    // The times of HealthCheckerFactory.java; an exec has none there.
    let (timeout, probe) = match given {
        HealthCheck::Exec { command } => (
            Time::from_secs(60),
            Check {
                exec: Some(command),
                ..Check::default()
            },
        ),
        HealthCheck::Http { path, port } => (
            Time::from_secs(10),
            Check {
                http: Some(Http {
                    port,
                    path,
                    host: None,
                    status: Vec::new(),
                }),
                ..Check::default()
            },
        ),
        HealthCheck::Tcp { port } => (
            Time::from_millis(500),
            Check {
                tcp: Some(Tcp { port }),
                ..Check::default()
            },
        ),
    };
    import.task.health.startup = Some(Check {
        timeout: Some(timeout),
        failures: Some(0),
        ..probe
    });
    import.note(
        "healthCheck",
        "is asked every second until it passes, and then never again, as in Helios: readiness and liveness ask on",
    );
}
