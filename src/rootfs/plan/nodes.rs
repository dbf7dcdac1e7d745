//! Devices and links: those that every container has, and `linux.devices`.

use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxDevice, LinuxDeviceType, Spec};

use super::{Context, MountNamespace, root_tree};
use crate::error::Problems;
use crate::rootfs::{Device, HostTree, Mount, Node, Source};
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
pub(super) fn plan(
    spec: &Spec,
    context: Context<'_>,
    problems: &mut Problems,
) -> Vec<Node<HostTree>> {
    let extra = spec.linux().as_ref().and_then(|l| l.devices().as_ref());
    let extra: Vec<&LinuxDevice> = extra.into_iter().flatten().collect();
    if context.mount_namespace == MountNamespace::Host {
        if !extra.is_empty() {
            let message = "are made in a mount namespace of the container's own only: \
                add {\"type\": \"mount\"} to linux.namespaces";
            problems.add("linux.devices", message);
        }
        return Vec::new(); // the tree is used as it is
    }
    let named = |path: &str| extra.iter().any(|d| target(d).as_str() == path);
    let defaults = DEFAULT_DEVICES
        .iter()
        .filter(|(path, _, _)| !named(path))
        .map(|&(path, major, minor)| {
            if context.binds_devices {
                return bound(Path::new("/").join(path), format!("default device /{path}"));
            }
            let path = ContainerPath::new(path);
            Node::Device(Device {
                path,
                kind: 'c',
                major,
                minor,
                mode: 0o666,
                uid: 0,
                gid: 0,
            })
        });
    let mut nodes: Vec<_> = defaults.collect();
    for (i, device) in extra.into_iter().enumerate() {
        // The multiplexer of the container's own devpts, whatever the list says.
        if target(device).as_str() != "dev/ptmx" {
            nodes.push(extra_node(i, device, context.binds_devices, problems));
        }
    }
    let links = DEFAULT_LINKS.iter().map(|(path, target)| Node::Link {
        path: ContainerPath::new(path),
        target: (*target).into(),
    });
    nodes.extend(links);
    nodes
}

fn target(device: &LinuxDevice) -> ContainerPath {
    ContainerPath::new(&device.path().to_string_lossy())
}

fn extra_node(
    index: usize,
    device: &LinuxDevice,
    binds: bool,
    problems: &mut Problems,
) -> Node<HostTree> {
    let kind = match device.typ() {
        LinuxDeviceType::B => 'b',
        LinuxDeviceType::P => 'p',
        LinuxDeviceType::A | LinuxDeviceType::C | LinuxDeviceType::U => 'c',
    };
    let (major, minor) = (device.major() as u32, device.minor() as u32);
    if binds && kind != 'p' {
        let json_path = format!("linux.devices[{index}].path");
        let path = device.path();
        if !is_device(path, kind, rustix::fs::makedev(major, minor)) {
            let message = format!(
                "\"{}\" of the host is not the device {kind} {major}:{minor}, and a user \
                namespace has devices of the host only, each at its own path",
                path.display()
            );
            problems.add(json_path.clone(), message);
        }
        return bound(path.clone(), json_path);
    }
    Node::Device(Device {
        path: target(device),
        kind,
        major,
        minor,
        mode: device.file_mode().unwrap_or(0o666) & 0o7777,
        uid: device.uid().unwrap_or(0),
        gid: device.gid().unwrap_or(0),
    })
}

fn is_device(path: &Path, kind: char, number: u64) -> bool {
    std::fs::metadata(path).is_ok_and(|node| {
        let file_type = node.file_type();
        let same_kind = match kind {
            'b' => file_type.is_block_device(),
            _ => file_type.is_char_device(),
        };
        same_kind && node.rdev() == number
    })
}

/// The host's node at `path`, at the same path in the container.
fn bound(path: PathBuf, json_path: String) -> Node<HostTree> {
    Node::Bound {
        path: ContainerPath::new(&path.to_string_lossy()),
        tree: HostTree {
            json_path,
            recursive: false,
            ..root_tree(&path)
        },
    }
}
