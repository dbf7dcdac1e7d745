//! Where a D-Bus server listens: systemd's private socket, or a message bus.

use std::ffi::OsString;
use std::fmt;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};

use crate::sys::Errno;

/// A socket and what is behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    socket: Socket,
    /// systemd itself, not a bus between.
    pub direct: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Socket {
    File(PathBuf),
    Abstract(Vec<u8>),
}

impl Address {
    /// systemd's private socket.
    pub(super) fn private(path: impl Into<PathBuf>) -> Address {
        Address {
            socket: Socket::File(path.into()),
            direct: true,
        }
    }

    /// A message bus.
    pub(super) fn bus(path: impl Into<PathBuf>) -> Address {
        Address {
            socket: Socket::File(path.into()),
            direct: false,
        }
    }

    /// The unix sockets of an address as environment variables have it (D-Bus specification,
    /// "Server Addresses"): `unix:path=/run/user/1/bus;unix:abstract=x,guid=1`.
    pub(super) fn parse(text: &str) -> Vec<Address> {
        let unix = text.split(';').filter_map(|one| one.strip_prefix("unix:"));
        let socket = |keys: &str| {
            let found = keys
                .split(',')
                .find_map(|pair| match pair.split_once('=')? {
                    ("path", path) => Some(Socket::File(OsString::from_vec(unescape(path)).into())),
                    ("abstract", name) => Some(Socket::Abstract(unescape(name))),
                    _ => None,
                });
            found.map(|socket| Address {
                socket,
                direct: false,
            })
        };
        unix.filter_map(socket).collect()
    }

    /// Connects within `patience`: a server that hangs no longer takes connections, and connect(2)
    /// then waits for as long as the socket may wait for sending (unix(7)).
    pub(super) fn connect(&self, patience: Duration) -> Result<OwnedFd, Errno> {
        let name = match &self.socket {
            Socket::File(path) => SocketAddrUnix::new(path)?,
            Socket::Abstract(name) => SocketAddrUnix::new_abstract_name(name)?,
        };
        let flags = SocketFlags::CLOEXEC;
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(patience))?;
        match rustix::io::retry_on_intr(|| rustix::net::connect(&socket, &name)) {
            Err(Errno::AGAIN) => Err(Errno::TIMEDOUT),
            connected => connected.map(|()| socket),
        }
    }
}

/// `%2f` and the like as bytes.
fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let hex = (first == b'%').then(|| after.get(..2)).flatten();
        let hex = hex.and_then(|digits| std::str::from_utf8(digits).ok());
        match hex.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    bytes
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.socket {
            Socket::File(path) => write!(f, "{}", path.display()),
            Socket::Abstract(name) => write!(f, "@{}", String::from_utf8_lossy(name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_the_environment_are_read() {
        let shown = |text| {
            let addresses = Address::parse(text);
            addresses.iter().map(Address::to_string).collect::<Vec<_>>()
        };
        assert_eq!(shown("unix:path=/run/user/1/bus"), ["/run/user/1/bus"]);
        assert_eq!(
            shown("tcp:host=x;unix:guid=1,path=/a%20b;unix:abstract=c"),
            ["/a b", "@c"]
        );
        assert!(shown("").is_empty());
        assert!(shown("unix:").is_empty());
    }
}
