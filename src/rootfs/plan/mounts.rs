//! One entry of `mounts`, as one step.

use oci_spec::runtime::{LinuxIdMapping, Spec};

use super::Context;
use super::words::Words;
use crate::error::Problems;
use crate::rootfs::{HostTree, IdMap, Mount, NewFileSystem, Source};
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
    let propagation = words.propagation.clone();
    let source = if words.remount {
        let options = remount_options(&words);
        Source::Remount {
            attributes: words.together(),
            options,
        }
    } else if let Some(recursive) = bind {
        if words.copy_up {
            problems.add(
                format!("{json_path}.options"),
                "tmpcopyup needs a mount of type tmpfs",
            );
        }
        Source::Tree(bind_tree(
            &json_path, mount, recursive, words, spec, problems,
        )?)
    } else if fstype == "cgroup" || fstype == "cgroup2" {
        cgroup(&json_path, mount, words, context)
    } else if fstype.is_empty() || fstype == "none" {
        let message = "is needed: a file system type, or \"bind\" for a path of the host";
        problems.add(format!("{json_path}.type"), message);
        return None;
    } else {
        if words.copy_up && fstype != "tmpfs" {
            problems.add(
                format!("{json_path}.options"),
                "tmpcopyup needs a mount of type tmpfs",
            );
        }
        let name = mount
            .source()
            .as_ref()
            .map(|s| s.to_string_lossy().into_owned());
        Source::New(new_file_system(fstype, name, words))
    };
    Some(Mount {
        target,
        source,
        propagation,
    })
}

/// A read-only remount concerns the mount; the rest of the words the file system.
fn remount_options(words: &Words) -> Vec<String> {
    if words.bind.is_some() {
        Vec::new()
    } else {
        words.file_system.clone()
    }
}

fn new_file_system(fstype: &str, source: Option<String>, words: Words) -> NewFileSystem {
    let attributes = words.together();
    let read_only = attributes.set & libc::MOUNT_ATTR_RDONLY != 0;
    let mut options = words.file_system;
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
        read_only_late: read_only && fstype == "tmpfs",
    }
}

/// The container's own part of the cgroup tree: a fresh mount shows it in a cgroup namespace;
/// elsewhere the directory is bound.
fn cgroup(
    json_path: &str,
    mount: &oci_spec::runtime::Mount,
    words: Words,
    context: Context<'_>,
) -> Source<HostTree> {
    if context.cgroup_namespace {
        let name = mount
            .source()
            .as_ref()
            .map(|s| s.to_string_lossy().into_owned());
        return Source::New(new_file_system("cgroup2", name, words));
    }
    Source::Tree(HostTree {
        path: context.cgroup.to_path_buf(),
        recursive: false,
        attributes: words.together(),
        recursive_attributes: Attributes::default(),
        id_map: None,
        json_path: format!("{json_path}.type"),
    })
}

fn bind_tree(
    json_path: &str,
    mount: &oci_spec::runtime::Mount,
    recursive: bool,
    words: Words,
    spec: &Spec,
    problems: &mut Problems,
) -> Option<HostTree> {
    for word in &words.file_system {
        let message = format!("\"{word}\" is no option of a bind mount");
        problems.add(format!("{json_path}.options"), message);
    }
    let source_path = format!("{json_path}.source");
    let Some(path) = mount.source().clone().filter(|p| p.is_absolute()) else {
        problems.add(
            source_path,
            "must be an absolute path of the host for a bind mount",
        );
        return None;
    };
    if !path.exists() {
        problems.add(
            source_path,
            format!("\"{}\" does not exist on the host", path.display()),
        );
        return None;
    }
    let id_map = id_map(json_path, mount, words.map_ids, spec, problems);
    let (attributes, recursive_attributes) = (words.attributes, words.all);
    Some(HostTree {
        path,
        recursive,
        attributes,
        recursive_attributes,
        id_map,
        json_path: source_path,
    })
}

/// The mount's own mappings, or the container's when an option asks for mapped ids.
fn id_map(
    json_path: &str,
    mount: &oci_spec::runtime::Mount,
    option: Option<bool>,
    spec: &Spec,
    problems: &mut Problems,
) -> Option<IdMap> {
    let linux = spec.linux().as_ref();
    let own = (mount.uid_mappings().as_ref(), mount.gid_mappings().as_ref());
    let container = (
        linux.and_then(|l| l.uid_mappings().as_ref()),
        linux.and_then(|l| l.gid_mappings().as_ref()),
    );
    let recursive = option.unwrap_or(false);
    match (own, option, container) {
        ((None, None), None, _) => None,
        ((Some(uids), Some(gids)), _, _) | ((None, None), Some(_), (Some(uids), Some(gids))) => {
            Some(IdMap {
                uid_map: map_lines(uids),
                gid_map: map_lines(gids),
                recursive,
            })
        }
        ((None, None), Some(_), _) => {
            let message = "idmap needs uidMappings and gidMappings of the mount or of linux";
            problems.add(format!("{json_path}.options"), message);
            None
        }
        ((uids, _), _, _) => {
            let missing = if uids.is_none() {
                "uidMappings"
            } else {
                "gidMappings"
            };
            problems.add(
                format!("{json_path}.{missing}"),
                "is needed beside the other mapping",
            );
            None
        }
    }
}

/// Lines of a uid_map or gid_map file (user_namespaces(7)).
fn map_lines(mappings: &[LinuxIdMapping]) -> String {
    mappings
        .iter()
        .map(|m| format!("{} {} {}\n", m.container_id(), m.host_id(), m.size()))
        .collect()
}
