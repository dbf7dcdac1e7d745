//! The last verdicts on disk, so that a restart of the daemon makes nobody ready or unready.
//!
//! A file that is damaged or gone costs verdicts, which the next checks find again; nothing else depends on it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::api::Health;

/// What was last found of one run of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Verdict {
    /// Which run; one after it begins anew.
    pub run: String,
    /// What was found.
    pub health: Health,
}

/// Verdicts, by the names of instances.
pub(super) type Verdicts = BTreeMap<String, Verdict>;

/// What was written last.
pub(super) fn load(path: &Path) -> Verdicts {
    let text = std::fs::read(path).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

/// Replaces the file. Not synchronised: a crash of the host ends the runs as well.
///
/// # Errors
///
/// What the kernel answered.
pub(super) fn save(path: PathBuf, verdicts: &Verdicts) -> std::io::Result<()> {
    let new = path.with_extension("new");
    std::fs::write(&new, serde_json::to_vec(verdicts)?)?;
    std::fs::rename(&new, &path)
}
