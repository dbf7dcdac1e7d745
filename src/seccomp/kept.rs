//! Compiled filters, kept for the next container with the same profile.
//!
//! A file each, below the state of all containers. It holds the text of `linux.seccomp` that it was made of,
//! which has to be that of the container byte for byte: no two profiles can be taken for each other, whatever
//! the file is called. It is used only when it belongs to this user alone, was written by a runtime of the
//! same sources, and is whole; else the profile is compiled, and the file replaced.
//!
//! Kept is only what the text alone decides: no listener, and nothing that had to be told to a person.

use std::fs::File;
use std::hash::{DefaultHasher, Hasher as _};
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat};

use super::profile::FIELD;
use super::{Plan, compile, raw};
use crate::error;
use crate::sys::attributes::effective_uid;
use crate::sys::seccomp::{Instruction, LONGEST};
use crate::sys::{Call as _, Errno, SysResult};

/// The folder of all of them. No container's id has such a name.
const FOLDER: &str = "@seccomp";

/// How many are kept. A host has a handful of profiles; a profile for each container would fill its memory.
const MOST: usize = 32;

/// The longest text that is kept.
const LONGEST_TEXT: usize = 256 << 10;

/// What a filter is made by: the sources that read, check and compile profiles, and the machine's kind.
const MAKER: &str = concat!(env!("PARHELION_COMPILER"), "-", env!("PARHELION_TARGET"));

const HEADER: usize = 3 * 4 + 8;

/// A fifo in the place of a file would be waited for without NONBLOCK.
const READ: OFlags = OFlags::RDONLY
    .union(OFlags::CLOEXEC)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK);

/// The filters that are kept below a folder.
#[derive(Debug)]
pub struct Kept {
    folder: PathBuf,
}

impl Kept {
    /// Those below `root`, the folder of all containers' state.
    #[must_use]
    pub fn below(root: &Path) -> Kept {
        Kept {
            folder: root.join(FOLDER),
        }
    }

    /// The filter for a profile with exactly this text; None where there is none that can be trusted, and
    /// where every decision is to be logged, as a filter that was found tells none.
    #[must_use]
    pub fn find(&self, text: &str) -> Option<Plan> {
        if error::is_debugging() {
            return None;
        }
        let folder = self.open().ok()?;
        let file = rustix::fs::openat(&folder, name(text), READ, Mode::empty()).ok()?;
        let stat = rustix::fs::fstat(&file).ok()?;
        let size = usize::try_from(stat.st_size).ok()?;
        let whole = text.len() + HEADER..=text.len() + HEADER + LONGEST * size_of::<Instruction>();
        if !is_own(&stat, FileType::RegularFile) || !whole.contains(&size) {
            return None;
        }
        let mut bytes = Vec::with_capacity(size + 1);
        let mut file = File::from(file).take(size as u64 + 1);
        file.read_to_end(&mut bytes).ok()?;
        read(&bytes, text)
    }

    /// Keeps a filter, compiled of this text; the oldest goes where there are too many. That it can not be
    /// kept hinders nobody, so it is told to the log of decisions alone.
    pub fn keep(&self, text: &str, plan: &Plan) {
        if plan.listener.is_some() || plan.field != FIELD || text.len() > LONGEST_TEXT {
            return;
        }
        if let Err(failed) = self.write(text, plan) {
            error::debug(|| format!("{FIELD}: the compiled filter is not kept: {failed}"));
        }
    }

    fn write(&self, text: &str, plan: &Plan) -> SysResult<()> {
        match rustix::fs::mkdir(&self.folder, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => Err(errno).call(|| format!("mkdir({:?})", self.folder))?,
        }
        let folder = self.open()?;
        self.make_room(&folder)?;
        // Its own name until it is whole: somebody else may write the same one now.
        let new = format!("{}.{}", name(text), std::process::id());
        let call = |call: &str| format!("{call}({:?})", self.folder.join(&new));
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let _of_a_killed_one = rustix::fs::unlinkat(&folder, &new, AtFlags::empty());
        let file = rustix::fs::openat(&folder, &new, flags, Mode::RUSR | Mode::WUSR)
            .call(|| call("open"))?;
        let written = File::from(file).write_all(&bytes(text, plan));
        written
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
            .and_then(|()| rustix::fs::renameat(&folder, &new, &folder, name(text)))
            .inspect_err(|_| {
                // What could not be written whole is no use; the failure before is the one to tell.
                let _ = rustix::fs::unlinkat(&folder, &new, AtFlags::empty());
            })
            .call(|| call("write"))
    }

    /// The folder, if it is this user's alone.
    fn open(&self) -> SysResult<OwnedFd> {
        let call = || format!("open({:?})", self.folder);
        let flags = READ | OFlags::DIRECTORY;
        let folder = rustix::fs::openat(CWD, &self.folder, flags, Mode::empty()).call(call)?;
        let stat = rustix::fs::fstat(&folder).call(call)?;
        match is_own(&stat, FileType::Directory) {
            true => Ok(folder),
            false => {
                Err(Errno::PERM).call(|| format!("{:?} is not this user's alone", self.folder))
            }
        }
    }

    /// Removes the oldest until there is room for one more.
    fn make_room(&self, folder: &OwnedFd) -> SysResult<()> {
        let call = || format!("list {:?}", self.folder);
        let mut all = Vec::new();
        for entry in Dir::read_from(folder).call(call)? {
            let name = entry.call(call)?.file_name().to_owned();
            if name == c"." || name == c".." {
                continue;
            }
            let stat = rustix::fs::statat(folder, &name, AtFlags::SYMLINK_NOFOLLOW);
            // One that is gone meanwhile takes no room.
            all.extend(stat.map(|stat| ((stat.st_mtime, stat.st_mtime_nsec), name)));
        }
        all.sort();
        for (_, name) in all.iter().take((all.len() + 1).saturating_sub(MOST)) {
            match rustix::fs::unlinkat(folder, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => Err(errno).call(|| format!("unlink({name:?})"))?,
            }
        }
        Ok(())
    }
}

/// A file or folder that nobody but this user can have written to.
fn is_own(stat: &Stat, kind: FileType) -> bool {
    FileType::from_raw_mode(stat.st_mode) == kind
        && stat.st_uid == effective_uid()
        && stat.st_mode & 0o077 == 0
}

fn name(text: &str) -> String {
    format!("{:016x}", digest(&[text.as_bytes()]))
}

/// To find a file and to see that it is whole; who wants to write another one owns it.
fn digest(parts: &[&[u8]]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(MAKER.as_bytes());
    parts.iter().for_each(|part| hasher.write(part));
    hasher.finish()
}

/// A digest of the maker and all that follows; the count of instructions, flags, their bytes, the text.
fn bytes(text: &str, plan: &Plan) -> Vec<u8> {
    let mut bytes = vec![0; size_of::<u64>()];
    for number in [plan.program.len() as u32, plan.flags, text.len() as u32] {
        bytes.extend(number.to_ne_bytes());
    }
    for one in &plan.program {
        bytes.extend(one.code.to_ne_bytes());
        bytes.extend([one.jump_true, one.jump_false]);
        bytes.extend(one.k.to_ne_bytes());
    }
    let whole = digest(&[&bytes[size_of::<u64>()..]]);
    bytes[..size_of::<u64>()].copy_from_slice(&whole.to_ne_bytes());
    bytes.extend(text.as_bytes());
    bytes
}

/// The filter in the bytes of a file, if it is one for this text.
fn read(bytes: &[u8], text: &str) -> Option<Plan> {
    let (made, their_text) = bytes.split_at_checked(bytes.len().checked_sub(text.len())?)?;
    let (whole, rest) = made.split_first_chunk()?;
    if their_text != text.as_bytes() || digest(&[rest]) != u64::from_ne_bytes(*whole) {
        return None;
    }
    let (count, rest) = number(rest)?;
    let (flags, rest) = number(rest)?;
    let (length, program) = number(rest)?;
    let program: Vec<Instruction> = program
        .chunks(size_of::<Instruction>())
        .map(raw::instruction)
        .collect::<Option<_>>()?;
    let as_written = program.len() == count as usize && text.len() == length as usize;
    (as_written && compile::is_program(&program)).then(|| Plan {
        field: FIELD,
        program,
        flags,
        listener: None,
        summary: "as it was compiled before".to_owned(),
    })
}

fn number(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    Some((u32::from_ne_bytes(*number), rest))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{docker, plan};
    use super::*;

    /// A filter, and the text that it was made of.
    fn dockers() -> (String, Plan) {
        (docker().to_string(), plan(docker()).unwrap())
    }

    #[test]
    fn what_is_read_is_what_was_written() {
        let (text, plan) = dockers();
        let found = read(&bytes(&text, &plan), &text).unwrap();
        assert_eq!(found.program, plan.program);
        assert_eq!((found.flags, found.field), (plan.flags, plan.field));
        assert_eq!(found.listener, None);
    }

    #[test]
    fn a_byte_of_another_value_or_too_few_or_many_are_no_filter() {
        let (text, plan) = dockers();
        let whole = bytes(&text, &plan);
        for place in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[place] ^= 1 << (place % 8);
            assert!(read(&damaged, &text).is_none(), "byte {place}");
        }
        for length in 0..whole.len() {
            assert!(read(&whole[..length], &text).is_none(), "{length} bytes");
        }
        assert!(read(&[&whole[..], b" "].concat(), &text).is_none());
        assert!(read(&whole, &text.replacen("accept4", "accept5", 1)).is_none());
    }

    #[test]
    fn whole_is_not_sound() {
        let one = |code, jump_true, jump_false, k| Instruction {
            code,
            jump_true,
            jump_false,
            k,
        };
        const ALLOW: u32 = 0x7fff_0000;
        let sound = vec![
            one(0x20, 0, 0, 60), // load
            one(0x15, 1, 2, 7),  // if equal
            one(0x54, 0, 0, 7),  // and
            one(0x05, 0, 0, 0),  // jump
            one(0x06, 0, 0, ALLOW),
        ];
        let reads = |program: &[Instruction]| {
            let plan = Plan {
                program: program.to_vec(),
                ..plan(docker()).unwrap()
            };
            read(&bytes("{}", &plan), "{}").is_some()
        };
        assert!(reads(&sound));
        for (place, wrong) in [
            (0, one(0x20, 0, 0, 64)),
            (0, one(0x20, 0, 0, 2)),
            (1, one(0x15, 3, 0, 7)),
            (1, one(0x25, 0, 3, 7)),
            (3, one(0x05, 0, 0, 1)),
            (3, one(0x05, 0, 0, u32::MAX)),
            (2, one(0x07, 0, 0, 0)), // no instruction of the compiler
            (4, one(0x06, 0, 0, 0x7fc0_0000)), // asks a listener
            (4, one(0x54, 0, 0, 7)), // goes on beyond the end
        ] {
            let mut program = sound.clone();
            program[place] = wrong;
            assert!(!reads(&program), "{wrong:?}");
        }
        assert!(!reads(&[]));
        assert!(!reads(&vec![sound[4]; LONGEST + 1]));
    }
}
