//! /dev: default and extra devices, links, and who may use what.

use libtest_mimic::Trial;

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    Vec::new()
}
