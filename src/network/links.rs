//! The bridge, and an instance's pair of interfaces: one is a port of the bridge, the other is `eth0` inside.
//!
//! Names and hardware addresses follow from an instance's address, so that what is there can be told from what is not.

use std::collections::HashSet;
use std::fs;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result, bail};
use sha2::{Digest as _, Sha256};

use super::namespace::inside;
use super::{Options, Subnet};
use crate::sys::netlink::links::{Link, Mac, Peer};
use crate::sys::netlink::{Address, Netlink};
use crate::sys::{Errno, SysResult};

/// The interface inside.
const INSIDE: &str = "eth0";

/// What the names of ports of our bridge begin with.
const PORT: &str = "ph";

/// First bytes of hardware addresses that are given locally (IEEE 802, section 8.4), inside and at the bridge.
const MAC_INSIDE: [u8; 2] = [0x02, 0x50];
const MAC_PORT: [u8; 2] = [0x02, 0x51];

/// The bridge and its ports.
#[derive(Debug)]
pub struct Links {
    bridge: String,
    subnet: Subnet,
    /// Whose it is: made of the state directory's name, and given at its birth, so that no crash leaves one that is
    /// nobody's.
    mac: Mac,
}

impl Links {
    /// Those of the agent with this state directory.
    pub fn new(options: &Options, state: &Path) -> Links {
        let sum = Sha256::digest(state.as_os_str().as_encoded_bytes());
        Links {
            bridge: options.bridge.clone(),
            subnet: options.subnet,
            mac: [0x02, sum[0], sum[1], sum[2], sum[3], sum[4]],
        }
    }

    /// Whether the bridge is there and ours.
    ///
    /// # Errors
    ///
    /// What the kernel answered.
    pub fn is_ours(&self) -> Result<bool> {
        let there = Netlink::open()?.link(&self.bridge)?;
        Ok(there.is_some_and(|there| there.mac == Some(self.mac)))
    }

    /// Whether the bridge can be made, or is there.
    ///
    /// # Errors
    ///
    /// An interface of somebody else has its name; or the host has a way to its network already.
    pub fn check(&self) -> Result<()> {
        let netlink = Netlink::open()?;
        let (bridge, subnet) = (&self.bridge, self.subnet);
        let there = netlink.link(bridge)?;
        if there
            .as_ref()
            .is_some_and(|there| there.mac != Some(self.mac))
        {
            bail!(
                "interface {bridge} belongs to another program, or to a parheliond with another --state: \
                 give parheliond another --bridge and --subnet, or remove it by ip link delete {bridge}"
            );
        }
        let own = there.map(|there| there.index);
        let others = netlink.routes()?.into_iter();
        let mut others =
            others.filter(|route| route.prefix > 0 && (own.is_none() || route.interface != own));
        let clash = others.find(|route| subnet.overlaps(route.destination, route.prefix));
        if let Some(route) = clash {
            bail!(
                "the network {subnet} of the bridge {bridge} is in use: this host has a route to {}/{}; give \
                 parheliond another --subnet",
                route.destination,
                route.prefix
            );
        }
        Ok(())
    }

    /// Makes the bridge, or finds it, as it should be.
    ///
    /// # Errors
    ///
    /// What the kernel refuses.
    pub fn bridge(&self) -> Result<u32> {
        let netlink = Netlink::open()?;
        let bridge = &self.bridge;
        if netlink.link(bridge)?.is_none() {
            netlink.add_bridge(bridge, self.mac)?;
        }
        let index = netlink.interface(bridge)?;
        let index = index.with_context(|| format!("bridge {bridge} has just gone"))?;
        // Instances are not to tell the host of routers (RFC 4861); and nobody publishes anything by IPv6.
        setting(&format!("ipv6/conf/{bridge}/disable_ipv6"), "1", true)?;
        let address = Address::v4(self.subnet.gateway(), self.subnet.prefix());
        unless_there(netlink.add_address(index, &address))?;
        // The host itself asks at 127.0.0.1.
        setting(&format!("ipv4/conf/{bridge}/route_localnet"), "1", false)?;
        setting("ipv4/ip_forward", "1", false)?;
        netlink.set_up(index)?;
        Ok(index)
    }

    /// Removes the bridge, if it is ours.
    ///
    /// # Errors
    ///
    /// What the kernel refuses.
    pub fn remove(&self) -> Result<()> {
        let netlink = Netlink::open()?;
        match netlink.link(&self.bridge)? {
            Some(there) if there.mac == Some(self.mac) => Ok(netlink.remove_link(there.index)?),
            Some(_) | None => Ok(()),
        }
    }

    /// Has a namespace reach the bridge: whether something was missing.
    ///
    /// # Errors
    ///
    /// What the kernel refuses.
    pub fn connect(&self, namespace: &OwnedFd, address: Ipv4Addr) -> Result<bool> {
        let netlink = Netlink::open()?;
        let bridge = netlink.interface(&self.bridge)?;
        let bridge = bridge.with_context(|| format!("bridge {} has just gone", self.bridge))?;
        let (name, mac) = (port(address), mac(MAC_INSIDE, address));
        let has_inside = inside(namespace, || {
            let netlink = Netlink::open()?;
            let there = netlink.link(INSIDE)?;
            let other = there.as_ref().filter(|there| there.mac != Some(mac));
            if let Some(other) = other {
                netlink.remove_link(other.index)?;
            }
            Ok(there.is_some() && other.is_none())
        })?;
        let there = netlink.link(&name)?;
        let is_whole = has_inside && there.is_some();
        if !is_whole {
            if let Some(there) = &there {
                netlink.remove_link(there.index)?;
            }
            let peer = Peer {
                namespace: namespace.as_fd(),
                name: INSIDE,
                mac,
            };
            add_pair(&netlink, &name, self::mac(MAC_PORT, address), bridge, peer)?;
        }
        let index = netlink.interface(&name)?;
        let index = index.with_context(|| format!("interface {name} has just gone"))?;
        let was_port = is_whole && there.is_some_and(|there| there.bridge == Some(bridge));
        netlink.set_port(index, bridge)?;
        netlink.set_up(index)?;
        inside(namespace, || self.set_inside(address))?;
        Ok(!was_port)
    }

    /// Gives the interface inside what it needs.
    fn set_inside(&self, address: Ipv4Addr) -> Result<()> {
        let netlink = Netlink::open()?;
        for name in ["lo", INSIDE] {
            let index = netlink.interface(name)?;
            let index = index.with_context(|| format!("interface {name} has just gone"))?;
            if name == INSIDE {
                let address = Address::v4(address, self.subnet.prefix());
                unless_there(netlink.add_address(index, &address))?;
            }
            netlink.set_up(index)?;
        }
        Ok(netlink.set_default_route(self.subnet.gateway())?)
    }

    /// Whether the port of an instance is there: its other end is in some namespace.
    ///
    /// # Errors
    ///
    /// What the kernel answered.
    pub fn is_there(&self, address: Ipv4Addr) -> Result<bool> {
        Ok(Netlink::open()?.link(&port(address))?.is_some())
    }

    /// Removes an instance's interfaces, if they are there and ours.
    ///
    /// # Errors
    ///
    /// What the kernel refuses.
    pub fn disconnect(&self, address: Ipv4Addr) -> Result<()> {
        let netlink = Netlink::open()?;
        if let Some(there) = netlink.link(&port(address))?
            && there.mac == Some(mac(MAC_PORT, address))
        {
            gone(netlink.remove_link(there.index))?;
        }
        Ok(())
    }

    /// Removes ports of our bridge that belong to none of these addresses; their names.
    ///
    /// # Errors
    ///
    /// What the kernel refuses.
    pub fn sweep(&self, addresses: &HashSet<Ipv4Addr>) -> Result<Vec<String>> {
        let netlink = Netlink::open()?;
        let own = netlink.link(&self.bridge)?;
        let Some(own) = own.filter(|own| own.mac == Some(self.mac)) else {
            return Ok(Vec::new());
        };
        let used: HashSet<String> = addresses.iter().map(|address| port(*address)).collect();
        let is_left = |link: &Link| {
            let ours = link.bridge == Some(own.index) && is_port(link);
            ours && !used.contains(&link.name)
        };
        let left: Vec<Link> = netlink.links()?.into_iter().filter(is_left).collect();
        for link in &left {
            gone(netlink.remove_link(link.index))?;
        }
        Ok(left.into_iter().map(|link| link.name).collect())
    }
}

/// Whether an interface looks as those that are made here.
fn is_port(link: &Link) -> bool {
    let number = link.name.strip_prefix(PORT);
    let address = number.and_then(|number| u32::from_str_radix(number, 16).ok());
    address.is_some_and(|address| link.mac == Some(mac(MAC_PORT, address.into())))
}

/// The name of the bridge's port for an instance.
fn port(address: Ipv4Addr) -> String {
    format!("{PORT}{:08x}", u32::from(address))
}

fn mac(first: [u8; 2], address: Ipv4Addr) -> Mac {
    let [a, b, c, d] = address.octets();
    [first[0], first[1], a, b, c, d]
}

fn add_pair(netlink: &Netlink, name: &str, mac: Mac, bridge: u32, peer: Peer<'_>) -> Result<()> {
    match netlink.add_pair(name, mac, bridge, peer) {
        Err(error) if error.errno.raw_os_error() == libc::EXFULL => {
            bail!(
                "the bridge is full: Linux lets one have 1,023 ports, so no further instance fits"
            )
        }
        made => Ok(made?),
    }
}

/// What is there already is as well.
fn unless_there(done: SysResult<()>) -> SysResult<()> {
    done.or_else(|error| match error.errno {
        Errno::EXIST => Ok(()),
        _ => Err(error),
    })
}

/// What has gone meanwhile is as well.
fn gone(done: SysResult<()>) -> SysResult<()> {
    done.or_else(|error| match error.errno {
        Errno::NODEV => Ok(()),
        _ => Err(error),
    })
}

/// Has a setting of the network be this (sysctl(8)).
fn setting(name: &str, value: &str, may_lack: bool) -> Result<()> {
    let path = Path::new("/proc/sys/net").join(name);
    let there = fs::read_to_string(&path);
    if may_lack && there.is_err() || there.is_ok_and(|there| there.trim() == value) {
        return Ok(());
    }
    fs::write(&path, value).with_context(|| format!("write {value:?} to {path:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_hardware_addresses_follow_from_the_address() {
        let address = Ipv4Addr::new(10, 213, 0, 2);
        assert_eq!(port(address), "ph0ad50002");
        let mut link = Link {
            index: 7,
            name: port(address),
            mac: Some(mac(MAC_PORT, address)),
            bridge: None,
        };
        assert!(is_port(&link));
        link.mac = Some(mac(MAC_INSIDE, address));
        assert!(!is_port(&link));
    }

    #[test]
    fn each_agent_has_a_bridge_of_its_own() {
        let of = |state: &str| Links::new(&Options::default(), Path::new(state)).mac;
        assert_eq!(of("/var/lib/a"), of("/var/lib/a"));
        assert_ne!(of("/var/lib/a"), of("/var/lib/b"));
        assert_eq!(of("/var/lib/a")[0] & 3, 2, "local, and of one interface");
    }
}
