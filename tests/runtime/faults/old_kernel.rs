//! A kernel without a call that is needed: the call is named, and nothing is left.
//!
//! docs/decisions/0002 says why there is no other way. A seccomp filter answers as such a kernel
//! does; it is of the thread that installs it, and of the processes that this thread starts.

use std::fs::{self, File};
use std::process::{Command, Stdio};

use libtest_mimic::Trial;
use nix::libc;
use rustix::fs::SealFlags;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

use super::{in_a_thread, remains};
use crate::support::{Bundle, program, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        a_call_that_the_kernel_lacks_is_named_and_nothing_is_left,
        a_kernel_before_mfd_exec_does_without_it,
        a_kernel_before_the_seal_of_modes_does_without_it,
        where_memory_files_are_not_executed_a_detached_file_is,
    ]
}

/// linux/memfd.h
const MFD_EXEC: u64 = 0x10;

/// Lets the kernel answer `errno` to `call` when `rules` match, in this thread and its children.
fn answer(call: i64, errno: i32, rules: Vec<SeccompRule>) {
    let filter = SeccompFilter::new(
        [(call, rules)].into(),
        SeccompAction::Allow,
        SeccompAction::Errno(errno as u32),
        std::env::consts::ARCH.try_into().unwrap(),
    );
    let program: BpfProgram = filter.unwrap().try_into().unwrap();
    seccompiler::apply_filter(&program).unwrap();
}

fn a_call_that_the_kernel_lacks_is_named_and_nothing_is_left() {
    let calls = [
        ("clone3", libc::SYS_clone3),
        ("openat2", libc::SYS_openat2),
        ("mount_setattr", libc::SYS_mount_setattr),
        ("open_tree", libc::SYS_open_tree),
        ("move_mount", libc::SYS_move_mount),
        ("memfd_create", libc::SYS_memfd_create),
        ("close_range", libc::SYS_close_range),
    ];
    for (name, call) in calls {
        in_a_thread(move || {
            let bundle = Bundle::new("true");
            answer(call, libc::ENOSYS, Vec::new());
            let told = bundle.create().failure();
            assert!(told.contains(&format!("{name}(")), "{name}: {told}");
            assert!(
                told.ends_with(": function not implemented\n"),
                "{name}: {told}"
            );
            assert_eq!(told.lines().count(), 1, "{name}: {told}");
            let states = fs::read_dir(bundle.folder.join("state")).map_or(0, Iterator::count);
            assert_eq!(states, 0, "{name}");
            let cgroup = format!("/sys/fs/cgroup/parhelion/{}", bundle.id);
            assert!(!fs::exists(cgroup).unwrap(), "{name}");
            remains::nothing_is_left(&bundle.folder, &bundle.id);
        });
    }
}

fn a_kernel_before_mfd_exec_does_without_it() {
    in_a_thread(|| {
        let bundle = Bundle::new("exit 6");
        let masked = SeccompCmpOp::MaskedEq(MFD_EXEC);
        let has_exec = SeccompCondition::new(1, SeccompCmpArgLen::Dword, masked, MFD_EXEC);
        let rule = SeccompRule::new(vec![has_exec.unwrap()]).unwrap();
        answer(libc::SYS_memfd_create, libc::EINVAL, vec![rule]);
        assert_eq!(bundle.run().code(), Some(6));
    });
}

fn a_kernel_before_the_seal_of_modes_does_without_it() {
    in_a_thread(|| {
        let bundle = Bundle::new("exit 6");
        let is = |index, operation: SeccompCmpOp, value| {
            SeccompCondition::new(index, SeccompCmpArgLen::Dword, operation, value).unwrap()
        };
        let seal = u64::from(SealFlags::EXEC.bits());
        let adds_seals = is(1, SeccompCmpOp::Eq, libc::F_ADD_SEALS as u64);
        let rule = vec![adds_seals, is(2, SeccompCmpOp::MaskedEq(seal), seal)];
        let rule = SeccompRule::new(rule).unwrap();
        answer(libc::SYS_fcntl, libc::EINVAL, vec![rule]);
        assert_eq!(bundle.run().code(), Some(6));
    });
}

fn where_memory_files_are_not_executed_a_detached_file_is() {
    let bundle = Bundle::new("sleep 1000");
    // The setting is of a pid namespace, and there can only be made stricter.
    let script = "echo 2 > /proc/sys/vm/memfd_noexec && \
        \"$0\" --root $B/state create --bundle $B --pid-file $B/pid in-$ID && \
        readlink /proc/$(cat $B/pid)/exe && \
        \"$0\" --root $B/state start in-$ID && \
        readlink /proc/$(cat $B/pid)/exe && \
        \"$0\" --root $B/state delete --force in-$ID";
    let told = bundle.folder.join("told");
    let output = File::create(&told).unwrap();
    let status = Command::new("unshare")
        .args([
            "--pid",
            "--fork",
            "--mount-proc",
            "--kill-child",
            "sh",
            "-c",
            script,
        ])
        .arg(program())
        .env("B", &bundle.folder)
        .env("ID", &bundle.id)
        .stdin(Stdio::null())
        .stdout(output.try_clone().unwrap())
        .stderr(output)
        .status()
        .unwrap();
    let told = fs::read_to_string(told).unwrap();
    assert!(status.success(), "{told}");
    assert_eq!(told, "/parhelion-init\n/bin/busybox\n");
}
