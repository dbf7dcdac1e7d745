//! Reading and writing the small files of a cgroup directory, relative to its descriptor.
//!
//! Three system calls each and no path strings. Errors are bare; callers know the full name.

use std::os::fd::BorrowedFd;

use rustix::fs::{Mode, OFlags};

use crate::sys::Errno;

/// The text of `file` in `directory`.
pub(super) fn read(directory: BorrowedFd<'_>, file: &str) -> Result<String, Errno> {
    let fd = rustix::fs::openat(
        directory,
        file,
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let mut text = Vec::new();
    let mut part = [0; 4096];
    loop {
        match rustix::io::read(&fd, &mut part) {
            // Device names come from drivers; nothing else there could be other than ASCII.
            Ok(0) => return Ok(String::from_utf8_lossy(&text).into_owned()),
            Ok(length) => text.extend_from_slice(&part[..length]),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Writes `value` to `file` in `directory` with one write(2): the kernel takes each as a whole.
pub(super) fn write(directory: BorrowedFd<'_>, file: &str, value: &str) -> Result<(), Errno> {
    let fd = rustix::fs::openat(
        directory,
        file,
        OFlags::WRONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    rustix::io::retry_on_intr(|| rustix::io::write(&fd, value.as_bytes())).map(drop)
}

/// The value of `key` in a file of lines "key value", as cgroup.events and memory.stat.
pub(super) fn value_of<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_matched_as_a_whole() {
        let text = "populated 1\nfrozen 0\nfrozen_too 1\n";
        assert_eq!(value_of(text, "frozen"), Some("0"));
        assert_eq!(value_of(text, "froz"), None);
    }
}
