//! Bad input: every problem at once, each with its JSON path, before any effect.

use libtest_mimic::Trial;

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    Vec::new()
}
