//! One entry of `mounts`, as one step.

use oci_spec::runtime::Spec;

use super::Context;
use super::ids::id_map;
use super::words::Words;
use crate::error::{self, Problems};
use crate::rootfs::{HostTree, Mount, NewFileSystem, Source};
use crate::sys::confined::ContainerPath;
use crate::sys::mount::Attributes;

/// The step for `mounts[index]`; None when it can not be made, which is noted in `problems`.
pub(super) fn plan(
    index: usize,
    mount: &oci_spec::runtime::Mount,
    spec: &Spec,
    context: Context<'_>,
    problems: &mut Problems,
) -> Option<Mount<HostTree>> {
    let json_path = format!("mounts[{index}]");
    let target = ContainerPath::new(&mount.destination().to_string_lossy());
    if target.is_root() {
        problems.add(
            format!("{json_path}.destination"),
            "must be below /, which is root.path",
        );
        return None;
    }
    let words = Words::read(mount.options().as_deref().unwrap_or(&[]));
    let fstype = mount.typ().as_deref().unwrap_or("");
    let mapped =
        words.map_ids.is_some() || mount.uid_mappings().is_some() || mount.gid_mappings().is_some();
    let bind = words.bind.or((fstype == "bind").then_some(false));
    if mapped && bind.is_none() {
        problems.add(json_path, "ids can be mapped on a bind mount only");
        return None;
    }
    if words.copy_up && (bind.is_some() || fstype != "tmpfs") {
        problems.add(
            format!("{json_path}.options"),
            "tmpcopyup needs a mount of type tmpfs",
        );
    }
    check_links(&json_path, &words, bind, problems);
    let propagation = words.propagation.clone();
    let link = link(&json_path, mount, (&words, bind), context, problems);
    let source = if let Some(text) = link {
        Source::Link(text)
    } else if words.remount {
        // With "bind" it concerns the mount alone (mount(8), "Remounting").
        let options = match words.bind {
            Some(_) => Vec::new(),
            None => words.file_system_changes(),
        };
        Source::Remount {
            attributes: words.remount(),
            options,
        }
    } else if let Some(recursive) = bind {
        let id_map = id_map(&json_path, mount, &words, (spec, context), problems);
        let mut tree = bind_tree(&json_path, mount, words, context, problems)?;
        tree.recursive = recursive;
        tree.id_map = id_map;
        Source::Tree(tree)
    } else if fstype == "cgroup" || fstype == "cgroup2" {
        cgroup(&json_path, mount, &target, words, context)
    } else if fstype.is_empty() || fstype == "none" {
        let message = "is needed: a file system type, or \"bind\" for a path of the host";
        problems.add(format!("{json_path}.type"), message);
        return None;
    } else {
        Source::New(new_file_system(fstype, name(mount), &target, words))
    };
    Some(Mount {
        target,
        source,
        propagation,
    })
}

/// What a new file system is called in the table of mounts, or made from.
fn name(mount: &oci_spec::runtime::Mount) -> Option<String> {
    let source = mount.source().as_ref();
    source.map(|source| source.to_string_lossy().into_owned())
}

fn new_file_system(
    fstype: &str,
    source: Option<String>,
    target: &ContainerPath,
    words: Words,
) -> NewFileSystem {
    let attributes = words.together();
    let read_only = attributes.set & libc::MOUNT_ATTR_RDONLY != 0;
    let mut options = words.file_system;
    if fstype == "tmpfs" {
        options.retain(|option| option != "acl"); // it has them in any case, and no word for it
    }
    // A device that can not be written to refuses a file system that is not read-only itself.
    if read_only && source.as_deref().is_some_and(|s| s.starts_with('/')) {
        options.push("ro".into());
    }
    NewFileSystem {
        fstype: fstype.into(),
        source,
        options,
        attributes,
        copy_up: words.copy_up,
        root_label: None,
        read_only_late: read_only && (fstype == "tmpfs" || target.as_str() == "dev"),
    }
}

/// In a cgroup namespace a fresh mount shows the container's own part of the tree; elsewhere the
/// host's whole tree is bound, in which /proc/self/cgroup names the container's place.
fn cgroup(
    json_path: &str,
    mount: &oci_spec::runtime::Mount,
    target: &ContainerPath,
    words: Words,
    context: Context<'_>,
) -> Source<HostTree> {
    if context.cgroup_namespace {
        return Source::New(new_file_system("cgroup2", name(mount), target, words));
    }
    Source::Tree(HostTree {
        path: context.cgroup_tree.to_path_buf(),
        link: false,
        onto_link: false,
        recursive: false,
        attributes: words.together(),
        lifted: 0,
        recursive_attributes: Attributes::default(),
        id_map: None,
        json_path: format!("{json_path}.type"),
    })
}

/// The tree of a bind mount; a relative source is one of the bundle (config.md, "Mounts").
fn bind_tree(
    json_path: &str,
    mount: &oci_spec::runtime::Mount,
    words: Words,
    context: Context<'_>,
    problems: &mut Problems,
) -> Option<HostTree> {
    // As mount(2), which ignores what is for a file system when it binds.
    for word in &words.file_system {
        let message = format!("\"{word}\" has no effect on a bind mount");
        error::warn(&format!("{json_path}.options: {message}"));
    }
    let source_path = format!("{json_path}.source");
    let Some(source) = mount.source() else {
        problems.add(source_path, "is required for a bind mount");
        return None;
    };
    let path = context.bundle.join(source);
    let found = match words.source_link {
        true => path.symlink_metadata(),
        false => path.metadata(),
    };
    if found.is_err() {
        let message = format!("\"{}\" does not exist on the host", path.display());
        problems.add(source_path, message);
        return None;
    }
    Some(HostTree {
        path,
        link: words.source_link,
        onto_link: words.target_link,
        recursive: false,
        attributes: words.attributes,
        lifted: words.lifted(),
        recursive_attributes: words.all,
        id_map: None,
        json_path: source_path,
    })
}

/// What the options about symbolic links need, and that they do not contradict each other.
fn check_links(json_path: &str, words: &Words, bind: Option<bool>, problems: &mut Problems) {
    for (asked, word) in [
        (words.source_link, "src-nofollow"),
        (words.target_link, "dest-nofollow"),
    ] {
        let wrong = if asked && (bind.is_none() || words.remount) {
            "needs a bind mount"
        } else if asked && words.copy_link {
            "and copy-symlink exclude each other: a link is mounted, or made again"
        } else {
            continue;
        };
        problems.add(format!("{json_path}.options"), format!("{word} {wrong}"));
    }
}

/// What the source says, where it is a symbolic link that is to be copied. It is read once, here: what it
/// leads to is the container's business alone.
fn link(
    json_path: &str,
    mount: &oci_spec::runtime::Mount,
    (words, bind): (&Words, Option<bool>),
    context: Context<'_>,
    problems: &mut Problems,
) -> Option<String> {
    if !words.copy_link {
        return None;
    }
    if bind.is_none() || words.remount {
        let message = "copy-symlink needs a bind mount: a link of the host is its source";
        problems.add(format!("{json_path}.options"), message);
        return None;
    }
    let path = context.bundle.join(mount.source().as_ref()?);
    // What is no link, or can not be asked, is for the bind mount to find.
    let text = std::fs::read_link(path).ok()?;
    let text = text.into_os_string().into_string();
    text.map_err(|text| {
        let message = format!("the link says {text:?}, which is not UTF-8");
        problems.add(format!("{json_path}.source"), message);
    })
    .ok()
}
