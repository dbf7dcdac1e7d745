//! Network namespaces that are files: mounted there (namespaces(7)), they are there without any process.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::thread;

use anyhow::{Context, Result, bail};

use crate::sys::{Errno, mount, process};

/// setns(2), unshare(2).
const KIND: u64 = libc::CLONE_NEWNET as u64;

/// A namespace of one's own: programs of any user may listen at every port, as nobody else is there (ip(7)).
const EVERY_PORT: (&str, &str) = ("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0");

/// The namespace at a path; None when there is none, as after a start of the host.
///
/// # Errors
///
/// The path can not be opened.
pub fn open(path: &Path) -> Result<Option<OwnedFd>> {
    match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("open {path:?}")),
        Ok(file) => {
            let is_one = process::namespace_type(file.as_fd()).is_ok_and(|kind| kind == KIND);
            Ok(is_one.then(|| file.into()))
        }
    }
}

/// The namespace at a path, a new one where there is none.
///
/// # Errors
///
/// What the kernel refuses.
pub fn make(path: &Path) -> Result<OwnedFd> {
    if let Some(there) = open(path)? {
        return Ok(there);
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("make {folder:?}"))?;
    }
    File::create(path).with_context(|| format!("make {path:?}"))?;
    apart(|| {
        process::unshare(KIND).context("a new network namespace")?;
        let (file, value) = EVERY_PORT;
        fs::write(file, value).with_context(|| format!("write {file:?}"))?;
        rustix::mount::mount_bind("/proc/thread-self/ns/net", path)
            .with_context(|| format!("mount a network namespace at {path:?}"))
    })?;
    open(path)?.with_context(|| format!("there is no network namespace at {path:?}"))
}

/// Removes the namespace at a path, if there is one. It lives on for programs that are in it.
///
/// # Errors
///
/// What the kernel refuses.
pub fn remove(path: &Path) -> Result<()> {
    let text = path.to_string_lossy();
    // Nothing else is ever mounted there; twice it may be by a crash.
    while open(path)?.is_some() {
        match mount::detach(&text) {
            Err(error) if error.errno == Errno::INVAL => break,
            detached => detached?,
        }
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed.with_context(|| format!("remove {path:?}")),
    }
}

/// The names in a directory of namespaces.
///
/// # Errors
///
/// It can not be read.
pub fn list(directory: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(|| format!("list {directory:?}"))?,
    };
    let names = entries
        .flatten()
        .map(|entry| entry.file_name().into_string());
    Ok(names.flatten().collect())
}

/// Does something in a namespace.
///
/// # Errors
///
/// What it answers, or that the namespace can not be joined.
pub fn inside<T: Send>(namespace: &OwnedFd, act: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    apart(|| {
        process::join_namespace(namespace.as_fd(), KIND, "network")?;
        act()
    })
}

/// Does something in a thread that ends with it, as it is in another namespace then.
fn apart<T: Send>(act: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("network".to_owned());
        let thread = thread.spawn_scoped(scope, act).context("start a thread")?;
        match thread.join() {
            Ok(done) => done,
            Err(_) => bail!("a thread in a network namespace has died"),
        }
    })
}
