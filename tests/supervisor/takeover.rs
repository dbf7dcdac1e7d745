//! A newer program takes the daemon's place: the same process, the same socket, no request refused, nothing restarted.

use std::sync::atomic::{AtomicBool, Ordering};

use libtest_mimic::Trial;
use rustix::process::Signal;
use serde_json::json;

use crate::host::{Host, parctl_at};
use crate::support::{Ran, tests};

pub fn all() -> Vec<Trial> {
    tests![
        another_program_takes_over_and_no_request_is_refused,
        a_program_that_does_not_work_takes_nothing_over,
        keepers_have_the_limits_that_the_daemon_was_started_with_also_after_a_takeover,
    ]
}

/// A host whose daemon is a copy that can be replaced.
fn with_a_copy() -> Host {
    let mut host = Host::new("while :; do sleep 1; done");
    host.stop_daemon();
    let copy = host.path("parheliond");
    std::fs::copy(&host.program, &copy).unwrap();
    host.program = copy;
    host.start();
    host
}

fn another_program_takes_over_and_no_request_is_refused() {
    let host = with_a_copy();
    host.deploy(&json!({}));
    let pid = host.pid();
    let daemon = host.daemon.as_ref().unwrap();
    let before = executable(daemon.pid());
    let new = host.path("parheliond.new");
    std::fs::copy(&host.program, &new).unwrap();
    std::fs::rename(&new, &host.program).unwrap();
    let ended = AtomicBool::new(false);
    let socket = host.path("socket");
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut asked = 0;
            while !ended.load(Ordering::Relaxed) {
                Ran(parctl_at(&socket, &["status"]).output().unwrap()).success();
                asked += 1;
            }
            asked
        });
        daemon.signal(Signal::USR2);
        host.until("another program runs", || {
            executable(daemon.pid()) != before
        });
        host.parctl(&["version"]).success();
        ended.store(true, Ordering::Relaxed);
        assert!(asking.join().unwrap() > 0);
    });
    assert_eq!(host.pid(), pid);
    assert_eq!(host.instance()["restarts"], 0);
    host.parctl(&["undeploy", "web", "--wait"]).success();
}

/// Which file a process executes: its device and inode.
fn executable(pid: i32) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt as _;
    let file = std::fs::metadata(format!("/proc/{pid}/exe")).unwrap();
    (file.dev(), file.ino())
}

fn keepers_have_the_limits_that_the_daemon_was_started_with_also_after_a_takeover() {
    let mut host = with_a_copy();
    host.stop_daemon();
    let copy = host.program.clone();
    let limited = host.path("limited");
    let script = format!("#!/bin/sh\nulimit -Sn 1000\nexec {copy:?} \"$@\"\n");
    std::fs::write(&limited, script).unwrap();
    std::fs::set_permissions(
        &limited,
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    host.program = limited;
    host.start();
    let daemon = host.daemon.as_ref().unwrap();
    let before = executable(daemon.pid());
    let new = host.path("parheliond.new");
    std::fs::copy(&copy, &new).unwrap();
    std::fs::rename(&new, &copy).unwrap();
    daemon.signal(Signal::USR2);
    host.until("another program runs", || {
        executable(daemon.pid()) != before
    });
    host.deploy(&json!({}));
    let keepers = crate::victims::keepers(&host.path("supervisor/agent/instances"));
    let keeper = *keepers.values().next().unwrap();
    assert_eq!(open_files(keeper), "1000");
    assert_ne!(open_files(daemon.pid()), "1000");
    host.parctl(&["undeploy", "web", "--wait"]).success();
}

/// How many files a process may have open.
fn open_files(pid: i32) -> String {
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    line.unwrap().split_whitespace().nth(3).unwrap().to_owned()
}

fn a_program_that_does_not_work_takes_nothing_over() {
    let mut host = with_a_copy();
    let new = host.path("parheliond.new");
    std::fs::write(&new, "#!/bin/sh\nexit 1\n").unwrap();
    std::fs::set_permissions(&new, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::rename(&new, &host.program).unwrap();
    let daemon = host.daemon.as_ref().unwrap();
    daemon.signal(Signal::USR2);
    host.parctl(&["version"]).success();
    host.parctl(&["status"]).success();
    let told = host.stop_daemon();
    assert!(told.contains("no other program takes over"), "{told}");
}
