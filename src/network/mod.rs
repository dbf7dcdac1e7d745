//! Networks of instances' own: a namespace for each, on a bridge of the host, with ports that are published.
//!
//! A namespace is a file, and is there without any process: a keeper joins its containers to it by its path, again and
//! again, and needs no daemon for that. What there is belongs to an agent by its state directory: the files are in it, and
//! the bridge's hardware address is made of its name. Nothing else is ever changed or removed.
//!
//! To read it in order: `Network::attach -> pool -> rules -> links -> namespace`. All of it blocks.

mod forward;
mod links;
mod namespace;
mod pool;
mod programs;
mod resolve;
mod rules;
mod subnet;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, bail};

use serde::{Deserialize, Serialize};

use crate::error;
use crate::job::Protocol;
use crate::sys::netlink::Netlink;

use links::Links;
#[cfg(test)]
pub(crate) use pool::Pool;
#[cfg(not(test))]
use pool::Pool;
pub use resolve::resolv_conf;
pub use subnet::Subnet;

/// The name of the bridge by default.
pub const BRIDGE: &str = "parhelion0";

/// The bridge's network by default: 4,094 addresses that hardly anybody uses. A bridge of Linux has 1,023 ports.
pub const SUBNET: &str = "10.213.0.0/20";

/// Where a network is made, and whose it is.
#[derive(Debug, Clone)]
pub struct Options {
    /// The bridge's name, and that of the table in nftables.
    pub bridge: String,
    /// Its network.
    pub subnet: Subnet,
}

impl Options {
    /// Holds the name against what the kernel and nft(8) take.
    ///
    /// # Errors
    ///
    /// It is another one.
    pub fn check(&self) -> Result<()> {
        let name = &self.bridge;
        let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
        let begins = name.starts_with(|c: char| c.is_ascii_alphabetic());
        if !begins || name.len() > 15 || !name.chars().all(allowed) {
            bail!(
                "--bridge {name:?}: must be 1 to 15 letters, digits, _ and ., the first one a letter"
            );
        }
        Ok(())
    }
}

impl Default for Options {
    fn default() -> Options {
        Options {
            bridge: BRIDGE.to_owned(),
            subnet: subnet::default(),
        }
    }
}

/// A port of the host that leads to an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Published {
    /// What is spoken there.
    pub protocol: Protocol,
    /// The host's only address at which it is; None for all.
    pub at: Option<Ipv4Addr>,
    /// The host's port.
    pub external: u16,
    /// The instance's.
    pub internal: u16,
}

/// What an instance has.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Attached {
    address: Ipv4Addr,
    published: Vec<Published>,
}

/// What is to be.
#[derive(Debug, Default)]
struct Wanted {
    pool: Pool,
    instances: BTreeMap<String, Attached>,
    /// Counted up with each change of what is published.
    number: u64,
}

/// What nftables was given last.
#[derive(Debug, Default)]
struct Applied {
    /// The number of what was wanted.
    number: u64,
    /// How the kernel told it afterwards.
    listing: String,
}

/// The networks of one agent's instances.
#[derive(Debug)]
pub struct Network {
    options: Options,
    /// Where the namespaces are.
    directory: PathBuf,
    links: Links,
    wanted: Mutex<Wanted>,
    applied: Mutex<Applied>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Network {
    /// Nothing yet, for the agent with this state directory. It has no effect.
    #[must_use]
    pub fn new(options: Options, state: &std::path::Path) -> Network {
        Network {
            links: Links::new(&options, state),
            directory: state.join("net"),
            options,
            wanted: Mutex::default(),
            applied: Mutex::default(),
        }
    }

    /// The file that is an instance's namespace.
    #[must_use]
    pub fn namespace(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Notes what an instance has had, before anything else is done.
    pub fn claim(&self, name: &str, address: Ipv4Addr, published: Vec<Published>) {
        let mut wanted = lock(&self.wanted);
        wanted.pool.claim(name, address);
        wanted.set(name, address, published);
    }

    /// Gives an instance its network, or finds it as it should be: its address, the one that it `had` where that is
    /// possible.
    ///
    /// # Errors
    ///
    /// What is missing on this host, before there is anything of it; or what the kernel refuses, and what is there is
    /// found by the next attempt.
    pub fn attach(
        &self,
        name: &str,
        had: Option<Ipv4Addr>,
        published: Vec<Published>,
    ) -> Result<Ipv4Addr> {
        programs::nft()?;
        let (address, is_new) = {
            let mut wanted = lock(&self.wanted);
            self.check(&wanted)?;
            let is_new = !wanted.instances.contains_key(name);
            let address = wanted.pool.take(name, had, &self.options.subnet)?;
            wanted.set(name, address, published);
            (address, is_new)
        };
        if let Err(error) = self.publish() {
            if is_new {
                lock(&self.wanted).release(name);
            }
            return Err(error);
        }
        // One after the other: the kernel has one lock for all of it, too.
        let _alone = lock(&self.wanted);
        self.links.bridge()?;
        let path = self.namespace(name);
        let namespace = namespace::make(&path)?;
        self.links
            .connect(&namespace, address)
            .with_context(|| format!("network {path:?}"))?;
        Ok(address)
    }

    /// Takes everything away that an instance has, if there is anything.
    ///
    /// # Errors
    ///
    /// What the kernel refuses; it can be tried again.
    pub fn detach(&self, name: &str) -> Result<()> {
        let was = {
            let mut wanted = lock(&self.wanted);
            let was = wanted.release(name);
            namespace::remove(&self.namespace(name))?;
            if let Some(was) = &was {
                self.links.disconnect(was.address)?;
            }
            was
        };
        self.publish()?;
        if let Some(was) = was {
            // Who goes on sending would go on being led to nobody.
            let forgotten =
                Netlink::open_filter().and_then(|netlink| netlink.forget_connections(was.address));
            if let Err(error) = forgotten {
                error::debug(|| format!("connections to {}: {error}", was.address));
            }
        }
        Ok(())
    }

    /// Makes of the host what is wanted: what somebody has taken away is back, and what is left of what has gone is not.
    /// What was done, a line each.
    ///
    /// # Errors
    ///
    /// What the kernel or a program refuses.
    pub fn repair(&self) -> Result<Vec<String>> {
        let mut done = Vec::new();
        let number = {
            let wanted = lock(&self.wanted);
            self.sweep(&wanted, &mut done)?;
            if !wanted.instances.is_empty() {
                self.mend_all(&wanted, &mut done)?;
            }
            wanted.number
        };
        if !self.is_used() {
            self.publish()?;
            return Ok(done);
        }
        let mut applied = lock(&self.applied);
        let listing = rules::list(&self.options.bridge)?;
        if applied.number < number || listing.is_empty() || listing != applied.listing {
            if !applied.listing.is_empty() && applied.number >= number {
                done.push("rules of nftables were made anew".to_owned());
            }
            *applied = self.apply(&applied)?;
        }
        forward::ensure(&self.options.bridge)?;
        Ok(done)
    }

    /// Whether any instance has a network.
    #[must_use]
    pub fn is_used(&self) -> bool {
        !lock(&self.wanted).instances.is_empty()
    }

    /// Removes namespaces and interfaces that no instance has.
    fn sweep(&self, wanted: &Wanted, done: &mut Vec<String>) -> Result<()> {
        for name in namespace::list(&self.directory)? {
            if !wanted.instances.contains_key(&name) {
                namespace::remove(&self.namespace(&name))?;
                done.push(format!("network {name} was removed: no instance has it"));
            }
        }
        let addresses = wanted.instances.values().map(|has| has.address);
        for link in self.links.sweep(&addresses.collect())? {
            done.push(format!("interface {link} was removed: no instance has it"));
        }
        Ok(())
    }

    /// Whether this host can have what is wanted.
    fn check(&self, wanted: &Wanted) -> Result<()> {
        if let Some((name, address)) = self.stranger(wanted)? {
            bail!(
                "instance {name} has the address {address}, which is not in {}: undeploy it, or give parheliond the \
                 --subnet that it was made with",
                self.options.subnet
            );
        }
        self.links.check()
    }

    /// An instance that is there and has an address of another network, from before.
    fn stranger<'a>(&self, wanted: &'a Wanted) -> Result<Option<(&'a str, Ipv4Addr)>> {
        for (name, has) in &wanted.instances {
            let is_ours = self.options.subnet.has(has.address);
            if !is_ours && namespace::open(&self.namespace(name))?.is_some() {
                return Ok(Some((name, has.address)));
            }
        }
        Ok(None)
    }

    fn mend_all(&self, wanted: &Wanted, done: &mut Vec<String>) -> Result<()> {
        programs::nft()?;
        self.check(wanted)?;
        self.links.bridge()?;
        for (name, has) in &wanted.instances {
            // One of another network gets a new address when it is made.
            if self.options.subnet.has(has.address) && self.mend(name, has.address)? {
                done.push(format!("network of instance {name} was made anew"));
            }
        }
        Ok(())
    }

    /// Whether something was missing and is back. A namespace whose file has gone may still be a program's: then it
    /// is left alone until that has ended.
    fn mend(&self, name: &str, address: Ipv4Addr) -> Result<bool> {
        let path = self.namespace(name);
        let found = namespace::open(&path)?;
        if found.is_none() && self.links.is_there(address)? {
            error::warn(&format!(
                "{path:?} was unmounted: instance {name} can not be restarted until it is stopped"
            ));
            return Ok(false);
        }
        // One that is not there yet may just be made by somebody else: that is no repair.
        let was_there = found.is_some();
        let namespace = match found {
            Some(namespace) => namespace,
            None => namespace::make(&path)?,
        };
        let connected = self.links.connect(&namespace, address);
        let is_new = connected.with_context(|| format!("network {path:?}"))?;
        Ok(was_there && is_new)
    }

    /// Has nftables say what is wanted now, or something newer.
    fn publish(&self) -> Result<()> {
        let (number, is_used) = {
            let wanted = lock(&self.wanted);
            (wanted.number, !wanted.instances.is_empty())
        };
        let mut applied = lock(&self.applied);
        if !is_used || applied.number < number || applied.listing.is_empty() {
            *applied = self.apply(&applied)?;
        }
        Ok(())
    }

    fn apply(&self, last: &Applied) -> Result<Applied> {
        let wanted = lock(&self.wanted);
        let bridge = &self.options.bridge;
        if wanted.instances.is_empty() {
            // Nobody may come meanwhile.
            if self.links.is_ours()? {
                rules::remove(bridge)?;
                forward::remove(bridge)?;
                self.links.remove()?;
            }
            return Ok(Applied::default());
        }
        if self.stranger(&wanted)?.is_some() {
            // Their rules stay as they are.
            return Ok(Applied {
                number: wanted.number,
                listing: last.listing.clone(),
            });
        }
        let (number, text) = (wanted.number, rules::text(&self.options, &wanted.instances));
        drop(wanted);
        rules::replace(&text)?;
        forward::ensure(bridge)?;
        let listing = rules::list(bridge)?;
        Ok(Applied { number, listing })
    }
}

impl Wanted {
    fn set(&mut self, name: &str, address: Ipv4Addr, published: Vec<Published>) {
        let new = Attached { address, published };
        if self.instances.get(name) != Some(&new) {
            self.instances.insert(name.to_owned(), new);
            self.number += 1;
        }
    }

    fn release(&mut self, name: &str) -> Option<Attached> {
        self.pool.release(name);
        let was = self.instances.remove(name);
        self.number += u64::from(was.is_some());
        was
    }
}
