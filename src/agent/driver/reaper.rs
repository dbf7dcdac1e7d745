//! Containers of ours that nobody knows: what an agent without its directory has left, or somebody has put into
//! our cgroup. Never others: a container counts as ours by the annotation with its instance's directory, and a
//! cgroup by being below the one that is this agent's alone.
//!
//! Whether an instance is there says its directory, at the moment of the question: it is made before the first
//! container and goes after the last one. A list from before would lack what was begun meanwhile.

use std::collections::HashSet;
use std::fs;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::inotify;

use super::{Host, Inbox, Input};
use crate::cgroups::{Cgroup, Hierarchy};
use crate::error;
use crate::sys::watched::Watched;

/// What was reaped: its name, and why.
pub type Reaped = Vec<(String, String)>;

impl Host {
    /// Reaps what is ours and belongs to no instance. Blocks.
    pub fn reap(&self) -> Reaped {
        let mut reaped = Reaped::new();
        let cgroups = self.reap_containers(&mut reaped);
        match cgroups {
            Ok(cgroups) => {
                if let Err(error) = self.reap_cgroups(&cgroups, &mut reaped) {
                    error::warn(&format!("reap cgroups: {}", error::in_words(&error)));
                }
            }
            Err(error) => error::warn(&format!("reap: {}", error::in_words(&error))),
        }
        reaped
    }

    /// Deletes containers of instances that are not there; the cgroups that all others have.
    fn reap_containers(&self, reaped: &mut Reaped) -> Result<HashSet<PathBuf>> {
        let mut cgroups = HashSet::new();
        for id in self.containers()? {
            let record = crate::lifecycle::record::Snapshot::read(&self.options.root, &id);
            let Ok(record) = record else { continue };
            let keeper = record
                .facts
                .annotations
                .get(crate::keeper::KEEPER)
                .map(Path::new);
            let instance = keeper.and_then(|keeper| keeper.strip_prefix(&self.instances).ok());
            let instance = instance.and_then(Path::to_str);
            if instance.is_none_or(|name| self.directory(name).is_dir()) {
                cgroups.extend(record.facts.cgroup.as_deref().map(below_root));
                continue;
            }
            let why = format!(
                "its instance {:?} is not there",
                instance.unwrap_or_default()
            );
            match self.delete_container(&id) {
                Ok(()) => reaped.push((id.as_str().to_owned(), why)),
                Err(error) => error::warn(&error::in_words(&error)),
            }
        }
        Ok(cgroups)
    }

    /// Removes cgroups below ours in which no container of ours is.
    fn reap_cgroups(&self, used: &HashSet<PathBuf>, reaped: &mut Reaped) -> Result<()> {
        let hierarchy = Hierarchy::find()?;
        let parent = below_root(Path::new(&self.cgroup_parent));
        let folder = hierarchy.mount_point().join(&parent);
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = parent.join(&name);
            let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if !is_directory || used.contains(&path) || self.has_instance_of(&name) {
                continue;
            }
            let Some(cgroup) = Cgroup::open(&hierarchy, &path)? else {
                continue;
            };
            let removed = cgroup.kill_all().and_then(|()| cgroup.remove());
            match removed {
                Ok(()) => {
                    let why =
                        "it is in the cgroup of this agent, and no instance has it".to_owned();
                    reaped.push((path.display().to_string(), why));
                }
                Err(error) => error::warn(&error::in_words(&error)),
            }
        }
        Ok(())
    }

    /// Whether a cgroup's name is that of an instance, or of one of its tasks: its container may just be made.
    fn has_instance_of(&self, cgroup: &str) -> bool {
        let ends = cgroup
            .match_indices(['.', '-', '+', '_'])
            .map(|(end, _)| end);
        ends.chain([cgroup.len()])
            .filter(|end| *end > 0)
            .any(|end| self.directory(&cgroup[..end]).is_dir())
    }
}

fn below_root(path: &Path) -> PathBuf {
    path.strip_prefix("/").unwrap_or(path).to_owned()
}

/// Tells when something new is in our cgroup or below the root: its name may be nobody's.
pub async fn watch(host: std::sync::Arc<Host>, inbox: Inbox) {
    if let Err(error) = follow(&host, &inbox).await {
        error::warn(&format!(
            "unknown containers are looked for at a start only: {}",
            error::in_words(&error)
        ));
    }
}

async fn follow(host: &Host, inbox: &Inbox) -> Result<()> {
    let hierarchy = Hierarchy::find()?;
    let ours = hierarchy
        .mount_point()
        .join(below_root(Path::new(&host.cgroup_parent)));
    let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
    let changes = inotify::init(flags).context("inotify_init1")?;
    for folder in [&ours, &host.options.root] {
        fs::create_dir_all(folder).with_context(|| format!("make {folder:?}"))?;
        inotify::add_watch(&changes, folder, inotify::WatchFlags::CREATE)
            .with_context(|| format!("watch {folder:?}"))?;
    }
    let changes = Watched::new(changes).context("watch inotify")?;
    let mut room = [const { std::mem::MaybeUninit::uninit() }; 4096];
    loop {
        let mut ready = changes.readable().await.context("wait for inotify")?;
        let mut names = Vec::new();
        let mut reader = inotify::Reader::new(changes.as_fd(), &mut room);
        while let Ok(event) = reader.next() {
            names.extend(
                event
                    .file_name()
                    .and_then(|name| name.to_str().ok())
                    .map(str::to_owned),
            );
        }
        ready.clear_ready();
        drop(ready);
        inbox.send(Input::Appeared(names));
    }
}

#[cfg(test)]
mod tests {
    use super::super::start::tests::host;
    use super::*;

    #[test]
    fn an_instance_is_there_as_soon_as_its_directory_is() {
        let (folder, host) = host("reaper");
        let all = ["", "web.1.0123456.0", "web.1.0123456.0.main"];
        assert!(all.iter().all(|name| !host.has_instance_of(name)));
        // One that was begun after it was looked for the first time.
        fs::create_dir(host.directory("web.1.0123456.0")).unwrap();
        let has = all.map(|name| host.has_instance_of(name));
        assert_eq!(has, [false, true, true]);
        assert!(!host.has_instance_of("web.1.0123456.1.main"));
        fs::remove_dir_all(folder).unwrap();
    }
}
