//! Several containers at once, by a regular expression for their ids, as crun's `--regex`.

use std::path::Path;

use anyhow::{Result, anyhow};
use regex_lite::Regex;

use super::delete::{self, Force};
use super::id::ContainerId;
use super::kill::{Signal, Target, kill};
use super::query;
use crate::error::{self, Kind};

/// An expression that selects ids. It is true of any part of an id.
pub struct Pattern(Regex);

impl Pattern {
    /// Reads an expression: extended, as of POSIX, but for back references and classes of a locale.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Pattern> {
        let wrong = |reason| anyhow!("invalid regular expression {text:?}: {reason}");
        Regex::new(text).map(Pattern).map_err(wrong)
    }

    /// Whether it selects this id.
    #[must_use]
    pub fn selects(&self, id: &str) -> bool {
        self.0.is_match(id)
    }
}

/// Sends a signal to each container that is selected and has not stopped.
///
/// # Errors
///
/// All failures, after the signal was sent where it could be.
pub fn kill_each(root: &Path, pattern: &Pattern, signal: Signal, target: Target) -> Result<()> {
    each(root, pattern, |id| match kill(root, id, signal, target) {
        Err(error) if matches!(error.downcast_ref(), Some(Kind::NotRunning(_))) => Ok(()),
        other => other,
    })
}

/// Deletes each container that is selected.
///
/// # Errors
///
/// All failures, after everything was deleted that could be.
pub fn delete_each(root: &Path, pattern: &Pattern, force: Force) -> Result<()> {
    each(root, pattern, |id| delete::delete(root, id, force))
}

/// Acts on each that is selected, past failures. That one was deleted meanwhile is none.
fn each(root: &Path, pattern: &Pattern, act: impl Fn(&ContainerId) -> Result<()>) -> Result<()> {
    let mut failures = Vec::new();
    for id in query::ids(root)? {
        if !pattern.selects(id.as_str()) {
            continue;
        }
        match act(&id) {
            Ok(()) => {}
            Err(error) if Kind::is_not_found(&error) => {}
            Err(error) => failures.push(format!("{id}: {}", error::in_words(&error))),
        }
    }
    match failures.is_empty() {
        true => Ok(()),
        false => Err(anyhow!(failures.join("; "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_the_id_is_enough_and_anchors_hold() {
        let selects = |pattern, id| Pattern::parse(pattern).unwrap().selects(id);
        assert!(selects("b+", "abbc") && selects("", "x") && selects("(a|b)c", "xbc"));
        assert!(selects("^web-[0-9]{2}$", "web-07") && !selects("^web-[0-9]{2}$", "web-7"));
        assert!(selects("^[[:alpha:]]+$", "web") && !selects("^[[:alpha:]]+$", "web7"));
    }

    #[test]
    fn what_is_no_expression_is_refused() {
        for pattern in ["(", "[a", "a{2", "*"] {
            let told = Pattern::parse(pattern).err().unwrap().to_string();
            assert!(told.starts_with("invalid regular expression"), "{told}");
        }
    }
}
