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
        what_the_program_before_has_started_is_waited_for_when_it_ends,
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
    replace(&host, &copy);
    // What is not said in the bundle is as its parent has it.
    host.bundle
        .edit(|config| config["process"]["rlimits"] = json!([]));
    let name = host.deploy(&json!({}));
    let limit = ["exec", &name, "--", "/bin/sh", "-c", "ulimit -Sn"];
    assert_eq!(host.parctl(&limit).success().trim(), "1000");
    let keepers = crate::victims::keepers(&host.path("supervisor/agent/instances"));
    let keeper = *keepers.values().next().unwrap();
    assert_eq!(open_files(keeper), "1000");
    assert_ne!(open_files(daemon.pid()), "1000");
    host.parctl(&["undeploy", "web", "--wait"]).success();
}

/// Another file takes the place of the daemon's program, and the daemon becomes that.
fn replace(host: &Host, program: &std::path::Path) {
    let daemon = host.daemon.as_ref().unwrap();
    let before = executable(daemon.pid());
    let new = host.path("parheliond.new");
    std::fs::copy(program, &new).unwrap();
    std::fs::rename(&new, program).unwrap();
    daemon.signal(Signal::USR2);
    host.until("another program runs", || {
        executable(daemon.pid()) != before
    });
    host.parctl(&["version"]).success();
}

/// The states of a process' children, as proc_pid_stat(5) has them, by their numbers.
fn children(parent: i32) -> std::collections::BTreeMap<i32, char> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let stats = entries.filter_map(|entry| {
        let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        let (head, rest) = stat.rsplit_once(") ")?;
        let mut words = rest.split(' ');
        let (state, of) = (words.next()?.chars().next()?, words.next()?);
        let pid = head.split(' ').next()?.parse().ok()?;
        (of == parent.to_string()).then_some((pid, state))
    });
    stats.collect()
}

fn what_the_program_before_has_started_is_waited_for_when_it_ends() {
    let host = with_a_copy();
    let name = host.deploy(&json!({}));
    let daemon = host.daemon.as_ref().unwrap().pid();
    let keeper = crate::victims::keepers(&host.path("supervisor/agent/instances"))[&name];
    assert!(children(daemon).contains_key(&keeper));
    // A session that is there when the program changes, one whose program is killed, and one that ends by itself.
    let mut command = host.parctl_command(&["exec", &name, "--", "/bin/sleep", "1000"]);
    let mut session = crate::caller::Running::spawn(&mut command, std::process::Stdio::null());
    host.until("its program runs", || children(daemon).len() == 2);
    replace(&host, &host.program);
    session.end();
    let has_ended = |state: &char| *state == 'Z';
    host.until("nothing of the session is left", || {
        let there = children(daemon);
        there.len() == 1 && there.contains_key(&keeper)
    });
    // Keepers that end are replaced, and leave nothing either.
    assert!(crate::victims::try_kill(keeper));
    host.until("there is another keeper", || {
        let there = children(daemon);
        !there.contains_key(&keeper) && there.len() == 1 && !there.values().any(has_ended)
    });
    assert_eq!(host.instance()["restarts"], 0);
    host.parctl(&["undeploy", "web", "--wait"]).success();
    host.until("and when it is removed nothing is left", || {
        children(daemon).is_empty()
    });
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
