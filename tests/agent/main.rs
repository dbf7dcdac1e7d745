//! The agent against the real kernel: real keepers, real containers, and processes that are killed at any moment.
//!
//! The agent is a process of its own, this program called with a directory, so that it can be killed as well.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
#![allow(clippy::print_stdout, reason = "what is measured is told")]
#![allow(missing_docs, reason = "the names of tests are sentences")]

#[allow(dead_code, reason = "shared with tests/runtime")]
#[path = "../runtime/caller.rs"]
mod caller;
mod health;
mod life;
mod limits;
mod lost;
mod process;
mod storm;
#[allow(dead_code, reason = "shared with tests/runtime")]
#[path = "../runtime/support.rs"]
mod support;
#[allow(dead_code, reason = "shared with tests/supervisor")]
mod victims;
mod world;

use libtest_mimic::Arguments;

fn main() {
    if let Some(directory) = std::env::var_os("AGENT_DIRECTORY") {
        return process::run(directory.as_ref());
    }
    support::enter_private_namespace();
    let arguments = Arguments::from_args();
    let trials = [
        health::all(),
        life::all(),
        limits::all(),
        lost::all(),
        storm::all(),
    ];
    let busybox = support::Busybox::prepare();
    let conclusion = libtest_mimic::run(&arguments, trials.into_iter().flatten().collect());
    drop(busybox);
    conclusion.exit();
}
