//! How many processes and threads a container may have: `linux.resources.pids`.

use oci_spec::runtime::LinuxResources;

use super::Controller;
use super::plan::Draft;

/// Row of `CONTROLLERS`.
pub(super) struct Pids;

const FIELD: &str = "pids.limit";
const FILE: &str = "pids.max";

impl Controller for Pids {
    fn name(&self) -> &'static str {
        "pids"
    }

    fn plan(&self, resources: &LinuxResources, draft: &mut Draft<'_>) {
        let Some(pids) = resources.pids() else { return };
        match pids.limit() {
            -1 => draft.lift(FIELD, FILE, "max"),
            // Also 0, which specification 1.3 calls a valid limit: written when init is there, it
            // forbids every further process (runc writes 1 for it, to the same effect).
            limit @ 0.. => draft.limit(FIELD, FILE, limit),
            limit => draft.refuse(
                FIELD,
                format!("must be 0 or more, or -1 for all, is {limit}"),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::tests::{lines, problems};

    #[test]
    fn the_limit_is_written_when_init_is_there() {
        assert_eq!(
            lines(r#"{"pids": {"limit": 64}}"#),
            ["late     pids.max 64"]
        );
        assert_eq!(lines(r#"{"pids": {"limit": 0}}"#), ["late     pids.max 0"]);
        assert_eq!(
            lines(r#"{"pids": {"limit": -1}}"#),
            ["late     pids.max max, if it exists"]
        );
    }

    #[test]
    fn a_negative_limit_is_a_problem() {
        assert_eq!(
            problems(r#"{"pids": {"limit": -2}}"#),
            ["linux.resources.pids.limit: must be 0 or more, or -1 for all, is -2"]
        );
    }
}
