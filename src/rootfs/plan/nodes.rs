//! Devices and links: those that every container has, and `linux.devices`.

use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxDevice, LinuxDeviceType, Spec};

use super::{Context, root_tree};
use crate::rootfs::{HostTree, Mount, Node, Source};
use crate::sys::confined::ContainerPath;

/// A bound /dev brings its own nodes, which are the host's business.
pub(super) fn dev_is_bound(mounts: &[Mount<HostTree>]) -> bool {
    mounts
        .iter()
        .any(|m| m.target.as_str() == "dev" && matches!(m.source, Source::Tree(_)))
}

/// Devices that every container has (config-linux.md, "Default Devices").
const DEFAULT_DEVICES: &[(&str, u32, u32)] = &[
    ("dev/null", 1, 3),
    ("dev/zero", 1, 5),
    ("dev/full", 1, 7),
    ("dev/tty", 5, 0),
    ("dev/random", 1, 8),
    ("dev/urandom", 1, 9),
];

/// Links that every container has (runtime-linux.md, "Dev symbolic links", and the pty master).
const DEFAULT_LINKS: &[(&str, &str)] = &[
    ("dev/fd", "/proc/self/fd"),
    ("dev/stdin", "/proc/self/fd/0"),
    ("dev/stdout", "/proc/self/fd/1"),
    ("dev/stderr", "/proc/self/fd/2"),
    ("dev/core", "/proc/kcore"),
    ("dev/ptmx", "pts/ptmx"),
];

/// The steps for all of them.
pub(super) fn plan(spec: &Spec, context: Context<'_>) -> Vec<Node<HostTree>> {
    if !context.own_mount_namespace {
        return Vec::new(); // the tree is used as it is
    }
    let extra = spec.linux().as_ref().and_then(|l| l.devices().as_ref());
    let extra: Vec<&LinuxDevice> = extra.into_iter().flatten().collect();
    let named = |path: &str| {
        extra
            .iter()
            .any(|d| ContainerPath::new(&d.path().to_string_lossy()).as_str() == path)
    };
    let defaults = DEFAULT_DEVICES
        .iter()
        .filter(|(path, _, _)| !named(path))
        .map(|&(path, major, minor)| {
            if context.user_namespace {
                return bound(Path::new("/").join(path));
            }
            let path = ContainerPath::new(path);
            Node::Device {
                path,
                kind: 'c',
                major,
                minor,
                mode: 0o666,
                uid: 0,
                gid: 0,
            }
        });
    let extra_nodes = extra
        .iter()
        .map(|device| extra_node(device, context.user_namespace));
    let links = DEFAULT_LINKS.iter().map(|(path, target)| Node::Link {
        path: ContainerPath::new(path),
        target: (*target).into(),
    });
    defaults.chain(extra_nodes).chain(links).collect()
}

fn extra_node(device: &LinuxDevice, user_namespace: bool) -> Node<HostTree> {
    let kind = match device.typ() {
        LinuxDeviceType::B => 'b',
        LinuxDeviceType::P => 'p',
        LinuxDeviceType::A | LinuxDeviceType::C | LinuxDeviceType::U => 'c',
    };
    if user_namespace && kind != 'p' {
        return bound(device.path().clone());
    }
    Node::Device {
        path: ContainerPath::new(&device.path().to_string_lossy()),
        kind,
        major: device.major() as u32,
        minor: device.minor() as u32,
        mode: device.file_mode().unwrap_or(0o666) & 0o7777,
        uid: device.uid().unwrap_or(0),
        gid: device.gid().unwrap_or(0),
    }
}

fn bound(path: PathBuf) -> Node<HostTree> {
    Node::Bound {
        path: ContainerPath::new(&path.to_string_lossy()),
        tree: HostTree {
            json_path: "linux.devices".into(),
            recursive: false,
            ..root_tree(&path)
        },
    }
}
