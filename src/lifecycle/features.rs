//! What this runtime can do: `features`, in the form of runtime-spec's features.md.
//!
//! Every answer is read from the table by which the runtime works: the rows of config.json's fields
//! ([`FIELDS`]), of namespaces, mount options, controllers and managers. What has no row, or a row
//! that is refused, is not claimed.

use std::collections::BTreeMap;

use serde::Serialize;

use super::checkpoint::OPTIONS_OF_CRIU;
use crate::bundle::{
    self, ANNOTATIONS_OF_CRUN, FIELDS, Kind, SPECIFICATION, SPECIFICATION_FIRST, Support,
};
use crate::cgroups::{CONTROLLERS, MANAGERS, UNIT_PROPERTY};
use crate::init::landlock::ANNOTATION as LANDLOCK;
use crate::namespaces::KINDS;
use crate::rootfs::{Effect, MOUNT_OPTIONS};
use crate::seccomp;

/// The annotations that change what the runtime does, so that only who may do the same by other fields
/// should be let set them; one that ends with "." stands for all that begin so.
const ACTING_ANNOTATIONS: [&str; 4] = [
    LANDLOCK,
    UNIT_PROPERTY,
    ANNOTATIONS_OF_CRUN,
    OPTIONS_OF_CRIU,
];

/// The document.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Features {
    oci_version_min: &'static str,
    oci_version_max: &'static str,
    hooks: Vec<&'static str>,
    mount_options: Vec<&'static str>,
    linux: Linux,
    annotations: BTreeMap<&'static str, &'static str>,
    potentially_unsafe_config_annotations: [&'static str; 4],
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Linux {
    namespaces: Vec<&'static str>,
    capabilities: Vec<String>,
    cgroup: Cgroup,
    seccomp: Seccomp,
    apparmor: Enabled,
    selinux: Enabled,
    intel_rdt: IntelRdt,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_policy: Option<MemoryPolicy>,
    mount_extensions: MountExtensions,
    net_devices: Enabled,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Cgroup {
    v1: bool,
    v2: bool,
    systemd: bool,
    systemd_user: bool,
    rdma: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Seccomp {
    enabled: bool,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    actions: &'static [&'static str],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    operators: &'static [&'static str],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    archs: &'static [&'static str],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    known_flags: &'static [&'static str],
    /// Those of them that this kernel takes.
    supported_flags: Vec<&'static str>,
}

#[derive(Debug, Serialize)]
struct Enabled {
    enabled: bool,
}

#[derive(Debug, Serialize)]
struct IntelRdt {
    enabled: bool,
    schemata: bool,
    monitoring: bool,
}

#[derive(Debug, Serialize)]
struct MemoryPolicy {
    modes: &'static [&'static str],
    flags: &'static [&'static str],
}

#[derive(Debug, Serialize)]
struct MountExtensions {
    idmap: Enabled,
}

/// What a runtime with these verbs can do.
#[must_use]
pub fn features(verbs: &[&str]) -> Features {
    Features {
        oci_version_min: SPECIFICATION_FIRST,
        oci_version_max: SPECIFICATION,
        hooks: hooks(),
        mount_options: MOUNT_OPTIONS.iter().map(|(name, _)| *name).collect(),
        linux: linux(),
        annotations: annotations(verbs),
        potentially_unsafe_config_annotations: ACTING_ANNOTATIONS,
    }
}

fn linux() -> Linux {
    let mut namespaces: Vec<_> = KINDS.iter().map(|(_, name, _)| *name).collect();
    namespaces.sort_unstable();
    let maps_ids = MOUNT_OPTIONS
        .iter()
        .any(|(_, effect)| matches!(effect, Effect::MapIds(_)));
    Linux {
        namespaces,
        capabilities: bundle::capability_names(),
        cgroup: Cgroup {
            v1: false,
            v2: true,
            systemd: MANAGERS.contains(&"systemd"),
            systemd_user: MANAGERS.contains(&"systemd-user"),
            rdma: CONTROLLERS.iter().any(|one| one.name() == "rdma"),
        },
        seccomp: Seccomp {
            enabled: is_honoured("linux.seccomp"),
            actions: words("linux.seccomp.defaultAction"),
            operators: words("linux.seccomp.syscalls[].args[].op"),
            // Also those whose calls this kernel never gets: of them a filter has nothing to decide.
            archs: words("linux.seccomp.architectures[]"),
            known_flags: words("linux.seccomp.flags[]"),
            supported_flags: words("linux.seccomp.flags[]")
                .iter()
                .copied()
                .filter(|flag| seccomp::kernel_takes_flag(flag))
                .collect(),
        },
        apparmor: enabled("process.apparmorProfile"),
        selinux: enabled("process.selinuxLabel"),
        intel_rdt: IntelRdt {
            enabled: is_honoured("linux.intelRdt"),
            schemata: is_honoured("linux.intelRdt.schemata"),
            monitoring: is_honoured("linux.intelRdt.enableMonitoring"),
        },
        memory_policy: is_honoured("linux.memoryPolicy").then(|| MemoryPolicy {
            modes: words("linux.memoryPolicy.mode"),
            flags: words("linux.memoryPolicy.flags[]"),
        }),
        mount_extensions: MountExtensions {
            idmap: Enabled {
                enabled: maps_ids && is_honoured("mounts[].uidMappings"),
            },
        },
        net_devices: enabled("linux.netDevices"),
    }
}

/// The lists of hooks.
fn hooks() -> Vec<&'static str> {
    let name = |path: &'static str| {
        let name = path.strip_prefix("hooks.")?;
        (!name.contains(['.', '['])).then_some(name)
    };
    let honoured = FIELDS.iter().filter(|f| f.support == Support::Honoured);
    honoured.filter_map(|field| name(field.path)).collect()
}

fn is_honoured(path: &str) -> bool {
    FIELDS
        .iter()
        .any(|field| field.path == path && field.support == Support::Honoured)
}

fn enabled(path: &str) -> Enabled {
    Enabled {
        enabled: is_honoured(path),
    }
}

/// The words that a field takes; none for one that is refused.
fn words(path: &str) -> &'static [&'static str] {
    let row = FIELDS.iter().find(|field| field.path == path);
    match row.filter(|_| is_honoured(path)).map(|field| field.kind) {
        Some(Kind::Words(words)) => words,
        Some(
            Kind::Object
            | Kind::Closed
            | Kind::Map
            | Kind::Array
            | Kind::Bool
            | Kind::Int { .. }
            | Kind::Text
            | Kind::Free
            | Kind::Path,
        )
        | None => &[],
    }
}

/// What features.md leaves to annotations. That of checkpoints is runc's, which other runtimes may
/// use.
fn annotations(verbs: &[&str]) -> BTreeMap<&'static str, &'static str> {
    let checkpoint = ["checkpoint", "restore"]
        .iter()
        .all(|verb| verbs.contains(verb));
    BTreeMap::from([
        ("parhelion.version", env!("CARGO_PKG_VERSION")),
        (
            "org.opencontainers.runc.checkpoint.enabled",
            if checkpoint { "true" } else { "false" },
        ),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_that_is_asked_for_is_a_row() {
        for path in [
            "linux.seccomp",
            "linux.seccomp.defaultAction",
            "linux.seccomp.syscalls[].args[].op",
            "linux.seccomp.architectures[]",
            "linux.seccomp.flags[]",
            "process.apparmorProfile",
            "process.selinuxLabel",
            "linux.intelRdt",
            "linux.intelRdt.schemata",
            "linux.intelRdt.enableMonitoring",
            "linux.memoryPolicy",
            "linux.memoryPolicy.mode",
            "linux.memoryPolicy.flags[]",
            "linux.netDevices",
            "mounts[].uidMappings",
        ] {
            assert!(FIELDS.iter().any(|field| field.path == path), "{path}");
        }
    }

    #[test]
    fn the_document_can_be_read_by_the_types_of_the_specification() {
        let text = serde_json::to_string(&features(&[])).unwrap();
        let read: oci_spec::runtime::Features = serde_json::from_str(&text).unwrap();
        assert_eq!(read.oci_version_min(), "1.0.0");
        assert_eq!(read.hooks().as_ref().unwrap().len(), 6);
        let linux = read.linux().as_ref().unwrap();
        assert_eq!(linux.namespaces().as_ref().unwrap().len(), 8);
        assert_eq!(linux.capabilities().as_ref().unwrap().len(), 41);
        assert_eq!(linux.cgroup().as_ref().unwrap().v1(), &Some(false));
    }

    #[test]
    fn a_checkpoint_is_claimed_only_with_its_verbs() {
        let claimed = |verbs: &[&str]| {
            annotations(verbs)["org.opencontainers.runc.checkpoint.enabled"] == "true"
        };
        assert!(!claimed(&["create", "checkpoint"]));
        assert!(claimed(&["checkpoint", "restore"]));
    }
}
