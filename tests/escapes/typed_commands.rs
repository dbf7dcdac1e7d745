//! Terminal injection (TIOCSTI): a program that has the caller's terminal as its input types a command into it, which the
//! caller's shell reads when the container has ended. It takes the terminal of the program's own session.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};

use libtest_mimic::Trial;
use rustix::pty::{OpenptFlags, openpt, unlockpt};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};
use serde_json::json;

use crate::probe::{self, Call};
use crate::subject::Subject;
use crate::support::{only_where, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    let trials = tests![
        nothing_is_typed_into_the_callers_terminal,
        something_would_be_typed_into_the_callers_terminal,
    ];
    let lacks = "the kernel lets nobody type (dev.tty.legacy_tiocsti)";
    only_where(is_allowed(), lacks, trials)
}

/// Newer kernels need CAP_SYS_ADMIN for it, unless a setting says otherwise, which the virtual host may change.
fn is_allowed() -> bool {
    let setting = Path::new("/proc/sys/dev/tty/legacy_tiocsti");
    if std::env::var_os("PARHELION_TEST_ALL").is_some() && setting.exists() {
        fs::write(setting, "1").unwrap();
    }
    fs::read_to_string(setting).is_ok_and(|value| value.trim() == "1")
}

/// A terminal's master and slave, which gives out what is typed at once.
fn terminal() -> (OwnedFd, OwnedFd) {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = openpt(flags).unwrap();
    unlockpt(&master).unwrap();
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags).unwrap();
    let mut settings = tcgetattr(&slave).unwrap();
    settings.make_raw();
    tcsetattr(&slave, OptionalActions::Now, &settings).unwrap();
    (master, slave)
}

/// What the kernel answers to the program, and how many characters it has typed.
fn type_one(subject: Subject) -> (Option<i32>, u64) {
    let bundle = subject.bundle("");
    // The first byte of the program's own file, which is mapped there.
    let (ioctl, tiocsti, address) = (16, 0x5412, 0x40_0000);
    let call = Call::native(ioctl).with(1, tiocsti).with(2, address);
    probe::write(&bundle, "type", call);
    bundle.edit(|config| config["process"]["args"] = json!(["/type"]));
    let (_master, slave) = terminal();
    let run = {
        let mut run = bundle.command();
        run.args(["run", "--bundle", bundle.path(), &bundle.id]);
        run
    };
    // As a login's shell: a session whose terminal it is.
    let mut session = Command::new("setsid");
    session
        .args(["--ctty", "--wait"])
        .arg(run.get_program())
        .args(run.get_args());
    session.env("PARHELION_WEAKENED", bundle.without);
    session.stdin(slave.try_clone().unwrap());
    let status = session.stdout(Stdio::null()).status().unwrap();
    (status.code(), rustix::io::ioctl_fionread(&slave).unwrap())
}

fn nothing_is_typed_into_the_callers_terminal() {
    let eperm = nix::libc::EPERM;
    assert_eq!(type_one(Subject::Real), (Some(eperm), 0));
}

fn something_would_be_typed_into_the_callers_terminal() {
    assert_eq!(type_one(Subject::Without("session")), (Some(0), 1));
}
