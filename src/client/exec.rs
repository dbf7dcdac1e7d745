//! A further program inside an instance, with this terminal or these streams.

use std::io::{self, IsTerminal as _};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::arguments;
use super::connection::{Client, quoted};
use super::failure::Failure;
use super::pick;
use super::terminal::{Ended, Raw};
use crate::api::Exec;
use crate::api::exec::{Frame, HEADER};

/// How much input is read at once.
const BLOCK: usize = 16 << 10;

/// Runs a program; its exit code.
pub async fn exec(client: &Client, said: arguments::Exec) -> Result<i32, Failure> {
    let instance = pick::one(client, &said.what).await?;
    let terminals = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let terminal = match said.tty && terminals {
        true => Some(crossterm::terminal::size().unwrap_or((80, 24))),
        false => None,
    };
    let mut exec = Exec {
        command: said.command,
        task: said.task,
        cwd: said.cwd,
        user: said.user,
        terminal,
        ..Exec::default()
    };
    for given in said.env {
        let Some((name, value)) = given.split_once('=') else {
            return Err(Failure::new(
                format!("--env {given:?}"),
                "write --env NAME=VALUE",
            ));
        };
        exec.env.insert(name.to_owned(), value.to_owned());
    }
    let path = format!("/v1/instances/{}/exec", quoted(&instance.name));
    let connection = client.upgrade(&path, &exec).await?;
    let (from, mut to) = tokio::io::split(connection);
    let raw = terminal.map(|_| Ok((Ended::new()?, Raw::new()?)));
    let mut raw = raw
        .transpose()
        .map_err(|e: io::Error| Failure::new(format!("the terminal: {e}"), "leave -t away"))?;
    let (frames, mut sent) = mpsc::channel(4);
    tell(frames, said.interactive, terminal.is_some())?;
    let sending = async {
        while let Some(frame) = sent.recv().await {
            if to.write_all(&frame.bytes()).await.is_err() || to.flush().await.is_err() {
                break;
            }
        }
        std::future::pending::<()>().await;
    };
    let code = tokio::select! {
        code = hear(from) => code,
        () = sending => None,
        // With a terminal, what is typed comes through it; these are for this program.
        number = ended(raw.as_mut().map(|(ended, _)| ended)) => Some(128 + number),
    };
    drop(raw);
    code.ok_or_else(|| {
        let hint = "the program has got a hang-up; see the daemon's log";
        Failure::new("the daemon has ended the connection", hint)
    })
}

/// The number of the signal that ends this; none where signals are the program's.
async fn ended(signals: Option<&mut Ended>) -> i32 {
    match signals {
        Some(signals) => signals.comes().await,
        None => std::future::pending().await,
    }
}

/// Prints what comes; the exit code, or None when there was none.
async fn hear(mut from: impl AsyncRead + Unpin) -> Option<i32> {
    let (mut output, mut errors) = (tokio::io::stdout(), tokio::io::stderr());
    loop {
        let mut header = [0; HEADER];
        from.read_exact(&mut header).await.ok()?;
        let mut payload = vec![0; Frame::length(header)?];
        from.read_exact(&mut payload).await.ok()?;
        match Frame::parse(header, payload)? {
            Frame::Output(bytes) => {
                output.write_all(&bytes).await.ok()?;
                output.flush().await.ok()?;
            }
            Frame::Error(bytes) => {
                errors.write_all(&bytes).await.ok()?;
                errors.flush().await.ok()?;
            }
            Frame::Exit(code) => return Some(code),
            Frame::Input(_) | Frame::Size { .. } | Frame::Signal(_) => {}
        }
    }
}

/// Sends what is typed, how large the terminal is, and which signals come.
fn tell(frames: mpsc::Sender<Frame>, interactive: bool, terminal: bool) -> Result<(), Failure> {
    let unheard = |e: std::io::Error| Failure::new(format!("signals: {e}"), "free descriptors");
    let input = frames.clone();
    tokio::spawn(async move {
        let mut stdin = tokio::io::stdin();
        let mut block = vec![0; BLOCK];
        if interactive {
            while let Ok(count @ 1..) = stdin.read(&mut block).await {
                let read = Frame::Input(block[..count].to_vec());
                if input.send(read).await.is_err() {
                    return;
                }
            }
        }
        // Its end. Nobody hears it when the program has ended.
        if !terminal {
            let _ended = input.send(Frame::Input(Vec::new())).await;
        }
    });
    if terminal {
        let mut resized = signal(SignalKind::window_change()).map_err(unheard)?;
        tokio::spawn(async move {
            while resized.recv().await.is_some() {
                let Ok((columns, rows)) = crossterm::terminal::size() else {
                    continue;
                };
                if frames.send(Frame::Size { columns, rows }).await.is_err() {
                    return;
                }
            }
        });
        return Ok(());
    }
    for kind in [SignalKind::interrupt(), SignalKind::terminate()] {
        let mut came = signal(kind).map_err(unheard)?;
        let frames = frames.clone();
        tokio::spawn(async move {
            while came.recv().await.is_some() {
                if frames
                    .send(Frame::Signal(kind.as_raw_value()))
                    .await
                    .is_err()
                {
                    return;
                }
            }
        });
    }
    Ok(())
}
