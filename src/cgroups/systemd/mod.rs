//! Cgroups through systemd (`--systemd-cgroup`): a container's cgroup is that of a transient scope.
//!
//! systemd makes the cgroup, in the slice that `linux.cgroupsPath` names, and keeps the limits that
//! it knows ([`properties`]); everything else is as without it: files of the cgroup, which is
//! handed over to us (`Delegate=yes`), an own device program, init cloned straight into it. The
//! scope is made around a process of ours ([`anchor`]). Which systemd, whether any at all, is
//! decided by [`Manager::find`].

mod address;
mod anchor;
mod annotations;
mod bus;
mod gvariant;
mod message;
mod names;
mod place;
mod properties;
#[cfg(test)]
mod testing;
mod unit;
mod value;

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};
use oci_spec::runtime::Spec;
use serde::{Deserialize, Serialize};

use super::plan::{Phase, Step};
use super::{Hierarchy, delegation};
use crate::error::Problems;
use crate::sys::rights::Rights;
use address::Address;
use bus::{Bus, PATIENCE, Signals};
use names::Names;
use properties::Property;
use value::Value;

pub use annotations::UNIT_PROPERTY;
pub(super) use place::cgroup_of;
pub(super) use properties::knows;
pub(super) use unit::Scope;

/// Who is asked to make a container's cgroup.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ManagerChoice {
    /// We.
    #[default]
    Files,
    /// systemd.
    Systemd,
    /// Nobody: the container is to stay where it is created.
    Nobody,
}

/// Who makes a container's cgroup.
#[derive(Debug)]
pub enum Manager {
    /// We, anywhere in the cgroup file system.
    Files,
    /// We, below a cgroup that was handed over to our caller.
    Below(PathBuf),
    /// Nobody: our caller may make none, and the container stays where it is created.
    Nobody,
    /// Nobody, as it was asked for.
    Disabled,
    /// We, below a unit that systemd has handed over to our caller; its cgroup.
    Delegated(PathBuf),
    /// systemd, at our word.
    Systemd(Box<Systemd>),
}

/// Whose systemd it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Whose {
    /// The first process of the host, or of the container that we run in.
    System,
    /// A user's own, `systemd --user`.
    User,
}

/// A unit of systemd, as the record of a container remembers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    /// Its name, as "parhelion-web.scope".
    pub name: String,
    /// Which systemd knows it.
    pub systemd: Whose,
}

/// A systemd that answers.
#[derive(Debug)]
pub struct Systemd {
    whose: Whose,
    bus: Bus,
    /// The cgroup below which all its units are.
    home: PathBuf,
    version: u32,
}

impl Manager {
    /// Finds out who makes the cgroup of container `id`, by what was chosen and for a caller who is
    /// `privileged` over the whole tree or not. Changes nothing.
    ///
    /// # Errors
    ///
    /// systemd is wanted and does not answer.
    pub fn find(
        (choice, privileged): (ManagerChoice, bool),
        spec: &Spec,
        id: &str,
        hierarchy: &Hierarchy,
    ) -> Result<Manager> {
        match choice {
            ManagerChoice::Nobody => return Ok(Manager::Disabled),
            ManagerChoice::Files if privileged => return Ok(Manager::Files),
            ManagerChoice::Files => {
                return Ok(delegation::find(configured_path(spec), hierarchy));
            }
            ManagerChoice::Systemd => {}
        }
        let names = Names::parse(configured_path(spec), id);
        // A path that is wrong is told with all other problems of the configuration.
        if names.is_ok_and(|names| names.slice.is_none())
            && let Some(unit) = place::delegated_unit(hierarchy)?
        {
            return Ok(Manager::Delegated(unit));
        }
        Ok(Manager::Systemd(Box::new(Systemd::connect(Whose::ours())?)))
    }
}

fn configured_path(spec: &Spec) -> Option<&Path> {
    let linux = spec.linux().as_ref();
    linux.and_then(|linux| linux.cgroups_path().as_deref())
}

impl Whose {
    /// A user has its own; root in a user namespace is such a user, unless nothing in its
    /// environment leads to one: then it is the root of a container with a systemd inside.
    fn ours() -> Whose {
        let leads_to_one = ["XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS"]
            .iter()
            .any(|name| std::env::var_os(name).is_some());
        match Rights::find() {
            Rights::Host => Whose::System,
            Rights::Namespace if !leads_to_one => Whose::System,
            Rights::Namespace | Rights::User => Whose::User,
        }
    }

    /// Where it may be reached, best first. Its private socket is the shorter way and works
    /// without a bus; an address in the environment is somebody's decision.
    fn addresses(self) -> Vec<Address> {
        let variable = |name| std::env::var(name).unwrap_or_default();
        match self {
            Whose::System => match Address::parse(&variable("DBUS_SYSTEM_BUS_ADDRESS")) {
                none if none.is_empty() => vec![
                    Address::private("/run/systemd/private"),
                    Address::bus("/run/dbus/system_bus_socket"),
                ],
                given => given,
            },
            Whose::User => {
                let folder = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
                let private = folder
                    .iter()
                    .map(|f| Address::private(f.join("systemd/private")));
                let mut addresses: Vec<Address> = private.collect();
                match Address::parse(&variable("DBUS_SESSION_BUS_ADDRESS")) {
                    none if none.is_empty() => {
                        addresses.extend(folder.iter().map(|f| Address::bus(f.join("bus"))));
                    }
                    given => addresses.extend(given),
                }
                addresses
            }
        }
    }

    /// What to do when it can not be reached.
    fn advice(self) -> &'static str {
        match self {
            Whose::System => {
                "--systemd-cgroup needs a host that systemd manages: `systemctl is-system-running` \
                 tells; without the option, cgroups are made in the cgroup file system"
            }
            Whose::User => {
                "--systemd-cgroup of a user needs `systemd --user`, which a login or `loginctl \
                 enable-linger` starts, and XDG_RUNTIME_DIR to find it"
            }
        }
    }

    /// The slice of containers that name none.
    fn default_slice(self) -> &'static str {
        match self {
            Whose::System => "system.slice",
            Whose::User => "user.slice",
        }
    }

    fn open(self, signals: Signals) -> Result<Bus> {
        let bus = Bus::connect(&self.addresses(), PATIENCE, signals);
        bus.map_err(|error| self.unreachable(&error))
    }

    fn unreachable(self, error: &anyhow::Error) -> anyhow::Error {
        let (reason, advice) = (crate::error::in_words(error), self.advice());
        anyhow!("systemd can not be reached: {reason} ({advice})")
    }
}

impl fmt::Display for Whose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Whose::System => "system",
            Whose::User => "user",
        })
    }
}

impl Systemd {
    fn connect(whose: Whose) -> Result<Systemd> {
        let mut bus = whose.open(Signals::Heeded)?;
        let mut ask = |name| {
            bus.property(name)
                .map_err(|error| whose.unreachable(&error))
        };
        let home = ask("ControlGroup")?;
        let version = version(&ask("Version")?);
        let home = PathBuf::from(home.trim_start_matches('/'));
        Ok(Systemd {
            whose,
            bus,
            home,
            version,
        })
    }
}

/// The number in "257.9-1~deb13u1" or "v252".
fn version(text: &str) -> u32 {
    let digits = text.trim_start_matches('v');
    let end = digits.find(|c: char| !c.is_ascii_digit());
    digits[..end.unwrap_or(digits.len())].parse().unwrap_or(0)
}

/// A container's scope, as data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ScopePlan {
    pub unit: Unit,
    slice: String,
    /// The scope's cgroup.
    pub path: PathBuf,
    /// Set when it is made.
    properties: Vec<Property>,
    /// Set when init is ready.
    late: Vec<Property>,
}

impl ScopePlan {
    /// Plans the scope of container `id`, with the limits of `steps`. Adds what is wrong with its
    /// names and annotations to `problems`.
    pub(super) fn new(
        systemd: &Systemd,
        spec: &Spec,
        id: &str,
        steps: &[Step],
        problems: &mut Problems,
    ) -> ScopePlan {
        let names = Names::parse(configured_path(spec), id).unwrap_or_else(|problem| {
            problems.add("linux.cgroupsPath", problem);
            let (slice, scope) = (None, String::new());
            Names { slice, scope }
        });
        let whose = systemd.whose;
        let slice = names
            .slice
            .unwrap_or_else(|| whose.default_slice().to_owned());
        let limits = |phase| {
            let steps = steps.iter().filter(move |step| step.phase() == phase);
            properties::of(steps, systemd.version)
        };
        let mut all = own_properties(id, &slice);
        let early = limits(Phase::Early).into_iter();
        for property in early.chain(annotations::plan(spec, problems)) {
            properties::set(&mut all, property);
        }
        ScopePlan {
            path: systemd.home.join(names::expand(&slice)).join(&names.scope),
            unit: Unit {
                name: names.scope,
                systemd: whose,
            },
            slice,
            properties: all,
            late: limits(Phase::Late),
        }
    }

    /// A line for each property that is set when init is ready.
    pub(super) fn write_late(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.late
            .iter()
            .try_for_each(|property| writeln!(f, "late     {property}"))
    }
}

/// What every scope has. Accounting, so that `systemctl status` and systemd-cgtop(1) tell; no
/// dependencies, as nobody is to wait for a container; no trace of it when it has ended.
fn own_properties(id: &str, slice: &str) -> Vec<Property> {
    let text = |text: &str| Value::Text(text.to_owned());
    vec![
        Property::new("Description", text(&format!("container {id}"))),
        Property::new("Slice", text(slice)),
        Property::new("Delegate", Value::Bool(true)),
        Property::new("DefaultDependencies", Value::Bool(false)),
        Property::new("CollectMode", text("inactive-or-failed")),
        Property::new("CPUAccounting", Value::Bool(true)),
        Property::new("IOAccounting", Value::Bool(true)),
        Property::new("MemoryAccounting", Value::Bool(true)),
        Property::new("TasksAccounting", Value::Bool(true)),
    ]
}

/// The cgroup of container `id` below a unit that was handed over.
///
/// # Errors
///
/// What is wrong with `linux.cgroupsPath`.
pub(super) fn delegated_path(unit: &Path, spec: &Spec, id: &str) -> Result<PathBuf, String> {
    let names = Names::parse(configured_path(spec), id)?;
    let name = names.scope.trim_end_matches(".scope");
    Ok(unit.join(name))
}

impl fmt::Display for ScopePlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Unit { name, systemd }, slice) = (&self.unit, &self.slice);
        writeln!(f, "scope    {name} in {slice} ({systemd})")?;
        self.properties
            .iter()
            .try_for_each(|property| writeln!(f, "property {property}"))
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{Fake, SHORT};
    use super::*;
    use crate::cgroups::Plan;

    /// The plan for a configuration, made by a systemd whose units are below `home`, and what is
    /// wrong with it.
    fn plan(whose: Whose, home: &str, json: &str) -> (String, String) {
        let json = format!(r#"{{"ociVersion": "1.3.0", "root": {{"path": "rootfs"}}, {json}}}"#);
        let spec = serde_json::from_str(&json).unwrap();
        let fake = Fake::new(|systemd| {
            systemd.greet();
            systemd.wait_for_close();
        });
        let systemd = Systemd {
            whose,
            bus: Bus::connect(&[Address::private(fake.path())], SHORT, Signals::LeftAlone).unwrap(),
            home: home.into(),
            version: 257,
        };
        let manager = Manager::Systemd(Box::new(systemd));
        let hierarchy = Hierarchy::offering(&["cpu", "memory", "pids", "hugetlb"]);
        let mut problems = Problems::default();
        let plan = Plan::managed(&spec, "web", &hierarchy, (&manager, true), &mut problems);
        let lines = plan.to_string();
        let lines = lines.lines().filter(|line| !line.starts_with("device"));
        let lines = lines.map(|line| format!("{line}\n")).collect();
        (lines, problems.to_string())
    }

    #[test]
    fn a_plan_prints_the_scope_its_properties_and_what_is_set_late() {
        let json = r#"
            "annotations": {"org.systemd.property.TimeoutStopSec": "5",
                "org.systemd.property.Description": "'the shop'"},
            "linux": {"cgroupsPath": "pods-a.slice:pod:web", "resources": {
                "memory": {"limit": 67108864}, "cpu": {"shares": 1024}, "pids": {"limit": 64},
                "hugepageLimits": [{"pageSize": "2MB", "limit": 0}],
                "unified": {"memory.oom.group": "1"}}}"#;
        let (plan, problems) = plan(Whose::System, "", json);
        assert_eq!(problems, "");
        let expected = "\
scope    pod-web.scope in pods-a.slice (system)
property Description \"the shop\"
property Slice \"pods-a.slice\"
property Delegate true
property DefaultDependencies false
property CollectMode \"inactive-or-failed\"
property CPUAccounting true
property IOAccounting true
property MemoryAccounting true
property TasksAccounting true
property CPUWeight 100
property MemoryMax 67108864
property OOMPolicy \"kill\"
property TimeoutStopUSec 5000000
cgroup   pods.slice/pods-a.slice/pod-web.scope
write    cpu.weight 100
write    hugetlb.2MB.max 0
write    hugetlb.2MB.rsvd.max 0, if it exists
write    memory.max 67108864
write    memory.oom.group 1
late     TasksMax 64
late     pids.max 64
";
        assert_eq!(plan, expected);
    }

    #[test]
    fn a_users_scope_is_below_its_own_systemd() {
        let home = "user.slice/user-1.slice/user@1.service";
        let (plan, _) = plan(Whose::User, home, r#""linux": {}"#);
        assert!(plan.starts_with("scope    parhelion-web.scope in user.slice (user)\n"));
        let place = format!("\ncgroup   {home}/user.slice/parhelion-web.scope\n");
        assert!(plan.contains(&place), "{plan}");
    }

    #[test]
    fn problems_of_names_and_annotations_are_told_together() {
        let json = r#"
            "annotations": {"org.systemd.property.Conflicts": "['sshd.service']"},
            "linux": {"cgroupsPath": "/pods/web"}"#;
        let (_, problems) = plan(Whose::System, "", json);
        assert!(
            problems.contains("linux.cgroupsPath: must have the form"),
            "{problems}"
        );
        assert!(
            problems.contains("annotations[\"org.systemd.property.Conflicts\"]"),
            "{problems}"
        );
    }

    #[test]
    fn below_a_unit_that_was_handed_over_the_path_is_a_plain_one() {
        let json = r#"{"ociVersion": "1.3.0", "root": {"path": "rootfs"},
            "linux": {"cgroupsPath": ":pod:web"}}"#;
        let spec = serde_json::from_str(json).unwrap();
        let mut problems = Problems::default();
        let manager = Manager::Delegated("system.slice/a.service".into());
        let hierarchy = Hierarchy::offering(&[]);
        let plan = Plan::managed(&spec, "web", &hierarchy, (&manager, true), &mut problems);
        let text = plan.to_string();
        assert!(
            text.starts_with("mkdir    system.slice/a.service/pod-web\n"),
            "{text}"
        );
        assert!(plan.unit().is_none() && problems.is_empty());
    }

    #[test]
    fn versions_of_systemd_are_read() {
        assert_eq!(version("257.9-1~deb13u1"), 257);
        assert_eq!(version("v252"), 252);
        assert_eq!(version("unknown"), 0);
    }
}
