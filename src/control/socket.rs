//! The socket at which parctl asks: made here, given by systemd, or kept by the daemon that this one replaces.

use std::fs::{self, Permissions};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd, RawFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::Mode;
use rustix::io::FdFlags;

use crate::sys;

/// The variable by which a daemon leaves its socket to the one that replaces it.
pub const KEPT: &str = "PARHELIOND_SOCKET";

/// Opens the socket. The store's lock must be held: what lies at the path is nobody's then.
///
/// # Errors
///
/// What the operating system refuses.
pub fn open(path: &Path) -> Result<UnixListener> {
    let listener = match given()? {
        Some(number) => {
            let given = sys::fd::from_command_line(number)
                .with_context(|| format!("descriptor {number} that this program was given"))?;
            let flags = rustix::io::fcntl_getfd(&given)? | FdFlags::CLOEXEC;
            rustix::io::fcntl_setfd(&given, flags)?;
            UnixListener::from(given)
        }
        None => bind(path).with_context(|| format!("--socket {path:?}"))?,
    };
    listener.set_nonblocking(true).context("the socket")?;
    Ok(listener)
}

/// The number of a socket that was given to this program.
fn given() -> Result<Option<RawFd>> {
    if let Ok(number) = std::env::var(KEPT) {
        let number = number.parse();
        return number
            .map(Some)
            .with_context(|| format!("{KEPT}: no number"));
    }
    let mut numbers = sd_notify::listen_fds().context("the sockets of systemd")?;
    Ok(numbers.next())
}

/// Makes the socket under another name and moves it to its place, so that there is always one.
fn bind(path: &Path) -> Result<UnixListener> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("{folder:?}"))?;
    }
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("{new:?}"));
        }
        Ok(()) | Err(_) => {}
    }
    // From its first moment for its owner only.
    let before = rustix::process::umask(Mode::from_raw_mode(0o177));
    let bound = UnixListener::bind(&new);
    rustix::process::umask(before);
    let bound = bound?;
    fs::set_permissions(&new, Permissions::from_mode(0o600))?;
    fs::rename(&new, path)?;
    Ok(bound)
}

/// Lets a program that is executed now have the socket; answers the number that it finds it by.
///
/// # Errors
///
/// None in practice.
pub fn keep(socket: &OwnedFd) -> Result<String> {
    let flags = rustix::io::fcntl_getfd(socket)? - FdFlags::CLOEXEC;
    rustix::io::fcntl_setfd(socket.as_fd(), flags)?;
    Ok(socket.as_raw_fd().to_string())
}
