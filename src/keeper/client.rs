//! What a person asks a keeper, and waits for.

use std::os::fd::AsFd as _;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::control::{Connection, Refusal, Request};
use super::orders::open_directory;
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
        tell(&parse(&text)?)?;
    }
    Ok(())
}

/// Asks for something and waits until it is so: with a stop, that nothing is left; with a start or a
/// restart, that a new program runs; with `unhealthy`, that the old one has ended.
///
/// # Errors
///
/// There is no keeper, or it has gone meanwhile; or the attempt has failed, and why.
pub fn ask(directory: &Path, request: &Request) -> Result<()> {
    let connection = connect(directory)?;
    connection.ask(&Request::Watch)?;
    let before = next(&connection)?;
    connection.ask(request)?;
    // What is sent before the answer was so before.
    let mut now = next(&connection)?;
    while !is_done(request, &before, &now)? {
        now = next(&connection)?;
    }
    Ok(())
}

fn is_done(request: &Request, before: &Status, now: &Status) -> Result<bool> {
    let attempts = |status: &Status| status.state.counts.attempts;
    let runs = matches!(now.state.phase, Phase::Running { .. });
    match request {
        Request::Status | Request::Watch => Ok(true),
        Request::Stop => Ok(!now.state.wanted && matches!(now.state.phase, Phase::Resting { .. })),
        Request::Start if runs => Ok(true),
        Request::Start | Request::Restart => {
            if attempts(now) == attempts(before) {
                return Ok(false);
            }
            let failed = |attempt: &&status::Attempt| {
                attempt.number > attempts(before)
                    && attempt.pid.is_none()
                    && attempt.ended.is_some()
            };
            match now.attempts.iter().find(failed) {
                Some(attempt) => {
                    let reason = attempt.reason.as_deref().unwrap_or("it ended at once");
                    bail!("{reason}: it is tried again by its policy: parhelion keeper watch DIR")
                }
                None => Ok(runs
                    || now
                        .attempts
                        .iter()
                        .any(|a| a.number > attempts(before) && a.pid.is_some())),
            }
        }
        Request::Unhealthy { .. } => Ok(!matches!(
            now.state.phase,
            Phase::Running { .. } | Phase::Stopping { .. }
        )),
    }
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

fn parse(text: &[u8]) -> Result<Status> {
    if let Ok(Refusal { error }) = serde_json::from_slice(text) {
        bail!("the keeper refuses: {error}");
    }
    serde_json::from_slice(text).context("what the keeper has answered is not understood")
}
