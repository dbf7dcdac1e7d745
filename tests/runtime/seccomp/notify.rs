//! SCMP_ACT_NOTIFY: a container's calls that an agent outside decides on.

use std::os::fd::OwnedFd;
use std::process::Stdio;

use libtest_mimic::Trial;
use serde_json::{Value, json};

use super::agent::{self, Decision};
use super::probe::Call;
use super::{YIELD, allowing, bundle, making, rule};
use crate::caller::{self, Running, Socket};
use crate::support::{Bundle, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        an_agent_decides_on_the_calls_of_a_container,
        the_agent_is_told_which_container_it_is,
        the_listener_is_handed_over_when_the_container_is_created,
        the_listener_does_not_stay_in_the_container,
        without_an_agent_there_is_no_container,
        every_flag_is_taken_with_a_listener,
    ]
}

/// `bundle` with an agent's socket, and what the profile says besides.
fn with_agent(bundle: &Bundle, more: Value) -> Socket {
    let socket = Socket::new(bundle, "agent.sock");
    bundle.edit(|config| {
        let profile = &mut config["linux"]["seccomp"];
        profile["listenerPath"] = json!(socket.path);
        for (key, value) in more.as_object().unwrap() {
            profile[key] = value.clone();
        }
    });
    socket
}

fn asking() -> Value {
    allowing(json!([rule("sched_yield", "NOTIFY")]))
}

/// `run`, up to the listener that the agent gets.
fn run(bundle: &Bundle, socket: &Socket) -> (Running, Value, OwnedFd) {
    let running = Running::spawn(&mut caller::run(bundle), Stdio::null());
    let (told, listener) = socket.receive();
    (running, serde_json::from_str(&told).unwrap(), listener)
}

fn an_agent_decides_on_the_calls_of_a_container() {
    for (decision, expected) in [
        (Decision::Errno(77), 77),
        (Decision::Value(-5), 5),
        (Decision::Value(1), 0),
        (Decision::Continue, 0),
    ] {
        for no_new_privileges in [true, false] {
            let bundle = making(Call::native(YIELD).with(3, 1 << 40), asking());
            bundle.edit(|config| {
                config["process"]["noNewPrivileges"] = json!(no_new_privileges);
            });
            let socket = with_agent(&bundle, json!({}));
            let (mut running, _, listener) = run(&bundle, &socket);
            let call = agent::next(&listener);
            assert_eq!(call.number as u64, YIELD);
            assert_eq!(call.args[3], 1 << 40);
            agent::decide(&listener, &call, decision);
            running.ends_with(expected);
        }
    }
}

fn the_agent_is_told_which_container_it_is() {
    let bundle = making(Call::native(YIELD), asking());
    let socket = with_agent(&bundle, json!({ "listenerMetadata": "mount=a\n" }));
    bundle.edit(|config| config["annotations"] = json!({ "org.example": "b" }));
    let (mut running, told, listener) = run(&bundle, &socket);
    let call = agent::next(&listener);
    let pid = caller::init_pid(&bundle);
    assert_eq!(call.pid, pid as u32);
    let config = std::fs::read(bundle.folder.join("config.json")).unwrap();
    let config: Value = serde_json::from_slice(&config).unwrap();
    assert_eq!(
        told,
        json!({
            "ociVersion": config["ociVersion"],
            "fds": ["seccompFd"],
            "pid": pid,
            "metadata": "mount=a\n",
            "state": {
                "ociVersion": config["ociVersion"],
                "id": bundle.id,
                "status": "creating",
                "pid": pid,
                "bundle": bundle.folder,
                "annotations": { "org.example": "b" },
            },
        })
    );
    agent::decide(&listener, &call, Decision::Value(0));
    running.ends_with(0);
}

fn the_listener_is_handed_over_when_the_container_is_created() {
    for no_new_privileges in [true, false] {
        let bundle = making(Call::native(YIELD), asking());
        bundle.edit(|config| {
            config["process"]["noNewPrivileges"] = json!(no_new_privileges);
        });
        let socket = with_agent(&bundle, json!({}));
        bundle.create().success();
        let (_, listener) = socket.receive();
        assert_eq!(bundle.status(), "created");
        bundle.verb("start").success();
        let call = agent::next(&listener);
        agent::decide(&listener, &call, Decision::Errno(1));
        caller::wait_for_end(&bundle);
    }
}

fn the_listener_does_not_stay_in_the_container() {
    let profile = allowing(json!([rule("unshare", "NOTIFY")]));
    let bundle = bundle("ls -l /proc/self/fd", profile);
    let socket = with_agent(&bundle, json!({}));
    let (mut running, _, _listener) = run(&bundle, &socket);
    let (status, out, errors) = running.end();
    assert!(status.success(), "{errors}");
    // Its three streams, and the folder that it lists.
    assert_eq!(out.lines().count(), 1 + 4, "{out}");
    assert!(!out.contains("anon_inode"), "{out}");
}

fn without_an_agent_there_is_no_container() {
    let bundle = making(Call::native(YIELD), asking());
    let socket = with_agent(&bundle, json!({}));
    std::fs::remove_file(&socket.path).unwrap();
    let error = bundle.create().failure();
    let told = format!(
        "linux.seccomp.listenerPath: hand over the listener: connect(\"{}\"): no such file or \
         directory\n",
        socket.path
    );
    assert!(error.ends_with(&told), "{error}");
    assert!(bundle.verb("state").failure().contains("does not exist"));
}

fn every_flag_is_taken_with_a_listener() {
    let flags = json!([
        "SECCOMP_FILTER_FLAG_TSYNC",
        "SECCOMP_FILTER_FLAG_LOG",
        "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
        "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"
    ]);
    let bundle = making(Call::native(YIELD), asking());
    let socket = with_agent(&bundle, json!({ "flags": flags }));
    let (mut running, _, listener) = run(&bundle, &socket);
    let call = agent::next(&listener);
    agent::decide(&listener, &call, Decision::Errno(3));
    running.ends_with(3);
}
