//! Connections, and network namespaces of others.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::fd::AsRawFd;
use std::process::Command;
use std::time::Duration;

use libtest_mimic::Trial;
use nix::sched::{CloneFlags, setns};
use serde_json::json;

use super::{checkpoint, counter, restore};
use crate::caller::init_pid;
use crate::inside::Inside;
use crate::support::{Bundle, Ran, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        an_established_connection_goes_on,
        an_established_connection_is_closed_where_that_is_asked_for,
        a_connection_that_nobody_has_accepted_is_left_out_where_that_is_asked_for,
        the_network_is_locked_in_the_way_asked_for,
        a_connection_in_a_network_namespace_of_others_goes_on,
        a_network_namespace_of_others_is_joined_again,
        an_ipc_namespace_of_others_is_joined_again,
    ]
}

/// A server that sends back what it gets and a client, with the client's ends at descriptors of a line.
const TALK: &str = "busybox mkfifo /tmp/in /tmp/out; exec 5<>/tmp/in 6<>/tmp/out;
    busybox nc -l -p 7007 -e /bin/cat </dev/null >/dev/null 2>&1 &
    while ! busybox netstat -ltn | busybox grep -q :7007; do :; done;
    busybox nc 127.0.0.1 7007 <&5 >&6 2>/dev/null 3<&- 4<&- &";

/// A line that is said there and back.
const ECHO: &str = "echo hello >/tmp/in; read -r line </tmp/out; echo \"$line\"";

/// A line that starts both.
pub fn talk() -> String {
    TALK.replace('\n', " ")
}

fn an_established_connection_goes_on() {
    let mut inside = Inside::of(counter());
    inside.ask(&talk());
    assert_eq!(inside.ask(ECHO), "hello\n");
    let error = checkpoint(&inside.bundle, &[]).failure();
    assert!(error.contains("criu: Error ("), "{error}");
    assert_eq!(inside.ask(ECHO), "hello\n");
    checkpoint(&inside.bundle, &["--tcp-established"]).success();
    restore(&inside.bundle, &["--tcp-established"]).success();
    assert_eq!(inside.ask(ECHO), "hello\n");
    let connections = inside.ask("busybox netstat -tn | busybox grep -c ESTABLISHED");
    assert_eq!(connections, "2\n");
}

/// A line that tells how many ends of connections there are.
const COUNT: &str = "busybox netstat -tn | busybox grep -c ESTABLISHED";

fn an_established_connection_is_closed_where_that_is_asked_for() {
    let mut inside = Inside::of(counter());
    inside.ask(&talk());
    assert_eq!(inside.ask(COUNT), "2\n");
    checkpoint(&inside.bundle, &["--tcp-established"]).success();
    let error = restore(&inside.bundle, &[]).failure();
    assert!(error.contains("criu: Error ("), "{error}");
    restore(&inside.bundle, &["--tcp-close"]).success();
    assert_eq!(inside.ask(COUNT), "0\n");
    // Both have read an end, and the network is not locked.
    let again = "busybox nc -l -p 7008 -e /bin/echo again </dev/null 2>&1 & \
        until busybox netstat -ltn | busybox grep -q :7008; do :; done; \
        busybox nc 127.0.0.1 7008 </dev/null; \
        until test $(busybox ps | busybox grep -c '[c]at$\\|[n]c') = 0; do :; done";
    assert_eq!(inside.ask(again), "again\n");
}

/// A connection with a port of the container's, from outside.
fn connected(bundle: &Bundle, port: u16) -> TcpStream {
    let network = File::open(format!("/proc/{}/ns/net", init_pid(bundle))).unwrap();
    // The namespace is the thread's.
    let connect = move || {
        setns(network, CloneFlags::CLONE_NEWNET).unwrap();
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        stream
    };
    std::thread::spawn(connect).join().unwrap()
}

/// Who waits in accept(2) and is stopped takes no connection; the kernel makes it all the same.
fn a_connection_that_nobody_has_accepted_is_left_out_where_that_is_asked_for() {
    let mut inside = Inside::of(counter());
    inside.ask(
        "busybox nc -l -p 7007 -e /bin/cat </dev/null >/dev/null 2>&1 3<&- 4<&- & echo $! >/tmp/server; \
        until busybox netstat -ltn | busybox grep -q :7007; do :; done; kill -STOP $(cat /tmp/server); \
        until busybox grep -q '^State:.T' /proc/$(cat /tmp/server)/status; do :; done",
    );
    let mut waiting = connected(&inside.bundle, 7007);
    let error = checkpoint(&inside.bundle, &["--tcp-established"]).failure();
    assert!(error.contains("In-flight connection"), "{error}");
    assert_eq!(inside.ask("echo $i"), "2\n");
    // Without the lock, the other end hears of it.
    let flags = ["--tcp-skip-in-flight", "--network-lock", "skip"];
    checkpoint(&inside.bundle, &flags).success();
    let reset = waiting.read(&mut [0]).unwrap_err();
    assert_eq!(reset.kind(), std::io::ErrorKind::ConnectionReset);
    restore(&inside.bundle, &[]).success();
    let mut taken = connected(&inside.bundle, 7007);
    inside.ask("kill -CONT $(cat /tmp/server)");
    taken.write_all(b"hello\n").unwrap();
    let mut answer = [0; 6];
    taken.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"hello\n");
}

/// What the kernel filters in a network namespace.
fn rules(network: &str) -> String {
    let list = [&format!("--net={network}"), "nft", "list", "ruleset"];
    let ended = Command::new("nsenter").args(list).output().unwrap();
    Ran(ended).success()
}

/// The namespace of before is held, and shows the lock that was left in it.
fn the_network_is_locked_in_the_way_asked_for() {
    let mut inside = Inside::of(counter());
    inside.ask(&talk());
    for (method, table) in [
        ("skip", ""),
        ("nftables", "table inet CRIU"),
        ("iptables", "table ip filter"),
    ] {
        let network = File::open(format!("/proc/{}/ns/net", init_pid(&inside.bundle))).unwrap();
        let flags = ["--tcp-established", "--network-lock", method];
        checkpoint(&inside.bundle, &flags).success();
        let held = format!("/proc/{}/fd/{}", std::process::id(), network.as_raw_fd());
        let lock = rules(&held);
        assert!(lock.contains(table), "{method}: {lock}");
        assert_eq!(lock.contains("drop"), method != "skip", "{method}: {lock}");
        // crun takes the word too, and CRIU the method from the images.
        let flags = ["--tcp-established", "--network-lock", "skip"];
        restore(&inside.bundle, &flags).success();
        assert_eq!(inside.ask(ECHO), "hello\n", "{method}");
        let lock = rules(&format!("/proc/{}/ns/net", init_pid(&inside.bundle)));
        assert!(!lock.contains("drop"), "{method}: {lock}");
    }
}

/// Their network is locked until the restore, and no longer.
fn a_connection_in_a_network_namespace_of_others_goes_on() {
    let holder = Holder::new("--net");
    let net = format!("--net={}", holder.path("net"));
    let up = ["nsenter", &net, "ip", "link", "set", "lo", "up"];
    assert!(
        Command::new(up[0])
            .args(&up[1..])
            .status()
            .unwrap()
            .success()
    );
    let bundle = counter();
    joins(&bundle, "network", &holder.path("net"));
    let mut inside = Inside::of(bundle);
    inside.ask(&talk());
    checkpoint(&inside.bundle, &["--tcp-established"]).success();
    assert!(rules(&holder.path("net")).contains("drop"));
    restore(&inside.bundle, &["--tcp-established"]).success();
    assert_eq!(inside.ask(ECHO), "hello\n");
    let lock = rules(&holder.path("net"));
    assert!(!lock.contains("drop"), "{lock}");
}

/// Has the container join a namespace.
fn joins(bundle: &Bundle, typ: &str, path: &str) {
    bundle.edit(|config| {
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        let entry = namespaces.iter_mut().find(|entry| entry["type"] == typ);
        entry.unwrap()["path"] = json!(path);
    });
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
    joins(&bundle, typ, &holder.path(kind));
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
