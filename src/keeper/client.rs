//! What a person asks a keeper, and waits for.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;

use super::control::{Answer, Connection, Refusal, Request};
use super::door::{Command, Ran};
use super::orders::{lock, open_directory};
use super::policy::Phase;
use super::status::{self, Status};

/// Asks for the status.
///
/// # Errors
///
/// There is no keeper.
pub fn status(directory: &Path) -> Result<Status> {
    let connection = connect(directory)?;
    connection.ask(&Request::Status)?;
    next(&connection)
}

/// Tells `tell` the status now and with every change, until the keeper ends.
///
/// # Errors
///
/// There is no keeper; what `tell` answered.
pub fn watch(directory: &Path, mut tell: impl FnMut(&Status) -> Result<()>) -> Result<()> {
    let connection = connect(directory)?;
    connection.ask(&Request::Watch)?;
    while let Some(text) = connection.hear()? {
        tell(&parse::<Status>(&text)?)?;
    }
    Ok(())
}

/// Asks for something and waits until it is so: with a stop, that nothing is left; with a start, that a
/// program runs; with a restart, that a new one does, which may just be being made; with `unhealthy`, that
/// the old one has ended.
///
/// # Errors
///
/// There is no keeper, or it has gone meanwhile; or the attempt has failed, and why.
pub fn ask(directory: &Path, request: &Request) -> Result<()> {
    let connection = connect(directory)?;
    connection.ask(request)?;
    let asked = next(&connection)?;
    connection.ask(&Request::Watch)?;
    while !is_done(request, &asked, &next(&connection)?)? {}
    Ok(())
}

/// A command in a container that was asked for: see [`check`].
#[derive(Debug)]
pub struct Check(Connection);

/// Asks for a command in a container, and does not wait: who has an event loop waits until
/// [`Check::as_fd`](AsFd::as_fd) can be read. Dropped before, the command is ended.
///
/// # Errors
///
/// There is no keeper.
pub fn check(directory: &Path, command: Command) -> Result<Check> {
    let connection = connect(directory)?;
    connection.ask(&Request::Exec(command))?;
    Ok(Check(connection))
}

impl AsFd for Check {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Check {
    /// What came of it; waits until it is there.
    ///
    /// # Errors
    ///
    /// It could not be executed, and why; the keeper has ended.
    pub fn end(self) -> Result<Ran> {
        let text = self.0.hear()?.context("the keeper has ended")?;
        let answer: Answer = parse(&text)?;
        Ok(answer.exec)
    }
}

/// Whether it is so now, by the status with which the request was answered. What came and went in between
/// is seen by the number of attempts.
fn is_done(request: &Request, asked: &Status, now: &Status) -> Result<bool> {
    let begun = asked.state.counts.attempts;
    let went_on = now.state.counts.attempts > begun;
    match request {
        Request::Status | Request::Watch | Request::Exec(_) => Ok(true),
        Request::Stop | Request::Halt { .. } => {
            Ok(went_on || matches!(now.state.phase, Phase::Resting { .. }))
        }
        Request::Start | Request::Restart => match asked.state.phase {
            // What is being made, or runs already, is what was asked for.
            Phase::Starting { .. } | Phase::Running { .. } => has_run(begun, now),
            Phase::Resting { .. }
            | Phase::Waiting { .. }
            | Phase::Stopping { .. }
            | Phase::Removing { .. } => has_run(begun + 1, now),
        },
        Request::Unhealthy { .. } => Ok(went_on
            || !matches!(
                now.state.phase,
                Phase::Running { .. } | Phase::Stopping { .. }
            )),
    }
}

/// Whether the programs of this attempt, or of one after it, were executed.
fn has_run(number: u64, now: &Status) -> Result<bool> {
    for attempt in now.attempts.iter().filter(|one| one.number >= number) {
        if attempt.programs.iter().all(|program| program.pid.is_some()) {
            return Ok(true);
        }
        if attempt.ended.is_some() {
            let reason = attempt.reason.as_deref().unwrap_or("it ended at once");
            bail!("{reason}: when it is tried again says parhelion keeper status DIR");
        }
    }
    Ok(false)
}

/// Connects to the keeper of the instance in this directory; None when there is none.
///
/// # Errors
///
/// There is no such directory; what the kernel answered.
pub fn find(directory: &Path) -> Result<Option<Connection>> {
    Connection::open(open_directory(directory)?.as_fd())
}

/// Who is at the socket at this moment.
#[derive(Debug)]
pub enum Now {
    /// A keeper, to which this is the connection.
    Connected(Connection),
    /// A keeper at which so many wait that no more may: it is stuck, or slow.
    Full,
    /// No keeper.
    Nobody,
}

/// Looks for the keeper of the instance in this directory, and does not wait for it.
///
/// # Errors
///
/// There is no such directory; what the kernel answered.
pub fn find_now(directory: &Path) -> Result<Now> {
    Connection::open_now(open_directory(directory)?.as_fd())
}

/// Takes the lock that keeps keepers out of this directory, for as long as the descriptor is open. One that
/// has just ended may have it for another moment.
///
/// # Errors
///
/// A keeper is there; or the lock is not given back.
pub fn keep_out(directory: &Path) -> Result<OwnedFd> {
    lock(open_directory(directory)?.as_fd())
}

fn connect(directory: &Path) -> Result<Connection> {
    let opened = open_directory(directory)?;
    let connection = Connection::open(opened.as_fd())?;
    connection.with_context(|| {
        let file = directory.join(status::FILE);
        format!("no keeper is there: start one by parhelion keep {directory:?}; what the last one knew is in {file:?}")
    })
}

fn next(connection: &Connection) -> Result<Status> {
    let text = connection.hear()?.context("the keeper has ended")?;
    parse(&text)
}

fn parse<T: DeserializeOwned>(text: &[u8]) -> Result<T> {
    if let Ok(Refusal { error }) = serde_json::from_slice(text) {
        bail!("the keeper refuses: {error}");
    }
    serde_json::from_slice(text).context("what the keeper has answered is not understood")
}
