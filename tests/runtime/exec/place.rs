//! Where the process is: in all namespaces of the container, and below its root.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Stdio;

use libtest_mimic::Trial;
use serde_json::json;

use super::{
    background, changed, exec, in_user_namespace, leave, own_user_namespace, running, sh, sleeping,
};
use crate::caller::{command, init_pid, start};
use crate::support::{Bundle, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        the_process_is_in_every_namespace_of_the_container,
        a_namespace_that_is_the_hosts_stays_the_hosts,
        a_joined_user_namespace_is_joined_too,
        the_root_is_the_containers,
        the_root_is_the_containers_also_without_pivot,
        clocks_are_those_of_the_container,
        the_process_sees_what_the_container_has_done,
        a_container_without_a_pid_namespace_takes_processes_too,
        the_session_keyring_is_the_containers,
    ]
}

/// Each kind in config.json, and its file in /proc/PID/ns.
const KINDS: &[(&str, &str)] = &[
    ("mount", "mnt"),
    ("pid", "pid"),
    ("network", "net"),
    ("ipc", "ipc"),
    ("uts", "uts"),
    ("user", "user"),
    ("cgroup", "cgroup"),
    ("time", "time"),
];

fn namespace(process: &str, file: &str) -> String {
    let link = fs::read_link(format!("/proc/{process}/ns/{file}")).unwrap();
    link.to_string_lossy().into_owned()
}

fn shares_all_with_init(bundle: &Bundle) {
    let (own, init) = (background(bundle, &[]), init_pid(bundle));
    for (kind, file) in KINDS {
        let found = namespace(&own.to_string(), file);
        assert_eq!(found, namespace(&init.to_string(), file), "{kind}");
    }
}

fn the_process_is_in_every_namespace_of_the_container() {
    let bundle = in_user_namespace(|config| {
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.push(json!({"type": "time"}));
    });
    shares_all_with_init(&bundle);
    let (script, init) = (
        "busybox readlink /proc/self/ns/",
        init_pid(&bundle).to_string(),
    );
    for (kind, file) in KINDS {
        let found = namespace(&init, file);
        assert_ne!(found, namespace("self", file), "{kind} is the host's");
        assert_eq!(
            sh(&bundle, &[], &format!("{script}{file}")),
            format!("{found}\n")
        );
    }
}

fn a_namespace_that_is_the_hosts_stays_the_hosts() {
    for (kind, file) in KINDS {
        let bundle = changed(|config| leave(config, kind));
        shares_all_with_init(&bundle);
        let pid = background(&bundle, &[]).to_string();
        assert_eq!(namespace(&pid, file), namespace("self", file), "{kind}");
    }
}

fn a_joined_user_namespace_is_joined_too() {
    let holder = in_user_namespace(|_config| {});
    let of_holder = |file: &str| format!("/proc/{}/ns/{file}", init_pid(&holder));
    let bundle = sleeping();
    let rootfs = bundle.folder.join("rootfs");
    bundle.edit(|config| {
        own_user_namespace(config, &rootfs);
        let linux = config["linux"].as_object_mut().unwrap();
        linux.remove("uidMappings");
        linux.remove("gidMappings");
        for namespace in linux["namespaces"].as_array_mut().unwrap() {
            match namespace["type"].as_str().unwrap() {
                "user" => namespace["path"] = json!(of_holder("user")),
                "network" => namespace["path"] = json!(of_holder("net")),
                _ => {}
            }
        }
    });
    start(&bundle);
    shares_all_with_init(&bundle);
    assert_eq!(sh(&bundle, &[], "id -u; id -g"), "0\n0\n");
    assert_eq!(sh(&bundle, &["-u", "5:6"], "id -u; id -g"), "5\n6\n");
    let pid = background(&bundle, &["-u", "5:6"]);
    assert_eq!(fs::metadata(format!("/proc/{pid}")).unwrap().uid(), 100_005);
}

/// Its root is the bundle's, and there is no way up.
fn is_rooted(bundle: &Bundle) {
    let rootfs = bundle.folder.join("rootfs");
    let inode = fs::metadata(&rootfs).unwrap().ino();
    let script = format!(
        "stat -c %i / /.. /proc/self/root/ /proc/self/cwd/../..; \
        [ -e {} ] && echo sees the host; echo *",
        bundle.folder.display()
    );
    let names = sh(bundle, &[], "cd /; echo *");
    assert!(names.contains("bin") && names.contains("proc"), "{names}");
    let seen = sh(bundle, &["--cwd", "/"], &script);
    assert_eq!(seen, format!("{}{names}", format!("{inode}\n").repeat(4)));
}

fn the_root_is_the_containers() {
    is_rooted(&running());
    is_rooted(&in_user_namespace(|_config| {}));
}

fn the_root_is_the_containers_also_without_pivot() {
    let bundle = sleeping();
    let flags = ["run", "--detach", "--no-pivot", "--bundle", bundle.path()];
    let mut run = command(&bundle, &[&flags[..], &[&bundle.id]].concat());
    let streams = run.stdin(Stdio::null()).stdout(Stdio::null());
    assert!(streams.stderr(Stdio::null()).status().unwrap().success());
    is_rooted(&bundle);
}

fn clocks_are_those_of_the_container() {
    let bundle = changed(|config| {
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.push(json!({"type": "time"}));
        config["linux"]["timeOffsets"] = json!({"boottime": {"secs": 2_000_000}});
    });
    let uptime = |text: &str| -> f64 { text.split(' ').next().unwrap().parse().unwrap() };
    let before = uptime(&fs::read_to_string("/proc/uptime").unwrap());
    let inside = uptime(&exec(&bundle, &[], &["/bin/cat", "/proc/uptime"]).success());
    let passed = inside - before - 2_000_000.0;
    assert!((0.0..600.0).contains(&passed), "{before}, {inside}");
}

fn the_process_sees_what_the_container_has_done() {
    let bundle = changed(|config| config["hostname"] = json!("inside"));
    let tmpfs = "echo one > /dev/shm/f; hostname; ip addr show lo | busybox grep -c 127.0.0.1";
    assert_eq!(sh(&bundle, &[], tmpfs), "inside\n1\n");
    assert_eq!(
        sh(&bundle, &[], "cat /dev/shm/f; ls -d /proc/1"),
        "one\n/proc/1\n"
    );
    // Masked and read-only as for the first process.
    let writes = "cat /proc/kcore | busybox wc -c; echo 1 2>/dev/null >/proc/sys/vm/swappiness \
        || echo refused";
    assert_eq!(sh(&bundle, &[], writes), "0\nrefused\n");
}

fn a_container_without_a_pid_namespace_takes_processes_too() {
    let bundle = changed(|config| leave(config, "pid"));
    let pid = background(&bundle, &[]);
    let seen = sh(&bundle, &[], &format!("cat /proc/{pid}/comm; echo $$"));
    let own: Vec<&str> = seen.lines().collect();
    assert_eq!(own[0], "sleep");
    assert!(own[1].parse::<i32>().unwrap() > 1);
    // Not a descendant of the first process; all the same it goes with the container.
    bundle
        .parhelion(&["kill", "--all", &bundle.id, "KILL"])
        .success();
    crate::caller::wait_for_exit(pid);
}

fn the_session_keyring_is_the_containers() {
    if !Path::new("/proc/keys").exists() {
        return; // a kernel without keys
    }
    // It is joined by its name, to which more than one may listen.
    let serials = |bundle: &Bundle, keys: &str| -> Vec<String> {
        let name = format!("_ses.{}:", bundle.id);
        let named = keys.lines().filter(|line| line.contains(&name));
        named.map(|line| line[..8].to_owned()).collect()
    };
    for in_user in [false, true] {
        let bundle = Bundle::new("cat /proc/keys; echo end; exec sleep 100000");
        let rootfs = bundle.folder.join("rootfs");
        bundle.edit(|config| {
            config["linux"]["maskedPaths"] = json!([]);
            if in_user {
                own_user_namespace(config, &rootfs);
            }
        });
        start(&bundle);
        super::wait_until(|| crate::caller::output(&bundle).contains("end\n"));
        let own = serials(&bundle, &crate::caller::output(&bundle));
        assert_eq!(own.len(), 1);
        for _ in 0..2 {
            let seen = exec(&bundle, &[], &["/bin/cat", "/proc/keys"]).success();
            assert_eq!(serials(&bundle, &seen), own, "{seen}");
        }
        let flags = ["--user", "1000"];
        let seen = exec(&bundle, &flags, &["/bin/cat", "/proc/keys"]).success();
        assert_eq!(serials(&bundle, &seen), own, "{seen}");
    }
}
