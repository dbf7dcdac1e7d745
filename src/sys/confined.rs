//! The only door from a container's path to a descriptor.
//!
//! A path from config.json, or from an image, says what a hostile file system wants it to say.
//! It is resolved by openat2(2) with `RESOLVE_IN_ROOT` (Linux 5.6): links, `..` and absolute
//! targets stay inside, whatever is renamed meanwhile.

use alloc::format;
use alloc::string::{String, ToString};
use core::fmt;

use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, Dev, FileType, Mode, OFlags, ResolveFlags};
use serde::{Deserialize, Serialize};

use super::weakened::{self, Mitigation, is_off};
use super::{Call, Errno, SysError, SysResult};

/// A path as the container sees it: relative to its root, whatever it looks like.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerPath(String);

impl ContainerPath {
    /// A path from a configuration. A leading slash means the container's root, as does none.
    #[must_use]
    pub fn new(path: &str) -> Self {
        let parts = path
            .split('/')
            .filter(|part| !part.is_empty() && *part != ".");
        let mut text = String::new();
        for part in parts {
            if !text.is_empty() {
                text.push('/');
            }
            text.push_str(part);
        }
        ContainerPath(text)
    }

    /// True for the root itself.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The path without its leading slash; "." for the root.
    #[must_use]
    pub fn as_str(&self) -> &str {
        if self.0.is_empty() { "." } else { &self.0 }
    }

    /// The folder above and the last name; None for the root and for a path that ends in `..`.
    fn split(&self) -> Option<(ContainerPath, &str)> {
        let (parent, name) = self.0.rsplit_once('/').unwrap_or(("", &self.0));
        let named = !name.is_empty() && name != "..";
        named.then(|| (ContainerPath(parent.to_string()), name))
    }
}

impl fmt::Display for ContainerPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a path is made as when it does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// A directory of this mode (as far as the umask allows).
    Directory(u32),
    /// An empty file of mode 0644.
    File,
}

/// A device node or FIFO to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node {
    /// The kind: character device, block device or FIFO.
    pub kind: FileType,
    /// The device's number; 0 for a FIFO.
    pub device: Dev,
    /// Permission bits, not reduced by the umask.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// How often a lookup is repeated when something is renamed in its way (openat2(2), `EAGAIN`).
const RACES: usize = 128;
/// How many dangling links are followed when a missing path is made: the kernel's own limit.
const LINKS: usize = 40;

/// A container's root, as an open directory.
#[derive(Debug, Clone, Copy)]
pub struct Root<'a> {
    directory: BorrowedFd<'a>,
}

impl<'a> Root<'a> {
    /// The root that `directory` is.
    #[must_use]
    pub fn new(directory: BorrowedFd<'a>) -> Self {
        Root { directory }
    }

    /// Opens what `path` leads to, inside the root.
    ///
    /// # Errors
    ///
    /// `ENOENT`, `ELOOP`, `ENOTDIR` and what else openat2(2) answers.
    pub fn open(&self, path: &ContainerPath, flags: OFlags) -> SysResult<OwnedFd> {
        open_in(self.directory, path.as_str(), flags, ResolveFlags::IN_ROOT)
    }

    /// Opens `path` for use as a place (`O_PATH`), and makes it first when it is missing, with
    /// all folders on the way. A dangling link is followed: its target is made, inside the root.
    ///
    /// # Errors
    ///
    /// `ENOTDIR` when a folder is wanted and something else is there, and what mkdirat(2) and
    /// openat2(2) answer.
    pub fn ensure(&self, path: &ContainerPath, missing: Missing) -> SysResult<OwnedFd> {
        let place = self.ensure_following(path, missing, LINKS)?;
        self.weakened_place(place)
    }

    /// As [`Root::ensure`], but a symbolic link that `path` itself is, is the place: it is not followed.
    ///
    /// # Errors
    ///
    /// As for [`Root::ensure`].
    pub fn ensure_itself(&self, path: &ContainerPath, missing: Missing) -> SysResult<OwnedFd> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW;
        match self.open(path, flags) {
            Err(error) if error.errno == Errno::NOENT => (),
            found => return found,
        }
        let _made = self.ensure(path, missing)?;
        self.open(path, flags)
    }

    fn ensure_following(
        &self,
        path: &ContainerPath,
        missing: Missing,
        links: usize,
    ) -> SysResult<OwnedFd> {
        let directory = match missing {
            Missing::Directory(_) => OFlags::DIRECTORY,
            Missing::File => OFlags::empty(),
        };
        let flags = OFlags::PATH | OFlags::CLOEXEC | directory;
        match self.open(path, flags) {
            Err(error) if error.errno == Errno::NOENT => (),
            found => return found,
        }
        let Some((parent, name)) = path.split() else {
            let call = format!("openat2(\"{path}\", RESOLVE_IN_ROOT)");
            return Err(SysError::new(call, Errno::NOENT));
        };
        let parent_fd = self.ensure_following(&parent, Missing::Directory(0o755), links)?;
        let parent_fd = self.weakened_place(parent_fd)?;
        match make(parent_fd.as_fd(), name, missing) {
            Err(Errno::EXIST) => (), // someone else made it, or it is a dangling link
            made => made.call(|| making(path, missing))?,
        }
        let nofollow = flags | OFlags::NOFOLLOW;
        let child = open_in(
            parent_fd.as_fd(),
            name,
            nofollow & !OFlags::DIRECTORY,
            BENEATH,
        )?;
        let stat = rustix::fs::fstat(&child).call(|| format!("fstat(\"{path}\")"))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
            return Ok(child);
        }
        if links == 0 {
            return Err(SysError::new(making(path, missing), Errno::LOOP));
        }
        let target = rustix::fs::readlinkat(&parent_fd, name, alloc::vec::Vec::new())
            .call(|| format!("readlinkat(\"{path}\")"))?;
        let target = target.to_str().map_err(|_| {
            SysError::new(format!("readlinkat(\"{path}\"): not UTF-8"), Errno::INVAL)
        })?;
        let target = if target.starts_with('/') {
            ContainerPath::new(target)
        } else {
            ContainerPath::new(&format!("{parent}/{target}"))
        };
        self.ensure_following(&target, missing, links - 1)
    }

    /// The place that was found; what its name leads to by now, in a build for tests that does not hold on to it.
    fn weakened_place(&self, place: OwnedFd) -> SysResult<OwnedFd> {
        if !is_off(Mitigation::OpenedPlaces) {
            return Ok(place);
        }
        let link = format!("/proc/self/fd/{}", place.as_raw_fd());
        let name = rustix::fs::readlink(&link, alloc::vec::Vec::new()).call(|| link.clone())?;
        let name = ContainerPath::new(name.to_str().unwrap_or_default());
        weakened::give_a_turn(Mitigation::OpenedPlaces);
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        rustix::fs::openat(self.directory, name.as_str(), flags, Mode::empty())
            .call(|| format!("openat(\"{name}\")"))
    }

    /// The folder in which `path` lies, made when missing with all above it. `last` is one that was
    /// opened before: it is returned if it is the same, as most nodes lie in /dev.
    ///
    /// # Errors
    ///
    /// As for [`Root::ensure`]; `EINVAL` for the root itself.
    pub fn folder_of(&self, path: &ContainerPath, last: Option<Folder>) -> SysResult<Folder> {
        let (parent, _name) = path.split().ok_or_else(|| no_entry(path))?;
        match last {
            Some(folder) if folder.path == parent => Ok(folder),
            Some(_) | None => Ok(Folder {
                fd: self.ensure(&parent, Missing::Directory(0o755))?,
                path: parent,
            }),
        }
    }
}

/// An open folder inside a root, to make nodes and links in.
#[derive(Debug)]
pub struct Folder {
    path: ContainerPath,
    fd: OwnedFd,
}

impl Folder {
    /// Makes a node at `path`, which lies in this folder; an existing node of the same kind and
    /// number is left as it is, since it may be the host's own that is mounted there. Anything
    /// else there is replaced. The umask must not have a bit of the mode.
    ///
    /// # Errors
    ///
    /// `EPERM` without CAP_MKNOD in the first user namespace, and what mknodat(2) answers.
    pub fn make_node(&self, path: &ContainerPath, node: Node) -> SysResult<()> {
        let (_parent, name) = path.split().ok_or_else(|| no_entry(path))?;
        let directory = self.fd.as_fd();
        let mode = Mode::from_raw_mode(node.mode);
        let made = || rustix::fs::mknodat(directory, name, node.kind, mode, node.device);
        let result = match made() {
            Err(Errno::EXIST) if is_node(directory, name, node) => return Ok(()),
            Err(Errno::EXIST) => {
                rustix::fs::unlinkat(directory, name, AtFlags::empty())
                    .call(|| format!("unlinkat(\"{path}\")"))?;
                made()
            }
            first => first,
        };
        result.call(|| format!("mknodat(\"{path}\", {:?}, {:#x})", node.kind, node.device))?;
        // The mode is right from the start, and as a rule so is the owner.
        let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW);
        if stat.is_ok_and(|stat| {
            same_node(&stat, node) && (stat.st_uid, stat.st_gid) == (node.uid, node.gid)
        }) {
            return Ok(());
        }
        // By descriptor, as the name may lead elsewhere meanwhile.
        let fd = open_in(
            directory,
            name,
            OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            BENEATH,
        )?;
        if !is_node_fd(fd.as_fd(), node) {
            return Err(SysError::new(
                format!("mknodat(\"{path}\"): replaced meanwhile"),
                Errno::AGAIN,
            ));
        }
        rustix::fs::chownat(
            &fd,
            "",
            Some(rustix::fs::Uid::from_raw(node.uid)),
            Some(rustix::fs::Gid::from_raw(node.gid)),
            AtFlags::EMPTY_PATH,
        )
        .call(|| format!("fchownat(\"{path}\", {}, {})", node.uid, node.gid))
    }

    /// Makes a symbolic link at `path`, which lies in this folder; one that is there already is
    /// replaced.
    ///
    /// # Errors
    ///
    /// What symlinkat(2) answers; `EISDIR` when a folder is in the way.
    pub fn make_link(&self, path: &ContainerPath, target: &str) -> SysResult<()> {
        let (_parent, name) = path.split().ok_or_else(|| no_entry(path))?;
        let made = || rustix::fs::symlinkat(target, &self.fd, name);
        let result = match made() {
            Err(Errno::EXIST) => {
                rustix::fs::unlinkat(&self.fd, name, AtFlags::empty())
                    .call(|| format!("unlinkat(\"{path}\")"))?;
                made()
            }
            first => first,
        };
        result.call(|| format!("symlinkat(\"{target}\", \"{path}\")"))
    }

    /// As [`Folder::make_link`], but what is there already stays: it has to be such a link.
    ///
    /// # Errors
    ///
    /// What symlinkat(2) answers; `EEXIST` when anything else is there.
    pub fn ensure_link(&self, path: &ContainerPath, target: &str) -> SysResult<()> {
        let (_parent, name) = path.split().ok_or_else(|| no_entry(path))?;
        let made = match rustix::fs::symlinkat(target, &self.fd, name) {
            Err(Errno::EXIST) => {
                let present = rustix::fs::readlinkat(&self.fd, name, alloc::vec::Vec::new());
                match present {
                    Ok(present) if present.as_bytes() == target.as_bytes() => Ok(()),
                    Ok(_) | Err(_) => Err(Errno::EXIST),
                }
            }
            made => made,
        };
        made.call(|| format!("symlinkat(\"{target}\", \"{path}\")"))
    }
}

fn no_entry(path: &ContainerPath) -> SysError {
    SysError::new(
        format!("\"{path}\" names no entry of a folder"),
        Errno::INVAL,
    )
}

const BENEATH: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_MAGICLINKS);

fn open_in(
    directory: BorrowedFd<'_>,
    path: &str,
    flags: OFlags,
    resolve: ResolveFlags,
) -> SysResult<OwnedFd> {
    let resolve = match is_off(Mitigation::InRoot) {
        true => ResolveFlags::empty(),
        false => resolve | ResolveFlags::NO_MAGICLINKS,
    };
    let open = || {
        rustix::fs::openat2(
            directory,
            path,
            flags | OFlags::CLOEXEC,
            Mode::empty(),
            resolve,
        )
    };
    let mut result = open();
    for _ in 0..RACES {
        match result {
            Err(Errno::AGAIN | Errno::INTR) => result = open(),
            done => return done.call(|| format!("openat2(\"{path}\")")),
        }
    }
    result.call(|| format!("openat2(\"{path}\")"))
}

fn make(parent: BorrowedFd<'_>, name: &str, missing: Missing) -> Result<(), Errno> {
    match missing {
        Missing::Directory(mode) => rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(mode)),
        Missing::File => {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o644)).map(drop)
        }
    }
}

/// The call of [`make`], in words.
fn making(path: &ContainerPath, missing: Missing) -> String {
    match missing {
        Missing::Directory(mode) => format!("mkdirat(\"{path}\", {mode:#o})"),
        Missing::File => format!("openat(\"{path}\", O_CREAT|O_EXCL, 0o644)"),
    }
}

fn is_node(directory: BorrowedFd<'_>, name: &str, node: Node) -> bool {
    rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| same_node(&stat, node))
}

fn is_node_fd(fd: BorrowedFd<'_>, node: Node) -> bool {
    rustix::fs::fstat(fd).is_ok_and(|stat| same_node(&stat, node))
}

fn same_node(stat: &rustix::fs::Stat, node: Node) -> bool {
    FileType::from_raw_mode(stat.st_mode) == node.kind
        && (node.kind == FileType::Fifo || stat.st_rdev == node.device)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> String {
        ContainerPath::new(text).to_string()
    }

    #[test]
    fn a_container_path_is_relative_to_its_root() {
        assert_eq!(path("/dev//pts/."), "dev/pts");
        assert_eq!(path("dev"), "dev");
        assert_eq!(path("/"), ".");
        assert_eq!(path("/a/../b"), "a/../b"); // the kernel resolves it, inside
    }

    fn folder() -> (std::path::PathBuf, OwnedFd) {
        let name = format!("parhelion-confined-{:?}", std::thread::current().id());
        let folder = std::env::temp_dir()
            .join(name)
            .join(std::process::id().to_string());
        std::fs::create_dir_all(&folder).unwrap();
        let fd = rustix::fs::open(&folder, OFlags::PATH, Mode::empty()).unwrap();
        (folder, fd)
    }

    #[test]
    fn a_dangling_link_is_made_inside_the_root() {
        let (folder, fd) = folder();
        std::fs::create_dir(folder.join("etc")).unwrap();
        std::os::unix::fs::symlink("/../../run/x/resolv.conf", folder.join("etc/resolv.conf"))
            .unwrap();
        let root = Root::new(fd.as_fd());
        root.ensure(&ContainerPath::new("/etc/resolv.conf"), Missing::File)
            .unwrap();
        assert!(folder.join("run/x/resolv.conf").is_file());
        std::fs::remove_dir_all(folder.parent().unwrap()).unwrap();
    }

    #[test]
    fn a_link_that_leads_to_itself_is_refused() {
        let (folder, fd) = folder();
        std::os::unix::fs::symlink("loop", folder.join("loop")).unwrap();
        let root = Root::new(fd.as_fd());
        let error = root
            .ensure(&ContainerPath::new("loop/x"), Missing::File)
            .unwrap_err();
        assert_eq!(error.errno, Errno::LOOP);
        std::fs::remove_dir_all(folder.parent().unwrap()).unwrap();
    }

    #[test]
    fn a_link_out_of_the_root_stays_inside() {
        let (folder, fd) = folder();
        std::os::unix::fs::symlink("../../../../etc", folder.join("out")).unwrap();
        let root = Root::new(fd.as_fd());
        root.ensure(&ContainerPath::new("out/made"), Missing::Directory(0o755))
            .unwrap();
        assert!(folder.join("etc/made").is_dir());
        std::fs::remove_dir_all(folder.parent().unwrap()).unwrap();
    }
}
