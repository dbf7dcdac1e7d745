//! sd_notify(3) for a program in a container: what it says to its NOTIFY_SOCKET reaches the caller's.
//!
//! The program sees a socket of its own at /run/notify, bound from the container's state directory,
//! as it has it from runc. Who starts the container listens there: `run` in the foreground for as
//! long as the container lives, `run --detach` and `start` until the program is ready or has ended.
//! They pass on what is about the service, and no other line: a process id would be one of another
//! namespace, and descriptors would be kept for whoever sends them.

use std::ffi::OsString;
use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::signal::SigSet;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType,
};
use rustix::pipe::PipeFlags;

use super::directory::NOTIFY_SOCKET;
use super::record::Record;
use crate::error;
use crate::rootfs::{HostTree, Mount, Source};
use crate::sys::confined::ContainerPath;
use crate::sys::mount::Attributes;
use crate::sys::{Call, Errno, SysError, SysResult};

/// The variable of sd_notify(3).
const VARIABLE: &str = "NOTIFY_SOCKET";

/// Where the program finds its socket: runc's place.
const FOLDER: &str = "/run/notify";

/// What a program may say of itself (sd_notify(3)).
const PASSED_ON: [&str; 8] = [
    "READY=",
    "RELOADING=",
    "MONOTONIC_USEC=",
    "STOPPING=",
    "STATUS=",
    "ERRNO=",
    "EXTEND_TIMEOUT_USEC=",
    "WATCHDOG=1",
];

/// A longer message is cut; systemd itself reads no more.
const LONGEST: usize = 4096;

/// How long the caller's side may take to have read everything, as with sd_notify_barrier(3) in runc.
const BARRIER: Duration = Duration::from_secs(30);

fn variable() -> Option<OsString> {
    std::env::var_os(VARIABLE).filter(|value| !value.is_empty())
}

/// Makes the folder of the socket, when the caller wants to be told; the mount that shows it to the
/// program.
///
/// # Errors
///
/// What the file system answered.
pub fn mount(record: &Record) -> Result<Option<Mount<HostTree>>> {
    if variable().is_none() {
        return Ok(None);
    }
    restored_mount(record).map(Some)
}

/// The mount that shows its socket to a program that was told of one when it was created; None without.
pub fn mount_of(record: &Record) -> Option<Mount<HostTree>> {
    record.directory().notify_folder().map(mount_from)
}

/// Makes the folder of the socket; the mount that shows it to a program.
///
/// # Errors
///
/// What the file system answered.
pub fn restored_mount(record: &Record) -> Result<Mount<HostTree>> {
    Ok(mount_from(record.directory().make_notify_folder()?))
}

fn mount_from(path: PathBuf) -> Mount<HostTree> {
    let restricted = libc::MOUNT_ATTR_RDONLY
        | libc::MOUNT_ATTR_NOSUID
        | libc::MOUNT_ATTR_NODEV
        | libc::MOUNT_ATTR_NOEXEC;
    Mount {
        target: ContainerPath::new(FOLDER),
        source: Source::Tree(HostTree {
            path,
            link: false,
            onto_link: false,
            recursive: false,
            attributes: Attributes {
                set: restricted,
                clear: 0,
            },
            lifted: 0,
            recursive_attributes: Attributes::default(),
            id_map: None,
            json_path: VARIABLE.to_owned(),
        }),
        propagation: Vec::new(),
    }
}

/// Tells the program where its socket is, when it has one.
pub fn add_variable(env: &mut Vec<String>) {
    if variable().is_some() {
        replace_variable(env);
    }
}

fn replace_variable(env: &mut Vec<String>) {
    env.retain(|entry| !entry.starts_with("NOTIFY_SOCKET="));
    env.push(format!("{VARIABLE}={FOLDER}/{NOTIFY_SOCKET}"));
}

/// The program's socket, and the caller's that messages go on to.
#[derive(Debug)]
pub struct Notify {
    program: OwnedFd,
    caller: OwnedFd,
    ready: bool,
}

impl Notify {
    /// Listens for the program, when the caller wants to be told. Call it before the program is
    /// executed.
    ///
    /// # Errors
    ///
    /// What the kernel answered.
    pub fn listen(record: &Record) -> Result<Option<Notify>> {
        let Some(name) = variable() else {
            return Ok(None);
        };
        // A container that was created without the variable has no place for a socket.
        let Some(program) = record.directory().listen_for_notify()? else {
            return Ok(None);
        };
        // A variable that was left behind stands in nobody's way, as with runc.
        match connect(name.as_bytes()) {
            Ok(caller) => Ok(Some(Notify {
                program,
                caller,
                ready: false,
            })),
            Err(told) => {
                error::warn(&format!("{VARIABLE}={name:?}: {told}"));
                Ok(None)
            }
        }
    }

    /// Readable when the program has said something.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.program.as_fd()
    }

    /// Passes on what the program has said, if anything. With its readiness goes the id of the
    /// process that stands for the service from then on.
    ///
    /// # Errors
    ///
    /// The caller's socket has gone.
    pub fn relay(&mut self, main_pid: i32) -> SysResult<()> {
        let mut message = [0; LONGEST];
        loop {
            let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
            let length = match rustix::net::recv(&self.program, &mut message[..], flags) {
                Ok((length, _)) => length,
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(SysError::new("recv(notify.sock)", errno)),
            };
            let (mut text, ready) = passed_on(&message[..length]);
            if ready && !self.ready {
                self.ready = true;
                text.push_str(&format!("MAINPID={main_pid}\n"));
            }
            if !text.is_empty() {
                self.send(&text, None)?;
            }
        }
    }

    /// Passes on what the program says until it is ready, or `pidfd` says that it has ended. The
    /// caller has read everything then, so that this process may end.
    ///
    /// # Errors
    ///
    /// When poll fails, or the caller's socket has gone.
    pub fn until_ready(mut self, pid: i32, pidfd: BorrowedFd<'_>) -> Result<()> {
        // The container is complete: what ends this process now ends it alone.
        SigSet::all().thread_unblock().context("unblock signals")?;
        loop {
            let mut fds = [
                PollFd::new(&self.program, PollFlags::IN),
                PollFd::from_borrowed_fd(pidfd, PollFlags::IN),
            ];
            match poll(&mut fds, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(SysError::new("poll(notify.sock)", errno).into()),
            }
            let ended = !fds[1].revents().is_empty();
            self.relay(pid)?;
            if self.ready {
                return Ok(self.barrier()?);
            }
            if ended {
                return Ok(());
            }
        }
    }

    fn send(&self, text: &str, fd: Option<BorrowedFd<'_>>) -> SysResult<()> {
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fds = fd.map(|fd| [fd]);
        if let Some(fds) = &fds {
            control.push(SendAncillaryMessage::ScmRights(fds));
        }
        let parts = [IoSlice::new(text.as_bytes())];
        let send = || rustix::net::sendmsg(&self.caller, &parts, &mut control, SendFlags::NOSIGNAL);
        rustix::io::retry_on_intr(send)
            .call(|| format!("sendmsg({VARIABLE}, {text:?})"))
            .map(drop)
    }

    /// Waits until the caller's side has read everything: it closes the descriptor that it gets.
    fn barrier(&self) -> SysResult<()> {
        let (ours, theirs) =
            rustix::pipe::pipe_with(PipeFlags::CLOEXEC).call(|| "pipe2()".to_owned())?;
        self.send("BARRIER=1", Some(theirs.as_fd()))?;
        drop(theirs);
        let mut fds = [PollFd::new(&ours, PollFlags::IN)];
        let limit = Timespec {
            tv_sec: BARRIER.as_secs() as i64,
            tv_nsec: 0,
        };
        // Else it is closed, or interrupted by what is about to end this process.
        if poll(&mut fds, Some(&limit)) == Ok(0) {
            error::warn("NOTIFY_SOCKET: nobody has read it for 30 s");
        }
        Ok(())
    }
}

/// The lines that are passed on, and whether readiness is among them.
fn passed_on(message: &[u8]) -> (String, bool) {
    let text = String::from_utf8_lossy(message);
    let known = |line: &&str| PASSED_ON.iter().any(|name| line.starts_with(name));
    let lines: String = text
        .lines()
        .filter(known)
        .map(|line| format!("{line}\n"))
        .collect();
    let ready = lines.lines().any(|line| line == "READY=1");
    (lines, ready)
}

/// A socket connected to the caller's: a path, or with `@` a name of its own (sd_notify(3)).
fn connect(name: &[u8]) -> SysResult<OwnedFd> {
    let call = || "connect()".to_owned();
    let (kind, flags) = (SocketType::DGRAM, SocketFlags::CLOEXEC);
    let socket = rustix::net::socket_with(AddressFamily::UNIX, kind, flags, None).call(call)?;
    let address = match name.strip_prefix(b"@") {
        Some(name) => SocketAddrUnix::new_abstract_name(name),
        None => SocketAddrUnix::new(name),
    };
    let address = address.call(call)?;
    rustix::net::connect(&socket, &address).call(call)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_about_the_service_is_passed_on() {
        let said = b"MAINPID=1\nSTATUS=warm\nFDSTORE=1\nREADY=1\nBARRIER=1\nWATCHDOG=trigger\nx";
        assert_eq!(passed_on(said), ("STATUS=warm\nREADY=1\n".to_owned(), true));
        assert_eq!(passed_on(b"\xff=\xfe"), (String::new(), false));
        assert_eq!(passed_on(b"READY=0"), ("READY=0\n".to_owned(), false));
    }

    #[test]
    fn the_variable_of_the_bundle_gives_way() {
        let mut env = vec!["NOTIFY_SOCKET=/x".to_owned(), "A=1".to_owned()];
        replace_variable(&mut env);
        assert_eq!(env, ["A=1", "NOTIFY_SOCKET=/run/notify/notify.sock"]);
    }
}
