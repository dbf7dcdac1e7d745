//! Which instance has which address. There is one owner, so that no two instances get one.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use anyhow::{Result, bail};

use super::Subnet;

/// The addresses that are given.
#[derive(Debug, Default)]
pub struct Pool {
    of: HashMap<String, Ipv4Addr>,
    held: HashMap<Ipv4Addr, String>,
    /// Where the search begins, so that an address that was just given back is not taken at once: others may still
    /// send to it.
    next: u32,
}

impl Pool {
    /// Notes what an instance has had.
    pub fn claim(&mut self, name: &str, address: Ipv4Addr) {
        if self.held.contains_key(&address) {
            return; // it gets another one when it is made
        }
        self.release(name);
        self.of.insert(name.to_owned(), address);
        self.held.insert(address, name.to_owned());
    }

    /// An instance's address: the one that it has or had, or a free one.
    ///
    /// # Errors
    ///
    /// None is free.
    pub fn take(&mut self, name: &str, had: Option<Ipv4Addr>, subnet: &Subnet) -> Result<Ipv4Addr> {
        let kept = self.of.get(name).copied().or(had);
        let is_ours = |address: &Ipv4Addr| self.held.get(address).is_none_or(|one| one == name);
        let kept = kept.filter(|address| subnet.has(*address) && is_ours(address));
        let size = subnet.size();
        let mut all = (0..size).map(|offset| (self.next + offset) % size);
        let free = |number: &u32| !self.held.contains_key(&subnet.address(*number));
        let address = match kept {
            Some(address) => address,
            None => match all.find(free) {
                Some(number) => {
                    self.next = (number + 1) % size;
                    subnet.address(number)
                }
                None => bail!(
                    "all {size} addresses of {subnet} are taken: give parheliond a larger --subnet"
                ),
            },
        };
        self.release(name);
        self.of.insert(name.to_owned(), address);
        self.held.insert(address, name.to_owned());
        Ok(address)
    }

    /// Gives back what an instance had.
    pub fn release(&mut self, name: &str) {
        if let Some(address) = self.of.remove(name) {
            self.held.remove(&address);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn subnet() -> Subnet {
        "10.0.0.0/28".parse().unwrap()
    }

    #[test]
    fn what_an_instance_had_it_keeps_and_what_was_given_back_is_not_taken_at_once() {
        let (mut pool, subnet) = (Pool::default(), subnet());
        let had = Ipv4Addr::new(10, 0, 0, 9);
        pool.claim("a", had);
        assert_eq!(pool.take("a", Some(had), &subnet).unwrap(), had);
        let b = pool.take("b", Some(had), &subnet).unwrap();
        assert_ne!(b, had);
        pool.release("b");
        assert_ne!(pool.take("c", None, &subnet).unwrap(), b);
        // Of another network, from before.
        let c = pool.take("d", Some(Ipv4Addr::new(10, 1, 0, 9)), &subnet);
        assert!(subnet.has(c.unwrap()));
    }

    #[test]
    fn a_network_that_is_full_says_so() {
        let (mut pool, subnet) = (Pool::default(), subnet());
        for number in 0..13 {
            pool.take(&number.to_string(), None, &subnet).unwrap();
        }
        let told = pool.take("x", None, &subnet).unwrap_err().to_string();
        assert!(told.contains("all 13 addresses of 10.0.0.0/28"), "{told}");
    }

    proptest! {
        #[test]
        fn no_two_instances_ever_have_one_address(
            steps in proptest::collection::vec((0_u8..20, 0_u32..16, any::<bool>()), 0..80)
        ) {
            let (mut pool, subnet) = (Pool::default(), subnet());
            let mut have = BTreeMap::new();
            for (name, had, releases) in steps {
                let label = name.to_string();
                if releases {
                    pool.release(&label);
                    have.remove(&name);
                } else if let Ok(address) = pool.take(&label, Some((0x0a00_0000 + had).into()), &subnet) {
                    prop_assert!(subnet.has(address));
                    have.insert(name, address);
                }
                let mut all: Vec<_> = have.values().collect();
                all.sort_unstable();
                all.dedup();
                prop_assert_eq!(all.len(), have.len());
                prop_assert_eq!(pool.held.len(), have.len());
            }
        }
    }
}
