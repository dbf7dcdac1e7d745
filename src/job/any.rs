//! Any job that keeps the rules, for tests of properties.

use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::{btree_map, btree_set, vec};
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::json;

use super::*;

fn time(least: u64, most: u64) -> impl Strategy<Value = Time> {
    prop_oneof![
        least..=most,
        (least.div_ceil(1000)..=most / 1000).prop_map(|s| s * 1000)
    ]
    .prop_map(Time::from_millis)
}

fn size(least: u64) -> impl Strategy<Value = Size> {
    let power = (0_u32..=60).prop_map(|power| 1 << power);
    prop_oneof![least..=1 << 60, power].prop_map(move |size: u64| Size(size.max(least)))
}

fn text() -> impl Strategy<Value = String> {
    "[^\0]{0,12}"
}

fn curve() -> impl Strategy<Value = Curve> {
    let times = (time(1, 60_000), time(60_000, 31_536_000_000));
    (times, 1000_u32..1_000_000, 0_u32..=1000).prop_map(|((base, cap), factor, jitter)| Curve {
        base,
        cap,
        factor: Thousandths(factor),
        jitter: Thousandths(jitter),
    })
}

fn restart() -> impl Strategy<Value = Restart> {
    let policy = select(vec![Policy::Always, Policy::OnFailure, Policy::Never]);
    let curves = (curve(), curve(), curve());
    let codes = vec(any::<u8>(), 1..4);
    (policy, codes, time(1, 31_536_000_000), curves).prop_map(
        |(policy, codes, good_run, curves)| Restart {
            policy,
            success_codes: codes,
            good_run,
            crash: curves.0,
            unhealthy: curves.1,
            image: curves.2,
        },
    )
}

fn limits() -> impl Strategy<Value = (Restart, Stop, Log)> {
    let stop = (1_i32..=64, time(0, 31_536_000_000), time(0, 31_536_000_000));
    let stop = stop.prop_map(|(signal, delay, grace)| Stop {
        signal: signal.to_string().parse().unwrap(),
        delay,
        grace,
    });
    let when = select(vec![WhenFull::Wait, WhenFull::Drop]);
    let log = (131_072_u64..=1 << 40, 1_u16..=1000, when).prop_map(|(max_size, files, when)| Log {
        max_size: Size(max_size),
        max_files: files,
        when_full: when,
    });
    (
        prop_oneof![Just(Restart::default()), restart()],
        prop_oneof![Just(Stop::default()), stop],
        prop_oneof![Just(Log::default()), log],
    )
}

fn path() -> impl Strategy<Value = String> {
    "(/[a-z][a-z0-9.]{0,6}){1,3}"
}

fn io() -> impl Strategy<Value = Io> {
    let device =
        (of(size(1)), of(size(1)), of(1_u32..), 1_u32..).prop_map(|(r, w, ro, wo)| IoDevice {
            read_bytes: r,
            write_bytes: w,
            read_operations: ro,
            write_operations: Some(wo),
        });
    let devices = btree_map((0_u32..4096, 0_u32..1 << 20), device, 0..2);
    (of(10_u16..=1000), devices).prop_map(|(weight, devices)| Io {
        weight,
        devices: devices
            .into_iter()
            .map(|((major, minor), device)| (format!("{major}:{minor}"), device))
            .collect(),
    })
}

fn resources() -> impl Strategy<Value = Resources> {
    let memory = of((1_u64..1 << 40, of(0_u64..1 << 40)));
    let cpuset = of(select(vec!["0", "0-3", "0-1,8", "5,7"]));
    let cpu = (of(10_u32..=10_000_000), of(2_u32..=262_144), cpuset);
    (memory, cpu, of(1_u32..=1 << 30), io()).prop_map(|(memory, cpu, pids, io)| Resources {
        memory: memory.map(|(memory, _)| Size(memory)),
        memory_swap: memory.and_then(|(memory, more)| Some(Size(memory + more?))),
        cpu: Cpu {
            cores: cpu.0.map(Thousandths),
            shares: cpu.1,
            cpuset: cpu.2.map(str::to_owned),
        },
        pids,
        io,
    })
}

fn volume() -> impl Strategy<Value = Volume> {
    let name = "[a-zA-Z0-9][a-z0-9_.-]{0,8}";
    let source = prop_oneof![
        path().prop_map(|path| Volume {
            host: Some(path.into()),
            ..Volume::default()
        }),
        name.prop_map(|name| Volume {
            name: Some(name),
            ..Volume::default()
        }),
        name.prop_map(|name| Volume {
            instance: Some(name),
            ..Volume::default()
        }),
    ];
    (source, any::<bool>()).prop_map(|(volume, read_only)| Volume {
        read_only,
        ..volume
    })
}

fn tmpfs() -> impl Strategy<Value = Tmpfs> {
    let options = vec(
        select(vec!["exec", "suid", "ro", "uid=7", "nr_inodes=100"]),
        0..3,
    );
    (
        of(size(1)),
        of(select(vec!["755", "0700", "1777"])),
        options,
    )
        .prop_map(|(size, mode, options)| Tmpfs {
            size,
            mode: mode.map(str::to_owned),
            options: options.into_iter().map(str::to_owned).collect(),
        })
}

fn check(ports: Vec<String>, purpose: Purpose) -> impl Strategy<Value = Check> {
    let exec = vec("[a-z]{1,8}", 1..3).prop_map(|command| Check {
        exec: Some(command),
        ..Check::default()
    });
    let probe = if ports.is_empty() {
        exec.boxed()
    } else {
        let tcp = select(ports.clone()).prop_map(|port| Check {
            tcp: Some(Tcp { port }),
            ..Check::default()
        });
        let status = vec(100_u16..=599, 0..3);
        let http = (select(ports), "/[a-z?=]{0,8}", of("[a-z.]{1,9}x"), status).prop_map(
            |(port, path, host, status)| Check {
                http: Some(Http {
                    port,
                    path,
                    host: host.map(|host| host.trim_start_matches('.').to_owned()),
                    status,
                }),
                ..Check::default()
            },
        );
        prop_oneof![exec, tcp, http].boxed()
    };
    let least = u32::from(purpose != Purpose::Startup);
    let most = if purpose == Purpose::Liveness {
        1_u32
    } else {
        100
    };
    let rhythm = (
        of(time(100, 86_400_000)),
        of(time(10, 3_600_000)),
        of(least..=10_000),
        of(1_u32..=most),
    );
    // By way of a value, which takes away what is a default.
    (probe, rhythm).prop_map(move |(probe, (interval, timeout, failures, successes))| {
        let check = Check {
            interval,
            timeout,
            failures,
            successes,
            ..probe
        };
        let health = json!({ purpose.name(): check });
        let health: Health = serde_json::from_value(health).unwrap();
        health.get(purpose).unwrap().clone()
    })
}

fn health(ports: Vec<String>) -> impl Strategy<Value = Health> {
    let one = |purpose| of(check(ports.clone(), purpose));
    let all = Purpose::ALL.map(one);
    all.prop_map(|[startup, readiness, liveness]| Health {
        startup,
        readiness,
        liveness,
    })
}

fn capabilities() -> impl Strategy<Value = Capabilities> {
    let name = select(vec!["NET_RAW", "CAP_KILL", "all", "sys_admin"]);
    let names = || btree_set(name.clone().prop_map(str::to_owned), 0..3);
    (names(), names()).prop_map(|(add, drop)| Capabilities { add, drop })
}

fn seccomp() -> impl Strategy<Value = Seccomp> {
    let profile = json!({ "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1,
        "syscalls": [{ "names": ["read"], "action": "SCMP_ACT_ALLOW" }] });
    let profile = profile.as_object().cloned().unwrap_or_default();
    prop_oneof![Just(Seccomp::unconfined()), Just(Seccomp::Profile(profile)),]
}

fn task(ports: Vec<String>) -> impl Strategy<Value = Task> {
    let program = (
        of(vec("[^\0]{1,8}", 1..3)),
        btree_map("[A-Z_a-z]{1,8}", text(), 0..3),
        of((0..u32::MAX, of(0..u32::MAX))),
        of(btree_set(0..u32::MAX, 0..3)),
        of(path()),
        of(any::<bool>()),
    );
    let mounts = (
        btree_map(path(), volume(), 0..3),
        btree_map(path(), tmpfs(), 0..3),
    );
    let word = || of("[a-z:]{1,8}");
    let rights = (
        capabilities(),
        of(any::<bool>()),
        of(seccomp()),
        word(),
        word(),
    );
    (path(), program, resources(), mounts, rights, health(ports)).prop_map(
        |(bundle, program, resources, (volumes, mut tmpfs), rights, health)| {
            tmpfs.retain(|path, _| !volumes.contains_key(path));
            Task {
                bundle: bundle.into(),
                command: program.0,
                env: program.1,
                user: program.2.map(|(uid, gid)| User { uid, gid }),
                groups: program.3,
                working_directory: program.4,
                read_only: program.5,
                resources,
                volumes,
                tmpfs,
                capabilities: rights.0,
                no_new_privileges: rights.1,
                seccomp: rights.2,
                apparmor: rights.3,
                selinux: rights.4,
                health,
            }
        },
    )
}

fn ports() -> impl Strategy<Value = BTreeMap<String, Port>> {
    let protocol = select(vec![Protocol::Tcp, Protocol::Udp]);
    let port = (
        of(1_u16..),
        of(1_u16..),
        protocol,
        of(any::<std::net::IpAddr>()),
    );
    let ports = btree_map("[a-z][a-z0-9-]{0,6}", port, 0..3);
    ports.prop_map(|ports| {
        let mut taken = BTreeSet::new();
        let ports = ports
            .into_iter()
            .map(|(name, (inside, external, protocol, address))| {
                let external = external.filter(|number| taken.insert(*number));
                let port = Port {
                    port: inside,
                    external,
                    protocol,
                    address,
                };
                (name, port)
            });
        ports.collect()
    })
}

/// Whatever does not depend on tasks.
fn around(ports: Vec<String>) -> impl Strategy<Value = Job> {
    let words = || vec("[a-z0-9.:]{1,8}x", 0..3);
    let word = || words().prop_map(|words: Vec<String>| words);
    let servers = vec(any::<std::net::IpAddr>(), 1..=3);
    let dns = (servers, word(), word()).prop_map(|(servers, search, options)| Dns {
        servers,
        search,
        options,
    });
    let hosts = btree_map("[a-z][a-z0-9.-]{0,9}", any::<std::net::IpAddr>(), 0..3);
    let pairs = || btree_map("[a-z][^\0]{0,8}", text(), 0..3);
    let service = select(if ports.is_empty() {
        vec![String::new()]
    } else {
        ports.clone()
    });
    let protocol = select(vec!["http", "grpc"]);
    let domain = of("[a-z]{1,5}");
    let services = btree_map("[a-z]{1,5}", (service, protocol, words(), domain), 0..3);
    let expires = of(0_i64..253_402_300_800_000);
    let token = of("[^\0]{1,9}");
    let hostname = of("[a-z][a-z0-9.-]{0,9}");
    let network = (of(dns), hosts, hostname);
    let people = (pairs(), pairs(), expires, token);
    (limits(), services, network, people).prop_map(
        move |((restart, stop, log), services, (dns, add_hosts, hostname), people)| {
            let there = services.into_iter().filter(|_| !ports.is_empty());
            let registration = there.map(|(service, (port, protocol, tags, domain))| Service {
                service,
                port,
                protocol: protocol.to_owned(),
                tags,
                domain,
            });
            Job {
                registration: registration.collect(),
                restart,
                stop,
                log,
                dns,
                add_hosts,
                hostname,
                labels: people.0,
                metadata: people.1,
                expires: people.2.and_then(Moment::from_unix_millis),
                token: people.3,
                ..Job::default()
            }
        },
    )
}

/// Any job that keeps the rules.
pub(super) fn any_job() -> impl Strategy<Value = Job> {
    let name = || "[a-zA-Z0-9][a-zA-Z0-9._-]{0,8}";
    (name(), name(), ports()).prop_flat_map(|(name, version, ports)| {
        let tcp = ports
            .iter()
            .filter(|(_, port)| port.protocol == Protocol::Tcp);
        let tcp: Vec<String> = tcp.map(|(name, _)| name.clone()).collect();
        let tasks = btree_map("[a-z][a-z0-9_-]{0,6}", task(tcp), 1..3);
        let share = btree_set(select(vec![Shared::Ipc, Shared::Pid, Shared::Uts]), 0..3);
        let names = ports.keys().cloned().collect();
        let networks = vec![Network::Host, Network::None, Network::Bridge];
        let any_network = (around(names), tasks, share, select(networks));
        any_network.prop_map(move |(job, tasks, share, network)| {
            let mut ports = ports.clone();
            for port in ports.values_mut() {
                match network {
                    Network::Bridge => port.address = port.address.filter(|ip| ip.is_ipv4()),
                    Network::Host | Network::None => port.port = None,
                }
            }
            Job {
                name: name.clone(),
                version: version.clone(),
                share: if tasks.len() > 1 {
                    share
                } else {
                    BTreeSet::new()
                },
                network: if network == Network::None && !ports.is_empty() {
                    Network::Host
                } else {
                    network
                },
                ports,
                tasks,
                ..job
            }
        })
    })
}
