//! What has happened on this host: numbered lines of JSON on disk, and the last of them in memory.
//!
//! Two files of [`LINES`] lines at most: `events`, and `events.1` from before. A line is written with one
//! call; one that was torn by a crash or a full disk is left out when they are read. Numbers are reserved on disk in
//! blocks before they are used, so that none comes twice although lines are not synchronised. What the disk does not
//! take waits in memory, and is told all the same.

use std::collections::{HashMap, VecDeque};
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::disk;
use crate::api::Event;
use crate::error;
use crate::job::JobId;

/// How many events a file has, and how many are in memory.
const LINES: usize = 4096;

/// How many numbers are reserved at once.
const BLOCK: u64 = 1000;

/// A number that no event ever gets: what is larger in a file is damage.
const LARGEST: u64 = u64::MAX / 2;

/// The kind of an event: nothing is left of an instance.
pub const REMOVED: &str = "removed";

/// A line of the file.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    #[serde(flatten)]
    event: Event,
    /// The attempt that it tells of, so that none is told twice after a restart of the agent.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    attempt: Option<u64>,
}

/// What is to be noted.
#[derive(Debug)]
pub struct Note<'a> {
    /// The job.
    pub job: Option<&'a JobId>,
    /// The instance.
    pub instance: Option<&'a str>,
    /// What has happened, one word.
    pub kind: &'a str,
    /// Why and how.
    pub cause: String,
    /// The attempt that it tells of.
    pub attempt: Option<u64>,
}

/// The last attempts that were told of, for each instance: begun and ended.
pub type Told = HashMap<String, (u64, u64)>;

/// The writing end.
#[derive(Debug)]
pub struct Log {
    directory: PathBuf,
    host: String,
    /// None until it could be opened.
    file: Option<File>,
    /// Whether what was written last may have no end.
    is_torn: bool,
    /// Lines that are not on disk yet, the oldest first.
    behind: VecDeque<Vec<u8>>,
    /// Why not.
    fault: Option<String>,
    lines: usize,
    next: u64,
    reserved: u64,
    ring: Arc<Ring>,
    last: watch::Sender<u64>,
}

/// The last events.
#[derive(Debug, Default)]
struct Ring(Mutex<VecDeque<Arc<Event>>>);

impl Ring {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Arc<Event>>> {
        // Nothing in it is half done when somebody panics.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, event: Event) {
        let mut ring = self.lock();
        if ring.len() >= LINES {
            ring.pop_front();
        }
        ring.push_back(Arc::new(event));
    }
}

impl Log {
    /// Opens the log in an agent's directory, with what was told of attempts.
    ///
    /// # Errors
    ///
    /// It can not be read. One that can not be written is written later: [`Log::fault`].
    pub fn open(directory: &Path, host: &str) -> Result<(Log, Told)> {
        let ring = Ring::default();
        let mut told = Told::new();
        let mut lines = 0;
        for name in ["events.1", "events"] {
            lines = 0;
            for line in read(&directory.join(name))? {
                lines += 1;
                let last = ring.lock().back().map_or(0, |event| event.number);
                if line.event.number <= last {
                    continue; // written once more, after a line that had all but its end
                }
                note(&mut told, &line);
                ring.push(line.event);
            }
        }
        let last = ring.lock().back().map_or(0, |event| event.number);
        let reserved = std::fs::read_to_string(directory.join("events.next"));
        let reserved = reserved.ok().and_then(|text| text.trim().parse().ok());
        let reserved = reserved.filter(|number: &u64| *number <= LARGEST);
        let next = reserved.unwrap_or(0).max(last) + 1;
        let mut log = Log {
            directory: directory.to_owned(),
            host: host.to_owned(),
            file: None,
            is_torn: true,
            behind: VecDeque::new(),
            fault: None,
            lines,
            next,
            reserved: 0,
            ring: Arc::new(ring),
            last: watch::Sender::new(last),
        };
        log.catch_up();
        Ok((log, told))
    }

    /// Why what has happened last is not on disk, if it is not.
    pub fn fault(&self) -> Option<&str> {
        self.fault.as_deref()
    }

    /// Writes what is not on disk yet, as far as the disk takes it.
    pub fn catch_up(&mut self) {
        let written = self.write();
        let fault = written.err().map(|error| error::in_words(&error));
        if let Some(fault) = fault.as_ref().filter(|_| self.fault.is_none()) {
            error::warn(&format!("events are not on disk: {fault}"));
        }
        self.fault = fault;
    }

    fn reserve(&mut self) -> Result<()> {
        let reserved = self.next + BLOCK;
        disk::replace(
            &self.directory.join("events.next"),
            reserved.to_string().as_bytes(),
        )?;
        self.reserved = reserved;
        Ok(())
    }

    /// Notes an event. What can not be written is told all the same.
    pub fn add(&mut self, note: Note<'_>) {
        let event = Event {
            number: self.next,
            time: crate::lifecycle::facts::now(),
            host: self.host.clone(),
            job: note.job.cloned(),
            instance: note.instance.map(str::to_owned),
            kind: note.kind.to_owned(),
            cause: note.cause,
        };
        let line = Line {
            event,
            attempt: note.attempt,
        };
        // It can be put into JSON; if it could not, it would be told all the same.
        if let Ok(mut text) = serde_json::to_vec(&line) {
            text.push(b'\n');
            self.behind.push_back(text);
        }
        if self.behind.len() > LINES {
            self.behind.pop_front();
        }
        self.next += 1;
        self.catch_up();
        self.ring.push(line.event);
        self.last.send_replace(self.next - 1);
    }

    /// Notes one more, and looks whether its number is above all that are known, and reserved on disk.
    ///
    /// # Panics
    ///
    /// It is not.
    #[cfg(feature = "fuzzing")]
    pub fn check_next(&mut self) {
        let before = self.ring.lock().back().map_or(0, |event| event.number);
        let number = self.next;
        self.add(Note {
            job: None,
            instance: None,
            kind: "fuzzed",
            cause: String::new(),
            attempt: None,
        });
        assert!(number > before, "{number} after {before}");
        assert!(number < self.reserved, "{number} of {}", self.reserved);
        assert_eq!(self.fault, None);
    }

    fn write(&mut self) -> Result<()> {
        if self.file.is_none() {
            self.file = Some(open(&self.directory)?);
        }
        if self.next > self.reserved {
            self.reserve()?;
        }
        while let Some(text) = self.behind.front() {
            if self.lines >= LINES {
                self.turn()?;
                continue;
            }
            let mut line = if self.is_torn {
                vec![b'\n']
            } else {
                Vec::new()
            };
            line.extend(text);
            // A part of it may be there when it fails.
            self.is_torn = true;
            let file = self.file.as_mut().context("open events")?;
            let written = file.write_all(&line);
            written.with_context(|| format!("write {:?}", self.directory.join("events")))?;
            self.is_torn = false;
            self.lines += 1;
            self.behind.pop_front();
        }
        Ok(())
    }

    /// Begins a new file.
    fn turn(&mut self) -> Result<()> {
        let (now, before) = (
            self.directory.join("events"),
            self.directory.join("events.1"),
        );
        std::fs::rename(&now, &before).with_context(|| format!("rename {now:?}"))?;
        (self.file, self.lines, self.is_torn) = (None, 0, false);
        self.file = Some(open(&self.directory)?);
        Ok(())
    }

    /// The reading end.
    pub fn reader(&self) -> Reader {
        Reader {
            ring: self.ring.clone(),
            last: self.last.subscribe(),
        }
    }
}

fn open(directory: &Path) -> Result<File> {
    let path = directory.join("events");
    let mut options = OpenOptions::new();
    let opened = options.append(true).create(true).mode(0o600).open(&path);
    opened.with_context(|| format!("open {path:?}"))
}

/// The lines of a file that are whole.
fn read(path: &Path) -> Result<Vec<Line>> {
    let text = match std::fs::read(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        read => read.with_context(|| format!("read {path:?}"))?,
    };
    let lines = text.split(|byte| *byte == b'\n');
    Ok(lines
        .filter_map(|line| serde_json::from_slice(line).ok())
        .filter(|line: &Line| line.event.number <= LARGEST)
        .collect())
}

fn note(told: &mut Told, line: &Line) {
    let Some(instance) = &line.event.instance else {
        return;
    };
    if line.event.kind == REMOVED {
        // One of the same name counts its attempts from the beginning.
        told.remove(instance);
    }
    let Some(attempt) = line.attempt else {
        return;
    };
    let (begun, ended) = told.entry(instance.clone()).or_default();
    match line.event.kind.as_str() {
        "started" => *begun = attempt.max(*begun),
        _ => (*begun, *ended) = (attempt.max(*begun), attempt.max(*ended)),
    }
}

/// Reads what was noted.
#[derive(Debug, Clone)]
pub struct Reader {
    ring: Arc<Ring>,
    last: watch::Receiver<u64>,
}

impl Reader {
    /// The first event from this number on, waited for if it is yet to come; None when the log is closed.
    pub async fn next(&mut self, from: u64) -> Option<Arc<Event>> {
        loop {
            self.last.mark_unchanged();
            if let Some(event) = self.first(from) {
                return Some(event);
            }
            self.last.changed().await.ok()?;
        }
    }

    fn first(&self, from: u64) -> Option<Arc<Event>> {
        let ring = self.ring.lock();
        let index = ring.partition_point(|event| event.number < from);
        ring.get(index).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let folder =
            std::env::temp_dir().join(format!("agent-events-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }

    fn add(log: &mut Log, kind: &str, attempt: Option<u64>) {
        log.add(Note {
            job: None,
            instance: Some("web"),
            kind,
            cause: "why".into(),
            attempt,
        });
    }

    fn numbers(log: &Log) -> Vec<u64> {
        log.ring.lock().iter().map(|event| event.number).collect()
    }

    #[test]
    fn numbers_go_on_after_a_torn_line_and_none_is_used_twice() {
        let folder = folder("torn");
        let (mut log, _) = Log::open(&folder, "host").unwrap();
        add(&mut log, "started", Some(4));
        add(&mut log, "ended", Some(4));
        add(&mut log, "started", Some(5));
        assert_eq!(numbers(&log), [1, 2, 3]);
        drop(log);
        let path = folder.join("events");
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 9]).unwrap();
        let (mut log, told) = Log::open(&folder, "host").unwrap();
        assert_eq!(told["web"], (4, 4));
        assert_eq!(numbers(&log), [1, 2]);
        add(&mut log, "ended", Some(5));
        let last = *numbers(&log).last().unwrap();
        assert!(last > 3, "{last}");
        drop(log);
        let (log, told) = Log::open(&folder, "host").unwrap();
        assert_eq!(told["web"], (5, 5));
        assert_eq!(numbers(&log), [1, 2, last]);
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_number_that_damage_has_made_is_not_gone_on_from() {
        let folder = folder("damaged");
        let (mut log, _) = Log::open(&folder, "host").unwrap();
        add(&mut log, "started", Some(1));
        drop(log);
        let path = folder.join("events");
        let one = std::fs::read_to_string(&path).unwrap();
        let largest = format!("\"number\":{}", u64::MAX);
        let damaged = one.replace("\"number\":1", &largest);
        // What comes after a larger number was written once more.
        let seven = one.replace("\"number\":1", "\"number\":7007");
        std::fs::write(&path, format!("{damaged}{seven}{one}")).unwrap();
        std::fs::write(folder.join("events.next"), u64::MAX.to_string()).unwrap();
        let (mut log, _) = Log::open(&folder, "host").unwrap();
        add(&mut log, "ended", Some(1));
        assert_eq!(numbers(&log), [7007, 7008]);
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn attempts_of_one_that_was_removed_are_not_those_of_the_next_one() {
        let folder = folder("removed");
        let (mut log, _) = Log::open(&folder, "host").unwrap();
        add(&mut log, "ended", Some(7));
        add(&mut log, REMOVED, None);
        drop(log);
        let (mut log, told) = Log::open(&folder, "host").unwrap();
        assert!(told.is_empty(), "{told:?}");
        add(&mut log, "started", Some(1));
        drop(log);
        let (_, told) = Log::open(&folder, "host").unwrap();
        assert_eq!(told["web"], (1, 0));
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn what_the_disk_does_not_take_is_told_and_written_later_in_its_order() {
        let folder = folder("full");
        let (mut log, _) = Log::open(&folder, "host").unwrap();
        // Nothing can be written there, as where there is no room.
        log.file = Some(File::options().write(true).open("/dev/full").unwrap());
        add(&mut log, "started", Some(1));
        add(&mut log, "ended", Some(1));
        assert_eq!(numbers(&log), [1, 2]);
        let fault = log.fault().unwrap();
        assert!(
            fault.contains("events") && fault.contains("no space left"),
            "{fault}"
        );
        // A half of the first line was taken.
        let half = &log.behind[0][..20];
        std::fs::write(folder.join("events"), half).unwrap();
        log.file = Some(super::open(&folder).unwrap());
        add(&mut log, "started", Some(2));
        assert_eq!(log.fault(), None);
        drop(log);
        let (log, told) = Log::open(&folder, "host").unwrap();
        assert_eq!(numbers(&log), [1, 2, 3]);
        assert_eq!(told["web"], (2, 1));
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_line_that_lacked_only_its_end_is_not_told_twice() {
        let folder = folder("twice");
        let (mut log, _) = Log::open(&folder, "host").unwrap();
        add(&mut log, "started", Some(1));
        drop(log);
        let path = folder.join("events");
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, [&whole[..whole.len() - 1], &whole[..]].concat()).unwrap();
        let (log, _) = Log::open(&folder, "host").unwrap();
        assert_eq!(numbers(&log), [1]);
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn files_and_memory_are_bounded() {
        let folder = folder("bounded");
        let (mut log, _) = Log::open(&folder, "host").unwrap();
        for _ in 0..2 * LINES + 10 {
            add(&mut log, "started", None);
        }
        assert_eq!(log.ring.lock().len(), LINES);
        let lines = |name: &str| read(&folder.join(name)).unwrap().len();
        assert_eq!((lines("events"), lines("events.1")), (10, LINES));
        drop(log);
        let (log, _) = Log::open(&folder, "host").unwrap();
        assert_eq!(log.ring.lock().len(), LINES);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
