//! Programs inside instances, at their clients' and their own worst: much at once, clients that vanish.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
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
        there_are_at_most_128_sessions_and_one_that_ends_makes_room,
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

/// Asks for a session that lasts: its connection, or why there is none.
fn enter(host: &Host, name: &str) -> Result<UnixStream, String> {
    let mut stream = UnixStream::connect(host.path("socket")).unwrap();
    let patience = Some(crate::host::PATIENCE);
    stream.set_read_timeout(patience).unwrap();
    let body = json!({ "command": ["/bin/cat"] }).to_string();
    write!(
        stream,
        "POST /v1/instances/{name}/exec HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\n\
         Upgrade: parhelion-exec\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut answer = Vec::new();
    let entered = loop {
        let mut some = [0; 4096];
        let count = stream.read(&mut some).unwrap();
        assert_ne!(count, 0, "it ends: {answer:?}");
        answer.extend(&some[..count]);
        let text = String::from_utf8_lossy(&answer);
        if text.starts_with("HTTP/1.1 101 ") && text.contains("\r\n\r\n") {
            break Ok(());
        }
        if text.starts_with("HTTP/1.1 503 ") && text.ends_with('}') {
            break Err(text.into_owned());
        }
    };
    entered.map(|()| stream)
}

/// As [`enter`], however many others are just being started.
fn enter_at_last(host: &Host, name: &str) -> Result<UnixStream, String> {
    loop {
        match enter(host, name) {
            Err(told) if told.contains("are being started") => {}
            entered => return entered,
        }
    }
}

fn there_are_at_most_128_sessions_and_one_that_ends_makes_room() {
    let host = Host::new(SLEEP);
    let name = host.deploy(&json!({}));
    let mut sessions = Vec::new();
    for number in 0..128 {
        match enter_at_last(&host, &name) {
            Ok(session) => sessions.push(session),
            Err(told) => panic!("{number}: {told}"),
        }
    }
    let told = enter_at_last(&host, &name).unwrap_err();
    assert!(told.contains("128 programs inside instances"), "{told}");
    // All else is answered.
    assert_eq!(host.get("/healthz").0, 200);
    drop(sessions.pop());
    host.until("there is room again", || enter(&host, &name).is_ok());
    drop(sessions);
    host.parctl(&["undeploy", "web", "--wait"]).success();
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
