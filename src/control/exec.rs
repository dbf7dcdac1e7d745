//! A further program inside an instance, for a client: `parhelion exec` is started, and what it says goes through the
//! upgraded connection as frames.
//!
//! Where requests are read, no program can be started ([`super::jail`]): sessions are handed to the daemon's main
//! thread.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result};
use hyper_util::rt::TokioIo;
use rustix::process::{Pid, Signal, kill_process};
use rustix::termios::Winsize;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::mpsc;

use super::terminal;
use crate::api::exec::{Frame, HEADER};
use crate::error;
use crate::sys::polled::polled;

/// How many sessions may wait to begin.
const WAITING: usize = 16;

/// How much output is read at once.
const BLOCK: usize = 16 << 10;

/// Variables of the daemon's that are not for others.
const OWN: [&str; 6] = [
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "LISTEN_FDS",
    "LISTEN_PID",
    super::socket::KEPT,
];

/// Where sessions are handed to.
pub type Door = mpsc::Sender<Session>;

/// What is to be run, for whom.
pub struct Session {
    /// The arguments of `parhelion`, from `--root` on, without what is said about the terminal.
    pub before: Vec<String>,
    /// Those after it: the id, the program and its arguments.
    pub after: Vec<String>,
    /// The size of the terminal, if there is to be one.
    pub terminal: Option<(u16, u16)>,
    /// The connection, once it is upgraded.
    pub upgrade: hyper::upgrade::OnUpgrade,
}

/// The door and the sessions that come through it.
pub fn door() -> (Door, mpsc::Receiver<Session>) {
    mpsc::channel(WAITING)
}

/// Runs every session that comes.
pub async fn serve(runtime: PathBuf, run: PathBuf, mut sessions: mpsc::Receiver<Session>) {
    let mut number = 0_u64;
    while let Some(session) = sessions.recv().await {
        number += 1;
        let socket = run.join(format!("terminal-{}-{number}", std::process::id()));
        let runtime = runtime.clone();
        tokio::spawn(async move {
            if let Err(problem) = run_session(&runtime, &socket, session).await {
                error::debug(|| format!("exec: {}", error::in_words(&problem)));
            }
        });
    }
}

type Connection = TokioIo<hyper::upgrade::Upgraded>;

async fn run_session(runtime: &Path, socket: &Path, session: Session) -> Result<()> {
    let Session {
        before,
        after,
        terminal,
        upgrade,
    } = session;
    let connection = TokioIo::new(upgrade.await.context("the upgrade")?);
    let mut command = Command::new(runtime);
    command.args(before).kill_on_drop(true);
    for name in OWN {
        command.env_remove(name);
    }
    match terminal {
        None => without_terminal(command, &after, connection).await,
        Some(size) => with_terminal(command, &after, connection, socket, size).await,
    }
}

async fn tell<W: AsyncWriteExt + Unpin>(to: &mut W, frame: Frame) -> io::Result<()> {
    to.write_all(&frame.bytes()).await?;
    to.flush().await
}

fn signal(child: &Child, number: i32) {
    let pid = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
    if let (Some(pid), Some(signal)) = (pid, Signal::from_named_raw(number)) {
        // One that has just ended needs none.
        let _ended = kill_process(pid, signal);
    }
}

fn code(status: io::Result<std::process::ExitStatus>) -> i32 {
    use std::os::unix::process::ExitStatusExt as _;
    let killed = |status: std::process::ExitStatus| status.signal().map(|signal| 128 + signal);
    match status {
        Ok(status) => status.code().or_else(|| killed(status)).unwrap_or(255),
        Err(_) => 255,
    }
}

async fn without_terminal(
    mut command: Command,
    after: &[String],
    connection: Connection,
) -> Result<()> {
    let piped = command.args(after).stdin(Stdio::piped());
    let piped = piped.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().context("the runtime")?;
    let (mut from, mut to) = tokio::io::split(connection);
    let mut input = child.stdin.take();
    let mut output = child.stdout.take().context("a pipe")?;
    let mut errors = child.stderr.take().context("a pipe")?;
    let (mut printed, mut complained) = (vec![0; BLOCK], vec![0; BLOCK]);
    let (mut output_ends, mut errors_end) = (false, false);
    let mut frames = frames(&mut from);
    while !(output_ends && errors_end) {
        tokio::select! {
            count = output.read(&mut printed), if !output_ends => match count {
                Ok(0) | Err(_) => output_ends = true,
                Ok(count) => tell(&mut to, Frame::Output(printed[..count].to_vec())).await?,
            },
            count = errors.read(&mut complained), if !errors_end => match count {
                Ok(0) | Err(_) => errors_end = true,
                Ok(count) => tell(&mut to, Frame::Error(complained[..count].to_vec())).await?,
            },
            frame = frames.next() => match frame {
                Some(Frame::Input(bytes)) => give(&mut input, &bytes).await,
                Some(Frame::Signal(number)) => signal(&child, number),
                Some(Frame::Output(_) | Frame::Error(_) | Frame::Size { .. } | Frame::Exit(_)) => {}
                // Nobody is there any more: as at the end of a terminal.
                None => {
                    signal(&child, libc::SIGHUP);
                    return child.wait().await.map(drop).context("the runtime");
                }
            },
        }
    }
    drop(input);
    tell(&mut to, Frame::Exit(code(child.wait().await))).await?;
    to.shutdown().await.context("the connection")
}

async fn give(input: &mut Option<ChildStdin>, bytes: &[u8]) {
    let is_open = match (bytes.is_empty(), input.as_mut()) {
        (false, Some(pipe)) => pipe.write_all(bytes).await.is_ok(),
        (true, _) | (_, None) => false,
    };
    if !is_open {
        *input = None;
    }
}

/// Frames that come one after the other; a future of [`Frames::next`] may be dropped without loss.
struct Frames<'a, R> {
    from: &'a mut R,
    got: Vec<u8>,
    ended: bool,
}

fn frames<R: AsyncReadExt + Unpin>(from: &mut R) -> Frames<'_, R> {
    Frames {
        from,
        got: Vec::new(),
        ended: false,
    }
}

impl<R: AsyncReadExt + Unpin> Frames<'_, R> {
    async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some((header, rest)) = self.got.split_first_chunk::<HEADER>() {
                let (header, length) = (*header, Frame::length(*header)?);
                if rest.len() >= length {
                    let payload = rest[..length].to_vec();
                    self.got.drain(..HEADER + length);
                    return Frame::parse(header, payload);
                }
            }
            if self.ended {
                return None;
            }
            // Appends what has come, or nothing when it is dropped.
            match self.from.read_buf(&mut self.got).await {
                Ok(0) | Err(_) => self.ended = true,
                Ok(_) => {}
            }
        }
    }
}

async fn with_terminal(
    mut command: Command,
    after: &[String],
    connection: Connection,
    socket: &Path,
    size: (u16, u16),
) -> Result<()> {
    let listener = terminal::listen(socket)?;
    command.arg("--tty").arg("--console-socket").arg(socket);
    command.args(after).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().context("the runtime")?;
    let (mut from, mut to) = tokio::io::split(connection);
    let master = tokio::select! {
        master = terminal::receive(&listener) => Some(master?),
        _ = child.wait() => None,
    };
    drop(std::fs::remove_file(socket));
    let Some(master) = master else {
        let mut told = Vec::new();
        if let Some(mut errors) = child.stderr.take() {
            errors.read_to_end(&mut told).await?;
        }
        tell(&mut to, Frame::Error(told)).await?;
        tell(&mut to, Frame::Exit(code(child.wait().await))).await?;
        return to.shutdown().await.context("the connection");
    };
    resize(&master, size);
    let master = polled(master).context("the terminal")?;
    if relay(&master, &mut child, &mut frames(&mut from), &mut to).await? {
        tell(&mut to, Frame::Exit(code(child.wait().await))).await?;
        return to.shutdown().await.context("the connection");
    }
    // The terminal hangs up when its last descriptor is closed.
    drop(master);
    child.wait().await.map(drop).context("the runtime")
}

/// Copies both ways until the program has ended; answers whether the client is still there.
async fn relay<R, W>(
    master: &AsyncFd<OwnedFd>,
    child: &mut Child,
    frames: &mut Frames<'_, R>,
    to: &mut W,
) -> Result<bool>
where
    R: AsyncReadExt + Unpin,
    W: AsyncWriteExt + Unpin,
{
    let mut block = vec![0; BLOCK];
    loop {
        tokio::select! {
            // What was printed comes before the end.
            biased;
            count = terminal::read(master, &mut block) => match count {
                // A terminal that nobody holds any more answers EIO.
                Ok(0) | Err(_) => return Ok(true),
                Ok(count) => tell(to, Frame::Output(block[..count].to_vec())).await?,
            },
            frame = frames.next() => match frame {
                Some(Frame::Input(bytes)) => {
                    if terminal::write(master, &bytes).await.is_err() {
                        return Ok(true);
                    }
                }
                Some(Frame::Size { columns, rows }) => resize(master.get_ref(), (columns, rows)),
                Some(Frame::Signal(number)) => signal(child, number),
                Some(Frame::Output(_) | Frame::Error(_) | Frame::Exit(_)) => {}
                None => return Ok(false),
            },
            // What it has left behind may hold the terminal for ever.
            _ = child.wait() => return Ok(true),
        }
    }
}

fn resize(master: &OwnedFd, (columns, rows): (u16, u16)) {
    let size = Winsize {
        ws_col: columns,
        ws_row: rows,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // A size that the terminal does not take changes nothing that matters.
    let _same = rustix::termios::tcsetwinsize(master, size);
}
