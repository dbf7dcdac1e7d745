//! What is around a container's processes, old or new: its record and its cgroup, made before any of them
//! and taken back when a later step fails. What it is to be is decided before the first effect.

use anyhow::Result;

use super::filters::Filters;
use super::plans::{Plans, facts};
use super::record::Record;
use super::{CreateRequest, delete, query};
use crate::bundle::Bundle;
use crate::cgroups::{Cgroup, Hierarchy, Manager};
use crate::error::{self, Problems};
use crate::namespaces;
use crate::sys::rights::Rights;

/// A record and the cgroup that it names, if there is one of the container's own.
pub(super) struct Ground {
    pub record: Record,
    pub cgroup: Option<Cgroup>,
}

impl Ground {
    /// Plans the container, then makes its record and its cgroup.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with the bundle, `problems` among it, or the step that failed; nothing is
    /// left then.
    pub fn lay(
        request: &CreateRequest,
        (bundle, mut filters): (&Bundle, Filters),
        namespaces: namespaces::Plan,
        rights: Rights,
        problems: Problems,
    ) -> Result<(Plans, Ground)> {
        let hierarchy = Hierarchy::find()?;
        let manager = manager(request, bundle, &hierarchy, rights)?;
        let host = (&hierarchy, &manager, rights);
        let plans = Plans::new((bundle, &mut filters), request, namespaces, host, problems)?; // nothing has changed yet
        let record = Record::reserve(&request.root, &request.id, facts(bundle, &plans, request))?;
        match make_groups(&plans, &hierarchy, manager) {
            Ok(cgroup) => {
                filters.keep(bundle, plans.seccomp.as_ref());
                Ok((plans, Ground { record, cgroup }))
            }
            // Only the record: a cgroup that was there before is not ours.
            Err(error) => Err(with_leftovers(error, record.remove())),
        }
    }

    /// Leaves the cgroup to the container; its record.
    pub fn keep_cgroup(mut self) -> Record {
        self.cgroup.iter_mut().for_each(Cgroup::keep);
        self.record
    }

    /// Removes both, as what should follow has failed. The error, with what else went wrong.
    pub fn take_back(self, error: anyhow::Error) -> anyhow::Error {
        let cgroup = self.cgroup.iter();
        let error = cgroup.fold(error, |error, cgroup| cgroup.explain(error));
        drop(self.cgroup);
        undo(self.record, error)
    }
}

/// Who makes the container's cgroup.
fn manager(
    request: &CreateRequest,
    bundle: &Bundle,
    hierarchy: &Hierarchy,
    rights: Rights,
) -> Result<Manager> {
    let everywhere = !request.rootless.unwrap_or(!rights.are_the_hosts());
    let wanted = (request.cgroup_manager, everywhere);
    Manager::find(wanted, &bundle.spec, request.id.as_str(), hierarchy)
}

/// Makes the container's cgroup, if it has one of its own, and its groups in resctrl if it asks for any.
fn make_groups(plans: &Plans, hierarchy: &Hierarchy, manager: Manager) -> Result<Option<Cgroup>> {
    let Some(plan) = &plans.resctrl else {
        return Cgroup::create(&plans.cgroup, hierarchy, manager);
    };
    plan.carry_out()?;
    Cgroup::create(&plans.cgroup, hierarchy, manager)
        .map_err(|error| with_leftovers(error, plan.groups().remove()))
}

/// Removes what a failed creation left, and keeps its error as the one to be told.
pub(super) fn undo(record: Record, error: anyhow::Error) -> anyhow::Error {
    let error = match query::cgroup(&record) {
        Ok(Some(cgroup)) => cgroup.explain(error),
        Ok(None) | Err(_) => error,
    };
    with_leftovers(error, delete::destroy(record))
}

fn with_leftovers(error: anyhow::Error, removed: Result<()>) -> anyhow::Error {
    match removed {
        Ok(()) => error,
        Err(left) => {
            let left = error::in_words(&left);
            error.context(format!(
                "not all of it could be removed ({left}) after this failure"
            ))
        }
    }
}
