//! What can not be asked of a container without a cgroup: limits. Devices that are denied are kept out in
//! another way, where that is possible (lifecycle).
//!
//! Nobody makes one where the caller may not, or does not want it. Both are told with what to do.

use super::plan::{Action, Missing, Step};
use super::systemd::Manager;
use crate::error::Problems;

/// Why nothing can be limited, and what to do.
pub(super) fn reason(manager: &Manager) -> &'static str {
    if matches!(manager, Manager::Disabled) {
        "needs a cgroup, and --cgroup-manager disabled is for a container without one: leave out the limit or \
         the option"
    } else {
        "needs a cgroup, and this user may make none here: run in one that was handed over (systemd-run --user \
         --scope -p Delegate=yes), or use --systemd-cgroup"
    }
}

/// Notes every limit: without a cgroup there is nothing that it could be set on.
pub(super) fn refuse(manager: &Manager, steps: &[Step], problems: &mut Problems) {
    let limits = steps.iter().filter(|step| match &step.action {
        Action::Write { missing, .. } => *missing != Missing::Ignore,
        Action::CheckBelow(_) => true,
    });
    for step in limits {
        if !problems.iter().any(|problem| problem.path == step.field) {
            problems.add(step.field.clone(), reason(manager));
        }
    }
}
