//! The log of a task as people read it: its last lines, then those that come, across the rotation of its files.
//!
//! Who follows waits for inotify(7), and never looks again by the clock. The files are the keeper's: `log`, then
//! `log.1` and so on, older and older.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::inotify;
use tokio::io::unix::AsyncFd;

use super::feed::{Feed, Gone};
use crate::api::LogLine;
use crate::error;
use crate::sys::polled::polled;

/// How much is read at once.
const BLOCK: usize = 64 << 10;

/// What of a log is wanted.
#[derive(Debug, Clone, Default)]
pub struct Wish {
    /// How many of the last lines; None: all that are there.
    pub tail: Option<usize>,
    /// Whether what comes is told too.
    pub follow: bool,
    /// `stdout` or `stderr` only.
    pub stream: Option<String>,
    /// Whether each line's moment stands before it.
    pub timestamps: bool,
    /// Whether each line of the file becomes a [`LogLine`].
    pub json: bool,
}

/// One line of the file as it is told; None for one of another stream or that is no line of a log.
fn shown(line: &[u8], wish: &Wish, begins: bool) -> Option<Vec<u8>> {
    let mut parts = line.splitn(4, |byte| *byte == b' ');
    let (time, stream, kind, text) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let wanted = wish.stream.as_ref();
    if wanted.is_some_and(|wanted| wanted.as_bytes() != stream) {
        return None;
    }
    if wish.json {
        return in_json((time, stream), text, kind == b"P");
    }
    let mut shown = Vec::with_capacity(line.len() + 1);
    if wish.timestamps && begins {
        shown.extend_from_slice(time);
        shown.push(b' ');
    }
    shown.extend_from_slice(text);
    // P: the line goes on.
    if kind != b"P" {
        shown.push(b'\n');
    }
    Some(shown)
}

fn in_json((time, stream): (&[u8], &[u8]), text: &[u8], partial: bool) -> Option<Vec<u8>> {
    let words = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let line = LogLine {
        time: words(time),
        stream: words(stream),
        text: words(text),
        partial,
    };
    let mut shown = serde_json::to_vec(&line).ok()?;
    shown.push(b'\n');
    Some(shown)
}

/// Whether a line of the file is the end of one of the program's.
fn ends(shown: &[u8]) -> bool {
    shown.last() == Some(&b'\n')
}

/// Turns bytes of the files into text for people.
struct Reader {
    wish: Wish,
    rest: Vec<u8>,
    begins: bool,
}

impl Reader {
    fn take(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.rest.extend_from_slice(bytes);
        let mut told = Vec::new();
        let mut from = 0;
        while let Some(end) = self.rest[from..].iter().position(|byte| *byte == b'\n') {
            let line = &self.rest[from..from + end];
            if let Some(shown) = shown(line, &self.wish, self.begins) {
                self.begins = ends(&shown);
                told.extend(shown);
            }
            from += end + 1;
        }
        self.rest.drain(..from);
        told
    }
}

/// Tells a log.
pub async fn tell(path: PathBuf, wish: Wish, mut feed: Feed) {
    if let Err(problem) = tell_all(path, wish, &mut feed).await {
        let words = error::in_words(&problem);
        // Who has gone needs no words, and who is there reads why it ends.
        let _gone = feed.text(format!("[parhelion: {words}]\n")).await;
    }
}

async fn tell_all(path: PathBuf, wish: Wish, feed: &mut Feed) -> Result<()> {
    let events = match wish.follow {
        true => Some(watch_folder(&path)?),
        false => None,
    };
    let (from, tail) = (path.clone(), wish.clone());
    let opened = tokio::task::spawn_blocking(move || open(&from, &tail)).await;
    let mut files = opened.context("a thread that reads")??;
    let mut reader = Reader {
        wish,
        rest: Vec::new(),
        begins: true,
    };
    let mut last = None;
    while let Some(file) = files.pop_front() {
        let Some(file) = drain(file, &mut reader, feed).await? else {
            return Ok(());
        };
        last = Some(file);
    }
    let Some(events) = events else { return Ok(()) };
    follow(&path, last, &events, &mut reader, feed).await
}

/// Goes on with the newest file, and with those that come after it.
async fn follow(
    path: &Path,
    mut last: Option<File>,
    events: &AsyncFd<OwnedFd>,
    reader: &mut Reader,
    feed: &mut Feed,
) -> Result<()> {
    loop {
        // What is new is looked for before the old one is read to its end: nothing is written to that any more then.
        let next = next_file(path, last.as_ref())?;
        if let Some(file) = last.take() {
            match drain(file, reader, feed).await? {
                Some(file) => last = Some(file),
                None => return Ok(()),
            }
        }
        if let Some(next) = next {
            last = Some(next);
            continue;
        }
        tokio::select! {
            ready = events.readable() => {
                let mut ready = ready.context("inotify")?;
                let mut buffer = [0; 4096];
                // What has happened is seen in the files; the events only wake.
                while rustix::io::read(events.get_ref(), &mut buffer).is_ok() {}
                ready.clear_ready();
            }
            () = feed.gone() => return Ok(()),
        }
    }
}

/// The file that comes after this one; None while this one is the newest.
fn next_file(path: &Path, last: Option<&File>) -> Result<Option<File>> {
    let Some(last) = last else { return at(path) };
    let last = identity(last)?;
    let Some(newest) = at(path)? else {
        return Ok(None);
    };
    if identity(&newest)? == last {
        return Ok(None);
    }
    let mut next = None;
    for file in all(path)? {
        if identity(&file)? == last {
            break;
        }
        next = Some(file);
    }
    Ok(next)
}

/// What tells a file from all others while it is open.
fn identity(file: &File) -> Result<(u64, u64)> {
    let about = file.metadata().context("the log")?;
    Ok((about.dev(), about.ino()))
}

/// How often the files are looked for anew while the keeper renames them.
const LOOKS: usize = 1000;

/// So many numbers without a file are the end: while files are renamed, one is missing among them.
const GAP: usize = 3;

/// All files of a log, the newest first, none of them left out or there twice although the keeper may be renaming them.
fn all(path: &Path) -> Result<Vec<File>> {
    let mut before = numbered(path)?;
    for _ in 1..LOOKS {
        let files = numbered(path)?;
        // A new file is made with its first line.
        let first = files.first().map_or(0, |file| file.0.min(1));
        let is_whole = files
            .iter()
            .zip(first..)
            .all(|(file, number)| file.0 == number);
        let names = |files: &[Numbered]| -> Vec<_> {
            files.iter().map(|(number, id, _)| (*number, *id)).collect()
        };
        let is_at_rest = is_whole && names(&files) == names(&before);
        before = files;
        if is_at_rest {
            break;
        }
    }
    Ok(before.into_iter().map(|(_, _, file)| file).collect())
}

/// A file's number, what tells it from others, and itself.
type Numbered = (usize, (u64, u64), File);

/// The files with their numbers, the newest first.
fn numbered(path: &Path) -> Result<Vec<Numbered>> {
    let mut files: Vec<Numbered> = Vec::new();
    for number in 0.. {
        if let Some(file) = at(&older(path, number))? {
            files.push((number, identity(&file)?, file));
        } else if number > files.last().map_or(0, |file| file.0) + GAP {
            break;
        }
    }
    Ok(files)
}

/// Tells the rest of a file; None when nobody listens any more.
async fn drain(file: File, reader: &mut Reader, feed: &mut Feed) -> Result<Option<File>> {
    let mut file = file;
    loop {
        let read = tokio::task::spawn_blocking(move || {
            let mut block = vec![0; BLOCK];
            let count = file.read(&mut block)?;
            block.truncate(count);
            std::io::Result::Ok((file, block))
        });
        let (back, block) = read
            .await
            .context("a thread that reads")?
            .context("the log")?;
        file = back;
        if block.is_empty() {
            return Ok(Some(file));
        }
        let text = reader.take(&block);
        if !text.is_empty()
            && let Err(Gone) = feed.text(text).await
        {
            return Ok(None);
        }
    }
}

fn watch_folder(path: &Path) -> Result<AsyncFd<OwnedFd>> {
    let folder = path.parent().context("a log is in a directory")?;
    let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
    let events = inotify::init(flags).context("inotify_init1: too many who follow a log?")?;
    let wanted = inotify::WatchFlags::MODIFY
        | inotify::WatchFlags::CREATE
        | inotify::WatchFlags::MOVED_TO
        | inotify::WatchFlags::DELETE_SELF;
    inotify::add_watch(&events, folder, wanted)
        .with_context(|| format!("inotify of {folder:?}"))?;
    polled(events).context("inotify")
}

/// The file that was begun so many rotations before the newest.
fn older(path: &Path, number: usize) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    if number > 0 {
        name.push(format!(".{number}"));
    }
    PathBuf::from(name)
}

fn at(path: &Path) -> Result<Option<File>> {
    match File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        opened => opened.map(Some).with_context(|| format!("{path:?}")),
    }
}

/// The files with what is wanted of what is there, the oldest first, each at the place from which it is told.
fn open(path: &Path, wish: &Wish) -> Result<VecDeque<File>> {
    let mut files: VecDeque<File> = all(path)?.into_iter().rev().collect();
    if let Some(tail) = wish.tail {
        seek(&mut files, tail, wish)?;
    }
    Ok(files)
}

/// Moves to where the last lines begin.
fn seek(files: &mut VecDeque<File>, tail: usize, wish: &Wish) -> Result<()> {
    let mut starts: VecDeque<(usize, u64)> = VecDeque::new();
    let mut begins = true;
    let mut end = (0, 0);
    for (index, file) in files.iter_mut().enumerate() {
        let mut lines = BufReader::new(&mut *file);
        let (mut place, mut line) = (0, Vec::new());
        while lines.read_until(b'\n', &mut line).context("the log")? > 0 {
            let text = line.strip_suffix(b"\n").unwrap_or(&line);
            if let Some(shown) = shown(text, wish, false) {
                if begins {
                    starts.push_back((index, place));
                }
                begins = ends(&shown);
            }
            if starts.len() > tail {
                starts.pop_front();
            }
            place += line.len() as u64;
            line.clear();
        }
        end = (index, place);
    }
    let (first, place) = starts.front().copied().unwrap_or(end);
    files.drain(..first);
    for (index, file) in files.iter_mut().enumerate() {
        let from = if index == 0 { place } else { 0 };
        file.seek(SeekFrom::Start(from)).context("the log")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(files: &[(&str, &str)], wish: &Wish) -> String {
        static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let name = format!("parhelion-follow-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir(&folder).unwrap();
        for (name, text) in files {
            std::fs::write(folder.join(name), text).unwrap();
        }
        let mut reader = Reader {
            wish: wish.clone(),
            rest: Vec::new(),
            begins: true,
        };
        let mut all = Vec::new();
        for mut file in open(&folder.join("log"), wish).unwrap() {
            let mut text = Vec::new();
            file.read_to_end(&mut text).unwrap();
            all.extend(reader.take(&text));
        }
        std::fs::remove_dir_all(folder).unwrap();
        String::from_utf8(all).unwrap()
    }

    const FILES: [(&str, &str); 2] = [
        ("log.1", "T1 stdout F one\nT2 stderr F two\nT3 stdout P thr"),
        ("log", "\nT4 stdout F four\nT5 stderr F five\n"),
    ];

    #[test]
    fn lines_come_in_order_across_files() {
        let all = told(&FILES, &Wish::default());
        assert_eq!(all, "one\ntwo\nthrfour\nfive\n");
    }

    #[test]
    fn the_last_lines_are_those_of_the_stream() {
        let wish = |tail, stream: Option<&str>| Wish {
            tail: Some(tail),
            stream: stream.map(str::to_owned),
            ..Wish::default()
        };
        assert_eq!(told(&FILES, &wish(1, None)), "five\n");
        assert_eq!(told(&FILES, &wish(2, Some("stderr"))), "two\nfive\n");
        assert_eq!(told(&FILES, &wish(0, None)), "");
        assert_eq!(told(&FILES, &wish(9, Some("stdout"))), "one\nthrfour\n");
    }

    #[test]
    fn moments_stand_before_lines_and_not_inside() {
        let wish = Wish {
            timestamps: true,
            stream: Some("stdout".to_owned()),
            ..Wish::default()
        };
        assert_eq!(told(&FILES, &wish), "T1 one\nT3 thrfour\n");
        assert_eq!(told(&[], &wish), "");
    }

    #[test]
    fn each_line_is_json_where_that_is_asked_for() {
        let wish = Wish {
            json: true,
            tail: Some(3),
            stream: Some("stdout".to_owned()),
            ..Wish::default()
        };
        let told = told(&FILES, &wish);
        let lines: Vec<LogLine> = told
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let words = |line: &LogLine| (line.time.clone(), line.text.clone(), line.partial);
        let expected = [
            ("T1", "one", false),
            ("T3", "thr", true),
            ("T4", "four", false),
        ];
        let expected = expected.map(|(time, text, part)| (time.to_owned(), text.to_owned(), part));
        assert_eq!(lines.iter().map(words).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn no_line_is_lost_or_doubled_while_files_are_renamed() {
        let folder = std::env::temp_dir().join(format!("parhelion-rotated-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let path = folder.join("log");
        std::fs::write(&path, "T stdout F 0\n").unwrap();
        let ended = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            // As the keeper does it, with one line a file.
            scope.spawn(|| {
                for line in 1..60 {
                    for number in (0..line).rev() {
                        std::fs::rename(older(&path, number), older(&path, number + 1)).unwrap();
                    }
                    std::fs::write(&path, format!("T stdout F {line}\n")).unwrap();
                }
                ended.store(true, std::sync::atomic::Ordering::Relaxed);
            });
            let mut is_last = false;
            while !is_last {
                is_last = ended.load(std::sync::atomic::Ordering::Relaxed);
                let mut text = String::new();
                for mut file in open(&path, &Wish::default()).unwrap() {
                    file.read_to_string(&mut text).unwrap();
                }
                let lines = text.lines().enumerate();
                for (number, line) in lines.clone() {
                    assert_eq!(line, format!("T stdout F {number}"), "{text}");
                }
                assert!(!is_last || lines.count() == 60, "{text}");
            }
        });
        std::fs::remove_dir_all(folder).unwrap();
    }
}
