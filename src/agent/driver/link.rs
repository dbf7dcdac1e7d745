//! One keeper: found or started, listened to, asked.
//!
//! A keeper is a session of its own and outlives this process; it is found again by its directory. Of each
//! instance there is at most one of these at a time.

use std::fs::OpenOptions;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::process::{Child, Command};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{sleep, timeout};

use super::{Host, Inbox, Input, place};
use crate::agent::reconcile::{Begin, Event, Name};
use crate::agent::report::Told;
use crate::api::Phase;
use crate::error;
use crate::keeper::status::Status;
use crate::keeper::{Connection, FOLDER, Now, Request, STREAMS, client};
use crate::sys::Errno;
use crate::sys::command::{Start, prepare};
use crate::sys::watched::Watched;

/// What a keeper tells people, for the case that it can not begin.
const WORDS: &str = "keeper.err";

/// How large that file may become, in bytes.
const WORDS_SIZE: u64 = 64 << 10;

/// How long a keeper may take until it answers: it waits up to 10 seconds for the lock of one that was killed.
const ANSWER: Duration = Duration::from_secs(60);

/// How long one at which too many wait may take until it takes another connection, and how often it is tried.
const CONNECT: Duration = Duration::from_secs(5);
const FULL: Duration = Duration::from_millis(50);

/// How long one that begins an instance counts as doing so, where its container takes its time.
const BEGINNING: Duration = Duration::from_secs(10);

/// How long one that is told to end may take before it is killed; its instance is at rest.
const END: Duration = Duration::from_secs(5);

/// What a link is told.
#[derive(Debug)]
pub enum Order {
    /// To ask its keeper.
    Ask(Request),
    /// To end its keeper.
    End,
}

/// A keeper that answers.
struct Kept {
    socket: Watched,
    /// None for one that was found.
    child: Option<Child>,
}

/// An instance's pipes, open so that what its program prints last is not lost while it has no keeper
/// (docs/decisions/0014).
pub type Pipes = Vec<OwnedFd>;

/// Finds or starts a keeper, and listens to it until it ends. What happens goes to `inbox`.
pub async fn run(
    host: Arc<Host>,
    name: Name,
    begin: Begin,
    mut commands: mpsc::UnboundedReceiver<Order>,
    inbox: Inbox,
) {
    let directory = host.directory(&name);
    let (mut kept, permit) = match keep(&host, &directory, begin).await {
        Ok(kept) => kept,
        Err(error) => {
            let why = error::in_words(&error);
            inbox.event(Event::NotKept(name, why));
            return;
        }
    };
    let pipes = open_pipes(&directory);
    inbox.send(Input::Kept(name.clone(), pipes));
    let task = place::task(&directory);
    let ended = listen(&kept.socket, (&name, &task), permit, &mut commands, &inbox).await;
    if ended == Ended::Asked {
        end(&mut kept).await;
    }
    if let Some(child) = &mut kept.child {
        // It is our child, and has ended or will in a moment: nothing else waits for it.
        let _ended = timeout(END, child.wait()).await;
    }
    inbox.event(Event::Lost(name));
}

/// How a conversation has ended.
#[derive(Debug, PartialEq, Eq)]
enum Ended {
    /// By the keeper.
    Gone,
    /// As it was told to end.
    Asked,
}

async fn listen(
    socket: &Watched,
    (name, task): (&Name, &str),
    permit: Option<OwnedSemaphorePermit>,
    commands: &mut mpsc::UnboundedReceiver<Order>,
    inbox: &Inbox,
) -> Ended {
    let mut permit = permit;
    let beginning = sleep(BEGINNING);
    tokio::pin!(beginning);
    if Connection::ask_now(socket.as_fd(), &Request::Watch).is_err() {
        return Ended::Gone;
    }
    loop {
        tokio::select! {
            told = hear(socket) => match told {
                Some(status) => {
                    let told = Told::new(status, task);
                    if !matches!(told.report.phase, Phase::Pending | Phase::Starting) {
                        permit = None;
                    }
                    inbox.send(Input::Told(name.clone(), Box::new(told)));
                }
                None => return Ended::Gone,
            },
            command = commands.recv() => match command {
                // One that has gone is told of by the socket; one that is stuck gets it later.
                Some(Order::Ask(request)) => drop(Connection::ask_now(socket.as_fd(), &request)),
                Some(Order::End) => return Ended::Asked,
                // The agent ends.
                None => return Ended::Gone,
            },
            () = &mut beginning, if permit.is_some() => permit = None,
        }
    }
}

/// The next status; None when the keeper has ended.
async fn hear(socket: &Watched) -> Option<Status> {
    loop {
        let mut ready = socket.readable().await.ok()?;
        match Connection::hear_now(socket.as_fd()) {
            Ok(Some(text)) => match serde_json::from_slice(&text) {
                Ok(status) => return Some(status),
                // Of another version: what it is understood from is the next one.
                Err(error) => {
                    error::warn(&format!("what a keeper tells is not understood: {error}"))
                }
            },
            Ok(None) => return None,
            Err(Errno::AGAIN) => ready.clear_ready(),
            Err(Errno::INTR) => {}
            Err(_) => return None,
        }
    }
}

/// Finds the keeper of a directory, or starts one.
async fn keep(
    host: &Arc<Host>,
    directory: &Path,
    begin: Begin,
) -> Result<(Kept, Option<OwnedSemaphorePermit>)> {
    // All at once: nobody waits for a keeper that is stuck but its own instance.
    if let Some(socket) = connect(directory).await? {
        let child = None;
        return Ok((Kept { socket, child }, None));
    }
    // Closed only when the whole agent is.
    let permit = host.beginning.clone().acquire_owned().await.ok();
    let mut child = start(host, directory, begin)?;
    let answers = timeout(ANSWER, until_it_answers(directory, &mut child)).await;
    match answers {
        Ok(Ok(socket)) => {
            let child = Some(child);
            Ok((Kept { socket, child }, permit))
        }
        Ok(Err(error)) => Err(error),
        Err(_) => {
            // It may be about to begin: two of them would be no better.
            child.start_kill().context("kill a keeper")?;
            child.wait().await.context("wait for a keeper")?;
            bail!("its keeper has not answered in {ANSWER:?}")
        }
    }
}

async fn until_it_answers(directory: &Path, child: &mut Child) -> Result<Watched> {
    // There is no event for a socket that is being made; a keeper takes some milliseconds.
    let mut pause = Duration::from_millis(2);
    loop {
        if let Some(socket) = connect(directory).await? {
            return Ok(socket);
        }
        if let Ok(ended) = timeout(pause, child.wait()).await {
            let ended = ended.context("wait for a keeper")?;
            // Another one may be there already, which an agent that has died had started.
            if let Some(socket) = connect(directory).await? {
                return Ok(socket);
            }
            bail!("its keeper has ended, {ended}: {}", last_words(directory));
        }
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

async fn connect(directory: &Path) -> Result<Option<Watched>> {
    let connecting = async {
        loop {
            match client::find_now(directory)? {
                Now::Connected(found) => {
                    let socket = Watched::new(found.into());
                    return socket.context("watch a keeper's socket").map(Some);
                }
                Now::Nobody => return Ok(None),
                // There is no event for a place in a socket's queue.
                Now::Full => sleep(FULL).await,
            }
        }
    };
    let connected = timeout(CONNECT, connecting).await;
    connected.context("its keeper is stuck: it takes no connection")?
}

fn start(host: &Host, directory: &Path, begin: Begin) -> Result<Child> {
    let words = open_words(directory)?;
    let mut command = std::process::Command::new(&host.options.runtime);
    command.arg("--root").arg(&host.options.root).arg("keep");
    match begin {
        Begin::Going => {}
        Begin::AtRest => drop(command.arg("--stop")),
        Begin::Halting => drop(command.arg("--halt")),
    }
    command.arg(directory);
    command.current_dir("/").env_clear();
    command.env(
        "PATH",
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    );
    command.stdin(Stdio::null());
    command
        .stdout(words.try_clone().context("keeper.err")?)
        .stderr(words);
    let start = Start {
        session: true,
        open_files: Some(host.open_files),
        ..Start::default()
    };
    prepare(&mut command, start);
    let spawned = Command::from(command).spawn();
    spawned.with_context(|| format!("start a keeper: {:?}", host.options.runtime))
}

fn open_words(directory: &Path) -> Result<std::fs::File> {
    let path = directory.join(WORDS);
    let is_large = std::fs::metadata(&path).is_ok_and(|file| file.len() > WORDS_SIZE);
    if is_large {
        std::fs::remove_file(&path).with_context(|| format!("remove {path:?}"))?;
    }
    let mut options = OpenOptions::new();
    let opened = options.append(true).create(true).mode(0o600).open(&path);
    opened.with_context(|| format!("open {path:?}"))
}

/// What a keeper has said last.
fn last_words(directory: &Path) -> String {
    let text = std::fs::read(directory.join(WORDS)).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    text.lines().last().unwrap_or("it said nothing").to_owned()
}

/// Ends a keeper whose instance is at rest.
async fn end(kept: &mut Kept) {
    let Ok(pid) = Connection::keeper(kept.socket.as_fd()) else {
        return;
    };
    let Some(process) = open_process(pid) else {
        return;
    };
    // It still has its socket, so the number is still its.
    if !is_open(&kept.socket) {
        return;
    }
    let _ended = pidfd_send_signal(&process, Signal::TERM);
    if timeout(END, process.readable()).await.is_err() {
        let _ended = pidfd_send_signal(&process, Signal::KILL);
        let _in_a_moment = timeout(END, process.readable()).await;
    }
}

fn open_process(pid: Pid) -> Option<Watched> {
    let process = pidfd_open(pid, PidfdFlags::NONBLOCK).ok()?;
    Watched::new(process).ok()
}

/// Whether the other end is still there, whatever it has said meanwhile.
fn is_open(socket: &Watched) -> bool {
    loop {
        match Connection::hear_now(socket.as_fd()) {
            Ok(Some(_not_of_use_any_more)) => {}
            Ok(None) => return false,
            Err(errno) => return errno == Errno::AGAIN,
        }
    }
}

/// The fifos of all tasks, wherever they are in the directory.
fn open_pipes(directory: &Path) -> Pipes {
    let logs = std::fs::read_dir(directory.join("logs"))
        .into_iter()
        .flatten();
    let groups = logs.flatten().map(|entry| entry.path());
    let folders = groups.chain([directory.to_owned()]);
    let streams = folders.flat_map(|folder| STREAMS.map(|stream| folder.join(FOLDER).join(stream)));
    streams.filter_map(|path| open_pipe(&path)).collect()
}

fn open_pipe(path: &Path) -> Option<OwnedFd> {
    // At both ends, as the keeper does: it never blocks.
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let fifo = rustix::fs::openat(CWD, path, flags, Mode::empty()).ok()?;
    let kind = FileType::from_raw_mode(rustix::fs::fstat(&fifo).ok()?.st_mode);
    (kind == FileType::Fifo).then_some(fifo)
}
