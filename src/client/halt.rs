//! Asking the daemon to end all instances of a host that is going down.

use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use hyper::Method;
use tokio::time::timeout;

use super::connection::{Client, quoted};
use super::failure::Failure;
use crate::api::{Halt, Host};

/// How long the daemon may take for an answer; it waits for instances itself for a part of it.
const ANSWER: Duration = Duration::from_secs(30);

/// Has the daemon at a socket end all instances of its host within a time, and waits for that until `limit`: how many are left
/// then.
///
/// # Errors
///
/// There is none; it does not answer; or it refuses.
pub fn halt(
    socket: PathBuf,
    host: String,
    within: Duration,
    limit: Duration,
) -> Pin<Box<dyn Future<Output = Result<usize>>>> {
    Box::pin(async move {
        let client = Client::new(socket, None);
        let mut left = None;
        let asking = async {
            while left != Some(0) {
                left = Some(ask(&client, &host, within).await?);
            }
            anyhow::Ok(())
        };
        match timeout(limit, asking).await {
            Ok(asked) => asked.map(|()| 0),
            Err(_) => left.context("the daemon does not answer"),
        }
    })
}

/// Asks once: how many are left.
async fn ask(client: &Client, host: &str, within: Duration) -> Result<usize> {
    let path = format!("/v1/hosts/{}/halt", quoted(host));
    let wish = Halt {
        within: u32::try_from(within.as_secs()).unwrap_or(u32::MAX),
    };
    let asked = client.ask(Method::POST, &path, &wish);
    let told: Host = timeout(ANSWER, asked)
        .await
        .context("the daemon does not answer")?
        .map_err(in_words)?;
    told.halting.context("the daemon does not halt")
}

fn in_words(failure: Failure) -> anyhow::Error {
    match failure {
        Failure::Told(problem) => anyhow!("{}: {}", problem.error, problem.hint),
        Failure::Closed => anyhow!("the daemon's answer is not there"),
    }
}
