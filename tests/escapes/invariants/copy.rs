//! What runs inside is a sealed copy of its own from the seed's execve to the program's: a file that no path leads to and that
//! nobody can change.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use libtest_mimic::Trial;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

use super::cases;
use super::state::{Executable, State};
use super::trace::{Stop, Trace, What, Who};
use crate::subject::{self, Subject};
use crate::support::tests;

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        init_is_a_sealed_copy_at_every_step,
        a_process_that_joins_is_a_sealed_copy_at_every_step,
        each_container_has_a_copy_of_its_own,
        init_would_be_a_file_of_the_hosts,
        a_copy_with_a_seal_less_is_seen,
    ]
}

/// The seals that this kernel has for such a file: that of its mode since Linux 6.3.
fn seals() -> u32 {
    let all = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    let flags = MemfdFlags::ALLOW_SEALING | MemfdFlags::CLOEXEC;
    let file = memfd_create("seals", flags).unwrap();
    let newer = all | SealFlags::EXEC;
    match fcntl_add_seals(&file, newer) {
        Ok(()) => newer.bits(),
        Err(_) => all.bits(),
    }
}

/// What of the trace breaks the invariant, for a program that is this file (device and inode).
fn wrong(trace: &Trace, (device, inode): (u64, u64)) -> Vec<String> {
    let is_copy = |stop: &&Stop| {
        let file = &stop.state.executable;
        let sealed = file
            .seals
            .is_some_and(|seals| seals & self::seals() == self::seals());
        let own = (file.device, file.inode) != (device, inode);
        sealed && own && file.name == "/memfd:parhelion-init (deleted)"
    };
    let others = trace.of(Who::Init).filter(|stop| !is_copy(stop));
    others
        .map(|stop| format!("{:?} at {:?}", stop.state.executable, stop.what))
        .collect()
}

fn holds(trace: &Trace) {
    let program = fs::metadata(Subject::Real.program()).unwrap();
    let wrong = wrong(trace, (program.dev(), program.ino()));
    assert!(wrong.is_empty(), "{} times: {}", wrong.len(), wrong[0]);
    assert!(trace.of(Who::Init).count() > 100);
}

fn init_is_a_sealed_copy_at_every_step() {
    let bundle = cases::bundle(Subject::Real);
    holds(&cases::run(&bundle, &[]));
    let bundle = cases::bundle(Subject::Real);
    cases::in_user_namespace(&bundle);
    holds(&cases::create(&bundle, &[]));
}

fn a_process_that_joins_is_a_sealed_copy_at_every_step() {
    let bundle = cases::bundle(Subject::Real);
    holds(&cases::exec(&bundle, &[]));
}

fn each_container_has_a_copy_of_its_own() {
    let file = || {
        let trace = cases::run(&cases::bundle(Subject::Real), &[]);
        let init = trace.of(Who::Init).next().unwrap();
        (init.state.executable.device, init.state.executable.inode)
    };
    assert_ne!(file(), file());
}

fn init_would_be_a_file_of_the_hosts() {
    let mut bundle = cases::bundle(Subject::Without("sealed-copy"));
    // It writes beside itself.
    let copied = bundle.folder.join("parhelion-weakened");
    subject::copy(&bundle.program, &copied);
    bundle.program = copied;
    let trace = cases::run(&bundle, &[]);
    let program = fs::metadata(&bundle.program).unwrap();
    let wrong = wrong(&trace, (program.dev(), program.ino())).join("\n");
    assert!(wrong.contains("parhelion-weakened.init"), "{wrong}");
}

fn a_copy_with_a_seal_less_is_seen() {
    let trace = |seals, inode| {
        let executable = Executable {
            device: 1,
            inode,
            name: "/memfd:parhelion-init (deleted)".to_owned(),
            seals,
        };
        let state = State {
            executable,
            ..State::default()
        };
        Trace::made_up(vec![Stop {
            pid: 1,
            who: Who::Init,
            what: What::Executed,
            state,
        }])
    };
    let is_wrong = |trace| !wrong(&trace, (1, 2)).is_empty();
    assert!(!is_wrong(trace(Some(seals()), 3)));
    assert!(is_wrong(trace(Some(seals()), 2)), "the program itself");
    assert!(is_wrong(trace(None, 3)));
    for seal in (0..32)
        .map(|bit| 1 << bit)
        .filter(|seal| seals() & seal != 0)
    {
        assert!(is_wrong(trace(Some(seals() & !seal), 3)), "{seal:#x}");
    }
}
