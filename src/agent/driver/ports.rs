//! Which instance has which of the host's ports. There is one owner, so that no two instances get one.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};

use anyhow::{Result, bail};

use crate::agent::reconcile::Name;
use crate::job::{Port, Protocol};

/// Ports that are chosen: below those that the kernel gives to connections (ip(7), ip_local_port_range).
const CHOSEN: std::ops::RangeInclusive<u16> = 20_000..=32_767;

/// All ports that instances have.
#[derive(Debug, Default)]
pub struct Ports {
    held: HashMap<Key, Name>,
    /// The same by instances, so that giving back looks at no others.
    of: HashMap<Name, Vec<Key>>,
    /// What is chosen for none, as a job asks for it by its number.
    reserved: BTreeSet<u16>,
    /// Where the search begins, so that a port that was just given back is not taken at once.
    next: u16,
}

/// A port of the host.
pub type Key = (Protocol, u16);

/// Whether a port can be had from the kernel.
pub type Probe<'a> = &'a dyn Fn(Key) -> bool;

/// Asks the kernel. The program that gets the port binds it later: what others do meanwhile it will find.
#[must_use]
pub fn is_free((protocol, port): Key) -> bool {
    match protocol {
        Protocol::Tcp => TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok(),
        Protocol::Udp => UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok(),
    }
}

impl Ports {
    /// Notes what an instance has had, for whatever protocol.
    pub fn claim(&mut self, name: &Name, had: &BTreeMap<String, u16>) {
        let both = |port: &u16| [(Protocol::Tcp, *port), (Protocol::Udp, *port)];
        let ours = had
            .values()
            .flat_map(both)
            .filter(|key| self.is_ours(name, *key));
        let ours = ours.collect();
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
        let mut taken: BTreeMap<String, Key> = BTreeMap::new();
        for (label, port) in wanted {
            if let Some(given) = port.external {
                let key = self.given(name, label, (port.protocol, given), is_free)?;
                if taken.values().any(|other| *other == key) {
                    bail!("PORT_CONFLICT: {label:?} and another port of the job are both {given}");
                }
                taken.insert(label.clone(), key);
            }
        }
        for (label, port) in wanted.iter().filter(|(_, port)| port.external.is_none()) {
            let kept = had.get(label).map(|kept| (port.protocol, *kept));
            let is_used = |key: &Key| taken.values().any(|other| other == key);
            let kept =
                kept.filter(|key| !is_used(key) && self.is_ours(name, *key) && is_free(*key));
            let key = match kept {
                Some(key) => key,
                None => self.choose(port.protocol, &taken, is_free)?,
            };
            taken.insert(label.clone(), key);
        }
        self.hold(name, taken.values().copied().collect());
        Ok(taken
            .into_iter()
            .map(|(label, (_, port))| (label, port))
            .collect())
    }

    /// Sets what is chosen for none. Who has such a port already keeps it.
    pub fn reserve(&mut self, reserved: BTreeSet<u16>) {
        self.reserved = reserved;
    }

    /// Gives back what an instance had.
    pub fn release(&mut self, name: &Name) {
        for key in self.of.remove(name).unwrap_or_default() {
            self.held.remove(&key);
        }
    }

    fn hold(&mut self, name: &Name, keys: Vec<Key>) {
        self.release(name);
        self.held
            .extend(keys.iter().map(|key| (*key, name.clone())));
        if !keys.is_empty() {
            self.of.insert(name.clone(), keys);
        }
    }

    fn is_ours(&self, name: &Name, key: Key) -> bool {
        self.held.get(&key).is_none_or(|holder| holder == name)
    }

    fn given(&self, name: &Name, label: &str, key: Key, is_free: Probe<'_>) -> Result<Key> {
        let port = key.1;
        if let Some(holder) = self.held.get(&key).filter(|holder| *holder != name) {
            bail!("PORT_CONFLICT: {label:?} is to be {port}, which instance {holder} has");
        }
        if !is_free(key) {
            bail!(
                "PORT_CONFLICT: {label:?} is to be {port}, which a program of the host has: ss -lnp shows it"
            );
        }
        Ok(key)
    }

    /// One that nobody has, whatever is spoken there.
    fn choose(
        &mut self,
        protocol: Protocol,
        taken: &BTreeMap<String, Key>,
        is_free: Probe<'_>,
    ) -> Result<Key> {
        let (first, count) = (*CHOSEN.start(), CHOSEN.end() - CHOSEN.start() + 1);
        for offset in 0..count {
            let port = first + (self.next + offset) % count;
            let is_held = [Protocol::Tcp, Protocol::Udp]
                .iter()
                .any(|one| self.held.contains_key(&(*one, port)));
            let is_held = is_held || self.reserved.contains(&port);
            let is_used = is_held || taken.values().any(|(_, other)| *other == port);
            if !is_used && is_free((protocol, port)) {
                self.next = (port - first + 1) % count;
                return Ok((protocol, port));
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
        let port = |external| Port {
            external,
            ..Port::default()
        };
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
        let other = ports
            .take(&a, &x, &had, &|(_, port)| port != 25_000)
            .unwrap();
        assert_ne!(other, had);
    }

    #[test]
    fn what_a_job_asks_for_by_its_number_is_chosen_for_no_other_one() {
        let mut ports = Ports::default();
        let (a, b, c): (Name, Name, Name) = ("a".into(), "b".into(), "c".into());
        let (any, none) = (wanted(&[("x", None)]), BTreeMap::new());
        let first = ports.take(&a, &any, &none, &|_| true).unwrap();
        assert_eq!(first["x"], 20_000);
        ports.reserve(BTreeSet::from([20_000, 20_001, 20_003]));
        assert_eq!(ports.take(&b, &any, &none, &|_| true).unwrap()["x"], 20_002);
        assert_eq!(ports.take(&c, &any, &none, &|_| true).unwrap()["x"], 20_004);
        // Who has one already keeps it; who asks for it by its number has it.
        assert_eq!(ports.take(&a, &any, &first, &|_| true).unwrap(), first);
        let given = wanted(&[("http", Some(20_001))]);
        let d: Name = "d".into();
        assert_eq!(
            ports.take(&d, &given, &none, &|_| true).unwrap()["http"],
            20_001
        );
    }

    #[test]
    fn a_port_that_a_program_listens_at_is_not_free() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(!is_free((
            Protocol::Tcp,
            listener.local_addr().unwrap().port()
        )));
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
