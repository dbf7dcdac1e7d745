//! Other limits and devices for a container that lives: `update`.
//!
//! Flags and `--resources` end in the same JSON object, which is checked as `linux.resources` of
//! config.json is; only the names in messages differ. All of it is checked before anything changes,
//! and what is not named stays as it is.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use oci_spec::runtime::LinuxResources;
use serde_json::{Map, Value};

use super::freeze::present_cgroup;
use super::id::ContainerId;
use super::record::Record;
use super::{Verb, permit, query};
use crate::bundle::{RESOURCES, check_resources, parse_resources};
use crate::cgroups::{Change, Hierarchy, resctrl};
use crate::error::{self, Problems};

/// The largest file or input that is read: a list of devices has some 10 KiB.
const MAX_SIZE: u64 = 8 << 20;

/// What `update` is asked to do.
#[derive(Debug, Clone, Default)]
pub struct UpdateRequest {
    /// A file with a JSON object, or `-` for standard input.
    pub resources: Option<PathBuf>,
    /// Flags of [`FLAGS`] with their values, as they were given.
    pub flags: Vec<(&'static str, String)>,
    /// Flags for Intel RDT, as they were given.
    pub rdt: Vec<(&'static str, String)>,
}

/// How the value of a flag is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A whole number.
    Number,
    /// Bytes, with a unit as `512m` or without, or -1.
    Bytes,
    /// Anything.
    Text,
}

/// The flags: name, the field they set, the form of their value.
pub const FLAGS: &[(&str, &str, Form)] = &[
    ("blkio-weight", "blockIO.weight", Form::Number),
    ("cpu-burst", "cpu.burst", Form::Number),
    ("cpu-idle", "cpu.idle", Form::Number),
    ("cpu-period", "cpu.period", Form::Number),
    ("cpu-quota", "cpu.quota", Form::Number),
    ("cpu-rt-period", "cpu.realtimePeriod", Form::Number),
    ("cpu-rt-runtime", "cpu.realtimeRuntime", Form::Number),
    ("cpu-share", "cpu.shares", Form::Number),
    ("cpuset-cpus", "cpu.cpus", Form::Text),
    ("cpuset-mems", "cpu.mems", Form::Text),
    ("kernel-memory", "memory.kernel", Form::Bytes),
    ("kernel-memory-tcp", "memory.kernelTCP", Form::Bytes),
    ("memory", "memory.limit", Form::Bytes),
    ("memory-reservation", "memory.reservation", Form::Bytes),
    ("memory-swap", "memory.swap", Form::Bytes),
    ("pids-limit", "pids.limit", Form::Number),
];

/// Changes limits and devices of a container that is created, runs or is paused.
///
/// # Errors
///
/// Everything that is wrong with the values, before any effect; [`crate::error::Kind::NotFound`],
/// [`crate::error::Kind::NotRunning`]; or what the kernel refused: all is as before then, or the
/// error says what is not.
pub fn update(root: &Path, id: &ContainerId, request: &UpdateRequest) -> Result<()> {
    let (resources, names) = request.read()?;
    let mut record = Record::open(root, id)?;
    permit(Verb::Update, id, &query::status(&record)?)?;
    let (cgroup, hierarchy) = (present_cgroup(&record)?, Hierarchy::find()?);
    let mut problems = Problems::default();
    let rules = &record.facts.device_rules;
    let change = Change::plan(&resources, &cgroup, rules, &hierarchy, &mut problems);
    problems.renamed(|path| names.name(path)).into_result()?;
    let change = change.renamed(|path| names.name(path));
    error::debug(|| format!("change:\n{change}"));
    let shares = Shares::change(&request.rdt, &record)?;
    let changed = cgroup.change(&change, &hierarchy, record.facts.unit.as_ref());
    changed.or_else(|error| shares.undo_after(error))?;
    match change.device_rules() {
        Some(rules) => record.set_device_rules(rules),
        None => Ok(()),
    }
}

/// Shares of caches and memory bandwidth that were changed: the groups, and their schemata before.
struct Shares<'a>(Option<(&'a resctrl::Groups, String)>);

impl Shares<'_> {
    /// Writes what the flags ask for; an empty value asks for nothing.
    fn change<'a>(flags: &[(&'static str, String)], record: &'a Record) -> Result<Shares<'a>> {
        let asked = flags.iter().filter(|(_, schema)| !schema.is_empty());
        let (mut names, mut lines, mut problems) = (Vec::new(), String::new(), Problems::default());
        for (flag, schema) in asked {
            if record.facts.resctrl.is_none() {
                // To move its processes now is a race with those that they fork.
                let text =
                    "the container was created without linux.intelRdt, whose schema this changes";
                problems.add(format!("--{flag}"), text);
            }
            names.push(format!("--{flag}"));
            lines += &format!("{schema}\n");
        }
        problems.into_result()?;
        match &record.facts.resctrl {
            Some(groups) if !names.is_empty() => {
                let before = groups.change(&lines).with_context(|| names.join(", "))?;
                Ok(Shares(Some((groups, before))))
            }
            Some(_) | None => Ok(Shares(None)),
        }
    }

    /// All is as before, or the error says what is not.
    fn undo_after(self, error: anyhow::Error) -> Result<()> {
        let undone = self.0.map(|(groups, before)| groups.change(&before));
        match undone {
            Some(Err(other)) => Err(error.context(format!(
                "the schemata of Intel RDT stay changed, as {other:#}"
            ))),
            Some(Ok(_)) | None => Err(error),
        }
    }
}

/// How a field is called in messages.
#[derive(Debug, Clone, Copy)]
enum Names {
    /// As the flag that sets it.
    Flags,
    /// By its path in the object that was read.
    Paths,
}

impl Names {
    fn name(self, path: &str) -> String {
        let below = path
            .strip_prefix(RESOURCES)
            .and_then(|rest| rest.strip_prefix('.'))
            .unwrap_or(path);
        let row = FLAGS.iter().find(|(_, field, _)| *field == below);
        match (self, row) {
            (Names::Flags, Some((flag, _, _))) => format!("--{flag}"),
            (Names::Flags | Names::Paths, _) => below.to_owned(),
        }
    }
}

impl UpdateRequest {
    /// The resources that are asked for, and how they are called.
    fn read(&self) -> Result<(LinuxResources, Names)> {
        let (mut object, names) = match &self.resources {
            Some(path) => {
                for (flag, _) in &self.flags {
                    error::warn(&format!("--{flag}: ignored beside --resources"));
                }
                let object = read_object(path).with_context(|| format!("--resources {path:?}"))?;
                (object, Names::Paths)
            }
            None => (from_flags(&self.flags)?, Names::Flags),
        };
        drop_kernel_memory(&mut object, names);
        let checked = check_resources(object).map_err(|error| match error.downcast::<Problems>() {
            Ok(problems) => problems.renamed(|path| names.name(path)).into(),
            Err(error) => error,
        });
        let (resources, warnings) = checked?;
        for warning in warnings {
            error::warn(&warning);
        }
        Ok((resources, names))
    }
}

fn read_object(path: &Path) -> Result<Map<String, Value>> {
    let source: Box<dyn Read> = match path.to_str() {
        Some("-") => Box::new(std::io::stdin()),
        _ => Box::new(File::open(path)?),
    };
    let mut text = Vec::new();
    source.take(MAX_SIZE + 1).read_to_end(&mut text)?;
    if text.len() as u64 > MAX_SIZE {
        bail!("is larger than {} MiB", MAX_SIZE >> 20);
    }
    parse_resources(&text)
}

/// The object that flags stand for. An empty value is none, as in runc.
fn from_flags(flags: &[(&'static str, String)]) -> Result<Map<String, Value>> {
    let mut object = Map::new();
    let mut problems = Problems::default();
    for (flag, text) in flags.iter().filter(|(_, text)| !text.is_empty()) {
        let row = FLAGS.iter().find(|(name, _, _)| name == flag);
        let (_, field, form) = row.with_context(|| format!("--{flag} sets no field"))?;
        let value = match form {
            Form::Number => number(text).ok_or("a whole number"),
            Form::Bytes => bytes(text).ok_or("bytes, as 1073741824, 512m or 1.5g, or -1"),
            Form::Text => Ok(Value::from(text.as_str())),
        };
        let (section, key) = field.split_once('.').unwrap_or((field, ""));
        match value {
            Ok(value) => {
                object
                    .entry(section)
                    .or_insert_with(|| Value::Object(Map::new()))[key] = value
            }
            Err(wanted) => problems.add(
                format!("--{flag}"),
                format!("must be {wanted}, is {text:?}"),
            ),
        }
    }
    problems.into_result()?;
    Ok(object)
}

fn number(text: &str) -> Option<Value> {
    let unsigned = text.parse::<u64>().map(Value::from);
    unsigned
        .or_else(|_| text.parse::<i64>().map(Value::from))
        .ok()
}

/// A number of bytes as docker/go-units reads it for runc: with or without a binary unit of one
/// letter, in either case, which "b" or "ib" may follow; or -1.
fn bytes(text: &str) -> Option<Value> {
    if text == "-1" {
        return Some((-1).into());
    }
    let is_digit = |c: char| c.is_ascii_digit() || c == '.';
    let (number, unit) = text.split_at(text.rfind(is_digit)? + 1);
    let unit = unit.strip_prefix(' ').unwrap_or(unit).to_ascii_lowercase();
    let power = match unit.as_str() {
        "" | "b" => 0,
        unit => {
            let (letter, rest) = unit.split_at_checked(1)?;
            let known = matches!(rest, "" | "b" | "ib");
            "kmgtp".find(letter).filter(|_| known)? + 1
        }
    };
    if !number.chars().all(is_digit) {
        return None;
    }
    if let (Ok(whole), 0) = (number.parse::<i64>(), power) {
        return Some(whole.into());
    }
    let size = number.parse::<f64>().ok()? * 1024_f64.powi(power.try_into().ok()?);
    // Go makes a negative number of what is too large, and takes that for a limit.
    (size < i64::MAX as f64).then(|| (size as i64).into())
}

/// Limits of kernel memory are warned about and ignored, as in runc: Linux has none any more, and
/// the flags are there for old callers.
fn drop_kernel_memory(object: &mut Map<String, Value>, names: Names) {
    let Some(memory) = object.get_mut("memory").and_then(Value::as_object_mut) else {
        return;
    };
    for key in ["kernel", "kernelTCP"] {
        if memory.remove(key).is_some_and(|value| !value.is_null()) {
            let name = names.name(&format!("memory.{key}"));
            error::warn(&format!("{name}: ignored, as cgroup v2 has no such limit"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(flags: &[(&'static str, &str)]) -> Result<String, String> {
        let flags = flags.iter().map(|(name, text)| (*name, (*text).to_owned()));
        let request = UpdateRequest {
            flags: flags.collect(),
            ..UpdateRequest::default()
        };
        let object = from_flags(&request.flags).map_err(|error| error.to_string())?;
        request.read().map_err(|error| error.to_string())?;
        Ok(Value::Object(object).to_string())
    }

    #[test]
    fn flags_become_the_object_that_resources_would_be() {
        assert_eq!(
            read(&[
                ("memory", "50M"),
                ("memory-swap", "-1"),
                ("cpu-share", "200"),
                ("cpuset-cpus", "0-1"),
                ("cpu-quota", "-1"),
                ("pids-limit", "10"),
                ("cpuset-mems", ""),
            ])
            .unwrap(),
            r#"{"cpu":{"cpus":"0-1","quota":-1,"shares":200},"memory":{"limit":52428800,"swap":-1},"pids":{"limit":10}}"#
        );
    }

    #[test]
    fn a_wrong_value_is_told_with_its_flag() {
        assert_eq!(
            read(&[
                ("memory", "1x"),
                ("cpu-quota", "1.5"),
                ("memory-swap", "-2")
            ])
            .unwrap_err(),
            "--memory: must be bytes, as 1073741824, 512m or 1.5g, or -1, is \"1x\"; \
             --cpu-quota: must be a whole number, is \"1.5\"; \
             --memory-swap: must be bytes, as 1073741824, 512m or 1.5g, or -1, is \"-2\""
        );
        assert_eq!(
            read(&[("blkio-weight", "70000"), ("cpu-share", "-5")]).unwrap_err(),
            "--cpu-share: must be a whole number from 0 to 18446744073709551615, is -5; \
             --blkio-weight: must be a whole number from 0 to 65535, is 70000"
        );
    }

    #[test]
    fn bytes_have_the_units_of_docker() {
        let number = |text: &str| bytes(text).map(|value| value.as_i64().unwrap());
        for (text, expected) in [
            ("0", 0),
            ("4096", 4096),
            ("1b", 1),
            ("2k", 2048),
            ("2K", 2048),
            ("2kb", 2048),
            ("2KiB", 2048),
            ("1.5g", 1_610_612_736),
            ("32 MB", 33_554_432),
            ("-1", -1),
            ("9223372036854775807", i64::MAX),
        ] {
            assert_eq!(number(text), Some(expected), "{text}");
        }
        for text in [
            "", "m", "-2", "-1k", "1x", "1kk", "1kbb", "1ib", "1bb", "1.2.3", "9999999p", "1e3",
            "0x10", "+5", "1 k b", "nan", "inf",
        ] {
            assert_eq!(number(text), None, "{text}");
        }
    }
}
