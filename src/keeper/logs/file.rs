//! The log's file: whole lines go into it, and a full one makes room for a new one.

use std::os::fd::{AsFd as _, OwnedFd};

use memchr::memchr_iter;
use rustix::fs::{AtFlags, Mode, OFlags};

use super::super::spec::{LogSpec, WhenFull};
use crate::sys::{Call, Errno, SysError, SysResult};

/// The file that is written to.
const FILE: &str = "log";

/// How much is written at once: everything that one reading can become, but for very short lines.
const WRITE: usize = 64 << 10;

/// More than what stands before and after the text of a line.
const PREFIX: usize = 64;

/// The log file, and what is to be written to it.
#[derive(Debug)]
pub(super) struct File {
    directory: OwnedFd,
    limits: LogSpec,
    /// None until the first line, and while a new one can not be begun.
    fd: Option<OwnedFd>,
    size: u64,
    /// Whole lines, of which `written` bytes are in the file.
    buffer: Vec<u8>,
    written: usize,
    rotations: u64,
}

impl File {
    /// Of a directory; opened with the first line.
    pub fn new(directory: OwnedFd, limits: LogSpec) -> File {
        File {
            directory,
            limits,
            fd: None,
            size: 0,
            buffer: Vec::with_capacity(WRITE),
            written: 0,
            rotations: 0,
        }
    }

    /// Whether what can not be written is dropped.
    pub fn drops(&self) -> bool {
        self.limits.when_full == WhenFull::Drop
    }

    /// How many files were begun because one was full.
    pub fn rotations(&self) -> u64 {
        self.rotations
    }

    /// Whether a line with so much text can be added without more memory.
    pub fn has_room(&self, text: usize) -> bool {
        self.buffer.len() + text + PREFIX <= WRITE
    }

    /// Adds a line, with stream and tag, to what is to be written.
    pub fn add(&mut self, now: &str, (name, tag): (&str, &str), text: &[u8]) {
        for part in [now.as_bytes(), b" ", name.as_bytes(), b" ", tag.as_bytes()] {
            self.buffer.extend_from_slice(part);
        }
        self.buffer.push(b' ');
        self.buffer.extend_from_slice(text);
        self.buffer.push(b'\n');
    }

    /// Writes what there is.
    ///
    /// # Errors
    ///
    /// It can not be written, or no new file be begun.
    pub fn flush(&mut self) -> SysResult<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let left = (self.buffer.len() - self.written) as u64;
        // Never in the middle of a line.
        if self.written == 0 && self.size > 0 && self.size + left > self.limits.max_size {
            self.rotate()?;
        }
        self.open()?;
        let Some(fd) = &self.fd else { return Ok(()) };
        while self.written < self.buffer.len() {
            let rest = &self.buffer[self.written..];
            let count = rustix::io::retry_on_intr(|| rustix::io::write(fd, rest))
                .call(|| format!("write({FILE:?})"))?;
            self.written += count;
            self.size += count as u64;
        }
        self.buffer.clear();
        self.written = 0;
        // After a failure it was larger than it need be.
        self.buffer.shrink_to(WRITE);
        Ok(())
    }

    fn open(&mut self) -> SysResult<()> {
        if self.fd.is_some() {
            return Ok(());
        }
        let flags = OFlags::RDWR | OFlags::APPEND | OFlags::CREATE | OFlags::CLOEXEC;
        let call = || format!("open({FILE:?})");
        let mode = Mode::RUSR | Mode::WUSR;
        let fd =
            rustix::fs::openat(&self.directory, FILE, flags | OFlags::NOFOLLOW, mode).call(call)?;
        self.size = rustix::fs::fstat(&fd).call(call)?.st_size as u64;
        // A keeper that was killed may have left half a line.
        let mut last = *b"\n";
        if self.size > 0 {
            rustix::io::pread(&fd, &mut last, self.size - 1).call(|| format!("read({FILE:?})"))?;
        }
        if last != *b"\n" {
            self.size += rustix::io::write(&fd, b"\n").call(|| format!("write({FILE:?})"))? as u64;
        }
        self.fd = Some(fd);
        // One that an earlier keeper has left full.
        if self.written == 0 && self.size >= self.limits.max_size {
            self.rotate()?;
            return self.open();
        }
        Ok(())
    }

    /// Makes room for a new file.
    fn rotate(&mut self) -> SysResult<()> {
        let name = |number: u16| match number {
            0 => FILE.to_owned(),
            _ => format!("{FILE}.{number}"),
        };
        let directory = self.directory.as_fd();
        // The last one is replaced, or removed where it is the only one.
        let last = self.limits.max_files - 1;
        if last == 0 {
            rustix::fs::unlinkat(directory, FILE, AtFlags::empty())
                .call(|| format!("unlink({FILE:?})"))?;
        }
        for number in (0..last).rev() {
            let (old, new) = (name(number), name(number + 1));
            match rustix::fs::renameat(directory, &old, directory, &new) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(SysError::new(format!("rename({old:?})"), errno)),
            }
        }
        (self.fd, self.size) = (None, 0);
        self.rotations += 1;
        Ok(())
    }

    /// Drops what is not written. Half a line is taken back from the file.
    pub fn give_up(&mut self) -> GivenUp {
        let written = &self.buffer[..self.written];
        let whole = written.iter().rposition(|byte| *byte == b'\n');
        let whole = whole.map_or(0, |end| end + 1);
        let half = (self.written - whole) as u64;
        if let Some(fd) = &self.fd
            && half > 0
        {
            // If it can not be cut off, the next line follows it: a line that can not be read.
            let _cut = rustix::fs::ftruncate(fd, self.size - half);
            self.size -= half;
        }
        let rest = &self.buffer[whole..];
        let given_up = GivenUp {
            lines: memchr_iter(b'\n', rest).count() as u64,
            bytes: rest.len(),
            first_is_written: whole > 0,
        };
        self.buffer.clear();
        self.buffer.shrink_to(WRITE);
        self.written = 0;
        given_up
    }
}

/// What was dropped as it can not be written.
pub(super) struct GivenUp {
    /// How many lines.
    pub lines: u64,
    /// How many bytes they have in the file.
    pub bytes: usize,
    /// Whether the first line that was to be written is in the file.
    pub first_is_written: bool,
}
