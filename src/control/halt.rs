//! The end of all instances of a host that is going down: `parheliond --halt`, which systemd calls then.
//!
//! The daemon does it, so that whoever asks it meanwhile hears that nothing is ready. Where there is none, this process is
//! the agent for so long: keepers hold their instances without a daemon, and are to stop them all the same.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::time::timeout;

use super::{Options, place};
use crate::agent;
use crate::api::{Halt, Host};
use crate::error;

/// How much longer than instances may take is waited for them: killed processes and their containers go soon.
const MORE: Duration = Duration::from_secs(10);

/// How long the daemon may take for an answer; it waits for instances itself for a part of it.
const ANSWER: Duration = Duration::from_secs(30);

/// Ends all instances within this time.
///
/// # Errors
///
/// Some have not ended; or neither a daemon nor the state directory can be had.
pub async fn halt(options: &Options, within: Duration) -> Result<()> {
    place::own(&options.state).context("--state")?;
    let left = match agent::start_halting(options.agent()?, within).await {
        Ok(agent) => alone(agent, within + MORE).await,
        // Who has the lock is the daemon.
        Err(locked) => match ask(options, within).await {
            Ok(left) => left,
            Err(problem) => {
                let locked = error::in_words(&locked);
                return Err(problem.context(format!("not without the daemon: {locked}")));
            }
        },
    };
    match left {
        0 => Ok(()),
        _ => bail!("{left} instances have not ended within {within:?}"),
    }
}

/// Without a daemon: how many are left at the end.
async fn alone(agent: agent::Handle, limit: Duration) -> usize {
    let mut snapshots = agent.snapshots();
    let ended = snapshots.wait_for(|snapshot| snapshot.halting == Some(0));
    let ended = timeout(limit, ended).await.is_ok();
    let left = snapshots.borrow().halting.unwrap_or_default();
    agent.stop().await;
    if ended { 0 } else { left }
}

/// Asks the daemon until there is nothing left, or the end: how many are left.
async fn ask(options: &Options, within: Duration) -> Result<usize> {
    let (host, mut left) = (options.host()?, None);
    let asking = async {
        while left != Some(0) {
            let (socket, host) = (options.socket.clone(), host.clone());
            let asked = tokio::task::spawn_blocking(move || ask_once(&socket, &host, within));
            let told = asked.await.context("a thread")??;
            left = Some(told.halting.context("the daemon does not halt")?);
        }
        anyhow::Ok(())
    };
    match timeout(within + MORE, asking).await {
        Ok(asked) => asked.map(|()| 0),
        Err(_) => left.context("the daemon does not answer"),
    }
}

fn ask_once(socket: &Path, host: &str, within: Duration) -> Result<Host> {
    let seconds = u32::try_from(within.as_secs()).unwrap_or(u32::MAX);
    let body = serde_json::to_string(&Halt { within: seconds }).context("the request")?;
    let answer = post(socket, &format!("/v1/hosts/{host}/halt"), &body);
    let answer = answer.with_context(|| format!("ask the daemon at {socket:?}"))?;
    let (head, text) = answer.split_once("\r\n\r\n").unwrap_or_default();
    if !head.starts_with("HTTP/1.1 200 ") {
        let status = head.lines().next().unwrap_or("nothing");
        bail!("the daemon at {socket:?} answers {status:?} {text}");
    }
    serde_json::from_str(text).with_context(|| format!("the daemon at {socket:?} answers {text:?}"))
}

/// One request; all that is answered.
fn post(socket: &Path, path: &str, body: &str) -> std::io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(ANSWER))?;
    stream.set_write_timeout(Some(ANSWER))?;
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nHost: parheliond\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
