//! Mounts of a task: its volumes, its file systems in memory, and files of the instance.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{Files, Place, files};
use crate::job::{Job, Source, Task, Tmpfs};

/// The bundle's mounts with the job's; one at the same place as one of the bundle's takes its place.
pub(super) fn mounts(job: &Job, task: &Task, place: &Place<'_>, base: Vec<Value>) -> Vec<Value> {
    // Sorted by path: what is mounted inside another comes after it.
    let mut added: BTreeMap<&Path, Value> = BTreeMap::new();
    let mut file = |inside: &'static str, path: &str| {
        let source = place.directory.join(path);
        let options = ["bind", "ro", "nosuid", "nodev", "noexec"];
        added.insert(Path::new(inside), bind(inside, &source, &options));
    };
    if files::has_hosts(job, place) {
        file("/etc/hosts", files::HOSTS);
    }
    if files::has_resolv_conf(job, place) {
        file("/etc/resolv.conf", files::RESOLV_CONF);
    }
    for (inside, volume) in &task.volumes {
        let write = if volume.read_only { "ro" } else { "rw" };
        let source = volume.source().map(|source| path(source, place));
        let source = source.unwrap_or_default();
        let mount = bind(inside, &source, &["rbind", write, "rprivate"]);
        added.insert(Path::new(inside.as_str()), mount);
    }
    for (inside, tmpfs) in &task.tmpfs {
        added.insert(Path::new(inside.as_str()), memory(inside, tmpfs));
    }
    let taken = |mount: &Value| {
        let inside = mount["destination"].as_str().unwrap_or_default();
        added.contains_key(Path::new(inside))
    };
    let mut all: Vec<Value> = base.into_iter().filter(|mount| !taken(mount)).collect();
    all.extend(added.into_values());
    all
}

fn bind(inside: &str, source: &Path, options: &[&str]) -> Value {
    json!({ "destination": inside, "type": "bind", "source": source, "options": options })
}

/// What it may have is told first, so that the job's options win.
fn memory(inside: &str, tmpfs: &Tmpfs) -> Value {
    let mut options: Vec<String> = ["nosuid", "nodev", "noexec"].map(str::to_owned).to_vec();
    options.push(format!("mode={}", tmpfs.mode.as_deref().unwrap_or("1777")));
    options.extend(tmpfs.size.map(|size| format!("size={}", size.0)));
    options.extend(tmpfs.options.iter().cloned());
    json!({ "destination": inside, "type": "tmpfs", "source": "tmpfs", "options": options })
}

fn path(source: Source<'_>, place: &Place<'_>) -> PathBuf {
    match source {
        Source::Host(path) => path.to_owned(),
        Source::Name(name) => place.volumes.join(name),
        Source::Instance(name) => place.directory.join(own(name)),
    }
}

/// Where a volume of the instance is in its directory.
fn own(name: &str) -> PathBuf {
    Path::new("volumes").join(name)
}

/// Directories of volumes that are made where they are missing.
pub(super) fn directories(task: &Task, place: &Place<'_>, rendered: &mut Files) {
    let sources = task.volumes.values().filter_map(|volume| volume.source());
    let made = sources.filter_map(|source| match source {
        Source::Host(_) => None,
        Source::Name(name) => Some(place.volumes.join(name)),
        Source::Instance(name) => Some(own(name)),
    });
    rendered.directories.extend(made);
}
