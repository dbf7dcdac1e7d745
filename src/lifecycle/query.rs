//! What a container is now: `state` and `list`.
//!
//! The record says which process is init; the kernel says what became of it. Nothing is cached and
//! nothing is locked, so a query never waits, and never reports what a crashed runtime believed.

use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;

use super::Status;
use super::id::ContainerId;
use super::process::wait_for_exit;
use super::record::Snapshot;
use crate::cgroups::{Cgroup, Hierarchy};
use crate::error::{self, Kind};

/// A container as `state` and `list` show it: runc's fields in runc's order.
#[derive(Debug, Serialize)]
pub struct State {
    /// The specification's version in config.json.
    #[serde(rename = "ociVersion")]
    pub oci_version: String,
    /// The container's id.
    pub id: String,
    /// Init's pid in the runtime's pid namespace; 0 when there is none.
    pub pid: i32,
    /// The status in OCI's words, or `paused`.
    pub status: String,
    /// The bundle's directory.
    pub bundle: PathBuf,
    /// The root file system as the host sees it.
    pub rootfs: PathBuf,
    /// When it was created.
    pub created: String,
    /// Annotations of config.json; left out when there are none.
    #[serde(skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub annotations: std::collections::BTreeMap<String, String>,
    /// The name of the user who created it, or the user id when it has no name.
    pub owner: String,
}

/// The container with this id.
///
/// # Errors
///
/// [`Kind::NotFound`]; or what the kernel refused to tell.
pub fn state(root: &Path, id: &ContainerId) -> Result<State> {
    let container = Snapshot::read(root, id)?;
    if !container.is_written() && !container.holds_only_our_files()? {
        return Err(Kind::NotFound(id.to_string()).into());
    }
    describe(container)
}

/// All containers under this root, by id. One that cannot be read is a warning, not the end.
///
/// # Errors
///
/// When the root is there and cannot be listed.
pub fn list(root: &Path) -> Result<Vec<State>> {
    let mut states = Vec::new();
    for id in ids(root)? {
        match state(root, &id) {
            Ok(state) => states.push(state),
            // Deleted since its name was read, or no container at all.
            Err(error) if Kind::is_not_found(&error) => {}
            Err(error) => {
                error::warn(&format!(
                    "list {:?}: {}",
                    id.as_str(),
                    error::in_words(&error)
                ));
            }
        }
    }
    Ok(states)
}

/// What the kernel says of a container, by its record.
///
/// # Errors
///
/// What the kernel refused to tell.
pub fn status(container: &Snapshot) -> Result<Status> {
    let Some(init) = &container.init else {
        return Ok(Status::Creating);
    };
    let Some(pidfd) = init.open()? else {
        return Ok(Status::Stopped);
    };
    let pid = init.pid;
    // Before Created: a created container can be paused, and then has to be resumed.
    if let Some(cgroup) = cgroup(container)?
        && cgroup.is_frozen()?
    {
        return Ok(Status::Paused { pid });
    }
    if container.is_locked_by_init()? {
        return Ok(Status::Created { pid });
    }
    // Init may have died since it was opened, and dropped its lock by that.
    let ended = wait_for_exit(pidfd.as_fd(), Some(Duration::ZERO))?;
    Ok(if ended {
        Status::Stopped
    } else {
        Status::Running { pid }
    })
}

/// The container's cgroup, or `None` when it is gone or was never made.
///
/// # Errors
///
/// When the host's cgroup v2 hierarchy cannot be found or opened.
pub fn cgroup(container: &Snapshot) -> Result<Option<Cgroup>> {
    match &container.facts.cgroup {
        Some(path) => Cgroup::open(&Hierarchy::find()?, path),
        None => Ok(None),
    }
}

fn describe(container: Snapshot) -> Result<State> {
    let status = status(&container)?;
    let facts = container.facts;
    Ok(State {
        oci_version: facts.oci_version,
        id: container.id.to_string(),
        pid: status.pid().unwrap_or(0),
        status: status.to_string(),
        bundle: facts.bundle,
        rootfs: facts.rootfs,
        created: facts.created,
        annotations: facts.annotations,
        owner: user_name(facts.owner),
    })
}

/// The names of directories under the root that can be ids, sorted.
pub(super) fn ids(root: &Path) -> Result<Vec<ContainerId>> {
    let entries = match fs::read_dir(root) {
        Ok(entries) => entries,
        // Nothing was ever created there.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("list {}", root.display())),
    };
    let mut ids = Vec::new();
    for entry in entries {
        let name = entry
            .with_context(|| format!("list {}", root.display()))?
            .file_name();
        // Whatever else lies in the root is no container: its name cannot be an id.
        ids.extend(name.to_str().and_then(|name| ContainerId::parse(name).ok()));
    }
    ids.sort();
    Ok(ids)
}

/// The user's name in /etc/passwd. Read here, not through libc: a static program cannot load
/// libc's name services.
fn user_name(uid: u32) -> String {
    if uid == 0 {
        return "root".into();
    }
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    user_name_in(&passwd, uid).unwrap_or_else(|| uid.to_string())
}

fn user_name_in(passwd: &str, uid: u32) -> Option<String> {
    let uid = uid.to_string();
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1) == Some(uid.as_str())).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lifecycle::facts::Facts;
    use crate::lifecycle::record::Record;
    use crate::lifecycle::testing::{Root, Sleeper, earlier, facts, id};

    /// A container whose init is this child, in status Created for as long as the lock lives.
    fn reserve(root: &Root, child: &Sleeper) -> Record {
        let mut record = Record::reserve(root.path(), &id("web"), facts()).unwrap();
        record.created(child.process()).unwrap();
        record
    }

    #[test]
    fn the_status_follows_record_lock_and_process() {
        let root = Root::new();
        let child = Sleeper::new();
        let record = Record::reserve(root.path(), &id("web"), facts()).unwrap();
        assert_eq!(status(&record).unwrap(), Status::Creating);
        drop(record);
        let record = reserve(&root, &child);
        let pid = child.process().pid;
        let lock = record.lock_for_init().unwrap();
        assert_eq!(status(&record).unwrap(), Status::Created { pid });
        drop(lock);
        assert_eq!(status(&record).unwrap(), Status::Running { pid });
        child.end_without_reaping();
        assert_eq!(status(&record).unwrap(), Status::Stopped, "a zombie");
        drop(child);
        assert_eq!(status(&record).unwrap(), Status::Stopped, "reaped");
    }

    #[test]
    fn a_pid_that_was_given_out_again_is_a_stopped_container() {
        let root = Root::new();
        let child = Sleeper::new();
        let mut record = Record::reserve(root.path(), &id("web"), facts()).unwrap();
        record.created(earlier(child.process())).unwrap();
        assert_eq!(status(&record).unwrap(), Status::Stopped);
    }

    #[test]
    fn state_prints_the_fields_that_runc_prints() {
        let root = Root::new();
        let child = Sleeper::new();
        let record = reserve(&root, &child);
        let pid = child.process().pid;
        let json = serde_json::to_string(&state(root.path(), &id("web")).unwrap()).unwrap();
        let expected = format!(
            "{{\"ociVersion\":\"1.3.0\",\"id\":\"web\",\"pid\":{pid},\"status\":\"running\",\
             \"bundle\":\"/srv/web\",\"rootfs\":\"/srv/web/rootfs\",\
             \"created\":\"2026-01-02T03:04:05.67Z\",\"annotations\":{{\"a\":\"b\"}},\
             \"owner\":\"root\"}}"
        );
        assert_eq!(json, expected);
        drop(record);
    }

    #[test]
    fn list_goes_on_past_what_is_no_container() {
        let root = Root::new();
        assert_eq!(list(&root.path().join("never-made")).unwrap().len(), 0);
        Record::reserve(root.path(), &id("b"), facts())
            .unwrap()
            .keep();
        Record::reserve(root.path(), &id("a"), Facts::default())
            .unwrap()
            .keep();
        fs::create_dir(root.path().join("half")).unwrap();
        fs::create_dir_all(root.path().join("foreign/files")).unwrap();
        fs::create_dir(root.path().join("no id")).unwrap();
        fs::write(root.path().join("file"), "").unwrap();
        fs::create_dir(root.path().join("broken")).unwrap();
        fs::write(root.path().join("broken/state.json"), "{}").unwrap();
        let ids: Vec<String> = list(root.path())
            .unwrap()
            .into_iter()
            .map(|state| state.id)
            .collect();
        assert_eq!(ids, ["a", "b", "half"]);
        let foreign = state(root.path(), &id("foreign")).unwrap_err();
        assert!(Kind::is_not_found(&foreign), "{foreign:#}");
    }

    #[test]
    fn owners_are_named_as_in_passwd() {
        let passwd = "root:x:0:0::/:/bin/sh\nweb:x:1000:1000:W:/home/web:/bin/sh\n";
        assert_eq!(user_name_in(passwd, 1000).as_deref(), Some("web"));
        assert_eq!(user_name_in(passwd, 100), None);
        assert_eq!(user_name(4_294_967_294), "4294967294");
    }
}
