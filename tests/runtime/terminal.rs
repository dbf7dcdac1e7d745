//! Terminals: given by create, handed over by run.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::sync::mpsc::Receiver;

use libtest_mimic::Trial;
use rustix::pty::{OpenptFlags, openpt, unlockpt};
use rustix::termios::{Winsize, tcgetattr, tcsetwinsize};
use serde_json::json;

use crate::caller::{
    Running, Socket, command, next_line, read_lines, run, state, wait_for_end, wait_for_exit,
    wait_readable,
};
use crate::support::{Bundle, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        create_sends_the_terminal_to_the_console_socket,
        a_terminal_has_the_size_that_is_asked_for_and_belongs_to_the_user,
        run_detached_sends_the_terminal_and_returns,
        run_in_the_foreground_can_send_its_terminal_too,
        a_terminal_in_the_background_needs_a_socket,
        a_socket_without_a_terminal_is_refused,
        a_socket_that_nobody_listens_to_is_named_and_nothing_is_left,
        a_terminal_needs_a_devpts_mount,
        run_hands_its_terminal_over_and_gives_it_back,
        the_size_follows_that_of_the_callers_terminal,
        keys_that_mean_signals_go_to_the_program,
        a_hangup_of_the_callers_terminal_reaches_the_program,
        the_callers_terminal_is_given_back_when_the_start_fails,
        without_a_terminal_of_its_own_run_copies_between_pipes_and_the_containers,
    ]
}

/// A bundle with a terminal.
fn on_terminal(script: &str) -> Bundle {
    let bundle = Bundle::new(script);
    bundle.edit(|config| config["process"]["terminal"] = json!(true));
    bundle
}

/// A new terminal's master and slave.
fn pty() -> (File, OwnedFd) {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = openpt(flags).unwrap();
    unlockpt(&master).unwrap();
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags).unwrap();
    (File::from(master), slave)
}

/// `run` of the bundle with `slave` as its controlling terminal and its three streams.
fn run_on(slave: &OwnedFd, bundle: &Bundle) -> Foreground {
    call_on(
        slave,
        bundle,
        &["run", "--bundle", bundle.path(), &bundle.id],
    )
}

/// The program with `slave` as its controlling terminal and its three streams.
fn call_on(slave: &OwnedFd, bundle: &Bundle, arguments: &[impl AsRef<OsStr>]) -> Foreground {
    start_on(slave, &command(bundle, arguments))
}

/// A program and its arguments with `slave` as its controlling terminal and its three streams.
fn start_on(slave: &OwnedFd, command: &Command) -> Foreground {
    let stream = || Stdio::from(slave.try_clone().unwrap());
    let mut setsid = Command::new("setsid");
    setsid.arg("--ctty").arg(command.get_program());
    setsid.args(command.get_args());
    let streams = setsid.stdin(stream()).stdout(stream()).stderr(stream());
    Foreground(streams.spawn().unwrap())
}

/// A terminal whose master is read line by line.
pub struct Pty {
    master: File,
    pub slave: OwnedFd,
    lines: Receiver<String>,
}

impl Pty {
    pub fn new() -> Pty {
        let (master, slave) = pty();
        let lines = read_lines(master.try_clone().unwrap());
        Pty {
            master,
            slave,
            lines,
        }
    }

    pub fn resize(&self, rows: u16, columns: u16) {
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&self.master, size).unwrap();
    }

    pub fn line(&self) -> String {
        next_line(&self.lines)
    }

    pub fn type_keys(&mut self, keys: &[u8]) {
        self.master.write_all(keys).unwrap();
    }

    fn run(&self, bundle: &Bundle) -> Foreground {
        run_on(&self.slave, bundle)
    }

    /// The program on this terminal.
    pub fn call(&self, bundle: &Bundle, arguments: &[impl AsRef<OsStr>]) -> Foreground {
        call_on(&self.slave, bundle, arguments)
    }

    /// Any program and its arguments on this terminal.
    pub fn start(&self, command: &Command) -> Foreground {
        start_on(&self.slave, command)
    }
}

/// A process on a terminal; killed on drop.
pub struct Foreground(std::process::Child);

impl Foreground {
    pub fn code(&mut self) -> Option<i32> {
        wait_for_exit(self.0.id().try_into().unwrap());
        self.0.wait().unwrap().code()
    }
}

impl Drop for Foreground {
    fn drop(&mut self) {
        // It has ended, unless the test has failed.
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// Creates the bundle's container and receives its terminal, with its name inside.
fn create(bundle: &Bundle) -> (String, File) {
    let socket = Socket::new(bundle, "console.sock");
    let flags = ["create", "--console-socket", &socket.path];
    let arguments = [&flags[..], &["--bundle", bundle.path(), &bundle.id]].concat();
    bundle.parhelion(&arguments).success();
    let (name, master) = socket.receive();
    (name, File::from(master))
}

fn create_sends_the_terminal_to_the_console_socket() {
    // ls may see, and miss, the shell's own end of the pipeline.
    let script = "busybox tty; ls -l /proc/$$/fd 2>/dev/null | busybox grep -c /dev/pts/0; \
        busybox tty </dev/console; read line; echo \"got $line\"; read line </dev/tty; exit 3";
    let bundle = on_terminal(script);
    let (name, mut master) = create(&bundle);
    assert_eq!(name, "/dev/pts/0");
    let lines = read_lines(master.try_clone().unwrap());
    bundle.verb("start").success();
    assert_eq!(next_line(&lines), "/dev/pts/0");
    assert_eq!(next_line(&lines), "3");
    let console = next_line(&lines);
    assert!(
        ["/dev/console", "/dev/pts/0"].contains(&&*console),
        "{console}"
    );
    master.write_all(b"some words\n").unwrap();
    assert_eq!(next_line(&lines), "some words"); // the echo
    assert_eq!(next_line(&lines), "got some words");
    // It is the controlling terminal: its interrupt key ends the program's group.
    assert_eq!(state(&bundle)["status"], "running");
    master.write_all(b"\n").unwrap();
    wait_for_end(&bundle);
}

fn a_terminal_has_the_size_that_is_asked_for_and_belongs_to_the_user() {
    let script = "busybox stty size; stat -c '%u %F' /dev/console /dev/pts/0; \
        echo reopened >/dev/stdout";
    let bundle = on_terminal(script);
    bundle.edit(|config| {
        config["process"]["consoleSize"] = json!({"height": 31, "width": 117});
        config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
    });
    let (_name, master) = create(&bundle);
    let lines = read_lines(master);
    bundle.verb("start").success();
    let seen: Vec<String> = (0..4).map(|_| next_line(&lines)).collect();
    let owner = "1000 character special file";
    assert_eq!(seen, ["31 117", owner, owner, "reopened"]);
}

fn run_detached_sends_the_terminal_and_returns() {
    let bundle = on_terminal("echo here; read line; exit 0");
    let socket = Socket::new(&bundle, "console.sock");
    let flags = ["run", "--detach", "--console-socket", &socket.path];
    let arguments = [&flags[..], &["--bundle", bundle.path(), &bundle.id]].concat();
    bundle.parhelion(&arguments).success();
    let (_name, master) = socket.receive();
    let mut master = File::from(master);
    let lines = read_lines(master.try_clone().unwrap());
    assert_eq!(next_line(&lines), "here");
    assert_eq!(bundle.status(), "running");
    master.write_all(b"\n").unwrap();
    wait_for_end(&bundle);
    assert_eq!(bundle.status(), "stopped");
}

fn run_in_the_foreground_can_send_its_terminal_too() {
    let bundle = on_terminal("echo here; read line; exit 4");
    let socket = Socket::new(&bundle, "console.sock");
    let flags = ["run", "--console-socket", &socket.path];
    let arguments = [&flags[..], &["--bundle", bundle.path(), &bundle.id]].concat();
    let mut running = Running::spawn(&mut command(&bundle, &arguments), Stdio::null());
    let (_name, master) = socket.receive();
    let mut master = File::from(master);
    assert_eq!(next_line(&read_lines(master.try_clone().unwrap())), "here");
    master.write_all(b"\n").unwrap();
    running.ends_with(4);
}

fn a_terminal_in_the_background_needs_a_socket() {
    let bundle = on_terminal("");
    let background: [&[&str]; 2] = [&["create"], &["run", "--detach"]];
    for flags in background {
        let arguments = [flags, &["--bundle", bundle.path(), &bundle.id]].concat();
        let error = bundle.parhelion(&arguments).failure();
        assert!(error.contains("needs --console-socket"), "{error}");
        assert!(bundle.verb("state").failure().contains("does not exist"));
    }
}

fn a_socket_without_a_terminal_is_refused() {
    let bundle = Bundle::new("");
    let flags = ["create", "--console-socket", "/no/such"];
    let arguments = [&flags[..], &["--bundle", bundle.path(), &bundle.id]].concat();
    let error = bundle.parhelion(&arguments).failure();
    assert!(
        error.contains("--console-socket: there is no terminal"),
        "{error}"
    );
}

fn a_socket_that_nobody_listens_to_is_named_and_nothing_is_left() {
    let bundle = on_terminal("");
    let flags = ["create", "--console-socket", "/no/such.sock"];
    let arguments = [&flags[..], &["--bundle", bundle.path(), &bundle.id]].concat();
    let error = bundle.parhelion(&arguments).failure();
    let words = "connect(\"/no/such.sock\"): no such file or directory";
    assert!(error.contains(words), "{error}");
    assert!(bundle.verb("state").failure().contains("does not exist"));
}

fn a_terminal_needs_a_devpts_mount() {
    let bundle = on_terminal("");
    bundle.edit(|config| {
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.retain(|mount| mount["type"] != "devpts");
    });
    let ran = command(&bundle, &["run", "--bundle", bundle.path(), &bundle.id]).output();
    let error = crate::support::Ran(ran.unwrap()).failure();
    assert!(
        error.contains("process.terminal: needs a devpts mount"),
        "{error}"
    );
}

fn run_hands_its_terminal_over_and_gives_it_back() {
    let script = "busybox tty; busybox stty size; read line; echo \"got $line\"; exit 6";
    let bundle = on_terminal(script);
    let mut pty = Pty::new();
    pty.resize(33, 99);
    let before = tcgetattr(&pty.slave).unwrap();
    let mut foreground = pty.run(&bundle);
    assert_eq!(pty.line(), "/dev/pts/0");
    assert_eq!(pty.line(), "33 99");
    let during = tcgetattr(&pty.slave).unwrap();
    assert_ne!(during.local_modes, before.local_modes, "raw");
    pty.type_keys(b"some words\r");
    assert_eq!(pty.line(), "some words"); // the echo, of the container's terminal
    assert_eq!(pty.line(), "got some words");
    assert_eq!(foreground.code(), Some(6));
    let after = tcgetattr(&pty.slave).unwrap();
    assert_eq!(
        (after.local_modes, after.input_modes, after.output_modes),
        (before.local_modes, before.input_modes, before.output_modes)
    );
    assert!(bundle.verb("state").failure().contains("does not exist"));
}

fn the_size_follows_that_of_the_callers_terminal() {
    let script = "trap 'busybox stty size; exit 7' WINCH; busybox stty size; sleep 1000 & wait";
    let bundle = on_terminal(script);
    bundle.edit(|config| {
        config["process"]["consoleSize"] = json!({"height": 1, "width": 2});
    });
    let pty = Pty::new();
    pty.resize(24, 80);
    let mut foreground = pty.run(&bundle);
    assert_eq!(pty.line(), "24 80");
    pty.resize(50, 132);
    assert_eq!(pty.line(), "50 132");
    assert_eq!(foreground.code(), Some(7));
}

fn keys_that_mean_signals_go_to_the_program() {
    for (key, signal) in [(b"\x03", "INT"), (b"\x1c", "QUIT"), (b"\x1a", "TSTP")] {
        let script =
            format!("trap 'echo has {signal}; exit 8' {signal}; echo ready; sleep 1000 & wait");
        let bundle = on_terminal(&script);
        let mut pty = Pty::new();
        let mut foreground = pty.run(&bundle);
        assert_eq!(pty.line(), "ready");
        pty.type_keys(key);
        // The terminal shows the key itself first, as ^C.
        let said = pty.line();
        assert!(said.ends_with(&format!("has {signal}")), "{said}");
        assert_eq!(foreground.code(), Some(8));
    }
}

fn a_hangup_of_the_callers_terminal_reaches_the_program() {
    let bundle = on_terminal("trap 'exit 9' HUP; echo ready; sleep 1000 & wait");
    let (mut master, slave) = pty();
    let mut foreground = run_on(&slave, &bundle);
    drop(slave);
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains("ready") {
        wait_readable(&master);
        let mut chunk = [0; 64];
        let length = master.read(&mut chunk).unwrap();
        seen.extend_from_slice(&chunk[..length]);
    }
    drop(master); // the last descriptor of it
    assert_eq!(foreground.code(), Some(9));
}

fn the_callers_terminal_is_given_back_when_the_start_fails() {
    let bundle = on_terminal("");
    bundle.edit(|config| {
        let hook = json!({"path": "/bin/false"});
        config["hooks"] = json!({ "startContainer": [hook] });
    });
    let pty = Pty::new();
    let before = tcgetattr(&pty.slave).unwrap();
    let mut foreground = pty.run(&bundle);
    assert_eq!(foreground.code(), Some(1));
    let error = pty.line();
    assert!(error.contains("hooks.startContainer[0]"), "{error}");
    let after = tcgetattr(&pty.slave).unwrap();
    assert_eq!(after.local_modes, before.local_modes);
}

fn without_a_terminal_of_its_own_run_copies_between_pipes_and_the_containers() {
    let bundle = on_terminal("busybox stty -echo; busybox tty; cat; echo end; exit 5");
    let mut running = Running::spawn(&mut run(&bundle), Stdio::piped());
    assert_eq!(running.line(), "/dev/pts/0");
    let mut stdin = running.stdin();
    stdin.write_all(b"one\ntwo").unwrap();
    drop(stdin); // its end is passed on
    assert_eq!(running.line(), "one");
    assert_eq!(running.line(), "twoend");
    running.ends_with(5);
}
