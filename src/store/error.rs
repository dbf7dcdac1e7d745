//! What a store answers instead: a kind each where a caller does something else about it.

use std::fmt;
use std::path::PathBuf;

use super::key_value::{LeaseId, Revision};
use crate::sys::SysError;

/// What a store answers.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a store did not do what it was asked.
#[derive(Debug, Clone)]
pub enum Error {
    /// Changes at and after the asked revision are no longer all kept.
    Compacted {
        /// The oldest revision that can be watched from.
        oldest: Revision,
    },
    /// A revision that is yet to come.
    FutureRevision {
        /// The one asked for.
        asked: Revision,
        /// The newest one there is.
        newest: Revision,
    },
    /// The lease was never granted, was revoked or has run out.
    LeaseNotFound(LeaseId),
    /// What no backend takes: a phrase that says what and why.
    Invalid(String),
    /// The disk did not take it. Nothing happened; the store goes on.
    NotWritten(SysError),
    /// The disk failed when it was to be made safe. It may be there when the store is opened again, all
    /// of it or nothing. Until then, or until it is mended, the store can only be read.
    Uncertain(SysError),
    /// The disk failed before, and the store can only be read until it is mended or opened again.
    ReadOnly(SysError),
    /// The file is not as it was written.
    Damaged {
        /// The file.
        file: PathBuf,
        /// Where the first byte is that can not be read as it was written.
        offset: u64,
        /// What is wrong there, as a phrase.
        what: String,
        /// Whether what stands before it is a store by itself, an older one.
        usable_before: bool,
    },
    /// The directory is there and its file is not.
    Missing {
        /// The file.
        file: PathBuf,
    },
    /// The file was written by a newer version.
    Version {
        /// The file.
        file: PathBuf,
        /// Its version.
        found: u32,
        /// The newest that is understood here.
        known: u32,
    },
    /// Another process has the store open.
    Locked {
        /// Its directory.
        directory: PathBuf,
    },
    /// The operating system refused something while the store was opened.
    Open(SysError),
    /// The store was closed.
    Closed,
}

impl Error {
    /// Whether the disk has refused a change: [`Store::mend`](super::Store::mend) may help.
    #[must_use]
    pub fn is_of_disk(&self) -> bool {
        matches!(
            self,
            Error::NotWritten(_) | Error::Uncertain(_) | Error::ReadOnly(_)
        )
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Compacted { oldest } => write!(
                f,
                "changes before revision {oldest} are no longer kept: read the keys again and watch from there"
            ),
            Error::FutureRevision { asked, newest } => {
                write!(f, "revision {asked} is yet to come: the newest is {newest}")
            }
            Error::LeaseNotFound(id) => write!(
                f,
                "lease {id} has run out, was revoked or never granted: ask for a new one"
            ),
            Error::Invalid(what) => f.write_str(what),
            Error::NotWritten(fault) => {
                write!(
                    f,
                    "nothing was changed, try again when there is room: {fault}"
                )
            }
            Error::Uncertain(fault) => write!(
                f,
                "whether it was written shows when the store can be written again, look at the disk: {fault}"
            ),
            Error::ReadOnly(fault) => write!(
                f,
                "the store can only be read until its disk takes it again: {fault}"
            ),
            Error::Damaged {
                file,
                offset,
                what,
                usable_before,
            } => {
                write!(
                    f,
                    "{file:?} is damaged at offset {offset}: {what}; put a copy back"
                )?;
                if !usable_before {
                    return Ok(());
                }
                write!(
                    f,
                    ", or give up every change since then: truncate -s {offset} {file:?}"
                )
            }
            Error::Missing { file } => write!(
                f,
                "{file:?} is gone: put a copy back, or remove its directory to begin with an empty store"
            ),
            Error::Version { file, found, known } => write!(
                f,
                "{file:?} has format {found}, and {known} is the newest known here: use the program that wrote it, or a newer one"
            ),
            Error::Locked { directory } => write!(
                f,
                "store {directory:?} is open in another process: stop that one, or choose another directory"
            ),
            Error::Open(fault) => fault.fmt(f),
            Error::Closed => f.write_str("the store was closed"),
        }
    }
}

// The fault is part of the message, so it is no source: one that prints the chain would tell it twice.
impl std::error::Error for Error {}
