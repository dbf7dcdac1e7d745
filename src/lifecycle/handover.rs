//! Descriptors for whoever asked for them: the terminal's master, init's pidfd, the listener of a
//! filter of system calls.
//!
//! The receiver listens on a unix stream socket and gets one message: the descriptor (SCM_RIGHTS)
//! and a name as data, because a message without data cannot carry one.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context, Result, bail};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde_json::json;

use crate::seccomp::Listener;
use crate::sys::{Call, Errno};

/// Gives a terminal's master to `--console-socket`; the data is the terminal's name inside.
///
/// # Errors
///
/// When nobody listens there, or it hung up.
pub fn send_terminal(socket: &Path, master: OwnedFd) -> Result<()> {
    let name = rustix::pty::ptsname(&master, Vec::new()).call(|| "ioctl(TIOCGPTN)".into())?;
    send(socket, name.as_bytes(), master.as_fd()).context("hand over the terminal")
}

/// Gives init's pidfd to `--pidfd-socket`.
///
/// # Errors
///
/// When nobody listens there, or it hung up.
pub fn send_pidfd(socket: &Path, pidfd: BorrowedFd<'_>) -> Result<()> {
    send(socket, b"pidfd", pidfd).context("hand over the pidfd")
}

/// Gives the listener of a container's filter to the agent that decides on its calls. The data is a
/// container process state (config-linux.md, "The Container Process State"); `state` is the
/// container's, as hooks get it.
///
/// # Errors
///
/// When nobody listens there, or it hung up.
pub fn send_listener(
    listener: &Listener,
    oci_version: &str,
    pid: i32,
    state: &str,
    fd: OwnedFd,
) -> Result<()> {
    let mut told = json!({ "ociVersion": oci_version, "fds": ["seccompFd"], "pid": pid });
    if !listener.metadata.is_empty() {
        told["metadata"] = json!(listener.metadata);
    }
    told["state"] = serde_json::from_str(state).context("the container's state")?;
    send(&listener.socket, told.to_string().as_bytes(), fd.as_fd())
        .with_context(|| format!("{}: hand over the listener", listener.field))
}

fn send(socket: &Path, name: &[u8], fd: BorrowedFd<'_>) -> Result<()> {
    let connected = UnixStream::connect(socket);
    let connected = match connected.map_err(|error| (Errno::from_io_error(&error), error)) {
        Ok(connected) => connected,
        Err((Some(errno), _)) => Err(errno).call(|| format!("connect({socket:?})"))?,
        // std itself refuses a path that does not fit into a socket's address.
        Err((None, error)) => return Err(error).with_context(|| format!("connect({socket:?})")),
    };
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut rights = SendAncillaryBuffer::new(&mut space);
    let fds = [fd];
    if !rights.push(SendAncillaryMessage::ScmRights(&fds)) {
        bail!("no room for a descriptor in the message");
    }
    let data = [IoSlice::new(name)];
    sendmsg(&connected, &data, &mut rights, SendFlags::NOSIGNAL)
        .call(|| format!("sendmsg({socket:?})"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lifecycle::testing::{Root, Sleeper};
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
    use rustix::pty::{OpenptFlags, openpt, unlockpt};
    use std::io::IoSliceMut;
    use std::os::unix::net::UnixListener;

    /// The data and the descriptor of the one message that a sender leaves.
    fn receive(listener: &UnixListener) -> (String, OwnedFd) {
        let (stream, _) = listener.accept().unwrap();
        let mut data = [0; 64];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(&mut data)];
        let got = recvmsg(&stream, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
        let Some(RecvAncillaryMessage::ScmRights(mut fds)) = control.drain().next() else {
            panic!("no descriptor came along");
        };
        let fd = fds.next().unwrap();
        (String::from_utf8(data[..got.bytes].to_vec()).unwrap(), fd)
    }

    #[test]
    fn the_master_arrives_with_the_terminals_name() {
        let root = Root::new();
        let socket = root.path().join("console.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        unlockpt(&master).unwrap();
        let name = rustix::pty::ptsname(&master, Vec::new()).unwrap();
        send_terminal(&socket, master).unwrap();
        let (data, fd) = receive(&listener);
        assert_eq!(data.as_bytes(), name.as_bytes());
        assert_eq!(rustix::pty::ptsname(&fd, Vec::new()).unwrap(), name);
    }

    #[test]
    fn the_pidfd_arrives() {
        let root = Root::new();
        let socket = root.path().join("pidfd.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let child = Sleeper::new();
        let pidfd = child.process().open().unwrap().unwrap();
        send_pidfd(&socket, pidfd.as_fd()).unwrap();
        let (_, received) = receive(&listener);
        rustix::process::pidfd_send_signal(received, rustix::process::Signal::TERM).unwrap();
        assert_eq!(child.ended_by(), Some(15));
    }

    #[test]
    fn a_socket_without_a_listener_is_named() {
        let child = Sleeper::new();
        let pidfd = child.process().open().unwrap().unwrap();
        let error = send_pidfd(Path::new("/no/such.sock"), pidfd.as_fd()).unwrap_err();
        assert_eq!(
            format!("{error:#}"),
            "hand over the pidfd: connect(\"/no/such.sock\"): no such file or directory"
        );
    }
}
