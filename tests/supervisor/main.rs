//! The supervisor as people use it: parheliond, parctl and parhelion, on this host's kernel, as root.
//!
//! Each test has a daemon of its own, with its own state, socket and cgroup, in a private mount namespace. Nothing of it is
//! left when the test ends, however it ends.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
#![allow(clippy::print_stdout, reason = "what is left out is said aloud")]
#![allow(missing_docs, reason = "the names of tests are sentences")]

#[allow(dead_code, reason = "shared with tests/runtime")]
#[path = "../runtime/caller.rs"]
mod caller;
mod commands;
mod disk;
mod down;
mod errors;
mod host;
mod identity;
mod inside;
mod life;
mod looking;
mod network;
mod storm;
#[allow(dead_code, reason = "shared with tests/runtime")]
#[path = "../runtime/support.rs"]
mod support;
mod takeover;
mod terminal;
mod unit;
#[path = "../agent/victims.rs"]
mod victims;

use libtest_mimic::Arguments;

fn main() {
    support::enter_private_namespace();
    let arguments = Arguments::from_args();
    let trials = [
        life::all(),
        looking::all(),
        commands::all(),
        terminal::all(),
        inside::all(),
        errors::all(),
        disk::all(),
        identity::all(),
        down::all(),
        takeover::all(),
        network::all(),
        storm::all(),
        unit::all(),
    ];
    let busybox = support::Busybox::prepare();
    let conclusion = libtest_mimic::run(&arguments, trials.into_iter().flatten().collect());
    drop(busybox);
    conclusion.exit();
}
