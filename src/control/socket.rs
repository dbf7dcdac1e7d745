//! The socket at which parctl asks: made here, given by systemd, or kept by the daemon that this one replaces.

use std::fs::{self, Permissions};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::path::Path;

use anyhow::{Context, Result, bail};
use rustix::fs::Mode;
use rustix::io::{Errno, FdFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with};

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
    check_free(path)?;
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
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

/// Refuses a place at which another daemon answers, with another state, or at which no socket is.
fn check_free(path: &Path) -> Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => {
            if !found?.file_type().is_socket() {
                bail!("something else is there, and not a socket: give another one");
            }
        }
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let client = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    match rustix::net::connect(&client, &SocketAddrUnix::new(path)?) {
        // AGAIN: so many wait there that no more may.
        Ok(()) | Err(Errno::AGAIN) => {
            bail!("another daemon answers there: end it, or give another --socket")
        }
        Err(_) => Ok(()),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_taken_from_nobody() {
        let name = format!("parhelion-socket-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir(&folder).unwrap();
        let path = folder.join("socket");
        let first = bind(&path).unwrap();
        let told = bind(&path).unwrap_err().to_string();
        assert!(told.contains("another daemon answers"), "{told}");
        // One that was left behind is replaced.
        drop(first);
        bind(&path).unwrap();
        let file = folder.join("file");
        fs::write(&file, "text").unwrap();
        assert!(bind(&file).is_err());
        assert_eq!(fs::read_to_string(&file).unwrap(), "text");
        fs::remove_dir_all(folder).unwrap();
    }
}
