//! Programs inside instances, at their clients' and their own worst: much at once, clients that vanish.

use std::io::{Read as _, Write as _};
use std::process::Stdio;

use libtest_mimic::Trial;
use rustix::process::Signal;
use serde_json::json;

use crate::caller::Running;
use crate::host::Host;
use crate::support::tests;

pub fn all() -> Vec<Trial> {
    tests![
        much_goes_in_and_out_at_once,
        a_client_that_vanishes_leaves_no_program,
        a_token_is_needed_to_enter_and_to_restart,
    ]
}

const SLEEP: &str = "while :; do sleep 1; done";

fn much_goes_in_and_out_at_once() {
    const MUCH: usize = 1 << 20;
    let host = Host::new(SLEEP);
    let name = host.deploy(&json!({}));
    // It takes nothing before its own is taken.
    let script = format!("head -c {MUCH} /dev/zero; cat");
    let words = ["exec", "-i", &name, "/bin/busybox", "sh", "-c", &script];
    let mut command = host.parctl_command(&words);
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut parctl = piped.spawn().unwrap();
    let mut input = parctl.stdin.take().unwrap();
    let typing = std::thread::spawn(move || input.write_all(&vec![b'x'; MUCH]));
    let mut output = parctl.stdout.take().unwrap();
    let (counts, counted) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut all = Vec::new();
        output.read_to_end(&mut all).unwrap();
        counts.send(all.len())
    });
    let count = counted.recv_timeout(crate::host::PATIENCE);
    let _ended = parctl.kill();
    parctl.wait().unwrap();
    assert_eq!(count, Ok(2 * MUCH));
    typing.join().unwrap().unwrap();
}

fn a_token_is_needed_to_enter_and_to_restart() {
    let host = Host::new(SLEEP);
    let file = host.job("1", &json!({ "token": "secret" }));
    host.parctl(&["create", &file]).success();
    host.parctl(&["deploy", "web", "--wait", "--token", "secret"])
        .success();
    let name = host.instance()["name"].as_str().unwrap().to_owned();
    let pid = host.pid();
    for words in [&["exec", &name, "--", "true"][..], &["restart", &name]] {
        let told = host.parctl(words).failure();
        assert!(told.contains("has a token, and none was given"), "{told}");
        let with = [&["--token", "secret"], words].concat();
        assert_eq!(host.pid(), pid);
        host.parctl(&with).success();
    }
    assert_ne!(host.pid(), pid);
    host.parctl(&["undeploy", "web", "--wait", "--token", "secret"])
        .success();
}

/// Whether a process has this among its words.
fn is_there(word: &str) -> bool {
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let words = |entry: std::fs::DirEntry| std::fs::read(entry.path().join("cmdline"));
    all.filter_map(|entry| words(entry).ok())
        .any(|words| String::from_utf8_lossy(&words).contains(word))
}

fn a_client_that_vanishes_leaves_no_program() {
    let host = Host::new(SLEEP);
    let name = host.deploy(&json!({}));
    let word = format!("stays-{}", host.bundle.id);
    let script = format!("trap '' HUP TERM INT; echo up; : {word}; while :; do sleep 1; done");
    let words = ["exec", "-i", &name, "/bin/busybox", "sh", "-c", &script];
    let mut client = Running::spawn(&mut host.parctl_command(&words), Stdio::piped());
    assert_eq!(client.line(), "up");
    assert!(is_there(&word));
    client.signal(Signal::KILL);
    client.end();
    host.until("the program has ended", || !is_there(&word));
}
