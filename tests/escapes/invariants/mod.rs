//! What holds at every step of the program, by tracing it: docs/security.md, "Invariants".
//!
//! A trace is what each process calls, and what it is then ([`trace`]). Each invariant is a function of a trace. That it can
//! be broken is shown on a build without a mitigation, or on a trace that is made up.

mod calls;
mod cases;
mod copy;
mod descriptors;
mod environment;
mod paths;
mod privileges;
mod state;
mod trace;

use libtest_mimic::Trial;

/// The tests of this folder.
pub fn all() -> Vec<Trial> {
    let files = [
        copy::all(),
        descriptors::all(),
        environment::all(),
        paths::all(),
        privileges::all(),
    ];
    files.into_iter().flatten().collect()
}
