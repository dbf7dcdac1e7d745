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

use super::Hierarchy;
use super::plan::{Phase, Step};
use crate::error::Problems;
use address::Address;
use bus::{Bus, PATIENCE};
use names::Names;
use properties::Property;
use value::Value;

pub(super) use unit::Scope;

/// Who makes a container's cgroup.
#[derive(Debug)]
pub enum Manager {
    /// We, anywhere in the cgroup file system.
    Files,
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
    /// Finds out who makes the cgroup of container `id`. Changes nothing.
    ///
    /// # Errors
    ///
    /// systemd is wanted and does not answer.
    pub fn find(systemd: bool, spec: &Spec, id: &str, hierarchy: &Hierarchy) -> Result<Manager> {
        if !systemd {
            return Ok(Manager::Files);
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
        let first_namespace = std::fs::read_to_string("/proc/self/uid_map")
            .is_ok_and(|map| map.split_whitespace().eq(["0", "0", "4294967295"]));
        let leads_to_one = ["XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS"]
            .iter()
            .any(|name| std::env::var_os(name).is_some());
        let root = rustix::process::geteuid().is_root();
        match root && (first_namespace || !leads_to_one) {
            true => Whose::System,
            false => Whose::User,
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

    fn open(self) -> Result<Bus> {
        let bus = Bus::connect(&self.addresses(), PATIENCE);
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
        let mut bus = whose.open()?;
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
        let (late, at_creation) = properties::split(limits(Phase::Late));
        let mut all = own_properties(id, &slice);
        let early = limits(Phase::Early).into_iter().chain(at_creation);
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
            late,
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
