//! A disk that remembers each thing that was done to it, and what of it was made safe: tests take it back
//! to any moment, lose what was not safe in any way, and let any call fail.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use parhelion::store::embedded::{File, Medium};
use parhelion::sys::{Errno, SysError, SysResult};

/// One call.
#[derive(Debug, Clone)]
pub enum Call {
    Create {
        name: String,
        file: usize,
    },
    Write {
        file: usize,
        offset: usize,
        bytes: Vec<u8>,
    },
    Truncate {
        file: usize,
        length: usize,
    },
    SyncFile {
        file: usize,
    },
    Rename {
        from: String,
        to: String,
    },
    Remove {
        name: String,
    },
    SyncNames,
    Publish,
}

/// Which call is to fail, and how.
#[derive(Debug, Clone, Copy)]
pub struct Failure {
    /// How many calls go well before.
    pub at: usize,
    /// The answer.
    pub errno: Errno,
    /// Whether all later calls fail as well.
    pub forever: bool,
    /// Of how many eighths of a write it had before.
    pub eighths: usize,
}

/// What a directory contains.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Image {
    pub is_new: bool,
    pub files: BTreeMap<String, Vec<u8>>,
}

#[derive(Default)]
struct Inner {
    start: Image,
    calls: Vec<Call>,
    files: usize,
    asked: usize,
    failure: Option<Failure>,
}

/// The disk; clones are the same one.
#[derive(Clone, Default)]
pub struct Disk(Arc<Mutex<Inner>>);

/// What happens to writes that were not made safe when power goes.
#[derive(Debug, Clone, Copy)]
pub enum Loss {
    /// All of them are there.
    Nothing,
    /// None of them is there.
    All,
    /// The last one is there up to so many bytes.
    After(usize),
    /// So many calls to each file are there, and later ones are not.
    First(usize),
    /// Pieces of so many bytes are there or not, as the bits of the seed say.
    Pieces { size: usize, seed: u64 },
}

impl Disk {
    /// A disk with something on it, all of it safe.
    pub fn with(start: Image) -> Disk {
        let inner = Inner {
            start,
            ..Inner::default()
        };
        Disk(Arc::new(Mutex::new(inner)))
    }

    /// An empty one.
    pub fn empty() -> Disk {
        let files = BTreeMap::new();
        Disk::with(Image {
            is_new: true,
            files,
        })
    }

    pub fn fail(&self, failure: Option<Failure>) {
        self.0.lock().unwrap().failure = failure;
    }

    pub fn medium(&self) -> Box<dyn Medium> {
        Box::new(self.clone())
    }

    /// How many calls were made, failed ones without effect not counted.
    pub fn len(&self) -> usize {
        self.0.lock().unwrap().calls.len()
    }

    /// How many calls were tried.
    pub fn asked(&self) -> usize {
        self.0.lock().unwrap().asked
    }

    /// What is there after so many calls, if nothing is lost.
    pub fn image(&self, calls: usize) -> Image {
        self.crash(calls, usize::MAX, Loss::Nothing)
    }

    /// What is there when power goes after so many calls, with so many of the changes of names that were
    /// not safe.
    pub fn crash(&self, calls: usize, names: usize, loss: Loss) -> Image {
        let inner = self.0.lock().unwrap();
        let mut replay = Replay::of(&inner.start);
        for call in &inner.calls[..calls] {
            replay.call(call);
        }
        replay.end(names, loss)
    }

    /// How many changes of names are not safe after so many calls, and how long the last write is that is
    /// not.
    pub fn unsafe_after(&self, calls: usize) -> (usize, usize) {
        let inner = self.0.lock().unwrap();
        let mut replay = Replay::of(&inner.start);
        for call in &inner.calls[..calls] {
            replay.call(call);
        }
        let pending = replay.files.values().flat_map(|file| &file.pending);
        let mut written = pending.filter_map(|call| match call {
            Call::Write { bytes, .. } => Some(bytes.len()),
            _ => None,
        });
        (replay.pending.len(), written.next_back().unwrap_or(0))
    }

    /// Counts a call, or lets it fail; for a write how much of it is done.
    fn ask(&self, call: Call) -> SysResult<()> {
        let mut inner = self.0.lock().unwrap();
        let number = inner.asked;
        inner.asked += 1;
        let failing = |f: &Failure| number == f.at || f.forever && number > f.at;
        let Some(failure) = inner.failure.filter(failing) else {
            inner.calls.push(call);
            return Ok(());
        };
        let error = SysError::new(format!("{call:?}"), failure.errno);
        if let Call::Write {
            file,
            offset,
            mut bytes,
        } = call
        {
            bytes.truncate(bytes.len() * failure.eighths / 8);
            inner.calls.push(Call::Write {
                file,
                offset,
                bytes,
            });
        }
        Err(error)
    }
}

/// A file as it goes through the calls.
#[derive(Default)]
struct Inode {
    safe: Vec<u8>,
    pending: Vec<Call>,
}

struct Replay {
    is_new: bool,
    files: BTreeMap<usize, Inode>,
    safe: BTreeMap<String, usize>,
    pending: Vec<Call>,
}

impl Replay {
    fn of(start: &Image) -> Replay {
        let mut replay = Replay {
            is_new: start.is_new,
            files: BTreeMap::new(),
            safe: BTreeMap::new(),
            pending: Vec::new(),
        };
        for (number, (name, bytes)) in start.files.iter().enumerate() {
            let file = usize::MAX - number;
            replay.safe.insert(name.clone(), file);
            replay.files.entry(file).or_default().safe.clone_from(bytes);
        }
        replay
    }

    fn call(&mut self, call: &Call) {
        match call {
            Call::Create { .. } | Call::Rename { .. } | Call::Remove { .. } => {
                self.pending.push(call.clone());
            }
            Call::Write { file, .. } | Call::Truncate { file, .. } => {
                self.files
                    .entry(*file)
                    .or_default()
                    .pending
                    .push(call.clone());
            }
            Call::SyncFile { file } => {
                let inode = self.files.entry(*file).or_default();
                inode.safe = inode.after(Loss::Nothing);
                inode.pending.clear();
            }
            Call::SyncNames => {
                let pending = std::mem::take(&mut self.pending);
                pending.iter().for_each(|call| rename(&mut self.safe, call));
            }
            Call::Publish => self.is_new = false,
        }
    }

    fn end(mut self, names: usize, loss: Loss) -> Image {
        for call in self.pending.iter().take(names) {
            rename(&mut self.safe, call);
        }
        let content = |file| {
            self.files
                .get(file)
                .map_or(Vec::new(), |inode| inode.after(loss))
        };
        let files = self
            .safe
            .iter()
            .map(|(name, file)| (name.clone(), content(file)));
        Image {
            is_new: self.is_new,
            files: files.collect(),
        }
    }
}

fn rename(names: &mut BTreeMap<String, usize>, call: &Call) {
    match call {
        Call::Create { name, file } => drop(names.insert(name.clone(), *file)),
        Call::Rename { from, to } => {
            if let Some(file) = names.remove(from) {
                names.insert(to.clone(), file);
            }
        }
        Call::Remove { name } => drop(names.remove(name)),
        other => panic!("{other:?} changes no name"),
    }
}

impl Inode {
    fn after(&self, loss: Loss) -> Vec<u8> {
        let mut content = self.safe.clone();
        let last = self.pending.len().saturating_sub(1);
        for (number, call) in self.pending.iter().enumerate() {
            match (call, loss) {
                (_, Loss::All) => {}
                (_, Loss::First(count)) if number >= count => {}
                (Call::Truncate { length, .. }, _) => content.resize(*length, 0),
                (Call::Write { offset, bytes, .. }, Loss::After(length)) if number == last => {
                    write(&mut content, *offset, &bytes[..length.min(bytes.len())]);
                }
                (Call::Write { offset, bytes, .. }, Loss::Pieces { size, seed }) => {
                    for (piece, bytes) in bytes.chunks(size).enumerate() {
                        if seed.rotate_right(piece as u32 % 64) & 1 == 1 {
                            write(&mut content, offset + piece * size, bytes);
                        }
                    }
                }
                (Call::Write { offset, bytes, .. }, _) => write(&mut content, *offset, bytes),
                (other, _) => panic!("{other:?} changes no content"),
            }
        }
        content
    }
}

fn write(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    content.resize(content.len().max(end), 0);
    content[offset..end].copy_from_slice(bytes);
}

impl Medium for Disk {
    fn path(&self) -> &Path {
        Path::new("/disk")
    }

    fn is_new(&self) -> bool {
        self.image(self.len()).is_new
    }

    fn read(&self, name: &str) -> SysResult<Option<Vec<u8>>> {
        Ok(self.image(self.len()).files.remove(name))
    }

    fn create(&self, name: &str) -> SysResult<Box<dyn File>> {
        let file = {
            let mut inner = self.0.lock().unwrap();
            inner.files += 1;
            inner.files
        };
        let name = name.to_owned();
        self.ask(Call::Create { name, file })?;
        Ok(Box::new(OpenFile(self.clone(), file)))
    }

    fn rename(&self, from: &str, to: &str) -> SysResult<()> {
        let (from, to) = (from.to_owned(), to.to_owned());
        self.ask(Call::Rename { from, to })
    }

    fn remove(&self, name: &str) -> SysResult<()> {
        let name = name.to_owned();
        self.ask(Call::Remove { name })
    }

    fn sync(&self) -> SysResult<()> {
        self.ask(Call::SyncNames)
    }

    fn publish(&mut self) -> SysResult<()> {
        if self.is_new() {
            self.ask(Call::Publish)?;
        }
        Ok(())
    }
}

struct OpenFile(Disk, usize);

impl File for OpenFile {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> SysResult<()> {
        let (file, bytes) = (self.1, bytes.to_vec());
        let offset = usize::try_from(offset).unwrap();
        self.0.ask(Call::Write {
            file,
            offset,
            bytes,
        })
    }

    fn truncate(&mut self, length: u64) -> SysResult<()> {
        let length = usize::try_from(length).unwrap();
        self.0.ask(Call::Truncate {
            file: self.1,
            length,
        })
    }

    fn sync(&mut self) -> SysResult<()> {
        self.0.ask(Call::SyncFile { file: self.1 })
    }
}
