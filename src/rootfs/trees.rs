//! Opens what the plan takes from the host, as detached mounts with their attributes.
//!
//! Runs in the runtime, with the host's privileges and in the host's mount namespace, before the
//! clone: init in a user namespace could not reach every source, and nothing that it does later
//! depends on a path of the host.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{FileType, Mode, OFlags};

use super::{Entry, HostTree, IdMap, Mount, Node, OpenTree, Plan, Propagation, Source};
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
            Entry::Pivot | Entry::Move => open_root(self.root, host, inheritance)?,
            Entry::Chroot => open_in_place(&self.root, inheritance)?,
        };
        Ok(Plan {
            root,
            entry: self.entry,
            host_propagation: self.host_propagation,
            mounts,
            nodes,
            propagation: self.propagation,
            read_only_paths: self.read_only_paths,
            masked_paths: self.masked_paths,
            read_only: self.read_only,
        })
    }
}

fn open_mount(
    mount: Mount<HostTree>,
    open: &mut impl FnMut(HostTree) -> Result<OpenTree>,
) -> Result<Mount<OpenTree>> {
    let source = match mount.source {
        Source::Tree(tree) => Source::Tree(open(tree)?),
        Source::New(new) => Source::New(new),
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
        Node::Device {
            path,
            kind,
            major,
            minor,
            mode,
            uid,
            gid,
        } => Node::Device {
            path,
            kind,
            major,
            minor,
            mode,
            uid,
            gid,
        },
        Node::Link { path, target } => Node::Link { path, target },
    })
}

fn open_tree(tree: HostTree, host: Propagation, inheritance: &mut Inheritance) -> Result<OpenTree> {
    let context = || tree.json_path.clone();
    let fd = copy(&tree).with_context(context)?;
    if host.kind != libc::MS_SHARED {
        mount::set_propagation(fd.as_fd(), host.kind, true).with_context(context)?;
    }
    change(fd.as_fd(), tree.attributes, false).with_context(context)?;
    change(fd.as_fd(), tree.recursive_attributes, true).with_context(context)?;
    if let Some(id_map) = &tree.id_map {
        let namespace = mapped_namespace(id_map).with_context(context)?;
        mount::map_ids(fd.as_fd(), namespace.as_fd(), id_map.recursive).with_context(context)?;
    }
    let directory = is_directory(fd.as_fd()).with_context(context)?;
    Ok(OpenTree {
        fd: inheritance.give(fd),
        directory,
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
    Ok(OpenTree {
        fd: inheritance.give(fd),
        directory: true,
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
    })
}

fn copy(tree: &HostTree) -> Result<OwnedFd> {
    let path = tree
        .path
        .to_str()
        .with_context(|| format!("\"{}\" is not UTF-8", tree.path.display()))?;
    Ok(mount::copy_tree(rustix::fs::CWD, path, tree.recursive)?)
}

fn change(fd: BorrowedFd<'_>, attributes: Attributes, recursive: bool) -> Result<()> {
    if !attributes.is_empty() {
        mount::set_attributes(fd, attributes, recursive)?;
    }
    Ok(())
}

fn is_directory(fd: BorrowedFd<'_>) -> Result<bool> {
    let stat = rustix::fs::fstat(fd)?;
    Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

/// A user namespace with these mappings, which mount_setattr(2) takes them from. Its only process
/// waits until the namespace has been opened, and ends.
fn mapped_namespace(id_map: &IdMap) -> Result<OwnedFd> {
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
            let namespace = write_maps(Path::new(&folder), id_map);
            drop(release);
            rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty())?;
            namespace
        }
    }
}

fn write_maps(folder: &Path, id_map: &IdMap) -> Result<OwnedFd> {
    std::fs::write(folder.join("uid_map"), &id_map.uid_map)
        .with_context(|| format!("uidMappings {:?}", id_map.uid_map))?;
    std::fs::write(folder.join("gid_map"), &id_map.gid_map)
        .with_context(|| format!("gidMappings {:?}", id_map.gid_map))?;
    let namespace = File::open(folder.join("ns/user")).context("open(ns/user)")?;
    Ok(namespace.into())
}
