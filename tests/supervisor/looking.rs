//! Looking at instances from outside and inside: logs, exec, watch, events, services, figures.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::process::Stdio;

use libtest_mimic::Trial;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::caller::{Fifo, Running};
use crate::host::{Host, parctl_at};
use crate::support::tests;

pub fn all() -> Vec<Trial> {
    tests![
        logs_are_printed_and_followed,
        a_log_is_followed_over_the_rotation_of_its_files,
        programs_run_inside_with_streams_and_exit_codes,
        a_program_inside_has_a_terminal_of_the_callers_size,
        a_watch_tells_each_change,
        events_are_told_as_they_happen,
        services_have_the_ports_of_instances,
        figures_and_the_document_are_served,
        versions_and_hosts_are_told,
    ]
}

const COUNTS: &str = "while :; do sleep 1; done";

fn logs_are_printed_and_followed() {
    let host = Host::new(
        "echo one; echo two >&2; echo three; while :; do sleep 0.2; i=$((i+1)); echo tick $i; done",
    );
    let name = host.deploy(&json!({}));
    host.until("it has printed", || {
        host.parctl(&["logs", &name]).success().contains("tick")
    });
    let all = host.parctl(&["logs", "web"]).success();
    let first: Vec<&str> = all
        .lines()
        .filter(|line| !line.starts_with("tick"))
        .collect();
    assert_eq!(first.len(), 3, "{all}");
    let errors = host
        .parctl(&["logs", &name, "--stream", "stderr"])
        .success();
    assert_eq!(errors, "two\n");
    let timed = host
        .parctl(&["logs", &name, "--stream", "stderr", "--timestamps"])
        .success();
    assert!(
        timed.starts_with("20") && timed.ends_with("Z two\n"),
        "{timed}"
    );
    let mut command = host.parctl_command(&["logs", "-f", "--tail", "1", &name]);
    let follower = Running::spawn(&mut command, Stdio::null());
    let numbers: Vec<u32> = (0..4)
        .map(|_| follower.line().trim_start_matches("tick ").parse().unwrap())
        .collect();
    let expected: Vec<u32> = (numbers[0]..numbers[0] + 4).collect();
    assert_eq!(numbers, expected);
    follower.signal(Signal::INT);
}

/// No line is lost or doubled, whenever somebody begins to follow and however often a new file is begun.
fn a_log_is_followed_over_the_rotation_of_its_files() {
    const LINES: usize = 20_000;
    let script = format!(
        "read x < /tmp/go; i=0; while [ $i -lt {LINES} ]; do echo line $i, and so on up to some length that fills files; \
         i=$((i+1)); done; while :; do sleep 1; done"
    );
    let host = Host::new(&script);
    let mut gate = Fifo::new(&host.bundle, "go");
    let log = json!({ "maxSize": "128KiB", "maxFiles": 100 });
    let name = host.deploy(&json!({ "log": log }));
    let follow = || {
        let mut command = host.parctl_command(&["logs", "--follow", &name]);
        Running::spawn(&mut command, Stdio::null())
    };
    let mut followers = vec![follow()];
    gate.say("go");
    // Others begin while it is printed.
    followers.extend((0..3).map(|_| follow()));
    for follower in &followers {
        for number in 0..LINES {
            let line = follower.line();
            let expected = format!("line {number}, and so on up to some length that fills files");
            assert_eq!(line, expected);
        }
        assert!(!follower.has_line());
        follower.signal(Signal::INT);
    }
    let instances = host.path("supervisor/agent/instances").join(&name);
    let folder = std::fs::read_dir(instances).unwrap().flatten();
    let is_log = |name: &str| name.starts_with("log");
    let files = folder.filter(|entry| is_log(&entry.file_name().to_string_lossy()));
    assert!(files.count() > 5, "no file was rotated");
    let last = host.parctl(&["logs", &name, "--tail", "3"]).success();
    assert!(
        last.lines().count() == 3 && last.contains(&format!("line {}", LINES - 1)),
        "{last}"
    );
}

fn programs_run_inside_with_streams_and_exit_codes() {
    let host = Host::new("while :; do sleep 1; done");
    let name = host.deploy(&json!({}));
    let ran = host.parctl(&[
        "exec",
        "-e",
        "A=b",
        &name,
        "sh",
        "-c",
        "echo $A; echo err >&2; exit 7",
    ]);
    assert_eq!(ran.code(), Some(7));
    assert_eq!(
        (&ran.0.stdout[..], ran.stderr().as_str()),
        (&b"b\n"[..], "err\n")
    );
    let mut command = host.parctl_command(&["exec", "-i", &name, "cat"]);
    let mut cat = Running::spawn(&mut command, Stdio::piped());
    let mut input = cat.stdin();
    input.write_all(b"typed\n").unwrap();
    assert_eq!(cat.line(), "typed");
    drop(input);
    cat.ends_with(0);
    let missing = host.parctl(&["exec", &name, "/bin/nothing"]);
    assert!(
        missing.code() != Some(0) && missing.stderr().contains("nothing"),
        "{}",
        missing.stderr()
    );
    host.parctl(&["stop", "web", "--wait"]).success();
    let refused = host.parctl(&["exec", &name, "true"]).failure();
    assert!(refused.contains("does not run"), "{refused}");
}

/// A program with a terminal, by the API itself: parctl asks for one only from a terminal.
fn a_program_inside_has_a_terminal_of_the_callers_size() {
    use parhelion::api::exec::{Frame, HEADER, PROTOCOL};
    let host = Host::new("while :; do sleep 1; done");
    let name = host.deploy(&json!({}));
    let mut stream = UnixStream::connect(host.path("socket")).unwrap();
    let script = "stty size; read -r x; stty size; test -t 0 && exit 3";
    let body = json!({ "command": ["/bin/busybox", "sh", "-c", script], "terminal": [91, 33] })
        .to_string();
    write!(
        stream,
        "POST /v1/instances/{name}/exec HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: {PROTOCOL}\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    assert!(
        head.starts_with(b"HTTP/1.1 101"),
        "{}",
        String::from_utf8_lossy(&head)
    );
    let mut printed = String::new();
    let mut resized = false;
    loop {
        let mut header = [0; HEADER];
        stream.read_exact(&mut header).unwrap();
        let mut payload = vec![0; Frame::length(header).unwrap()];
        stream.read_exact(&mut payload).unwrap();
        let frame = Frame::parse(header, payload).unwrap();
        if let Frame::Output(bytes) = &frame {
            printed.push_str(&String::from_utf8_lossy(bytes));
        }
        if printed.contains("33 91") && !resized {
            resized = true;
            let (columns, rows) = (50, 20);
            stream
                .write_all(&Frame::Size { columns, rows }.bytes())
                .unwrap();
            stream
                .write_all(&Frame::Input(b"go\n".to_vec()).bytes())
                .unwrap();
        }
        if let Frame::Exit(code) = frame {
            assert_eq!(code, 3, "{printed}");
            break;
        }
    }
    assert!(printed.contains("20 50"), "{printed}");
}

fn a_watch_tells_each_change() {
    let host = Host::new(COUNTS);
    let mut command = host.parctl_command(&["watch", "--json"]);
    let watch = Running::spawn(&mut command, Stdio::null());
    let line = || serde_json::from_str::<Value>(&watch.line()).unwrap();
    assert_eq!(line(), json!({ "kind": "snapshot", "instances": [] }));
    host.deploy(&json!({}));
    let mut last = line();
    while last["instance"]["phase"] != "running" {
        assert_eq!(last["kind"], "changed");
        last = line();
    }
    host.parctl(&["undeploy", "web", "--wait"]).success();
    while last["kind"] != "removed" {
        last = line();
    }
}

fn events_are_told_as_they_happen() {
    let host = Host::new(COUNTS);
    let mut command = host.parctl_command(&["events", "-f", "--json"]);
    let events = Running::spawn(&mut command, Stdio::null());
    let name = host.deploy(&json!({}));
    let mut last = 0;
    loop {
        let event: Value = serde_json::from_str(&events.line()).unwrap();
        let number = event["number"].as_u64().unwrap();
        assert!(number > last, "{event}");
        last = number;
        if event["kind"] == "started" {
            assert_eq!(event["instance"], name.as_str());
            return;
        }
    }
}

fn services_have_the_ports_of_instances() {
    let host = Host::new(COUNTS);
    host.deploy(&json!({
        "ports": { "http": {} },
        "registration": [{ "service": "shop", "port": "http" }],
    }));
    let services = host.json(&["services"]);
    let endpoint = &services[0]["endpoints"][0];
    assert_eq!(services[0]["name"], "shop");
    assert_eq!(endpoint["port"], host.instance()["ports"]["http"]);
    host.parctl(&["stop", "web", "--wait"]).success();
    assert_eq!(host.json(&["services"])[0]["endpoints"], json!([]));
}

fn figures_and_the_document_are_served() {
    let host = Host::new(COUNTS);
    host.deploy(&json!({}));
    let get = |path: &str| host.get(path).1;
    let figures = get("/metrics");
    let line =
        "parhelion_instances{job=\"web\",version=\"1\",phase=\"running\",health=\"unknown\"} 1";
    assert!(figures.contains(line), "{figures}");
    assert_eq!(host.get("/healthz"), (200, "ok\n".to_owned()));
    assert!(get("/openapi.json").contains("/v1/instances/{name}/exec"));
}

fn versions_and_hosts_are_told() {
    let host = Host::new(COUNTS);
    let own = env!("CARGO_PKG_VERSION");
    let told = host.json(&["version"]);
    assert_eq!(
        (&told["parctl"], &told["parheliond"]["version"]),
        (&json!(own), &json!(own))
    );
    let told = host.parctl(&["version"]).success();
    assert_eq!(told.matches(own).count(), 2, "{told}");
    let socket = host.path("socket");
    let words = ["version", "--socket", socket.to_str().unwrap()];
    let mut elsewhere = parctl_at(&host.path("nowhere"), &words);
    assert!(elsewhere.output().unwrap().status.success());
    let told = host.json(&["hosts"]);
    assert_eq!(told.as_array().unwrap().len(), 1);
    assert_eq!(
        (&told[0]["name"], &told[0]["version"]),
        (&json!("here"), &json!(own))
    );
    assert!(told[0]["fault"].is_null(), "{told}");
}
