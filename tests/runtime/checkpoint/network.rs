//! Connections, and network namespaces of others.

use std::process::Command;

use libtest_mimic::Trial;
use serde_json::json;

use super::{checkpoint, counter, restore};
use crate::caller::init_pid;
use crate::inside::Inside;
use crate::support::tests;

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        an_established_connection_goes_on,
        a_network_namespace_of_others_is_joined_again,
        an_ipc_namespace_of_others_is_joined_again,
    ]
}

/// A server that sends back what it gets and a client, with the client's ends at descriptors of a line.
const TALK: &str = "busybox mkfifo /tmp/in /tmp/out; exec 5<>/tmp/in 6<>/tmp/out;
    busybox nc -l -p 7007 -e /bin/cat </dev/null >/dev/null 2>&1 &
    while ! busybox netstat -ltn | busybox grep -q :7007; do :; done;
    busybox nc 127.0.0.1 7007 <&5 >&6 2>/dev/null 3<&- 4<&- &";

/// A line that starts both.
pub fn talk() -> String {
    TALK.replace('\n', " ")
}

fn an_established_connection_goes_on() {
    let mut inside = Inside::of(counter());
    inside.ask(&talk());
    let ask = "echo hello >/tmp/in; read -r line </tmp/out; echo \"$line\"";
    assert_eq!(inside.ask(ask), "hello\n");
    let error = checkpoint(&inside.bundle, &[]).failure();
    assert!(error.contains("criu: Error ("), "{error}");
    assert_eq!(inside.ask(ask), "hello\n");
    checkpoint(&inside.bundle, &["--tcp-established"]).success();
    restore(&inside.bundle, &["--tcp-established"]).success();
    assert_eq!(inside.ask(ask), "hello\n");
    let connections = inside.ask("busybox netstat -tn | busybox grep -c ESTABLISHED");
    assert_eq!(connections, "2\n");
}

/// Processes that hold namespaces; killed on drop.
struct Holder(std::process::Child);

impl Holder {
    fn new(flag: &str) -> Holder {
        let mut unshare = Command::new("unshare");
        let child = unshare
            .args([flag, "--kill-child", "sleep", "1000"])
            .spawn()
            .unwrap();
        let holder = Holder(child);
        let kind = if flag == "--net" { "net" } else { "ipc" };
        let link = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).ok();
        while link(&holder.0.id().to_string()) == link("self") {
            std::thread::yield_now();
        }
        holder
    }

    fn path(&self, kind: &str) -> String {
        format!("/proc/{}/ns/{kind}", self.0.id())
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

fn is_joined_again(flag: &str, kind: &str, typ: &str) {
    let holder = Holder::new(flag);
    let bundle = counter();
    bundle.edit(|config| {
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        let entry = namespaces.iter_mut().find(|entry| entry["type"] == typ);
        entry.unwrap()["path"] = json!(holder.path(kind));
    });
    let mut inside = Inside::of(bundle);
    assert_eq!(inside.ask("echo $i"), "1\n");
    checkpoint(&inside.bundle, &[]).success();
    restore(&inside.bundle, &[]).success();
    assert_eq!(inside.ask("echo $i"), "2\n");
    let of_container = format!("/proc/{}/ns/{kind}", init_pid(&inside.bundle));
    assert_eq!(
        std::fs::read_link(of_container).unwrap(),
        std::fs::read_link(holder.path(kind)).unwrap()
    );
}

fn a_network_namespace_of_others_is_joined_again() {
    is_joined_again("--net", "net", "network");
}

fn an_ipc_namespace_of_others_is_joined_again() {
    is_joined_again("--ipc", "ipc", "ipc");
}
