//! What goes between the caller and the process: streams, descriptors, its id, signals.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::process::Stdio;

use libtest_mimic::Trial;
use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};
use serde_json::json;

use super::{
    background, cgroup_of, changed, exec, exec_command, leave, processes, refusal, running,
};
use crate::caller::{Running, Socket, from_shell, wait_for_exit, wait_readable};
use crate::support::{Bundle, Ran, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        the_streams_are_the_callers,
        in_the_background_it_returns_and_the_streams_stay,
        preserved_descriptors_arrive_and_no_others,
        socket_activation_is_told_with_the_programs_own_process_id,
        a_descriptor_to_preserve_that_is_not_open_is_named,
        no_signal_is_ignored_or_blocked_whatever_the_caller_does,
        the_pid_file_has_the_id_of_the_process_when_the_command_returns,
        there_is_no_pid_file_after_a_failure,
        the_pidfd_is_sent_to_the_socket,
        a_pidfd_socket_that_nobody_listens_to_is_named,
        signals_in_the_foreground_reach_the_process,
        a_signal_before_the_program_runs_ends_it_all,
    ]
}

fn the_streams_are_the_callers() {
    let bundle = running();
    let program = ["/bin/sh", "-c", "cat; echo out; echo problem >/dev/stderr"];
    let flags = ["--user", "1000"];
    let mut running = Running::spawn(&mut exec_command(&bundle, &flags, &program), Stdio::piped());
    let mut stdin = running.stdin();
    stdin.write_all(b"some\nlines\n").unwrap();
    drop(stdin);
    let (status, out, errors) = running.end();
    assert_eq!(
        (status.code(), out.as_str(), errors.as_str()),
        (Some(0), "some\nlines\nout", "problem")
    );
}

fn in_the_background_it_returns_and_the_streams_stay() {
    let bundle = running();
    let (mut words, theirs) = std::io::pipe().unwrap();
    let (input, mut keys) = std::io::pipe().unwrap();
    let program = ["/bin/sh", "-c", "read line; echo \"got $line\"; exit 3"];
    let mut command = exec_command(&bundle, &["--detach"], &program);
    let streams = command.stdin(input).stdout(theirs).stderr(Stdio::null());
    assert!(streams.status().unwrap().success());
    drop(command);
    assert_eq!(
        processes(&cgroup_of(&bundle)).len(),
        2,
        "it runs when the command has returned"
    );
    keys.write_all(b"word\n").unwrap();
    let mut seen = String::new();
    words.read_to_string(&mut seen).unwrap();
    assert_eq!(seen, "got word\n");
}

/// `exec` from a shell that first does `script` in the bundle's folder.
fn after(bundle: &Bundle, script: &str, flags: &[&str], program: &[&str]) -> Ran {
    let arguments = [&["exec"], flags, &[&bundle.id], program].concat();
    let script = format!("cd {} && {script}; exec \"$@\"", bundle.path());
    let mut command = from_shell(bundle, &script, &arguments);
    Ran(command.stdin(Stdio::null()).output().unwrap())
}

fn preserved_descriptors_arrive_and_no_others() {
    let bundle = running();
    let open = "echo one >1; echo two >2; exec 3<1 4<2 5<1 9<2";
    let program = ["/bin/sh", "-c", "cat <&3; cat <&4; ls /proc/$$/fd; true"];
    let seen = after(&bundle, open, &["--preserve-fds", "2"], &program);
    assert_eq!(seen.success(), "one\ntwo\n0\n1\n2\n3\n4\n");
    let list = ["/bin/sh", "-c", "ls /proc/$$/fd; true"];
    assert_eq!(after(&bundle, open, &[], &list).success(), "0\n1\n2\n");
    // A closed stream is an empty one.
    assert_eq!(
        after(&bundle, "exec <&-", &[], &list).success(),
        "0\n1\n2\n"
    );
}

fn socket_activation_is_told_with_the_programs_own_process_id() {
    let tell = "cat <&3; cat <&4; echo $LISTEN_FDS $(($LISTEN_PID - $$)); ls /proc/$$/fd; true";
    let open = "echo one >1; echo two >2; exec 3<1 4<2; export LISTEN_FDS=1 LISTEN_PID=$$";
    for bundle in [running(), changed(|config| leave(config, "pid"))] {
        let flags = ["--preserve-fds=1"];
        let seen = after(&bundle, open, &flags, &["/bin/sh", "-c", tell]);
        assert_eq!(seen.success(), "one\ntwo\n1 0\n0\n1\n2\n3\n4\n");
    }
}

fn a_descriptor_to_preserve_that_is_not_open_is_named() {
    let bundle = running();
    let ran = after(
        &bundle,
        "exec 3<. 4<&-",
        &["--preserve-fds", "2"],
        &["/bin/true"],
    );
    let error = refusal(&ran);
    assert!(
        error.contains("descriptor 4 is not open: --preserve-fds 2"),
        "{error}"
    );
}

fn no_signal_is_ignored_or_blocked_whatever_the_caller_does() {
    let bundle = running();
    let ignore = "trap '' HUP INT PIPE TERM USR1 TSTP TTOU";
    let seen = after(&bundle, ignore, &[], &["/bin/cat", "/proc/self/status"]).success();
    for set in ["SigIgn", "SigBlk", "SigPnd", "SigCgt"] {
        assert!(
            seen.contains(&format!("{set}:\t0000000000000000")),
            "{set} in {seen}"
        );
    }
    let ignore = "set -- env --ignore-signal=CHLD \"$@\"";
    let ran = after(&bundle, ignore, &[], &["/bin/sh", "-c", "exit 7"]);
    assert_eq!((ran.code(), ran.stderr()), (Some(7), String::new()));
}

fn the_pid_file_has_the_id_of_the_process_when_the_command_returns() {
    let bundle = running();
    let pid = background(&bundle, &[]);
    let arguments = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
    assert_eq!(arguments, "/bin/sleep\x00100000\x00");
    // In the foreground it is there while the program runs, and stays.
    let file = bundle.folder.join("foreground");
    let flags = ["--pid-file", file.to_str().unwrap()];
    let program = ["/bin/sh", "-c", "echo ready; read line"];
    let mut command = exec_command(&bundle, &flags, &program);
    let mut running = Running::spawn(&mut command, Stdio::piped());
    assert_eq!(running.line(), "ready");
    let pid = fs::read_to_string(&file).unwrap();
    let status = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
    assert!(status.starts_with("/bin/sh"), "{status}");
    drop(running.stdin());
    running.ends_with(1);
    assert!(file.exists());
}

fn there_is_no_pid_file_after_a_failure() {
    let bundle = running();
    let folder = bundle.folder.join("files");
    fs::create_dir(&folder).unwrap();
    let file = folder.join("pid");
    let etc = bundle.folder.join("rootfs/etc/strange");
    fs::write(&etc, "no format\n").unwrap();
    fs::set_permissions(&etc, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    for program in ["/no/such", "/etc/strange"] {
        refusal(&exec(
            &bundle,
            &["--pid-file", file.to_str().unwrap()],
            &[program],
        ));
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0, "{program}");
    }
    let error = refusal(&exec(
        &bundle,
        &["--pid-file", "/no/such/pid"],
        &["/bin/true"],
    ));
    assert!(error.contains("--pid-file /no/such/pid: "), "{error}");
    assert_eq!(processes(&cgroup_of(&bundle)).len(), 1);
}

fn the_pidfd_is_sent_to_the_socket() {
    let bundle = running();
    let socket = Socket::new(&bundle, "pidfd.sock");
    let pid = background(&bundle, &["--pidfd-socket", &socket.path]);
    let (_name, pidfd) = socket.receive();
    pidfd_send_signal(&pidfd, Signal::KILL).unwrap();
    wait_readable(&pidfd);
    wait_for_exit(pid);
    // Not our child, so nothing to reap: it is told by the kernel all the same that it is no child.
    let reaped = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
    assert_eq!(reaped.unwrap_err(), rustix::io::Errno::CHILD);
}

fn a_pidfd_socket_that_nobody_listens_to_is_named() {
    let bundle = running();
    let flags = ["--pidfd-socket", "/no/such.sock"];
    let error = refusal(&exec(&bundle, &flags, &["/bin/true"]));
    assert!(
        error.contains("connect(\"/no/such.sock\"): no such file or directory"),
        "{error}"
    );
    assert_eq!(processes(&cgroup_of(&bundle)).len(), 1);
}

fn signals_in_the_foreground_reach_the_process() {
    let bundle = running();
    let traps = "trap 'echo usr1' USR1; trap 'echo hup' HUP; trap 'exit 9' TERM; echo ready; \
        while :; do sleep 1000 & wait; done";
    let mut command = exec_command(&bundle, &[], &["/bin/sh", "-c", traps]);
    let mut running = Running::spawn(&mut command, Stdio::null());
    assert_eq!(running.line(), "ready");
    running.signal(Signal::USR1);
    assert_eq!(running.line(), "usr1");
    running.signal(Signal::HUP);
    assert_eq!(running.line(), "hup");
    running.signal(Signal::TERM);
    running.ends_with(9);
    assert_eq!(bundle.status(), "running");
}

fn a_signal_before_the_program_runs_ends_it_all() {
    let bundle = changed(|config| config["hostname"] = json!("held"));
    // Its process is frozen in the middle of its work.
    bundle.verb("pause").success();
    let flags = ["--ignore-paused"];
    let mut command = exec_command(&bundle, &flags, &["/bin/echo", "ran"]);
    let mut held = Running::spawn(&mut command, Stdio::null());
    super::wait_until(|| processes(&cgroup_of(&bundle)).len() == 2);
    held.signal(Signal::TERM);
    let (status, out, error) = held.end();
    assert_eq!((status.code(), out.as_str()), (Some(255), ""), "{error}");
    assert!(
        error.contains("ended by SIGTERM before the program was executed"),
        "{error}"
    );
    assert_eq!(processes(&cgroup_of(&bundle)).len(), 1);
    bundle.verb("resume").success();
    assert_eq!(bundle.status(), "running");
}
