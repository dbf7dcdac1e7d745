//! An instance's directory: written whole, and removed whole.
//!
//! `instances/NAME` has `keeper.json`, a bundle's directory for each task, and `instance.json`, which says
//! whose it is and which ports it has. A new one is written beside and gets its name when it is complete; one
//! that is removed loses its name first. Names with a point in front are what was interrupted. Of all this only the
//! ports are safe on disk before the instance starts.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::PoisonError;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::{Host, disk, ports};
use crate::agent::reconcile::{FoundSlot, Name};
use crate::error::{self, Kind};
use crate::job::render::{Place, PlaceNetwork, render};
use crate::job::{Job, JobId, Network, Port};
use crate::keeper::spec::Spec;
use crate::keeper::status::{self, Status};
use crate::keeper::{KEEPER, client};
use crate::lifecycle::id::ContainerId;
use crate::lifecycle::record::Snapshot;
use crate::network::{self, Published};

/// What an instance's directory says of itself.
pub(super) const FILE: &str = "instance.json";

/// What is in it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Facts {
    job: JobId,
    index: u32,
    ports: BTreeMap<String, u16>,
    tasks: BTreeSet<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    network: Option<Own>,
}

/// A network of the instance's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Own {
    address: Ipv4Addr,
    published: Vec<Published>,
}

/// The ports and the address of an instance.
pub type Reached = (BTreeMap<String, u16>, Option<Ipv4Addr>);

/// Which instance of which job is to be made.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// Its name.
    pub name: Name,
    /// The job.
    pub job: std::sync::Arc<Job>,
    /// The job's identity.
    pub id: JobId,
    /// Which of its instances.
    pub index: u32,
}

impl Host {
    /// An instance's directory.
    pub fn directory(&self, name: &str) -> PathBuf {
        self.instances.join(name)
    }

    /// Makes an instance's directory as it should be, or leaves it so: its ports. Blocks.
    pub fn make(&self, recipe: &Recipe) -> Result<Reached> {
        let directory = self.directory(&recipe.name);
        let exists = directory.is_dir();
        let (had, network) = read_facts(&directory)
            .map(|facts| (facts.ports, facts.network))
            .unwrap_or_default();
        // What its own program listens at is not free.
        let runs = exists && runs(&directory);
        let is_free = |key| runs || ports::is_free(key);
        let taken = self
            .ports
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take(&recipe.name, &recipe.job.ports, &had, &is_free)?;
        let own = match recipe.job.network {
            Network::Host | Network::None => None,
            Network::Bridge => Some(self.attach(recipe, network, &taken)?),
        };
        let address = own.as_ref().map(|own| own.address);
        let written = match exists {
            true => self.write(recipe, &directory, &directory, &taken, own),
            false => {
                let new = self.instances.join(format!(".new-{}", recipe.name));
                remove_all(&new)?;
                self.write(recipe, &directory, &new, &taken, own)
                    .and_then(|()| rename(&new, &directory))
                    .and_then(|()| match taken.is_empty() && address.is_none() {
                        true => Ok(()),
                        false => disk::keep_names(&self.instances),
                    })
            }
        };
        written.map(|()| (taken, address))
    }

    /// Gives an instance the network of its own.
    fn attach(
        &self,
        recipe: &Recipe,
        had: Option<Own>,
        ports: &BTreeMap<String, u16>,
    ) -> Result<Own> {
        let published: Vec<Published> = ports
            .iter()
            .filter_map(|(label, external)| {
                Some(published(recipe.job.ports.get(label)?, *external))
            })
            .collect();
        let had = had.map(|had| had.address);
        let address = self.network.attach(&recipe.name, had, published.clone())?;
        Ok(Own { address, published })
    }

    /// Notes which networks there are, before any of them is changed.
    pub fn claim_networks(&self, found: &[FoundSlot]) {
        for one in found {
            let facts = read_facts(&self.directory(&one.name));
            if let Some(own) = facts.and_then(|facts| facts.network) {
                self.network.claim(&one.name, own.address, own.published);
            }
        }
    }

    fn write(
        &self,
        recipe: &Recipe,
        directory: &Path,
        to: &Path,
        ports: &BTreeMap<String, u16>,
        own: Option<Own>,
    ) -> Result<()> {
        make_directory(to)?;
        let (namespace, resolv_conf) = match own {
            Some(_) => (self.network.namespace(&recipe.name), network::resolv_conf()),
            None => Default::default(),
        };
        let place = Place {
            instance: &recipe.name,
            index: recipe.index,
            host: &self.options.host,
            directory,
            volumes: &self.volumes,
            ports,
            network: own.as_ref().map(|own| PlaceNetwork {
                namespace: &namespace,
                address: own.address,
                resolv_conf: &resolv_conf,
            }),
            cgroup_parent: &self.cgroup_parent,
        };
        let read = |path: &Path| fs::read(path).with_context(|| format!("read {path:?}"));
        let files = render(&recipe.job, &place, &read)?;
        for made in &files.directories {
            // An absolute one stays where it is.
            make_directory(&to.join(made))?;
        }
        for (path, content) in &files.files {
            disk::renew(&to.join(path), content)?;
        }
        let own_address = own.is_some();
        let facts = Facts {
            job: recipe.id.clone(),
            index: recipe.index,
            ports: ports.clone(),
            tasks: recipe.job.tasks.keys().cloned().collect(),
            network: own,
        };
        let facts = serde_json::to_vec(&facts).context("put into JSON whose it is")?;
        let file = to.join(FILE);
        let is_known = !ports.is_empty() || own_address;
        if !is_known || fs::read(&file).is_ok_and(|there| there == facts) {
            return disk::renew(&file, &facts);
        }
        // Others are told of the ports: they are to be the same after a crash of the host. All else is made anew then.
        disk::replace(&file, &facts)
    }

    /// Removes an instance's directory, and its containers if there are any. It has no keeper, or it is told to
    /// end. Blocks.
    pub fn remove(&self, name: &Name) -> Result<()> {
        let directory = self.directory(name);
        let gone = self.instances.join(format!(".gone-{name}"));
        if directory.is_dir() {
            let lock = client::keep_out(&directory)?;
            self.remove_containers(&directory)?;
            remove_all(&gone)?;
            rename(&directory, &gone)?;
            drop(lock);
        }
        remove_all(&gone)?;
        self.network.detach(name)?;
        self.ports
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .release(name);
        Ok(())
    }

    /// Removes the containers of a directory that has no keeper. There are none after an orderly end.
    fn remove_containers(&self, directory: &Path) -> Result<()> {
        let ids = match Spec::load(directory) {
            Ok(spec) => spec.tasks.into_iter().map(|task| task.id).collect(),
            // Nobody knows which they are.
            Err(_) => self.containers()?,
        };
        for id in ids {
            if self
                .keeper_of(&id)?
                .is_some_and(|keeper| keeper == directory)
            {
                self.delete_container(&id)?;
            }
        }
        Ok(())
    }

    /// The names below the root that can be containers'.
    pub fn containers(&self) -> Result<Vec<ContainerId>> {
        let entries = match fs::read_dir(&self.options.root) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.with_context(|| format!("list {:?}", self.options.root))?,
        };
        let names = entries
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok());
        Ok(names
            .filter_map(|name| ContainerId::parse(&name).ok())
            .collect())
    }

    /// The directory of the instance whose container this is; None when it is not a keeper's, or is not there.
    pub fn keeper_of(&self, id: &ContainerId) -> Result<Option<PathBuf>> {
        match Snapshot::read(&self.options.root, id) {
            Ok(found) => Ok(found.facts.annotations.get(KEEPER).map(PathBuf::from)),
            Err(error) if Kind::is_not_found(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Kills and deletes a container, by the runtime.
    pub fn delete_container(&self, id: &ContainerId) -> Result<()> {
        let mut command = Command::new(&self.options.runtime);
        command.arg("--root").arg(&self.options.root);
        command.args(["delete", "--force", id.as_str()]);
        let output = command.stdin(Stdio::null()).output();
        let output = output.with_context(|| format!("run {:?}", self.options.runtime))?;
        if !output.status.success() {
            let told = String::from_utf8_lossy(&output.stderr);
            bail!("delete container {:?}: {}", id.as_str(), told.trim());
        }
        Ok(())
    }

    /// The instances on disk, without what was interrupted, which is removed. None of them has a keeper here.
    pub fn find(&self) -> Result<Vec<FoundSlot>> {
        let mut found = Vec::new();
        let entries = fs::read_dir(&self.instances);
        for entry in entries.with_context(|| format!("list {:?}", self.instances))? {
            let entry = entry.with_context(|| format!("list {:?}", self.instances))?;
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            if name.starts_with('.') {
                if let Err(error) = remove_all(&entry.path()) {
                    error::warn(&error::in_words(&error));
                }
                continue;
            }
            let facts = read_facts(&entry.path()).unwrap_or_else(|| unknown(&name));
            found.push(FoundSlot {
                name: name.into(),
                job: facts.job,
                index: facts.index,
                ports: facts.ports,
                address: facts.network.map(|own| own.address),
                kept: false,
            });
        }
        Ok(found)
    }
}

/// The task of an instance that has one.
pub fn task(directory: &Path) -> String {
    let facts = read_facts(directory);
    let first = facts.and_then(|facts| facts.tasks.first().cloned());
    first.unwrap_or_else(|| "main".to_owned())
}

fn read_facts(directory: &Path) -> Option<Facts> {
    let text = fs::read(directory.join(FILE)).ok()?;
    serde_json::from_slice(&text).ok()
}

/// How a port of a job is published at the host's port.
fn published(port: &Port, external: u16) -> Published {
    let at = match port.address {
        Some(IpAddr::V4(address)) if !address.is_unspecified() => Some(address),
        // Jobs with others are refused.
        Some(_) | None => None,
    };
    Published {
        protocol: port.protocol,
        at,
        external,
        internal: port.inside(external),
    }
}

/// An instance of which nobody knows whose it is.
fn unknown(name: &str) -> Facts {
    Facts {
        job: JobId {
            name: name.to_owned(),
            version: "unknown".to_owned(),
            digest: "0".repeat(64),
        },
        index: 0,
        ports: BTreeMap::new(),
        tasks: BTreeSet::new(),
        network: None,
    }
}

/// Whether its program runs, by what its last keeper has written.
pub(super) fn runs(directory: &Path) -> bool {
    let text = fs::read(directory.join(status::FILE)).unwrap_or_default();
    let status: Option<Status> = serde_json::from_slice(&text).ok();
    let tasks = status.map(|status| status.tasks).unwrap_or_default();
    let mut containers = tasks.into_iter().filter_map(|task| task.container);
    containers.any(|container| container.process.open().is_ok_and(|alive| alive.is_some()))
}

fn make_directory(path: &Path) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("make {path:?}"))
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).with_context(|| format!("rename {from:?} to {to:?}"))
}

fn remove_all(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed.with_context(|| format!("remove {path:?}")),
    }
}
