//! What a container uses: the figures of its cgroup, at one moment.
//!
//! Named and nested as runc's `events` prints them (`types/events.go`), which comes from cgroup v1;
//! a figure that is 0 is left out where runc leaves it out. Where a controller is not enabled, there
//! are no figures of it.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::Serialize;

use super::{Cgroup, Hierarchy, Pressure, files};

/// All figures.
#[derive(Debug, Default, Serialize)]
pub struct Stats {
    cpu: Cpu,
    cpuset: CpuSet,
    memory: Memory,
    pids: Pids,
    blkio: BlockIo,
    hugetlb: BTreeMap<String, HugePages>,
    #[serde(skip_serializing_if = "Rdma::is_empty")]
    rdma: Rdma,
}

#[derive(Debug, Default, Serialize)]
struct Cpu {
    usage: CpuUsage,
    #[serde(skip_serializing_if = "is_default")]
    throttling: Throttling,
    #[serde(skip_serializing_if = "Option::is_none")]
    psi: Option<Pressure>,
}

/// In nanoseconds.
#[derive(Debug, Default, Serialize)]
struct CpuUsage {
    #[serde(skip_serializing_if = "is_default")]
    total: u64,
    kernel: u64,
    user: u64,
}

#[derive(Debug, Default, PartialEq, Serialize)]
struct Throttling {
    #[serde(skip_serializing_if = "is_default")]
    periods: u64,
    #[serde(rename = "throttledPeriods", skip_serializing_if = "is_default")]
    throttled_periods: u64,
    /// In nanoseconds.
    #[serde(rename = "throttledTime", skip_serializing_if = "is_default")]
    throttled_time: u64,
}

/// The processors and memory nodes in force.
#[derive(Debug, Default, Serialize)]
struct CpuSet {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cpus: Vec<u16>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    mems: Vec<u16>,
}

#[derive(Debug, Default, Serialize)]
struct Memory {
    #[serde(skip_serializing_if = "is_default")]
    cache: u64,
    #[serde(skip_serializing_if = "is_default")]
    usage: MemoryUse,
    /// Of memory and swap together.
    #[serde(skip_serializing_if = "is_default")]
    swap: MemoryUse,
    /// memory.stat as it is.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    raw: BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    psi: Option<Pressure>,
}

/// In bytes.
#[derive(Debug, Default, PartialEq, Serialize)]
struct MemoryUse {
    /// The largest number there is where there is no limit.
    limit: u64,
    #[serde(skip_serializing_if = "is_default")]
    usage: u64,
    #[serde(skip_serializing_if = "is_default")]
    max: u64,
    failcnt: u64,
}

#[derive(Debug, Default, Serialize)]
struct Pids {
    #[serde(skip_serializing_if = "is_default")]
    current: u64,
    /// 0 where there is no limit.
    #[serde(skip_serializing_if = "is_default")]
    limit: u64,
}

#[derive(Debug, Default, Serialize)]
struct BlockIo {
    #[serde(
        rename = "ioServiceBytesRecursive",
        skip_serializing_if = "Vec::is_empty"
    )]
    bytes: Vec<BlockIoEntry>,
    #[serde(rename = "ioServicedRecursive", skip_serializing_if = "Vec::is_empty")]
    operations: Vec<BlockIoEntry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    psi: Option<Pressure>,
}

#[derive(Debug, PartialEq, Serialize)]
struct BlockIoEntry {
    #[serde(skip_serializing_if = "is_default")]
    major: u64,
    #[serde(skip_serializing_if = "is_default")]
    minor: u64,
    op: &'static str,
    #[serde(skip_serializing_if = "is_default")]
    value: u64,
}

#[derive(Debug, Default, Serialize)]
struct HugePages {
    #[serde(skip_serializing_if = "is_default")]
    usage: u64,
    failcnt: u64,
}

/// Not among runc's: it reads these figures and prints none.
#[derive(Debug, Default, Serialize)]
struct Rdma {
    limit: Vec<RdmaEntry>,
    current: Vec<RdmaEntry>,
}

#[derive(Debug, PartialEq, Serialize)]
struct RdmaEntry {
    device: String,
    hca_handles: u32,
    hca_objects: u32,
}

impl Rdma {
    fn is_empty(&self) -> bool {
        self.limit.is_empty() && self.current.is_empty()
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Cgroup {
    /// All figures of this cgroup; those below it are part of them. A cgroup that is gone has none.
    ///
    /// # Errors
    ///
    /// A file can not be read.
    pub fn stats(&self, hierarchy: &Hierarchy) -> Result<Stats> {
        Ok(Stats {
            cpu: self.cpu()?,
            cpuset: CpuSet {
                cpus: list(&self.text("cpuset.cpus.effective")?),
                mems: list(&self.text("cpuset.mems.effective")?),
            },
            memory: self.memory()?,
            pids: self.processes()?,
            blkio: self.block_io()?,
            hugetlb: self.huge_pages(hierarchy)?,
            rdma: Rdma {
                limit: rdma(&self.text("rdma.max")?),
                current: rdma(&self.text("rdma.current")?),
            },
        })
    }

    /// A file's text; nothing when there is no such file.
    fn text(&self, file: &str) -> Result<String> {
        Ok(self.read(file)?.unwrap_or_default())
    }

    /// A file's one number, "max" being the largest there is; None when there is no such file.
    fn number(&self, file: &str) -> Result<Option<u64>> {
        let text = self.read(file)?;
        Ok(text.map(|text| match text.trim_end() {
            "max" => u64::MAX,
            digits => digits.parse().unwrap_or(0),
        }))
    }

    fn cpu(&self) -> Result<Cpu> {
        let text = self.text("cpu.stat")?;
        let value = |key| number_of(&text, key);
        Ok(Cpu {
            usage: CpuUsage {
                total: value("usage_usec") * 1000,
                kernel: value("system_usec") * 1000,
                user: value("user_usec") * 1000,
            },
            throttling: Throttling {
                periods: value("nr_periods"),
                throttled_periods: value("nr_throttled"),
                throttled_time: value("throttled_usec") * 1000,
            },
            psi: self.pressure("cpu")?,
        })
    }

    fn memory(&self) -> Result<Memory> {
        let raw: BTreeMap<String, u64> = self
            .text("memory.stat")?
            .lines()
            .filter_map(|line| line.split_once(' '))
            .map(|(key, value)| (key.to_owned(), value.parse().unwrap_or(0)))
            .collect();
        let usage = self.memory_use("memory")?;
        let swap = self.memory_use("memory.swap")?;
        let both = MemoryUse {
            limit: swap.limit.saturating_add(usage.limit),
            usage: swap.usage + usage.usage,
            // The peaks need not have been at one time.
            max: 0,
            failcnt: 0,
        };
        Ok(Memory {
            cache: raw.get("file").copied().unwrap_or(0),
            usage,
            swap: both,
            raw,
            psi: self.pressure("memory")?,
        })
    }

    fn memory_use(&self, prefix: &str) -> Result<MemoryUse> {
        let number = |file: &str| self.number(&format!("{prefix}.{file}"));
        Ok(MemoryUse {
            limit: number("max")?.unwrap_or(0),
            usage: number("current")?.unwrap_or(0),
            // Linux 5.19, and 6.5 for swap.
            max: number("peak")?.unwrap_or(0),
            failcnt: 0,
        })
    }

    fn processes(&self) -> Result<Pids> {
        let limit = self.number("pids.max")?.unwrap_or(0);
        let current = match self.number("pids.current")? {
            Some(current) => current,
            None => self.pids()?.len() as u64,
        };
        Ok(Pids {
            current,
            limit: if limit == u64::MAX { 0 } else { limit },
        })
    }

    fn block_io(&self) -> Result<BlockIo> {
        let text = self.text("io.stat")?;
        Ok(BlockIo {
            bytes: block_io(&text, "rbytes", "wbytes"),
            operations: block_io(&text, "rios", "wios"),
            psi: self.pressure("io")?,
        })
    }

    fn huge_pages(&self, hierarchy: &Hierarchy) -> Result<BTreeMap<String, HugePages>> {
        let mut all = BTreeMap::new();
        for size in hierarchy.huge_page_sizes() {
            let usage = match self.number(&format!("hugetlb.{size}.rsvd.current"))? {
                Some(usage) => Some(usage),
                None => self.number(&format!("hugetlb.{size}.current"))?,
            };
            let Some(usage) = usage else { continue };
            let events = self.text(&format!("hugetlb.{size}.events"))?;
            let failcnt = number_of(&events, "max");
            all.insert(size.clone(), HugePages { usage, failcnt });
        }
        Ok(all)
    }
}

/// The number of `key` in a file of lines "key value"; 0 when there is none.
#[must_use]
pub fn number_of(text: &str, key: &str) -> u64 {
    let value = files::value_of(text, key).and_then(|value| value.parse().ok());
    value.unwrap_or(0)
}

/// The numbers of a list as "0-2,7".
fn list(text: &str) -> Vec<u16> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse::<u16>().ok()?..=last.parse().ok()?)
    };
    text.trim_end()
        .split(',')
        .filter_map(range)
        .flatten()
        .collect()
}

/// Two figures of every line "8:0 rbytes=1 wbytes=2 …".
fn block_io(text: &str, read: &str, write: &str) -> Vec<BlockIoEntry> {
    let mut entries = Vec::new();
    for line in text.lines() {
        let mut words = line.split(' ');
        let device = words.next().and_then(|device| device.split_once(':'));
        let Some((major, minor)) = device else {
            continue;
        };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let op = match key {
                key if key == read => "Read",
                key if key == write => "Write",
                _ => continue,
            };
            entries.push(BlockIoEntry {
                major: major.parse().unwrap_or(0),
                minor: minor.parse().unwrap_or(0),
                op,
                value: value.parse().unwrap_or(0),
            });
        }
    }
    entries
}

/// The lines "mlx4_0 hca_handle=2 hca_object=max".
fn rdma(text: &str) -> Vec<RdmaEntry> {
    let entry = |line: &str| {
        let (device, counts) = line.split_once(' ')?;
        let count = |key: &str| {
            let mut words = counts.split_whitespace();
            let value = words.find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
            value.map_or(0, |value| value.parse().unwrap_or(u32::MAX))
        };
        Some(RdmaEntry {
            device: device.to_owned(),
            hca_handles: count("hca_handle"),
            hca_objects: count("hca_object"),
        })
    };
    text.lines().filter_map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_of_each_device_are_entries() {
        let text = "8:16 rbytes=1459200 wbytes=0 rios=192 wios=353 dbytes=0 dios=0\n7:0 \n";
        let json = |read, write| serde_json::to_string(&block_io(text, read, write)).unwrap();
        assert_eq!(
            json("rbytes", "wbytes"),
            r#"[{"major":8,"minor":16,"op":"Read","value":1459200},{"major":8,"minor":16,"op":"Write"}]"#
        );
        assert!(json("rios", "wios").contains(r#""op":"Write","value":353"#));
    }

    #[test]
    fn adapters_and_lists_are_parsed() {
        let adapters = rdma("mlx4_0 hca_handle=2 hca_object=max\nocrdma1 hca_handle=3\n");
        let counts: Vec<_> = adapters
            .iter()
            .map(|a| (a.device.as_str(), a.hca_handles, a.hca_objects))
            .collect();
        assert_eq!(counts, [("mlx4_0", 2, u32::MAX), ("ocrdma1", 3, 0)]);
        assert_eq!(list("0-2,7\n"), [0, 1, 2, 7]);
        assert_eq!(list("\n"), [0; 0]);
    }

    #[test]
    fn what_is_zero_is_left_out_as_in_runc() {
        let json = serde_json::to_string(&Stats::default()).unwrap();
        assert_eq!(
            json,
            r#"{"cpu":{"usage":{"kernel":0,"user":0}},"cpuset":{},"memory":{},"pids":{},"blkio":{},"hugetlb":{}}"#
        );
    }
}
