//! The command line: flags, formats, refusals, the log.

mod configuration;
mod files;
mod flags;
mod log;
mod queries;
mod regex;

use std::process::{Command, Stdio};

use libtest_mimic::Trial;

use crate::support::{Ran, program};

/// The tests of this folder.
pub fn all() -> Vec<Trial> {
    let subjects = [
        configuration::all(),
        flags::all(),
        log::all(),
        queries::all(),
        regex::all(),
        files::all(),
    ];
    subjects.into_iter().flatten().collect()
}

/// Runs the program without a bundle.
fn parhelion(arguments: &[&str]) -> Ran {
    let mut command = Command::new(program());
    Ran(command
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap())
}
