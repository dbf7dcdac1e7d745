//! Networks of instances' own: published ports, ways in and out, and what survives whom.
//!
//! Each test has a host of its own: a network namespace in which its daemon is, with a neighbour in another one.

use std::collections::BTreeSet;
use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use libtest_mimic::Trial;
use nix::sched::{CloneFlags, setns};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::caller::wait_for_exit;
use crate::host::Host;
use crate::support::{Ran, only_where, tests};

pub fn all() -> Vec<Trial> {
    let trials = tests![
        two_instances_listen_at_one_port_and_are_published_at_two,
        a_port_that_is_not_published_is_for_the_host_and_its_instances,
        what_leaves_an_instance_has_the_hosts_address,
        an_instance_is_told_of_its_names_and_ports,
        a_killed_instance_is_back_at_its_address_and_traffic_needs_no_daemon,
        after_a_crash_of_the_host_the_addresses_are_the_same,
        an_undeployed_job_leaves_no_interface_no_rule_and_no_namespace,
        what_somebody_has_taken_away_is_back,
        what_a_killed_daemon_has_left_is_removed_and_nothing_else,
        who_goes_on_sending_reaches_the_next_instance,
        tasks_of_one_instance_are_in_one_network,
        fifty_instances_have_fifty_addresses,
        a_job_of_helios_with_two_port_numbers_is_carried_out,
        a_network_that_is_in_use_is_refused_and_nothing_is_started,
    ];
    let has_nft = has("nft");
    let firewalled = tests![a_firewall_that_lets_nothing_pass_lets_instances_pass];
    let firewalled = only_where(has("iptables"), "there is no iptables", firewalled);
    let trials = trials.into_iter().chain(firewalled).collect();
    only_where(has_nft, "there is no nft", trials)
}

fn has(program: &str) -> bool {
    let folders = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];
    folders
        .iter()
        .any(|folder| Path::new(folder).join(program).exists())
}

/// Tells each who asks which instance it is.
const SERVER: &str =
    "echo $PARHELION_INSTANCE > /www/index.html; exec busybox httpd -f -p $PORT_HTTP -h /www";

/// The host's and its neighbour's addresses on the wire between them: of a documentation network (RFC 5737).
const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const NEIGHBOUR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const LOOPBACK: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// A host with a neighbour.
struct World {
    host: Host,
    wires: Wires,
}

/// Two namespaces with a wire between them, gone when this is dropped.
struct Wires {
    folder: PathBuf,
}

fn sh(script: &str) -> String {
    Ran(Command::new("sh").args(["-ec", script]).output().unwrap()).success()
}

impl Wires {
    fn new() -> Wires {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("wires-{}-{number}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let wires = Wires { folder };
        let (here, there) = (wires.here(), wires.there());
        // A process is what `ip` takes for the other namespace.
        sh(&format!(
            "PATH=$PATH:/usr/sbin:/sbin
             at() {{ nsenter --net=\"$1\" sh -ec \"$2\"; }}
             touch {here} {there}
             unshare --net={here} true
             unshare --net={there} true
             nsenter --net={there} sleep 600 &
             until [ /proc/$!/ns/net -ef {there} ]; do sleep 0.01; done
             at {here} \"ip link set lo up
                 ip link add wire type veth peer name wire netns $!
                 ip addr add {HOST}/24 dev wire; ip link set wire up\"
             kill $!
             at {there} 'ip link set lo up; ip addr add {NEIGHBOUR}/24 dev wire; ip link set wire up'"
        ));
        wires
    }

    fn here(&self) -> String {
        format!("{}/here", self.folder.display())
    }

    fn there(&self) -> String {
        format!("{}/there", self.folder.display())
    }
}

impl Drop for Wires {
    fn drop(&mut self) {
        let (here, there) = (self.here(), self.there());
        let _gone = Command::new("umount").args([&here, &there]).output();
        let _gone = fs::remove_dir_all(&self.folder);
    }
}

/// Does something in a namespace.
fn inside<T: Send>(namespace: &str, act: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let file = fs::File::open(namespace).unwrap();
            setns(file, CloneFlags::CLONE_NEWNET).unwrap();
            act()
        });
        thread.join().unwrap()
    })
}

/// What is answered to a request, or how it fails.
fn get(address: Ipv4Addr, port: u16) -> Result<String, ErrorKind> {
    const LONG: Duration = Duration::from_secs(10);
    let ask = || {
        let place = SocketAddr::from((address, port));
        let mut stream = TcpStream::connect_timeout(&place, LONG)?;
        stream.set_read_timeout(Some(LONG))?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (_, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
        Ok(body.trim().to_owned())
    };
    ask().map_err(|error: std::io::Error| error.kind())
}

impl World {
    fn new(script: &str) -> World {
        let wires = Wires::new();
        let host = Host::in_network(script, Some(wires.here().into()));
        World { host, wires }
    }

    /// Runs a command on the host.
    fn run(&self, words: &str) -> String {
        sh(&format!(
            "PATH=$PATH:/usr/sbin:/sbin; exec nsenter --net={} {words}",
            self.wires.here()
        ))
    }

    fn job(&self, more: &Value) -> Value {
        let mut job = json!({
            "network": "bridge",
            "ports": { "http": { "port": 8080 } },
            "tasks": { "main": { "bundle": self.host.bundle.path(), "tmpfs": { "/www": {} },
                "health": { "readiness": { "http": { "port": "http" }, "interval": "200ms" } } } },
        });
        for (name, value) in more.as_object().unwrap() {
            job[name] = value.clone();
        }
        job
    }

    /// Deploys so many instances of the job, and waits until their checks pass.
    fn deploy(&self, more: &Value, count: usize) -> Vec<Value> {
        let file = self.host.job("1", &self.job(more));
        self.host.parctl(&["create", &file]).success();
        let count = count.to_string();
        let words = ["deploy", "web", "--count", &count, "--wait"];
        self.host.parctl(&words).success();
        self.instances()
    }

    fn instances(&self) -> Vec<Value> {
        self.host.json(&["status"]).as_array().unwrap().clone()
    }

    fn here<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        inside(&self.wires.here(), act)
    }

    fn there<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        inside(&self.wires.there(), act)
    }

    /// What a program in an instance gets from there.
    fn fetch(&self, instance: &str, url: &str) -> Ran {
        let words = ["exec", instance, "/bin/busybox", "wget", "-qO-", url];
        self.host.parctl(&words)
    }

    fn net(&self) -> PathBuf {
        self.host.path("supervisor/agent/net")
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(daemon) = self.host.daemon.take() {
            daemon.signal(Signal::KILL);
        }
        for entry in fs::read_dir(self.net()).into_iter().flatten().flatten() {
            let _gone = Command::new("umount").arg(entry.path()).output();
        }
    }
}

fn text<'a>(instance: &'a Value, key: &str) -> &'a str {
    instance[key]
        .as_str()
        .unwrap_or_else(|| panic!("{instance:#}"))
}

fn name(instance: &Value) -> &str {
    text(instance, "name")
}

fn port(instance: &Value) -> u16 {
    let port = instance["ports"]["http"].as_u64();
    u16::try_from(port.unwrap_or_else(|| panic!("{instance:#}"))).unwrap()
}

fn address(instance: &Value) -> Ipv4Addr {
    text(instance, "address").parse().unwrap()
}

fn two_instances_listen_at_one_port_and_are_published_at_two() {
    let world = World::new(SERVER);
    let both = world.deploy(&json!({}), 2);
    assert_ne!(port(&both[0]), port(&both[1]));
    assert_ne!(address(&both[0]), address(&both[1]));
    for one in &both {
        let (port, own) = (port(one), Ok(name(one).to_owned()));
        assert_eq!(world.here(|| get(LOOPBACK, port)), own);
        assert_eq!(world.here(|| get(HOST, port)), own);
        assert_eq!(world.here(|| get(address(one), 8080)), own);
        assert_eq!(world.there(|| get(HOST, port)), own);
        // From instances, the same one too.
        for from in &both {
            let url = format!("http://{HOST}:{port}/");
            assert_eq!(world.fetch(name(from), &url).success().trim(), name(one));
            let url = format!("http://{}:8080/", address(one));
            assert_eq!(world.fetch(name(from), &url).success().trim(), name(one));
        }
    }
}

fn a_port_that_is_not_published_is_for_the_host_and_its_instances() {
    let world = World::new(SERVER);
    let ports = json!({ "ports": { "http": { "port": 8080, "address": "127.0.0.1" } } });
    let one = &world.deploy(&ports, 1)[0];
    let (port, own) = (port(one), Ok(name(one).to_owned()));
    assert_eq!(world.here(|| get(LOOPBACK, port)), own);
    // Nobody listens there, and nothing is told elsewhere.
    assert_eq!(
        world.here(|| get(HOST, port)),
        Err(ErrorKind::ConnectionRefused)
    );
    assert_eq!(
        world.there(|| get(HOST, port)),
        Err(ErrorKind::ConnectionRefused)
    );
    let there = world.wires.there();
    sh(&format!(
        "nsenter --net={there} ip route add 10.213.0.0/20 via {HOST}"
    ));
    assert_eq!(
        world.there(|| get(address(one), 8080)),
        Err(ErrorKind::TimedOut)
    );
}

fn what_leaves_an_instance_has_the_hosts_address() {
    let world = World::new(SERVER);
    let one = &world.deploy(&json!({}), 1)[0];
    let listener = world.there(|| TcpListener::bind((NEIGHBOUR, 9000)).unwrap());
    let asked = thread::spawn(move || {
        let (mut stream, from) = listener.accept().unwrap();
        // All of it: what is not read when a connection is closed resets it.
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            request.extend(byte);
        }
        stream
            .write_all(b"HTTP/1.0 200 OK\r\n\r\nneighbour\n")
            .unwrap();
        from.ip()
    });
    let told = world.fetch(name(one), &format!("http://{NEIGHBOUR}:9000/"));
    assert_eq!(told.success().trim(), "neighbour");
    assert_eq!(asked.join().unwrap(), HOST);
}

fn an_instance_is_told_of_its_names_and_ports() {
    let world = World::new(SERVER);
    let more = json!({ "hostname": "web.example", "addHosts": { "db": "192.0.2.9" } });
    let one = &world.deploy(&more, 1)[0];
    let inside = |words: &[&str]| {
        let all = ["exec", name(one)].into_iter().chain(words.iter().copied());
        let all: Vec<&str> = all.collect();
        world.host.parctl(&all).success()
    };
    let hosts = inside(&["cat", "/etc/hosts"]);
    assert!(
        hosts.contains(&format!("{} web.example\n", address(one))),
        "{hosts}"
    );
    assert!(hosts.contains("192.0.2.9 db\n"), "{hosts}");
    let resolve = inside(&["cat", "/etc/resolv.conf"]);
    assert!(!resolve.contains("nameserver 127."), "{resolve}");
    let env = inside(&["env"]);
    let lines: BTreeSet<&str> = env.lines().collect();
    assert!(lines.contains("PORT_HTTP=8080"), "{env}");
    let published = format!("HELIOS_PORT_http=here:{}", port(one));
    assert!(lines.contains(published.as_str()), "{env}");
    // Nobody else is there: every user may listen at every port.
    let least = inside(&["cat", "/proc/sys/net/ipv4/ip_unprivileged_port_start"]);
    assert_eq!(least.trim(), "0");
}

fn kill(instance: &Value) {
    let pid = instance["tasks"]["main"]["pid"].as_i64().unwrap();
    let pid = i32::try_from(pid).unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    wait_for_exit(pid);
}

/// Waits until the instance answers at its port of the host.
fn until_it_answers(world: &World, one: &Value) {
    let own = Ok(name(one).to_owned());
    until("the instance answers", || {
        world.here(|| get(LOOPBACK, port(one))) == own
    });
}

/// As [`Host::until`], without a daemon.
#[allow(clippy::disallowed_methods, reason = "a test has an end")]
fn until(what: &str, is_so: impl Fn() -> bool) {
    let end = std::time::Instant::now() + crate::host::PATIENCE;
    while !is_so() {
        assert!(std::time::Instant::now() < end, "{what}");
        thread::sleep(Duration::from_millis(20));
    }
}

fn a_killed_instance_is_back_at_its_address_and_traffic_needs_no_daemon() {
    let mut world = World::new(SERVER);
    let one = world.deploy(&json!({}), 1)[0].clone();
    world.host.lose_daemon();
    assert_eq!(
        world.here(|| get(LOOPBACK, port(&one))),
        Ok(name(&one).to_owned())
    );
    kill(&one);
    until_it_answers(&world, &one);
    assert_eq!(
        world.there(|| get(HOST, port(&one))),
        Ok(name(&one).to_owned())
    );
    world.host.start();
    world.host.until("it is ready again", || {
        world.host.instance()["health"] == "ready"
    });
    let again = world.host.instance();
    assert_eq!((address(&again), port(&again)), (address(&one), port(&one)));
    until_it_answers(&world, &one);
}

fn after_a_crash_of_the_host_the_addresses_are_the_same() {
    let mut world = World::new(SERVER);
    let both = world.deploy(&json!({}), 2);
    world.host.lose_daemon();
    world.host.end_everything();
    // As a kernel begins: without namespaces, interfaces and rules.
    for one in &both {
        sh(&format!("umount {}/{}", world.net().display(), name(one)));
    }
    world.run("ip link delete parhelion0");
    world.run("nft flush ruleset");
    world.host.start();
    for one in &both {
        until_it_answers(&world, one);
    }
    let again: Vec<_> = world.instances().iter().map(address).collect();
    assert_eq!(again, both.iter().map(address).collect::<Vec<_>>());
}

fn an_undeployed_job_leaves_no_interface_no_rule_and_no_namespace() {
    let world = World::new(SERVER);
    let before = world.run("ip -o link");
    let instances = world.deploy(&json!({}), 3);
    assert!(world.run("nft list ruleset").contains("parhelion0"));
    assert_eq!(fs::read_dir(world.net()).unwrap().count(), 3);
    world
        .host
        .parctl(&["deploy", "web", "--count", "1", "--wait"])
        .success();
    world
        .host
        .until("one is left", || world.instances().len() == 1);
    let rules = world.run("nft list ruleset");
    assert!(
        rules.contains(&address(&instances[0]).to_string()),
        "{rules}"
    );
    assert!(
        !rules.contains(&address(&instances[2]).to_string()),
        "{rules}"
    );
    until_it_answers(&world, &instances[0]);
    world.host.parctl(&["undeploy", "web", "--wait"]).success();
    until("no interface is left", || {
        world.run("ip -o link").lines().count() == before.lines().count()
    });
    let rules = world.run("nft list ruleset");
    assert!(!rules.contains("parhelion"), "{rules}");
    assert_eq!(fs::read_dir(world.net()).unwrap().count(), 0);
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(world.net().to_str().unwrap()), "{mounts}");
}

fn what_somebody_has_taken_away_is_back() {
    let world = World::new(SERVER);
    let both = world.deploy(&json!({}), 2);
    world.run("nft flush ruleset");
    until_it_answers(&world, &both[0]);
    world.run("ip link delete parhelion0");
    until_it_answers(&world, &both[1]);
    let port = world.run("ip -o link show master parhelion0");
    let port = port.split(": ").nth(1).unwrap().split('@').next().unwrap();
    world.run(&format!("ip link delete {port}"));
    until_it_answers(&world, &both[0]);
    until_it_answers(&world, &both[1]);
    // What others have beside it stays.
    world.run("nft add table inet others");
    world.host.parctl(&["undeploy", "web", "--wait"]).success();
    let rules = world.run("nft list ruleset");
    assert_eq!(rules.trim(), "table inet others {\n}");
}

fn what_a_killed_daemon_has_left_is_removed_and_nothing_else() {
    let mut world = World::new(SERVER);
    let one = world.deploy(&json!({}), 1)[0].clone();
    world.host.lose_daemon();
    let left = world.net().join("left");
    sh(&format!(
        "touch {0}; unshare --net={0} true",
        left.display()
    ));
    // As one of an instance, and as somebody else's.
    world.run("ip link add ph0ad50bb8 address 02:51:0a:d5:0b:b8 type veth peer name left");
    world.run("ip link set ph0ad50bb8 master parhelion0");
    world.run("ip link add theirs type veth peer name others");
    world.run("ip link set theirs master parhelion0");
    world.host.start();
    until("the namespace has gone", || !left.exists());
    until("the interface has gone", || {
        !world.run("ip -o link").contains("ph0ad50bb8")
    });
    assert!(world.run("ip -o link").contains("theirs@others"));
    until_it_answers(&world, &one);
}

fn who_goes_on_sending_reaches_the_next_instance() {
    let world = World::new("while :; do sleep 1; done");
    let more = json!({
        "ports": { "http": { "port": 8080, "external": 8000, "protocol": "udp" } },
        "tasks": { "main": { "bundle": world.host.bundle.path() } },
    });
    let bind = |address, port| {
        let socket = UdpSocket::bind((address, port)).unwrap();
        let limit = Some(Duration::from_millis(200));
        socket.set_read_timeout(limit).unwrap();
        socket
    };
    // A program of the instance.
    let listen = |name: &str| {
        let namespace = world.net().join(name);
        inside(namespace.to_str().unwrap(), || {
            bind(Ipv4Addr::UNSPECIFIED, 8080)
        })
    };
    let one = world.deploy(&more, 1)[0].clone();
    // One socket: for the kernel all it sends is one connection.
    let client = world.there(|| bind(NEIGHBOUR, 4000));
    let asks = |server: &UdpSocket| {
        let mut room = [0; 16];
        client.send_to(b"who", (HOST, 8000)).unwrap();
        let asked = server.recv_from(&mut room);
        let answered = asked.and_then(|(_, from)| server.send_to(b"I", from));
        answered.is_ok() && client.recv(&mut room).is_ok()
    };
    let server = listen(name(&one));
    until("the first one answers", || asks(&server));
    drop(server);
    let file = world.host.job("2", &world.job(&more));
    let words = ["apply", &file, "--order", "stop-first"];
    world.host.parctl(&words).success();
    let next = world.host.instance();
    assert!(name(&next).starts_with("web.2."), "{next:#}");
    assert_ne!(address(&next), address(&one));
    let server = listen(name(&next));
    until("the next one answers", || asks(&server));
}

fn tasks_of_one_instance_are_in_one_network() {
    let world = World::new(SERVER);
    let bundle = world.host.bundle.path();
    let script = "until wget -qO- http://127.0.0.1:8080/ > /www/got; do sleep 0.1; done; \
        exec busybox httpd -f -p 8081 -h /www";
    let more = json!({
        "ports": { "http": { "port": 8080 }, "second": { "port": 8081 } },
        "tasks": {
            "first": { "bundle": bundle, "tmpfs": { "/www": {} } },
            "second": { "bundle": bundle, "tmpfs": { "/www": {} },
                "command": ["/bin/sh", "-c", script.replace("wget", "busybox wget")],
                "health": { "readiness": { "http": { "port": "second", "path": "/got" }, "interval": "200ms" } } },
        },
    });
    let one = &world.deploy(&more, 1)[0];
    assert_eq!(one["health"], "ready");
    until_it_answers(&world, one);
}

fn fifty_instances_have_fifty_addresses() {
    const COUNT: usize = 50;
    let world = World::new(SERVER);
    // Without checks: fifty of them keep a slow machine busy.
    let task = json!({ "bundle": world.host.bundle.path(), "tmpfs": { "/www": {} } });
    let all = world.deploy(&json!({ "tasks": { "main": task } }), COUNT);
    let addresses: BTreeSet<Ipv4Addr> = all.iter().map(address).collect();
    let ports: BTreeSet<u16> = all.iter().map(port).collect();
    assert_eq!((addresses.len(), ports.len()), (COUNT, COUNT));
    for one in &all {
        let own = Ok(name(one).to_owned());
        until("it answers the neighbour", || {
            world.there(|| get(HOST, port(one))) == own
        });
    }
    world.host.parctl(&["undeploy", "web", "--wait"]).success();
    assert_eq!(fs::read_dir(world.net()).unwrap().count(), 0);
}

fn a_job_of_helios_with_two_port_numbers_is_carried_out() {
    let world = World::new(SERVER);
    let path = world.host.path("helios.json");
    let helios = json!({
        "id": "web:1", "image": "web:1",
        "ports": { "http": { "internalPort": 8080, "externalPort": 8000 } },
        "healthCheck": { "type": "http", "path": "/", "port": "http" },
        "ramdisks": { "/www": "" },
    });
    fs::write(&path, helios.to_string()).unwrap();
    let bundle = world.host.bundle.path();
    let path = path.to_str().unwrap();
    let words = ["create", "--helios", path, "--bundle", bundle];
    world.host.parctl(&words).success();
    world.host.parctl(&["deploy", "web", "--wait"]).success();
    let one = world.host.instance();
    assert_eq!(port(&one), 8000);
    assert_eq!(world.there(|| get(HOST, 8000)), Ok(name(&one).to_owned()));
}

fn a_network_that_is_in_use_is_refused_and_nothing_is_started() {
    let world = World::new(SERVER);
    world.run("ip route add 10.213.0.0/16 dev wire");
    let file = world.host.job("1", &world.job(&json!({})));
    world.host.parctl(&["create", &file]).success();
    world.host.parctl(&["deploy", "web"]).success();
    world
        .host
        .until("it says why", || world.host.instance()["fault"].is_string());
    let fault = world.host.instance()["fault"].to_string();
    assert!(
        fault.contains("this host has a route to 10.213.0.0/16"),
        "{fault}"
    );
    assert!(fault.contains("--subnet"), "{fault}");
    assert!(!world.run("ip -o link").contains("parhelion0"));
    assert_eq!(world.run("nft list ruleset"), "");
    // And when it is free, it is taken.
    world.run("ip route delete 10.213.0.0/16");
    world
        .host
        .until("it is ready", || world.host.instance()["health"] == "ready");
}

fn a_firewall_that_lets_nothing_pass_lets_instances_pass() {
    let world = World::new(SERVER);
    // As Docker leaves it.
    world.run("iptables -P FORWARD DROP");
    let one = &world.deploy(&json!({}), 1)[0];
    assert_eq!(
        world.there(|| get(HOST, port(one))),
        Ok(name(one).to_owned())
    );
    world.host.parctl(&["undeploy", "web", "--wait"]).success();
    assert_eq!(world.run("iptables -S FORWARD").trim(), "-P FORWARD DROP");
}
