//! --tty: a terminal of the container's own devpts.

use std::fs::{self, File};
use std::io::Write;
use std::process::Stdio;

use libtest_mimic::Trial;
use rustix::process::Signal;
use rustix::termios::tcgetattr;
use serde_json::json;

use super::{
    cgroup_of, changed, exec, exec_command, in_user_namespace, processes, refusal, running,
};
use crate::caller::{Running, Socket, next_line, read_lines};
use crate::support::{Bundle, tests};
use crate::terminal::Pty;

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        a_terminal_in_the_foreground_is_the_callers,
        the_callers_terminal_is_given_back_after_a_failure,
        keys_that_mean_signals_go_to_the_program,
        the_size_follows_that_of_the_callers_terminal,
        between_pipes_it_is_copied_to_and_from_the_terminal,
        a_terminal_in_the_background_is_sent_to_the_socket,
        a_terminal_in_the_foreground_can_be_sent_too,
        a_file_can_ask_for_a_terminal_of_some_size,
        a_terminal_in_the_background_needs_a_socket,
        a_socket_without_a_terminal_is_refused,
        a_socket_that_nobody_listens_to_is_named,
        a_terminal_needs_a_devpts_mount,
        a_terminal_of_the_containers_first_process_is_not_taken,
    ]
}

fn a_terminal_in_the_foreground_is_the_callers() {
    for (bundle, flags) in [
        (running(), "--tty"),
        (in_user_namespace(|_config| {}), "-t"),
    ] {
        let mut pty = Pty::new();
        pty.resize(33, 99);
        let before = tcgetattr(&pty.slave).unwrap();
        let script = "busybox tty; busybox stty size; read line; echo \"got $line\"; exit 6";
        let arguments = ["exec", flags, &bundle.id, "/bin/sh", "-c", script];
        let mut foreground = pty.call(&bundle, &arguments);
        assert_eq!(pty.line(), "/dev/pts/0");
        assert_eq!(pty.line(), "33 99");
        let during = tcgetattr(&pty.slave).unwrap();
        assert_ne!(during.local_modes, before.local_modes, "raw");
        pty.type_keys(b"some words\r");
        assert_eq!(pty.line(), "some words"); // the echo, of the container's terminal
        assert_eq!(pty.line(), "got some words");
        assert_eq!(foreground.code(), Some(6));
        let after = tcgetattr(&pty.slave).unwrap();
        assert_eq!(after.local_modes, before.local_modes);
    }
}

fn the_callers_terminal_is_given_back_after_a_failure() {
    let bundle = running();
    let etc = bundle.folder.join("rootfs/etc/strange");
    fs::write(&etc, "no format\n").unwrap();
    fs::set_permissions(&etc, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let pty = Pty::new();
    let before = tcgetattr(&pty.slave).unwrap();
    let mut foreground = pty.call(&bundle, &["exec", "-t", &bundle.id, "/etc/strange"]);
    assert!(pty.line().contains("exec format error"));
    assert_eq!(foreground.code(), Some(255));
    let after = tcgetattr(&pty.slave).unwrap();
    assert_eq!(after.local_modes, before.local_modes);
}

fn keys_that_mean_signals_go_to_the_program() {
    let bundle = running();
    for (key, signal) in [(b"\x03", "INT"), (b"\x1c", "QUIT")] {
        let script =
            format!("trap 'echo has {signal}; exit 8' {signal}; echo ready; sleep 1000 & wait");
        let mut pty = Pty::new();
        let arguments = ["exec", "-t", &bundle.id, "/bin/sh", "-c", &script];
        let mut foreground = pty.call(&bundle, &arguments);
        assert_eq!(pty.line(), "ready");
        pty.type_keys(key);
        // The terminal shows the key itself first, as ^C.
        let said = pty.line();
        assert!(said.ends_with(&format!("has {signal}")), "{said}");
        assert_eq!(foreground.code(), Some(8));
    }
}

fn the_size_follows_that_of_the_callers_terminal() {
    let bundle = running();
    let script = "trap 'busybox stty size; exit 7' WINCH; busybox stty size; sleep 1000 & wait";
    let pty = Pty::new();
    pty.resize(24, 80);
    let mut foreground = pty.call(
        &bundle,
        &["exec", "-t", &bundle.id, "/bin/sh", "-c", script],
    );
    assert_eq!(pty.line(), "24 80");
    pty.resize(50, 132);
    assert_eq!(pty.line(), "50 132");
    assert_eq!(foreground.code(), Some(7));
}

fn between_pipes_it_is_copied_to_and_from_the_terminal() {
    let bundle = running();
    let script = "busybox stty -echo; busybox tty; cat; echo end; exit 5";
    let mut command = exec_command(&bundle, &["--tty"], &["/bin/sh", "-c", script]);
    let mut running = Running::spawn(&mut command, Stdio::piped());
    assert_eq!(running.line(), "/dev/pts/0");
    let mut stdin = running.stdin();
    stdin.write_all(b"one\ntwo").unwrap();
    drop(stdin); // its end is passed on
    assert_eq!(running.line(), "one");
    assert_eq!(running.line(), "twoend");
    running.ends_with(5);
}

/// The master that comes to the socket, and what is read from it.
fn received(socket: &Socket) -> (String, File) {
    let (name, master) = socket.receive();
    (name, File::from(master))
}

fn a_terminal_in_the_background_is_sent_to_the_socket() {
    for bundle in [running(), in_user_namespace(|_config| {})] {
        let socket = Socket::new(&bundle, "console.sock");
        let script = "busybox tty; stat -c %u $(busybox tty); ls /proc/$$/fd 2>/dev/null | busybox wc -l; \
            read line </dev/tty; echo \"got $line\"; exec sleep 1000";
        let flags = [
            "--tty",
            "--detach",
            "--user",
            "1000",
            "--console-socket",
            &socket.path,
        ];
        exec(&bundle, &flags, &["/bin/sh", "-c", script]).success();
        let (name, mut master) = received(&socket);
        assert_eq!(name, "/dev/pts/0");
        let lines = read_lines(master.try_clone().unwrap());
        assert_eq!(next_line(&lines), "/dev/pts/0");
        assert_eq!(next_line(&lines), "1000");
        let open: u32 = next_line(&lines).trim().parse().unwrap();
        assert!(
            (3..=5).contains(&open),
            "and /dev/tty and a pipe, which the shell may have open: {open}"
        );
        master.write_all(b"word\n").unwrap();
        assert_eq!(next_line(&lines), "word"); // the echo
        assert_eq!(next_line(&lines), "got word");
        assert_eq!(processes(&cgroup_of(&bundle)).len(), 2);
        // It is the controlling terminal: a hangup ends the program.
        let pid = *processes(&cgroup_of(&bundle)).last().unwrap();
        drop((master, lines));
        bundle
            .parhelion(&["delete", "--force", &bundle.id])
            .success();
        crate::caller::wait_for_exit(pid);
    }
}

fn a_terminal_in_the_foreground_can_be_sent_too() {
    let bundle = running();
    let socket = Socket::new(&bundle, "console.sock");
    let flags = ["--tty", "--console-socket", &socket.path];
    let program = [
        "/bin/sh",
        "-c",
        "trap 'exit 4' TERM; echo here; while :; do sleep 1000 & wait; done",
    ];
    let mut running = Running::spawn(&mut exec_command(&bundle, &flags, &program), Stdio::null());
    let (_name, master) = received(&socket);
    assert_eq!(next_line(&read_lines(master.try_clone().unwrap())), "here");
    running.signal(Signal::TERM);
    running.ends_with(4);
}

fn a_file_can_ask_for_a_terminal_of_some_size() {
    let bundle = running();
    let socket = Socket::new(&bundle, "console.sock");
    let file = bundle.folder.join("process.json");
    let process = json!({
        "args": ["/bin/busybox", "stty", "size"], "cwd": "/", "user": {"uid": 0, "gid": 0},
        "terminal": true, "consoleSize": {"height": 31, "width": 117},
    });
    fs::write(&file, process.to_string()).unwrap();
    let flags = [
        "--process",
        file.to_str().unwrap(),
        "--detach",
        "--console-socket",
        &socket.path,
    ];
    exec(&bundle, &flags, &[]).success();
    let (_name, master) = received(&socket);
    assert_eq!(next_line(&read_lines(master)), "31 117");
}

fn nothing_runs(bundle: &Bundle, flags: &[&str], words: &str) {
    let error = refusal(&exec(bundle, flags, &["/bin/true"]));
    assert!(error.contains(words), "{error}");
    assert_eq!(processes(&cgroup_of(bundle)).len(), 1);
}

fn a_terminal_in_the_background_needs_a_socket() {
    nothing_runs(
        &running(),
        &["--tty", "--detach"],
        "needs --console-socket for its terminal",
    );
}

fn a_socket_without_a_terminal_is_refused() {
    let bundle = running();
    for flags in [
        &["--console-socket", "/no/such"][..],
        &["-d", "--console-socket", "/no/such"],
    ] {
        nothing_runs(&bundle, flags, "--console-socket: there is no terminal");
    }
}

fn a_socket_that_nobody_listens_to_is_named() {
    let flags = ["-t", "-d", "--console-socket", "/no/such.sock"];
    let words = "connect(\"/no/such.sock\"): no such file or directory";
    nothing_runs(&running(), &flags, words);
}

fn a_terminal_needs_a_devpts_mount() {
    let bundle = changed(|config| {
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.retain(|mount| mount["type"] != "devpts");
    });
    let words = "process.terminal: needs a devpts mount";
    nothing_runs(&bundle, &["--tty"], words);
}

/// Where config.json asks for a terminal, a process that is executed has one only with --tty.
fn a_terminal_of_the_containers_first_process_is_not_taken() {
    let bundle = super::sleeping();
    bundle.edit(|config| {
        config["process"]["terminal"] = json!(true);
        config["process"]["consoleSize"] = json!({"height": 5, "width": 6});
    });
    let socket = Socket::new(&bundle, "console.sock");
    let flags = [
        "run",
        "--detach",
        "--console-socket",
        &socket.path,
        "--bundle",
        bundle.path(),
    ];
    bundle
        .parhelion(&[&flags[..], &[&bundle.id]].concat())
        .success();
    let _console = socket.receive();
    let seen = exec(
        &bundle,
        &[],
        &[
            "/bin/sh",
            "-c",
            "busybox tty; stat -c %t /dev/console; true",
        ],
    );
    assert!(
        seen.success().starts_with("not a tty\n"),
        "{}",
        seen.stderr()
    );
    let mut command = exec_command(&bundle, &["-t"], &["/bin/busybox", "tty"]);
    let running = Running::spawn(&mut command, Stdio::null());
    assert_eq!(running.line(), "/dev/pts/1");
}
