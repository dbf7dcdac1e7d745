//! The files of an instance: what its keeper and its containers read, from the job, the place where it runs and the
//! bundles that it is made from.
//!
//! Pure: it reads what it is given, and whoever calls it writes what comes out.

mod config;
mod files;
mod keeper;
mod mounts;
#[cfg(test)]
pub(super) mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::Job;
pub(super) use config::{device_numbers, named_capabilities, port_variable};

/// Where an instance runs.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The instance's name.
    pub instance: &'a str,
    /// Which of the job's instances on this host it is.
    pub index: u32,
    /// The host's name.
    pub host: &'a str,
    /// The instance's directory, absolute.
    pub directory: &'a Path,
    /// The directory of volumes with a name, absolute.
    pub volumes: &'a Path,
    /// The host's ports, by the names in the job: each of the job's.
    pub ports: &'a BTreeMap<String, u16>,
    /// The network of its own, where the job says `bridge`.
    pub network: Option<PlaceNetwork<'a>>,
    /// The cgroup below which those of the containers are, from the root of the hierarchy on.
    pub cgroup_parent: &'a str,
}

/// A network of an instance's own.
#[derive(Debug, Clone, Copy)]
pub struct PlaceNetwork<'a> {
    /// The file that is its namespace, absolute.
    pub namespace: &'a Path,
    /// The instance's address.
    pub address: Ipv4Addr,
    /// /etc/resolv.conf, where the job says nothing of it.
    pub resolv_conf: &'a str,
}

/// What is to be in an instance's directory.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Files {
    /// The contents of files, by their paths in the directory: `keeper.json`, `tasks/web/config.json`.
    pub files: BTreeMap<PathBuf, Vec<u8>>,
    /// Directories that have to be there before it starts, and are made where they are missing: relative ones are in
    /// the instance's, absolute ones are volumes with a name.
    pub directories: BTreeSet<PathBuf>,
}

/// The id of a task's container, as `parhelion list` tells it. A task's name has no dot, so no two are the same.
#[must_use]
pub fn container_id(instance: &str, task: &str) -> String {
    format!("{instance}.{task}")
}

/// The files of an instance. `bundle_config` reads the config.json at a path.
///
/// # Errors
///
/// What can not be read, or is no config.json; or a port that `place` does not have.
pub fn render(
    job: &Job,
    place: &Place<'_>,
    bundle_config: &dyn Fn(&Path) -> Result<Vec<u8>>,
) -> Result<Files> {
    let mut rendered = Files::default();
    files::common(job, place, &mut rendered);
    for (name, task) in &job.tasks {
        let directory = Path::new("tasks").join(name);
        let path = task.bundle.join("config.json");
        let bytes = bundle_config(&path).with_context(|| format!("task {name:?}"))?;
        let base =
            serde_json::from_slice(&bytes).with_context(|| format!("task {name:?}: {path:?}"))?;
        let config = config::config(job, name, task, place, base)
            .with_context(|| format!("task {name:?}: {path:?}"))?;
        mounts::directories(task, place, &mut rendered);
        rendered
            .files
            .insert(directory.join("config.json"), files::json(&config)?);
        rendered.directories.insert(directory);
    }
    let keeper = files::json(&keeper::keeper(job, place))?;
    rendered.files.insert("keeper.json".into(), keeper);
    Ok(rendered)
}
