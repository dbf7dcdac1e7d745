//! Opens what the plan takes from the host, as detached mounts with their attributes.
//!
//! Runs in the runtime, with the host's privileges and in the host's mount namespace, before the
//! clone: init in a user namespace could not reach every source, and nothing that it does later
//! depends on a path of the host. A runtime that may not mount on the host has a copy of itself run it
//! inside the container's user namespace, when that is there, with a copy of the host's mounts.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{FileType, Mode, OFlags};

use super::{Entry, HostTree, Ids, Mount, Node, OpenTree, Plan, Propagation, Source};
use crate::sys::Errno;
use crate::sys::fd::Inheritance;
use crate::sys::mount::{self, Attributes};
use crate::sys::process::{self, CloneRequest, Cloned};

impl Plan<HostTree> {
    /// The plan with every tree of the host opened and left to init.
    ///
    /// # Errors
    ///
    /// The tree that could not be opened: its JSON path, and the call.
    pub fn open(self, inheritance: &mut Inheritance) -> Result<Plan<OpenTree>> {
        // Mounts of the container must not show up on the host through a copy that is shared.
        let default = Propagation {
            kind: libc::MS_SLAVE,
            recursive: true,
        };
        let host = self.host_propagation.unwrap_or(default);
        let mut open = |tree: HostTree| open_tree(tree, host, inheritance);
        let mounts = self
            .mounts
            .into_iter()
            .map(|m| open_mount(m, &mut open))
            .collect::<Result<_>>()?;
        let nodes = self
            .nodes
            .into_iter()
            .map(|n| open_node(n, &mut open))
            .collect::<Result<_>>()?;
        let root = match self.entry {
            Entry::Pivot | Entry::Move | Entry::Cover => open_root(self.root, host, inheritance)?,
            Entry::Chroot => open_in_place(&self.root, inheritance)?,
        };
        let hidden = match self.entry {
            Entry::Move => revealing_mounts().context("/proc/self/mountinfo")?,
            Entry::Pivot | Entry::Cover | Entry::Chroot => Vec::new(),
        };
        Ok(Plan {
            root,
            entry: self.entry,
            hidden,
            host_propagation: self.host_propagation,
            mounts,
            nodes,
            propagation: self.propagation,
            read_only_paths: self.read_only_paths,
            masked_paths: self.masked_paths,
            label: self.label,
            read_only: self.read_only,
        })
    }
}

pub(super) fn open_mount(
    mount: Mount<HostTree>,
    open: &mut impl FnMut(HostTree) -> Result<OpenTree>,
) -> Result<Mount<OpenTree>> {
    let source = match mount.source {
        Source::Tree(tree) => Source::Tree(open(tree)?),
        Source::New(new) => Source::New(new),
        Source::Link(text) => Source::Link(text),
        Source::Remount {
            attributes,
            options,
        } => Source::Remount {
            attributes,
            options,
        },
    };
    Ok(Mount {
        target: mount.target,
        source,
        propagation: mount.propagation,
    })
}

fn open_node(
    node: Node<HostTree>,
    open: &mut impl FnMut(HostTree) -> Result<OpenTree>,
) -> Result<Node<OpenTree>> {
    Ok(match node {
        Node::Bound { path, tree } => Node::Bound {
            path,
            tree: open(tree)?,
        },
        Node::Device(device) => Node::Device(device),
        Node::Link { path, target } => Node::Link { path, target },
    })
}

pub(super) fn open_tree(
    tree: HostTree,
    host: Propagation,
    inheritance: &mut Inheritance,
) -> Result<OpenTree> {
    let context = || tree.json_path.clone();
    let fd = copy(&tree).with_context(context)?;
    if host.kind != libc::MS_SHARED {
        mount::set_propagation(fd.as_fd(), host.kind, true).with_context(context)?;
    }
    change_top(fd.as_fd(), &tree).with_context(context)?;
    if !tree.recursive_attributes.is_empty() {
        mount::set_attributes(fd.as_fd(), tree.recursive_attributes, true).with_context(context)?;
    }
    if let Some(id_map) = &tree.id_map {
        let namespace = namespace(&id_map.ids).with_context(context)?;
        mount::map_ids(fd.as_fd(), namespace.as_fd(), id_map.recursive).with_context(context)?;
    }
    let directory = is_directory(fd.as_fd()).with_context(context)?;
    Ok(OpenTree {
        fd: inheritance.give(fd),
        directory,
        onto_link: tree.onto_link,
    })
}

/// The root: its own mount is never shared, whatever `rootfsPropagation` says of the rest.
fn open_root(tree: HostTree, host: Propagation, inheritance: &mut Inheritance) -> Result<OpenTree> {
    let fd = copy(&tree).context("root.path")?;
    let (kind, recursive) = match host.kind {
        libc::MS_SHARED => (libc::MS_PRIVATE, false),
        kind => (kind, true),
    };
    mount::set_propagation(fd.as_fd(), kind, recursive).context("root.path")?;
    if !tree.recursive_attributes.is_empty() {
        mount::set_attributes(fd.as_fd(), tree.recursive_attributes, true).context("root.path")?;
    }
    Ok(OpenTree {
        fd: inheritance.give(fd),
        directory: true,
        onto_link: false,
    })
}

/// The root as it is, without a mount of its own, for chroot(2) in a namespace of others.
fn open_in_place(tree: &HostTree, inheritance: &mut Inheritance) -> Result<OpenTree> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = rustix::fs::open(&tree.path, flags, Mode::empty())
        .with_context(|| format!("root.path: open(\"{}\")", tree.path.display()))?;
    Ok(OpenTree {
        fd: inheritance.give(fd),
        directory: true,
        onto_link: false,
    })
}

fn copy(tree: &HostTree) -> Result<OwnedFd> {
    let path = tree
        .path
        .to_str()
        .with_context(|| format!("\"{}\" is not UTF-8", tree.path.display()))?;
    Ok(match tree.link {
        true => mount::copy_link(path, tree.recursive)?,
        false => mount::copy_tree(rustix::fs::CWD, path, tree.recursive)?,
    })
}

/// Gives the topmost mount its attributes. One that comes from a more privileged namespace has
/// some locked: those stay, unless an option names them.
fn change_top(fd: BorrowedFd<'_>, tree: &HostTree) -> Result<()> {
    let named = tree.attributes;
    let all = Attributes {
        set: named.set,
        clear: named.clear | tree.lifted,
    };
    if all.is_empty() {
        return Ok(());
    }
    match mount::set_attributes(fd, all, false) {
        Err(error) if error.errno == Errno::PERM && tree.lifted != 0 => {
            Ok(mount::set_attributes(fd, named, false)?)
        }
        changed => Ok(changed?),
    }
}

fn is_directory(fd: BorrowedFd<'_>) -> Result<bool> {
    let stat = rustix::fs::fstat(fd)?;
    Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

/// The user namespace that maps the ids of a mount.
fn namespace(ids: &Ids) -> Result<OwnedFd> {
    match ids {
        Ids::Lines { uid_map, gid_map } => mapped_namespace(uid_map, gid_map),
        Ids::Of(path) => {
            let file = File::open(path).with_context(|| format!("open(\"{}\")", path.display()))?;
            Ok(file.into())
        }
    }
}

/// A user namespace with these mappings, which mount_setattr(2) takes them from. Its only process
/// waits until the namespace has been opened, and ends.
fn mapped_namespace(uid_map: &str, gid_map: &str) -> Result<OwnedFd> {
    let (wait, release) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let request = CloneRequest {
        namespaces: libc::CLONE_NEWUSER as u64,
        ..CloneRequest::default()
    };
    match process::clone(request)? {
        Cloned::Child => {
            drop(release);
            // Ends when the runtime closes its end, or dies.
            let _end = File::from(wait).read(&mut [0]);
            process::exit(0)
        }
        Cloned::Parent { pid, pidfd: _ } => {
            let folder = format!("/proc/{}", pid.as_raw_nonzero());
            let namespace = write_maps(Path::new(&folder), uid_map, gid_map);
            drop(release);
            rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty())?;
            namespace
        }
    }
}

fn write_maps(folder: &Path, uid_map: &str, gid_map: &str) -> Result<OwnedFd> {
    std::fs::write(folder.join("uid_map"), uid_map)
        .with_context(|| format!("uidMappings {uid_map:?}"))?;
    std::fs::write(folder.join("gid_map"), gid_map)
        .with_context(|| format!("gidMappings {gid_map:?}"))?;
    let namespace = File::open(folder.join("ns/user")).context("open(ns/user)")?;
    Ok(namespace.into())
}

/// Mount points of the host that show all of a proc or sysfs file system. Without pivot_root(2) they
/// stay in the container's namespace, and as long as they do the kernel lets a user namespace in
/// the container mount these file systems again without what masks them (`mount_too_revealing`).
fn revealing_mounts() -> Result<Vec<String>> {
    let table = std::fs::read_to_string("/proc/self/mountinfo")?;
    Ok(revealing(&table))
}

fn revealing(table: &str) -> Vec<String> {
    let point = |line: &str| {
        let (mount, file_system) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        let fstype = file_system.split(' ').next()?;
        let whole = root == "/" && (fstype == "proc" || fstype == "sysfs");
        whole.then(|| unescape(point))
    };
    table.lines().filter_map(point).collect()
}

/// Where something is mounted below `top`, by the text of a mountinfo file (proc(5)).
#[must_use]
pub fn mount_points_below(table: &str, top: &str) -> Vec<String> {
    let point = |line: &str| Some(unescape(line.split(' ').nth(4)?));
    let is_below = |point: &String| {
        let rest = point.strip_prefix(top.trim_end_matches('/'));
        rest.is_some_and(|rest| rest.len() > 1 && rest.starts_with('/'))
    };
    table.lines().filter_map(point).filter(is_below).collect()
}

/// The kernel writes space, tab, newline and backslash as three octal digits (proc(5)).
fn unescape(field: &str) -> String {
    let escapes = [
        ("\\040", " "),
        ("\\011", "\t"),
        ("\\012", "\n"),
        ("\\134", "\\"),
    ];
    let decode = |text: String, (code, plain): (&str, &str)| text.replace(code, plain);
    escapes.into_iter().fold(field.to_owned(), decode)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_that_show_all_of_proc_or_sysfs_are_found() {
        let table = "22 1 0:21 / /proc rw,relatime shared:5 - proc proc rw\n\
            23 1 0:22 / /sys rw - sysfs sysfs rw\n\
            24 1 0:21 /sys /mnt/part rw - proc proc ro\n\
            25 1 0:25 / /mnt/a\\040b\\134c rw - proc proc rw\n\
            26 1 0:26 / /tmp rw - tmpfs tmpfs rw\n";
        assert_eq!(revealing(table), ["/proc", "/sys", "/mnt/a b\\c"]);
    }

    #[test]
    fn mounts_below_a_place_are_found() {
        let table = "22 1 0:21 / / rw - ext4 /dev/vda rw\n\
            23 1 0:22 / /srv rw - tmpfs tmpfs rw\n\
            24 1 0:23 / /srv/a\\040b rw - tmpfs tmpfs rw\n\
            25 1 0:24 / /srv2 rw - tmpfs tmpfs rw\n";
        assert_eq!(mount_points_below(table, "/srv"), ["/srv/a b"]);
        assert_eq!(
            mount_points_below(table, "/"),
            ["/srv", "/srv/a b", "/srv2"]
        );
    }
}
