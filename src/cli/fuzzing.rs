//! The door for the fuzz target `words`: what is read on the command line alone.

use anyhow::Result;

/// The user and group of `exec --user`.
///
/// # Errors
///
/// It is no number, nor two.
pub fn user(text: &str) -> Result<(u32, Option<u32>)> {
    super::exec::user(text)
}
