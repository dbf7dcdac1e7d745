//! The host's cgroup2 file system: where it is mounted and which controllers it offers.
//!
//! Found afresh by every command, hence cheap: in the common case one open, one fstatfs and one
//! file read. Decides nothing about a container.

use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::{Mode, OFlags};
use rustix::process::Pid;

use super::files;
use crate::sys::{Call, Errno};

/// CGROUP2_SUPER_MAGIC of linux/magic.h: "cgrp".
const CGROUP2_MAGIC: u64 = 0x6367_7270;

/// Where distributions mount cgroup2: alone, or beside cgroup v1 (systemd's "hybrid").
const USUAL_PLACES: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

/// One folder per page size, as `hugepages-2048kB`.
const HUGE_PAGES: &str = "/sys/kernel/mm/hugepages";

/// The host's cgroup2 mount and the controllers it offers.
#[derive(Debug)]
pub struct Hierarchy {
    root: OwnedFd,
    mount_point: PathBuf,
    controllers: BTreeSet<String>,
    huge_page_sizes: OnceCell<Vec<String>>,
}

impl Hierarchy {
    /// Finds the cgroup2 mount: in its usual places, else by the mount table.
    ///
    /// # Errors
    ///
    /// No cgroup2 file system is mounted, or it can not be read.
    pub fn find() -> Result<Hierarchy> {
        for place in USUAL_PLACES {
            if let Some(root) = open_cgroup2(Path::new(place))? {
                return Hierarchy::at(root, place.into());
            }
        }
        let table = fs::read_to_string("/proc/self/mountinfo").context("read the mount table")?;
        for place in cgroup2_mounts(&table) {
            if let Some(root) = open_cgroup2(&place)? {
                return Hierarchy::at(root, place);
            }
        }
        bail!(
            "no cgroup2 file system is mounted, at /sys/fs/cgroup or elsewhere: cgroup v2 is needed"
        )
    }

    /// The cgroup of a process, as a path below the mount point.
    ///
    /// # Errors
    ///
    /// The process has ended, or its cgroup is outside the caller's cgroup namespace.
    pub fn of_process(&self, pid: Pid) -> Result<PathBuf> {
        let file = format!("/proc/{}/cgroup", pid.as_raw_nonzero());
        let text = fs::read_to_string(&file).with_context(|| format!("read({file:?})"))?;
        let path = text.lines().find_map(|line| line.strip_prefix("0::/"));
        let inside = path.filter(|path| !path.starts_with("../"));
        let inside = inside.with_context(|| format!("{file:?} names no cgroup below ours"))?;
        Ok(PathBuf::from(inside))
    }

    fn at(root: OwnedFd, mount_point: PathBuf) -> Result<Hierarchy> {
        let text = files::read(root.as_fd(), "cgroup.controllers")
            .call(|| format!("read({:?})", mount_point.join("cgroup.controllers")))?;
        let controllers = text.split_whitespace().map(str::to_owned).collect();
        Ok(Hierarchy {
            root,
            mount_point,
            controllers,
            huge_page_sizes: OnceCell::new(),
        })
    }

    /// Where the file system is mounted, as "/sys/fs/cgroup".
    #[must_use]
    pub fn mount_point(&self) -> &Path {
        &self.mount_point
    }

    /// The kernel's names of the controllers that can be enabled here: `cgroup.controllers` at the
    /// root. On a host with cgroup v1 beside it, those that v1 does not hold.
    #[must_use]
    pub fn controllers(&self) -> &BTreeSet<String> {
        &self.controllers
    }

    /// The host's huge page sizes as the hugetlb controller names them: "2MB", "1GB".
    #[must_use]
    pub fn huge_page_sizes(&self) -> &[String] {
        self.huge_page_sizes.get_or_init(|| {
            // A kernel without huge pages has no such folder: then there is no size.
            let Ok(folders) = fs::read_dir(HUGE_PAGES) else {
                return Vec::new();
            };
            folders
                .flatten()
                .filter_map(|f| huge_page_size(f.file_name().to_str()?))
                .collect()
        })
    }

    /// The directory at the mount point, opened with O_PATH.
    pub(super) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }
}

/// The directory at `place` when a cgroup2 file system is mounted there.
fn open_cgroup2(place: &Path) -> Result<Option<OwnedFd>> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = match rustix::fs::open(place, flags, Mode::empty()) {
        Ok(root) => root,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        Err(errno) => return Err(errno).call(|| format!("open({place:?}, O_PATH)"))?,
    };
    let found = rustix::fs::fstatfs(&root).call(|| format!("fstatfs({place:?})"))?;
    Ok((found.f_type as u64 == CGROUP2_MAGIC).then_some(root))
}

/// The mount points of cgroup2 in `/proc/self/mountinfo` (proc_pid_mountinfo(5)), where a blank in
/// a name is written as `\040`; such a place is not looked at.
fn cgroup2_mounts(table: &str) -> Vec<PathBuf> {
    let mount = |line: &str| {
        let (place, kind) = line.split_once(" - ")?;
        let is_cgroup2 = kind.split(' ').next() == Some("cgroup2");
        // The mount's own root must be the hierarchy's, not a folder that was bound elsewhere.
        let mut fields = place.split(' ').skip(3);
        let (root, place) = (fields.next()?, fields.next()?);
        (is_cgroup2 && root == "/").then(|| place.into())
    };
    table.lines().filter_map(mount).collect()
}

/// "hugepages-2048kB" as "2MB".
fn huge_page_size(folder: &str) -> Option<String> {
    const UNITS: [(u64, &str); 2] = [(1 << 20, "GB"), (1 << 10, "MB")];
    let kib: u64 = folder
        .strip_prefix("hugepages-")?
        .strip_suffix("kB")?
        .parse()
        .ok()?;
    let unit = UNITS.iter().find(|(size, _)| kib >= *size);
    Some(unit.map_or(format!("{kib}KB"), |(size, name)| {
        format!("{}{name}", kib / size)
    }))
}

#[cfg(any(test, feature = "fuzzing"))]
impl Hierarchy {
    /// A hierarchy that offers `controllers` and huge pages of 2 MB, for tests of plans.
    pub(crate) fn offering(controllers: &[&str]) -> Hierarchy {
        let root = rustix::fs::open("/", OFlags::PATH, Mode::empty()).expect("/ is there");
        Hierarchy {
            root,
            mount_point: "/sys/fs/cgroup".into(),
            controllers: controllers.iter().map(|&name| name.to_owned()).collect(),
            huge_page_sizes: OnceCell::from(vec!["2MB".to_owned()]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_table_names_whole_cgroup2_mounts_only() {
        let table = "\
25 23 0:22 / /proc rw - proc proc rw
31 24 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
32 24 0:28 /system.slice /mnt/part rw - cgroup2 cgroup2 rw
33 24 0:28 / /mnt/all rw shared:9 - cgroup2 cgroup2 rw";
        assert_eq!(cgroup2_mounts(table), [PathBuf::from("/mnt/all")]);
    }

    #[test]
    fn huge_pages_have_the_names_of_the_hugetlb_controller() {
        let sizes = [
            "hugepages-64kB",
            "hugepages-2048kB",
            "hugepages-1048576kB",
            "other",
        ];
        let names: Vec<_> = sizes.iter().map(|size| huge_page_size(size)).collect();
        assert_eq!(
            names,
            [
                Some("64KB".into()),
                Some("2MB".into()),
                Some("1GB".into()),
                None
            ]
        );
    }
}
