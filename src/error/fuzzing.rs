//! The door for the fuzz target `log`: lines as they are written, without their moment and place.

use super::{Level, LogFormat, log};

/// One line of the log, with its end.
#[must_use]
pub fn log_line(format: LogFormat, level: Level, message: &str) -> String {
    log::log_line(format, level, message, "2026-01-02T03:04:05Z")
}

/// A message as it is printed to people.
#[must_use]
pub fn one_line(message: &str) -> String {
    super::one_line(message)
}
