//! The parts of a container's file system, side by side, for CRIU to put together.
//!
//! Mount points are made as init makes them, by mounting in the order of the plan; then everything is
//! taken apart again: the root keeps what was made in it.

use anyhow::{Context as _, Result};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};

use super::{Node, OpenTree, Plan, Prepared, Source};
use crate::sys::confined::{ContainerPath, Missing};
use crate::sys::fd::Inherited;
use crate::sys::mount::{self, NewFileSystem};

/// What lies on the root for a while.
enum Layer {
    /// A tree of the host, and where it goes.
    Tree(OwnedFd, usize),
    /// An empty file system for one that CRIU makes and fills.
    StandIn(OwnedFd),
}

impl Plan<OpenTree> {
    /// Attaches the root at `root`, makes the mount points of the plan in it, and attaches the trees of
    /// the host where `place` says: called for each with its number in the order of mounts and
    /// then devices, and whether it is a directory. To be called in a private mount namespace, with
    /// the process' own descriptors as the working directory ([`mount::detach_open`]).
    ///
    /// # Errors
    ///
    /// The mount point that can not be made, and the call.
    pub fn lay_out(
        self,
        root: BorrowedFd<'_>,
        inherited: &mut Inherited,
        place: &dyn Fn(usize, bool) -> Result<OwnedFd>,
    ) -> Result<()> {
        let tree = inherited.claim(self.root.fd)?;
        mount::attach(tree.as_fd(), root).context("rootfs")?;
        let prepared = Prepared {
            root: tree,
            read_only_late: Vec::new(),
        };
        let mut layers = Vec::new();
        let mut places = Vec::new();
        let mut bind = |tree: OpenTree, target: &ContainerPath| {
            places.push(place(places.len(), tree.directory)?);
            let mounted = prepared.bind(tree, target, inherited)?;
            Ok::<_, anyhow::Error>(Layer::Tree(mounted, places.len() - 1))
        };
        for (i, mount) in self.mounts.into_iter().enumerate() {
            let label = format!("mounts[{i}], at \"/{}\"", mount.target);
            match mount.source {
                Source::Tree(tree) => layers.push(bind(tree, &mount.target).context(label)?),
                Source::New(_) => layers.push(stand_in(&prepared, &mount.target).context(label)?),
                Source::Link(text) => prepared.link(&mount.target, &text).context(label)?,
                Source::Remount { .. } => {}
            }
        }
        for node in self.nodes {
            if let Node::Bound { path, tree } = node {
                let label = format!("device \"/{path}\"");
                layers.push(bind(tree, &path).context(label)?);
            }
        }
        for layer in layers.into_iter().rev() {
            match layer {
                Layer::Tree(tree, number) => mount::attach(tree.as_fd(), places[number].as_fd())?,
                Layer::StandIn(mounted) => mount::detach_open(mounted.as_fd())?,
            }
        }
        Ok(())
    }
}

fn stand_in(prepared: &Prepared, target: &ContainerPath) -> Result<Layer> {
    let place = prepared.root().ensure(target, Missing::Directory(0o755))?;
    let mounted = NewFileSystem::open("tmpfs")?.mount(0)?;
    mount::attach(mounted.as_fd(), place.as_fd())?;
    Ok(Layer::StandIn(mounted))
}
