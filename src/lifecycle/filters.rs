//! Filters of system calls that were compiled before: `linux.seccomp` is neither read nor compiled again.

use std::path::Path;

use oci_spec::runtime::Spec;

use crate::bundle::Bundle;
use crate::error::Problems;
use crate::seccomp::{Kept, Plan};

/// The filters that are kept, and the one of them that is a container's.
#[derive(Debug)]
pub(super) struct Filters {
    kept: Kept,
    found: Option<Plan>,
}

impl Filters {
    /// Those kept with the containers below `root`; none of them is a container's yet.
    pub fn below(root: &Path) -> Filters {
        Filters {
            kept: Kept::below(root),
            found: None,
        }
    }

    /// Whether one is kept for this text of `linux.seccomp`, which is the container's then.
    pub fn know(&mut self, text: &str) -> bool {
        self.found = self.kept.find(text);
        self.found.is_some()
    }

    /// The container's filter, compiled if none was found.
    pub fn plan(&mut self, spec: &Spec, problems: &mut Problems) -> Option<Plan> {
        let found = self.found.take();
        found.or_else(|| Plan::new(spec, problems))
    }

    /// Keeps the filter of a bundle for the next one with its profile.
    pub fn keep(&self, bundle: &Bundle, plan: Option<&Plan>) {
        if let (Some(text), Some(plan)) = (&bundle.profile, plan) {
            self.kept.keep(text, plan);
        }
    }
}
