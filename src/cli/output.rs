//! What commands print on standard output.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the command's answer"
)]

use std::io::Write as _;

use anyhow::Result;
use clap::error::{ContextKind, ContextValue};

use crate::bundle::SPECIFICATION;
use crate::lifecycle::query::State;

/// How many characters a column of the table is wide at least, as in runc's.
const NARROWEST: usize = 9;

/// Prints the version in runc's three lines, which Docker reads.
pub(super) fn version() -> Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    text(&format!(
        "parhelion version {version}\ncommit: {version}\nspec: {SPECIFICATION}\n"
    ))
}

/// Prints help where it was asked for, else what is wrong with the command line; the log gets its first line.
pub(super) fn usage(told: &clap::Error) -> i32 {
    if let Some(short) = short_usage(told) {
        // As below.
        let _ = text(&format!("{short}\n"));
        return 0;
    }
    let asked = !told.use_stderr();
    // Nobody is left to tell when the stream is closed.
    let _ = told.print();
    if asked {
        return 0;
    }
    let text = told.to_string();
    let first = text.lines().next().unwrap_or_default();
    crate::error::report_to_log(first.trim_start_matches("error: "));
    super::FAILURE
}

/// The line of usage of a command that was given `--usage`, as crun takes it, and nothing else that is wrong.
fn short_usage(told: &clap::Error) -> Option<String> {
    match told.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(flag)) if flag == "--usage" => {
            told.get(ContextKind::Usage).map(|usage| usage.to_string())
        }
        Some(_) | None => None,
    }
}

/// Prints `text` as it is.
pub(super) fn text(text: &str) -> Result<()> {
    Ok(std::io::stdout().lock().write_all(text.as_bytes())?)
}

/// Prints `value` as JSON on one line, or indented for `state`.
pub(super) fn json<T: serde::Serialize>(value: &T, indented: bool) -> Result<()> {
    let line = if indented {
        serde_json::to_string_pretty(value)?
    } else {
        serde_json::to_string(value)?
    };
    text(&format!("{line}\n"))
}

/// Prints containers as runc's table.
pub(super) fn table(states: &[State]) -> Result<()> {
    let head = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned);
    let rows: Vec<[String; 6]> = std::iter::once(head)
        .chain(states.iter().map(|s| {
            let bundle = s.bundle.display().to_string();
            let (created, owner) = (s.created.clone(), s.owner.clone());
            [
                s.id.clone(),
                s.pid.to_string(),
                s.status.clone(),
                bundle,
                created,
                owner,
            ]
        }))
        .collect();
    let longest = |column: usize| rows.iter().map(|row| row[column].len()).max();
    let width = |column: usize| longest(column).unwrap_or(0).max(NARROWEST);
    let widths: [usize; 6] = std::array::from_fn(width);
    let line = |row: &[String; 6]| {
        let cells = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:<width$}   "));
        format!("{}\n", cells.collect::<String>().trim_end())
    };
    text(&rows.iter().map(line).collect::<String>())
}
