//! The exec door: commands inside a kept container, as health checks ask for them.

use std::fs;
use std::os::fd::OwnedFd;

use libtest_mimic::Trial;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, recv, send,
    socket_with,
};
use serde_json::{Value, json};

use super::Instance;
use crate::caller::{Fifo, wait_for_exit};
use crate::support::tests;

pub fn all() -> Vec<Trial> {
    tests![
        a_command_tells_how_it_ended_and_what_it_printed,
        only_the_end_of_much_output_is_told,
        a_command_is_in_the_containers_namespaces_and_cgroup_with_its_privileges,
        a_command_whose_time_is_over_is_ended_with_all_that_came_from_it,
        a_command_is_ended_when_nobody_waits_for_it_or_its_keeper_dies,
        what_can_not_be_done_is_told,
        commands_run_beside_each_other_and_the_keeper_answers_meanwhile,
    ]
}

/// A connection to a keeper, as anybody can make one.
struct Door(OwnedFd);

impl Door {
    fn open(instance: &Instance) -> Door {
        let flags = SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        let address = SocketAddrUnix::new(instance.file("control")).unwrap();
        rustix::net::connect(&socket, &address).unwrap();
        Door(socket)
    }

    fn ask(&self, args: &[&str], timeout_ms: u64) {
        self.say(&json!({ "do": "exec", "args": args, "timeoutMs": timeout_ms }));
    }

    fn say(&self, request: &Value) {
        send(&self.0, request.to_string().as_bytes(), SendFlags::empty()).unwrap();
    }

    fn hear(&self) -> Value {
        let mut text = vec![0; 128 << 10];
        let (_, length) = recv(&self.0, &mut text[..], RecvFlags::empty()).unwrap();
        serde_json::from_slice(&text[..length]).unwrap()
    }

    /// What comes of a shell's script, with a timeout of a minute.
    fn runs(&self, script: &str) -> Value {
        self.ask(&["sh", "-c", script], 60_000);
        self.hear()["exec"].clone()
    }

    fn refused(&self, request: &Value) -> String {
        self.say(request);
        self.hear()["error"].as_str().unwrap().to_owned()
    }
}

const SLEEPS: &str = "exec sleep 1000";

fn sleeping() -> Instance {
    Instance::running(SLEEPS, json!({ "stop": { "grace": "0" } }))
}

fn a_command_tells_how_it_ended_and_what_it_printed() {
    let instance = sleeping();
    let door = Door::open(&instance);
    let ran = door.runs("echo out; echo error >&2; exit 7");
    assert_eq!(ran["exit"], json!({ "code": 7 }));
    assert_eq!(ran["output"], "out\nerror\n");
    assert_eq!(ran["timedOut"], false);
    assert!(ran["durationUs"].as_u64() > Some(0));
    assert_eq!(door.runs("kill -9 $$")["exit"], json!({ "signal": 9 }));
    // Without anything to read, and the next one on the same connection.
    let ran = door.runs("read line; echo got $?");
    assert_eq!(
        (&ran["output"], &ran["exit"]),
        (&json!("got 1\n"), &json!({ "code": 0 }))
    );
    // One that leaves something behind is not waited for.
    let ran = door.runs("sleep 1000 & exit 3");
    assert_eq!(ran["exit"], json!({ "code": 3 }));
    assert_eq!(
        door.runs("/bin/busybox printf '\\377x'")["output"],
        "\u{fffd}x"
    );
    assert_eq!(instance.texts(), [""; 0]);
}

fn only_the_end_of_much_output_is_told() {
    let instance = sleeping();
    let door = Door::open(&instance);
    let script = "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done; echo last";
    let ran = door.runs(script);
    let output = ran["output"].as_str().unwrap();
    assert_eq!(output.len(), 4096);
    assert!(
        output.ends_with("line 19998\nline 19999\nlast\n"),
        "{output}"
    );
}

fn a_command_is_in_the_containers_namespaces_and_cgroup_with_its_privileges() {
    let instance = sleeping();
    let door = Door::open(&instance);
    let pid = instance.pid();
    let of_program = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        line.unwrap_or_default().to_owned()
    };
    let status = door.runs("cat /proc/self/status")["output"]
        .as_str()
        .unwrap()
        .to_owned();
    for name in [
        "CapPrm",
        "CapEff",
        "CapBnd",
        "NoNewPrivs",
        "Seccomp",
        "Uid",
        "Groups",
    ] {
        assert_eq!(
            field(&status, name),
            field(&of_program("status"), name),
            "{name}"
        );
    }
    let cgroup = door.runs("cat /proc/self/cgroup")["output"].clone();
    let own = instance
        .bundle
        .parhelion(&["exec", &instance.bundle.id, "cat", "/proc/self/cgroup"]);
    assert_eq!(cgroup, own.success());
    for name in ["mnt", "pid", "net", "ipc", "uts", "cgroup"] {
        let ran = door.runs(&format!("/bin/busybox readlink /proc/self/ns/{name}"));
        let expected = fs::read_link(format!("/proc/{pid}/ns/{name}")).unwrap();
        assert_eq!(
            ran["output"].as_str().unwrap().trim(),
            expected.to_str().unwrap()
        );
    }
    // Nothing of the keeper's is open in it but the standard streams, and what ls itself opens.
    let open = door.runs("ls /proc/self/fd")["output"].clone();
    assert_eq!(open, "0\n1\n2\n3\n");
}

fn a_command_whose_time_is_over_is_ended_with_all_that_came_from_it() {
    let instance = sleeping();
    let door = Door::open(&instance);
    // A child, an orphan of the session, and one in another session whose parent is there.
    let script = "trap '' TERM; sleep 1001 & (sleep 1002 &); /bin/busybox setsid sleep 1003 & \
        echo begun; while :; do sleep 0.1; done";
    door.ask(&["sh", "-c", script], 1_500);
    let ran = door.hear()["exec"].clone();
    assert_eq!(ran["timedOut"], true, "{ran}");
    assert_eq!(ran["exit"], json!({ "signal": 9 }));
    assert_eq!(ran["output"], "begun\n");
    assert!(ran["durationUs"].as_u64() >= Some(1_500_000));
    let cgroup = instance.status()["container"]["cgroup"]
        .as_str()
        .unwrap()
        .to_owned();
    let left = fs::read_to_string(format!("{cgroup}/cgroup.procs")).unwrap();
    assert_eq!(left.trim(), instance.pid().to_string());
    assert_eq!(door.runs("exit 0")["exit"], json!({ "code": 0 }));
}

fn a_command_is_ended_when_nobody_waits_for_it_or_its_keeper_dies() {
    let mut instance = Instance::new(SLEEPS, json!({ "stop": { "grace": "0" } }));
    let mut told = Fifo::new(&instance.bundle, "told");
    instance.keep();
    instance.until(super::runs);
    let program = instance.pid();
    let cgroup = instance.status()["container"]["cgroup"]
        .as_str()
        .unwrap()
        .to_owned();
    for keeper_dies in [false, true] {
        let door = Door::open(&instance);
        door.ask(
            &["sh", "-c", "echo begun > /tmp/told; exec sleep 1000"],
            3_600_000,
        );
        assert_eq!(told.hear(), "begun\n");
        let inside = fs::read_to_string(format!("{cgroup}/cgroup.procs")).unwrap();
        let command = inside.lines().map(|pid| pid.parse::<i32>().unwrap());
        let command = command.rev().find(|pid| *pid != program).unwrap();
        match keeper_dies {
            true => drop(instance.lose_keeper()),
            false => drop(door),
        }
        wait_for_exit(command);
    }
    instance.keep();
    assert_eq!(instance.pid(), program);
    let door = Door::open(&instance);
    assert_eq!(door.runs("exit 0")["exit"], json!({ "code": 0 }));
}

fn what_can_not_be_done_is_told() {
    let mut instance = sleeping();
    let door = Door::open(&instance);
    let exec =
        |args: Value, timeout: u64| json!({ "do": "exec", "args": args, "timeoutMs": timeout });
    for (request, expected) in [
        (
            exec(json!(["true"]), 0),
            "timeoutMs: must be 1 to 3600000, is 0",
        ),
        (exec(json!([]), 5), "args: a program is needed"),
        (exec(json!(["/no/such/program"]), 5000), "/no/such/program"),
        (
            json!({ "do": "exec", "args": ["true"], "timeoutMs": 5, "task": "x" }),
            "there is no \"x\"",
        ),
        (
            json!({ "do": "exec", "args": ["true"] }),
            "missing field `timeoutMs`",
        ),
        (
            json!({ "do": "exec", "args": ["true"], "timeoutMs": 5, "user": 1 }),
            "unknown field",
        ),
    ] {
        let told = door.refused(&request);
        assert!(told.contains(expected), "{request}: {told}");
    }
    instance.bundle.verb("pause").success();
    let told = door.refused(&exec(json!(["true"]), 5000));
    assert!(told.contains("paused"), "{told}");
    instance.bundle.verb("resume").success();
    instance.ask(&["stop"]);
    let told = door.refused(&exec(json!(["true"]), 5000));
    assert!(told.contains("does not run"), "{told}");
    instance.lose_keeper();
}

fn commands_run_beside_each_other_and_the_keeper_answers_meanwhile() {
    let mut instance = Instance::new(SLEEPS, json!({ "stop": { "grace": "0" } }));
    let (mut begun, mut go) = (
        Fifo::new(&instance.bundle, "begun"),
        Fifo::new(&instance.bundle, "go"),
    );
    instance.keep();
    instance.until(super::runs);
    let slow = Door::open(&instance);
    slow.ask(
        &[
            "sh",
            "-c",
            "echo begun > /tmp/begun; read line < /tmp/go; echo $line",
        ],
        60_000,
    );
    assert_eq!(begun.hear(), "begun\n");
    let told = slow.refused(&json!({ "do": "exec", "args": ["true"], "timeoutMs": 5 }));
    assert!(told.contains("one at a time"), "{told}");
    let quick = Door::open(&instance);
    assert_eq!(quick.runs("echo quick")["output"], "quick\n");
    assert_eq!(instance.status()["state"]["counts"]["attempts"], 1);
    go.say("on");
    assert_eq!(slow.hear()["exec"]["output"], "on\n");
}
