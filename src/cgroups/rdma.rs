//! How many objects of an RDMA adapter a container may use: `linux.resources.rdma`.

use oci_spec::runtime::LinuxResources;

use super::Controller;
use super::plan::Draft;

/// Row of `CONTROLLERS`.
pub(super) struct Rdma;

impl Controller for Rdma {
    fn name(&self) -> &'static str {
        "rdma"
    }

    /// Writes one line of rdma.max for each adapter; a count that is not given stays as it is.
    fn plan(&self, resources: &LinuxResources, draft: &mut Draft<'_>) {
        let mut adapters: Vec<_> = resources.rdma().iter().flatten().collect();
        adapters.sort_unstable_by_key(|(name, _)| *name);
        for (name, counts) in adapters {
            let field = format!("rdma[{name:?}]");
            let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_graphic());
            let handles = counts.hca_handles().map(|n| format!(" hca_handle={n}"));
            let objects = counts.hca_objects().map(|n| format!(" hca_object={n}"));
            if !is_name {
                draft.refuse(&field, "must be the name of an adapter");
            } else if handles.is_none() && objects.is_none() {
                draft.refuse(&field, "needs hcaHandles or hcaObjects");
            } else {
                let counts = [handles, objects].into_iter().flatten().collect::<String>();
                draft.limit(&field, "rdma.max", format!("{name}{counts}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::tests::{lines, problems};

    #[test]
    fn every_adapter_has_its_line() {
        let json = r#"{"rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 10000},
            "mlx4_0": {"hcaObjects": 1000}}}"#;
        assert_eq!(
            lines(json),
            [
                "write    rdma.max mlx4_0 hca_object=1000",
                "write    rdma.max mlx5_1 hca_handle=3 hca_object=10000",
            ]
        );
    }

    #[test]
    fn an_adapter_needs_a_name_and_a_count() {
        let wrong = r#"{"rdma": {"a b": {"hcaHandles": 1}, "c": {}}}"#;
        assert_eq!(
            problems(wrong),
            [
                "linux.resources.rdma[\"a b\"]: must be the name of an adapter",
                "linux.resources.rdma[\"c\"]: needs hcaHandles or hcaObjects",
            ]
        );
    }
}
