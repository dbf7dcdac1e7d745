//! CVE-2020-15257 (containerd): a container with the host's network finds the runtime's sockets, whose names are abstract and
//! belong to the network namespace. A created container listens for its `start`.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use libtest_mimic::Trial;
use serde_json::Value;

use crate::subject::Subject;
use crate::support::tests;

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![a_container_with_the_hosts_network_finds_no_socket_of_the_runtime]
}

fn join_the_hosts_network(config: &mut Value) {
    let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|namespace| namespace["type"] != "network");
}

fn a_container_with_the_hosts_network_finds_no_socket_of_the_runtime() {
    let waiting = Subject::Real.bundle("true");
    waiting.create().success();
    let looking = Subject::Real.bundle("cat /proc/net/unix");
    looking.edit(join_the_hosts_network);
    let sockets = looking.run().success();
    let is_gate = |line: &str| line.ends_with("/start.sock");
    assert!(sockets.lines().any(is_gate), "nobody listens: {sockets}");
    let is_abstract = |line: &&str| line.contains('@') && line.contains(&waiting.id);
    assert_eq!(sockets.lines().find(is_abstract), None);
    // By its path it is nowhere in a container's root.
    let gate = waiting.folder.join("state").join(&waiting.id);
    assert!(gate.join("start.sock").exists());
    let script = format!(
        "ls {} 2>&1 | busybox grep -c 'No such file'",
        gate.display()
    );
    let seeking = Subject::Real.bundle(&script);
    seeking.edit(join_the_hosts_network);
    assert_eq!(seeking.run().success(), "1\n");

    // One that is abstract would be found.
    let name = format!("parhelion-{}", waiting.id);
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let _listener = UnixListener::bind_addr(&address).unwrap();
    let sockets = looking.run().success();
    assert!(sockets.lines().any(|line| is_abstract(&line)), "{sockets}");
}
