//! What a job says: the file that people write, checked or refused before any effect, and its identity.
//!
//! A [`Job`] never changes: its [`JobId`] has a digest of all that it says. It is a group of tasks, each one
//! container, which live and die together. Where it runs, and in how many instances, says a deployment.
//!
//! Pure: nothing here looks at the host.

mod id;

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use id::JobId;

/// A job, as its file says it, in TOML or JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Job {
    /// Its name: 1 to 63 letters, digits, `-`, `_` and `.`, the first one a letter or digit.
    pub name: String,
    /// Its version, of the same characters.
    pub version: String,
    /// The containers of one instance, by their names.
    pub tasks: BTreeMap<String, Task>,
    /// Ports of an instance, by their names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ports: BTreeMap<String, Port>,
}

/// One container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Task {
    /// The directory of the OCI bundle that it is made from, on the host where it runs; absolute.
    pub bundle: PathBuf,
    /// The program and its arguments, instead of the bundle's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
}

/// A port of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Port {
    /// The host's port; one that is free is chosen, and kept, where it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<u16>,
}
