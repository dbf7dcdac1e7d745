//! The command line: flags, formats, refusals, the log.

use libtest_mimic::Trial;

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    Vec::new()
}
