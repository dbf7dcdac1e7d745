//! `run`, which stands for the container until it ends.

use std::fs;
use std::io::Write;
use std::process::Stdio;

use libtest_mimic::Trial;
use rustix::process::{Pid, Signal, kill_process};

use super::{is_gone, share_pids};
use crate::caller::{Running, command, init_pid, run, state, wait_for_exit};
use crate::support::{Bundle, program, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        run_ends_with_the_code_of_the_program,
        run_answers_128_and_the_signal,
        run_passes_its_streams_on,
        run_forwards_signals,
        a_signal_that_ends_the_program_ends_run,
        run_adopts_and_reaps_orphans,
        run_leaves_orphans_to_others_when_asked,
        run_removes_the_container_unless_it_is_to_be_kept,
        run_detached_leaves_no_process_of_the_runtime,
    ]
}

/// The parent of a process, as /proc tells.
fn parent(pid: i32) -> i32 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("PPid:"))
        .unwrap();
    line[5..].trim().parse().unwrap()
}

/// A container in the host's pid namespace that prints the pid of an orphan and waits.
const ORPHAN: &str = "sh -c 'sleep 1000 & echo $!'; echo ready; read line; exit 5";

fn run_ends_with_the_code_of_the_program() {
    for code in [0, 1, 127, 255] {
        let bundle = Bundle::new(&format!("exit {code}"));
        assert_eq!(bundle.run().code(), Some(code));
    }
}

fn run_answers_128_and_the_signal() {
    // The first process of a pid namespace is spared by its own signals: a host pid namespace.
    for signal in [9, 10, 13] {
        let bundle = Bundle::new(&format!("kill -{signal} $$; sleep 5"));
        share_pids(&bundle);
        assert_eq!(bundle.run().code(), Some(128 + signal));
    }
}

fn run_passes_its_streams_on() {
    let bundle = Bundle::new("cat; echo problem >&2; exit 3");
    let mut running = Running::spawn(&mut run(&bundle), Stdio::piped());
    let mut stdin = running.stdin();
    stdin.write_all(b"one\n").unwrap();
    assert_eq!(running.line(), "one", "before the end of stdin");
    stdin.write_all(b"two\n").unwrap();
    drop(stdin);
    let (status, out, errors) = running.end();
    assert_eq!(
        (status.code(), &*out, &*errors),
        (Some(3), "two", "problem")
    );
}

fn run_forwards_signals() {
    let signals = [
        (Signal::TERM, "TERM"),
        (Signal::INT, "INT"),
        (Signal::HUP, "HUP"),
        (Signal::QUIT, "QUIT"),
        (Signal::USR1, "USR1"),
        (Signal::USR2, "USR2"),
        (Signal::ALARM, "ALRM"),
        (Signal::PIPE, "PIPE"),
        (Signal::TSTP, "TSTP"),
        (Signal::CONT, "CONT"),
    ];
    let traps: String = signals
        .iter()
        .map(|(_, name)| format!("trap 'echo {name}' {name}; "))
        .collect();
    let script =
        format!("{traps} trap 'exit 4' TTOU; echo ready; while :; do sleep 1000 & wait; done");
    let bundle = Bundle::new(&script);
    let mut running = Running::spawn(&mut run(&bundle), Stdio::null());
    assert_eq!(running.line(), "ready");
    for (signal, name) in signals {
        running.signal(signal);
        assert_eq!(running.line(), name);
    }
    running.signal(Signal::TTOU);
    running.ends_with(4);
}

fn a_signal_that_ends_the_program_ends_run() {
    let bundle = Bundle::new("echo ready; exec sleep 1000");
    share_pids(&bundle);
    let mut running = Running::spawn(&mut run(&bundle), Stdio::null());
    assert_eq!(running.line(), "ready");
    running.signal(Signal::TERM);
    running.ends_with(128 + 15);
    assert!(is_gone(&bundle));
}

fn run_adopts_and_reaps_orphans() {
    let bundle = Bundle::new(ORPHAN);
    share_pids(&bundle);
    let mut running = Running::spawn(&mut run(&bundle), Stdio::piped());
    let stdin = running.stdin();
    let orphan: i32 = running.line().parse().unwrap();
    assert_eq!(running.line(), "ready"); // its parent has ended
    assert_eq!(parent(orphan), running.pid());
    kill_process(Pid::from_raw(orphan).unwrap(), Signal::KILL).unwrap();
    // Its end can be waited for, its reaping can not: ask until the number is free.
    wait_for_exit(orphan);
    let place = std::path::PathBuf::from(format!("/proc/{orphan}"));
    let pause = std::time::Duration::from_millis(10);
    let reaped = (0..6000).any(|_| {
        std::thread::sleep(pause);
        !place.exists()
    });
    assert!(reaped, "{orphan} is still a zombie");
    drop(stdin);
    running.ends_with(5);
}

fn run_leaves_orphans_to_others_when_asked() {
    let bundle = Bundle::new(ORPHAN);
    share_pids(&bundle);
    let flags = [
        "run",
        "--no-subreaper",
        "--bundle",
        bundle.path(),
        &bundle.id,
    ];
    let mut running = Running::spawn(&mut command(&bundle, &flags), Stdio::piped());
    let orphan: i32 = running.line().parse().unwrap();
    assert_eq!(running.line(), "ready"); // its parent has ended
    assert_ne!(parent(orphan), running.pid());
    drop(running.stdin());
    running.ends_with(5);
    // The container is gone with all that it was.
    wait_for_exit(orphan);
}

fn run_removes_the_container_unless_it_is_to_be_kept() {
    let bundle = Bundle::new("exit 3");
    assert_eq!(bundle.run().code(), Some(3));
    assert!(is_gone(&bundle));
    let arguments = ["run", "--keep", "--bundle", bundle.path(), &bundle.id];
    let ran = crate::support::Ran(command(&bundle, &arguments).output().unwrap());
    assert_eq!(ran.code(), Some(3), "{}", ran.stderr());
    assert_eq!(state(&bundle)["status"], "stopped");
    assert_eq!(state(&bundle)["pid"], 0);
    bundle.verb("delete").success();
    assert!(is_gone(&bundle));
}

fn run_detached_leaves_no_process_of_the_runtime() {
    let bundle = Bundle::new("sleep 1000");
    let mut command = command(
        &bundle,
        &["run", "--detach", "--bundle", bundle.path(), &bundle.id],
    );
    let log = fs::File::create(bundle.folder.join("output")).unwrap();
    let streams = command
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap());
    assert!(streams.stderr(log).status().unwrap().success());
    assert_eq!(bundle.status(), "running");
    for process in fs::read_dir("/proc").unwrap() {
        let path = process.unwrap().path();
        let line = fs::read_to_string(path.join("cmdline")).unwrap_or_default();
        let names_it = line.split('\0').any(|word| word == bundle.id);
        let is_runtime = fs::read_link(path.join("exe")).is_ok_and(|exe| exe == program());
        assert!(!(names_it && is_runtime), "{}: {line}", path.display());
    }
    let pid = init_pid(&bundle);
    assert_ne!(u32::try_from(parent(pid)).unwrap(), std::process::id());
}
