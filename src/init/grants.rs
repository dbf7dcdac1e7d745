//! Who the program is: what of `process.user` and `process.capabilities` can be granted to it.

use anyhow::{Context as _, Result, bail};
use oci_spec::runtime::{self, Process};

use super::plan::{Capabilities, Identity};
use crate::sys::weakened::{Mitigation, is_off};

/// The further groups of the program's; None leaves it those of whoever called the runtime, as the
/// configuration wants with `keep`, and as it must be where they are `fixed`.
///
/// # Errors
///
/// Groups are asked for that can not be set.
pub(super) fn groups(process: &Process, keep: bool, fixed: bool) -> Result<Option<Vec<u32>>> {
    let mut wanted = process.user().additional_gids().clone().unwrap_or_default();
    // A set, as in runc: setgroups(2) would count one that is listed twice as two.
    wanted.sort_unstable();
    wanted.dedup();
    if fixed && !keep && !wanted.is_empty() {
        bail!(
            "process.user.additionalGids: the kernel refuses setgroups(2) where a user has mapped its own \
             group alone (user_namespaces(7)): leave the groups out, or map a range by newgidmap(1)"
        );
    }
    // Without the call none can be given up either: they are nobody's inside.
    Ok((!keep && !fixed).then_some(wanted))
}

/// Who the program is, with what of its capabilities can be granted; `warnings` gets the rest.
///
/// # Errors
///
/// The runtime's own capabilities can not be read.
pub(super) fn identity(
    process: &Process,
    groups: Option<Vec<u32>>,
    user_namespace: bool,
    warnings: &mut Vec<String>,
) -> Result<Identity> {
    let user = process.user();
    Ok(Identity {
        uid: user.uid(),
        gid: user.gid(),
        groups,
        umask: user.umask().unwrap_or(0o022),
        capabilities: capabilities(process, user_namespace, warnings)?,
        no_new_privileges: process.no_new_privileges().unwrap_or(false),
        is_bounded: false,
        until_execve: 0,
    })
}

/// The sets asked for, without what can not be granted: that is a warning, not an error
/// (config.md, "capabilities").
fn capabilities(
    process: &Process,
    user_namespace: bool,
    warnings: &mut Vec<String>,
) -> Result<Capabilities> {
    let Some(sets) = process.capabilities() else {
        return Ok(Capabilities::default()); // none, as the specification's set is empty
    };
    // In a user namespace init holds them all; on the host it holds what the runtime holds.
    let held = if user_namespace {
        u64::MAX
    } else {
        rustix::thread::capabilities(None)
            .context("capget()")?
            .permitted
            .bits()
    };
    let mut set = |name: &str, wanted: &Option<runtime::Capabilities>, allowed: u64| {
        let mut bits = 0;
        for capability in wanted.iter().flatten() {
            let text = format!("CAP_{capability}");
            match text.parse::<caps::Capability>() {
                Ok(known) if allowed & known.bitmask() != 0 => bits |= known.bitmask(),
                Ok(_) | Err(_) => warnings.push(format!(
                    "process.capabilities.{name}: {text} can not be granted here and is left out"
                )),
            }
        }
        bits
    };
    let bounding = set("bounding", sets.bounding(), held);
    let permitted = set("permitted", sets.permitted(), held);
    let effective = set("effective", sets.effective(), permitted);
    let inheritable = match is_off(Mitigation::Inheritable) {
        true => permitted,
        false => set("inheritable", sets.inheritable(), held),
    };
    let ambient = set("ambient", sets.ambient(), permitted & inheritable);
    Ok(Capabilities {
        bounding,
        effective,
        inheritable,
        permitted,
        ambient,
    })
}
