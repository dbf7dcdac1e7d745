//! The end of all instances of a host that is going down: `parheliond --halt`, which systemd calls then.
//!
//! The daemon does it, so that whoever asks it meanwhile hears that nothing is ready. Where there is none, this process is
//! the agent for so long: keepers hold their instances without a daemon, and are to stop them all the same.

use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::time::timeout;

use super::{Options, place};
use crate::agent;
use crate::error;

/// How much longer than instances may take is waited for them: killed processes and their containers go soon.
const MORE: Duration = Duration::from_secs(10);

/// Who asks the daemon at a socket to end all instances of a host within a time, waits for that until a limit, and tells how
/// many are left.
pub type Ask = fn(
    socket: PathBuf,
    host: String,
    within: Duration,
    limit: Duration,
) -> Pin<Box<dyn Future<Output = Result<usize>>>>;

/// Ends all instances within this time.
///
/// # Errors
///
/// Some have not ended; or neither a daemon nor the state directory can be had.
pub async fn halt(options: &Options, within: Duration, ask: Ask) -> Result<()> {
    place::own(&options.state).context("--state")?;
    let limit = within + MORE;
    let left = match agent::start_halting(options.agent()?, within).await {
        Ok(agent) => alone(agent, limit).await,
        // Who has the lock is the daemon.
        Err(locked) => {
            let asked = ask(options.socket.clone(), options.host()?, within, limit).await;
            asked
                .with_context(|| format!("not without the daemon: {}", error::in_words(&locked)))?
        }
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
