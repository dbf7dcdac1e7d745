//! An agent as a process: told what to do by lines on its stdin, each answered by one on its stdout.

use std::io::{BufRead as _, Write as _};
use std::path::Path;

use parhelion::agent::{self, Handle, Options, Wanted};
use parhelion::api::Health;
use serde_json::{Value, json};
use tokio::sync::mpsc;

/// Runs an agent in this directory until its stdin ends.
pub fn run(directory: &Path) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(serve(directory));
}

async fn serve(directory: &Path) {
    let options = Options {
        network: parhelion::network::Options::default(),
        host: "here".into(),
        state: directory.join("agent"),
        runtime: std::env::var_os("AGENT_RUNTIME").unwrap().into(),
        root: directory.join("state"),
        cgroup_parent: "/parhelion-test".into(),
    };
    let agent = match agent::start(options).await {
        Ok(agent) => agent,
        Err(error) => return answer(&json!({ "error": format!("{error:#}") })),
    };
    answer(&json!("ready"));
    let (sender, mut lines) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            sender.send(line.unwrap()).unwrap();
        }
    });
    while let Some(line) = lines.recv().await {
        let (word, rest) = line.split_once(' ').unwrap_or((&line, ""));
        let answered = follow(&agent, word, rest).await;
        answer(&answered.unwrap_or_else(|error| json!({ "error": format!("{error:#}") })));
    }
    agent.stop().await;
}

fn answer(value: &Value) {
    let mut out = std::io::stdout().lock();
    // Whoever has killed us does not listen.
    let _ = writeln!(out, "{value}").and_then(|()| out.flush());
}

async fn follow(agent: &Handle, word: &str, rest: &str) -> anyhow::Result<Value> {
    match word {
        "want" => {
            let wanted: Wanted = serde_json::from_str(rest)?;
            agent.want(wanted).await?;
        }
        // Waits for one with a higher number.
        "snapshot" => {
            let after: u64 = rest.parse()?;
            let mut snapshots = agent.snapshots();
            let snapshot = snapshots.wait_for(|one| one.number > after).await?.clone();
            let instances: Vec<_> = snapshot
                .instances
                .iter()
                .map(|one| (**one).clone())
                .collect();
            let instances = serde_json::to_value(instances)?;
            return Ok(json!({ "number": snapshot.number, "instances": instances }));
        }
        // Waits for the next one.
        "event" => {
            let from: u64 = rest.parse()?;
            return Ok(serde_json::to_value(agent.events(from).next().await)?);
        }
        "restart" => agent.restart(rest, "a test").await?,
        "unhealthy" => agent.tell_health(rest, Health::Unhealthy, "a test"),
        "log" => return Ok(json!(agent.log(rest, "web")?)),
        _ => anyhow::bail!("{word:?} is not known"),
    }
    Ok(json!("done"))
}
