//! A container's file system in which no device can be opened but the nodes that its plan makes.
//!
//! Where no cgroup filters devices, mounts have to keep them out: what an image or a volume brings is of no
//! use on a mount without devices. That holds as long as nobody inside can make nodes or mounts.

use crate::rootfs::{Entry, HostTree, Mount, Node, Plan, Propagation, Source};
use crate::sys::confined::ContainerPath;

const NODEV: u64 = libc::MOUNT_ATTR_NODEV;

/// A device that has a node in the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceNode {
    /// Where it is.
    pub path: ContainerPath,
    /// `c` or `b`.
    pub kind: char,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
}

impl Plan<HostTree> {
    /// Leaves the container no device but its nodes, which are returned.
    ///
    /// # Errors
    ///
    /// What stands in the way, in words that follow on "takes".
    pub fn keep_devices_out(&mut self) -> Result<Vec<DeviceNode>, String> {
        match self.entry {
            Entry::Pivot | Entry::Move => {}
            Entry::Cover | Entry::Chroot => return Err("a new mount namespace".into()),
        }
        let dev = |mount: &&Mount<HostTree>| mount.target.as_str() == "dev";
        let over = self.mounts.iter().rev().find(dev).map(|dev| &dev.source);
        match over {
            Some(Source::New(new)) if new.fstype == "tmpfs" && !new.copy_up => {}
            _ => return Err("a tmpfs at /dev, without tmpcopyup".into()),
        }
        self.root.recursive_attributes.set |= NODEV;
        for mount in &mut self.mounts {
            keep_out(mount)?;
        }
        let nodes = self
            .nodes
            .iter()
            .filter_map(|node| device(node).transpose());
        let nodes: Vec<DeviceNode> = nodes.collect::<Result<_, _>>()?;
        match nodes
            .iter()
            .find(|node| !node.path.as_str().starts_with("dev/"))
        {
            Some(outside) => Err(format!(
                "every device in /dev, and /{} is not",
                outside.path
            )),
            None => Ok(nodes),
        }
    }
}

/// Takes the devices from one mount, also from what may be mounted in it on the host later: that would come
/// with its own attributes.
///
/// # Errors
///
/// As for [`Plan::keep_devices_out`].
pub(in crate::rootfs) fn keep_out(mount: &mut Mount<HostTree>) -> Result<(), String> {
    let is_dev = mount.target.as_str() == "dev";
    let shares =
        |propagation: &Propagation| [libc::MS_SHARED, libc::MS_SLAVE].contains(&propagation.kind);
    match &mut mount.source {
        Source::New(new) if new.fstype == "devpts" || (is_dev && new.fstype == "tmpfs") => {}
        Source::New(new) => new.attributes.set |= NODEV,
        Source::Remount { .. } if is_dev => {}
        Source::Remount { attributes, .. } => {
            attributes.set |= NODEV;
            attributes.clear &= !NODEV;
        }
        Source::Link(_) => {}
        Source::Tree(_) if mount.propagation.iter().any(shares) => {
            let target = &mount.target;
            return Err(format!(
                "private mounts, and that at /{target} shares with the host"
            ));
        }
        Source::Tree(tree) => {
            tree.attributes.clear &= !NODEV;
            tree.lifted &= !NODEV;
            tree.recursive_attributes.set |= NODEV;
            tree.recursive_attributes.clear &= !NODEV;
            let private = Propagation {
                kind: libc::MS_PRIVATE,
                recursive: true,
            };
            mount.propagation.insert(0, private);
        }
    }
    Ok(())
}

/// The device of a node; None for what is none.
fn device(node: &Node<HostTree>) -> Result<Option<DeviceNode>, String> {
    use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
    match node {
        Node::Link { .. } => Ok(None),
        Node::Device(device) if device.kind == 'p' => Ok(None),
        Node::Device(device) => Ok(Some(DeviceNode {
            path: device.path.clone(),
            kind: device.kind,
            major: device.major,
            minor: device.minor,
        })),
        Node::Bound { path, tree } => {
            let found = tree.path.metadata();
            let found = found.map_err(|error| format!("{:?} of the host: {error}", tree.path))?;
            let number = found.rdev();
            Ok(Some(DeviceNode {
                path: path.clone(),
                kind: match found.file_type().is_block_device() {
                    true => 'b',
                    false => 'c',
                },
                major: rustix::fs::major(number),
                minor: rustix::fs::minor(number),
            }))
        }
    }
}
