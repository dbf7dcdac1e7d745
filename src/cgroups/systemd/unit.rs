//! What is said to systemd of a unit: start, limits, stop.

use anyhow::{Context, Error, Result, bail};

use super::anchor::Anchor;
use super::bus::{Bus, Refused, Signals};
use super::message::Body;
use super::properties::{self, Property};
use super::value::Value;
use super::{ScopePlan, Systemd, Unit, Whose, place, version};
use crate::cgroups::plan::Step;
use crate::error;

const EXISTS: &str = "org.freedesktop.systemd1.UnitExists";
const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";

/// A scope that was just made, until the container is complete.
#[derive(Debug)]
pub(crate) struct Scope {
    bus: Bus,
    unit: Unit,
    /// Stands in the scope until init does.
    anchor: Option<Anchor>,
}

impl Scope {
    /// Makes the planned scope.
    ///
    /// # Errors
    ///
    /// systemd refuses or does not answer; then there is no scope, as far as it can be known.
    pub(in crate::cgroups) fn start(plan: &ScopePlan, systemd: Systemd) -> Result<Scope> {
        let Systemd {
            whose,
            mut bus,
            home,
            ..
        } = systemd;
        if whose == Whose::User && !place::cgroup_of("self")?.starts_with(&home) {
            enter_own_scope(&mut bus)?;
        }
        let anchor = Anchor::new()?;
        let pid = anchor.pid().as_raw_nonzero().get();
        start_unit(&mut bus, &plan.unit.name, &plan.properties, &[pid])?;
        let mut scope = Scope {
            bus,
            unit: plan.unit.clone(),
            anchor: Some(anchor),
        };
        match scope.check_place(pid, plan) {
            Ok(()) => Ok(scope),
            Err(error) => Err(scope.take_back(error)),
        }
    }

    /// That the process is where the plan has it: systemd could see another tree of cgroups.
    fn check_place(&self, pid: i32, plan: &ScopePlan) -> Result<()> {
        let found = place::cgroup_of(&pid.to_string())?;
        if found != plan.path {
            let (name, wanted) = (&self.unit.name, &plan.path);
            bail!("systemd put {name} into the cgroup {found:?}, which should be {wanted:?}");
        }
        Ok(())
    }

    /// To be called when init is in the scope: nobody else needs to be there any more.
    pub(in crate::cgroups) fn entered(&mut self) {
        self.anchor = None;
    }

    /// Sets the limits that are set when init is ready.
    ///
    /// # Errors
    ///
    /// systemd refuses or does not answer.
    pub(in crate::cgroups) fn set_late(&mut self, plan: &ScopePlan) -> Result<()> {
        set(&mut self.bus, &self.unit.name, &plan.late)
    }

    /// Stops the scope, as what should follow has failed. The error, with what else went wrong.
    pub(in crate::cgroups) fn take_back(&mut self, error: Error) -> Error {
        self.anchor = None;
        self.bus.leave_signals_alone();
        match stop(&mut self.bus, &self.unit.name) {
            Ok(()) => error,
            Err(left) => error.context(format!(
                "its scope may be left ({}) after this failure",
                error::in_words(&left)
            )),
        }
    }
}

/// Init is cloned into its cgroup, which a user may do only from a cgroup that shares with it an
/// ancestor of the user's own. A login's session is root's; so this process and the one that clones
/// init, not the container's, first go below the user's systemd, as Podman does.
fn enter_own_scope(bus: &mut Bus) -> Result<()> {
    let pid = rustix::process::getpid().as_raw_nonzero().get();
    let name = format!("parhelion-runtime-{pid}.scope");
    let text = |text: &str| Value::Text(text.to_owned());
    let properties = [
        Property::new("Description", text("parhelion")),
        Property::new("Slice", text("app.slice")),
        Property::new("CollectMode", text("inactive-or-failed")),
    ];
    const CHILDREN: &str = "/proc/thread-self/children";
    let children = std::fs::read_to_string(CHILDREN).context(CHILDREN)?;
    let children = children.split_whitespace().flat_map(str::parse);
    let pids: Vec<i32> = std::iter::once(pid).chain(children).collect();
    start_unit(bus, &name, &properties, &pids)
}

/// Starts a transient unit around processes.
fn start_unit(bus: &mut Bus, name: &str, properties: &[Property], pids: &[i32]) -> Result<()> {
    let pids = Value::U32s(pids.iter().map(|pid| pid.cast_unsigned()).collect());
    let body = || {
        let all = properties.iter().map(|p| (p.name.as_str(), &p.value));
        let body = Body::default().text(name).text("replace");
        body.properties(all.chain([("PIDs", &pids)])).no_units()
    };
    let what = || format!("unit {name}");
    let mut result = bus.job("StartTransientUnit", body());
    if is_refused(&result, EXISTS) {
        // It may be one that has failed and is kept for people to look at.
        let _still_there = reset(bus, name);
        result = bus.job("StartTransientUnit", body());
    }
    if is_refused(&result, EXISTS) {
        let advice = format!(
            "unit {name} exists already: `systemctl status` tells whose it is; delete that \
             container, or choose another id or linux.cgroupsPath"
        );
        return result.map(drop).context(advice);
    }
    match result.with_context(what)?.as_str() {
        "done" => Ok(()),
        other => {
            bail!("unit {name}: its start ended as {other:?}: `journalctl -u {name}` tells why")
        }
    }
}

fn set(bus: &mut Bus, name: &str, properties: &[Property]) -> Result<()> {
    if properties.is_empty() {
        return Ok(());
    }
    let all = properties.iter().map(|p| (p.name.as_str(), &p.value));
    // At run time: nothing of it outlives the unit.
    let body = Body::default().text(name).bool(true).properties(all);
    let set = bus.call("SetUnitProperties", body).map(drop);
    set.with_context(|| format!("unit {name}"))
}

/// Stops a unit and waits until it is; one that is gone is fine.
fn stop(bus: &mut Bus, name: &str) -> Result<()> {
    let result = bus.job("StopUnit", Body::default().text(name).text("replace"));
    if is_refused(&result, NO_SUCH_UNIT) {
        return Ok(());
    }
    let result = result.with_context(|| format!("unit {name}"))?;
    if result != "done" {
        error::debug(|| format!("unit {name}: its stop ended as {result:?}"));
    }
    reset(bus, name).with_context(|| format!("unit {name}"))
}

/// Lets systemd forget that a unit has failed; one that has not is fine.
fn reset(bus: &mut Bus, name: &str) -> Result<()> {
    let result = bus.call("ResetFailedUnit", Body::default().text(name));
    match is_refused(&result, NO_SUCH_UNIT) {
        true => Ok(()),
        false => result.map(drop),
    }
}

fn is_refused<T>(result: &Result<T>, name: &str) -> bool {
    let error = result.as_ref().err();
    let refused = error.and_then(|error| error.downcast_ref::<Refused>());
    refused.is_some_and(|refused| refused.name == name)
}

impl Unit {
    /// Goes to where this process may clone others into the unit's cgroup, if it is a user's: below that
    /// user's systemd, as for the unit's start.
    ///
    /// # Errors
    ///
    /// systemd refuses or does not answer.
    pub fn approach(&self) -> Result<()> {
        match self.systemd {
            Whose::User => enter_own_scope(&mut self.systemd.open(Signals::Heeded)?),
            Whose::System => Ok(()),
        }
    }

    /// Tells systemd limits, of which it then takes care; it may round them.
    ///
    /// # Errors
    ///
    /// systemd refuses or does not answer.
    pub(in crate::cgroups) fn set_limits(&self, steps: &[Step]) -> Result<()> {
        if !steps.iter().any(properties::knows) {
            return Ok(());
        }
        let mut bus = self.systemd.open(Signals::LeftAlone)?;
        let version = version(&bus.property("Version")?);
        let limits = properties::for_a_living_unit(properties::of(steps.iter(), version));
        set(&mut bus, &self.name, &limits)
    }

    /// Stops the unit, with whatever still runs in it, and waits until it is gone. One that is
    /// gone already is fine.
    ///
    /// # Errors
    ///
    /// systemd refuses or does not answer.
    pub fn stop(&self) -> Result<()> {
        stop(&mut self.systemd.open(Signals::LeftAlone)?, &self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::super::address::Address;
    use super::super::testing::{Fake, SHORT};
    use super::*;

    fn connect(fake: &Fake) -> Bus {
        Bus::connect(&[Address::private(fake.path())], SHORT, Signals::LeftAlone).unwrap()
    }

    #[test]
    fn a_unit_that_failed_before_is_forgotten_and_started_again() {
        let fake = Fake::new(|systemd| {
            systemd.greet();
            let first = systemd.refuse(EXISTS, "Unit x.scope was already loaded.");
            assert_eq!(first, "StartTransientUnit");
            assert_eq!(systemd.answer(""), "ResetFailedUnit");
            assert_eq!(systemd.answer("/job/1"), "StartTransientUnit");
            systemd.job_ended("/job/1", "done");
            systemd.wait_for_close();
        });
        start_unit(&mut connect(&fake), "x.scope", &[], &[1]).unwrap();
    }

    #[test]
    fn a_unit_that_is_there_is_left_alone_and_named() {
        let fake = Fake::new(|systemd| {
            systemd.greet();
            systemd.refuse(EXISTS, "Unit x.scope was already loaded.");
            systemd.answer("");
            systemd.refuse(EXISTS, "Unit x.scope was already loaded.");
            systemd.wait_for_close();
        });
        let error = start_unit(&mut connect(&fake), "x.scope", &[], &[1]).unwrap_err();
        let error = format!("{error:#}");
        assert!(error.starts_with("unit x.scope exists already"), "{error}");
    }

    #[test]
    fn a_start_that_ends_badly_is_an_error() {
        let fake = Fake::new(|systemd| {
            systemd.greet();
            systemd.answer("/job/1");
            systemd.job_ended("/job/1", "failed");
            systemd.wait_for_close();
        });
        let error = start_unit(&mut connect(&fake), "x.scope", &[], &[1]).unwrap_err();
        let expected =
            "unit x.scope: its start ended as \"failed\": `journalctl -u x.scope` tells why";
        assert_eq!(format!("{error:#}"), expected);
    }

    #[test]
    fn a_stop_waits_for_its_job_and_forgets_a_failure() {
        let fake = Fake::new(|systemd| {
            systemd.greet();
            assert_eq!(systemd.answer("/job/2"), "StopUnit");
            systemd.job_ended("/job/2", "done");
            assert_eq!(systemd.refuse(NO_SUCH_UNIT, "gone"), "ResetFailedUnit");
            systemd.wait_for_close();
        });
        stop(&mut connect(&fake), "x.scope").unwrap();
    }

    #[test]
    fn a_unit_that_is_gone_needs_no_stop() {
        let fake = Fake::new(|systemd| {
            systemd.greet();
            systemd.refuse(NO_SUCH_UNIT, "Unit x.scope not loaded.");
            systemd.wait_for_close();
        });
        stop(&mut connect(&fake), "x.scope").unwrap();
    }

    #[test]
    fn limits_are_set_with_one_call_and_none_with_none() {
        let fake = Fake::new(|systemd| {
            systemd.greet();
            assert_eq!(systemd.answer(""), "SetUnitProperties");
            systemd.refuse("a.b.AccessDenied", "no");
            systemd.wait_for_close();
        });
        let mut bus = connect(&fake);
        set(&mut bus, "x.scope", &[]).unwrap();
        let limit = [Property::new("TasksMax", Value::U64(5))];
        set(&mut bus, "x.scope", &limit).unwrap();
        let error = format!("{:#}", set(&mut bus, "x.scope", &limit).unwrap_err());
        assert_eq!(
            error,
            "unit x.scope: SetUnitProperties: no (a.b.AccessDenied)"
        );
    }
}
