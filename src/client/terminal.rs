//! The user's terminal in raw mode, given back as it was, however this ends but by SIGKILL.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// A terminal in raw mode; as it was when this is dropped.
#[derive(Debug)]
pub struct Raw(());

impl Raw {
    /// Switches over.
    pub fn new() -> io::Result<Raw> {
        crossterm::terminal::enable_raw_mode()?;
        Ok(Raw(()))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // Nothing more can be done for a terminal that is gone.
        drop(crossterm::terminal::disable_raw_mode());
    }
}

/// The signals that end a program which has changed its terminal: it has to give it back before.
#[derive(Debug)]
pub struct Ended([(SignalKind, Signal); 4]);

impl Ended {
    /// Listens from now on.
    pub fn new() -> io::Result<Ended> {
        let of = |kind| signal(kind).map(|signal| (kind, signal));
        Ok(Ended([
            of(SignalKind::terminate())?,
            of(SignalKind::hangup())?,
            of(SignalKind::interrupt())?,
            of(SignalKind::quit())?,
        ]))
    }

    /// The number of the one that comes.
    pub async fn comes(&mut self) -> i32 {
        let [term, hup, int, quit] = &mut self.0;
        let kind = tokio::select! {
            _ = term.1.recv() => term.0,
            _ = hup.1.recv() => hup.0,
            _ = int.1.recv() => int.0,
            _ = quit.1.recv() => quit.0,
        };
        kind.as_raw_value()
    }
}
