//! A mount namespace in which CRIU finds what a container is made in: the root, at a mount of its own,
//! and every tree of the host that is mounted in it.
//!
//! All of it vanishes with the last process in that namespace, however that ends. The trees are opened
//! on the host before, as for `create`, with their attributes.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{Mode, OFlags};

use super::outside::NULL;
use crate::rootfs::{OpenTree, Plan, keep_from_changes, mount_points_below};
use crate::sys::fd::Inheritance;
use crate::sys::mount::{self, NewFileSystem};
use crate::sys::{Call, process};

/// Where it is: a directory that every kernel has, that everybody may enter, also processes in another
/// user namespace, and that is meant to be mounted over (the kernel lets such a namespace have a proc file
/// system of its own all the same).
const PLACE: &str = "/proc/fs/nfsd";

/// This process in a mount namespace that only it and its children see, until this value goes.
pub struct Stage {
    host: Option<(OwnedFd, OwnedFd)>,
}

/// What CRIU finds on a stage.
pub struct Laid {
    /// The container's root.
    pub root: PathBuf,
    /// The mounts of the host: their names in the images, and where they are.
    pub mounts: Vec<(String, String)>,
}

impl Stage {
    /// Enters a new mount namespace, and mounts an empty file system there.
    ///
    /// # Errors
    ///
    /// `EPERM` without CAP_SYS_ADMIN.
    pub fn enter() -> Result<Stage> {
        let open = |path: &str, flags| {
            let opened = rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty());
            opened.call(|| format!("open({path:?})"))
        };
        let namespace = open("/proc/self/ns/mnt", OFlags::RDONLY)?;
        let directory = open(".", OFlags::PATH | OFlags::DIRECTORY)?;
        process::unshare(libc::CLONE_NEWNS as u64)?;
        let stage = Stage {
            host: Some((namespace, directory)),
        };
        // Not private: CRIU makes a mount of the container the slave of whatever its source is one of.
        mount::set_root_propagation(libc::MS_SLAVE, true)?;
        let fs = NewFileSystem::open("tmpfs")?.mount(0)?;
        let place = open(PLACE, OFlags::PATH | OFlags::DIRECTORY)?;
        mount::attach(fs.as_fd(), place.as_fd())?;
        Ok(stage)
    }

    /// Makes the container's mount points in its root, and mounts root and trees of the host side by
    /// side. `names` are those of the trees in the images, each with whether what is mounted below it
    /// belongs to it.
    ///
    /// # Errors
    ///
    /// A mount point that can not be made.
    pub fn lay_out(
        &self,
        plan: Plan<OpenTree>,
        inheritance: Inheritance,
        names: &[(String, bool)],
    ) -> Result<Laid> {
        let root = Path::new(PLACE).join("root");
        let place = |path: &Path, directory: bool| {
            let made = match directory {
                true => std::fs::create_dir(path),
                false => std::fs::write(path, ""),
            };
            made.with_context(|| format!("make {path:?}"))?;
            let opened = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
            Ok(opened.call(|| format!("open({path:?})"))?)
        };
        let top = place(&root, true)?;
        rustix::process::chdir("/proc/self/fd").call(|| "chdir(\"/proc/self/fd\")".into())?;
        let numbered = |number: usize| Path::new(PLACE).join(number.to_string());
        plan.lay_out(
            top.as_fd(),
            &mut inheritance.into_inherited(),
            &|number, directory| place(&numbered(number), directory),
        )?;
        let table = std::fs::read("/proc/self/mountinfo").context("read the mount table")?;
        let table = String::from_utf8_lossy(&table);
        let mut mounts = vec![(NULL.to_owned(), lay_out_null(place)?)];
        for (number, (name, recursive)) in names.iter().enumerate() {
            let path = numbered(number);
            let path = path.to_str().context("no UTF-8")?;
            mounts.push((name.clone(), path.to_owned()));
            let below = mount_points_below(&table, path).into_iter();
            let below = below.filter(|_| *recursive);
            mounts.extend(below.map(|point| (format!("{name}{}", &point[path.len()..]), point)));
        }
        Ok(Laid { root, mounts })
    }

    /// Goes back to where this process came from; its children stay.
    ///
    /// # Errors
    ///
    /// `EPERM` without CAP_SYS_CHROOT.
    pub fn leave(mut self) -> Result<()> {
        self.go_back()
    }

    fn go_back(&mut self) -> Result<()> {
        let Some((namespace, directory)) = self.host.take() else {
            return Ok(());
        };
        process::join_namespace(namespace.as_fd(), libc::CLONE_NEWNS as u64, "mnt")?;
        Ok(rustix::process::fchdir(&directory).call(|| "fchdir()".into())?)
    }
}

/// Mounts the host's null device, for CRIU to hide files behind: its copies are as this mount is. Returns
/// where it is.
fn lay_out_null(place: impl Fn(&Path, bool) -> Result<OwnedFd>) -> Result<String> {
    let path = format!("{PLACE}/null");
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let null = rustix::fs::open(NULL, flags, Mode::empty()).call(|| format!("open({NULL:?})"))?;
    let null = mount::copy_tree(null.as_fd(), "", false)?;
    keep_from_changes(null.as_fd()).context(NULL)?;
    let place = place(Path::new(&path), false)?;
    mount::attach(null.as_fd(), place.as_fd())?;
    Ok(path)
}

impl Drop for Stage {
    fn drop(&mut self) {
        // On the way out of an error, which is the one to be told.
        let _still_there = self.go_back();
    }
}
