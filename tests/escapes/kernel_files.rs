//! Files of the kernel that are the host's: kernel.core_pattern and the like make the kernel execute a program there, others
//! tell of the host. The default configuration makes them read-only or hides them.
//!
//! They are opened for writing, and nothing is written.

use libtest_mimic::Trial;
use serde_json::json;

use crate::subject::Subject;
use crate::support::tests;

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        no_file_of_the_kernel_opens_for_writing,
        files_of_the_kernel_would_open_for_writing,
        what_is_hidden_can_not_be_read,
        what_is_hidden_would_be_read,
        what_covers_files_of_the_kernel_can_not_be_taken_away,
    ]
}

/// Those of these files that root inside can open for writing.
fn writable(subject: Subject) -> String {
    let bundle = subject.bundle(
        "for file in /proc/sys/kernel/core_pattern /proc/sys/kernel/modprobe \
            /proc/sysrq-trigger /proc/sys/kernel/domainname /proc/sys/fs/pipe-max-size \
            /proc/sys/kernel/panic_on_oops /sys/kernel/uevent_helper /sys/kernel/mm/ksm/run; do
            (exec 3>> $file) && echo $file
        done 2>/dev/null; true",
    );
    bundle.run().success()
}

fn no_file_of_the_kernel_opens_for_writing() {
    assert_eq!(writable(Subject::Real), "");
}

fn files_of_the_kernel_would_open_for_writing() {
    let files = writable(Subject::Without("read-only-paths"));
    for file in [
        "kernel/core_pattern",
        "kernel/panic_on_oops",
        "kernel/domainname",
    ] {
        assert!(files.contains(file), "{file} not in {files}");
    }
}

/// What the first bytes of hidden files and the entries of hidden folders are.
fn hidden(subject: Subject) -> String {
    let show = "cat /proc/timer_list /proc/keys | busybox head -c 80; ls /sys/firmware";
    subject.bundle(show).run().success()
}

fn what_is_hidden_can_not_be_read() {
    assert_eq!(hidden(Subject::Real), "");
}

fn what_is_hidden_would_be_read() {
    assert_ne!(hidden(Subject::Without("masked-paths")), "");
}

/// Root inside without capabilities for it; then with CAP_SYS_ADMIN, which shows that the test can fail.
fn what_covers_files_of_the_kernel_can_not_be_taken_away() {
    let taken_away = |capabilities: &[&str]| {
        let bundle = Subject::Real.bundle(
            "{ busybox umount /proc/sys && echo unmounted
            mount -o remount,rw /proc/sys && echo remounted
            mount -t proc proc /tmp && echo mounted; } 2>/dev/null; true",
        );
        bundle.edit(|config| {
            for set in ["bounding", "effective", "permitted"] {
                config["process"]["capabilities"][set] = json!(capabilities);
            }
        });
        bundle.run().success()
    };
    assert_eq!(taken_away(&["CAP_KILL", "CAP_NET_BIND_SERVICE"]), "");
    assert!(taken_away(&["CAP_SYS_ADMIN"]).contains("mounted"));
}
