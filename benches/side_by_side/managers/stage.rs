//! Where programs say that they were executed: a datagram socket in a folder that every container sees.

use std::fs;
use std::io::{IoSliceMut, Result as IoResult};
use std::mem::MaybeUninit;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg, sockopt::set_socket_passcred,
};
use rustix::process::Pid;
use rustix::time::{ClockId, clock_gettime};

use crate::host::Host;

/// Where the folder is in a container.
pub const INSIDE: &str = "/bench";

/// How long is waited for a program; the virtual host is ten times slower than a real one.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a program has said: nanoseconds of CLOCK_MONOTONIC.
#[derive(Clone, Copy)]
pub struct Said {
    pub pid: Pid,
    pub executed: u64,
    /// The first and the last line, where it has printed some.
    pub printed: [u64; 2],
}

pub struct Stage {
    pub folder: PathBuf,
    news: Receiver<Said>,
}

impl Stage {
    pub fn new(host: &Host) -> Result<Stage> {
        let folder = host.folder.join("stage");
        fs::create_dir_all(&folder)?;
        let path = folder.join("socket");
        if path.exists() {
            fs::remove_file(&path)?;
        }
        let socket = UnixDatagram::bind(&path).with_context(|| format!("bind {path:?}"))?;
        set_socket_passcred(&socket, true).context("SO_PASSCRED")?;
        let (say, news) = channel();
        // Programs are not to wait for each other: few messages fit into a socket. It ends with the next one after
        // nobody hears it.
        thread::spawn(move || {
            while let Ok(said) = hear(&socket) {
                if said.is_some_and(|said| say.send(said).is_err()) {
                    break;
                }
            }
        });
        Ok(Stage { folder, news })
    }

    /// The socket as containers see it.
    pub fn inside() -> String {
        format!("{INSIDE}/socket")
    }

    /// The next program that was executed; None when none comes.
    pub fn next(&self) -> Result<Option<Said>> {
        match self.news.recv_timeout(PATIENCE) {
            Ok(said) => Ok(Some(said)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => anyhow::bail!("the socket has failed"),
        }
    }

    pub fn until_all_run(&self, count: usize) -> Result<Vec<Said>> {
        let mut all = Vec::with_capacity(count);
        while all.len() < count {
            let next = self.next()?;
            all.push(next.with_context(|| format!("{} of {count} run", all.len()))?);
        }
        Ok(all)
    }
}

/// Nanoseconds, as programs say them.
pub fn now() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let (seconds, nanos) = (now.tv_sec.cast_unsigned(), now.tv_nsec.cast_unsigned());
    seconds * 1_000_000_000 + nanos
}

/// A message with who has sent it; None for one that is no program's.
fn hear(socket: &UnixDatagram) -> IoResult<Option<Said>> {
    let mut text = [0_u8; 24];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(&mut text)];
    recvmsg(socket, &mut parts, &mut control, RecvFlags::empty())?;
    let mut sender = None;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmCredentials(who) = message {
            sender = Some(who.pid);
        }
    }
    let number = |at: usize| u64::from_ne_bytes(text[at..at + 8].try_into().unwrap_or_default());
    Ok(sender.map(|pid| Said {
        pid,
        executed: number(0),
        printed: [number(8), number(16)],
    }))
}
