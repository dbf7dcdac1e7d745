//! CRIU, which writes the processes of a container to images and makes them of images again.
//!
//! It is started for one request, as `criu swrk`, and spoken to over a socket with the messages of its
//! rpc.proto (docs/decisions/0010). It tells of the steps on its way, and goes on when it is answered.
//! Decides nothing about containers.

mod log;
mod options;
mod response;
mod wire;

use std::ffi::OsStr;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use anyhow::{Context as _, Result, bail};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendFlags,
    Shutdown, SocketFlags, SocketType,
};

use crate::sys::command::{self, Start};
use crate::sys::{Call, Errno};

pub use log::Log;
pub use options::{CgroupsMode, Feature, Flag, Kind, NetworkLock, Number, Options, Text};
use response::Response;
pub use response::{Notice, Version};
use wire::Message;

/// The oldest that is used: the first with `status-ready`, the freezer of cgroup v2 and LSM profiles for
/// a restore in one (Ubuntu 22.04 has it).
const OLDEST: Version = Version {
    major: 3,
    minor: 16,
    sublevel: 0,
};

/// The first that knows [`NetworkLock::Skip`].
const SKIPS_LOCKS: Version = Version {
    major: 3,
    minor: 19,
    sublevel: 0,
};

/// The longest answer: CRIU's own limit is as large.
const LONGEST: usize = 64 << 10;

/// CRIU as it is installed here.
#[derive(Debug)]
pub struct Criu {
    program: PathBuf,
    version: Version,
}

impl Criu {
    /// Finds the program of this path or name, by default criu on PATH, and asks how old it is.
    ///
    /// # Errors
    ///
    /// It is missing, too old, or does not answer.
    pub fn find(named: Option<&OsStr>) -> Result<Criu> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let program = match named {
            Some(named) => find_on(named, &path)
                .with_context(|| format!("--criu {named:?}: no such program"))?,
            None => find_on(OsStr::new("criu"), &path).context(
                "criu is not on PATH: install it (package criu of Debian, Ubuntu and Fedora)",
            )?,
        };
        let mut criu = Criu {
            program,
            version: Version::default(),
        };
        criu.version = criu.ask_once(&options::of_kind(Kind::Version))?.version;
        criu.require_version(OLDEST)?;
        Ok(criu)
    }

    /// Looks whether it knows a way to lock the network.
    ///
    /// # Errors
    ///
    /// It is older than that way.
    pub fn require_lock(&self, lock: NetworkLock) -> Result<()> {
        match lock {
            NetworkLock::Iptables | NetworkLock::Nftables => Ok(()),
            NetworkLock::Skip => self.require_version(SKIPS_LOCKS),
        }
    }

    fn require_version(&self, oldest: Version) -> Result<()> {
        if self.version >= oldest {
            return Ok(());
        }
        bail!(
            "{} is of version {}: {oldest} or newer is needed",
            self.program.display(),
            self.version
        )
    }

    /// Asks whether it can do something on this kernel.
    ///
    /// # Errors
    ///
    /// It can not, or does not answer.
    pub fn require(&self, feature: Feature) -> Result<()> {
        let answer = self.ask_once(&options::question(feature))?;
        if answer.features.contains(&(feature as u32)) {
            return Ok(());
        }
        bail!("criu on this kernel lacks {}", feature.name())
    }

    /// Starts one that waits for a request.
    ///
    /// # Errors
    ///
    /// It can not be executed.
    pub fn start(&self, mut start: Start) -> Result<Session> {
        let (kind, flags) = (SocketType::SEQPACKET, SocketFlags::CLOEXEC);
        let (ours, theirs) = rustix::net::socketpair(AddressFamily::UNIX, kind, flags, None)
            .call(|| "socketpair(SOCK_SEQPACKET)".into())?;
        let bound = start.ends_with_us;
        start.kept.push(theirs.as_raw_fd());
        let mut command = Command::new(&self.program);
        command.arg("swrk").arg(theirs.as_raw_fd().to_string());
        if !bound {
            // Ctrl-C is for this process; who is half-way through a dump has to clean up.
            command.process_group(0);
        }
        command::prepare(&mut command, start);
        let child = command.spawn();
        let child = child.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO));
        Ok(Session {
            child: child.call(|| format!("execve({:?})", self.program))?,
            socket: ours,
            bound,
        })
    }

    fn ask_once(&self, question: &Message) -> Result<Response> {
        let session = self.start(Start {
            ends_with_us: true,
            ..Start::default()
        })?;
        let answered = session.send(question).and_then(|()| session.receive());
        let (answer, _no_fd) = answered.with_context(|| self.program.display().to_string())?;
        match answer.success {
            true => Ok(answer),
            false => bail!("criu does not answer a question: {}", said(&answer)),
        }
    }
}

/// The program in the first directory of PATH that has it; one that is named with its directory there alone.
fn find_on(name: &OsStr, path: &OsStr) -> Option<PathBuf> {
    let is_path = name.as_encoded_bytes().contains(&b'/');
    let directories = is_path.then(PathBuf::new).into_iter();
    let on_path = std::env::split_paths(path).filter(|_| !is_path);
    let mut programs = directories.chain(on_path).map(|folder| folder.join(name));
    let executable = |program: &Path| {
        rustix::fs::access(program, rustix::fs::Access::EXEC_OK).is_ok() && program.is_file()
    };
    programs.find(|program| executable(program))
}

/// What CRIU has said of a failure, without its log.
fn said(answer: &Response) -> String {
    match (answer.message.as_str(), answer.errno) {
        ("", 0) => "it gives no reason".to_owned(),
        ("", errno) => Errno::from_raw_os_error(errno).to_string(),
        (message, _) => message.to_owned(),
    }
}

/// A CRIU that works for one request.
#[derive(Debug)]
pub struct Session {
    child: Child,
    socket: OwnedFd,
    /// Nothing of what it has half done is of use.
    bound: bool,
}

/// What is asked for, and who hears of it.
pub struct Request<'a> {
    /// What it is to do.
    pub kind: Kind,
    /// With which options.
    pub options: &'a Options,
    /// Where it writes what it does.
    pub log: &'a Log,
}

impl Session {
    /// CRIU's process id.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// Has the request served. `wait` returns when there is something to read; `told` hears of each
    /// step, with a descriptor where one belongs to it.
    ///
    /// # Errors
    ///
    /// What CRIU has logged first, `wait` or `told` has failed.
    pub fn serve(
        mut self,
        request: &Request<'_>,
        wait: &dyn Fn(BorrowedFd<'_>) -> Result<()>,
        told: &mut dyn FnMut(&Notice, Option<OwnedFd>) -> Result<()>,
    ) -> Result<()> {
        let failed = |said: &str| anyhow::Error::msg(request.log.explain(said)).context("criu");
        self.send(&options::request(request.kind, request.options))?;
        loop {
            wait(self.socket.as_fd())?;
            let (answer, fd) = match self.receive() {
                Ok(answered) => answered,
                Err(error) => return Err(failed(&format!("{error:#}"))),
            };
            if !answer.success {
                return Err(failed(&said(&answer)));
            }
            if answer.kind != Kind::Notify as i32 {
                break;
            }
            let heard = told(&answer.notice, fd);
            // One that has gone says so in its log.
            let answered = self.send(&options::heard(heard.is_ok()));
            heard.with_context(|| format!("at criu's step {}", answer.notice.step))?;
            answered.map_err(|error| failed(&error.to_string()))?;
        }
        // After a pre-dump it waits for the next request: the end of them all is no success to it.
        rustix::net::shutdown(&self.socket, Shutdown::Write).call(|| "shutdown(criu)".into())?;
        let status = self.child.wait().context("wait(criu)")?;
        if status.success() || request.kind == Kind::PreDump {
            return Ok(());
        }
        Err(failed(&format!("it ended with {status}")))
    }

    fn send(&self, message: &Message) -> Result<()> {
        let send = || rustix::net::send(&self.socket, message.as_bytes(), SendFlags::NOSIGNAL);
        match rustix::io::retry_on_intr(send) {
            Err(Errno::PIPE) => bail!("it has ended"),
            sent => Ok(sent.map(drop).call(|| "send(criu)".into())?),
        }
    }

    fn receive(&self) -> Result<(Response, Option<OwnedFd>)> {
        let mut bytes = vec![0; LONGEST];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = rustix::io::retry_on_intr(|| {
            let mut parts = [IoSliceMut::new(&mut bytes)];
            rustix::net::recvmsg(
                &self.socket,
                &mut parts,
                &mut control,
                RecvFlags::CMSG_CLOEXEC,
            )
        });
        let received = match received {
            Ok(received) if received.bytes > 0 => received,
            // One that ends before it has read what was said resets the connection.
            Ok(_) | Err(Errno::CONNRESET) => bail!("it has ended"),
            Err(errno) => Err(errno).call(|| "recvmsg(criu)".into())?,
        };
        if received.flags.contains(ReturnFlags::TRUNC) {
            bail!("an answer of criu has more than {LONGEST} bytes");
        }
        let mut fd = None;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(mut received) = message {
                fd = received.next();
            }
        }
        Ok((Response::read(&bytes[..received.bytes])?, fd))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // It has ended, or is to. One that dumps undoes what it has done when nobody answers.
        let _ended = match self.bound {
            true => self.child.kill(),
            false => rustix::net::shutdown(&self.socket, Shutdown::Both).map_err(Into::into),
        };
        let _reaped = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_the_first_on_path_that_can_be_executed() {
        let folder = std::env::temp_dir().join(format!("parhelion-criu-{}", std::process::id()));
        let (none, some) = (folder.join("none"), folder.join("some"));
        for folder in [&none, &some] {
            std::fs::create_dir_all(folder).unwrap();
        }
        std::fs::create_dir(none.join("criu")).unwrap();
        std::os::unix::fs::symlink("/bin/sh", some.join("criu")).unwrap();
        let path = std::env::join_paths([&none, &some]).unwrap();
        let find_on = |name: &Path, path| find_on(name.as_os_str(), path);
        let name = Path::new("criu");
        assert_eq!(find_on(name, &path), Some(some.join("criu")));
        assert_eq!(find_on(name, none.as_os_str()), None);
        // A path is that of the program, whatever is on PATH.
        assert_eq!(find_on(&none.join("criu"), &path), None);
        let given = some.join("criu");
        assert_eq!(find_on(&given, none.as_os_str()), Some(given));
        std::fs::remove_dir_all(folder).unwrap();
    }
}
