//! What makes a network of one's own: a bridge, pairs of veth(4), routes (rtnetlink(7)).

use std::net::Ipv4Addr;

use rustix::fd::{AsRawFd as _, BorrowedFd};

use super::{Address, INTERFACE_HEADER, Message, Netlink, SysResult, bytes, next_attribute};

/// linux/veth.h: the other end.
const VETH_INFO_PEER: u16 = 1;

/// linux/if_link.h: whether a bridge's port sends back what came from it.
const IFLA_BRPORT_MODE: u16 = 4;

/// linux/rtnetlink.h: the length of a `struct rtmsg`, and values in it.
const ROUTE_HEADER: usize = 12;
const RTPROT_STATIC: u8 = 4;

/// A hardware address.
pub type Mac = [u8; 6];

/// An interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its number.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its hardware address, where it has one as Ethernet does.
    pub mac: Option<Mac>,
    /// The bridge that it is a port of, by its number.
    pub bridge: Option<u32>,
}

/// The other end of a pair, in a namespace of its own.
#[derive(Debug, Clone, Copy)]
pub struct Peer<'a> {
    /// The namespace.
    pub namespace: BorrowedFd<'a>,
    /// Its name there.
    pub name: &'a str,
    /// Its hardware address.
    pub mac: Mac,
}

/// Where packets for some addresses go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The first of the addresses.
    pub destination: Ipv4Addr,
    /// How many bits of it count.
    pub prefix: u8,
    /// The interface, by its number.
    pub interface: Option<u32>,
}

impl Address {
    /// An address that was given for good, in a network of that many bits.
    #[must_use]
    pub fn v4(address: Ipv4Addr, prefix: u8) -> Address {
        let octets = address.octets().to_vec();
        Address {
            family: libc::AF_INET as u8,
            prefix,
            scope: libc::RT_SCOPE_UNIVERSE,
            flags: libc::IFA_F_PERMANENT,
            attributes: vec![
                (libc::IFA_LOCAL, octets.clone()),
                (libc::IFA_ADDRESS, octets),
            ],
        }
    }
}

impl Netlink {
    /// The interface with this name; None when there is none.
    ///
    /// # Errors
    ///
    /// What the kernel answered.
    pub fn link(&self, name: &str) -> SysResult<Option<Link>> {
        self.named(name, link)
    }

    /// All interfaces.
    ///
    /// # Errors
    ///
    /// What the kernel answered.
    pub fn links(&self) -> SysResult<Vec<Link>> {
        let header = &[0; INTERFACE_HEADER];
        self.list(libc::RTM_GETLINK, header, "RTM_GETLINK", |kind, body| {
            (kind == libc::RTM_NEWLINK).then(|| link(body)).flatten()
        })
    }

    /// The routes of IPv4 to other hosts.
    ///
    /// # Errors
    ///
    /// What the kernel answered.
    pub fn routes(&self) -> SysResult<Vec<Route>> {
        let mut header = [0; ROUTE_HEADER];
        header[0] = libc::AF_INET as u8;
        self.list(libc::RTM_GETROUTE, &header, "RTM_GETROUTE", |kind, body| {
            (kind == libc::RTM_NEWROUTE).then(|| route(body)).flatten()
        })
    }

    /// Makes a bridge.
    ///
    /// # Errors
    ///
    /// `EEXIST` when an interface has the name, `EOPNOTSUPP` for a kernel without bridges.
    pub fn add_bridge(&self, name: &str, mac: Mac) -> SysResult<()> {
        let mut message = Message::new(libc::RTM_NEWLINK, NEW, &[0; INTERFACE_HEADER]);
        message.name(name);
        message.attribute(libc::IFLA_ADDRESS, &mac);
        message.nested(libc::IFLA_LINKINFO, |info| {
            info.attribute(libc::IFLA_INFO_KIND, b"bridge");
        });
        self.ask(
            message,
            || format!("RTM_NEWLINK({name:?}, bridge)"),
            |_, _| {},
        )
    }

    /// Makes a pair of interfaces: one here, set up and a port of `bridge`, and its peer.
    ///
    /// # Errors
    ///
    /// `EEXIST` when one of the names is taken; `EXFULL` when the bridge has 1,023 ports.
    pub fn add_pair(&self, name: &str, mac: Mac, bridge: u32, peer: Peer<'_>) -> SysResult<()> {
        let up = (libc::IFF_UP as u32).to_ne_bytes();
        let mut header = [0; INTERFACE_HEADER];
        header[8..12].copy_from_slice(&up);
        header[12..].copy_from_slice(&up);
        let mut message = Message::new(libc::RTM_NEWLINK, NEW, &header);
        message.name(name);
        message.attribute(libc::IFLA_ADDRESS, &mac);
        message.attribute(libc::IFLA_MASTER, &bridge.to_ne_bytes());
        message.nested(libc::IFLA_LINKINFO, |info| {
            info.attribute(libc::IFLA_INFO_KIND, b"veth");
            info.nested(libc::IFLA_INFO_DATA, |data| {
                data.nested(VETH_INFO_PEER, |other| {
                    other.0.extend([0; INTERFACE_HEADER]);
                    other.name(peer.name);
                    other.attribute(libc::IFLA_ADDRESS, &peer.mac);
                    let fd = peer.namespace.as_raw_fd() as u32;
                    other.attribute(libc::IFLA_NET_NS_FD, &fd.to_ne_bytes());
                });
            });
        });
        let text = || format!("RTM_NEWLINK({name:?}, veth, peer {:?})", peer.name);
        self.ask(message, text, |_, _| {})
    }

    /// Makes the interface `index` a port of `bridge` that sends back what came from it: an instance may reach
    /// itself by a port of the host's.
    ///
    /// # Errors
    ///
    /// What the kernel answered.
    pub fn set_port(&self, index: u32, bridge: u32) -> SysResult<()> {
        let mut message = Message::about_interface(index, 0);
        message.attribute(libc::IFLA_MASTER, &bridge.to_ne_bytes());
        let text = || format!("RTM_NEWLINK({index}, IFLA_MASTER {bridge})");
        self.ask(message, text, |_, _| {})?;
        let mut message = Message::about_interface(index, 0);
        message.nested(libc::IFLA_LINKINFO, |info| {
            info.attribute(libc::IFLA_INFO_SLAVE_KIND, b"bridge");
            info.nested(libc::IFLA_INFO_SLAVE_DATA, |data| {
                data.attribute(IFLA_BRPORT_MODE, &[1]);
            });
        });
        let text = || format!("RTM_NEWLINK({index}, IFLA_BRPORT_MODE 1)");
        self.ask(message, text, |_, _| {})
    }

    /// Removes the interface `index`, and its peer with it.
    ///
    /// # Errors
    ///
    /// `ENODEV` when it is not there, `EOPNOTSUPP` for one that is hardware.
    pub fn remove_link(&self, index: u32) -> SysResult<()> {
        let mut header = [0; INTERFACE_HEADER];
        header[4..8].copy_from_slice(&index.to_ne_bytes());
        let message = Message::new(libc::RTM_DELLINK, 0, &header);
        self.ask(message, || format!("RTM_DELLINK({index})"), |_, _| {})
    }

    /// Sends everything that has no route to `gateway`.
    ///
    /// # Errors
    ///
    /// `ENETUNREACH` when no interface is in the gateway's network.
    pub fn set_default_route(&self, gateway: Ipv4Addr) -> SysResult<()> {
        let mut header = [0; ROUTE_HEADER];
        header[0] = libc::AF_INET as u8;
        header[4] = libc::RT_TABLE_MAIN;
        header[5] = RTPROT_STATIC;
        header[6] = libc::RT_SCOPE_UNIVERSE;
        header[7] = libc::RTN_UNICAST;
        let flags = (libc::NLM_F_CREATE | libc::NLM_F_REPLACE) as u16;
        let mut message = Message::new(libc::RTM_NEWROUTE, flags, &header);
        message.attribute(libc::RTA_GATEWAY, &gateway.octets());
        let text = || format!("RTM_NEWROUTE(default, {gateway})");
        self.ask(message, text, |_, _| {})
    }
}

const NEW: u16 = (libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16;

impl Message {
    /// An attribute that has attributes.
    pub(super) fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Message)) {
        let start = self.0.len();
        self.0.extend([0; 2]);
        self.0.extend(kind.to_ne_bytes());
        fill(self);
        let length = (self.0.len() - start) as u16;
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    }
}

/// The interface that a message is about.
fn link(body: &[u8]) -> Option<Link> {
    let index = u32::from_ne_bytes(bytes(body, 4)?);
    let mut found = Link {
        index,
        name: String::new(),
        mac: None,
        bridge: None,
    };
    let mut rest = body.get(INTERFACE_HEADER..)?;
    while let Some((kind, value)) = next_attribute(&mut rest) {
        match kind {
            libc::IFLA_IFNAME => {
                let name = value.strip_suffix(&[0]).unwrap_or(value);
                found.name = String::from_utf8_lossy(name).into_owned();
            }
            libc::IFLA_ADDRESS => found.mac = value.try_into().ok(),
            libc::IFLA_MASTER => found.bridge = bytes(value, 0).map(u32::from_ne_bytes),
            _ => {}
        }
    }
    Some(found)
}

/// The route that a message is about, if it leads to other hosts.
fn route(body: &[u8]) -> Option<Route> {
    let [_, prefix, _, _, table, _, _, kind] = bytes(body, 0)?;
    if kind != libc::RTN_UNICAST || table == libc::RT_TABLE_LOCAL {
        return None;
    }
    let mut found = Route {
        destination: Ipv4Addr::UNSPECIFIED,
        prefix,
        interface: None,
    };
    let mut rest = body.get(ROUTE_HEADER..)?;
    while let Some((kind, value)) = next_attribute(&mut rest) {
        match kind {
            libc::RTA_DST => found.destination = Ipv4Addr::from(bytes::<4>(value, 0)?),
            libc::RTA_OIF => found.interface = bytes(value, 0).map(u32::from_ne_bytes),
            _ => {}
        }
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface_is_among_all_and_alone_by_its_name() {
        let netlink = Netlink::open().unwrap();
        let lo = netlink.link("lo").unwrap().unwrap();
        assert_eq!((lo.index, lo.bridge), (1, None));
        assert!(netlink.links().unwrap().contains(&lo));
        assert_eq!(netlink.link("no-such-thing").unwrap(), None);
    }

    #[test]
    fn what_is_cut_is_read_as_far_as_it_is_there() {
        let mut message = Message::about_interface(3, 0);
        message.name("veth7");
        message.attribute(libc::IFLA_ADDRESS, &[2, 0, 0, 0, 0, 1]);
        message.attribute(libc::IFLA_MASTER, &9_u32.to_ne_bytes());
        let body = message.finish(0).split_off(super::super::HEADER);
        let whole = link(&body).unwrap();
        assert_eq!((whole.index, whole.bridge), (3, Some(9)));
        assert_eq!(
            (whole.name.as_str(), whole.mac),
            ("veth7", Some([2, 0, 0, 0, 0, 1]))
        );
        for cut in 0..body.len() {
            assert!(link(&body[..cut]).is_none_or(|less| less.bridge.is_none()));
        }
    }

    #[test]
    fn a_route_is_read_and_one_to_this_host_is_none() {
        let mut message = Message::new(
            libc::RTM_NEWROUTE,
            0,
            &[2, 8, 0, 0, libc::RT_TABLE_MAIN, 4, 0, 1, 0, 0, 0, 0],
        );
        message.attribute(libc::RTA_DST, &[10, 0, 0, 0]);
        message.attribute(libc::RTA_OIF, &7_u32.to_ne_bytes());
        let mut body = message.finish(0).split_off(super::super::HEADER);
        let expected = Route {
            destination: Ipv4Addr::new(10, 0, 0, 0),
            prefix: 8,
            interface: Some(7),
        };
        assert_eq!(route(&body), Some(expected));
        body[4] = libc::RT_TABLE_LOCAL;
        assert_eq!(route(&body), None);
    }

    #[test]
    fn the_address_that_is_made_is_that_which_the_kernel_tells() {
        let made = Address::v4(Ipv4Addr::new(10, 213, 0, 2), 20);
        assert!(made.is_permanent_and_global());
        assert_eq!(made.attributes[0], (libc::IFA_LOCAL, vec![10, 213, 0, 2]));
    }
}
