//! Which instance has which of the host's ports. There is one owner, so that no two instances get one.

use std::collections::{BTreeMap, HashMap};
use std::net::{Ipv4Addr, TcpListener};

use anyhow::{Result, bail};

use crate::agent::reconcile::Name;
use crate::job::Port;

/// Ports that are chosen: below those that the kernel gives to connections (ip(7), ip_local_port_range).
const CHOSEN: std::ops::RangeInclusive<u16> = 20_000..=32_767;

/// All ports that instances have.
#[derive(Debug, Default)]
pub struct Ports {
    held: HashMap<u16, Name>,
    /// The same by instances, so that giving back looks at no others.
    of: HashMap<Name, Vec<u16>>,
    /// Where the search begins, so that a port that was just given back is not taken at once.
    next: u16,
}

/// Whether a port can be had from the kernel.
pub type Probe<'a> = &'a dyn Fn(u16) -> bool;

/// Asks the kernel. The program that gets the port binds it later: what others do meanwhile it will find.
#[must_use]
pub fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok()
}

impl Ports {
    /// Notes what an instance has had.
    pub fn claim(&mut self, name: &Name, had: &BTreeMap<String, u16>) {
        let free = had.values().filter(|port| self.is_ours(name, **port));
        let ours: Vec<u16> = free.copied().collect();
        self.hold(name, ours);
    }

    /// The ports of an instance, by the names in its job: those that are given, those that it `had`, and free
    /// ones. All of them, or none.
    ///
    /// # Errors
    ///
    /// `PORT_CONFLICT`: one that is given belongs to another instance, or to a program of the host; or none is
    /// free.
    pub fn take(
        &mut self,
        name: &Name,
        wanted: &BTreeMap<String, Port>,
        had: &BTreeMap<String, u16>,
        is_free: Probe<'_>,
    ) -> Result<BTreeMap<String, u16>> {
        let mut taken = BTreeMap::new();
        for (label, port) in wanted {
            let number = match port.external {
                Some(given) => self.given(name, label, given, is_free)?,
                None => {
                    let kept = had.get(label).copied();
                    let kept = kept.filter(|port| self.is_ours(name, *port) && is_free(*port));
                    let used = |port: &u16| taken.values().any(|other| other == port);
                    match kept.filter(|port| !used(port)) {
                        Some(port) => port,
                        None => self.choose(&taken, is_free)?,
                    }
                }
            };
            if taken.values().any(|other| *other == number) {
                bail!("PORT_CONFLICT: {label:?} and another port of the job are both {number}");
            }
            taken.insert(label.clone(), number);
        }
        self.hold(name, taken.values().copied().collect());
        Ok(taken)
    }

    /// Gives back what an instance had.
    pub fn release(&mut self, name: &Name) {
        for port in self.of.remove(name).unwrap_or_default() {
            self.held.remove(&port);
        }
    }

    fn hold(&mut self, name: &Name, ports: Vec<u16>) {
        self.release(name);
        self.held
            .extend(ports.iter().map(|port| (*port, name.clone())));
        if !ports.is_empty() {
            self.of.insert(name.clone(), ports);
        }
    }

    fn is_ours(&self, name: &Name, port: u16) -> bool {
        self.held.get(&port).is_none_or(|holder| holder == name)
    }

    fn given(&self, name: &Name, label: &str, port: u16, is_free: Probe<'_>) -> Result<u16> {
        if let Some(holder) = self.held.get(&port).filter(|holder| *holder != name) {
            bail!("PORT_CONFLICT: {label:?} is to be {port}, which instance {holder} has");
        }
        if !is_free(port) {
            bail!(
                "PORT_CONFLICT: {label:?} is to be {port}, which a program of the host has: ss -lptn shows it"
            );
        }
        Ok(port)
    }

    fn choose(&mut self, taken: &BTreeMap<String, u16>, is_free: Probe<'_>) -> Result<u16> {
        let (first, count) = (*CHOSEN.start(), CHOSEN.end() - CHOSEN.start() + 1);
        for offset in 0..count {
            let port = first + (self.next + offset) % count;
            let used = self.held.contains_key(&port) || taken.values().any(|other| *other == port);
            if !used && is_free(port) {
                self.next = (port - first + 1) % count;
                return Ok(port);
            }
        }
        bail!("PORT_CONFLICT: of the ports {CHOSEN:?} none is free")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn wanted(ports: &[(&str, Option<u16>)]) -> BTreeMap<String, Port> {
        let port =
            |external| serde_json::from_value(serde_json::json!({ "external": external })).unwrap();
        ports
            .iter()
            .map(|(label, external)| ((*label).to_owned(), port(*external)))
            .collect()
    }

    #[test]
    fn a_port_that_is_given_is_one_instances_alone() {
        let mut ports = Ports::default();
        let (a, b): (Name, Name) = ("a".into(), "b".into());
        let http = wanted(&[("http", Some(80))]);
        let none = BTreeMap::new();
        ports.take(&a, &http, &none, &|_| true).unwrap();
        let told = ports
            .take(&b, &http, &none, &|_| true)
            .unwrap_err()
            .to_string();
        assert_eq!(
            told,
            "PORT_CONFLICT: \"http\" is to be 80, which instance a has"
        );
        ports.take(&a, &http, &none, &|_| true).unwrap();
        ports.release(&a);
        ports.take(&b, &http, &none, &|_| true).unwrap();
        let told = ports
            .take(&b, &http, &none, &|_| false)
            .unwrap_err()
            .to_string();
        assert!(told.contains("a program of the host"), "{told}");
    }

    #[test]
    fn what_an_instance_had_it_keeps_unless_a_program_has_taken_it() {
        let mut ports = Ports::default();
        let a: Name = "a".into();
        let had = BTreeMap::from([("x".to_owned(), 25_000)]);
        ports.claim(&a, &had);
        let x = wanted(&[("x", None)]);
        assert_eq!(ports.take(&a, &x, &had, &|_| true).unwrap(), had);
        let other = ports.take(&a, &x, &had, &|port| port != 25_000).unwrap();
        assert_ne!(other, had);
    }

    #[test]
    fn a_port_that_a_program_listens_at_is_not_free() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(!is_free(listener.local_addr().unwrap().port()));
    }

    proptest! {
        #[test]
        fn no_two_instances_ever_have_one_port(
            steps in proptest::collection::vec((0_u8..6, 0_usize..4, any::<bool>()), 0..80)
        ) {
            let mut ports = Ports::default();
            let mut have: BTreeMap<u8, BTreeMap<String, u16>> = BTreeMap::new();
            let labels = [("a", None), ("b", None), ("c", Some(20_001)), ("d", Some(20_003))];
            for (instance, count, releases) in steps {
                let name: Name = instance.to_string().into();
                if releases {
                    ports.release(&name);
                    have.remove(&instance);
                } else {
                    let had = have.get(&instance).cloned().unwrap_or_default();
                    if let Ok(taken) = ports.take(&name, &wanted(&labels[..count]), &had, &|_| true) {
                        have.insert(instance, taken);
                    }
                }
                let mut all: Vec<u16> = have.values().flat_map(|ports| ports.values().copied()).collect();
                let count = all.len();
                all.sort_unstable();
                all.dedup();
                prop_assert_eq!(all.len(), count);
                prop_assert_eq!(ports.held.len(), count);
            }
        }
    }
}
