//! What a keeper does not begin, and what it does not answer.

use std::fs;
use std::process::Stdio;

use libtest_mimic::Trial;
use serde_json::json;

use super::Instance;
use crate::caller::{Running, command};
use crate::support::{Bundle, tests};

pub fn all() -> Vec<Trial> {
    tests![
        a_second_keeper_is_refused,
        what_is_wrong_in_keeper_json_is_told_with_its_place,
        a_container_of_somebody_else_is_left_alone,
        another_id_is_refused_while_the_container_of_the_last_one_runs,
        without_a_keeper_it_is_said_what_to_do,
        only_the_owner_reaches_the_socket_and_it_refuses_what_it_does_not_know,
        who_hangs_up_while_a_container_is_made_costs_no_processor_time,
        a_word_that_is_a_container_is_not_taken_for_the_verb,
    ]
}

fn a_second_keeper_is_refused() {
    let instance = Instance::running("exec sleep 1000", json!({}));
    let before = instance.pid();
    for _ in 0..3 {
        let told = instance
            .bundle
            .parhelion(&["keep", &instance.path()])
            .failure();
        assert!(told.contains("a keeper is there already"), "{told}");
    }
    assert_eq!(instance.pid(), before);
}

fn what_is_wrong_in_keeper_json_is_told_with_its_place() {
    let instance = Instance::new("exit 0", json!({}));
    let told = |text: &str| {
        fs::write(instance.file("keeper.json"), text).unwrap();
        instance
            .bundle
            .parhelion(&["keep", &instance.path()])
            .failure()
    };
    let wrong = told("{\n  \"id\": \"web\",\n  \"bundel\": \"/b\"\n}");
    assert!(
        wrong.contains("keeper.json") && wrong.contains("unknown field `bundel`"),
        "{wrong}"
    );
    assert!(wrong.contains("line 3 column 10"), "{wrong}");
    let wrong = told(r#"{"id": "web", "bundle": "/b", "stop": {"grace": "soon"}}"#);
    assert!(
        wrong.contains("must be a time") && wrong.contains("line 1"),
        "{wrong}"
    );
    fs::remove_file(instance.file("keeper.json")).unwrap();
    let wrong = instance
        .bundle
        .parhelion(&["keep", &instance.path()])
        .failure();
    assert!(wrong.contains("no such file"), "{wrong}");
    let nowhere = instance
        .bundle
        .parhelion(&["keep", "/no/such/folder"])
        .failure();
    assert!(nowhere.contains("/no/such/folder"), "{nowhere}");
}

fn a_container_of_somebody_else_is_left_alone() {
    let bundle = Bundle::new("exec sleep 1000");
    let instance = Instance::of(bundle, json!({}));
    crate::caller::start(&instance.bundle);
    let before = crate::caller::init_pid(&instance.bundle);
    let told = instance
        .bundle
        .parhelion(&["keep", &instance.path()])
        .failure();
    assert!(told.contains("is not of this instance"), "{told}");
    assert_eq!(crate::caller::init_pid(&instance.bundle), before);
    assert_eq!(instance.bundle.status(), "running");
}

fn another_id_is_refused_while_the_container_of_the_last_one_runs() {
    let mut instance = Instance::running("exec sleep 1000", json!({}));
    instance.lose_keeper();
    let spec = json!({ "id": "other", "bundle": instance.bundle.path() });
    fs::write(instance.file("keeper.json"), spec.to_string()).unwrap();
    let told = instance
        .bundle
        .parhelion(&["keep", &instance.path()])
        .failure();
    assert!(told.contains("still runs"), "{told}");
    assert_eq!(instance.bundle.status(), "running");
}

fn without_a_keeper_it_is_said_what_to_do() {
    let instance = Instance::new("exit 0", json!({}));
    for words in [&["status"][..], &["stop"], &["watch"]] {
        let told = instance.asked(words).failure();
        assert!(
            told.contains("no keeper is there: start one by parhelion keep"),
            "{told}"
        );
    }
    let told = instance.asked(&["stop", "--reason", "x"]).failure();
    assert!(
        told.contains("--reason: goes with unhealthy only"),
        "{told}"
    );
    let told = instance.asked(&["unhealthy"]).failure();
    assert!(told.contains("--reason"), "{told}");
}

fn a_word_that_is_a_container_is_not_taken_for_the_verb() {
    let bundle = Bundle::new("exit 3");
    let told = bundle.parhelion(&["state", "keep"]).failure();
    assert!(told.contains("\"keep\" does not exist"), "{told}");
    let arguments = ["run", "--bundle", bundle.path(), "keep"];
    Running::spawn(&mut command(&bundle, &arguments), Stdio::null()).ends_with(3);
}

fn only_the_owner_reaches_the_socket_and_it_refuses_what_it_does_not_know() {
    use rustix::net::{
        AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketType, connect, recv, send,
        socket,
    };
    use std::os::unix::fs::PermissionsExt as _;
    let instance = Instance::running("exec sleep 1000", json!({}));
    let mode = |name: &str| {
        let found = fs::metadata(instance.file(name)).unwrap();
        found.permissions().mode() & 0o777
    };
    for name in ["control", "status.json", "lock"] {
        assert_eq!(mode(name), 0o600, "{name}");
    }
    assert_eq!(mode("pipes"), 0o700);
    let connected = || {
        let connection = socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).unwrap();
        let address = SocketAddrUnix::new(instance.file("control")).unwrap();
        connect(&connection, &address).unwrap();
        connection
    };
    let mut answer = vec![0; 1 << 17];
    let connection = connected();
    let long = vec![b' '; 5000];
    for (text, told) in [
        (&b"{\"do\":\"dance\"}"[..], "unknown variant `dance`"),
        (b"stop", "expected"),
        (b"{\"do\":\"unhealthy\"}", "missing field `reason`"),
        (&long, "too long"),
        (b"{\"do\":\"status\"}", "\"running\""),
    ] {
        send(&connection, text, SendFlags::empty()).unwrap();
        let (_, length) = recv(&connection, &mut answer[..], RecvFlags::empty()).unwrap();
        let text = String::from_utf8_lossy(&answer[..length]);
        assert!(text.contains(told), "{text}");
    }
    // More than are served are told so, and the others are not harmed.
    let others: Vec<_> = (0..15).map(|_| connected()).collect();
    let one_too_many = connected();
    let (_, length) = recv(&one_too_many, &mut answer[..], RecvFlags::empty()).unwrap();
    let text = String::from_utf8_lossy(&answer[..length]);
    assert!(text.contains("others are connected"), "{text}");
    drop(others);
    let before = instance.bundle.pid();
    drop((connection, one_too_many));
    assert_eq!(instance.pid(), before);
}

fn who_hangs_up_while_a_container_is_made_costs_no_processor_time() {
    let mut instance = Instance::new("exec sleep 1000", json!({ "stop": { "grace": "0" } }));
    let mut held = instance.held_while_made();
    instance.keep();
    held.until_begun();
    // One that was connected when the helper began, and has its copy there.
    held.go_on();
    instance.until(super::runs);
    let arguments = ["keeper", "watch", &instance.path()];
    let mut watching = Running::spawn(&mut command(&instance.bundle, &arguments), Stdio::null());
    watching.line();
    instance.kill_program();
    held.until_begun();
    watching.signal(rustix::process::Signal::KILL);
    watching.end();
    let keeper = instance.keeper.as_ref().unwrap().pid();
    let ticks = || crate::caller::ticks(keeper);
    let before = ticks();
    std::thread::sleep(std::time::Duration::from_millis(700));
    assert!(ticks() - before < 6, "{} ticks", ticks() - before);
    held.go_on();
    instance.until(super::runs);
}
