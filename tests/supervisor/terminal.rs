//! parctl in a terminal: a program inside, and the screen of top, in the terminal's size; it is given back as it was.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::sleep;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use rustix::process::Signal;
use rustix::pty::{OpenptFlags, openpt, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use serde_json::json;

use crate::host::{Host, PATIENCE};
use crate::support::tests;

pub fn all() -> Vec<Trial> {
    tests![
        the_terminal_is_given_back_when_parctl_is_told_to_end,
        an_interrupt_is_heard_however_much_is_printed,
        the_screen_of_top_fits_the_terminal_and_is_gone_after_q,
        a_program_inside_has_the_size_of_the_terminal_and_its_changes,
    ]
}

const SLEEP: &str = "while :; do sleep 1; done";

/// parctl with a new terminal as its own; the master and the slave.
fn on_terminal(host: &Host, words: &[&str]) -> (Child, File, OwnedFd) {
    sized_terminal(host, words, (80, 24))
}

/// The same with a terminal of so many columns and rows.
fn sized_terminal(
    host: &Host,
    words: &[&str],
    (columns, rows): (u16, u16),
) -> (Child, File, OwnedFd) {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = openpt(flags).unwrap();
    unlockpt(&master).unwrap();
    let master = File::from(master);
    resize(&master, columns, rows);
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags).unwrap();
    let parctl = host.parctl_command(words);
    let mut command = Command::new("setsid");
    command.arg("--ctty").arg(parctl.get_program());
    command.args(parctl.get_args());
    command.env("PARHELION_SOCKET", host.path("socket"));
    let stream = || Stdio::from(slave.try_clone().unwrap());
    let streams = command.stdin(stream()).stdout(stream()).stderr(stream());
    (streams.spawn().unwrap(), master, slave)
}

fn is_raw(terminal: &OwnedFd) -> bool {
    let modes = tcgetattr(terminal).unwrap().local_modes;
    !modes.contains(LocalModes::ICANON)
}

fn the_terminal_is_given_back_when_parctl_is_told_to_end() {
    let host = Host::new(SLEEP);
    let name = host.deploy(&json!({}));
    let exec = ["exec", "-it", &name, "/bin/busybox", "sleep", "1000"];
    for words in [&exec[..], &["top"]] {
        for signal in [Signal::TERM, Signal::HUP, Signal::INT] {
            let (mut parctl, _master, terminal) = on_terminal(&host, words);
            host.until("it is raw", || is_raw(&terminal));
            let pid = rustix::process::Pid::from_child(&parctl);
            rustix::process::kill_process(pid, signal).unwrap();
            parctl.wait().unwrap();
            assert!(!is_raw(&terminal), "{words:?} {signal:?}");
        }
    }
}

fn an_interrupt_is_heard_however_much_is_printed() {
    let host = Host::new(SLEEP);
    let name = host.deploy(&json!({}));
    let script = "trap 'exit 9' INT; while :; do echo yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy; done";
    let words = ["exec", "-it", &name, "/bin/busybox", "sh", "-c", script];
    let (mut parctl, master, terminal) = on_terminal(&host, &words);
    host.until("it is raw", || is_raw(&terminal));
    let mut reading = master.try_clone().unwrap();
    let mut block = [0; 4096];
    assert!(reading.read(&mut block).unwrap() > 0);
    std::thread::spawn(move || while reading.read(&mut block).is_ok_and(|count| count > 0) {});
    (&master).write_all(b"\x03").unwrap();
    let ended = std::thread::spawn(move || parctl.wait().unwrap().code());
    host.until("it has ended", || ended.is_finished());
    assert_eq!(ended.join().unwrap(), Some(9));
}

/// What comes out of a terminal.
#[derive(Clone, Default)]
struct Screen(Arc<Mutex<String>>);

impl Screen {
    /// Reads on until the terminal is gone.
    fn of(master: &File) -> Screen {
        let screen = Screen::default();
        let (mut reading, to) = (master.try_clone().unwrap(), screen.clone());
        std::thread::spawn(move || {
            let mut block = [0; 4096];
            while let Ok(count @ 1..) = reading.read(&mut block) {
                let text = String::from_utf8_lossy(&block[..count]);
                to.0.lock().unwrap().push_str(&text);
            }
        });
        screen
    }

    fn has(&self, text: &str) -> bool {
        self.0.lock().unwrap().contains(text)
    }

    #[allow(clippy::disallowed_methods, reason = "a test has an end")]
    fn wait_for(&self, text: &str) {
        let end = Instant::now() + PATIENCE;
        while !self.has(text) {
            assert!(Instant::now() < end, "no {text:?} in {:?}", self.0.lock());
            sleep(Duration::from_millis(20));
        }
    }
}

fn resize(terminal: &File, columns: u16, rows: u16) {
    let size = Winsize {
        ws_col: columns,
        ws_row: rows,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(terminal, size).unwrap();
}

/// A word of top's screen with its place (ECMA-48, CUP): what is blank is not sent.
fn at(row: u16, column: u16, word: &str) -> String {
    format!("\x1b[{row};{column}H{word}")
}

fn the_screen_of_top_fits_the_terminal_and_is_gone_after_q() {
    let host = Host::new(SLEEP);
    for (version, end) in [("1", b"q"), ("2", b"\x03")] {
        let (mut parctl, master, terminal) = sized_terminal(&host, &["top"], (120, 30));
        let screen = Screen::of(&master);
        screen.wait_for(&at(30, 3, "ends"));
        // What happens is shown without a key.
        let file = host.job(version, &json!({}));
        host.parctl(&["apply", &file]).success();
        screen.wait_for(&format!("web.{version}."));
        // All of it anew: else only letters that are others are sent.
        resize(&master, 100, 12);
        screen.wait_for(&at(12, 3, "ends"));
        // One is there, and one runs.
        screen.wait_for(&at(1, 1, "1"));
        screen.wait_for(&at(1, 14, "1"));
        assert!(is_raw(&terminal) && !screen.has("\x1b[?1049l"));
        (&master).write_all(end).unwrap();
        assert_eq!(parctl.wait().unwrap().code(), Some(0));
        assert!(!is_raw(&terminal));
        // The other screen and the cursor are back.
        screen.wait_for("\x1b[?1049l");
        screen.wait_for("\x1b[?25h");
    }
}

fn a_program_inside_has_the_size_of_the_terminal_and_its_changes() {
    let host = Host::new(SLEEP);
    let name = host.deploy(&json!({}));
    let script = "stty size; read x; echo heard $x; stty size; exit 6";
    let words = ["exec", "-it", &name, "/bin/busybox", "sh", "-c", script];
    let (mut parctl, master, terminal) = sized_terminal(&host, &words, (91, 33));
    let screen = Screen::of(&master);
    screen.wait_for("33 91");
    resize(&master, 50, 20);
    // It comes as a signal to parctl, and as a frame to the program, before what is typed then.
    (&master).write_all(b"word\r").unwrap();
    screen.wait_for("heard word");
    screen.wait_for("20 50");
    assert_eq!(parctl.wait().unwrap().code(), Some(6));
    assert!(!is_raw(&terminal));
}
