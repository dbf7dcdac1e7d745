//! What of a container belongs to the host, by the names under which the images know it.
//!
//! For a mount that name is its destination in config.json, so that a restore finds the source there.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use oci_spec::runtime::{LinuxNamespaceType, Spec};
use rustix::fs::{FileType, OFlags};

use crate::bundle::Bundle;
use crate::cgroups::inner_annotation;
use crate::criu::{Options, Text};
use crate::error::Problems;
use crate::namespaces::{self, Kind};
use crate::rootfs::{HostTree, Node, Plan, Source, mount_points_below};
use crate::sys::confined::{ContainerPath, Root};
use crate::sys::{Call, Errno};

/// What every file is called that hides another.
pub const NULL: &str = "/dev/null";

/// Adds to `problems` what CRIU can not write down so that a restore would bring back the same container.
pub fn check(spec: &Spec, namespaces: &namespaces::Plan, problems: &mut Problems) {
    if let Some(name) = inner_annotation(spec) {
        let text = "criu puts the processes of a container into its own cgroup";
        problems.add(format!("annotations[{name:?}]"), text);
    }
    const FIELD: &str = "linux.namespaces";
    if !namespaces.is_new(Kind::Mount) {
        let text = "a checkpoint needs a mount namespace of the container's own, made for it";
        problems.add(FIELD, text);
    }
    for (i, mount) in spec.mounts().iter().flatten().enumerate() {
        let mut words = mount.options().iter().flatten();
        if words.any(|word| matches!(word.as_str(), "src-nofollow" | "dest-nofollow")) {
            let text = "criu can not mount a symbolic link, nor onto one";
            problems.add(format!("mounts[{i}].options"), text);
        }
    }
    if namespaces.joined(Kind::Cgroup).is_some() {
        let text = "criu can not bring a container back into a cgroup namespace of others";
        problems.add(FIELD, text);
    }
}

/// Namespaces that CRIU knows by a descriptor, and their names in its images; runc's names.
const BY_DESCRIPTOR: [(LinuxNamespaceType, Kind, &str, &str); 2] = [
    (
        LinuxNamespaceType::Network,
        Kind::Network,
        "net",
        "extRootNetNS",
    ),
    (LinuxNamespaceType::Pid, Kind::Pid, "pid", "extRootPidNS"),
];

/// Namespaces that CRIU joins by their path.
const BY_PATH: [(Kind, &str); 4] = [
    (Kind::Ipc, "ipc"),
    (Kind::Uts, "uts"),
    (Kind::User, "user"),
    (Kind::Time, "time"),
];

/// Tells a dump which namespaces of process `pid` were joined, and stay outside.
///
/// # Errors
///
/// The process has ended.
pub fn dump_namespaces(bundle: &Bundle, pid: i32, options: &mut Options) -> Result<()> {
    for (kind, _, file, name) in BY_DESCRIPTOR {
        let entry = bundle.namespace(kind);
        if entry.is_none_or(|entry| entry.path().is_none()) {
            continue;
        }
        let inode = |pid: &str| {
            let path = format!("/proc/{pid}/ns/{file}");
            let found = std::fs::metadata(&path);
            found
                .map(|found| found.ino())
                .with_context(|| format!("stat({path:?})"))
        };
        let of_container = inode(&pid.to_string())?;
        if of_container != inode("self")? {
            options.text(Text::External, &format!("{file}[{of_container}]:{name}"));
        }
    }
    Ok(())
}

/// Tells a restore which namespaces are joined; the open ones have to be handed to CRIU.
///
/// # Errors
///
/// One that can not be opened, or has a path that is not UTF-8.
pub fn restore_namespaces(plan: &namespaces::Plan, options: &mut Options) -> Result<Vec<OwnedFd>> {
    for (kind, name) in BY_PATH {
        if let Some(path) = plan.joined(kind) {
            let path = path.to_str();
            options.join(name, path.context("linux.namespaces: a path is not UTF-8")?);
        }
    }
    let mut open = plan.open()?;
    open.retain(|(kind, _)| BY_DESCRIPTOR.iter().any(|(_, known, _, _)| known == kind));
    for (kind, fd) in &open {
        let row = BY_DESCRIPTOR.iter().find(|(_, known, _, _)| known == kind);
        if let Some((_, _, _, name)) = row {
            options.inherit(name, fd.as_raw_fd());
        }
    }
    Ok(open.into_iter().map(|(_, fd)| fd).collect())
}

/// A mount of the host in a container: its place there, as config.json has it.
pub fn name(target: &ContainerPath) -> String {
    format!("/{target}")
}

/// The trees of the host in a plan, in its order: where each goes, and whether with all below it.
pub fn trees(plan: &Plan<HostTree>) -> impl Iterator<Item = (&ContainerPath, bool)> {
    let mounts = plan.mounts.iter().filter_map(|mount| match &mount.source {
        Source::Tree(tree) => Some((&mount.target, tree.recursive)),
        Source::New(_) | Source::Remount { .. } | Source::Link(_) => None,
    });
    let nodes = plan.nodes.iter().filter_map(|node| match node {
        Node::Bound { path, .. } => Some((path, false)),
        Node::Device(_) | Node::Link { .. } => None,
    });
    mounts.chain(nodes)
}

/// How CRIU ends the one of the two paths that it writes into one text for each mount, `mnt[PATH]:PATH`, and looks for by its
/// beginning: in a path it makes one mount pass for another (CVE-2026-119614). An image chooses where links lead.
const END: &str = "]:";

/// Tells CRIU of a mount: for a dump by its place and its name, for a restore the other way round.
fn external_mount(options: &mut Options, key: &str, value: &str) -> Result<()> {
    for path in [key, value] {
        if path.contains(END) {
            bail!(
                "a mount at {path:?}: criu takes {END:?} for the end of its path: mount it elsewhere"
            );
        }
    }
    options.external_mount(key, value);
    Ok(())
}

/// Tells a dump which mounts of process `pid` are the host's.
///
/// # Errors
///
/// The process has ended, or a mount's place can not be found, or is one that CRIU would not tell from another.
pub fn dump_mounts(plan: &Plan<HostTree>, pid: i32, options: &mut Options) -> Result<()> {
    let path = format!("/proc/{pid}/root");
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(&path, flags, rustix::fs::Mode::empty());
    let root = root.call(|| format!("open({path:?})"))?;
    let inside = Inside(Root::new(root.as_fd()));
    let table = format!("/proc/{pid}/mountinfo");
    let table = std::fs::read(&table).with_context(|| format!("read({table:?})"))?;
    let table = String::from_utf8_lossy(&table);
    let mut known = Vec::new();
    for (target, recursive) in trees(plan) {
        // One that another mount has hidden is found by nobody, and by CRIU neither.
        if let Some((place, _)) = inside.find(target)? {
            known.push((place, name(target), recursive));
        }
    }
    for (place, name, recursive) in &known {
        external_mount(options, place, name)?;
        let below = mount_points_below(&table, place);
        for point in below.iter().filter(|_| *recursive) {
            if !known.iter().any(|(other, _, _)| other == point) {
                let name = format!("{name}{}", &point[place.len()..]);
                external_mount(options, point, &name)?;
            }
        }
    }
    for path in &plan.masked_paths {
        if let Some((place, FileType::CharacterDevice)) = inside.find(path)? {
            external_mount(options, &place, NULL)?;
        }
    }
    Ok(())
}

/// Tells a restore where the mounts of the host are, whose names and places are these.
///
/// # Errors
///
/// A path that CRIU would not tell from another.
pub fn restore_mounts(mounts: &[(String, String)], options: &mut Options) -> Result<()> {
    let mut mounts = mounts.iter();
    mounts.try_for_each(|(name, place)| external_mount(options, name, place))
}

/// The inside of a container, looked at from the host.
struct Inside<'a>(Root<'a>);

impl Inside<'_> {
    /// Where a path leads to, without links, and what is there; None for nothing.
    fn find(&self, path: &ContainerPath) -> Result<Option<(String, FileType)>> {
        let found = match self.0.open(path, OFlags::PATH) {
            Ok(found) => found,
            Err(error) if matches!(error.errno, Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        // In another mount namespace the kernel names a file from that one's root on.
        let link = format!("/proc/self/fd/{}", found.as_raw_fd());
        let place = std::fs::read_link(&link).with_context(|| format!("readlink({link:?})"))?;
        let place = Path::to_str(&place).with_context(|| format!("{place:?} is not UTF-8"))?;
        let stat = rustix::fs::fstat(&found).call(|| format!("fstat({place:?})"))?;
        Ok(Some((
            place.to_owned(),
            FileType::from_raw_mode(stat.st_mode),
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_criu_would_take_for_two_is_refused() {
        let told = |name: &str, place: &str| {
            let mut options = Options::default();
            let told = restore_mounts(&[(name.to_owned(), place.to_owned())], &mut options);
            told.map(|()| options).map_err(|error| error.to_string())
        };
        let mut plain = Options::default();
        plain.external_mount("/da]ta:", "/a[b]/c:d");
        assert_eq!(told("/da]ta:", "/a[b]/c:d"), Ok(plain));
        let words =
            r#"a mount at "/x]:/etc": criu takes "]:" for the end of its path: mount it elsewhere"#;
        assert_eq!(told("/x]:/etc", "/a"), Err(words.to_owned()));
        assert_eq!(told("/a", "/x]:/etc"), Err(words.to_owned()));
    }
}
