//! Other limits and devices for a cgroup that exists: `update`.
//!
//! Planned by the code that plans a new cgroup, but beside what the cgroup has now: that is where a
//! value stands that is not named. Each value is written after its former one was read, so that
//! what was done is undone when a later one fails.

use std::fmt;

use anyhow::{Context, Error, Result};
use oci_spec::runtime::LinuxResources;

use super::devices::{self, Filter};
use super::plan::{self, Action, Missing, Step};
use super::systemd::{self, Unit};
use super::{Cgroup, Hierarchy, create};
use crate::error::Problems;
use crate::sys::Errno;

/// What will be changed. Prints one step per line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    steps: Vec<Step>,
    /// None when the devices stay as they are.
    devices: Option<Filter>,
}

impl Change {
    /// Plans what `resources` ask of a cgroup that is there. Adds everything that is wrong to
    /// `problems`: the plan may be used only when there is nothing.
    ///
    /// Rules for devices take the place of all former ones; `device_rules` are those in force, as
    /// [`super::Plan::device_rules`] prints them. The same rules again change nothing, not even
    /// where somebody else has put a program of their own into their place.
    #[must_use]
    pub fn plan(
        resources: &LinuxResources,
        cgroup: &Cgroup,
        device_rules: &str,
        hierarchy: &Hierarchy,
        problems: &mut Problems,
    ) -> Change {
        let steps = plan::steps(resources, hierarchy, Some(cgroup), problems);
        let devices = resources.devices().as_deref();
        let devices = devices.map(|rules| Filter::plan(rules, problems));
        Change {
            steps,
            devices: devices.filter(|filter| filter.to_string() != device_rules),
        }
    }

    /// The same change with other names for its fields, for messages.
    #[must_use]
    pub fn renamed(mut self, name: impl Fn(&str) -> String) -> Change {
        for step in &mut self.steps {
            step.field = name(&step.field);
        }
        self
    }

    /// The rules of the new device filter, if there is one.
    #[must_use]
    pub fn device_rules(&self) -> Option<String> {
        self.devices.as_ref().map(Filter::to_string)
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.steps
            .iter()
            .try_for_each(|step| writeln!(f, "{step}"))?;
        self.devices.iter().try_for_each(|filter| filter.fmt(f))
    }
}

impl Cgroup {
    /// Changes limits and devices, all or none.
    ///
    /// # Errors
    ///
    /// A controller can not be enabled; `checkBeforeUpdate` finds more memory in use; the kernel
    /// refuses a value or the device program; the unit's systemd refuses or does not answer. What was
    /// changed is set back then; what could not be is named.
    pub fn change(
        &self,
        change: &Change,
        hierarchy: &Hierarchy,
        unit: Option<&Unit>,
    ) -> Result<()> {
        create::enable(self, &change.steps, hierarchy)?;
        let filter = change.devices.as_ref().map(Filter::load).transpose()?;
        for step in &change.steps {
            if let Action::CheckBelow(limit) = step.action {
                self.check_below(&step.file, limit)
                    .with_context(|| step.field.clone())?;
            }
        }
        let mut done = Vec::new();
        let written = change
            .steps
            .iter()
            .try_for_each(|step| self.replace(step, &mut done));
        let all = written.and_then(|()| match &filter {
            Some(filter) => devices::replace(self.fd(), filter.as_ref()),
            None => Ok(()),
        });
        let told = all.and_then(|()| unit.map_or(Ok(()), |unit| self.tell(unit, &change.steps)));
        told.map_err(|error| self.set_back(done, error))
    }

    /// Tells systemd what the kernel has taken, and writes it once more, as systemd rounds.
    fn tell(&self, unit: &Unit, steps: &[Step]) -> Result<()> {
        unit.set_limits(steps)?;
        let mut known = steps.iter().filter(|step| systemd::knows(step));
        known.try_for_each(|step| self.take(step).context(step.field.clone()))
    }

    /// Writes a value and notes what was there before.
    fn replace<'a>(&self, step: &'a Step, done: &mut Vec<Done<'a>>) -> Result<()> {
        let Action::Write { value, missing } = &step.action else {
            return Ok(());
        };
        let (mut file, mut value) = (step.file.as_str(), value.as_str());
        let mut former = self.former(file);
        match (&former, missing) {
            (Former::NoFile, Missing::Ignore) => return Ok(()),
            (
                Former::NoFile,
                Missing::Instead {
                    file: other,
                    value: its,
                },
            ) => {
                (file, value) = (other, its);
                former = self.former(file);
            }
            (Former::NoFile, Missing::Fail) | (Former::Text(_) | Former::Unknown, _) => {}
        }
        self.write(file, value).context(step.field.clone())?;
        let before = match former {
            Former::Text(text) => restoring(file, value, &text),
            Former::NoFile | Former::Unknown => None,
        };
        let field = &step.field;
        done.push(Done {
            field,
            file,
            before,
        });
        Ok(())
    }

    fn former(&self, file: &str) -> Former {
        match super::files::read(self.fd(), file) {
            Ok(text) => Former::Text(text),
            Err(Errno::NOENT) => Former::NoFile,
            // There are files that can only be written, as memory.reclaim.
            Err(_) => Former::Unknown,
        }
    }

    /// Undoes what was done, the last first, and adds to the error what stays changed.
    fn set_back(&self, done: Vec<Done<'_>>, error: Error) -> Error {
        let mut left = Vec::new();
        for Done {
            field,
            file,
            before,
        } in done.into_iter().rev()
        {
            let restored = match before {
                Some(value) if value.is_empty() => true,
                Some(value) => self.write(file, &value).is_ok(),
                None => false,
            };
            if !restored {
                left.push(field);
            }
        }
        if left.is_empty() {
            return error;
        }
        let left = left.join(", ");
        error.context(format!(
            "what was changed before could not all be set back, {left} stays changed"
        ))
    }
}

/// What a file held before it was written.
enum Former {
    Text(String),
    NoFile,
    /// It is there and can not be read.
    Unknown,
}

/// A value that was written.
struct Done<'a> {
    field: &'a str,
    file: &'a str,
    /// What to write to have it as before: "" for nothing; None when that is not known.
    before: Option<String>,
}

/// What is to be written to `file`, which held `text`, to undo the write of `value`; "" for nothing.
fn restoring(file: &str, value: &str, text: &str) -> Option<String> {
    let whole = text.trim_end();
    if file == "cpu.weight" && whole == "0" {
        return Some(String::new()); // so it reads while cpu.idle is 1, which is set back by itself
    }
    if whole.is_empty() && !is_keyed(file) {
        return Some("\n".to_owned());
    }
    if !is_keyed(file) || !(whole.is_empty() || whole.contains([' ', '\n'])) {
        return Some(whole.to_owned());
    }
    // One line for each device, "8:16 rbps=max …", and "default 100" for all others.
    let key = value.split_once(' ').map_or("default", |(key, _)| key);
    let is_its = |line: &&str| line.split_once(' ').is_some_and(|(first, _)| first == key);
    match (whole.lines().find(is_its), file) {
        (Some(line), _) => Some(line.to_owned()),
        (None, "io.max") => Some(format!("{key} rbps=max wbps=max riops=max wiops=max")),
        (None, "io.weight" | "io.bfq.weight") => Some(format!("{key} default")),
        (None, _) => None,
    }
}

/// Whether a write changes one line of several.
fn is_keyed(file: &str) -> bool {
    file.starts_with("io.") || matches!(file, "rdma.max" | "misc.max")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::OwnedFd;
    use std::path::Path;

    /// What a change does to a cgroup whose files have these contents, or what is wrong with it.
    fn plan(present: &[(&str, &str)], resources: &str) -> Vec<String> {
        let thread = std::thread::current().id();
        let name = format!("parhelion-update-{}-{thread:?}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        for (file, text) in present {
            std::fs::write(folder.join(file), format!("{text}\n")).unwrap();
        }
        let directory: OwnedFd = std::fs::File::open(&folder).unwrap().into();
        let hierarchy = Hierarchy::offering(&["cpu", "cpuset", "io", "memory", "pids"]);
        let cgroup = Cgroup::new(&hierarchy, Path::new("web"), directory, 0);
        let resources = serde_json::from_str(resources).unwrap();
        let mut problems = Problems::default();
        let change = Change::plan(&resources, &cgroup, "", &hierarchy, &mut problems);
        std::fs::remove_dir_all(&folder).unwrap();
        let wrong = problems
            .iter()
            .map(|p| format!("{}: {}", p.path, p.message));
        let wrong: Vec<String> = wrong.collect();
        match wrong.is_empty() {
            true => change.to_string().lines().map(str::to_owned).collect(),
            false => wrong,
        }
    }

    #[test]
    fn the_total_of_memory_and_swap_stays_when_memory_changes_alone() {
        let present = [("memory.max", "1000"), ("memory.swap.max", "500")];
        let to = |limit: i64| plan(&present, &format!(r#"{{"memory": {{"limit": {limit}}}}}"#));
        let write = |swap, limit| {
            [
                format!("write    memory.swap.max {swap}"),
                format!("write    memory.max {limit}"),
            ]
        };
        assert_eq!(to(600), write(900, 600));
        // What rises is written first.
        let [swap, limit] = write(300, 1200);
        assert_eq!(to(1200), [limit, swap]);
        assert_eq!(
            to(1501),
            [
                "linux.resources.memory.limit: must be at most the total of memory and swap in force \
              (1500), is 1501: set memory.swap too"
            ]
        );
        assert_eq!(to(1500)[1], "write    memory.swap.max 0, if it exists");
        let lifted = to(-1);
        assert_eq!(lifted[0], "write    memory.max max, if it exists");
        assert_eq!(lifted[1], "write    memory.swap.max max, if it exists");
    }

    #[test]
    fn swap_that_is_forbidden_or_unlimited_or_named_by_file_stays_so() {
        let limit = r#"{"memory": {"limit": 2000}}"#;
        let only = ["write    memory.max 2000"];
        for swap in ["0", "max"] {
            let present = [("memory.max", "1000"), ("memory.swap.max", swap)];
            assert_eq!(plan(&present, limit), only);
        }
        assert_eq!(plan(&[("memory.max", "1000")], limit), only);
        let present = [("memory.max", "1000"), ("memory.swap.max", "500")];
        let both = r#"{"memory": {"limit": 2000}, "unified": {"memory.swap.max": "7"}}"#;
        assert_eq!(plan(&present, both)[1], "write    memory.swap.max 7");
    }

    #[test]
    fn swap_alone_is_beside_the_memory_in_force() {
        let swap = r#"{"memory": {"swap": 3000}}"#;
        assert_eq!(
            plan(&[("memory.max", "1000")], swap),
            ["write    memory.swap.max 2000"]
        );
        for (max, words) in [("max", "needs memory.limit"), ("4000", "must be at least")] {
            let told = plan(&[("memory.max", max)], swap).concat();
            assert!(told.contains(words), "{told}");
        }
    }

    #[test]
    fn of_quota_and_period_the_one_that_is_not_named_stays() {
        let present = [("cpu.max", "50000 200000"), ("cpu.max.burst", "0")];
        let to = |cpu: &str| plan(&present, &format!(r#"{{"cpu": {cpu}}}"#));
        assert_eq!(to(r#"{"quota": 70000}"#), ["late     cpu.max 70000 200000"]);
        assert_eq!(to(r#"{"period": 90000}"#), ["late     cpu.max 50000 90000"]);
        assert_eq!(
            to(r#"{"quota": -1}"#),
            ["late     cpu.max max 200000, if it exists"]
        );
        assert!(to(r#"{"quota": 0, "period": 0, "shares": 0}"#).is_empty());
    }

    #[test]
    fn a_burst_is_never_above_the_quota_in_force() {
        let present = [("cpu.max", "50000 100000"), ("cpu.max.burst", "40000")];
        let to = |cpu: &str| plan(&present, &format!(r#"{{"cpu": {cpu}}}"#));
        let (quota, burst) = (
            "late     cpu.max 20000 100000",
            "late     cpu.max.burst 10000",
        );
        assert_eq!(to(r#"{"quota": 20000, "burst": 10000}"#), [burst, quota]);
        let (quota, burst) = (
            "late     cpu.max 90000 100000",
            "late     cpu.max.burst 80000",
        );
        assert_eq!(to(r#"{"quota": 90000, "burst": 80000}"#), [quota, burst]);
        assert_eq!(
            to(r#"{"quota": 20000}"#),
            [
                "linux.resources.cpu.quota: must not be below the burst in force, 40000 us: set \
              cpu.burst too"
            ]
        );
        assert_eq!(
            to(r#"{"burst": 60000}"#),
            ["linux.resources.cpu.burst: must be no larger than the quota of 50000 us, is 60000"]
        );
    }

    #[test]
    fn an_idle_cgroup_gets_a_weight_only_with_the_end_of_its_idleness() {
        let to = |cpu: &str| plan(&[("cpu.idle", "1")], &format!(r#"{{"cpu": {cpu}}}"#));
        let (idle, weight) = (
            "write    cpu.idle 0, if it exists",
            "write    cpu.weight 100",
        );
        assert_eq!(to(r#"{"shares": 1024, "idle": 0}"#), [idle, weight]);
        assert_eq!(
            to(r#"{"shares": 1024, "idle": 1}"#),
            ["write    cpu.idle 1"]
        );
        let told = to(r#"{"shares": 1024}"#).concat();
        assert!(
            told.starts_with("linux.resources.cpu.shares: is of no use"),
            "{told}"
        );
    }

    #[test]
    fn devices_change_only_when_they_are_named_and_differ() {
        let devices = r#"{"devices": [{"allow": true, "access": "rwm"}]}"#;
        assert_eq!(plan(&[], devices), ["device   allow all"]);
        assert!(plan(&[], r#"{"pids": {"limit": -1}}"#).len() == 1);
        assert!(plan(&[], r#"{"devices": []}"#)[0].starts_with("device   deny all"));
    }

    #[test]
    fn a_file_with_one_value_is_set_back_as_it_was() {
        let restoring = |file, text| restoring(file, "1", text).unwrap();
        assert_eq!(restoring("memory.max", "max\n"), "max");
        assert_eq!(restoring("cpu.max", "max 100000\n"), "max 100000");
        assert_eq!(restoring("cpuset.cpus", "\n"), "\n");
        assert_eq!(restoring("io.bfq.weight", "100\n"), "100");
    }

    #[test]
    fn a_file_with_many_values_is_set_back_in_its_line() {
        let text = "default 100\n8:16 200\n";
        let weight = |value| restoring("io.weight", value, text).unwrap();
        assert_eq!(weight("4950"), "default 100");
        assert_eq!(weight("8:16 300"), "8:16 200");
        assert_eq!(weight("8:32 300"), "8:32 default");
        let max = "8:0 rbps=1048576 wbps=max riops=max wiops=max\n";
        assert_eq!(
            restoring("io.max", "8:0 rbps=5", max).unwrap(),
            max.trim_end()
        );
        let unlimited = "8:16 rbps=max wbps=max riops=max wiops=max";
        for text in [max, ""] {
            assert_eq!(restoring("io.max", "8:16 rbps=5", text).unwrap(), unlimited);
        }
        assert_eq!(
            restoring(
                "rdma.max",
                "a hca_handle=2",
                "b hca_handle=max hca_object=max\n"
            ),
            None
        );
    }

    #[test]
    fn the_weight_of_an_idle_cgroup_is_not_set_back() {
        assert_eq!(restoring("cpu.weight", "5", "0\n").unwrap(), "");
        assert_eq!(restoring("cpu.weight", "5", "100\n").unwrap(), "100");
    }
}
