//! What a record says of a container from before its first effect: everything that later verbs need and
//! that the kernel does not tell.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::SystemTime;

use oci_spec::runtime::Hook;
use serde::{Deserialize, Serialize};

use crate::cgroups::{Inner, Unit, resctrl};
use crate::error::rfc3339;

/// What is known of a container before anything is done for it.
///
/// [`Facts::default`] stands for a container whose creation ended before a record was written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// The specification's version in config.json.
    pub oci_version: String,
    /// The bundle's directory, absolute.
    pub bundle: PathBuf,
    /// The file of its configuration, absolute, where that is not the bundle's own config.json.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<PathBuf>,
    /// The root file system as the host sees it, absolute.
    pub rootfs: PathBuf,
    /// The cgroup's path in the hierarchy; `None` where it has none of its own.
    pub cgroup: Option<PathBuf>,
    /// Where below it processes begin, if that is not in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inner: Option<Inner>,
    /// Its groups in resctrl, if it asks for any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resctrl: Option<resctrl::Groups>,
    /// The unit whose cgroup it is, where systemd made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<Unit>,
    /// Annotations of config.json.
    pub annotations: BTreeMap<String, String>,
    /// When it was created, as [`now`] gives it.
    pub created: String,
    /// Who created it: an effective user id.
    pub owner: u32,
    /// It has a session keyring of its own, which processes that join it share.
    #[serde(default)]
    pub keyring: bool,
    /// True when the end of init is the end of every process inside.
    pub own_pid_namespace: bool,
    /// The rules of the device filter, one per line: the last that the runtime has put into force.
    #[serde(default)]
    pub device_rules: String,
    /// What of the runtime's standard streams became the program's and comes from outside of the
    /// container, by the names that CRIU has for such things; empty for those that do not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub streams: Vec<String>,
    /// Hooks for after the start.
    pub poststart: Vec<Hook>,
    /// Hooks for after the deletion.
    pub poststop: Vec<Hook>,
}

/// The present moment as records hold it.
#[allow(
    clippy::disallowed_methods,
    reason = "create and the keeper are drivers: they note when something was"
)]
pub fn now() -> String {
    rfc3339(SystemTime::now())
}
