//! The user's terminal in raw mode, given back as it was, however this ends but by SIGKILL.

use std::io;

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
