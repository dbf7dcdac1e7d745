//! Prints the plan, one step per line, with the words of the table of options.

use std::fmt;

use super::words::ACCESS_TIME;
use crate::rootfs::options::{Effect, MOUNT_OPTIONS};
use crate::rootfs::{Device, HostTree, Mount, Node, Plan, Source};
use crate::sys::mount::Attributes;

impl fmt::Display for Plan<HostTree> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "root   {} by {:?}", self.root.path.display(), self.entry)?;
        for mount in &self.mounts {
            writeln!(f, "{mount}")?;
        }
        for node in &self.nodes {
            writeln!(f, "{node}")?;
        }
        for path in &self.read_only_paths {
            writeln!(f, "ro     {path}")?;
        }
        for path in &self.masked_paths {
            writeln!(f, "mask   {path}")?;
        }
        if self.read_only {
            writeln!(f, "ro     .")
        } else {
            Ok(())
        }
    }
}

impl fmt::Display for Mount<HostTree> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Source::Tree(tree) => {
                let kind = if tree.recursive { "rbind" } else { "bind" };
                write!(f, "{kind:<6} {} -> {}", tree.path.display(), self.target)?;
                write_attributes(f, tree.attributes, Effect::Set)?;
                write_attributes(f, tree.recursive_attributes, Effect::SetAll)?;
                if tree.id_map.is_some() {
                    f.write_str(" idmap")?
                }
            }
            Source::New(new) => {
                let source = new.source.as_deref().unwrap_or("-");
                write!(f, "{:<6} {source} -> {}", new.fstype, self.target)?;
                write_attributes(f, new.attributes, Effect::Set)?;
                new.options
                    .iter()
                    .try_for_each(|option| write!(f, " {option}"))?;
                if let Some(label) = &new.root_label {
                    write!(f, " label={label}")?;
                }
                if new.copy_up {
                    f.write_str(" tmpcopyup")?
                }
            }
            Source::Link(text) => write!(f, "link   {text} -> {}", self.target)?,
            Source::Remount {
                attributes,
                options,
            } => {
                write!(f, "remount -> {}", self.target)?;
                write_attributes(f, *attributes, Effect::Set)?;
                options
                    .iter()
                    .try_for_each(|option| write!(f, " {option}"))?;
            }
        }
        for propagation in &self.propagation {
            write_word(
                f,
                Effect::Propagation(propagation.kind, propagation.recursive),
            )?;
        }
        Ok(())
    }
}

/// The words of the table that have these bits.
fn write_attributes(
    f: &mut fmt::Formatter<'_>,
    attributes: Attributes,
    word: impl Fn(u64) -> Effect,
) -> fmt::Result {
    let recursive = matches!(word(0), Effect::SetAll(_));
    for bit in (0..u64::BITS).map(|b| 1 << b) {
        let time = bit & ACCESS_TIME != 0;
        let cleared = recursive && attributes.clear & bit != 0 && !time;
        let effect = match (attributes.set & bit != 0, time, cleared) {
            (true, false, _) => word(bit),
            (true, true, _) if recursive => Effect::AccessTimeAll(bit),
            (true, true, _) => Effect::AccessTime(bit),
            (false, _, true) => Effect::ClearAll(bit),
            (false, _, false) => continue,
        };
        write_word(f, effect)?;
    }
    Ok(())
}

fn write_word(f: &mut fmt::Formatter<'_>, effect: Effect) -> fmt::Result {
    match MOUNT_OPTIONS.iter().find(|(_, e)| *e == effect) {
        Some((name, _)) => write!(f, " {name}"),
        None => Ok(()),
    }
}

impl fmt::Display for Node<HostTree> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Node::Device(device) => {
                let Device { path, kind, .. } = device;
                let (major, minor, mode) = (device.major, device.minor, device.mode);
                let (uid, gid) = (device.uid, device.gid);
                write!(
                    f,
                    "mknod  {path} {kind} {major}:{minor} {mode:#o} {uid}:{gid}"
                )
            }
            Node::Bound { path, tree } => write!(f, "bind   {} -> {path}", tree.path.display()),
            Node::Link { path, target } => write!(f, "link   {path} -> {target}"),
        }
    }
}
