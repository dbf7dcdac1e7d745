//! An instance's output: from its two pipes to the file `log`, in the format of CRI.
//!
//! Each line becomes `MOMENT STREAM F TEXT`; one that is longer than [`LINE`] is cut, and its parts but the
//! last have P instead of F. A moment is that of the reading, and what was read at once has the same. A full
//! file becomes `log.1`, that one `log.2`, and so on.
//!
//! The pipes are fifos in the instance's directory, which the program has open at both ends: it never
//! writes to a pipe that nobody reads, and what nobody has read yet outlives a keeper.

mod file;
mod stream;

use std::fmt::Write as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use memchr::{memchr, memchr_iter, memrchr};
use rustix::fs::{Mode, OFlags};
use rustix::pipe::{PipeFlags, SpliceFlags, splice, tee};

use super::spec::LogSpec;
use super::status::LogCounts;
use crate::error::rfc3339;
use crate::sys::{Call, Errno, SysError, SysResult};
use file::File;
use stream::Stream;
pub use stream::{FOLDER, open_place, place};

/// The names of the fifos, and of the streams in the log.
pub const STREAMS: [&str; 2] = ["stdout", "stderr"];

/// The longest text of a line, in bytes: as containerd's, which readers of the format expect.
const LINE: usize = 16 << 10;

/// How much is looked at at once.
const READ: usize = 64 << 10;

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
    /// The first line that is to be written says of which stream how many lines and bytes are missing.
    noted: Option<(usize, (u64, u64))>,
    /// How many bytes in each pipe are of a program that has ended, and wait for room: the last line among them
    /// is one without an end, and not the beginning of what others print.
    ended: [u64; 2],
    counts: LogCounts,
}

impl Logs {
    /// Opens the pipes in a directory, and makes them first if they are not there.
    ///
    /// # Errors
    ///
    /// What the file system answered; or a file in their place that is no fifo.
    pub fn open(directory: OwnedFd, limits: LogSpec) -> SysResult<Logs> {
        let folder = stream::open_folder(directory.as_fd())?;
        let [out, err] = STREAMS.map(|name| Stream::open(folder.as_fd(), name));
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
            noted: None,
            ended: [0; 2],
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
        self.finish_stream(stream)?;
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
        self.flush()?;
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
        // What others print from now on is for the next turn.
        for stream in 0..STREAMS.len() {
            self.ended[stream] = self.waiting(stream)?;
        }
        (0..STREAMS.len()).try_for_each(|stream| self.finish_stream(stream))
    }

    fn finish_stream(&mut self, stream: usize) -> SysResult<()> {
        while self.ended[stream] > 0 {
            self.retry()?;
            if self.turn(stream)? == 0 && self.write_rest(stream)? == 0 {
                self.ended[stream] = 0;
            }
        }
        Ok(())
    }

    /// Writes a line whose end will not come, or the beginning of it.
    fn write_rest(&mut self, number: usize) -> SysResult<usize> {
        let count = self.look(number)?;
        let tag = match self.ended[number] > count as u64 {
            true => "P",
            false => "F",
        };
        if count > 0 {
            let now = moment();
            self.note_dropped(number, &now);
            self.file
                .add(&now, (self.streams[number].name, tag), &self.read);
            self.due = Some((number, count));
            let written = self.retry();
            self.settle(written, number, &now)?;
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
        let most = match self.ended[number] {
            0 => READ,
            ended => READ.min(usize::try_from(ended).unwrap_or(READ)),
        };
        let count = match tee(&stream.fifo, &self.copy.1, most, flags) {
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
        self.ended[number] = self.ended[number].saturating_sub(count as u64);
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
            None if self.ended[number] == 0 && self.waiting(number)? > LINE as u64 => {
                Ok(read.len())
            }
            None => Ok(0),
        }
    }

    /// Whether lines are to be dropped: the program is about to wait for us, and is not to.
    fn is_behind(&self, number: usize) -> bool {
        let fifo = &self.streams[number].fifo;
        let size = || rustix::pipe::fcntl_getpipe_size(fifo);
        let is_over = |waits| size().is_ok_and(|size| waits >= size as u64 / 4 * 3);
        self.file.drops() && rustix::io::ioctl_fionread(fifo).is_ok_and(is_over)
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
        self.settle(written, number, &now)
    }

    /// Where what can not be written is dropped, nothing stays to be written.
    fn settle(&mut self, written: SysResult<()>, number: usize, now: &str) -> SysResult<()> {
        if written.is_err() && self.file.drops() {
            let before = now.len() + self.streams[number].name.len() + "  F ".len();
            self.give_up(number, before);
            self.retry()?;
        }
        written
    }

    /// Writes what there is; then what is missing is told.
    fn flush(&mut self) -> SysResult<()> {
        self.file.flush()?;
        if let Some((number, (lines, bytes))) = self.noted.take() {
            let dropped = &mut self.streams[number].dropped;
            *dropped = (dropped.0 - lines, dropped.1 - bytes);
        }
        Ok(())
    }

    /// Drops what can not be written. Each line has so many bytes `before` its text.
    fn give_up(&mut self, number: usize, before: usize) {
        let given_up = self.file.give_up();
        let mut lines = given_up.lines;
        let mut bytes = (given_up.bytes as u64).saturating_sub(lines * before as u64);
        if let Some((noted, missing)) = self.noted.take() {
            if given_up.first_is_written {
                let dropped = &mut self.streams[noted].dropped;
                *dropped = (dropped.0 - missing.0, dropped.1 - missing.1);
            } else {
                // Is told again, and is no line of the program's.
                lines -= 1;
                bytes = bytes.saturating_sub(note(missing).len() as u64 + 1);
            }
        }
        self.count_dropped(number, lines, bytes);
    }

    /// Adds a line, and makes room before as long as that works.
    fn add(&mut self, written: &mut SysResult<()>, now: &str, tags: (&str, &str), text: &[u8]) {
        if written.is_ok() && !self.file.has_room(text.len()) {
            *written = self.flush();
        }
        self.file.add(now, tags, text);
    }

    /// Adds a line that says how many are missing before the next one.
    fn note_dropped(&mut self, number: usize, now: &str) {
        let (name, dropped) = (self.streams[number].name, self.streams[number].dropped);
        if dropped != (0, 0) {
            self.file.add(now, (name, "F"), note(dropped).as_bytes());
            self.noted = Some((number, dropped));
        }
    }
}

fn note((lines, bytes): (u64, u64)) -> String {
    format!("[parhelion: {lines} lines, {bytes} bytes dropped here]")
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::PathBuf;

    /// A folder of one test, removed with it.
    struct Place(PathBuf);

    impl Place {
        fn new(name: &str) -> Place {
            let path = std::env::temp_dir().join(format!("keeper-{name}-{}", std::process::id()));
            fs::create_dir(&path).unwrap();
            Place(path)
        }

        fn logs(&self, limits: LogSpec) -> Logs {
            let directory = fs::File::open(&self.0).unwrap();
            Logs::open(directory.into(), limits).unwrap()
        }

        /// What the log has, without moments.
        fn lines(&self) -> Vec<String> {
            let text = fs::read_to_string(self.0.join("log")).unwrap_or_default();
            let rest = |line: &str| line.split_once(' ').unwrap().1.to_owned();
            text.lines().map(rest).collect()
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            // Left behind at worst.
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn print(logs: &Logs, stream: usize, text: &str) {
        let count = rustix::io::write(logs.pipes()[stream], text.as_bytes()).unwrap();
        assert_eq!(count, text.len());
    }

    #[test]
    fn the_beginning_of_a_line_waits_in_its_pipe_for_the_end_also_for_the_next_keeper() {
        let place = Place::new("beginning");
        let mut logs = place.logs(LogSpec::default());
        let other = logs.streams[0].fifo.try_clone().unwrap();
        print(&logs, 0, "one\ntw");
        logs.serve(0).unwrap();
        assert_eq!(place.lines(), ["stdout F one"]);
        drop(logs);
        let mut logs = place.logs(LogSpec::default());
        drop(other);
        print(&logs, 0, "o\nthree");
        logs.serve(0).unwrap();
        assert_eq!(place.lines(), ["stdout F one", "stdout F two"]);
        logs.finish().unwrap();
        assert_eq!(place.lines()[2], "stdout F three");
        assert_eq!(logs.counts().bytes, 4 + 5);
    }

    #[test]
    fn many_small_pieces_are_written_all_the_same() {
        let place = Place::new("pieces");
        let mut logs = place.logs(LogSpec::default());
        let (from, to) = rustix::pipe::pipe().unwrap();
        let text: String = ('a'..='z').cycle().take(200).collect();
        // Each piece is a page of its own in the pipe, of which few are copied at once.
        for byte in text.bytes() {
            rustix::io::write(&to, &[byte]).unwrap();
            let moved = splice(&from, None, logs.pipes()[1], None, 1, SpliceFlags::empty());
            assert_eq!(moved.unwrap(), 1);
        }
        logs.serve(1).unwrap();
        logs.finish().unwrap();
        let parts: String = place
            .lines()
            .iter()
            .map(|line| line.splitn(3, ' ').nth(2).unwrap())
            .collect();
        assert_eq!(parts, text);
        assert!(place.lines().last().unwrap().starts_with("stderr F "));
    }

    #[test]
    fn the_last_line_of_a_program_stays_apart_also_where_it_could_not_be_written_at_once() {
        let place = Place::new("apart");
        let mut logs = place.logs(LogSpec::default());
        // No file can be there, as on a disk that is full.
        fs::create_dir(place.0.join("log")).unwrap();
        print(&logs, 0, "one\n");
        logs.serve(0).unwrap_err();
        print(&logs, 0, "half");
        logs.finish().unwrap_err();
        print(&logs, 0, " of the next\n");
        logs.retry().unwrap_err();
        fs::remove_dir(place.0.join("log")).unwrap();
        logs.retry().unwrap();
        logs.serve(0).unwrap();
        let expected = ["stdout F one", "stdout F half", "stdout F  of the next"];
        assert_eq!(place.lines(), expected);
    }

    #[test]
    fn half_a_line_that_a_killed_keeper_has_left_is_ended() {
        let place = Place::new("half");
        fs::write(place.0.join("log"), "moment stdout F who").unwrap();
        let mut logs = place.logs(LogSpec::default());
        print(&logs, 0, "whole\n");
        logs.serve(0).unwrap();
        assert_eq!(place.lines(), ["stdout F who", "stdout F whole"]);
    }

    #[test]
    fn what_is_no_fifo_is_not_taken_for_one() {
        let place = Place::new("no-fifo");
        fs::create_dir(place.0.join(FOLDER)).unwrap();
        fs::write(place.0.join(FOLDER).join("stdout"), "").unwrap();
        let directory = fs::File::open(&place.0).unwrap();
        let told = Logs::open(directory.into(), LogSpec::default()).unwrap_err();
        assert_eq!(told.to_string(), "open(\"stdout\"), no fifo: file exists");
    }
}
