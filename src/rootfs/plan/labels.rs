//! The SELinux label of new file systems (config-linux.md, "Mount Label").

use oci_spec::runtime::Spec;

use crate::error::Problems;
use crate::rootfs::{Mount, Source};

/// The annotation that chooses the option; crun's, which Podman passes on.
const KIND: &str = "run.oci.mount_context_type";

/// What it may be (mount(8), "Context options").
const KINDS: [&str; 4] = ["context", "fscontext", "defcontext", "rootcontext"];

/// File systems whose files the kernel labels by itself.
const OWN_LABELS: [&str; 3] = ["proc", "sysfs", "cgroup2"];

/// The mount option that gives a file system the container's label, if it has one.
pub(super) fn option(spec: &Spec, problems: &mut Problems) -> Option<String> {
    let label = spec.linux().as_ref()?.mount_label().as_ref()?;
    let annotations = spec.annotations().as_ref();
    let kind = annotations
        .and_then(|all| all.get(KIND))
        .map_or(KINDS[0], String::as_str);
    if !KINDS.contains(&kind) {
        let message = format!("must be context, fscontext, defcontext or rootcontext, is {kind:?}");
        problems.add(format!("annotations[{KIND:?}]"), message);
    }
    Some(format!("{kind}={label}"))
}

/// Adds the option to every new file system that takes it.
pub(super) fn add<T>(mounts: &mut [Mount<T>], option: &str) {
    for mount in mounts {
        let Source::New(new) = &mut mount.source else {
            continue;
        };
        if new.fstype == "mqueue" {
            new.root_label = option.split_once('=').map(|(_, label)| label.to_owned());
        } else if !OWN_LABELS.contains(&new.fstype.as_str()) {
            new.options.push(option.to_owned());
        }
    }
}
