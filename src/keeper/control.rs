//! The socket at which a keeper is asked things: `control` in the instance's directory, for its owner alone.
//!
//! A sequenced-packet socket (unix(7)): each message is one JSON object, `{"do": "stop"}`. Each is answered
//! by one, the [`Status`](super::status::Status) after it or `{"error": …}`. Who watches gets the status
//! with every change. Who does not read what it is sent is disconnected.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use anyhow::Result;
use rustix::event::epoll;
use rustix::fs::{AtFlags, Mode};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, socket_with,
};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};

use super::client::Now;
use super::door::{Command, Ran};
use crate::lifecycle::process::wait_for_exit;
use crate::sys::{Call, Errno, SysResult};

/// The socket's name.
const SOCKET: &str = "control";

/// The longest request, in bytes.
const REQUEST: usize = 4096;

/// The longest answer, in bytes: the kernel's default for what a socket keeps is larger.
const ANSWER: usize = 128 << 10;

/// How long one that asks waits for a keeper that takes no connections or requests, as one that was stopped.
const PATIENCE: Duration = Duration::from_secs(5);

/// How many may be connected at once.
pub const CONNECTIONS: usize = 16;

/// What can be asked of a keeper.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "lowercase", deny_unknown_fields)]
pub enum Request {
    /// Its status.
    Status,
    /// Its status, now and with every change.
    Watch,
    /// That the instance runs: at once, whatever has failed before.
    Start,
    /// That it ends, and does not start again before it is asked for.
    Stop,
    /// That it ends and starts again at once.
    Restart,
    /// That it is stopped and started again, as somebody has found it to be unhealthy.
    Unhealthy {
        /// What was found.
        reason: String,
    },
    /// That it ends, as the host is going down: within so many milliseconds. What is wanted stays so, and the next
    /// keeper starts it again.
    #[serde(rename_all = "camelCase")]
    Halt {
        /// The time.
        within_ms: u64,
    },
    /// A command in a container, as a health check: the answer is an [`Answer`], and comes when it has ended.
    Exec(Command),
}

/// What is answered to [`Request::Exec`].
#[derive(Debug, Serialize, Deserialize)]
pub struct Answer {
    /// What came of it.
    pub exec: Ran,
}

/// What a keeper answers with when it does not understand.
#[derive(Debug, Serialize, Deserialize)]
pub struct Refusal {
    /// Why not.
    pub error: String,
}

/// The socket, and who is connected to it.
#[derive(Debug)]
pub struct Control {
    listener: OwnedFd,
    /// Where peers are watched. A helper has copies of their descriptors, so that closing one here would
    /// not end that.
    epoll: OwnedFd,
    peers: [Option<Peer>; CONNECTIONS],
}

#[derive(Debug)]
struct Peer {
    fd: OwnedFd,
    watches: bool,
}

/// What a peer has said.
#[derive(Debug)]
pub enum Said {
    /// Nothing yet.
    Nothing,
    /// It has gone.
    Gone,
    /// Something that was answered already, as nothing follows from it.
    Refused,
    /// A request.
    Request(Request),
}

impl Control {
    /// Makes the socket, in place of one that an earlier keeper has left. Only with the directory's lock.
    ///
    /// # Errors
    ///
    /// What the kernel answered.
    pub fn listen(directory: BorrowedFd<'_>, epoll: OwnedFd) -> SysResult<Control> {
        let call = || format!("listen({SOCKET:?})");
        match rustix::fs::unlinkat(directory, SOCKET, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno).call(|| format!("unlink({SOCKET:?})")),
        }
        let (listener, address) = socket(directory).call(call)?;
        let before = rustix::process::umask(Mode::RWXG | Mode::RWXO | Mode::XUSR);
        let bound = rustix::net::bind(&listener, &address);
        rustix::process::umask(before);
        bound.call(call)?;
        rustix::net::listen(&listener, CONNECTIONS as i32).call(call)?;
        Ok(Control {
            listener,
            epoll,
            peers: [const { None }; CONNECTIONS],
        })
    }

    /// Where connections arrive.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// Takes a connection: its number and descriptor. None when it has gone, or there are too many.
    ///
    /// # Errors
    ///
    /// Out of descriptors.
    pub fn accept(&mut self) -> SysResult<Option<(usize, BorrowedFd<'_>)>> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let fd = match rustix::net::accept_with(&self.listener, flags) {
            Ok(fd) => fd,
            Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => return Ok(None),
            Err(errno) => return Err(errno).call(|| format!("accept({SOCKET:?})")),
        };
        let Some(number) = self.peers.iter().position(Option::is_none) else {
            refuse(
                &fd,
                &format!("{CONNECTIONS} others are connected: try again"),
            );
            return Ok(None);
        };
        let peer = self.peers[number].insert(Peer { fd, watches: false });
        Ok(Some((number, peer.fd.as_fd())))
    }

    /// What this peer says.
    pub fn hear(&mut self, number: usize) -> Said {
        let Some(peer) = self.peers.get_mut(number).and_then(Option::as_mut) else {
            return Said::Gone;
        };
        let mut text = [0; REQUEST];
        match rustix::net::recv(&peer.fd, &mut text, RecvFlags::DONTWAIT | RecvFlags::TRUNC) {
            Err(Errno::AGAIN | Errno::INTR) => Said::Nothing,
            Err(_) | Ok((_, 0)) => {
                self.disconnect(number);
                Said::Gone
            }
            Ok((_, length)) if length > REQUEST => {
                refuse(&peer.fd, "too long");
                Said::Refused
            }
            Ok((_, length)) => match serde_json::from_slice(&text[..length]) {
                Ok(request) => {
                    peer.watches |= request == Request::Watch;
                    Said::Request(request)
                }
                Err(error) => {
                    refuse(&peer.fd, &error.to_string());
                    Said::Refused
                }
            },
        }
    }

    /// Tells this peer why nothing comes of what it asked for.
    pub fn refuse(&mut self, number: usize, why: &str) {
        if let Some(Some(peer)) = self.peers.get(number) {
            refuse(&peer.fd, why);
        }
    }

    /// Answers this peer, and disconnects one that does not take it.
    pub fn answer(&mut self, number: usize, text: &[u8]) {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        if let Some(Some(peer)) = self.peers.get(number)
            && rustix::net::send(&peer.fd, text, flags).is_err()
        {
            self.disconnect(number);
        }
    }

    /// Ends a connection.
    fn disconnect(&mut self, number: usize) {
        if let Some(peer) = self.peers.get_mut(number).and_then(Option::take) {
            // It may not have been watched yet.
            let _unwatched = epoll::delete(&self.epoll, &peer.fd);
        }
    }

    /// Whether anybody watches.
    pub fn is_watched(&self) -> bool {
        self.peers.iter().flatten().any(|peer| peer.watches)
    }

    /// Tells all who watch.
    pub fn publish(&mut self, text: &[u8]) {
        for number in 0..CONNECTIONS {
            if self.peers[number].as_ref().is_some_and(|peer| peer.watches) {
                self.answer(number, text);
            }
        }
    }

    /// Removes the socket, so that nobody waits for an answer.
    pub fn remove(self, directory: BorrowedFd<'_>) {
        // Whoever finds it gets no connection: the next keeper removes it.
        let _left = rustix::fs::unlinkat(directory, SOCKET, AtFlags::empty());
    }
}

fn refuse(fd: &OwnedFd, error: &str) {
    let error = error.to_owned();
    let text = serde_json::to_vec(&Refusal { error }).unwrap_or_default();
    // Who does not read it will see the end of the connection, or ask again.
    let _not_read = rustix::net::send(fd, &text, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
}

/// A socket, and the address of the one in the directory, whose path may be longer than an address is.
fn socket(directory: BorrowedFd<'_>) -> std::result::Result<(OwnedFd, SocketAddrUnix), Errno> {
    let path = format!("/proc/self/fd/{}/{SOCKET}", directory.as_raw_fd());
    let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC, None)?;
    Ok((socket, SocketAddrUnix::new(path)?))
}

/// Whether whoever listens at the other end is alive: the process that made the socket (SO_PEERCRED).
fn is_alive(socket: &OwnedFd) -> Result<bool> {
    let listener = rustix::net::sockopt::socket_peercred(socket)
        .call(|| format!("getsockopt({SOCKET:?}, SO_PEERCRED)"))?
        .pid;
    let pidfd = match pidfd_open(listener, PidfdFlags::empty()) {
        Ok(pidfd) => pidfd,
        Err(Errno::SRCH | Errno::INVAL) => return Ok(false),
        Err(errno) => Err(errno).call(|| format!("pidfd_open({listener:?})"))?,
    };
    Ok(!wait_for_exit(pidfd.as_fd(), Some(Duration::ZERO))?)
}

/// A keeper as seen from outside.
#[derive(Debug)]
pub struct Connection(OwnedFd);

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Connection {
    /// Connects to the keeper of the instance in this directory; None when there is none.
    ///
    /// # Errors
    ///
    /// What the kernel answered otherwise.
    pub fn open(directory: BorrowedFd<'_>) -> Result<Option<Connection>> {
        let call = || format!("connect({SOCKET:?})");
        let (socket, address) = socket(directory).call(call)?;
        // It limits connect(2) too (unix(7), SO_SNDTIMEO of socket(7)).
        set_socket_timeout(&socket, Timeout::Send, Some(PATIENCE)).call(call)?;
        match rustix::net::connect(&socket, &address) {
            // A helper of a keeper that was killed has the socket open for another moment.
            Ok(()) => Ok(is_alive(&socket)?.then_some(Connection(socket))),
            Err(Errno::NOENT | Errno::CONNREFUSED) => Ok(None),
            Err(errno) => Ok(Err(errno).call(call)?),
        }
    }

    /// Sends a request.
    ///
    /// # Errors
    ///
    /// `EPIPE` when the keeper has gone.
    pub fn ask(&self, request: &Request) -> SysResult<()> {
        let text = serde_json::to_vec(request).unwrap_or_default();
        rustix::net::send(&self.0, &text, SendFlags::NOSIGNAL)
            .call(|| format!("send({SOCKET:?})"))
            .map(drop)
    }

    /// Waits for the next message; None when the keeper has gone.
    ///
    /// # Errors
    ///
    /// What the kernel answered.
    pub fn hear(&self) -> SysResult<Option<Vec<u8>>> {
        let mut text = vec![0; ANSWER];
        let got = rustix::io::retry_on_intr(|| {
            rustix::net::recv(&self.0, &mut text[..], RecvFlags::empty())
        });
        match got {
            Ok((_, 0)) | Err(Errno::CONNRESET) => Ok(None),
            Ok((_, length)) => {
                text.truncate(length);
                Ok(Some(text))
            }
            Err(errno) => Err(errno).call(|| format!("recv({SOCKET:?})")),
        }
    }
}

impl From<Connection> for OwnedFd {
    fn from(connection: Connection) -> OwnedFd {
        connection.0
    }
}

/// The same for who waits in a loop of its own, and never here.
impl Connection {
    /// The keeper: the process that made the socket (SO_PEERCRED, unix(7)). When the connection has ended the
    /// number may be another process's.
    ///
    /// # Errors
    ///
    /// What the kernel answered.
    pub fn keeper(socket: BorrowedFd<'_>) -> SysResult<Pid> {
        let peer = rustix::net::sockopt::socket_peercred(socket);
        peer.map(|peer| peer.pid)
            .call(|| format!("getsockopt({SOCKET:?}, SO_PEERCRED)"))
    }

    /// Connects, if the keeper takes connections now.
    ///
    /// # Errors
    ///
    /// What the kernel answered otherwise.
    pub fn open_now(directory: BorrowedFd<'_>) -> Result<Now> {
        let call = || format!("connect({SOCKET:?})");
        let (socket, address) = socket(directory).call(call)?;
        rustix::io::ioctl_fionbio(&socket, true).call(call)?;
        match rustix::net::connect(&socket, &address) {
            Ok(()) if is_alive(&socket)? => Ok(Now::Connected(Connection(socket))),
            Ok(()) | Err(Errno::NOENT | Errno::CONNREFUSED) => Ok(Now::Nobody),
            Err(Errno::AGAIN) => Ok(Now::Full),
            Err(errno) => Ok(Err(errno).call(call)?),
        }
    }

    /// Sends a request, if the keeper reads what it was sent before.
    ///
    /// # Errors
    ///
    /// `EPIPE` when the keeper has gone, `EAGAIN` when it does not read.
    pub fn ask_now(socket: BorrowedFd<'_>, request: &Request) -> SysResult<()> {
        let text = serde_json::to_vec(request).unwrap_or_default();
        rustix::net::send(socket, &text, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)
            .call(|| format!("send({SOCKET:?})"))
            .map(drop)
    }

    /// The next message if there is one; None when the keeper has gone.
    ///
    /// # Errors
    ///
    /// `EAGAIN` when there is none; what else the kernel answered.
    pub fn hear_now(socket: BorrowedFd<'_>) -> std::result::Result<Option<Vec<u8>>, Errno> {
        let look = RecvFlags::PEEK | RecvFlags::TRUNC | RecvFlags::DONTWAIT;
        let length = match rustix::net::recv(socket, &mut [0_u8; 0][..], look) {
            Ok((_, length)) => length,
            Err(Errno::CONNRESET) => return Ok(None),
            Err(errno) => return Err(errno),
        };
        let mut text = vec![0; length];
        match rustix::net::recv(socket, &mut text[..], RecvFlags::DONTWAIT) {
            Ok((_, 0)) | Err(Errno::CONNRESET) => Ok(None),
            Ok(_) => Ok(Some(text)),
            Err(errno) => Err(errno),
        }
    }
}
