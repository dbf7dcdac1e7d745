//! A terminal that the runtime sends through a socket, and its bytes.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::{Context, Result};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use tokio::io::unix::AsyncFd;
use tokio::io::{Interest, Ready};
use tokio::net::{UnixListener, UnixStream};

/// Makes the socket at which the runtime will connect.
pub fn listen(path: &Path) -> Result<UnixListener> {
    UnixListener::bind(path).with_context(|| format!("the terminal's socket {path:?}"))
}

/// The terminal that comes.
pub async fn receive(listener: &UnixListener) -> Result<OwnedFd> {
    let (stream, _) = listener.accept().await.context("the terminal's socket")?;
    loop {
        let _readable: Ready = stream.ready(Interest::READABLE).await?;
        match stream.try_io(Interest::READABLE, || take(&stream)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            taken => return taken?.context("the runtime has sent no terminal"),
        }
    }
}

fn take(stream: &UnixStream) -> io::Result<Option<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut text = [0; 4096];
    let mut parts = [IoSliceMut::new(&mut text)];
    recvmsg(stream, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut master = None;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(mut rights) = message {
            master = rights.next();
        }
    }
    let Some(master) = master else {
        return Ok(None);
    };
    let flags = rustix::fs::fcntl_getfl(&master)? | rustix::fs::OFlags::NONBLOCK;
    rustix::fs::fcntl_setfl(&master, flags)?;
    Ok(Some(master))
}

/// Reads what was printed.
pub async fn read(master: &AsyncFd<OwnedFd>, block: &mut [u8]) -> io::Result<usize> {
    let read = |fd: &OwnedFd| Ok(rustix::io::read(fd, &mut *block)?);
    master.async_io(Interest::READABLE, read).await
}

/// Types all of this.
pub async fn write(master: &AsyncFd<OwnedFd>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let write = |fd: &OwnedFd| Ok(rustix::io::write(fd, bytes)?);
        let count = master.async_io(Interest::WRITABLE, write).await?;
        bytes = &bytes[count..];
    }
    Ok(())
}
