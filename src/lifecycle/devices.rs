//! Devices that config.json denies to a container without a cgroup, where no filter can be attached.
//!
//! They are kept out by what is enforced in any case: mounts without devices, and a program that can make
//! neither nodes nor mounts. Where that is not possible the container is refused.

use oci_spec::runtime::{Capability, LinuxCapabilities, Process, Spec};

use super::facts::Facts;
use crate::cgroups;
use crate::error::Problems;
use crate::namespaces::{self, Kind};
use crate::rootfs::{self, HostTree};

const FIELD: &str = "linux.resources.devices";

/// By these a device can be had in spite of its mounts: a node is made, or a mount.
const MAKING: [Capability; 2] = [Capability::Mknod, Capability::SysAdmin];

/// Changes the plan so that devices which are denied and not filtered can not be used; what stands in the
/// way goes to `problems`.
pub(super) fn keep_out(
    spec: &Spec,
    namespaces: &namespaces::Plan,
    cgroup: &cgroups::Plan,
    rootfs: &mut rootfs::Plan<HostTree>,
    problems: &mut Problems,
) {
    let Some(rules) = cgroup.unfiltered_devices() else {
        return;
    };
    let mut refuse = |what: String| {
        let message = format!(
            "without a cgroup there is no filter, and mounts without devices keep out what is denied: that \
             takes {what}; or allow every device: [{{\"allow\": true, \"access\": \"rwm\"}}]"
        );
        problems.add(FIELD, message);
    };
    if !namespaces.is_new(Kind::Pid) {
        // The roots of others are in /proc, with their own mounts.
        refuse("a new pid namespace".into());
    }
    if let Some(making) = held(spec.process().as_ref()) {
        refuse(format!("process.capabilities without CAP_{making}"));
    }
    match rootfs.keep_devices_out() {
        Err(what) => refuse(what),
        Ok(nodes) => {
            let denied = |node: &&rootfs::DeviceNode| {
                !rules.lets_open(node.kind == 'b', node.major, node.minor)
            };
            if let Some(node) = nodes.iter().find(denied) {
                refuse(format!("rules that allow the use of /{}", node.path));
            }
        }
    }
}

/// The same for a process that joins such a container.
pub(super) fn check_joining(facts: &Facts, process: Option<&Process>, problems: &mut Problems) {
    if !are_kept_out(facts) {
        return;
    }
    if let Some(making) = held(process) {
        let message = format!(
            "CAP_{making} would undo what keeps devices out of this container, which has no cgroup to filter \
             them"
        );
        problems.add("process.capabilities", message);
    }
}

/// Whether devices are denied to a container without a cgroup.
pub(super) fn are_kept_out(facts: &Facts) -> bool {
    facts.cgroup.is_none() && cgroups::denies_devices(&facts.device_rules)
}

fn held(process: Option<&Process>) -> Option<Capability> {
    let sets = process?.capabilities().as_ref()?;
    MAKING.into_iter().find(|wanted| is_in(sets, *wanted))
}

fn is_in(sets: &LinuxCapabilities, capability: Capability) -> bool {
    [
        sets.bounding(),
        sets.effective(),
        sets.inheritable(),
        sets.permitted(),
        sets.ambient(),
    ]
    .into_iter()
    .flatten()
    .any(|set| set.contains(&capability))
}
