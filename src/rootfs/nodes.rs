//! Makes devices and links inside the mounted root.

use alloc::format;
use alloc::vec::Vec;

use anyhow::Context as _;
use rustix::fs::{FileType, makedev};

use super::{Node, OpenTree, Prepared};
use crate::sys::confined;

impl Prepared {
    /// Makes every node of the plan, in order.
    pub(super) fn make_nodes(&self, nodes: Vec<Node<OpenTree>>) -> anyhow::Result<()> {
        for node in nodes {
            match node {
                Node::Device {
                    path,
                    kind,
                    major,
                    minor,
                    mode,
                    uid,
                    gid,
                } => {
                    let kind = file_type(kind);
                    let device = makedev(major, minor);
                    let node = confined::Node {
                        kind,
                        device,
                        mode,
                        uid,
                        gid,
                    };
                    self.root()
                        .make_node(&path, node)
                        .with_context(|| format!("device \"/{path}\""))?;
                }
                Node::Bound { path, tree } => {
                    self.bind(tree, &path)
                        .with_context(|| format!("device \"/{path}\""))?;
                }
                Node::Link { path, target } => {
                    self.root()
                        .make_link(&path, &target)
                        .with_context(|| format!("link \"/{path}\""))?;
                }
            }
        }
        Ok(())
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
