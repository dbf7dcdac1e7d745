//! CVE-2016-9962 (runc): a process that joins the container has descriptors of the host's still, and root inside looks into
//! it before it executes its program: takes them from /proc/PID/fd, or traces it.
//!
//! Nobody has to win a race: the runtime is held up where it hands over the pidfd, when the process that joins has become the
//! program's user. Which kinds of containers are tried besides is in tests/runtime/exec/hidden.rs.

use std::fs;
use std::os::unix::net::UnixStream;
use std::process::Stdio;

use libtest_mimic::Trial;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::caller::Running;
use crate::inside::{self, Inside};
use crate::subject::{Subject, wait_until};
use crate::support::tests;

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        nothing_of_a_process_that_joins_is_open_to_root_inside,
        a_process_that_joins_would_be_open_to_root_inside,
        the_command_line_and_environment_of_what_joins_tell_nothing_of_the_host,
    ]
}

/// What of the process can be opened, or followed as a link.
const LOOK: &str = "for p in /proc/[0-9]*; do \
    read -r line < $p/cmdline || [ -n \"$line\" ] || continue; \
    case \"$line\" in parhelion-init*) ;; *) continue;; esac; echo met; \
    for file in exe cwd root ns/mnt; do [ -e $p/$file ] && echo $file; done; \
    for file in mem environ maps; do (exec 6< $p/$file) && echo $file; done; \
    for file in $p/fd/*; do [ -e $file ] && echo fd; done; done 2>/dev/null";

/// What `look` prints in the container while a process joins.
fn while_one_joins(subject: Subject, look: &str) -> String {
    let bundle = subject.bundle(inside::SCRIPT);
    let mut inside = Inside::of(bundle);
    let bundle = &inside.bundle;
    let path = bundle.folder.join("full.sock");
    let (unix, stream) = (AddressFamily::UNIX, SocketType::STREAM);
    let listener = rustix::net::socket_with(unix, stream, SocketFlags::CLOEXEC, None).unwrap();
    rustix::net::bind(&listener, &SocketAddrUnix::new(&path).unwrap()).unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    // One connection waits already, and so the runtime's does not come through.
    let _first = UnixStream::connect(&path).unwrap();
    let mut exec = bundle.command();
    exec.args(["exec", "--pidfd-socket", path.to_str().unwrap()]);
    exec.args([&bundle.id, "/bin/true"]);
    exec.env("OF_THE_HOST", "secret");
    let mut exec = Running::spawn(&mut exec, Stdio::null());
    let connect = format!("{} ", nix::libc::SYS_connect);
    let call = format!("/proc/{}/syscall", exec.pid());
    wait_until(|| fs::read_to_string(&call).is_ok_and(|text| text.starts_with(&connect)));
    let seen = inside.ask(look);
    let accept = || rustix::net::accept_with(&listener, SocketFlags::CLOEXEC).unwrap();
    let _connections = [accept(), accept()];
    exec.ends_with(0);
    seen
}

fn nothing_of_a_process_that_joins_is_open_to_root_inside() {
    assert_eq!(while_one_joins(Subject::Real, LOOK), "met\n");
}

fn a_process_that_joins_would_be_open_to_root_inside() {
    let seen = while_one_joins(Subject::Without("dumpable"), LOOK);
    for file in ["exe", "root", "mem", "environ", "fd"] {
        assert!(
            seen.lines().any(|line| line == file),
            "{file} not in {seen}"
        );
    }
}

fn the_command_line_and_environment_of_what_joins_tell_nothing_of_the_host() {
    let show = "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ | busybox tr '\\0' ' '; echo";
    let seen = while_one_joins(Subject::Without("dumpable"), show);
    assert!(seen.contains("parhelion-init "), "{seen}");
    for word in ["secret", "pidfd-socket", "/tmp/parhelion"] {
        assert!(!seen.contains(word), "{word} in {seen}");
    }
}
