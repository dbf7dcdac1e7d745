//! The program as config.json's `process` describes it, seen from inside.

mod annotations;
mod descriptors;
mod labels;
mod landlock;
mod names;
mod privileges;
mod program;
mod scheduling;

use libtest_mimic::Trial;

/// The tests of this folder.
pub fn all() -> Vec<Trial> {
    [
        annotations::all(),
        descriptors::all(),
        labels::all(),
        landlock::all(),
        names::all(),
        privileges::all(),
        program::all(),
        scheduling::all(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
