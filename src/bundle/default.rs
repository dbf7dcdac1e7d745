//! The configuration that `parhelion spec` writes to start from.
//!
//! The same as `runc spec` of runc 1.5 on cgroup v2, byte for byte but for the host name. It is a
//! text and not a value, as people read it: order and indentation are part of it.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::path::Path;

use anyhow::{Result, bail};

use super::read::{config_path, os_error};

/// The user who is to run a rootless container: effective ids of the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
}

const DEFAULT: &str = include_str!("default.json");
const ROOTLESS: &str = include_str!("default-rootless.json");

/// The text of a config.json that runs `sh`; with an owner, one that this user can run without
/// privileges, by mapping the container's root to it.
pub fn default_config(rootless: Option<Owner>) -> String {
    match rootless {
        None => DEFAULT.to_owned(),
        Some(Owner { uid, gid }) => ROOTLESS
            .replace("\"<uid>\"", &uid.to_string())
            .replace("\"<gid>\"", &gid.to_string()),
    }
}

/// Writes the default config.json into a bundle's directory, and never over one that is there.
///
/// # Errors
///
/// There is one; or what the file system answered.
pub fn write_default(dir: &Path, rootless: Option<Owner>) -> Result<()> {
    let path = config_path(dir);
    let file = OpenOptions::new().write(true).create_new(true).open(&path);
    let file = match file {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            bail!("{path:?} exists: remove it to have a new one")
        }
        other => other.map_err(|error| os_error("open", &path, error))?,
    };
    write(file, &path, rootless)
}

/// Writes the default configuration into the file at `path`, made when missing and emptied when not: a
/// device or a pipe too.
///
/// # Errors
///
/// What the file system answered.
pub fn overwrite_default(path: &Path, rootless: Option<Owner>) -> Result<()> {
    let file = File::create(path).map_err(|error| os_error("open", path, error))?;
    write(file, path, rootless)
}

fn write(mut file: File, path: &Path, rootless: Option<Owner>) -> Result<()> {
    let text = default_config(rootless);
    let written = file.write_all(text.as_bytes());
    Ok(written.map_err(|error| os_error("write", path, error))?)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::bundle::tests::base;

    #[test]
    fn the_rootless_default_differs_only_where_privileges_would_be_needed() {
        let text = default_config(Some(Owner {
            uid: 1000,
            gid: 100,
        }));
        let rootless: Value = serde_json::from_str(&text).unwrap();
        let mut privileged = base();
        let id = |host: u32| json!([{ "containerID": 0, "hostID": host, "size": 1 }]);
        let linux = privileged["linux"].as_object_mut().unwrap();
        linux.remove("resources");
        linux.insert("uidMappings".into(), id(1000));
        linux.insert("gidMappings".into(), id(100));
        let namespaces = linux["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|entry| entry["type"] != "network");
        namespaces.push(json!({ "type": "user" }));
        let mounts = privileged["mounts"].as_array_mut().unwrap();
        mounts[2]["options"]
            .as_array_mut()
            .unwrap()
            .retain(|option| option != "gid=5");
        mounts[5] = json!({ "destination": "/sys", "type": "none", "source": "/sys",
        "options": ["rbind", "nosuid", "noexec", "nodev", "ro"] });
        assert_eq!(rootless, privileged);
    }
}
