//! Limits as systemd's properties: what systemd knows of is told to it, from the same steps that
//! are then written to the cgroup's files.
//!
//! Both are needed. A limit that systemd does not know it would overwrite with its own idea the
//! next time it looks at the unit; one that only systemd writes may be rounded (the quota of
//! processor time), and its failure is a line in the journal and no answer. What systemd does not
//! know (huge pages, rdma, burst, limits of single devices) is in the files alone; systemd leaves
//! those alone.

use std::fmt;

use super::value::Value;
use crate::cgroups::plan::{Action, Missing, Step};

/// A property of a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Property {
    pub(super) name: String,
    pub(super) value: Value,
}

impl Property {
    pub(super) fn new(name: &str, value: Value) -> Property {
        let name = name.to_owned();
        Property { name, value }
    }
}

impl fmt::Display for Property {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.name)?;
        match &self.value {
            Value::U64(u64::MAX) => f.write_str("infinity"),
            Value::Bool(value) => write!(f, "{value}"),
            Value::I32(value) => write!(f, "{value}"),
            Value::U32(value) => write!(f, "{value}"),
            Value::U64(value) => write!(f, "{value}"),
            Value::Text(text) => write!(f, "{text:?}"),
            Value::Texts(texts) => write!(f, "{texts:?}"),
            Value::Bytes(bytes) => write!(f, "{bytes:02x?}"),
            Value::U32s(values) => write!(f, "{values:?}"),
        }
    }
}

/// How the value of a file becomes that of properties; nothing where systemd has no word for it.
type Convert = fn(&str) -> Option<Vec<Property>>;

/// The only one of these properties that a unit which is there can not be given any more.
const AT_CREATION: &str = "OOMPolicy";

/// The files whose limits systemd knows, and the version of systemd that began to (NEWS).
const KNOWN: &[(&str, u32, Convert)] = &[
    ("cpuset.cpus", 244, |v| {
        one("AllowedCPUs", Value::Bytes(mask(v)?))
    }),
    ("cpuset.mems", 244, |v| {
        one("AllowedMemoryNodes", Value::Bytes(mask(v)?))
    }),
    ("cpu.weight", 0, |v| one("CPUWeight", number(v)?)),
    // Weight 0 is systemd's "idle".
    ("cpu.idle", 252, |v| {
        (v == "1")
            .then_some(())
            .and_then(|()| one("CPUWeight", Value::U64(0)))
    }),
    ("cpu.max", 242, quota),
    ("memory.min", 0, |v| one("MemoryMin", bytes(v)?)),
    ("memory.low", 0, |v| one("MemoryLow", bytes(v)?)),
    ("memory.high", 0, |v| one("MemoryHigh", bytes(v)?)),
    ("memory.max", 0, |v| one("MemoryMax", bytes(v)?)),
    ("memory.swap.max", 0, |v| one("MemorySwapMax", bytes(v)?)),
    ("memory.zswap.max", 253, |v| {
        one("MemoryZSwapMax", bytes(v)?)
    }),
    ("memory.zswap.writeback", 256, |v| {
        one("MemoryZSwapWriteback", Value::Bool(v != "0"))
    }),
    // systemd writes this file itself, for this policy.
    ("memory.oom.group", 253, |v| {
        let policy = if v == "1" { "kill" } else { "continue" };
        one(AT_CREATION, Value::Text(policy.to_owned()))
    }),
    ("pids.max", 0, tasks),
    ("io.weight", 0, |v| {
        one("IOWeight", number(v.strip_prefix("default ").unwrap_or(v))?)
    }),
];

/// The properties for `steps` that a systemd of this version knows, each once: of several values
/// the last one, as in the files.
pub(super) fn of<'a>(steps: impl Iterator<Item = &'a Step>, version: u32) -> Vec<Property> {
    let mut properties = Vec::new();
    for step in steps {
        let Some((file, value)) = written(step) else {
            continue;
        };
        let row = KNOWN
            .iter()
            .find(|(known, since, _)| *known == file && *since <= version);
        let converted = row.and_then(|(_, _, convert)| convert(value.trim()));
        for property in converted.into_iter().flatten() {
            set(&mut properties, property);
        }
    }
    properties
}

/// True for a limit that some systemd knows.
pub(in crate::cgroups) fn knows(step: &Step) -> bool {
    let file = written(step).map(|(file, _)| file);
    KNOWN.iter().any(|(known, _, _)| Some(*known) == file)
}

/// Drops what a unit that is there can not be given any more.
pub(super) fn for_a_living_unit(mut properties: Vec<Property>) -> Vec<Property> {
    properties.retain(|property| property.name != AT_CREATION);
    properties
}

/// Adds a property, in the place of an earlier one of its name.
pub(super) fn set(properties: &mut Vec<Property>, property: Property) {
    match properties
        .iter_mut()
        .find(|other| other.name == property.name)
    {
        Some(other) => *other = property,
        None => properties.push(property),
    }
}

/// What a step writes, in the terms that systemd has: the weight of block devices is that of
/// io.weight, not of the BFQ scheduler, for which systemd converts it.
fn written(step: &Step) -> Option<(&str, &str)> {
    match &step.action {
        Action::CheckBelow(_) => None,
        Action::Write { value, missing } => match missing {
            Missing::Instead { file, value } => Some((file, value)),
            Missing::Fail | Missing::Ignore => Some((&step.file, value)),
        },
    }
}

fn one(name: &str, value: Value) -> Option<Vec<Property>> {
    Some(vec![Property::new(name, value)])
}

fn number(value: &str) -> Option<Value> {
    value.parse().ok().map(Value::U64)
}

/// Bytes as the kernel takes them (memparse), or "max".
fn bytes(value: &str) -> Option<Value> {
    if value == "max" {
        return Some(Value::U64(u64::MAX));
    }
    let unit = ["", "k", "m", "g", "t"].iter().rposition(|unit| {
        let lower = value.to_ascii_lowercase();
        lower.ends_with(unit)
    })?;
    let digits = if unit == 0 {
        value
    } else {
        &value[..value.len() - 1]
    };
    let bytes = digits.parse::<u64>().ok()?.checked_mul(1 << (10 * unit))?;
    Some(Value::U64(bytes))
}

/// systemd can not forbid every process; the file, which is written after it, can.
fn tasks(value: &str) -> Option<Vec<Property>> {
    let limit = match value {
        "max" => u64::MAX,
        value => value.parse::<u64>().ok()?.max(1),
    };
    one("TasksMax", Value::U64(limit))
}

/// "50000 100000" as microseconds of each second. systemd keeps whole percents in its files, so
/// that a fraction is rounded up here as in runc: a limit that systemd writes anew after a reload
/// must not be tighter than the one asked for.
fn quota(value: &str) -> Option<Vec<Property>> {
    const PERCENT: u64 = 10_000;
    let mut parts = value.split(' ');
    let (quota, period) = (parts.next()?, parts.next().unwrap_or("100000"));
    let period: u64 = period.parse().ok().filter(|&period| period > 0)?;
    let per_second = match quota {
        "max" => u64::MAX,
        quota => {
            let quota: u64 = quota.parse().ok()?;
            quota
                .checked_mul(1_000_000)?
                .div_ceil(period)
                .next_multiple_of(PERCENT)
        }
    };
    Some(vec![
        Property::new("CPUQuotaPerSecUSec", Value::U64(per_second)),
        Property::new("CPUQuotaPeriodUSec", Value::U64(period)),
    ])
}

/// The list of cpuset(7), "0-2,5", as a mask: bit 0 of the first byte is processor 0.
fn mask(list: &str) -> Option<Vec<u8>> {
    /// CONFIG_NR_CPUS is never larger.
    const MOST: usize = 8192;
    let mut mask = Vec::new();
    for range in list
        .split(',')
        .map(str::trim)
        .filter(|range| !range.is_empty())
    {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        if last >= MOST || first > last {
            return None;
        }
        if mask.len() <= last / 8 {
            mask.resize(last / 8 + 1, 0);
        }
        (first..=last).for_each(|bit| mask[bit / 8] |= 1 << (bit % 8));
    }
    Some(mask)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(file: &str, value: &str) -> Step {
        Step {
            field: String::new(),
            file: file.to_owned(),
            action: Action::Write {
                value: value.to_owned(),
                missing: Missing::Fail,
            },
        }
    }

    fn lines(steps: &[(&str, &str)], version: u32) -> Vec<String> {
        let steps: Vec<Step> = steps
            .iter()
            .map(|(file, value)| step(file, value))
            .collect();
        of(steps.iter(), version)
            .iter()
            .map(Property::to_string)
            .collect()
    }

    #[test]
    fn every_resource_that_systemd_knows_is_a_property() {
        let steps = [
            ("cpuset.cpus", "0-2,9"),
            ("cpuset.mems", "0"),
            ("cpu.weight", "59"),
            ("cpu.max", "50000 200000"),
            ("memory.swap.max", "0"),
            ("memory.max", "67108864"),
            ("memory.low", "1m"),
            ("memory.high", "1G"),
            ("memory.min", "max"),
            ("pids.max", "50"),
            ("io.weight", "default 200"),
            ("memory.oom.group", "1"),
        ];
        assert_eq!(
            lines(&steps, 257),
            [
                "AllowedCPUs [07, 02]",
                "AllowedMemoryNodes [01]",
                "CPUWeight 59",
                "CPUQuotaPerSecUSec 250000",
                "CPUQuotaPeriodUSec 200000",
                "MemorySwapMax 0",
                "MemoryMax 67108864",
                "MemoryLow 1048576",
                "MemoryHigh 1073741824",
                "MemoryMin infinity",
                "TasksMax 50",
                "IOWeight 200",
                "OOMPolicy \"kill\"",
            ]
        );
    }

    #[test]
    fn what_systemd_does_not_know_is_no_property() {
        let steps = [
            ("hugetlb.2MB.max", "0"),
            ("rdma.max", "mlx4_0 hca_handle=2"),
            ("cpu.max.burst", "1000"),
            ("io.max", "8:0 rbps=1"),
            ("io.weight", "8:0 200"),
            ("cpuset.cpus", "0-10:2/4"),
            ("cpu.idle", "0"),
            ("memory.max", "plenty"),
        ];
        assert!(lines(&steps, 999).is_empty(), "{:?}", lines(&steps, 999));
    }

    #[test]
    fn an_older_systemd_is_told_what_it_knows() {
        let steps = [
            ("cpu.weight", "100"),
            ("cpu.idle", "1"),
            ("memory.zswap.max", "0"),
        ];
        assert_eq!(lines(&steps, 251), ["CPUWeight 100"]);
        assert_eq!(lines(&steps, 252), ["CPUWeight 0"]);
        assert_eq!(lines(&steps, 253), ["CPUWeight 0", "MemoryZSwapMax 0"]);
    }

    #[test]
    fn the_policy_at_want_of_memory_can_not_be_changed_later() {
        let steps = [step("memory.max", "1"), step("memory.oom.group", "0")];
        let all = of(steps.iter(), 257);
        let policy = Value::Text("continue".into());
        assert_eq!(all[1], Property::new("OOMPolicy", policy));
        let later = for_a_living_unit(all);
        assert_eq!(later, [Property::new("MemoryMax", Value::U64(1))]);
    }

    #[test]
    fn of_several_values_the_last_one_holds() {
        let steps = [
            ("memory.max", "1"),
            ("pids.max", "0"),
            ("memory.max", "max"),
        ];
        assert_eq!(lines(&steps, 257), ["MemoryMax infinity", "TasksMax 1"]);
    }

    #[test]
    fn a_quota_is_rounded_up_to_whole_percents() {
        let per_second = |value| lines(&[("cpu.max", value)], 257)[0].clone();
        assert_eq!(per_second("5500 100000"), "CPUQuotaPerSecUSec 60000");
        assert_eq!(per_second("1000 1000000"), "CPUQuotaPerSecUSec 10000");
        assert_eq!(per_second("200000 100000"), "CPUQuotaPerSecUSec 2000000");
        assert_eq!(per_second("max 100000"), "CPUQuotaPerSecUSec infinity");
    }

    #[test]
    fn a_weight_for_the_bfq_scheduler_is_told_as_io_weight() {
        let step = Step {
            field: String::new(),
            file: "io.bfq.weight".into(),
            action: Action::Write {
                value: "500".into(),
                missing: Missing::Instead {
                    file: "io.weight".into(),
                    value: "4950".into(),
                },
            },
        };
        assert_eq!(
            of([step].iter(), 257),
            [Property::new("IOWeight", Value::U64(4950))]
        );
    }
}
