//! Whole messages, and descriptors with them, over a connected stream socket.
//!
//! A message is its length (four bytes, native order: both ends are one machine) and its bytes.

use alloc::format;
use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;
use core::mem::MaybeUninit;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::{IoSlice, IoSliceMut};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};

use super::{Call, Errno, SysError, SysResult};

/// The largest message: more than execve(2) lets arguments and environment be.
const LIMIT: usize = 64 * 1024 * 1024;

/// The most descriptors that go with one message (`SCM_MAX_FD`, unix(7)).
pub const DESCRIPTORS: usize = 253;

/// One end of a conversation.
#[derive(Debug)]
pub struct Channel(OwnedFd);

impl Channel {
    /// Two connected ends, both close-on-exec.
    ///
    /// # Errors
    ///
    /// `EMFILE` or `ENFILE` when descriptors are out.
    pub fn pair() -> SysResult<(Channel, Channel)> {
        let (flags, family) = (SocketFlags::CLOEXEC, AddressFamily::UNIX);
        rustix::net::socketpair(family, SocketType::STREAM, flags, None)
            .call(|| "socketpair(AF_UNIX)".to_string())
            .map(|(a, b)| (Channel(a), Channel(b)))
    }

    /// A conversation over a socket that is connected already.
    #[must_use]
    pub fn over(socket: OwnedFd) -> Channel {
        Channel(socket)
    }

    /// The socket itself.
    #[must_use]
    pub fn into_fd(self) -> OwnedFd {
        self.0
    }

    /// Sends a message.
    ///
    /// # Errors
    ///
    /// `EPIPE` when the other end is closed, `EMSGSIZE` for a message over 64 MiB.
    pub fn send(&self, message: &[u8]) -> SysResult<()> {
        self.send_with(message, &[])
    }

    /// Sends a message and descriptors with it, at most [`DESCRIPTORS`].
    ///
    /// # Errors
    ///
    /// `EPIPE` when the other end is closed, `EMSGSIZE` for a message over 64 MiB, `EINVAL` for too
    /// many descriptors, `ETOOMANYREFS` beyond the limit of open files.
    pub fn send_with(&self, message: &[u8], fds: &[BorrowedFd<'_>]) -> SysResult<()> {
        if message.len() > LIMIT {
            let call = format!("sendmsg({} bytes)", message.len());
            return Err(SysError::new(call, Errno::MSGSIZE));
        }
        let length = (message.len() as u32).to_ne_bytes();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
            let call = format!("sendmsg({} descriptors)", fds.len());
            return Err(SysError::new(call, Errno::INVAL));
        }
        let parts = [IoSlice::new(&length), IoSlice::new(message)];
        let mut sent = rustix::io::retry_on_intr(|| {
            rustix::net::sendmsg(&self.0, &parts, &mut control, SendFlags::NOSIGNAL)
        })
        .call(|| format!("sendmsg({} bytes)", message.len()))?;
        while sent < length.len() + message.len() {
            // A signal or a full buffer split it; the length itself is never split off a new
            // message, as sendmsg of a stream socket takes at least what fits one page.
            let rest = &message[sent - length.len()..];
            sent +=
                rustix::io::retry_on_intr(|| rustix::net::send(&self.0, rest, SendFlags::NOSIGNAL))
                    .call(|| format!("send({} bytes)", rest.len()))?;
        }
        Ok(())
    }

    /// Looks for the next message again and again for some 50 microseconds, which is as long as it
    /// takes to wake a processor that sleeps. Only for a message that is on its way, from a process on
    /// another processor; the processor is left to whoever else waits for it.
    pub fn expect(&self) {
        const LOOKS: u32 = 100;
        let mut byte = [0; 1];
        for _ in 0..LOOKS {
            let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
            match rustix::net::recv(&self.0, &mut byte, flags) {
                Err(Errno::AGAIN) => rustix::thread::sched_yield(),
                Ok(_) | Err(_) => return,
            }
        }
    }

    /// The next message; None when the other end is closed.
    ///
    /// # Errors
    ///
    /// `ECONNRESET` when the other end died in the middle of a message, `EMSGSIZE` for a length
    /// over 64 MiB, which no end of ours sends.
    pub fn receive(&self) -> SysResult<Option<Vec<u8>>> {
        Ok(self.receive_with()?.map(|(message, _no_fds)| message))
    }

    /// The next message with the descriptors that came with it, close-on-exec; None when the other
    /// end is closed.
    ///
    /// # Errors
    ///
    /// As for [`Channel::receive`]; `EMFILE` when not all descriptors could be taken.
    pub fn receive_with(&self) -> SysResult<Option<(Vec<u8>, Vec<OwnedFd>)>> {
        let mut length = [0; 4];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let first = rustix::io::retry_on_intr(|| {
            let mut parts = [IoSliceMut::new(&mut length)];
            rustix::net::recvmsg(&self.0, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)
        });
        let first = match first {
            // A peer that dies with unread data behind it resets the connection.
            Err(Errno::CONNRESET) => return Ok(None),
            other => other.call(|| "recvmsg(4 bytes)".to_string())?,
        };
        if first.bytes == 0 {
            return Ok(None);
        }
        let mut fds = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = message {
                fds.extend(received);
            }
        }
        if first.flags.contains(ReturnFlags::CTRUNC) {
            let call = format!("recvmsg(): {} descriptors and more", fds.len());
            return Err(SysError::new(call, Errno::MFILE));
        }
        self.fill(&mut length, first.bytes)?;
        let length = u32::from_ne_bytes(length) as usize;
        if length > LIMIT {
            return Err(SysError::new(
                format!("recv(): {length} bytes"),
                Errno::MSGSIZE,
            ));
        }
        let mut message = vec![0; length];
        self.fill(&mut message, 0)?;
        Ok(Some((message, fds)))
    }

    fn fill(&self, buffer: &mut [u8], mut filled: usize) -> SysResult<()> {
        while filled < buffer.len() {
            let rest = &mut buffer[filled..];
            let got = rustix::io::retry_on_intr(|| {
                rustix::net::recv(&self.0, &mut *rest, RecvFlags::empty())
            })
            .call(|| format!("recv({} bytes)", rest.len()))?;
            if got.0 == 0 {
                let call = format!("recv({} bytes)", rest.len());
                return Err(SysError::new(call, Errno::CONNRESET));
            }
            filled += got.0;
        }
        Ok(())
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_message_arrives_whole() {
        let (a, b) = Channel::pair().unwrap();
        let message = vec![7; 3_000_000];
        let copy = message.clone();
        let sender = std::thread::spawn(move || a.send(&copy).unwrap());
        assert_eq!(b.receive().unwrap().unwrap(), message);
        sender.join().unwrap();
        assert_eq!(b.receive().unwrap(), None);
    }

    #[test]
    fn descriptors_travel_with_their_message() {
        let (a, b) = Channel::pair().unwrap();
        let (c, d) = Channel::pair().unwrap();
        a.send_with(b"take", &[d.as_fd(), c.as_fd()]).unwrap();
        let (message, mut fds) = b.receive_with().unwrap().unwrap();
        assert_eq!((message.as_slice(), fds.len()), (b"take".as_slice(), 2));
        Channel::over(fds.pop().unwrap()).send(b"hello").unwrap();
        assert_eq!(d.receive().unwrap().unwrap(), b"hello");
    }

    #[test]
    fn as_many_descriptors_travel_as_the_kernel_allows_and_no_more() {
        let (a, b) = Channel::pair().unwrap();
        let fds = vec![a.as_fd(); DESCRIPTORS + 1];
        a.send_with(b"take", &fds[1..]).unwrap();
        assert_eq!(b.receive_with().unwrap().unwrap().1.len(), DESCRIPTORS);
        let error = a.send_with(b"take", &fds).unwrap_err();
        assert_eq!(error.errno, Errno::INVAL);
    }
}
