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

/// What was written last of the instances that are still there: of the others nobody will tell that they have gone.
pub(super) fn load(path: &Path, is_there: impl Fn(&str) -> bool) -> Verdicts {
    let text = std::fs::read(path).unwrap_or_default();
    let mut verdicts: Verdicts = serde_json::from_slice(&text).unwrap_or_default();
    verdicts.retain(|instance, _| is_there(instance));
    verdicts
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_that_have_gone_meanwhile_are_forgotten() {
        let folder = std::env::temp_dir().join(format!("health-memory-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("health.json");
        let verdict = Verdict {
            run: "0:1".to_owned(),
            health: Health::Ready,
        };
        let all = ["gone", "web"].map(|name| (name.to_owned(), verdict.clone()));
        save(path.clone(), &all.into()).unwrap();
        let loaded = load(&path, |instance| instance == "web");
        assert_eq!(loaded.into_keys().collect::<Vec<_>>(), ["web"]);
        std::fs::remove_dir_all(folder).unwrap();
    }
}
