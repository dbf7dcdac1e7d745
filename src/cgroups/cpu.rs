//! The share of processor time: `linux.resources.cpu` to `cpu.weight`, `cpu.max` and `cpu.idle`.
//!
//! Real-time limits exist only in cgroup v1 and are refused. `cpus` and `mems` are in cpuset.rs.

use oci_spec::runtime::{LinuxCpu, LinuxResources};

use super::Controller;
use super::plan::Draft;

/// Row of `CONTROLLERS`.
pub(super) struct Cpu;

/// What cpu.max has at first, and takes when only a quota is given: microseconds.
const DEFAULT_PERIOD: u64 = 100_000;
/// What the kernel takes as a period: 1 ms to 1 s (kernel/sched/core.c), in microseconds.
const PERIODS: std::ops::RangeInclusive<u64> = 1_000..=1_000_000;
/// The least quota that the kernel takes: 1 ms, in microseconds.
const LEAST_QUOTA: i64 = 1_000;

impl Controller for Cpu {
    fn name(&self) -> &'static str {
        "cpu"
    }

    fn plan(&self, resources: &LinuxResources, draft: &mut Draft<'_>) {
        let Some(cpu) = resources.cpu() else { return };
        refuse_realtime(cpu, draft);
        weight_and_idle(cpu, draft);
        bandwidth(cpu, draft);
    }
}

/// An idle cgroup refuses a weight, so the weight is written while it is not idle.
fn weight_and_idle(cpu: &LinuxCpu, draft: &mut Draft<'_>) {
    let weight = cpu.shares().and_then(weight);
    let is_idle = draft.present("cpu.idle").as_deref() == Some("1");
    match (is_idle, cpu.idle(), weight) {
        (true, None, Some(_)) => {
            let text = "is of no use to a container that is idle: set cpu.idle to 0 beside it";
            draft.refuse("cpu.shares", text);
        }
        // It goes on having none, and would get the first one again with the end of cpu.idle.
        (true, Some(1), _) => idle(cpu, draft),
        (true, _, weight) => {
            idle(cpu, draft);
            write_weight(weight, draft);
        }
        (false, _, weight) => {
            write_weight(weight, draft);
            idle(cpu, draft);
        }
    }
}

fn write_weight(weight: Option<u32>, draft: &mut Draft<'_>) {
    if let Some(weight) = weight {
        draft.limit("cpu.shares", "cpu.weight", weight);
    }
}

fn idle(cpu: &LinuxCpu, draft: &mut Draft<'_>) {
    match cpu.idle() {
        None => {}
        Some(0) => draft.lift("cpu.idle", "cpu.idle", 0),
        Some(1) => draft.limit("cpu.idle", "cpu.idle", 1),
        Some(other) => draft.refuse("cpu.idle", format!("must be 0 or 1, is {other}")),
    }
}

fn refuse_realtime(cpu: &LinuxCpu, draft: &mut Draft<'_>) {
    if cpu.realtime_runtime().is_some_and(|runtime| runtime != 0) {
        draft.refuse_v1("cpu.realtimeRuntime");
    }
    if cpu.realtime_period().is_some_and(|period| period != 0) {
        draft.refuse_v1("cpu.realtimePeriod");
    }
}

/// What is in force: quota (None for no limit), period and burst, all in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bandwidth {
    quota: Option<u64>,
    period: u64,
    burst: u64,
}

impl Bandwidth {
    /// What a new cgroup has.
    const NONE: Bandwidth = Bandwidth {
        quota: None,
        period: DEFAULT_PERIOD,
        burst: 0,
    };

    /// What the cgroup has now.
    fn present(draft: &Draft<'_>) -> Bandwidth {
        let (max, burst) = (draft.present("cpu.max"), draft.present("cpu.max.burst"));
        let (quota, period) = max
            .as_deref()
            .and_then(|text| text.split_once(' '))
            .unwrap_or(("max", ""));
        Bandwidth {
            quota: quota.parse().ok(),
            period: period.parse().unwrap_or(Bandwidth::NONE.period),
            burst: burst.and_then(|text| text.parse().ok()).unwrap_or(0),
        }
    }
}

/// Quota, period and burst. Of quota and period, the one that is not given stays as it is.
fn bandwidth(cpu: &LinuxCpu, draft: &mut Draft<'_>) {
    let quota = cpu.quota().filter(|&quota| quota != 0);
    let period = cpu.period().filter(|&period| period != 0);
    // Every negative number lifts the limit, as it did in cgroup v1 (sched-bwc.rst).
    if let Some(wrong) = quota.filter(|&quota| (1..LEAST_QUOTA).contains(&quota)) {
        let text = format!("must be at least {LEAST_QUOTA} us, or -1 for no limit, is {wrong}");
        draft.refuse("cpu.quota", text);
    }
    if let Some(wrong) = period.filter(|period| !PERIODS.contains(period)) {
        let (least, most) = (PERIODS.start(), PERIODS.end());
        draft.refuse(
            "cpu.period",
            format!("must be {least} to {most} us, is {wrong}"),
        );
    }
    let present = Bandwidth::present(draft);
    let wanted = Bandwidth {
        quota: quota.map_or(present.quota, |quota| u64::try_from(quota).ok()),
        period: period.unwrap_or(present.period),
        burst: cpu.burst().unwrap_or(present.burst),
    };
    check_burst(cpu, wanted, draft);
    // A burst may at no time be larger than the quota in force.
    let burst_first = wanted.burst < present.burst;
    if burst_first {
        write_burst(cpu, draft);
    }
    match (wanted.quota, quota.is_some(), period.is_some()) {
        (_, false, false) => {}
        (Some(quota), named, _) => {
            let field = if named { "cpu.quota" } else { "cpu.period" };
            draft.limit(field, "cpu.max", format!("{quota} {}", wanted.period));
        }
        (None, _, named) => {
            let field = if named { "cpu.period" } else { "cpu.quota" };
            draft.lift(field, "cpu.max", format!("max {}", wanted.period));
        }
    }
    if !burst_first {
        write_burst(cpu, draft);
    }
}

fn check_burst(cpu: &LinuxCpu, wanted: Bandwidth, draft: &mut Draft<'_>) {
    let Some(quota) = wanted.quota.filter(|&quota| wanted.burst > quota) else {
        return;
    };
    let burst = wanted.burst;
    if cpu.burst().is_some() {
        let text = format!("must be no larger than the quota of {quota} us, is {burst}");
        draft.refuse("cpu.burst", text);
    } else {
        let text = format!("must not be below the burst in force, {burst} us: set cpu.burst too");
        draft.refuse("cpu.quota", text);
    }
}

fn write_burst(cpu: &LinuxCpu, draft: &mut Draft<'_>) {
    match cpu.burst() {
        None => {}
        Some(0) => draft.lift("cpu.burst", "cpu.max.burst", 0),
        Some(burst) => draft.limit("cpu.burst", "cpu.max.burst", burst),
    }
}

/// The weight (1 to 10000, 100 at first) for shares of cgroup v1 (2 to 262144, 1024 at first).
///
/// 0 means "not set". Shares out of range are moved into it, as the kernel of cgroup v1 does. The
/// exponent is the parabola through the three points 2 -> 1, 1024 -> 100 and 262144 -> 10000, as
/// in `ConvertCPUSharesToCgroupV2Value` of opencontainers/cgroups (runc 1.3.2) and
/// `convert_shares_to_weight` of crun 1.23, so that a container keeps its share with us.
fn weight(shares: u64) -> Option<u32> {
    match shares {
        0 => None,
        1..=2 => Some(1),
        262_144.. => Some(10_000),
        shares => {
            let log = (shares as f64).log2();
            let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
            Some(10_f64.powf(exponent).ceil() as u32)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::tests::{lines, problems};
    use super::*;

    #[test]
    fn cpu_shares_become_a_weight() {
        let fixed = [(0, None), (1, Some(1)), (2, Some(1)), (1024, Some(100))];
        for (shares, expected) in fixed {
            assert_eq!(weight(shares), expected, "{shares}");
        }
        assert_eq!(weight(262_144), Some(10_000));
        assert_eq!(weight(u64::MAX), Some(10_000));
        assert!((2..262_144).all(|n| weight(n) <= weight(n + 1) && weight(n) >= Some(1)));
        assert_eq!(
            lines(r#"{"cpu": {"shares": 512}}"#),
            ["write    cpu.weight 59"]
        );
    }

    #[test]
    fn quota_period_and_burst_become_cpu_max() {
        let all = r#"{"cpu": {"quota": 50000, "period": 200000, "burst": 10000}}"#;
        assert_eq!(
            lines(all),
            [
                "late     cpu.max 50000 200000",
                "late     cpu.max.burst 10000"
            ]
        );
        assert_eq!(
            lines(r#"{"cpu": {"quota": 50000}}"#),
            ["late     cpu.max 50000 100000"]
        );
        for none in [-1, -9999, i64::MIN] {
            let none = format!(r#"{{"cpu": {{"quota": {none}}}}}"#);
            assert_eq!(lines(&none), ["late     cpu.max max 100000, if it exists"]);
        }
    }

    #[test]
    fn zero_sets_nothing() {
        let zero = r#"{"cpu": {"shares": 0, "quota": 0, "period": 0,
            "realtimeRuntime": 0, "realtimePeriod": 0, "cpus": "", "mems": ""}}"#;
        assert!(lines(zero).is_empty());
    }

    #[test]
    fn the_weight_comes_before_idle_which_forbids_it() {
        let both = r#"{"cpu": {"idle": 1, "shares": 1024}}"#;
        assert_eq!(
            lines(both),
            ["write    cpu.weight 100", "write    cpu.idle 1"]
        );
    }

    #[test]
    fn values_that_the_kernel_would_refuse_are_problems() {
        let wrong = r#"{"cpu": {"quota": 500, "period": 1000001, "burst": 501, "idle": 2,
            "realtimeRuntime": 950000, "realtimePeriod": 1000000}}"#;
        let places = [
            "linux.resources.cpu.realtimeRuntime: ",
            "linux.resources.cpu.realtimePeriod: ",
            "linux.resources.cpu.idle: must be 0 or 1, is 2",
            "linux.resources.cpu.quota: must be at least 1000 us, or -1 for no limit, is 500",
            "linux.resources.cpu.period: must be 1000 to 1000000 us, is 1000001",
            "linux.resources.cpu.burst: must be no larger than the quota of 500 us, is 501",
        ];
        let found = problems(wrong);
        assert_eq!(found.len(), places.len(), "{found:?}");
        assert!(
            found
                .iter()
                .zip(places)
                .all(|(found, place)| found.starts_with(place)),
            "{found:?}"
        );
    }
}
