//! What a container uses and what happens to it, as a stream: `events`.
//!
//! Lines in runc's form: `stats` in an interval, `oom` when the kernel kills for want of memory; and
//! `pressure`, which is not runc's, when a threshold is reached. What happens is waited for, never
//! looked at in intervals. Takes no lock, as all queries.

use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Serialize;

use super::freeze::NO_CGROUP;
use super::id::ContainerId;
use super::record::Snapshot;
use super::{duration, query};
use crate::cgroups::{
    Cgroup, Deadline, Happening, Hierarchy, Pressure, Stats, Threshold, Watch, Woken,
};
use crate::error::{self, Kind};

/// What pressure can be of.
const RESOURCES: [&str; 3] = ["cpu", "memory", "io"];

/// The windows that the kernel takes (kernel/sched/psi.c).
const WINDOWS: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(500)..=Duration::from_secs(10);

/// The threshold of each resource where none is given: a tenth of the time. A window of two seconds
/// is the shortest that needs no privilege.
const STALL: Duration = Duration::from_millis(200);
const WINDOW: Duration = Duration::from_secs(2);

/// What `events` is asked to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventsRequest {
    /// The time from one `stats` to the next; None for none.
    pub interval: Option<Duration>,
    /// The thresholds of `pressure`.
    pub thresholds: Vec<Threshold>,
    /// Whether somebody has named them, so that it is an error when the kernel has no such thing.
    pub named: bool,
}

impl EventsRequest {
    /// The request that these values of flags make: `--interval`, and `--pressure` as often as it was
    /// given.
    ///
    /// # Errors
    ///
    /// A value that means nothing, with its flag.
    pub fn parse(interval: &str, pressure: &[String]) -> Result<EventsRequest> {
        let Some(time) = duration::parse(interval) else {
            bail!(
                "--interval: must be a time as 500ms, 5s or 1m30s, or 0 for no stats, is {interval:?}"
            );
        };
        let thresholds = match pressure {
            [] => RESOURCES.map(default_threshold).into_iter().collect(),
            [none] if none == "none" => Vec::new(),
            all => all
                .iter()
                .map(|text| threshold(text))
                .collect::<Result<_>>()?,
        };
        Ok(EventsRequest {
            interval: Some(time).filter(|time| !time.is_zero()),
            thresholds,
            named: !pressure.is_empty(),
        })
    }
}

fn default_threshold(resource: &'static str) -> Threshold {
    Threshold {
        resource,
        full: false,
        stall: STALL,
        window: WINDOW,
    }
}

/// A threshold as `memory=200ms/2s` or `io:full=1s/10s`.
fn threshold(text: &str) -> Result<Threshold> {
    let parse = || {
        let (what, times) = text.split_once('=')?;
        let (resource, kind) = what.split_once(':').unwrap_or((what, "some"));
        let (stall, window) = times.split_once('/')?;
        Some(Threshold {
            resource: RESOURCES.into_iter().find(|known| *known == resource)?,
            full: kind == "full",
            stall: duration::parse(stall)?,
            window: duration::parse(window)?,
        })
        .filter(|_| ["some", "full"].contains(&kind))
    };
    let threshold = parse().with_context(|| {
        format!("--pressure: must be none, or as memory=200ms/2s, cpu=… or io:full=…, is {text:?}")
    })?;
    if !WINDOWS.contains(&threshold.window)
        || threshold.stall.is_zero()
        || threshold.stall > threshold.window
    {
        bail!("--pressure: must be a stall within a window of 500ms to 10s, is {text:?}");
    }
    Ok(threshold)
}

/// One line of the stream.
#[derive(Debug, Serialize)]
pub struct Event<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Data>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Data {
    Stats(Box<StatsData>),
    Pressure(PressureData),
}

#[derive(Debug, Serialize)]
struct StatsData {
    #[serde(flatten)]
    cgroup: Stats,
    /// There are none; but they stand in every line of runc.
    intel_rdt: Nothing,
    network_interfaces: Option<Nothing>,
}

#[derive(Debug, Serialize)]
struct Nothing {}

#[derive(Debug, Serialize)]
struct PressureData {
    resource: &'static str,
    kind: &'static str,
    stall_us: u64,
    window_us: u64,
    psi: Pressure,
}

/// Tells `tell` what the container uses now.
///
/// # Errors
///
/// [`Kind::NotFound`], [`Kind::NotRunning`]; what the kernel or `tell` answered.
pub fn stats(
    root: &Path,
    id: &ContainerId,
    mut tell: impl FnMut(&Event) -> Result<()>,
) -> Result<()> {
    let container = Snapshot::read(root, id)?;
    let (cgroup, _pidfd) = living(&container)?;
    tell(&stats_event(id, &cgroup, &Hierarchy::find()?)?)
}

/// Tells `tell` what happens to the container, until it ends.
///
/// # Errors
///
/// As [`stats`]; and for a threshold that the kernel refuses.
pub fn stream(
    root: &Path,
    id: &ContainerId,
    request: &EventsRequest,
    mut tell: impl FnMut(&Event) -> Result<()>,
) -> Result<()> {
    let container = Snapshot::read(root, id)?;
    let (cgroup, pidfd) = living(&container)?;
    let hierarchy = Hierarchy::find()?;
    let mut watch = watch(&cgroup, request)?;
    let mut next = request.interval.map(Deadline::after);
    loop {
        let mut happenings = Vec::new();
        let woken = watch.wait(pidfd.as_fd(), next.as_ref(), &mut happenings)?;
        for happening in happenings {
            tell(&happened(id, happening))?;
        }
        match woken {
            Woken::Happenings => {}
            Woken::Ended => return Ok(()),
            Woken::Time => {
                tell(&stats_event(id, &cgroup, &hierarchy)?)?;
                next = request.interval.map(Deadline::after);
            }
        }
    }
}

/// The cgroup and the first process of a container that has not ended.
fn living(container: &Snapshot) -> Result<(Cgroup, std::os::fd::OwnedFd)> {
    let not_running = || Kind::NotRunning(container.id.to_string());
    let init = container.init.as_ref().ok_or_else(not_running)?;
    let pidfd = init.open()?.ok_or_else(not_running)?;
    if container.facts.cgroup.is_none() {
        bail!(NO_CGROUP);
    }
    let cgroup = query::cgroup(container)?.ok_or_else(not_running)?;
    Ok((cgroup, pidfd))
}

fn watch<'a>(cgroup: &'a Cgroup, request: &EventsRequest) -> Result<Watch<'a>> {
    let mut watch = Watch::new(cgroup)?;
    if !watch.sees_kills() {
        let why = "the container's cgroup has no controller memory";
        error::warn(&format!("no oom will be told, as {why}"));
    }
    for threshold in &request.thresholds {
        let resource = threshold.resource;
        let there = watch.add(threshold.clone());
        match there.with_context(|| format!("--pressure {resource}"))? {
            true => {}
            false if request.named => {
                bail!("--pressure {resource}: this kernel tells no pressure of cgroups")
            }
            false => error::debug(|| format!("no pressure of {resource} in this kernel")),
        }
    }
    Ok(watch)
}

fn stats_event<'a>(
    id: &'a ContainerId,
    cgroup: &Cgroup,
    hierarchy: &Hierarchy,
) -> Result<Event<'a>> {
    let data = StatsData {
        cgroup: cgroup.stats(hierarchy)?,
        intel_rdt: Nothing {},
        network_interfaces: None,
    };
    Ok(Event {
        kind: "stats",
        id: id.as_str(),
        data: Some(Data::Stats(Box::new(data))),
    })
}

fn happened(id: &ContainerId, happening: Happening) -> Event<'_> {
    let (kind, data) = match happening {
        Happening::OomKill => ("oom", None),
        Happening::Pressure(threshold, psi) => {
            let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
            let data = PressureData {
                resource: threshold.resource,
                kind: if threshold.full { "full" } else { "some" },
                stall_us: micros(threshold.stall),
                window_us: micros(threshold.window),
                psi,
            };
            ("pressure", Some(Data::Pressure(data)))
        }
    };
    Event {
        kind,
        id: id.as_str(),
        data,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lifecycle::testing::id;

    fn parse(interval: &str, pressure: &[&str]) -> Result<EventsRequest, String> {
        let pressure: Vec<String> = pressure.iter().map(|text| (*text).to_owned()).collect();
        EventsRequest::parse(interval, &pressure).map_err(|error| error.to_string())
    }

    #[test]
    fn without_flags_there_is_a_threshold_for_each_resource() {
        let request = parse("5s", &[]).unwrap();
        assert_eq!(request.interval, Some(Duration::from_secs(5)));
        let resources: Vec<_> = request.thresholds.iter().map(|t| t.resource).collect();
        assert_eq!(resources, RESOURCES);
        assert!(!request.named);
        let none = parse("0", &["none"]).unwrap();
        assert_eq!((none.interval, none.thresholds.len()), (None, 0));
    }

    #[test]
    fn a_threshold_is_a_resource_a_stall_and_a_window() {
        let request = parse("1s", &["io:full=1s/10s", "cpu=5ms/500ms"]).unwrap();
        let threshold = |resource, full, stall, window| Threshold {
            resource,
            full,
            stall: Duration::from_millis(stall),
            window: Duration::from_millis(window),
        };
        let expected = [
            threshold("io", true, 1000, 10_000),
            threshold("cpu", false, 5, 500),
        ];
        assert_eq!(request.thresholds, expected);
    }

    #[test]
    fn what_is_no_threshold_and_no_time_is_refused_with_its_flag() {
        for wrong in ["disk=1s/2s", "io", "io=1s", "io:all=1s/2s", "io=x/2s"] {
            let told = parse("1s", &[wrong]).unwrap_err();
            assert!(
                told.starts_with("--pressure: must be none, or as"),
                "{wrong}: {told}"
            );
        }
        for wrong in ["io=1s/400ms", "io=3s/2s", "io=0/2s", "io=1s/11s"] {
            let told = parse("1s", &[wrong]).unwrap_err();
            assert!(
                told.starts_with("--pressure: must be a stall within"),
                "{wrong}: {told}"
            );
        }
        let told = parse("5", &[]).unwrap_err();
        assert!(told.starts_with("--interval: must be a time"), "{told}");
    }

    #[test]
    fn lines_have_runcs_fields_in_runcs_order() {
        let web = id("web");
        let json = |event: &Event| serde_json::to_string(event).unwrap();
        assert_eq!(
            json(&happened(&web, Happening::OomKill)),
            r#"{"type":"oom","id":"web"}"#
        );
        let threshold = default_threshold("memory");
        let line = json(&happened(
            &web,
            Happening::Pressure(threshold, Pressure::default()),
        ));
        let expected = r#"{"type":"pressure","id":"web","data":{"resource":"memory","kind":"some","stall_us":200000,"window_us":2000000,"psi":{"some":"#;
        assert!(line.starts_with(expected), "{line}");
    }
}
