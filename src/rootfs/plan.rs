//! Decides every step on the file system, from config.json and nothing else.

use std::fmt;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxDevice, LinuxDeviceType, LinuxIdMapping, Spec};

use super::options::{Effect, effect};
use super::{
    Entry, HostTree, IdMap, MOUNT_OPTIONS, Mount, NewFileSystem, Node, Plan, Propagation, Source,
};
use crate::error::Problems;
use crate::sys::confined::ContainerPath;
use crate::sys::mount::Attributes;

/// What the plan depends on beside config.json.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The bundle's root on the host, absolute.
    pub rootfs: &'a Path,
    /// The container's cgroup on the host, absolute: what a `cgroup` mount shows when the cgroup
    /// namespace is the host's.
    pub cgroup: &'a Path,
    /// A mount namespace of the container's own.
    pub own_mount_namespace: bool,
    /// A user namespace other than the host's: devices are bound, not made.
    pub user_namespace: bool,
    /// A cgroup namespace other than the host's.
    pub cgroup_namespace: bool,
    /// `--no-pivot`.
    pub no_pivot: bool,
}

/// Access times are chosen, not added up: all bits of the choice are cleared first.
const ACCESS_TIME: u64 = libc::MOUNT_ATTR__ATIME;

impl Plan<HostTree> {
    /// The plan for `spec`. What can not be done is noted in `problems` with its JSON path.
    #[must_use]
    pub fn new(spec: &Spec, context: Context<'_>, problems: &mut Problems) -> Self {
        let linux = spec.linux().as_ref();
        let mounts: Vec<Mount<HostTree>> = spec
            .mounts()
            .iter()
            .flatten()
            .enumerate()
            .filter_map(|(i, mount)| mount_plan(i, mount, spec, context, problems))
            .collect();
        let paths = |paths: Option<&Vec<String>>| {
            paths
                .into_iter()
                .flatten()
                .map(|p| ContainerPath::new(p))
                .collect()
        };
        let propagation = linux
            .and_then(|l| l.rootfs_propagation().as_deref())
            .filter(|word| !word.is_empty())
            .and_then(|word| propagation(word, problems));
        let host = propagation.unwrap_or(Propagation {
            kind: libc::MS_SLAVE,
            recursive: true,
        });
        Plan {
            root: root_tree(context.rootfs),
            entry: match (context.own_mount_namespace, context.no_pivot) {
                (false, _) => Entry::Chroot,
                (true, true) => Entry::Move,
                (true, false) => Entry::Pivot,
            },
            host_propagation: context.own_mount_namespace.then_some(host),
            nodes: if dev_is_bound(&mounts) {
                Vec::new()
            } else {
                nodes(spec, context)
            },
            mounts,
            propagation,
            read_only_paths: paths(linux.and_then(|l| l.readonly_paths().as_ref())),
            masked_paths: paths(linux.and_then(|l| l.masked_paths().as_ref())),
            read_only: spec
                .root()
                .as_ref()
                .and_then(|r| r.readonly())
                .unwrap_or(false),
        }
    }
}

fn root_tree(rootfs: &Path) -> HostTree {
    HostTree {
        path: rootfs.to_path_buf(),
        recursive: true,
        attributes: Attributes::default(),
        recursive_attributes: Attributes::default(),
        id_map: None,
        json_path: "root.path".into(),
    }
}

/// `rootfsPropagation` as one of the propagation words of mount options.
fn propagation(word: &str, problems: &mut Problems) -> Option<Propagation> {
    match effect(word) {
        Some(Effect::Propagation(kind, recursive)) => Some(Propagation { kind, recursive }),
        _ => {
            let message = format!(
                "\"{word}\" is none of shared, slave, private, unbindable, \
                rshared, rslave, rprivate, runbindable"
            );
            problems.add("linux.rootfsPropagation", message);
            None
        }
    }
}

/// What the option words of one mount come to.
#[derive(Default)]
struct Words {
    attributes: Attributes,
    all: Attributes,
    propagation: Vec<Propagation>,
    file_system: Vec<String>,
    bind: Option<bool>,
    remount: bool,
    copy_up: bool,
    map_ids: Option<bool>,
}

impl Words {
    fn read(words: &[String]) -> Words {
        let mut sum = Words::default();
        for word in words {
            sum.add(word);
        }
        sum
    }

    fn add(&mut self, word: &str) {
        match effect(word) {
            None => self.file_system.push(word.to_owned()),
            Some(Effect::Nothing) => {}
            Some(Effect::Set(bit)) => self.attributes.set |= bit,
            Some(Effect::Unset(bit)) => self.attributes.set &= !bit,
            Some(Effect::AccessTime(bits)) => choose(&mut self.attributes, bits),
            Some(Effect::SetAll(bit)) => {
                self.all.set |= bit;
                self.all.clear &= !bit;
            }
            Some(Effect::ClearAll(bit)) => {
                self.all.clear |= bit;
                self.all.set &= !bit;
            }
            Some(Effect::AccessTimeAll(bits)) => choose(&mut self.all, bits),
            Some(Effect::FileSystem(name)) => self.file_system.push(name.to_owned()),
            Some(Effect::Bind(recursive)) => self.bind = Some(recursive),
            Some(Effect::Remount) => self.remount = true,
            Some(Effect::Propagation(kind, recursive)) => {
                self.propagation.push(Propagation { kind, recursive });
            }
            Some(Effect::CopyUp) => self.copy_up = true,
            Some(Effect::MapIds(recursive)) => self.map_ids = Some(recursive),
        }
    }

    /// Attributes of a mount that has nothing below it.
    fn together(&self) -> Attributes {
        let set = (self.attributes.set & !self.all.clear) | self.all.set;
        Attributes {
            set,
            clear: (self.attributes.clear | self.all.clear) & ACCESS_TIME,
        }
    }
}

fn choose(attributes: &mut Attributes, bits: u64) {
    attributes.set = (attributes.set & !ACCESS_TIME) | bits;
    attributes.clear |= ACCESS_TIME;
}

fn mount_plan(
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

/// A bound /dev brings its own nodes, which are the host's business.
fn dev_is_bound(mounts: &[Mount<HostTree>]) -> bool {
    mounts
        .iter()
        .any(|m| m.target.as_str() == "dev" && matches!(m.source, Source::Tree(_)))
}

/// Devices that every container has (config-linux.md, "Default Devices").
const DEFAULT_DEVICES: &[(&str, u32, u32)] = &[
    ("dev/null", 1, 3),
    ("dev/zero", 1, 5),
    ("dev/full", 1, 7),
    ("dev/tty", 5, 0),
    ("dev/random", 1, 8),
    ("dev/urandom", 1, 9),
];

/// Links that every container has (runtime-linux.md, "Dev symbolic links", and the pty master).
const DEFAULT_LINKS: &[(&str, &str)] = &[
    ("dev/fd", "/proc/self/fd"),
    ("dev/stdin", "/proc/self/fd/0"),
    ("dev/stdout", "/proc/self/fd/1"),
    ("dev/stderr", "/proc/self/fd/2"),
    ("dev/core", "/proc/kcore"),
    ("dev/ptmx", "pts/ptmx"),
];

fn nodes(spec: &Spec, context: Context<'_>) -> Vec<Node<HostTree>> {
    if !context.own_mount_namespace {
        return Vec::new(); // the tree is used as it is
    }
    let extra = spec.linux().as_ref().and_then(|l| l.devices().as_ref());
    let extra: Vec<&LinuxDevice> = extra.into_iter().flatten().collect();
    let named = |path: &str| {
        extra
            .iter()
            .any(|d| ContainerPath::new(&d.path().to_string_lossy()).as_str() == path)
    };
    let defaults = DEFAULT_DEVICES
        .iter()
        .filter(|(path, _, _)| !named(path))
        .map(|&(path, major, minor)| {
            if context.user_namespace {
                return bound(Path::new("/").join(path));
            }
            let path = ContainerPath::new(path);
            Node::Device {
                path,
                kind: 'c',
                major,
                minor,
                mode: 0o666,
                uid: 0,
                gid: 0,
            }
        });
    let extra_nodes = extra
        .iter()
        .map(|device| extra_node(device, context.user_namespace));
    let links = DEFAULT_LINKS.iter().map(|(path, target)| Node::Link {
        path: ContainerPath::new(path),
        target: (*target).into(),
    });
    defaults.chain(extra_nodes).chain(links).collect()
}

fn extra_node(device: &LinuxDevice, user_namespace: bool) -> Node<HostTree> {
    let kind = match device.typ() {
        LinuxDeviceType::B => 'b',
        LinuxDeviceType::P => 'p',
        LinuxDeviceType::A | LinuxDeviceType::C | LinuxDeviceType::U => 'c',
    };
    if user_namespace && kind != 'p' {
        return bound(device.path().clone());
    }
    Node::Device {
        path: ContainerPath::new(&device.path().to_string_lossy()),
        kind,
        major: device.major() as u32,
        minor: device.minor() as u32,
        mode: device.file_mode().unwrap_or(0o666) & 0o7777,
        uid: device.uid().unwrap_or(0),
        gid: device.gid().unwrap_or(0),
    }
}

fn bound(path: PathBuf) -> Node<HostTree> {
    Node::Bound {
        path: ContainerPath::new(&path.to_string_lossy()),
        tree: HostTree {
            json_path: "linux.devices".into(),
            recursive: false,
            ..root_tree(&path)
        },
    }
}

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
                if new.copy_up {
                    f.write_str(" tmpcopyup")?
                }
            }
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
            Node::Device {
                path,
                kind,
                major,
                minor,
                mode,
                uid,
                gid,
            } => {
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
