//! The bundle every contestant runs: busybox's /bin/true, with the configuration that `runc spec`
//! writes on a cgroup v2 host, without a terminal and without limits.

use crate::host::Host;
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// What a bundle differs in from the default.
#[derive(Clone, Copy, Default)]
pub struct Variant {
    /// For runtimes that fail with `resources.devices`: measured without it, with less work.
    pub without_devices: bool,
    /// `resources.memory.limit`, with a program tiny enough not to matter.
    pub memory_limit: Option<u64>,
}

/// Docker's default profile for amd64.
const PROFILE: &str = include_str!("../../tests/profiles/docker-amd64.json");

/// Makes the folder `name` with its config.json; the root file system is shared by all.
pub fn write(host: &Host, name: &str, variant: Variant) -> Result<PathBuf> {
    write_config(host, name, config(host, name, variant)?)
}

/// The same bundle beside it, under Docker's default seccomp profile.
pub fn filtered(host: &Host, name: &str, variant: Variant) -> Result<PathBuf> {
    let mut config = config(host, name, variant)?;
    config["linux"]["seccomp"] = serde_json::from_str(PROFILE)?;
    write_config(host, &format!("{name}-filtered"), config)
}

fn write_config(host: &Host, folder: &str, config: Value) -> Result<PathBuf> {
    let folder = host.folder.join(folder);
    fs::create_dir_all(&folder)?;
    fs::write(
        folder.join("config.json"),
        serde_json::to_vec_pretty(&config)?,
    )?;
    Ok(folder)
}

fn config(host: &Host, name: &str, variant: Variant) -> Result<Value> {
    let mut config = default_config();
    config["root"]["path"] = json!(rootfs(host)?);
    config["linux"]["cgroupsPath"] = json!(format!("{}/{name}", host.cgroup));
    if variant.without_devices {
        config["linux"]["resources"] = json!({});
    }
    if let Some(limit) = variant.memory_limit {
        config["linux"]["resources"]["memory"] = json!({ "limit": limit });
        config["process"]["args"] = json!(["/bin/floor", "true"]);
    }
    Ok(config)
}

/// The root file system, made at the first call.
pub fn rootfs(host: &Host) -> Result<PathBuf> {
    let root = host.folder.join("rootfs");
    if root.exists() {
        return Ok(root);
    }
    for folder in ["bin", "dev", "etc", "proc", "sys", "tmp"] {
        fs::create_dir_all(root.join(folder))?;
    }
    let busybox = std::env::var_os("BUSYBOX").map_or("/bin/busybox".into(), PathBuf::from);
    copy(&busybox, &root.join("bin/busybox")).context("BUSYBOX: a static busybox is needed")?;
    copy(&host.floor, &root.join("bin/floor"))?;
    for name in ["sh", "true"] {
        symlink("busybox", root.join("bin").join(name))?;
    }
    Ok(root)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).with_context(|| format!("copy {from:?}"))?;
    Ok(())
}

fn default_config() -> Value {
    let capabilities = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"];
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": { "uid": 0, "gid": 0 },
            "args": ["/bin/true"],
            "env": [
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "TERM=xterm"
            ],
            "cwd": "/",
            "capabilities": {
                "bounding": capabilities,
                "effective": capabilities,
                "permitted": capabilities,
                "ambient": capabilities
            },
            "rlimits": [{ "type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024 }],
            "noNewPrivileges": true
        },
        "root": { "path": "rootfs", "readonly": true },
        "hostname": "runc",
        "mounts": default_mounts(),
        "linux": {
            "resources": { "devices": [{ "allow": false, "access": "rwm" }] },
            "namespaces": [
                { "type": "pid" },
                { "type": "network" },
                { "type": "ipc" },
                { "type": "uts" },
                { "type": "mount" },
                { "type": "cgroup" }
            ],
            "maskedPaths": [
                "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
                "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware",
                "/proc/scsi"
            ],
            "readonlyPaths": [
                "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"
            ]
        }
    })
}

fn default_mounts() -> Value {
    let mount = |destination: &str, kind: &str, source: &str, options: &[&str]| {
        json!({
            "destination": destination, "type": kind, "source": source, "options": options
        })
    };
    json!([
        mount("/proc", "proc", "proc", &[]),
        mount(
            "/dev",
            "tmpfs",
            "tmpfs",
            &["nosuid", "strictatime", "mode=755", "size=65536k"]
        ),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &[
                "nosuid",
                "noexec",
                "newinstance",
                "ptmxmode=0666",
                "mode=0620",
                "gid=5"
            ]
        ),
        mount(
            "/dev/shm",
            "tmpfs",
            "shm",
            &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]
        ),
        mount(
            "/dev/mqueue",
            "mqueue",
            "mqueue",
            &["nosuid", "noexec", "nodev"]
        ),
        mount(
            "/sys",
            "sysfs",
            "sysfs",
            &["nosuid", "noexec", "nodev", "ro"]
        ),
        mount(
            "/sys/fs/cgroup",
            "cgroup",
            "cgroup",
            &["nosuid", "noexec", "nodev", "relatime", "ro"]
        )
    ])
}
