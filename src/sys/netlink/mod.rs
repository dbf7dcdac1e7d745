//! Network interfaces through rtnetlink(7): find one, move it to another namespace, give it its
//! addresses, set it up; in `links`, make them; in `conntrack`, forget connections.
//!
//! Own code and no crate: ten messages of a stable layout, of which the crates for it know hundreds.
//! All lengths are checked against the bytes that are there.

#[cfg(feature = "supervisor")]
pub mod conntrack;
#[cfg(feature = "supervisor")]
pub mod links;

use std::cell::Cell;

use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::{Call, Errno, SysError, SysResult, process};

/// The longest name of an interface, without the zero byte that the kernel wants at its end.
pub const NAME_LIMIT: usize = libc::IFNAMSIZ - 1;

/// linux/netlink.h and linux/rtnetlink.h.
const HEADER: usize = 16;
const INTERFACE_HEADER: usize = 16;
const ADDRESS_HEADER: usize = 8;

/// The protocol NETLINK_ROUTE is number 0.
const NETLINK_ROUTE: Option<rustix::net::Protocol> = None;

/// linux/if_addr.h: the metric of the route that comes with the address.
const IFA_RT_PRIORITY: u16 = 9;

/// linux/if_addr.h: who made the address (Linux 5.18).
const IFA_PROTO: u16 = 11;

/// The kernel's own largest part of a dump is 32 KiB.
const BUFFER: usize = 64 * 1024;

/// How often a list is read again because it changed meanwhile.
const TRIES: usize = 16;

/// Flags of an address that say how it is used; the others say what became of it.
const KEPT_FLAGS: u32 = libc::IFA_F_NODAD
    | libc::IFA_F_HOMEADDRESS
    | libc::IFA_F_MANAGETEMPADDR
    | libc::IFA_F_NOPREFIXROUTE
    | libc::IFA_F_MCAUTOJOIN;

/// Attributes of an address that are its own; those left out name the interface, or change with time.
const KEPT_ATTRIBUTES: [u16; 5] = [
    libc::IFA_ADDRESS,
    libc::IFA_LOCAL,
    libc::IFA_BROADCAST,
    IFA_RT_PRIORITY,
    IFA_PROTO,
];

/// An address of an interface, as it is added to another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    family: u8,
    prefix: u8,
    scope: u8,
    flags: u32,
    attributes: Vec<(u16, Vec<u8>)>,
}

impl Address {
    /// True for one that was given for good and is valid everywhere (RFC 3549, section 2.3.3.2).
    #[must_use]
    pub fn is_permanent_and_global(&self) -> bool {
        self.flags & libc::IFA_F_PERMANENT != 0 && self.scope == libc::RT_SCOPE_UNIVERSE
    }
}

/// A conversation with the kernel about one network namespace.
#[derive(Debug)]
pub struct Netlink {
    socket: OwnedFd,
    sequence: Cell<u32>,
}

impl Netlink {
    /// About this process' own namespace.
    ///
    /// # Errors
    ///
    /// `EMFILE` or `ENFILE` when descriptors are out.
    pub fn open() -> SysResult<Netlink> {
        Netlink::open_for(NETLINK_ROUTE, "NETLINK_ROUTE")
    }

    fn open_for(protocol: Option<rustix::net::Protocol>, name: &str) -> SysResult<Netlink> {
        let (family, flags) = (AddressFamily::NETLINK, SocketFlags::CLOEXEC);
        let socket = rustix::net::socket_with(family, SocketType::RAW, flags, protocol)
            .call(|| format!("socket(AF_NETLINK, {name})"))?;
        Ok(Netlink {
            socket,
            sequence: Cell::new(0),
        })
    }

    /// About `namespace`, which this thread enters and leaves again.
    ///
    /// # Errors
    ///
    /// `EPERM` without CAP_SYS_ADMIN in the namespace's owner.
    pub fn open_in(namespace: BorrowedFd<'_>) -> SysResult<Netlink> {
        const OWN: &str = "/proc/thread-self/ns/net";
        let kind = libc::CLONE_NEWNET as u64;
        let own = rustix::fs::open(OWN, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .call(|| format!("open({OWN:?})"))?;
        process::join_namespace(namespace, kind, "network")?;
        let opened = Netlink::open();
        process::join_namespace(own.as_fd(), kind, "the runtime's own network")?;
        opened
    }

    /// The index of the interface with this name; None when there is none.
    ///
    /// # Errors
    ///
    /// What the kernel answered.
    pub fn interface(&self, name: &str) -> SysResult<Option<u32>> {
        self.named(name, |body| bytes(body, 4).map(u32::from_ne_bytes))
    }

    /// What is read of the interface with this name; None when there is none.
    fn named<T>(&self, name: &str, read: impl Fn(&[u8]) -> Option<T>) -> SysResult<Option<T>> {
        let mut message = Message::new(libc::RTM_GETLINK, 0, &[0; INTERFACE_HEADER]);
        message.name(name);
        let mut found = None;
        let told = self.ask(
            message,
            || format!("RTM_GETLINK({name:?})"),
            |kind, body| {
                if kind == libc::RTM_NEWLINK {
                    found = read(body);
                }
            },
        );
        match told {
            Err(error) if error.errno == Errno::NODEV => Ok(None),
            other => other.map(|()| found),
        }
    }

    /// The addresses of the interface `index`.
    ///
    /// # Errors
    ///
    /// What the kernel answered.
    pub fn addresses(&self, index: u32) -> SysResult<Vec<Address>> {
        let header = &[0; ADDRESS_HEADER];
        self.list(libc::RTM_GETADDR, header, "RTM_GETADDR", |kind, body| {
            let of = bytes(body, 4).map(u32::from_ne_bytes);
            let is_its = kind == libc::RTM_NEWADDR && of == Some(index);
            is_its.then(|| address(body)).flatten()
        })
    }

    /// A whole list, read again when it has changed meanwhile.
    fn list<T>(
        &self,
        kind: u16,
        header: &[u8],
        text: &str,
        read: impl Fn(u16, &[u8]) -> Option<T>,
    ) -> SysResult<Vec<T>> {
        let mut tries = 0..TRIES;
        loop {
            let message = Message::new(kind, libc::NLM_F_DUMP as u16, header);
            let mut found = Vec::new();
            let take = |kind, body: &[u8]| found.extend(read(kind, body));
            match self.ask(message, || text.to_owned(), take) {
                Err(error) if error.errno == Errno::INTR && tries.next().is_some() => {}
                other => return other.map(|()| found),
            }
        }
    }

    /// Moves the interface `index` to `namespace`, where it has the name `name`.
    ///
    /// # Errors
    ///
    /// `EEXIST` when the name is taken there, `EINVAL` for an interface that is not to be moved,
    /// `EPERM` without CAP_NET_ADMIN in both namespaces.
    pub fn move_interface(
        &self,
        index: u32,
        namespace: BorrowedFd<'_>,
        name: &str,
    ) -> SysResult<()> {
        let mut message = Message::about_interface(index, 0);
        message.name(name);
        let fd = namespace.as_raw_fd();
        message.attribute(libc::IFLA_NET_NS_FD, &(fd as u32).to_ne_bytes());
        let text = || format!("RTM_NEWLINK({index}, IFLA_IFNAME {name:?}, IFLA_NET_NS_FD {fd})");
        self.ask(message, text, |_, _| {})
    }

    /// Gives the interface `index` an address.
    ///
    /// # Errors
    ///
    /// `EEXIST` when it has it, `EACCES` for an IPv6 address where IPv6 is disabled.
    pub fn add_address(&self, index: u32, address: &Address) -> SysResult<()> {
        let mut header = [address.family, address.prefix, 0, address.scope, 0, 0, 0, 0];
        header[4..].copy_from_slice(&index.to_ne_bytes());
        let flags = (libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16;
        let mut message = Message::new(libc::RTM_NEWADDR, flags, &header);
        let flags = address.flags & KEPT_FLAGS;
        message.attribute(libc::IFA_FLAGS, &flags.to_ne_bytes());
        for (kind, value) in &address.attributes {
            message.attribute(*kind, value);
        }
        self.ask(
            message,
            || format!("RTM_NEWADDR({index}, {address:?})"),
            |_, _| {},
        )
    }

    /// Sets the interface `index` up.
    ///
    /// # Errors
    ///
    /// What the device answered.
    pub fn set_up(&self, index: u32) -> SysResult<()> {
        let message = Message::about_interface(index, libc::IFF_UP as u32);
        self.ask(
            message,
            || format!("RTM_NEWLINK({index}, IFF_UP)"),
            |_, _| {},
        )
    }

    /// Sends a request, gives each message of the answer to `take`, and returns with its end.
    /// `EINTR`: what was listed has changed meanwhile.
    fn ask(
        &self,
        message: Message,
        text: impl Fn() -> String,
        mut take: impl FnMut(u16, &[u8]),
    ) -> SysResult<()> {
        let sequence = self.sequence.get().wrapping_add(1);
        self.sequence.set(sequence);
        let request = message.finish(sequence);
        let kernel = SocketAddrNetlink::new(0, 0);
        rustix::net::sendto(&self.socket, &request, SendFlags::empty(), &kernel).call(&text)?;
        let mut buffer = vec![0; BUFFER];
        let mut changed = false;
        loop {
            let receive = || rustix::net::recv(&self.socket, &mut buffer[..], RecvFlags::empty());
            let (_, length) = rustix::io::retry_on_intr(receive).call(&text)?;
            let mut rest = &buffer[..length.min(BUFFER)];
            while let Some((header, body)) = next_message(&mut rest) {
                if header.sequence != sequence {
                    continue; // of a request that was given up
                }
                changed |= header.flags & libc::NLM_F_DUMP_INTR as u16 != 0;
                match i32::from(header.kind) {
                    libc::NLMSG_DONE if changed => return Err(SysError::new(text(), Errno::INTR)),
                    libc::NLMSG_DONE => return Ok(()),
                    libc::NLMSG_ERROR => {
                        let errno = bytes(body, 0).map_or(0, i32::from_ne_bytes);
                        return match errno {
                            0 => Ok(()),
                            _ => Err(SysError::new(text(), Errno::from_raw_os_error(-errno))),
                        };
                    }
                    _ => take(header.kind, body),
                }
            }
        }
    }
}

/// A request while it is written.
struct Message(Vec<u8>);

impl Message {
    fn new(kind: u16, flags: u16, body: &[u8]) -> Message {
        let dump = flags & libc::NLM_F_DUMP as u16 == libc::NLM_F_DUMP as u16;
        let acknowledge = if dump { 0 } else { libc::NLM_F_ACK as u16 };
        let flags = flags | libc::NLM_F_REQUEST as u16 | acknowledge;
        let mut bytes = vec![0; 4]; // its length, which is known at the end
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.resize(HEADER, 0);
        bytes.extend(body);
        Message(bytes)
    }

    /// About a change of the interface `index`; `flags` are to be set.
    fn about_interface(index: u32, flags: u32) -> Message {
        let mut header = [0; INTERFACE_HEADER];
        header[4..8].copy_from_slice(&index.to_ne_bytes());
        header[8..12].copy_from_slice(&flags.to_ne_bytes());
        header[12..].copy_from_slice(&flags.to_ne_bytes());
        Message::new(libc::RTM_NEWLINK, 0, &header)
    }

    fn name(&mut self, name: &str) {
        self.attribute(libc::IFLA_IFNAME, &[name.as_bytes(), &[0]].concat());
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        let length = 4 + value.len() as u16;
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    fn finish(mut self, sequence: u32) -> Vec<u8> {
        let length = self.0.len() as u32;
        self.0[..4].copy_from_slice(&length.to_ne_bytes());
        self.0[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.0
    }
}

/// What counts of a `struct nlmsghdr`.
struct Header {
    kind: u16,
    flags: u16,
    sequence: u32,
}

/// The next message of a datagram, and the datagram's rest; None at its end and for what is none.
fn next_message<'a>(rest: &mut &'a [u8]) -> Option<(Header, &'a [u8])> {
    let length = u32::from_ne_bytes(bytes(rest, 0)?) as usize;
    let header = Header {
        kind: u16::from_ne_bytes(bytes(rest, 4)?),
        flags: u16::from_ne_bytes(bytes(rest, 6)?),
        sequence: u32::from_ne_bytes(bytes(rest, 8)?),
    };
    let body = rest.get(HEADER..length)?;
    *rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((header, body))
}

/// The next attribute, as [`next_message`].
fn next_attribute<'a>(rest: &mut &'a [u8]) -> Option<(u16, &'a [u8])> {
    let length = usize::from(u16::from_ne_bytes(bytes(rest, 0)?));
    let kind = u16::from_ne_bytes(bytes(rest, 2)?);
    let value = rest.get(4..length)?;
    *rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((kind, value))
}

/// The address that a message is about.
fn address(body: &[u8]) -> Option<Address> {
    let [family, prefix, flags, scope] = bytes(body, 0)?;
    let mut found = Address {
        family,
        prefix,
        scope,
        flags: u32::from(flags),
        attributes: Vec::new(),
    };
    let mut rest = body.get(ADDRESS_HEADER..)?;
    while let Some((kind, value)) = next_attribute(&mut rest) {
        if kind == libc::IFA_FLAGS {
            found.flags = u32::from_ne_bytes(bytes(value, 0)?);
        } else if KEPT_ATTRIBUTES.contains(&kind) {
            found.attributes.push((kind, value.to_vec()));
        }
    }
    Some(found)
}

/// So many bytes from this place on, if they are there.
fn bytes<const N: usize>(from: &[u8], at: usize) -> Option<[u8; N]> {
    from.get(at..at + N)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface_is_found_and_no_other_under_a_name_that_nobody_has() {
        let netlink = Netlink::open().unwrap();
        assert_eq!(netlink.interface("lo").unwrap(), Some(1));
        assert_eq!(netlink.interface("no-such-thing").unwrap(), None);
    }

    #[test]
    fn a_refusal_names_the_request() {
        let netlink = Netlink::open().unwrap();
        let error = netlink.set_up(i32::MAX as u32).unwrap_err();
        assert_eq!(
            error.to_string(),
            "RTM_NEWLINK(2147483647, IFF_UP): no such device"
        );
    }

    #[test]
    fn a_message_that_is_cut_is_none() {
        let whole = Message::about_interface(3, 0).finish(7);
        for cut in 0..whole.len() {
            assert!(next_message(&mut &whole[..cut]).is_none(), "{cut}");
        }
        let mut rest = &whole[..];
        let (header, body) = next_message(&mut rest).unwrap();
        assert_eq!((header.sequence, body.len()), (7, INTERFACE_HEADER));
        assert_eq!(bytes(body, 4).map(u32::from_ne_bytes), Some(3));
        assert!(next_message(&mut rest).is_none());
    }

    #[test]
    fn an_address_that_is_cut_is_none_or_has_less_attributes() {
        let mut message = Message::new(libc::RTM_NEWADDR, 0, &[2, 24, 0x80, 0, 5, 0, 0, 0]);
        message.attribute(libc::IFA_LOCAL, &[10, 0, 0, 1]);
        message.attribute(libc::IFA_LABEL, b"eth0\0");
        message.attribute(libc::IFA_FLAGS, &0x280_u32.to_ne_bytes());
        let body = message.finish(0).split_off(HEADER);
        let found = address(&body).unwrap();
        assert!(found.is_permanent_and_global());
        assert_eq!(found.attributes, [(libc::IFA_LOCAL, vec![10, 0, 0, 1])]);
        assert_eq!((found.prefix, found.flags), (24, 0x280));
        for cut in 0..body.len() {
            let less = address(&body[..cut]);
            assert!(less.is_none_or(|less| less.attributes.len() <= 1));
        }
    }
}
