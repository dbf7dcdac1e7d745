//! What a container's cgroup will be, as data: its path, its limits in order, its devices.
//!
//! Made from config.json before anything has changed; every problem is told with its JSON path.
//! Decides when a limit is written: early, before init is cloned into the cgroup, or late, when
//! init is ready. Leaves the doing to create.rs.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxResources, Spec};

use super::devices::{DeviceFilter, Filter};
use super::hierarchy::Hierarchy;
use super::inner::{Inner, InnerPlan};
use super::systemd::{Manager, ScopePlan, Unit};
use super::{CONTROLLERS, Cgroup, network, owner, path, unified, without};
use crate::error::Problems;

/// A container's cgroup: what will be made and written. Prints one step per line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// None where nobody makes one.
    pub(super) path: Option<PathBuf>,
    /// The unit whose cgroup it is, when systemd makes it.
    pub(super) scope: Option<ScopePlan>,
    /// The user who may divide the cgroup further, when that is not root.
    pub(super) owner: Option<u32>,
    /// The cgroups below it in which processes begin.
    pub(super) inner: Option<InnerPlan>,
    /// Whether the caller has rights over the whole tree and its devices.
    pub(super) privileged: bool,
    pub(super) steps: Vec<Step>,
    pub(super) devices: Filter,
}

/// One thing to do with a file of the cgroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Step {
    /// JSON path of what asks for it.
    pub field: String,
    pub file: String,
    pub action: Action,
}

/// What to do with the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    Write {
        value: String,
        missing: Missing,
    },
    /// Refuse unless the number in the file is below this one.
    CheckBelow(u64),
}

/// What to do when there is no such file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Missing {
    Fail,
    Ignore,
    /// Write another file instead.
    Instead {
        file: String,
        value: String,
    },
}

/// When a step is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Before init is cloned.
    Early,
    /// When init is ready, before it executes the container's program.
    Late,
}

impl Plan {
    /// Loads the device filter into the kernel, for [`super::Cgroup::filter_devices`]; None when
    /// every device is allowed.
    ///
    /// # Errors
    ///
    /// The kernel refuses the program: `EPERM` without CAP_BPF and CAP_NET_ADMIN or CAP_SYS_ADMIN.
    pub fn load_device_filter(&self) -> anyhow::Result<Option<DeviceFilter>> {
        match self.path {
            Some(_) => self.devices.load(),
            None => Ok(None), // nothing that it could be attached to
        }
    }

    /// The rules for devices that no filter enforces, as there is no cgroup; None where there is one, or
    /// every device is allowed.
    #[must_use]
    pub fn unfiltered_devices(&self) -> Option<&Filter> {
        (self.path.is_none() && !self.devices.allows_everything()).then_some(&self.devices)
    }

    /// Plans the cgroup of container `id`, made in the cgroup file system. Adds everything that is
    /// wrong to `problems`: the plan may be used only when there is nothing.
    #[must_use]
    pub fn new(spec: &Spec, id: &str, hierarchy: &Hierarchy, problems: &mut Problems) -> Plan {
        Plan::managed(spec, id, hierarchy, (&Manager::Files, true), problems)
    }

    /// Plans the cgroup of container `id`, made by `manager` for a caller who is `privileged` over the
    /// whole tree or not. As [`Self::new`] for the rest.
    ///
    /// The kernel takes a program that decides on devices from privileged callers only. Others can not
    /// make device nodes either: a container of theirs has what nodes of the host are bound in it, and
    /// may use those that the user may.
    #[must_use]
    pub fn managed(
        spec: &Spec,
        id: &str,
        hierarchy: &Hierarchy,
        (manager, privileged): (&Manager, bool),
        problems: &mut Problems,
    ) -> Plan {
        let linux = spec.linux().as_ref();
        let path = path::of(manager, spec, id).unwrap_or_else(|problem| {
            problems.add("linux.cgroupsPath", problem);
            None
        });
        let none = LinuxResources::default();
        let resources = linux
            .and_then(|linux| linux.resources().as_ref())
            .unwrap_or(&none);
        let steps = steps(resources, hierarchy, None, problems);
        let devices = Filter::plan(resources.devices().as_deref().unwrap_or_default(), problems);
        let scope = match manager {
            Manager::Systemd(systemd) => Some(ScopePlan::new(systemd, spec, id, &steps, problems)),
            Manager::Nobody | Manager::Disabled => {
                without::refuse(manager, &steps, problems);
                None
            }
            Manager::Files | Manager::Below(_) | Manager::Delegated(_) => None,
        };
        Plan {
            path: scope.as_ref().map(|scope| scope.path.clone()).or(path),
            scope,
            owner: owner::plan(spec),
            inner: InnerPlan::new(spec, manager, problems),
            privileged,
            steps,
            devices: match privileged {
                true => devices,
                false => Filter::of_everything(),
            },
        }
    }

    /// The cgroup below the hierarchy's mount point: "parhelion/web". An absolute
    /// `linux.cgroupsPath` counts from the root, a relative one from "parhelion", or from the cgroup that
    /// was handed over to the caller. None where the container has no cgroup of its own.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// The unit whose cgroup it will be, when systemd makes it.
    #[must_use]
    pub fn unit(&self) -> Option<&Unit> {
        self.scope.as_ref().map(|scope| &scope.unit)
    }

    /// Where below the cgroup the first process begins, when that is not in it.
    #[must_use]
    pub fn inner(&self) -> Option<&Inner> {
        self.inner.as_ref().map(|inner| &inner.place)
    }

    /// True when something is left for [`super::Cgroup::apply_late`].
    #[must_use]
    pub fn has_late_limits(&self) -> bool {
        self.steps(Phase::Late).next().is_some()
    }

    /// The steps of one phase, in their order.
    pub(super) fn steps(&self, phase: Phase) -> impl Iterator<Item = &Step> {
        self.steps.iter().filter(move |step| step.phase() == phase)
    }

    /// The rules of the device filter, one per line.
    #[must_use]
    pub fn device_rules(&self) -> String {
        self.devices.to_string()
    }
}

/// What `resources` ask for, in the order in which it is to be done: of a cgroup that is `present`,
/// or else of a new one.
pub(super) fn steps(
    resources: &LinuxResources,
    hierarchy: &Hierarchy,
    present: Option<&Cgroup>,
    problems: &mut Problems,
) -> Vec<Step> {
    let mut draft = Draft {
        hierarchy,
        present,
        problems,
        steps: Vec::new(),
    };
    for controller in CONTROLLERS {
        controller.plan(resources, &mut draft);
    }
    network::refuse(resources, &mut draft);
    unified::plan(resources, &mut draft);
    draft.steps
}

/// The controllers that limits need, each with the JSON path of one such limit.
pub(super) fn needed_controllers(steps: &[Step]) -> BTreeMap<&str, &str> {
    let needed = steps.iter().filter(|step| match &step.action {
        Action::Write { missing, .. } => *missing != Missing::Ignore,
        Action::CheckBelow(_) => false,
    });
    needed
        .filter_map(|step| Some((controller(&step.file)?, step.field.as_str())))
        .collect()
}

/// The controller that a file belongs to: what stands before the first dot. Files of the core need
/// none.
fn controller(file: &str) -> Option<&str> {
    file.split_once('.')
        .map(|(controller, _)| controller)
        .filter(|&name| name != "cgroup")
}

impl Step {
    /// Late is what setting up would itself be measured by: processes, processor time. So a container
    /// with one process or 1 % of a processor starts as fast as any. Memory is not: what setting up
    /// takes stays, and a limit that comes later finds what each processor has reserved for the cgroup
    /// (up to 256 KiB, given back some time after the kernel asks) and kills init for it.
    pub(super) fn phase(&self) -> Phase {
        let file = self.file.as_str();
        match controller(file) {
            Some("pids") => Phase::Late,
            _ if file.starts_with("cpu.max") => Phase::Late,
            Some(_) | None => Phase::Early,
        }
    }
}

/// A plan in the making: controllers add their steps to it. Fields are named from
/// `linux.resources` on.
pub struct Draft<'a> {
    hierarchy: &'a Hierarchy,
    present: Option<&'a Cgroup>,
    problems: &'a mut Problems,
    steps: Vec<Step>,
}

impl<'a> Draft<'a> {
    /// The host's hierarchy.
    #[must_use]
    pub fn hierarchy(&self) -> &'a Hierarchy {
        self.hierarchy
    }

    /// What a file of the cgroup says now, without the newline; None for a cgroup that is yet to be
    /// made, and for a file that is not there or can not be read: then the kernel's first value is
    /// the best guess, and what is written will tell.
    #[must_use]
    pub fn present(&self, file: &str) -> Option<String> {
        let text = self.present?.read(file).ok()??;
        Some(text.trim_end().to_owned())
    }

    /// Notes that a field is wrong.
    pub fn refuse(&mut self, field: &str, problem: impl Into<String>) {
        self.problems.add(full(field), problem);
    }

    /// Notes that a field asks for what only cgroup v1 has.
    pub fn refuse_v1(&mut self, field: &str) {
        self.refuse(field, "exists only in cgroup v1");
    }

    /// Writes a limit. The host must offer the file's controller.
    pub fn limit(&mut self, field: &str, file: &str, value: impl ToString) {
        self.add(field, file, value.to_string(), Missing::Fail);
    }

    /// Writes a limit to a file that not every kernel has. The host must offer the controller.
    pub fn limit_if_present(&mut self, field: &str, file: &str, value: impl ToString) {
        self.add(field, file, value.to_string(), Missing::Ignore);
    }

    /// Writes a limit to the first of two files of one controller that is there.
    pub fn limit_either(&mut self, field: &str, first: (&str, String), second: (&str, String)) {
        let missing = Missing::Instead {
            file: second.0.to_owned(),
            value: second.1,
        };
        self.add(field, first.0, first.1, missing);
    }

    /// Writes what a new cgroup has anyway, where the host offers the controller: "no limit".
    pub fn lift(&mut self, field: &str, file: &str, value: impl ToString) {
        if controller(file).is_none_or(|name| self.hierarchy.controllers().contains(name)) {
            self.add(field, file, value.to_string(), Missing::Ignore);
        }
    }

    /// Refuses unless the number in `file` is below `limit` when this step is reached.
    pub fn check_below(&mut self, field: &str, file: &str, limit: u64) {
        let (field, file) = (full(field), file.to_owned());
        self.steps.push(Step {
            field,
            file,
            action: Action::CheckBelow(limit),
        });
    }

    fn add(&mut self, field: &str, file: &str, value: String, missing: Missing) {
        let (field, offered) = (full(field), self.hierarchy.controllers());
        if let Some(name) = controller(file).filter(|&name| !offered.contains(name)) {
            // Some fields become several writes; one problem says it.
            if !self.problems.iter().any(|problem| problem.path == field) {
                self.problems.add(field, not_offered(name, self.hierarchy));
            }
            return;
        }
        let file = file.to_owned();
        self.steps.push(Step {
            field,
            file,
            action: Action::Write { value, missing },
        });
    }
}

fn full(field: &str) -> String {
    format!("linux.resources.{field}")
}

fn not_offered(controller: &str, hierarchy: &Hierarchy) -> String {
    let place = hierarchy.mount_point().display();
    let offered: Vec<&str> = hierarchy.controllers().iter().map(String::as_str).collect();
    let offered = if offered.is_empty() {
        "none".to_owned()
    } else {
        offered.join(", ")
    };
    format!(
        "needs the controller {controller}, which the cgroup2 mount at {place} does not offer (it offers: {offered})"
    )
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.scope {
            Some(scope) => writeln!(f, "{scope}cgroup   {}", scope.path.display())?,
            None => match &self.path {
                Some(path) => writeln!(f, "mkdir    {}", path.display())?,
                None => writeln!(f, "cgroup   the caller's")?,
            },
        }
        if let Some(inner) = &self.inner {
            write!(f, "{inner}")?;
        }
        if let Some(owner) = self.owner {
            writeln!(f, "owner    {owner}")?;
        }
        self.steps(Phase::Early)
            .try_for_each(|step| writeln!(f, "{step}"))?;
        write!(f, "{}", self.devices)?;
        if let Some(scope) = &self.scope {
            scope.write_late(f)?;
        }
        self.steps(Phase::Late)
            .try_for_each(|step| writeln!(f, "{step}"))
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (phase, file) = (self.phase(), &self.file);
        let word = if phase == Phase::Late {
            "late"
        } else {
            "write"
        };
        match &self.action {
            Action::CheckBelow(limit) => write!(f, "check    {file} < {limit}"),
            Action::Write { value, missing } => {
                write!(f, "{word:<8} {file} {}", value.escape_debug())?;
                match missing {
                    Missing::Fail => Ok(()),
                    Missing::Ignore => f.write_str(", if it exists"),
                    Missing::Instead { file, value } => write!(f, ", else {file} {value}"),
                }
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    const ALL: [&str; 8] = [
        "cpu", "cpuset", "hugetlb", "io", "memory", "misc", "pids", "rdma",
    ];

    fn plan(linux: &str, offered: &[&str]) -> (Plan, Vec<String>) {
        let json = format!(r#"{{"ociVersion": "1.3.0", "root": {{"path": "rootfs"}}, {linux}}}"#);
        let spec: Spec = serde_json::from_str(&json).unwrap();
        let mut problems = Problems::default();
        let plan = Plan::new(&spec, "web", &Hierarchy::offering(offered), &mut problems);
        (
            plan,
            problems
                .iter()
                .map(|p| format!("{}: {}", p.path, p.message))
                .collect(),
        )
    }

    /// The plan for `linux.resources` on a host with all controllers, without path and devices.
    pub(in super::super) fn lines(resources: &str) -> Vec<String> {
        let (plan, problems) = plan(&format!(r#""linux": {{"resources": {resources}}}"#), &ALL);
        assert!(problems.is_empty(), "{problems:?}");
        let steps = [Phase::Early, Phase::Late]
            .into_iter()
            .flat_map(|phase| plan.steps(phase));
        steps.map(Step::to_string).collect()
    }

    /// The problems of `linux.resources` on a host with all controllers.
    pub(in super::super) fn problems(resources: &str) -> Vec<String> {
        plan(&format!(r#""linux": {{"resources": {resources}}}"#), &ALL).1
    }

    #[test]
    fn a_plan_prints_one_step_per_line() {
        let linux = r#""linux": {"cgroupsPath": "/pods/web", "resources": {
            "memory": {"limit": 67108864}, "cpu": {"shares": 1024}, "pids": {"limit": 64},
            "devices": [{"allow": false, "access": "rwm"},
                {"allow": true, "type": "b", "major": 8, "access": "r"}]}}"#;
        let (plan, problems) = plan(linux, &["cpu", "memory", "pids"]);
        assert!(problems.is_empty(), "{problems:?}");
        let text = plan.to_string();
        let (start, rest) = text.split_once("device   allow b 8:* r\n").unwrap();
        assert_eq!(
            start,
            "\
mkdir    pods/web
write    cpu.weight 100
write    memory.max 67108864
device   deny all
device   allow a *:* m
"
        );
        assert!(rest.starts_with("device   allow c 1:3 rwm\n"));
        assert!(rest.ends_with("device   allow c 136:* rwm\nlate     pids.max 64\n"));
    }

    #[test]
    fn a_path_in_systemds_form_is_refused_with_its_place() {
        let (_, problems) = plan(r#""linux": {"cgroupsPath": "system.slice:runc:web"}"#, &[]);
        assert_eq!(
            problems,
            ["linux.cgroupsPath: \"system.slice:runc:web\" has the form \
            slice:prefix:name, which needs --systemd-cgroup; without it give a path"]
        );
    }

    #[test]
    fn a_limit_without_its_controller_is_a_problem() {
        let linux = r#""linux": {"resources": {"memory": {"limit": 4096},
            "unified": {"io.max": "8:0 rbps=1\n8:16 rbps=1"}}}"#;
        let text = "which the cgroup2 mount at /sys/fs/cgroup does not offer (it offers: hugetlb)";
        assert_eq!(
            plan(linux, &["hugetlb"]).1,
            [
                format!("linux.resources.memory.limit: needs the controller memory, {text}"),
                format!("linux.resources.unified[\"io.max\"]: needs the controller io, {text}"),
            ]
        );
    }

    #[test]
    fn without_a_limit_no_controller_is_needed() {
        let unlimited = r#""linux": {"resources": {"memory": {"limit": -1, "swap": -1},
            "pids": {"limit": -1}, "cpu": {"quota": -1, "idle": 0, "shares": 0}}}"#;
        let (plan, problems) = plan(unlimited, &[]);
        assert!(
            problems.is_empty() && plan.steps.is_empty(),
            "{problems:?} {plan}"
        );
        assert!(needed_controllers(&plan.steps).is_empty());
    }

    #[test]
    fn where_nobody_makes_a_cgroup_nothing_can_be_limited() {
        let plan = |resources: &str, privileged| {
            let json =
                format!(r#"{{"ociVersion": "1.3.0", "linux": {{"resources": {resources}}}}}"#);
            let spec = serde_json::from_str(&json).unwrap();
            let mut problems = Problems::default();
            let manager = (&Manager::Nobody, privileged);
            let plan = Plan::managed(
                &spec,
                "web",
                &Hierarchy::offering(&ALL),
                manager,
                &mut problems,
            );
            let fields: Vec<_> = problems
                .iter()
                .map(|problem| problem.path.clone())
                .collect();
            (plan.to_string(), fields.join(" "))
        };
        let (text, fields) = plan(r#"{"memory": {"limit": -1}}"#, false);
        assert!(text.starts_with("cgroup   the caller's\n"), "{text}");
        assert!(text.contains("device   allow all\n"), "{text}");
        assert_eq!(fields, "");
        let limited = r#"{"memory": {"limit": 4096, "swap": 8192}, "unified": {"pids.max": "5"}}"#;
        let (_, fields) = plan(limited, false);
        let expected = "linux.resources.memory.swap linux.resources.memory.limit \
             linux.resources.unified[\"pids.max\"]";
        assert_eq!(fields, expected);
        // Rules for devices are planned, for who keeps them out without a filter.
        let (text, fields) = plan("{}", true);
        assert!(text.contains("device   deny all\n"), "{text}");
        assert_eq!(fields, "");
    }

    #[test]
    fn needed_controllers_are_named_with_a_field() {
        let linux = r#""linux": {"resources": {"pids": {"limit": 5}, "cpu": {"quota": -1},
            "unified": {"cgroup.max.depth": "1"}}}"#;
        let (plan, _) = plan(linux, &ALL);
        let needed = needed_controllers(&plan.steps);
        assert_eq!(
            needed,
            BTreeMap::from([("pids", "linux.resources.pids.limit")])
        );
    }
}
