//! Connections whose addresses the kernel translates, through ctnetlink (linux/netfilter/nfnetlink_conntrack.h).

use std::net::Ipv4Addr;

use super::{Errno, Message, Netlink, SysResult, bytes, next_attribute};

/// linux/netfilter/nfnetlink.h: the subsystem's number, and the length of its header.
const SUBSYSTEM: u16 = 1 << 8;
const FILTER_HEADER: usize = 4;

/// linux/netfilter/nfnetlink_conntrack.h: messages, and attributes.
const NEW: u16 = SUBSYSTEM;
const GET: u16 = SUBSYSTEM | 1;
const DELETE: u16 = SUBSYSTEM | 2;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_TUPLE_IP: u16 = 1;
const CTA_IP_V4_SRC: u16 = 1;

/// linux/netlink.h: an attribute that has attributes.
const NLA_F_NESTED: u16 = 0x8000;

impl Netlink {
    /// About connections of this process' own network namespace.
    ///
    /// # Errors
    ///
    /// As [`Netlink::open`]; `EPROTONOSUPPORT` for a kernel without netfilter.
    pub fn open_filter() -> SysResult<Netlink> {
        Netlink::open_for(Some(rustix::net::netlink::NETFILTER), "NETLINK_NETFILTER")
    }

    /// Forgets all connections that are answered by `address`: how many. A next packet is translated by the rules
    /// that there are then. Nothing else may be asked of a kernel's list that is said to have changed meanwhile: what
    /// is new in it is by new rules.
    ///
    /// # Errors
    ///
    /// What the kernel answered.
    pub fn forget_connections(&self, address: Ipv4Addr) -> SysResult<usize> {
        let header = [libc::AF_INET as u8, 0, 0, 0];
        let mut found: Vec<Vec<u8>> = Vec::new();
        let message = Message::new(GET, libc::NLM_F_DUMP as u16, &header);
        let told = self.ask(
            message,
            || "IPCTNL_MSG_CT_GET".into(),
            |kind, body| {
                if kind == NEW && answers(body) == Some(address) {
                    found.extend(tuple(body, CTA_TUPLE_ORIG).map(<[u8]>::to_vec));
                }
            },
        );
        told.or_else(|error| match error.errno {
            Errno::INTR => Ok(()),
            _ => Err(error),
        })?;
        for original in &found {
            let mut message = Message::new(DELETE, 0, &header);
            message.attribute(CTA_TUPLE_ORIG | NLA_F_NESTED, original);
            let gone = self.ask(
                message,
                || format!("IPCTNL_MSG_CT_DELETE({address})"),
                |_, _| {},
            );
            gone.or_else(|error| match error.errno {
                Errno::NOENT => Ok(()),
                _ => Err(error),
            })?;
        }
        Ok(found.len())
    }
}

/// One of the two directions of the connection that a message is about.
fn tuple(body: &[u8], which: u16) -> Option<&[u8]> {
    attribute(body.get(FILTER_HEADER..)?, which)
}

/// Whose address the answers come from.
fn answers(body: &[u8]) -> Option<Ipv4Addr> {
    let ip = attribute(tuple(body, CTA_TUPLE_REPLY)?, CTA_TUPLE_IP)?;
    bytes::<4>(attribute(ip, CTA_IP_V4_SRC)?, 0).map(Ipv4Addr::from)
}

fn attribute(mut rest: &[u8], which: u16) -> Option<&[u8]> {
    while let Some((kind, value)) = next_attribute(&mut rest) {
        if kind & !NLA_F_NESTED == which {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_answers_is_read_and_what_is_cut_is_not() {
        let mut message = Message::new(NEW, 0, &[libc::AF_INET as u8, 0, 0, 0]);
        for (which, source) in [(CTA_TUPLE_ORIG, 1), (CTA_TUPLE_REPLY, 2)] {
            message.nested(which | NLA_F_NESTED, |tuple| {
                tuple.nested(CTA_TUPLE_IP | NLA_F_NESTED, |ip| {
                    ip.attribute(CTA_IP_V4_SRC, &[10, 0, 0, source]);
                });
            });
        }
        let body = message.finish(0).split_off(super::super::HEADER);
        assert_eq!(answers(&body), Some(Ipv4Addr::new(10, 0, 0, 2)));
        assert_eq!(tuple(&body, CTA_TUPLE_ORIG).map(<[u8]>::len), Some(12));
        for cut in 0..body.len() {
            assert_eq!(answers(&body[..cut]), None, "{cut}");
        }
    }
}
