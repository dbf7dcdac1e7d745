//! Which devices a container may use: an eBPF program made from `linux.resources.devices`.
//!
//! Nothing is allowed unless a rule says so. The default devices of runc and crun come after the
//! rules of the configuration and so can not be denied. Each kind of access that a process asks
//! for is decided by the last rule that names the device and this access, and all must be
//! allowed: denying `w` also stops an open for reading and writing, which a rule-by-rule
//! comparison (crun, and runc below an "allow all") would let through.
//!
//! A rule means what it says, also with type `a`: numbers and access narrow it, where runc takes
//! every such rule as "all devices, all access".

mod program;
mod rule;

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result};
use oci_spec::runtime::LinuxDeviceCgroup;

use program::Assembler;
use rule::{Access, DEFAULT_RULES, Kind, Rule};

use crate::error::Problems;
use crate::sys::bpf::{self, Insn};

/// JSON path of the rules.
const FIELD: &str = "linux.resources.devices";

/// The rules in force, without those that change nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// What holds where no rule does.
    otherwise: bool,
    /// Rules with one decision each, the later ones stronger; decisions alternate, so the order
    /// within one is free.
    runs: Vec<Vec<Rule>>,
}

impl Filter {
    /// The filter for the configuration's rules and the default ones.
    pub(super) fn plan(rules: &[LinuxDeviceCgroup], problems: &mut Problems) -> Filter {
        let rules = rules
            .iter()
            .enumerate()
            .filter_map(|(i, r)| Rule::parse(i, r, problems));
        let rules: Vec<Rule> = rules.chain(DEFAULT_RULES).collect();
        let filter = Filter::new(&rules);
        if i16::try_from(filter.program().len()).is_err() {
            problems.add(
                FIELD,
                format!("{} rules are too many for one program", rules.len()),
            );
        }
        filter
    }

    /// The filter that allows everything, for which no program is needed.
    pub(super) fn of_everything() -> Filter {
        Filter {
            otherwise: true,
            runs: Vec::new(),
        }
    }

    /// Sorts the rules into runs, and drops what later or wider ones overrule.
    #[must_use]
    pub fn new(rules: &[Rule]) -> Filter {
        let last_of_all = rules.iter().rposition(Rule::is_everything);
        let otherwise = last_of_all.is_some_and(|place| rules[place].allow);
        let rules = &rules[last_of_all.map_or(0, |place| place + 1)..];
        let mut filter = Filter {
            otherwise,
            runs: Vec::new(),
        };
        for (i, rule) in rules.iter().enumerate() {
            if rules[i + 1..].iter().any(|later| later.covers(rule)) {
                continue;
            }
            match filter.runs.last_mut() {
                Some(run) if run[0].allow == rule.allow => run.push(*rule),
                None if filter.otherwise == rule.allow => {}
                Some(_) | None => filter.runs.push(vec![*rule]),
            }
        }
        for run in &mut filter.runs {
            run.sort_unstable();
            // No rule is there twice: an equal later one has taken its place above.
            let wider = |rule: &Rule| run.iter().any(|other| other != rule && other.covers(rule));
            *run = run.iter().filter(|rule| !wider(rule)).copied().collect();
        }
        filter
    }

    /// True when there is nothing to decide: every access is allowed.
    #[must_use]
    pub fn allows_everything(&self) -> bool {
        self.otherwise && self.runs.is_empty()
    }

    /// Whether the node of a device can be opened for reading and writing.
    #[must_use]
    pub fn lets_open(&self, block: bool, major: u32, minor: u32) -> bool {
        let kind = if block { Kind::Block } else { Kind::Char };
        [Access::READ, Access::WRITE].into_iter().all(|access| {
            let asked = rule::allow(kind, Some(major), Some(minor), access);
            let decides = |run: &&Vec<Rule>| run.iter().any(|rule| rule.covers(&asked));
            let last = self.runs.iter().rev().find(decides);
            last.map_or(self.otherwise, |run| run[0].allow)
        })
    }

    /// The program that decides as these rules do.
    #[must_use]
    pub fn program(&self) -> Vec<Insn> {
        let mut program = Assembler::default();
        for run in self.runs.iter().rev() {
            program.run(run);
        }
        program.finish(self.otherwise)
    }

    /// Loads the program into the kernel; None when none is needed.
    pub(super) fn load(&self) -> Result<Option<DeviceFilter>> {
        if self.allows_everything() {
            return Ok(None);
        }
        let program = bpf::load_device_program(&self.program()).context(FIELD)?;
        Ok(Some(DeviceFilter(program)))
    }
}

/// A device program in the kernel, which holds for nobody yet.
#[derive(Debug)]
pub struct DeviceFilter(OwnedFd);

/// Puts a loaded program into force for all who are or will be in `cgroup`.
pub(super) fn attach(cgroup: BorrowedFd<'_>, filter: &DeviceFilter) -> Result<()> {
    bpf::attach_device_program(cgroup, filter.0.as_fd()).context(FIELD)
}

/// Puts a loaded program, or none, into the place of the one that this runtime has attached to
/// `cgroup`, in one step. Programs of others stay, and all must allow.
pub(super) fn replace(cgroup: BorrowedFd<'_>, filter: Option<&DeviceFilter>) -> Result<()> {
    let old = bpf::attached_device_program(cgroup).context(FIELD)?;
    let done = match (filter, &old) {
        (Some(new), Some(old)) => bpf::replace_device_program(cgroup, new.0.as_fd(), old.as_fd()),
        (Some(new), None) => bpf::attach_device_program(cgroup, new.0.as_fd()),
        (None, Some(old)) => bpf::detach_device_program(cgroup, old.as_fd()),
        (None, None) => Ok(()),
    };
    done.context(FIELD)
}

/// Whether rules, as [`super::Plan::device_rules`] prints them, deny any device; none are no rules.
#[must_use]
pub fn denies_devices(rules: &str) -> bool {
    !rules.is_empty() && rules != Filter::of_everything().to_string()
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = |allow| if allow { "allow" } else { "deny" };
        writeln!(f, "device   {} all", verdict(self.otherwise))?;
        for rule in self.runs.iter().flatten() {
            writeln!(f, "device   {} {rule}", verdict(rule.allow))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(json: &str) -> Filter {
        let rules: Vec<LinuxDeviceCgroup> = serde_json::from_str(json).unwrap();
        let mut problems = Problems::default();
        let filter = Filter::plan(&rules, &mut problems);
        assert_eq!(problems, Problems::default());
        filter
    }

    const DEFAULT: &str = "\
device   deny all
device   allow a *:* m
device   allow c 1:3 rwm
device   allow c 1:5 rwm
device   allow c 1:7 rwm
device   allow c 1:8 rwm
device   allow c 1:9 rwm
device   allow c 5:0 rwm
device   allow c 5:1 rwm
device   allow c 5:2 rwm
device   allow c 10:200 rwm
device   allow c 136:* rwm
";

    #[test]
    fn without_rules_only_the_default_devices_are_allowed() {
        assert_eq!(filter("[]").to_string(), DEFAULT);
        assert_eq!(filter("[]").program().len(), 26);
    }

    #[test]
    fn the_rules_of_docker_add_nothing_to_the_default_devices() {
        let docker = r#"[{"allow": false, "access": "rwm"},
            {"allow": true, "type": "c", "major": 1, "minor": 5, "access": "rwm"},
            {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rw"},
            {"allow": true, "type": "c", "major": -1, "minor": -1, "access": "m"},
            {"allow": true, "type": "b", "access": "m"},
            {"allow": false, "type": "c", "major": 10, "minor": 229, "access": "rwm"}]"#;
        assert_eq!(filter(docker).to_string(), DEFAULT);
    }

    #[test]
    fn the_last_rule_on_a_device_and_an_access_decides_whether_it_can_be_opened() {
        let docker = filter(r#"[{"allow": false, "access": "rwm"}]"#);
        assert!(docker.lets_open(false, 1, 3) && docker.lets_open(false, 136, 7));
        assert!(!docker.lets_open(true, 1, 3) && !docker.lets_open(false, 1, 11));
        let mixed = filter(
            r#"[{"allow": true, "access": "rwm"},
                {"allow": false, "type": "b", "access": "w"},
                {"allow": true, "type": "b", "major": 8, "minor": 1, "access": "rw"},
                {"allow": false, "type": "b", "major": 8, "minor": 2, "access": "r"},
                {"allow": false, "type": "c", "major": 1, "minor": 3, "access": "rw"}]"#,
        );
        assert!(mixed.lets_open(false, 10, 1) && mixed.lets_open(true, 8, 1));
        assert!(!mixed.lets_open(true, 8, 0) && !mixed.lets_open(true, 8, 2));
        // A default device can not be denied.
        assert!(mixed.lets_open(false, 1, 3));
        assert!(Filter::of_everything().lets_open(true, 8, 0));
        assert!(denies_devices(&docker.to_string()));
        let all = filter(r#"[{"allow": true, "access": "rwm"}]"#).to_string();
        assert!(!denies_devices(&all) && !denies_devices(""));
    }

    #[test]
    fn a_container_that_may_use_everything_needs_no_program() {
        assert!(filter(r#"[{"allow": true, "access": "rwm"}]"#).allows_everything());
    }

    #[test]
    fn every_wrong_rule_is_told_with_its_place() {
        let json = r#"[{"allow": true, "type": "p", "access": "x"},
                       {"allow": true, "major": -2, "minor": 4294967296}]"#;
        let rules: Vec<LinuxDeviceCgroup> = serde_json::from_str(json).unwrap();
        let mut problems = Problems::default();
        Filter::plan(&rules, &mut problems);
        let lines: Vec<_> = problems
            .iter()
            .map(|p| format!("{}: {}", p.path, p.message))
            .collect();
        assert_eq!(
            lines,
            [
                "linux.resources.devices[0].type: must be a, b or c, is \"p\"",
                "linux.resources.devices[0].access: must be one or more of r, w and m, is \"x\"",
                "linux.resources.devices[1].major: must be 0 to 4294967295, or -1 for all, is -2",
                "linux.resources.devices[1].minor: \
             must be 0 to 4294967295, or -1 for all, is 4294967296",
                "linux.resources.devices[1].access: must be one or more of r, w and m, is \"\"",
            ]
        );
    }
}
