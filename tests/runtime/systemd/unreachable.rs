//! A systemd that is not there, or does not answer: told in time, with what to do, and nothing is left.

use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;

use libtest_mimic::Trial;
use rustix::process::Signal;

use super::{make, make_with, scope};
use crate::caller::{self, Running};
use crate::support::{Bundle, has_systemd, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        without_systemd_it_is_told_where_it_was_looked_for_and_what_to_do,
        an_address_of_the_environment_is_the_only_one_tried,
        a_bus_that_hangs_up_is_told,
        a_bus_that_says_nothing_is_waited_for_half_a_minute_and_no_longer,
        a_signal_ends_the_wait_for_a_bus_that_says_nothing,
    ]
}

/// The error of a creation that finds no systemd, after which nothing is left.
fn failure(bundle: &Bundle, bus: &Path) -> String {
    let address = format!("unix:path={}", bus.display());
    let environment = [("DBUS_SYSTEM_BUS_ADDRESS", address.as_str())];
    let error = make_with(bundle, "run", &environment).failure();
    assert!(bundle.verb("state").failure().contains("does not exist"));
    error
}

fn socket(bundle: &Bundle) -> PathBuf {
    bundle.folder.join("bus")
}

/// On a host without systemd the plain call fails; on one with it the same call works.
fn without_systemd_it_is_told_where_it_was_looked_for_and_what_to_do() {
    let bundle = Bundle::new("echo inside");
    let ran = make(&bundle, "run");
    if has_systemd() {
        assert_eq!(ran.success(), "inside\n");
        return;
    }
    let expected = format!(
        "run \"{}\": systemd can not be reached: \
         connect(/run/systemd/private): no such file or directory; \
         connect(/run/dbus/system_bus_socket): no such file or directory \
         (--systemd-cgroup needs a host that systemd manages: `systemctl is-system-running` tells; \
         without the option, cgroups are made in the cgroup file system)\n",
        bundle.id
    );
    assert_eq!(ran.failure(), expected);
    assert!(bundle.verb("state").failure().contains("does not exist"));
    assert_eq!(bundle.run().success(), "inside\n", "the advice is right");
}

fn an_address_of_the_environment_is_the_only_one_tried() {
    let bundle = Bundle::new("true");
    let error = failure(&bundle, &socket(&bundle));
    let told = format!(
        "systemd can not be reached: connect({}): no such file or directory (",
        socket(&bundle).display()
    );
    assert!(error.contains(&told), "{error}");
}

fn a_bus_that_hangs_up_is_told() {
    let bundle = Bundle::new("true");
    let listener = UnixListener::bind(socket(&bundle)).unwrap();
    let server = thread::spawn(move || drop(listener.accept().unwrap()));
    let error = failure(&bundle, &socket(&bundle));
    assert!(error.contains("/bus closed the connection"), "{error}");
    server.join().unwrap();
}

fn a_bus_that_says_nothing_is_waited_for_half_a_minute_and_no_longer() {
    let bundle = Bundle::new("true");
    let listener = UnixListener::bind(socket(&bundle)).unwrap();
    let error = failure(&bundle, &socket(&bundle));
    drop(listener);
    assert!(error.contains("/bus in 30s: "), "{error}");
    assert!(
        error.contains(": authentication: no answer from /"),
        "{error}"
    );
    assert!(!super::cgroup(&bundle).exists(), "{}", scope(&bundle));
}

fn a_signal_ends_the_wait_for_a_bus_that_says_nothing() {
    let bundle = Bundle::new("true");
    let listener = UnixListener::bind(socket(&bundle)).unwrap();
    let address = format!("unix:path={}", socket(&bundle).display());
    let words = ["--systemd-cgroup", "run", "--bundle", bundle.path()];
    let mut command = caller::command(&bundle, &[&words[..], &[&bundle.id]].concat());
    command.env("DBUS_SYSTEM_BUS_ADDRESS", address);
    let mut running = Running::spawn(&mut command, Stdio::null());
    let connection = listener.accept().unwrap();
    running.signal(Signal::TERM);
    let (status, _, error) = running.end();
    assert_eq!(status.code(), Some(1), "{error}");
    let told = format!(
        "ended by a signal while {} had not",
        socket(&bundle).display()
    );
    assert!(error.contains(&told), "{error}");
    assert!(bundle.verb("state").failure().contains("does not exist"));
    drop(connection);
}
