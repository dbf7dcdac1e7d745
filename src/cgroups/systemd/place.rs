//! Where this process itself runs, in systemd's terms: in a unit whose cgroup was handed over to it?
//!
//! In such a unit no word to systemd is needed: below it, cgroups belong to whoever it was handed
//! over to. A container's cgroup is made there by the file system alone if all of this holds:
//!
//! - the configuration names no slice: a slice that is named is where the container is wanted;
//! - the innermost unit around this process is a service or scope with `Delegate=`, but not a
//!   user's own systemd, which manages what is below it; systemd marks its cgroup, and a user's, which
//!   does not, puts processes below the unit's cgroup for no other reason;
//! - nothing runs in the unit's cgroup itself (`DelegateSubgroup=`, or its program did the like):
//!   otherwise no controller could be enabled below it.

use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::Access;

use crate::cgroups::{Hierarchy, files, tree};
use crate::sys::Call;

/// Set by systemd on the cgroup of a unit with `Delegate=`: since version 251, and before that one
/// that only root can read.
const MARKS: [&str; 2] = ["user.delegate", "trusted.delegate"];

/// The cgroup of the unit around this process if containers can be made below it.
///
/// # Errors
///
/// /proc/self/cgroup can not be read.
pub(super) fn delegated_unit(hierarchy: &Hierarchy) -> Result<Option<PathBuf>> {
    let own = cgroup_of("self")?;
    let unit = innermost_unit(&own).filter(|unit| is_handed_over(hierarchy, unit, &own));
    Ok(unit.map(Path::to_owned))
}

/// The cgroup of a process, below the hierarchy's root.
///
/// # Errors
///
/// There is no such process.
pub(in crate::cgroups) fn cgroup_of(process: &str) -> Result<PathBuf> {
    let file = format!("/proc/{process}/cgroup");
    let text = std::fs::read_to_string(&file).with_context(|| file.clone())?;
    let line = text.lines().find_map(|line| line.strip_prefix("0::/"));
    line.map(PathBuf::from)
        .with_context(|| format!("{file} names no cgroup of version 2"))
}

fn innermost_unit(cgroup: &Path) -> Option<&Path> {
    let is = |path: &&Path, suffixes: &[&str]| {
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        suffixes.iter().any(|suffix| name.ends_with(suffix)) && !name.starts_with("user@")
    };
    cgroup
        .ancestors()
        .find(|path| is(path, &[".service", ".scope", ".slice"]) || is_users_systemd(path))
        .filter(|path| is(path, &[".service", ".scope"]))
}

fn is_users_systemd(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| name.starts_with("user@") && name.ends_with(".service"))
}

fn is_handed_over(hierarchy: &Hierarchy, unit: &Path, own: &Path) -> bool {
    let place = hierarchy.mount_point().join(unit);
    let owner = |place: &Path| std::fs::metadata(place).ok().map(|found| found.uid());
    let of_a_user = owner(&place) != owner(hierarchy.mount_point());
    let marked = MARKS.iter().any(|mark| {
        let mut value = [0; 8];
        let length = rustix::fs::getxattr(&place, *mark, &mut value);
        length.is_ok_and(|length| value[..length] == *b"1")
    });
    (marked || of_a_user && own != unit)
        && rustix::fs::access(&place, Access::WRITE_OK).is_ok()
        && tree::open(hierarchy.root(), unit)
            .and_then(|unit| files::read(unit.as_fd(), "cgroup.procs"))
            .call(|| format!("read({:?})", place.join("cgroup.procs")))
            .is_ok_and(|processes| processes.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(cgroup: &str) -> Option<&str> {
        innermost_unit(Path::new(cgroup)).and_then(Path::to_str)
    }

    #[test]
    fn the_innermost_unit_is_a_service_or_a_scope() {
        assert_eq!(
            unit("system.slice/a.service"),
            Some("system.slice/a.service")
        );
        assert_eq!(
            unit("system.slice/a.service/sub/deeper"),
            Some("system.slice/a.service")
        );
        assert_eq!(
            unit("user.slice/user-1.slice/user@1.service/app.slice/b.scope/x"),
            Some("user.slice/user-1.slice/user@1.service/app.slice/b.scope")
        );
    }

    #[test]
    fn a_slice_a_users_systemd_and_the_root_are_none() {
        assert_eq!(unit(""), None);
        assert_eq!(unit("a/b"), None);
        assert_eq!(unit("system.slice"), None);
        assert_eq!(unit("system.slice/a.service/b.slice/c"), None);
        assert_eq!(unit("user.slice/user-1.slice/user@1.service"), None);
        assert_eq!(unit("user.slice/user-1.slice/user@1.service/x"), None);
        assert_eq!(
            unit("user.slice/user-1.slice/user@1.service/app.slice"),
            None
        );
    }
}
