//! How much of the host's huge pages a container may use: `linux.resources.hugepageLimits`.

use oci_spec::runtime::LinuxResources;

use super::Controller;
use super::plan::Draft;

/// Row of `CONTROLLERS`.
pub(super) struct Hugetlb;

impl Controller for Hugetlb {
    fn name(&self) -> &'static str {
        "hugetlb"
    }

    /// Limits what is used, and what is reserved where the kernel can (Linux 5.7).
    fn plan(&self, resources: &LinuxResources, draft: &mut Draft<'_>) {
        for (i, limit) in resources.hugepage_limits().iter().flatten().enumerate() {
            let (field, size) = (format!("hugepageLimits[{i}]"), limit.page_size());
            let sizes = draft.hierarchy().huge_page_sizes();
            if !sizes.contains(size) {
                let text = format!(
                    "must be a page size of this host ({}), is {size:?}",
                    sizes.join(", ")
                );
                draft.refuse(&format!("{field}.pageSize"), text);
                continue;
            }
            let field = format!("{field}.limit");
            match u64::try_from(limit.limit()) {
                Ok(bytes) => {
                    draft.limit(&field, &format!("hugetlb.{size}.max"), bytes);
                    draft.limit_if_present(&field, &format!("hugetlb.{size}.rsvd.max"), bytes);
                }
                Err(_negative) => {
                    draft.refuse(&field, format!("must be bytes, is {}", limit.limit()))
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::tests::{lines, problems};

    #[test]
    fn use_and_reservation_are_limited() {
        assert_eq!(
            lines(r#"{"hugepageLimits": [{"pageSize": "2MB", "limit": 4194304}]}"#),
            [
                "write    hugetlb.2MB.max 4194304",
                "write    hugetlb.2MB.rsvd.max 4194304, if it exists",
            ]
        );
    }

    #[test]
    fn a_page_size_must_exist_on_the_host() {
        let wrong = r#"{"hugepageLimits": [{"pageSize": "3MB", "limit": 1},
            {"pageSize": "2MB", "limit": -1}]}"#;
        assert_eq!(
            problems(wrong),
            [
                "linux.resources.hugepageLimits[0].pageSize: \
             must be a page size of this host (2MB), is \"3MB\"",
                "linux.resources.hugepageLimits[1].limit: must be bytes, is -1",
            ]
        );
    }
}
