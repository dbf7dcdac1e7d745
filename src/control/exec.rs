//! A further program inside an instance, for a client: `parhelion exec` is started, and what it says goes through the
//! upgraded connection as frames.
//!
//! Where requests are read, no program can be started ([`super::jail`]): sessions are handed to the daemon's main
//! thread.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result};
use hyper_util::rt::TokioIo;
use rustix::process::Rlimit;
use rustix::termios::Winsize;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::process::{ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{sleep, timeout};

use super::program::{Files, Program, signal};
use super::terminal;
use crate::api::exec::{Frame, HEADER};
use crate::error;
use crate::sys::command::{Start, prepare};
use crate::sys::polled::polled;

/// How many sessions may wait to begin.
const WAITING: usize = 16;

/// How many sessions there may be at once: each is a connection, and some processes.
pub const SESSIONS: usize = 128;

/// How much output is read at once.
const BLOCK: usize = 16 << 10;

/// After what time without output it is looked whether the client is still there: one that is gone is not seen in what
/// it sends while the program takes no input.
const PROBE: Duration = Duration::from_secs(15);

/// How long the terminal is still read when its program has ended, and something that it has left behind holds it.
const LATE: Duration = Duration::from_millis(500);

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
    /// One of the places that there are, for as long as it lasts.
    pub place: OwnedSemaphorePermit,
}

/// The door and the sessions that come through it.
pub fn door() -> (Door, mpsc::Receiver<Session>) {
    mpsc::channel(WAITING)
}

/// What runs programs inside instances.
#[derive(Debug, Clone)]
pub struct Runtime {
    /// The program.
    pub program: PathBuf,
    /// How many files it may have open, and so what it runs.
    pub open_files: Rlimit,
}

impl Runtime {
    fn command(&self) -> Command {
        let mut command = std::process::Command::new(&self.program);
        let start = Start {
            open_files: Some(self.open_files),
            ..Start::default()
        };
        prepare(&mut command, start);
        for name in OWN {
            command.env_remove(name);
        }
        Command::from(command)
    }
}

/// Runs every session that comes; its files are below `run`.
pub async fn serve(runtime: Runtime, run: PathBuf, mut sessions: mpsc::Receiver<Session>) {
    let mut number = 0_u64;
    while let Some(session) = sessions.recv().await {
        number += 1;
        let name = format!("{}-{number}", std::process::id());
        let files = Files {
            socket: run.join(format!("terminal-{name}")),
            pid: run.join(format!("pid-{name}")),
        };
        let runtime = runtime.clone();
        tokio::spawn(async move {
            if let Err(problem) = run_session(&runtime, files, session).await {
                error::debug(|| format!("exec: {}", error::in_words(&problem)));
            }
        });
    }
}

type Connection = TokioIo<hyper::upgrade::Upgraded>;
type To = WriteHalf<Connection>;
type From<'a> = Frames<'a, ReadHalf<Connection>>;

async fn run_session(runtime: &Runtime, files: Files, session: Session) -> Result<()> {
    let Session {
        before,
        after,
        terminal,
        upgrade,
        place: _place,
    } = session;
    let connection = TokioIo::new(upgrade.await.context("the upgrade")?);
    let (mut from, mut to) = tokio::io::split(connection);
    let mut from = frames(&mut from);
    let mut command = runtime.command();
    command.args(before).arg("--pid-file").arg(&files.pid);
    command.kill_on_drop(true);
    let ran = match terminal {
        None => without_terminal(command, &after, files, &mut from, &mut to).await,
        Some(size) => with_terminal(command, &after, files, size, &mut from, &mut to).await,
    };
    let code = match &ran {
        Ok(Some(code)) => *code,
        Ok(None) => return Ok(()),
        Err(problem) => {
            let words = format!("parheliond: {}\n", error::in_words(problem));
            tell(&mut to, Frame::Error(words.into_bytes())).await?;
            255
        }
    };
    tell(&mut to, Frame::Exit(code)).await?;
    to.shutdown().await.context("the connection")?;
    ran.map(drop)
}

async fn tell<W: AsyncWriteExt + Unpin>(to: &mut W, frame: Frame) -> io::Result<()> {
    to.write_all(&frame.bytes()).await?;
    to.flush().await
}

/// Runs it with three pipes; its exit code, or None when the client has gone.
async fn without_terminal(
    mut command: Command,
    after: &[String],
    files: Files,
    from: &mut From<'_>,
    to: &mut To,
) -> Result<Option<i32>> {
    let piped = command.args(after).stdin(Stdio::piped());
    let piped = piped.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut program = Program::spawn(piped, files)?;
    let mut input = program.child.stdin.take();
    let output = program.child.stdout.take().context("a pipe")?;
    let errors = program.child.stderr.take().context("a pipe")?;
    let pid = program.pid();
    let hearing = async {
        while let Some(frame) = from.next().await {
            match frame {
                Frame::Input(bytes) => give(&mut input, &bytes).await,
                Frame::Signal(number) => signal(pid, number),
                Frame::Output(_) | Frame::Error(_) | Frame::Size { .. } | Frame::Exit(_) => {}
            }
        }
    };
    // Both at once: a program that waits until its output is taken takes no input.
    let is_there = tokio::select! {
        told = tell_all(output, errors, to) => told.is_ok(),
        () = hearing => false,
    };
    drop(input);
    match is_there {
        true => Ok(Some(program.code().await)),
        false => program.end().await.map(|()| None),
    }
}

/// Tells what comes through both pipes, to their ends.
async fn tell_all(mut output: ChildStdout, mut errors: ChildStderr, to: &mut To) -> io::Result<()> {
    let (mut printed, mut complained) = (vec![0; BLOCK], vec![0; BLOCK]);
    let (mut output_ends, mut errors_end) = (false, false);
    while !(output_ends && errors_end) {
        tokio::select! {
            count = output.read(&mut printed), if !output_ends => match count {
                Ok(0) | Err(_) => output_ends = true,
                Ok(count) => tell(to, Frame::Output(printed[..count].to_vec())).await?,
            },
            count = errors.read(&mut complained), if !errors_end => match count {
                Ok(0) | Err(_) => errors_end = true,
                Ok(count) => tell(to, Frame::Error(complained[..count].to_vec())).await?,
            },
            () = sleep(PROBE) => tell(to, Frame::Output(Vec::new())).await?,
        }
    }
    Ok(())
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

/// Runs it with a terminal; its exit code, or None when the client has gone.
async fn with_terminal(
    mut command: Command,
    after: &[String],
    files: Files,
    size: (u16, u16),
    from: &mut From<'_>,
    to: &mut To,
) -> Result<Option<i32>> {
    let listener = terminal::listen(&files.socket)?;
    command
        .arg("--tty")
        .arg("--console-socket")
        .arg(&files.socket);
    command.args(after).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut program = Program::spawn(&mut command, files)?;
    let master = tokio::select! {
        master = terminal::receive(&listener) => Some(master?),
        _ = program.child.wait() => None,
    };
    let Some(master) = master else {
        let mut told = Vec::new();
        if let Some(mut errors) = program.child.stderr.take() {
            errors.read_to_end(&mut told).await?;
        }
        tell(to, Frame::Error(told)).await?;
        return Ok(Some(program.code().await));
    };
    resize(&master, size);
    let master = polled(master).context("the terminal")?;
    if relay(&master, &mut program, from, to).await {
        return Ok(Some(program.code().await));
    }
    // The terminal hangs up when its last descriptor is closed.
    drop(master);
    program.end().await.map(|()| None)
}

/// Copies both ways until the program has ended; answers whether the client is still there.
async fn relay(
    master: &AsyncFd<OwnedFd>,
    program: &mut Program,
    from: &mut From<'_>,
    to: &mut To,
) -> bool {
    let pid = program.pid();
    let hearing = async {
        while let Some(frame) = from.next().await {
            match frame {
                // A terminal that nobody holds any more is seen where it is read.
                Frame::Input(bytes) => drop(terminal::write(master, &bytes).await),
                Frame::Size { columns, rows } => resize(master.get_ref(), (columns, rows)),
                Frame::Signal(number) => signal(pid, number),
                Frame::Output(_) | Frame::Error(_) | Frame::Exit(_) => {}
            }
        }
    };
    let mut telling = std::pin::pin!(tell_terminal(master, to));
    tokio::select! {
        // What is typed is heard however much is printed, and what was printed comes before the end.
        biased;
        () = hearing => false,
        told = &mut telling => told.is_ok(),
        _ = program.child.wait() => {
            // What it has left behind may hold the terminal for ever.
            let rest = timeout(LATE, telling).await;
            rest.is_err() || matches!(rest, Ok(Ok(())))
        }
    }
}

/// Tells what is printed, until nobody holds the terminal any more.
async fn tell_terminal(master: &AsyncFd<OwnedFd>, to: &mut To) -> io::Result<()> {
    let mut block = vec![0; BLOCK];
    loop {
        tokio::select! {
            count = terminal::read(master, &mut block) => match count {
                // A terminal that nobody holds any more answers EIO.
                Ok(0) | Err(_) => return Ok(()),
                Ok(count) => tell(to, Frame::Output(block[..count].to_vec())).await?,
            },
            () = sleep(PROBE) => tell(to, Frame::Output(Vec::new())).await?,
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
