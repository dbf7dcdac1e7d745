//! What a task says about its health: three checks, each of which asks in one of three ways.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use super::values::Time;

/// The checks of a task. Readiness and liveness begin when startup has passed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Health {
    /// Whether the program has come up. When it fails for good, the instance is started again.
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "startup",
        default
    )]
    pub startup: Option<Check>,
    /// Whether it may be used now.
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "readiness",
        default
    )]
    pub readiness: Option<Check>,
    /// Whether it works at all. When it fails for good, the instance is started again.
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "liveness",
        default
    )]
    pub liveness: Option<Check>,
}

/// Which question a check is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Purpose {
    /// Whether the program has come up.
    Startup,
    /// Whether it may be used now.
    Readiness,
    /// Whether it works at all.
    Liveness,
}

/// One check: exactly one of `exec`, `http` and `tcp`, and how often.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Check {
    /// A program inside the container, with its arguments: it passes with exit code 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exec: Option<Vec<String>>,
    /// A request by HTTP/1.1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<Http>,
    /// A connection: it passes when it is accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp: Option<Tcp>,
    /// The time from one check's beginning to the next one's: 100ms to a day; 10s by default, 1s for startup.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<Time>,
    /// After what time without an answer it has failed: 10ms to an hour, 5s by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Time>,
    /// How many failures in a row count: 1 to 10000; 3 by default, 300 for startup. 0, for startup only, is any number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failures: Option<u32>,
    /// How many passes in a row count: 1 to 10000, 1 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub successes: Option<u32>,
}

/// A request by HTTP/1.1, GET, without TLS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Http {
    /// The name of one of the job's ports.
    pub port: String,
    /// What is asked for, with a query perhaps; `/` by default.
    #[serde(default = "slash", skip_serializing_if = "is_slash")]
    pub path: String,
    /// The `Host` header; the address and port by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The answers that pass; by default every one from 200 to 399.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub status: Vec<u16>,
}

/// A connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Tcp {
    /// The name of one of the job's ports.
    pub port: String,
}

/// How a check asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe<'a> {
    /// By a program inside.
    Exec(&'a [String]),
    /// By a request.
    Http(&'a Http),
    /// By a connection.
    Tcp(&'a Tcp),
}

/// How often a check asks, and when its answers count; nothing is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rhythm {
    /// From one beginning to the next.
    pub interval: Time,
    /// After what time it has failed.
    pub timeout: Time,
    /// How many failures in a row count; 0 is any number.
    pub failures: u32,
    /// How many passes in a row count.
    pub successes: u32,
}

fn slash() -> String {
    "/".to_owned()
}

fn is_slash(path: &str) -> bool {
    path == "/"
}

impl Purpose {
    /// All of them, in the order in which they are made.
    pub const ALL: [Purpose; 3] = [Purpose::Startup, Purpose::Readiness, Purpose::Liveness];

    /// Its name in a job.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Purpose::Startup => "startup",
            Purpose::Readiness => "readiness",
            Purpose::Liveness => "liveness",
        }
    }

    fn defaults(self) -> Rhythm {
        let rhythm = |interval, failures| Rhythm {
            interval: Time::from_secs(interval),
            timeout: Time::from_secs(5),
            failures,
            successes: 1,
        };
        match self {
            Purpose::Startup => rhythm(1, 300),
            Purpose::Readiness | Purpose::Liveness => rhythm(10, 3),
        }
    }
}

impl Health {
    /// The check for this purpose.
    #[must_use]
    pub fn get(&self, purpose: Purpose) -> Option<&Check> {
        match purpose {
            Purpose::Startup => self.startup.as_ref(),
            Purpose::Readiness => self.readiness.as_ref(),
            Purpose::Liveness => self.liveness.as_ref(),
        }
    }

    /// The checks that there are.
    pub fn checks(&self) -> impl Iterator<Item = (Purpose, &Check)> {
        let all = Purpose::ALL.into_iter();
        all.filter_map(|purpose| Some((purpose, self.get(purpose)?)))
    }

    pub(super) fn is_empty(&self) -> bool {
        *self == Health::default()
    }
}

impl Check {
    /// How it asks; None where the job does not say exactly one way, which is refused.
    #[must_use]
    pub fn probe(&self) -> Option<Probe<'_>> {
        match (&self.exec, &self.http, &self.tcp) {
            (Some(command), None, None) => Some(Probe::Exec(command)),
            (None, Some(http), None) => Some(Probe::Http(http)),
            (None, None, Some(tcp)) => Some(Probe::Tcp(tcp)),
            _ => None,
        }
    }

    /// How often it asks when it is for this purpose.
    #[must_use]
    pub fn rhythm(&self, purpose: Purpose) -> Rhythm {
        let default = purpose.defaults();
        Rhythm {
            interval: self.interval.unwrap_or(default.interval),
            timeout: self.timeout.unwrap_or(default.timeout),
            failures: self.failures.unwrap_or(default.failures),
            successes: self.successes.unwrap_or(default.successes),
        }
    }

    /// The same, with all that is its default left out: so that one check is written in one way.
    fn shortest(mut self, purpose: Purpose) -> Check {
        let default = purpose.defaults();
        self.interval.take_if(|time| *time == default.interval);
        self.timeout.take_if(|time| *time == default.timeout);
        self.failures.take_if(|count| *count == default.failures);
        self.successes.take_if(|count| *count == default.successes);
        self
    }
}

fn of<'de, D: Deserializer<'de>>(from: D, purpose: Purpose) -> Result<Option<Check>, D::Error> {
    let check = Option::<Check>::deserialize(from)?;
    Ok(check.map(|check| check.shortest(purpose)))
}

fn startup<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Check>, D::Error> {
    of(from, Purpose::Startup)
}

fn readiness<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Check>, D::Error> {
    of(from, Purpose::Readiness)
}

fn liveness<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Check>, D::Error> {
    of(from, Purpose::Liveness)
}
