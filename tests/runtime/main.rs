//! The runtime against the real kernel, as root, in a private mount namespace with a cgroup2 mount.
//!
//! `make test` runs this twice: on the machine itself, where a cgroup controller may be missing, and
//! in the virtual host (tests/vhost), which has all of them. What needs a controller says so with
//! `support::needs_controllers`; the virtual host sets PARHELION_TEST_ALL, and nothing is left out there.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
#![allow(clippy::print_stdout, reason = "what is left out is said aloud")]
#![allow(missing_docs, reason = "the names of tests are sentences")]

mod apparmor;
mod caller;
mod callers;
mod cgroups;
mod checkpoint;
mod cli;
mod devices;
mod events;
mod exec;
mod faults;
mod features;
mod hooks;
mod inside;
mod interfaces;
mod keeper;
mod life;
mod mounts;
mod namespaces;
mod notify;
mod process;
mod refusals;
mod rootless;
mod seccomp;
mod selinux;
mod support;
mod systemd;
mod terminal;
mod update;

use libtest_mimic::Arguments;

fn main() {
    support::enter_private_namespace();
    let arguments = Arguments::from_args();
    let trials = [
        callers::all(),
        cgroups::all(),
        checkpoint::all(),
        cli::all(),
        devices::all(),
        events::all(),
        exec::all(),
        faults::all(),
        features::all(),
        hooks::all(),
        interfaces::all(),
        keeper::all(),
        life::all(),
        mounts::all(),
        namespaces::all(),
        notify::all(),
        process::all(),
        refusals::all(),
        rootless::all(),
        seccomp::all(),
        selinux::all(),
        systemd::all(),
        terminal::all(),
        update::all(),
    ];
    let busybox = support::Busybox::prepare();
    let conclusion = libtest_mimic::run(&arguments, trials.into_iter().flatten().collect());
    callers::stop();
    drop(busybox);
    conclusion.exit();
}
