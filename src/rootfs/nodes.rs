//! Makes devices and links inside the mounted root.

use alloc::format;
use alloc::vec::Vec;

use anyhow::Context as _;
use rustix::fs::{FileType, Mode, makedev};

use super::{Node, OpenTree, Prepared};
use crate::sys::confined::{self, Folder};
use crate::sys::fd::Inherited;

impl Prepared {
    /// Makes every node of the plan, in order.
    pub(super) fn make_nodes(
        &self,
        nodes: Vec<Node<OpenTree>>,
        inherited: &mut Inherited,
    ) -> anyhow::Result<()> {
        // Their modes are the ones asked for, from the moment they can be seen.
        let umask = rustix::process::umask(Mode::empty());
        let made = nodes
            .into_iter()
            .try_fold(None, |folder, node| self.make_node(node, folder, inherited));
        rustix::process::umask(umask);
        made.map(drop)
    }

    /// Makes one; `last` is the folder of the one before, the result this one's.
    fn make_node(
        &self,
        node: Node<OpenTree>,
        last: Option<Folder>,
        inherited: &mut Inherited,
    ) -> anyhow::Result<Option<Folder>> {
        match node {
            Node::Device(device) => {
                let path = device.path;
                let node = confined::Node {
                    kind: file_type(device.kind),
                    device: makedev(device.major, device.minor),
                    mode: device.mode,
                    uid: device.uid,
                    gid: device.gid,
                };
                let make = |folder: Folder| folder.make_node(&path, node).map(|()| folder);
                let made = self.root().folder_of(&path, last).and_then(make);
                made.map(Some)
                    .with_context(|| format!("device \"/{path}\""))
            }
            Node::Bound { path, tree } => {
                let bound = self.bind(tree, &path, inherited);
                bound
                    .map(|_mounted| None)
                    .with_context(|| format!("device \"/{path}\""))
            }
            Node::Link { path, target } => {
                let make = |folder: Folder| folder.make_link(&path, &target).map(|()| folder);
                let made = self.root().folder_of(&path, last).and_then(make);
                made.map(Some).with_context(|| format!("link \"/{path}\""))
            }
        }
    }
}

/// The node's kind; config.json was checked to hold nothing else than `c`, `u`, `b` and `p`.
fn file_type(kind: char) -> FileType {
    match kind {
        'b' => FileType::BlockDevice,
        'p' => FileType::Fifo,
        _ => FileType::CharacterDevice,
    }
}
