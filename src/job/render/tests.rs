//! What comes out of rendering, as text, and what the checks of bundles and of the keeper say of it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::*;
use crate::bundle::Bundle;
use crate::job::{Curve, Network, Time};
use crate::keeper::spec;

/// A bundle's directory, as `parhelion spec` makes one, removed when this is dropped.
pub(in crate::job) struct Disk(pub PathBuf);

impl Disk {
    pub(in crate::job) fn new(name: &str) -> Disk {
        let path = std::env::temp_dir().join(format!("job-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path); // of a run that was interrupted
        fs::create_dir_all(path.join("rootfs")).unwrap();
        Disk(path)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub(in crate::job) fn job(value: Value) -> Job {
    serde_json::from_value(value).unwrap()
}

/// The files of the instance 3 of a job on the host `alpha`, from bundles with this configuration.
fn rendered_from(job: &Job, base: &str) -> Result<Files> {
    let ports = job.ports.iter().enumerate();
    let ports: BTreeMap<String, u16> = ports
        .map(|(i, (name, port))| (name.clone(), port.external.unwrap_or(20_000 + i as u16)))
        .collect();
    let place = Place {
        instance: "web.1.0123abc.3",
        index: 3,
        host: "alpha",
        directory: Path::new("/state/agent/instances/web.1.0123abc.3"),
        volumes: Path::new("/state/volumes"),
        ports: &ports,
        network: (job.network == Network::Bridge).then_some(PlaceNetwork {
            namespace: Path::new("/proc/self/ns/net"),
            address: [10, 213, 0, 2].into(),
            resolv_conf: "nameserver 192.0.2.53\n",
        }),
        cgroup_parent: "/parhelion",
    };
    render(job, &place, &|path| {
        assert!(path.ends_with("config.json"), "{path:?}");
        Ok(base.as_bytes().to_vec())
    })
}

pub(in crate::job) const BASE: &str = include_str!("../../bundle/default.json");

pub(in crate::job) fn rendered(job: &Job) -> Files {
    rendered_from(job, BASE).unwrap()
}

pub(in crate::job) fn read(files: &Files, path: &str) -> Value {
    serde_json::from_slice(&files.files[Path::new(path)]).unwrap()
}

/// Each place where two values differ, a line each: `-` what was, `+` what is.
fn changes(path: &str, old: &Value, new: &Value, lines: &mut Vec<String>) {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
            for key in keys {
                let (old, new) = (old.get(key), new.get(key));
                let none = Value::Null;
                let path = format!("{path}/{key}");
                changes(&path, old.unwrap_or(&none), new.unwrap_or(&none), lines);
            }
        }
        (Value::Array(old), Value::Array(new)) => {
            let only = |these: &[Value], those: &[Value], sign: &str| -> Vec<String> {
                let these = these.iter().filter(|one| !those.contains(one));
                these.map(|one| format!("{sign} {path}[] {one}")).collect()
            };
            lines.extend(only(old, new, "-"));
            lines.extend(only(new, old, "+"));
        }
        _ if old == new => {}
        _ => {
            let signed = [("-", old), ("+", new)];
            let there = signed.iter().filter(|(_, value)| !value.is_null());
            lines.extend(there.map(|(sign, value)| format!("{sign} {path} {value}")));
        }
    }
}

/// What a task's config.json has that the bundle's has not, and the other way round.
fn changed(job: &Job, task: &str) -> String {
    let config = read(&rendered(job), &format!("tasks/{task}/config.json"));
    let mut lines = Vec::new();
    changes(
        "",
        &serde_json::from_str(BASE).unwrap(),
        &config,
        &mut lines,
    );
    lines.join("\n")
}

#[test]
fn the_smallest_job_changes_what_it_must() {
    let job = job(json!({
        "name": "web", "version": "1", "tasks": { "app": { "bundle": "/srv/web" } }
    }));
    assert_eq!(
        changed(&job, "app"),
        r#"+ /linux/cgroupsPath "/parhelion/web.1.0123abc.3.app"
- /linux/namespaces[] {"type":"network"}
+ /process/env[] "PARHELION_HOST=alpha"
+ /process/env[] "PARHELION_INDEX=3"
+ /process/env[] "PARHELION_INSTANCE=web.1.0123abc.3"
+ /process/env[] "PARHELION_JOB=web:1"
+ /process/oomScoreAdj 0
- /process/terminal true
+ /process/terminal false
- /root/path "rootfs"
+ /root/path "/srv/web/rootfs""#
    );
    let files = rendered(&job);
    let names: Vec<_> = files
        .files
        .keys()
        .map(|path| path.to_str().unwrap())
        .collect();
    assert_eq!(names, ["keeper.json", "tasks/app/config.json"]);
    assert_eq!(
        files.directories,
        BTreeSet::from([PathBuf::from("tasks/app")])
    );
}

/// A job that says everything that a container can be told.
pub(in crate::job) fn rich() -> Job {
    job(json!({
        "name": "web", "version": "1.2",
        "ports": { "http": {}, "http-admin": { "external": 81, "address": "127.0.0.1" } },
        "network": "none", "hostname": "www",
        "dns": { "servers": ["10.0.0.2"], "search": ["example.org"], "options": ["ndots:2"] },
        "addHosts": { "db": "10.0.0.3" },
        "labels": { "team": "sun" },
        "tasks": { "app": {
            "bundle": "/srv/web",
            "command": ["httpd", "-f"],
            "env": { "A": "1", "TERM": "dumb" },
            "user": "1000:1001", "groups": [7, 5], "workingDirectory": "/srv", "readOnly": false,
            "resources": {
                "memory": "512MiB", "memorySwap": "1GiB",
                "cpu": { "cores": 1.5, "shares": 512, "cpuset": "0-1" }, "pids": 100,
                "io": { "weight": 200, "devices": { "8:0": { "readBytes": "1MB", "writeOperations": 50 } } },
            },
            "volumes": {
                "/data": { "host": "/srv/data", "readOnly": true },
                "/cache": { "name": "cache" },
                "/dev/shm": { "instance": "shm" },
            },
            "tmpfs": { "/tmp": { "size": "64MiB", "options": ["exec"] } },
            "capabilities": { "add": ["NET_RAW"], "drop": ["cap_kill"] },
            "noNewPrivileges": false, "apparmor": "web", "selinux": "u:r:t:s0",
            "seccomp": { "defaultAction": "SCMP_ACT_ALLOW" },
        } }
    }))
}

#[test]
fn what_a_job_says_is_in_the_configuration() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/job/render/rich.txt");
    let text = changed(&rich(), "app") + "\n";
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&file, &text).unwrap();
    }
    assert_eq!(text, fs::read_to_string(&file).unwrap());
    let files = rendered(&rich());
    let text = |path: &str| String::from_utf8(files.files[Path::new(path)].clone()).unwrap();
    assert_eq!(
        text("etc/hosts"),
        "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n127.0.1.1 www\n10.0.0.3 db\n"
    );
    assert_eq!(
        text("etc/resolv.conf"),
        "nameserver 10.0.0.2\nsearch example.org\noptions ndots:2\n"
    );
    let directories = ["/state/volumes/cache", "etc", "tasks/app", "volumes/shm"];
    assert_eq!(
        files.directories,
        directories.iter().map(PathBuf::from).collect()
    );
}

#[test]
fn the_keeper_gets_its_defaults_and_what_the_job_says() {
    let disk = Disk::new("keeper");
    let load = |job: &Job| {
        let files = rendered(job);
        fs::write(
            disk.0.join("keeper.json"),
            &files.files[Path::new("keeper.json")],
        )
        .unwrap();
        spec::Spec::load(&disk.0).unwrap()
    };
    let mut job = job(json!({
        "name": "web", "version": "1", "tasks": { "app": { "bundle": "/srv/web" } }
    }));
    let spec = load(&job);
    assert_eq!(spec.restart, spec::RestartSpec::default());
    assert_eq!(spec.stop, spec::StopSpec::default());
    assert_eq!(spec.log, spec::LogSpec::default());
    job.stop.grace = Time::from_secs(70);
    job.restart.image = Curve {
        cap: Time::from_secs(90),
        ..Curve::default()
    };
    let spec = load(&job);
    assert_eq!(spec.stop.grace.as_secs(), 70);
    assert_eq!(spec.restart.image.cap.as_secs(), 90);
    assert_eq!(spec.restart.image.base.as_millis(), 200);
}

#[test]
fn the_checks_of_bundles_take_what_is_rendered() {
    let disk = Disk::new("bundle");
    let mut job = rich();
    let app = job.tasks.get_mut("app").unwrap();
    app.bundle = disk.0.clone();
    let bytes = rendered(&job).files[Path::new("tasks/app/config.json")].clone();
    let bundle = Bundle::of_bytes(Path::new("/nowhere"), &bytes).unwrap();
    assert_eq!(bundle.warnings, Vec::<String>::new());
    assert_eq!(bundle.rootfs, disk.0.join("rootfs"));
}

#[test]
fn paths_of_a_bundle_are_made_absolute_and_its_odd_parts_are_refused() {
    let one = job(json!({
        "name": "web", "version": "1", "tasks": { "app": { "bundle": "/srv/web" } }
    }));
    let base = r#"{ "root": { "path": "rootfs" }, "mounts": [
        { "destination": "/a", "source": "data", "options": ["rbind"] },
        { "destination": "/b", "source": "/data", "options": ["bind"] },
        { "destination": "/c", "type": "tmpfs", "source": "data" } ] }"#;
    let files = rendered_from(&one, base).unwrap();
    let config = read(&files, "tasks/app/config.json");
    let sources = config["mounts"].as_array().unwrap().iter();
    let sources: Vec<_> = sources
        .map(|mount| mount["source"].as_str().unwrap())
        .collect();
    assert_eq!(sources, ["/srv/web/data", "/data", "data"]);
    for (base, told) in [
        ("[]", "must be a JSON object"),
        ("{", "EOF"),
        ("{}", "root.path: is required"),
        (
            r#"{"root": {"path": "r"}, "process": []}"#,
            "process: must be an object",
        ),
        (
            r#"{"root": {"path": "r"}, "mounts": {}}"#,
            "mounts: must be an array",
        ),
    ] {
        let error = format!("{:#}", rendered_from(&one, base).unwrap_err());
        assert!(error.contains(told), "{base}: {error}");
        assert!(
            error.contains("task \"app\": \"/srv/web/config.json\""),
            "{error}"
        );
    }
}

proptest::proptest! {
    #[test]
    fn whatever_a_job_says_the_checks_take_what_is_rendered(job in crate::job::any::any_job()) {
        let disk = Disk::new("any");
        let mut job = job;
        for task in job.tasks.values_mut() {
            task.bundle = disk.0.clone();
        }
        let files = rendered(&job);
        for name in job.tasks.keys() {
            let bytes = &files.files[&Path::new("tasks").join(name).join("config.json")];
            let bundle = Bundle::of_bytes(Path::new("/nowhere"), bytes);
            proptest::prop_assert!(bundle.is_ok(), "{:#}", bundle.unwrap_err());
        }
        fs::write(disk.0.join("keeper.json"), &files.files[Path::new("keeper.json")]).unwrap();
        let spec = spec::Spec::load(&disk.0).unwrap();
        proptest::prop_assert_eq!(spec.tasks.len(), job.tasks.len());
        proptest::prop_assert_eq!(spec.restart.success_codes, job.restart.success_codes);
    }
}

#[test]
fn a_network_of_its_own_is_joined_by_its_path_and_told_of_inside() {
    let mut value = json!({
        "name": "web", "version": "1", "network": "bridge", "tasks": { "app": { "bundle": "/srv/web" } },
        "ports": { "http": { "port": 8080, "external": 80 }, "admin": { "external": 81 } },
    });
    let changes = changed(&job(value.clone()), "app");
    for line in [
        r#"+ /linux/namespaces[] {"path":"/proc/self/ns/net","type":"network"}"#,
        r#"+ /process/env[] "PORT_HTTP=8080""#,
        r#"+ /process/env[] "HELIOS_PORT_http=alpha:80""#,
        // Where nothing is said of the inside, it is the same.
        r#"+ /process/env[] "PORT_ADMIN=81""#,
    ] {
        assert!(changes.contains(line), "{line}: {changes}");
    }
    assert!(changes.contains("/etc/hosts") && changes.contains("/etc/resolv.conf"));
    let file = |files: &Files, name: &str| {
        String::from_utf8(files.files[&Path::new("etc").join(name)].clone()).unwrap()
    };
    let files = rendered(&job(value.clone()));
    assert!(file(&files, "hosts").ends_with("\n10.213.0.2 alpha\n"));
    assert_eq!(file(&files, "resolv.conf"), "nameserver 192.0.2.53\n");
    value["dns"] = json!({ "servers": ["192.0.2.1"] });
    let files = rendered(&job(value));
    assert_eq!(file(&files, "resolv.conf"), "nameserver 192.0.2.1\n");
}
