//! Who may divide a container's cgroup further: a systemd inside, as a user other than root.
//!
//! The specification ("Cgroup ownership"): the cgroup is given to the container's user if it has
//! a cgroup namespace of its own and mounts the cgroup file system writable, and then only the
//! directory and the files that the kernel lists for this purpose.

use std::os::fd::BorrowedFd;
use std::path::Path;

use oci_spec::runtime::{Linux, LinuxNamespaceType, Mount, Spec};
use rustix::fs::{AtFlags, Uid};

use crate::sys::Errno;

/// The files to give away, a name per line (Linux 4.15).
const DELEGATE: &str = "/sys/kernel/cgroup/delegate";
/// The same where the kernel has no list.
const FALLBACK: &str = "cgroup.procs\ncgroup.subtree_control\ncgroup.threads";

/// The host's id of the user to whom the cgroup goes; None when it stays with root.
pub(super) fn plan(spec: &Spec) -> Option<u32> {
    let linux = spec.linux().as_ref()?;
    let namespace = |kind| {
        linux
            .namespaces()
            .iter()
            .flatten()
            .find(move |namespace| namespace.typ() == kind)
    };
    let own_namespace = namespace(LinuxNamespaceType::Cgroup).is_some_and(|n| n.path().is_none());
    let writable = spec.mounts().iter().flatten().any(is_writable_cgroup_mount);
    if !own_namespace || !writable {
        return None;
    }
    let user = spec
        .process()
        .as_ref()
        .map_or(0, |process| process.user().uid());
    let owner = match namespace(LinuxNamespaceType::User) {
        None => Some(user),
        Some(_) => mapped(linux, user), // without maps here, as of a joined namespace: nobody
    };
    owner.filter(|&owner| owner != 0)
}

/// The host's id of the container's root; None when it is root there too, or unknown as in a user namespace
/// that is joined.
pub(super) fn of_root(spec: &Spec) -> Option<u32> {
    let linux = spec.linux().as_ref()?;
    let user = LinuxNamespaceType::User;
    let in_user_namespace = linux.namespaces().iter().flatten().any(|n| n.typ() == user);
    let owner = in_user_namespace.then(|| mapped(linux, 0)).flatten();
    owner.filter(|&owner| owner != 0)
}

fn is_writable_cgroup_mount(mount: &Mount) -> bool {
    mount.source().as_deref() == Some(Path::new("cgroup"))
        && mount
            .destination()
            .components()
            .eq(Path::new("/sys/fs/cgroup").components())
        && !mount
            .options()
            .iter()
            .flatten()
            .any(|option| option == "ro")
}

/// The host's id for a user id inside.
fn mapped(linux: &Linux, user: u32) -> Option<u32> {
    linux.uid_mappings().iter().flatten().find_map(|map| {
        let offset = user
            .checked_sub(map.container_id())
            .filter(|&offset| offset < map.size())?;
        map.host_id().checked_add(offset)
    })
}

/// Gives the cgroup's directory and its files for division to user `owner`.
pub(super) fn give(directory: BorrowedFd<'_>, owner: u32) -> Result<(), Errno> {
    let owner = Some(Uid::from_raw(owner));
    rustix::fs::fchown(directory, owner, None)?;
    let list = std::fs::read_to_string(DELEGATE).unwrap_or_else(|_no_list| FALLBACK.to_owned());
    for file in list.lines().filter(|line| !line.is_empty()) {
        match rustix::fs::chownat(directory, file, owner, None, AtFlags::empty()) {
            // The list is the kernel's, whatever controllers this cgroup has.
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(namespaces: &str, options: &str) -> Option<u32> {
        let json = format!(
            r#"{{"ociVersion": "1.3.0", "root": {{"path": "rootfs"}},
            "process": {{"cwd": "/", "user": {{"uid": 5, "gid": 0}}}},
            "mounts": [{{"source": "cgroup", "type": "cgroup", "destination": "/sys/fs/cgroup/",
                "options": {options}}}],
            "linux": {{"namespaces": {namespaces},
                "uidMappings": [{{"containerID": 0, "hostID": 100000, "size": 10}}]}}}}"#
        );
        plan(&serde_json::from_str(&json).unwrap())
    }

    #[test]
    fn a_writable_cgroup_of_its_own_belongs_to_the_containers_user() {
        let both = r#"[{"type": "cgroup"}, {"type": "user"}]"#;
        assert_eq!(owner(both, r#"["nosuid"]"#), Some(100_005));
        assert_eq!(owner(r#"[{"type": "cgroup"}]"#, "[]"), Some(5));
    }

    #[test]
    fn a_shared_or_read_only_cgroup_stays_with_root() {
        assert_eq!(owner(r#"[{"type": "user"}]"#, "[]"), None);
        assert_eq!(
            owner(r#"[{"type": "cgroup", "path": "/proc/1/ns/cgroup"}]"#, "[]"),
            None
        );
        assert_eq!(owner(r#"[{"type": "cgroup"}]"#, r#"["ro"]"#), None);
    }
}
