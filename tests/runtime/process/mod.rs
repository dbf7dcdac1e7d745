//! The program as config.json's `process` describes it, seen from inside.

mod descriptors;
mod labels;
mod names;
mod privileges;
mod program;
mod scheduling;

use libtest_mimic::Trial;

/// The tests of this folder.
pub fn all() -> Vec<Trial> {
    [
        descriptors::all(),
        labels::all(),
        names::all(),
        privileges::all(),
        program::all(),
        scheduling::all(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
