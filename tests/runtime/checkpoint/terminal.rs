//! Terminals: the container's own, whose master is outside, and the caller's.

use std::fs::File;
use std::io::Write;

use libtest_mimic::Trial;
use serde_json::json;

use super::{checkpoint, images, restoring};
use crate::caller::{Socket, next_line, read_lines};
use crate::support::{Bundle, tests};
use crate::terminal::{Foreground, Pty};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        the_console_socket_gets_the_restored_terminal,
        a_restore_in_the_foreground_relays_the_terminal,
        a_shell_on_the_callers_terminal_goes_on_there,
        a_terminal_in_the_background_needs_a_socket,
    ]
}

/// A bundle that counts the lines of its terminal.
fn reader() -> Bundle {
    let bundle = Bundle::new(
        "i=0; echo ready; while read -r line; do i=$((i + 1)); \
        case $line in end) exit 5;; esac; echo \"$line is $i\"; done",
    );
    bundle.edit(|config| config["process"]["terminal"] = json!(true));
    bundle
}

fn with_socket<'a>(verb: &'a str, socket: &'a Socket, bundle: &'a Bundle) -> Vec<&'a str> {
    let flags = [verb, "--console-socket", &socket.path, "--detach"];
    [&flags[..], &["--bundle", bundle.path()]].concat()
}

fn the_console_socket_gets_the_restored_terminal() {
    let bundle = reader();
    let socket = Socket::new(&bundle, "console.sock");
    let mut arguments = with_socket("run", &socket, &bundle);
    arguments.push(&bundle.id);
    bundle.parhelion(&arguments).success();
    let mut master = File::from(socket.receive().1);
    let lines = read_lines(master.try_clone().unwrap());
    assert_eq!(next_line(&lines), "ready");
    master.write_all(b"one\n").unwrap();
    assert_eq!(next_line(&lines), "one"); // the echo
    assert_eq!(next_line(&lines), "one is 1");
    checkpoint(&bundle, &[]).success();
    let images = images(&bundle);
    let mut arguments = with_socket("restore", &socket, &bundle);
    arguments.extend(["--image-path", &images, &bundle.id]);
    bundle.parhelion(&arguments).success();
    let (name, master) = socket.receive();
    assert!(name.starts_with("/dev/pts/"), "{name}");
    let mut master = File::from(master);
    let lines = read_lines(master.try_clone().unwrap());
    master.write_all(b"two\n").unwrap();
    assert_eq!(next_line(&lines), "two");
    assert_eq!(next_line(&lines), "two is 2");
}

/// `run` of the bundle on this terminal, up to its first count.
fn counts_one(pty: &mut Pty, bundle: &Bundle) -> Foreground {
    let running = pty.call(bundle, &["run", "--bundle", bundle.path(), &bundle.id]);
    assert_eq!(pty.line(), "ready");
    pty.type_keys(b"one\n");
    assert_eq!(pty.line(), "one");
    assert_eq!(pty.line(), "one is 1");
    running
}

/// `restore` of the bundle on another terminal, from its second count to its end.
fn restored_counts_two(bundle: &Bundle, flags: &[&str]) {
    let mut pty = Pty::new();
    let arguments = restoring(bundle, flags, &bundle.id);
    let mut restored = pty.call(bundle, &arguments);
    pty.type_keys(b"two\n");
    while !pty.line().ends_with(" is 2") {}
    pty.type_keys(b"end\n");
    assert_eq!(restored.code(), Some(5));
}

fn a_restore_in_the_foreground_relays_the_terminal() {
    let bundle = reader();
    let mut before = Pty::new();
    let mut running = counts_one(&mut before, &bundle);
    checkpoint(&bundle, &[]).success();
    assert_eq!(running.code(), Some(137));
    restored_counts_two(&bundle, &[]);
}

fn a_shell_on_the_callers_terminal_goes_on_there() {
    let bundle = reader();
    bundle.edit(|config| config["process"]["terminal"] = json!(false));
    let mut before = Pty::new();
    let mut running = counts_one(&mut before, &bundle);
    let error = checkpoint(&bundle, &[]).failure();
    assert!(error.contains("criu: Error ("), "{error}");
    checkpoint(&bundle, &["--shell-job"]).success();
    assert_eq!(running.code(), Some(137));
    restored_counts_two(&bundle, &["--shell-job"]);
}

fn a_terminal_in_the_background_needs_a_socket() {
    let bundle = reader();
    let socket = Socket::new(&bundle, "console.sock");
    let mut arguments = with_socket("run", &socket, &bundle);
    arguments.push(&bundle.id);
    bundle.parhelion(&arguments).success();
    checkpoint(&bundle, &[]).success();
    let error = super::restore(&bundle, &[]).failure();
    assert!(error.contains("needs --console-socket"), "{error}");
    assert!(super::is_gone(&bundle));
}
