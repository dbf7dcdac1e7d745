//! An instance's output: from its two pipes to the file `log`, in the format of CRI.
//!
//! Each line becomes `MOMENT STREAM F TEXT`; one that is longer than [`LINE`] is cut, and its parts but the
//! last have P instead of F. A moment is that of the reading, and what was read at once has the same. A full
//! file becomes `log.1`, that one `log.2`, and so on.
//!
//! The pipes are fifos in the instance's directory, which the program has open at both ends: it never
//! writes to a pipe that nobody reads, and what nobody has read yet outlives a keeper.

mod file;

use std::fmt::Write as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use memchr::{memchr, memchr_iter};
use rustix::fs::{FileType, Mode, OFlags};

use super::spec::LogSpec;
use super::status::LogCounts;
use crate::error::rfc3339;
use crate::sys::{Call, Errno, SysError, SysResult};
use file::File;

/// The names of the fifos, and of the streams in the log.
pub const STREAMS: [&str; 2] = ["stdout", "stderr"];

/// The longest text of a line, in bytes: as containerd's, which readers of the format expect.
const LINE: usize = 16 << 10;

/// How much is read at once.
const READ: usize = 32 << 10;

/// How much the kernel keeps for a program while its keeper is busy or gone. A user's share of all pipes may
/// be used up (pipe(7)); then it is less.
const PIPE: usize = 1 << 20;

/// How often one stream is read before others have their turn.
const TURNS: usize = 16;

/// The two pipes and the file.
#[derive(Debug)]
pub struct Logs {
    streams: [Stream; 2],
    file: File,
    read: Vec<u8>,
    counts: LogCounts,
}

#[derive(Debug)]
struct Stream {
    name: &'static str,
    fifo: OwnedFd,
    /// The beginning of a line whose end has not come.
    tail: Vec<u8>,
    /// Lines and bytes that were dropped since the last line that was written.
    dropped: (u64, u64),
}

impl Logs {
    /// Opens the pipes in a directory, and makes them first if they are not there.
    ///
    /// # Errors
    ///
    /// What the file system answered; or a file in their place that is no fifo.
    pub fn open(directory: OwnedFd, limits: LogSpec) -> SysResult<Logs> {
        let [out, err] = STREAMS.map(|name| Stream::open(directory.as_fd(), name));
        Ok(Logs {
            streams: [out?, err?],
            file: File::new(directory, limits),
            read: Vec::with_capacity(READ + LINE),
            counts: LogCounts::default(),
        })
    }

    /// The pipes to watch, in the order of [`STREAMS`].
    pub fn pipes(&self) -> [BorrowedFd<'_>; 2] {
        self.streams.each_ref().map(|stream| stream.fifo.as_fd())
    }

    /// Whether what can not be written is dropped.
    pub fn drops(&self) -> bool {
        self.file.drops()
    }

    /// What became of the output.
    pub fn counts(&self) -> LogCounts {
        LogCounts {
            rotations: self.file.rotations(),
            ..self.counts
        }
    }

    /// Writes what is in a pipe, or a part of it if there is much.
    ///
    /// # Errors
    ///
    /// The log can not be written. With [`WhenFull::Wait`] nothing is lost: call [`Logs::retry`] before the
    /// next reading.
    pub fn serve(&mut self, stream: usize) -> SysResult<()> {
        for _ in 0..TURNS {
            if self.turn(stream)? == 0 {
                break;
            }
        }
        Ok(())
    }

    /// Writes what is left from a failure.
    ///
    /// # Errors
    ///
    /// It can not be written yet.
    pub fn retry(&mut self) -> SysResult<()> {
        self.file.flush()
    }

    /// Writes what a program that has ended has left in the pipes, and its last lines without an end.
    ///
    /// # Errors
    ///
    /// As [`Logs::serve`].
    pub fn finish(&mut self) -> SysResult<()> {
        for stream in 0..STREAMS.len() {
            let left = rustix::io::ioctl_fionread(&self.streams[stream].fifo);
            let mut left = left.call(|| "ioctl(FIONREAD)".into())?;
            // What others print now is for the next turn.
            while left > 0 {
                let count = self.turn(stream)?;
                if count == 0 {
                    break;
                }
                left = left.saturating_sub(count as u64);
            }
            let now = moment();
            let tail = std::mem::take(&mut self.streams[stream].tail);
            self.note_dropped(stream, &now);
            if !tail.is_empty() {
                self.file.add(&now, (self.streams[stream].name, "F"), &tail);
            }
        }
        self.file.flush()
    }

    /// Reads once; how many bytes came.
    fn turn(&mut self, number: usize) -> SysResult<usize> {
        self.file.flush()?;
        let stream = &mut self.streams[number];
        self.read.clear();
        self.read.append(&mut stream.tail);
        let begun = self.read.len();
        self.read.resize(begun + READ, 0);
        let got =
            rustix::io::retry_on_intr(|| rustix::io::read(&stream.fifo, &mut self.read[begun..]));
        let count = match got {
            Ok(count) => count,
            Err(Errno::AGAIN) => 0,
            Err(errno) => {
                let call = || format!("read({:?})", stream.name);
                return Err(SysError::new(call(), errno));
            }
        };
        self.read.truncate(begun + count);
        self.counts.bytes += count as u64;
        let read = std::mem::take(&mut self.read);
        let done = match count {
            0 => {
                self.streams[number].tail.extend_from_slice(&read);
                Ok(())
            }
            _ if self.is_behind(number) => {
                self.drop_lines(number, &read);
                Ok(())
            }
            _ => self.write_lines(number, &read),
        };
        self.read = read;
        done.map(|()| count)
    }

    /// Whether lines are to be dropped: the program is about to wait for us, and is not to.
    fn is_behind(&self, number: usize) -> bool {
        let fifo = &self.streams[number].fifo;
        let most = || rustix::pipe::fcntl_getpipe_size(fifo).unwrap_or(PIPE) as u64 / 4 * 3;
        self.file.drops() && rustix::io::ioctl_fionread(fifo).is_ok_and(|waits| waits >= most())
    }

    fn drop_lines(&mut self, number: usize, read: &[u8]) {
        let end = read.iter().rposition(|byte| *byte == b'\n');
        let end = end.map_or(0, |end| end + 1);
        let lines = memchr_iter(b'\n', &read[..end]).count() as u64;
        self.count_dropped(number, lines, end as u64);
        self.keep_tail(number, &read[end..]);
    }

    fn count_dropped(&mut self, number: usize, lines: u64, bytes: u64) {
        let dropped = &mut self.streams[number].dropped;
        *dropped = (dropped.0 + lines, dropped.1 + bytes);
        self.counts.dropped_lines += lines;
        self.counts.dropped_bytes += bytes;
    }

    /// Keeps the beginning of a line; of one without an end, the last bytes.
    fn keep_tail(&mut self, number: usize, rest: &[u8]) {
        let over = rest.len().saturating_sub(LINE);
        self.streams[number].tail.extend_from_slice(&rest[over..]);
        if over > 0 {
            self.count_dropped(number, 0, over as u64);
        }
    }

    fn write_lines(&mut self, number: usize, read: &[u8]) -> SysResult<()> {
        let now = moment();
        self.note_dropped(number, &now);
        let name = self.streams[number].name;
        let mut written = Ok(());
        let mut rest = read;
        while let Some(end) = memchr(b'\n', rest) {
            let mut line = &rest[..end];
            while line.len() > LINE {
                self.add(&mut written, &now, (name, "P"), &line[..LINE]);
                line = &line[LINE..];
            }
            self.add(&mut written, &now, (name, "F"), line);
            rest = &rest[end + 1..];
        }
        while rest.len() > LINE {
            self.add(&mut written, &now, (name, "P"), &rest[..LINE]);
            rest = &rest[LINE..];
        }
        self.streams[number].tail.extend_from_slice(rest);
        let written = written.and_then(|()| self.file.flush());
        if written.is_err() && self.file.drops() {
            let (lines, bytes) = self.file.give_up();
            self.count_dropped(number, lines, bytes);
        }
        written
    }

    /// Adds a line, and makes room before as long as that works.
    fn add(&mut self, written: &mut SysResult<()>, now: &str, tags: (&str, &str), text: &[u8]) {
        if written.is_ok() && !self.file.has_room(text.len()) {
            *written = self.file.flush();
        }
        self.file.add(now, tags, text);
    }

    /// A line that says how many are missing before the next one.
    fn note_dropped(&mut self, number: usize, now: &str) {
        let stream = &mut self.streams[number];
        let (lines, bytes) = std::mem::take(&mut stream.dropped);
        if (lines, bytes) != (0, 0) {
            let text = format!("[parhelion: {lines} lines, {bytes} bytes dropped here]");
            self.file.add(now, (stream.name, "F"), text.as_bytes());
        }
    }
}

impl Stream {
    fn open(directory: BorrowedFd<'_>, name: &'static str) -> SysResult<Stream> {
        let call = || format!("open({name:?})");
        let mode = Mode::RUSR | Mode::WUSR;
        match rustix::fs::mkfifoat(directory, name, mode) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(SysError::new(format!("mkfifo({name:?})"), errno)),
        }
        // At both ends: a pipe that nobody else has open is no end, and keeps what is in it.
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let fifo = rustix::fs::openat(directory, name, flags, Mode::empty()).call(call)?;
        let stat = rustix::fs::fstat(&fifo).call(call)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Fifo {
            return Err(SysError::new(
                format!("open({name:?}), no fifo"),
                Errno::EXIST,
            ));
        }
        // Less is only slower.
        let _size = rustix::pipe::fcntl_setpipe_size(&fifo, PIPE);
        Ok(Stream {
            name,
            fifo,
            tail: Vec::new(),
            dropped: (0, 0),
        })
    }
}

/// The present moment as CRI has it, with nine digits of a second.
#[allow(clippy::disallowed_methods, reason = "the keeper's loop is a driver")]
fn moment() -> String {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let seconds = UNIX_EPOCH + Duration::from_secs(since.as_secs());
    let mut text = rfc3339(seconds);
    text.pop();
    // Writing to a string can not fail.
    let _ = write!(text, ".{:09}Z", since.subsec_nanos());
    text
}
