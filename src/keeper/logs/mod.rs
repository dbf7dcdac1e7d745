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

use memchr::{memchr, memchr_iter, memrchr};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::pipe::{PipeFlags, SpliceFlags, splice, tee};

use super::spec::LogSpec;
use super::status::LogCounts;
use crate::error::rfc3339;
use crate::sys::{Call, Errno, SysError, SysResult};
use file::File;

/// The names of the fifos, and of the streams in the log.
pub const STREAMS: [&str; 2] = ["stdout", "stderr"];

/// The longest text of a line, in bytes: as containerd's, which readers of the format expect.
const LINE: usize = 16 << 10;

/// How much is looked at at once.
const READ: usize = 64 << 10;

/// How much the kernel keeps for a program while its keeper is busy or gone. A user's share of all pipes may
/// be used up (pipe(7)); then it is less.
const PIPE: usize = 1 << 20;

/// How often one stream is read before others have their turn.
const TURNS: usize = 16;

/// The two pipes and the file.
///
/// Nothing is taken from a pipe before it is in the file: it is copied (tee(2)), written, and then taken. So
/// a keeper that is killed in between loses nothing; the next one may write the same lines once more.
#[derive(Debug)]
pub struct Logs {
    streams: [Stream; 2],
    file: File,
    /// A pipe for the copies: its reading and its writing end.
    copy: (OwnedFd, OwnedFd),
    /// What takes what was written.
    null: OwnedFd,
    read: Vec<u8>,
    /// What is taken from which stream when it is in the file.
    due: Option<(usize, usize)>,
    counts: LogCounts,
}

#[derive(Debug)]
struct Stream {
    name: &'static str,
    fifo: OwnedFd,
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
        let flags = PipeFlags::CLOEXEC | PipeFlags::NONBLOCK;
        let copy = rustix::pipe::pipe_with(flags).call(|| "pipe2()".into())?;
        // As many pages as can be looked at at once, also where each is half empty; less is only slower.
        let _size = rustix::pipe::fcntl_setpipe_size(&copy.1, 2 * READ);
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let null = rustix::fs::open("/dev/null", flags, Mode::empty())
            .call(|| "open(\"/dev/null\")".into())?;
        Ok(Logs {
            streams: [out?, err?],
            file: File::new(directory, limits),
            copy,
            null,
            read: Vec::with_capacity(READ),
            due: None,
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

    /// Writes what is in a pipe; true when there may be more. The beginning of a line stays in it until its
    /// end comes: that a pipe is not empty is no news, and it is to be watched for changes (EPOLLET).
    ///
    /// # Errors
    ///
    /// The log can not be written. With [`super::spec::WhenFull::Wait`] nothing is lost: call
    /// [`Logs::retry`] before the next reading.
    pub fn serve(&mut self, stream: usize) -> SysResult<bool> {
        for _ in 0..TURNS {
            if self.turn(stream)? == 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Writes what is left from a failure.
    ///
    /// # Errors
    ///
    /// It can not be written yet.
    pub fn retry(&mut self) -> SysResult<()> {
        self.file.flush()?;
        match self.due.take() {
            Some((stream, count)) => self.take(stream, count),
            None => Ok(()),
        }
    }

    /// Writes what a program that has ended has left in the pipes, and its last lines without an end.
    ///
    /// # Errors
    ///
    /// As [`Logs::serve`].
    pub fn finish(&mut self) -> SysResult<()> {
        for stream in 0..STREAMS.len() {
            let mut left = self.waiting(stream)?;
            // What others print now is for the next turn.
            while left > 0 {
                let count = match self.turn(stream)? {
                    0 => self.write_rest(stream)?,
                    count => count,
                };
                if count == 0 {
                    break;
                }
                left = left.saturating_sub(count as u64);
            }
        }
        Ok(())
    }

    /// Writes a line whose end will not come, or the beginning of it.
    fn write_rest(&mut self, number: usize) -> SysResult<usize> {
        let count = self.look(number)?;
        let tag = match self.waiting(number)? > count as u64 {
            true => "P",
            false => "F",
        };
        if count > 0 {
            let now = moment();
            self.note_dropped(number, &now);
            self.file
                .add(&now, (self.streams[number].name, tag), &self.read);
            self.due = Some((number, count));
            self.retry()?;
        }
        Ok(count)
    }

    /// How many bytes are in a pipe.
    fn waiting(&self, number: usize) -> SysResult<u64> {
        let stream = &self.streams[number];
        rustix::io::ioctl_fionread(&stream.fifo)
            .call(|| format!("ioctl({:?}, FIONREAD)", stream.name))
    }

    /// Copies what is in a pipe to `self.read`; how many bytes.
    fn look(&mut self, number: usize) -> SysResult<usize> {
        let stream = &self.streams[number];
        self.read.clear();
        let flags = SpliceFlags::NONBLOCK;
        let count = match tee(&stream.fifo, &self.copy.1, READ, flags) {
            Ok(count) => count,
            Err(Errno::AGAIN | Errno::INTR) => 0,
            Err(errno) => return Err(SysError::new(format!("tee({:?})", stream.name), errno)),
        };
        self.read.resize(count, 0);
        let mut filled = 0;
        while filled < count {
            let rest = &mut self.read[filled..];
            filled += rustix::io::retry_on_intr(|| rustix::io::read(&self.copy.0, &mut *rest))
                .call(|| "read(copy)".into())?;
        }
        Ok(count)
    }

    /// Takes what was written or dropped from a pipe.
    fn take(&mut self, number: usize, count: usize) -> SysResult<()> {
        let stream = &self.streams[number];
        let mut left = count;
        while left > 0 {
            let flags = SpliceFlags::NONBLOCK;
            left -= rustix::io::retry_on_intr(|| {
                splice(&stream.fifo, None, &self.null, None, left, flags)
            })
            .call(|| format!("splice({:?})", stream.name))?;
        }
        self.counts.bytes += count as u64;
        Ok(())
    }

    /// Looks once, and writes or drops what are whole lines; how many bytes they have.
    fn turn(&mut self, number: usize) -> SysResult<usize> {
        self.retry()?;
        self.look(number)?;
        let read = std::mem::take(&mut self.read);
        let done = self.lines_of(number, &read).and_then(|count| {
            if count > 0 && self.is_behind(number) {
                self.drop_lines(number, &read[..count])?;
            } else if count > 0 {
                self.write_lines(number, &read[..count])?;
            }
            Ok(count)
        });
        self.read = read;
        done
    }

    /// How many bytes of what was read are whole lines, or parts of a long one.
    fn lines_of(&self, number: usize, read: &[u8]) -> SysResult<usize> {
        match memrchr(b'\n', read) {
            Some(end) => Ok(end + 1),
            None if read.len() >= LINE => Ok(read.len() / LINE * LINE),
            // Of many small pieces, as splice(2) makes them, few are copied at once: nothing may stay for ever.
            None if self.waiting(number)? > LINE as u64 => Ok(read.len()),
            None => Ok(0),
        }
    }

    /// Whether lines are to be dropped: the program is about to wait for us, and is not to.
    fn is_behind(&self, number: usize) -> bool {
        let fifo = &self.streams[number].fifo;
        let most = || rustix::pipe::fcntl_getpipe_size(fifo).unwrap_or(PIPE) as u64 / 4 * 3;
        self.file.drops() && rustix::io::ioctl_fionread(fifo).is_ok_and(|waits| waits >= most())
    }

    fn drop_lines(&mut self, number: usize, read: &[u8]) -> SysResult<()> {
        let lines = memchr_iter(b'\n', read).count() as u64;
        self.count_dropped(number, lines, read.len() as u64);
        self.take(number, read.len())
    }

    fn count_dropped(&mut self, number: usize, lines: u64, bytes: u64) {
        let dropped = &mut self.streams[number].dropped;
        *dropped = (dropped.0 + lines, dropped.1 + bytes);
        self.counts.dropped_lines += lines;
        self.counts.dropped_bytes += bytes;
    }

    fn write_lines(&mut self, number: usize, read: &[u8]) -> SysResult<()> {
        let now = moment();
        self.note_dropped(number, &now);
        self.due = Some((number, read.len()));
        let name = self.streams[number].name;
        let mut written = Ok(());
        let mut rest = read;
        while !rest.is_empty() {
            let end = memchr(b'\n', rest);
            let mut line = &rest[..end.unwrap_or(rest.len())];
            while line.len() > LINE {
                self.add(&mut written, &now, (name, "P"), &line[..LINE]);
                line = &line[LINE..];
            }
            let tag = if end.is_some() { "F" } else { "P" };
            self.add(&mut written, &now, (name, tag), line);
            rest = end.map_or(&[], |end| &rest[end + 1..]);
        }
        let written = written.and_then(|()| self.retry());
        if written.is_err() && self.file.drops() {
            let (lines, bytes) = self.file.give_up();
            self.count_dropped(number, lines, bytes);
            // Nothing is left to be written.
            self.retry()?;
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
