//! What an instance's directory has in it, by its job.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::Host;
use super::place::Recipe;

/// Files of an instance's directory, and directories of the host.
#[derive(Debug, Default)]
pub struct Files {
    /// Contents by their paths in the directory.
    pub files: BTreeMap<PathBuf, Vec<u8>>,
    /// What is to be there, absolute.
    pub directories: Vec<PathBuf>,
}

/// Works them out.
pub fn render(
    recipe: &Recipe,
    host: &Host,
    directory: &Path,
    ports: &BTreeMap<String, u16>,
) -> Result<Files> {
    let mut files = Files {
        directories: vec![host.volumes.clone()],
        ..Files::default()
    };
    let [(name, task)] = &recipe.job.tasks.iter().collect::<Vec<_>>()[..] else {
        bail!("a job with several tasks can not be kept yet");
    };
    let path = task.bundle.join("config.json");
    let text = std::fs::read(&path).with_context(|| format!("read {path:?}"))?;
    let mut config: Value =
        serde_json::from_slice(&text).with_context(|| format!("read {path:?}"))?;
    let root = config["root"]["path"]
        .as_str()
        .unwrap_or("rootfs")
        .to_owned();
    config["root"]["path"] = json!(task.bundle.join(root));
    config["process"]["terminal"] = json!(false);
    config["linux"]["cgroupsPath"] = json!(format!("{}/{}", host.cgroup_parent, recipe.name));
    if let Some(command) = &task.command {
        config["process"]["args"] = json!(command);
    }
    if let Some(env) = config["process"]["env"].as_array_mut() {
        env.extend(
            ports
                .iter()
                .map(|(name, port)| json!(format!("PORT_{}={port}", name.to_uppercase()))),
        );
    }
    let bundle = PathBuf::from("tasks").join(name);
    let keeper = json!({ "id": &*recipe.name, "bundle": directory.join(&bundle) });
    files
        .files
        .insert("keeper.json".into(), keeper.to_string().into_bytes());
    files
        .files
        .insert(bundle.join("config.json"), config.to_string().into_bytes());
    Ok(files)
}
