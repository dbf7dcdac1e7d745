//! `linux.resources.network`: classes and priorities of packets, which only cgroup v1 has.

use oci_spec::runtime::LinuxResources;

use super::plan::Draft;

/// Refuses what asks for something; 0 and an empty list do not.
pub(super) fn refuse(resources: &LinuxResources, draft: &mut Draft<'_>) {
    let Some(network) = resources.network() else {
        return;
    };
    if network.class_id().is_some_and(|class| class != 0) {
        draft.refuse_v1("network.classID");
    }
    if network
        .priorities()
        .as_ref()
        .is_some_and(|list| !list.is_empty())
    {
        draft.refuse_v1("network.priorities");
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::tests::{lines, problems};

    #[test]
    fn classes_and_priorities_are_refused() {
        let wrong = r#"{"network": {"classID": 1048577,
            "priorities": [{"name": "eth0", "priority": 500}]}}"#;
        assert_eq!(
            problems(wrong),
            [
                "linux.resources.network.classID: exists only in cgroup v1",
                "linux.resources.network.priorities: exists only in cgroup v1",
            ]
        );
        assert!(lines(r#"{"network": {"classID": 0, "priorities": []}}"#).is_empty());
    }
}
