//! Files that must not be half there: what is wanted, and everything that is replaced whole.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, flock};
use sha2::{Digest as _, Sha256};

use crate::agent::Wanted;
use crate::cgroups::Deadline;
use crate::error;
use crate::sys::lock::wait_a_moment;

/// How long the lock is waited for: what an agent that was killed had just begun to start has it, too, until
/// its execve.
const LOCK_LIMIT: Duration = Duration::from_millis(500);

/// The file of what is wanted, in the agent's directory.
pub const WANTED: &str = "wanted";

/// What its first line begins with; the checksum of all that follows the line comes after it.
const HEAD: &str = "parhelion wanted 1 ";

/// Replaces a file whole. When this returns, it is safe on disk.
///
/// # Errors
///
/// It can not be written; the one before stays.
pub fn replace(path: &Path, content: &[u8]) -> Result<()> {
    let (new, folder) = beside(path)?;
    let written = write(&new, content, true)
        .and_then(|()| fs::rename(&new, path))
        .and_then(|()| File::open(folder)?.sync_all());
    if written.is_err() {
        let _never_made = fs::remove_file(&new);
    }
    written.with_context(|| format!("write {path:?}"))
}

/// Replaces a file whole where it is another one, for whoever reads it now; a crash of the host may damage it.
///
/// # Errors
///
/// It can not be written; the one before stays.
pub fn renew(path: &Path, content: &[u8]) -> Result<()> {
    if fs::read(path).is_ok_and(|there| there == content) {
        return Ok(());
    }
    let (new, folder) = beside(path)?;
    let written = fs::create_dir_all(folder)
        .and_then(|()| write(&new, content, false))
        .and_then(|()| fs::rename(&new, path));
    if written.is_err() {
        // Half a file takes room that there may be none of.
        let _never_made = fs::remove_file(&new);
    }
    written.with_context(|| format!("write {path:?}"))
}

/// Makes the names in a folder safe on disk.
///
/// # Errors
///
/// What the operating system refuses.
pub fn keep_names(folder: &Path) -> Result<()> {
    let kept = File::open(folder).and_then(|folder| folder.sync_all());
    kept.with_context(|| format!("synchronise {folder:?}"))
}

fn beside(path: &Path) -> Result<(PathBuf, &Path)> {
    let name = path.file_name().and_then(|name| name.to_str());
    let folder = path.parent();
    let (Some(name), Some(folder)) = (name, folder) else {
        bail!("{path:?} names no file");
    };
    Ok((folder.join(format!(".{name}.new")), folder))
}

fn write(path: &Path, content: &[u8], synchronise: bool) -> std::io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(content)?;
    if synchronise { file.sync_all() } else { Ok(()) }
}

/// Writes down what is wanted.
///
/// # Errors
///
/// It can not be written; what was wanted before stays.
pub fn write_wanted(state: &Path, wanted: &Wanted) -> Result<()> {
    let text = serde_json::to_string(wanted).context("put into JSON what is wanted")?;
    replace(&state.join(WANTED), &with_checksum(text.as_bytes()))
}

/// What the file of what is wanted contains when this is wanted.
pub fn with_checksum(text: &[u8]) -> Vec<u8> {
    let mut content = format!("{HEAD}{}\n", checksum(text)).into_bytes();
    content.extend_from_slice(text);
    content
}

/// What was wanted last; None when there never was anything.
///
/// # Errors
///
/// The file can not be read, or is not what was written. Nothing may be ended for that.
pub fn read_wanted(state: &Path) -> Result<Option<Wanted>> {
    let path = state.join(WANTED);
    let mut content = String::new();
    match File::open(&path).and_then(|mut file| file.read_to_string(&mut content)) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("read {path:?}")),
    }
    let parts = content
        .strip_prefix(HEAD)
        .and_then(|rest| rest.split_once('\n'));
    let Some((sum, text)) = parts else {
        bail!("{path:?} is damaged: it does not begin with {HEAD:?} and a checksum");
    };
    if sum != checksum(text.as_bytes()) {
        bail!("{path:?} is damaged: its checksum is another one");
    }
    let wanted = serde_json::from_str(text);
    wanted
        .map(Some)
        .with_context(|| format!("{path:?} is not understood"))
}

/// The SHA-256 of a text, 64 hexadecimal digits.
pub fn checksum(text: &[u8]) -> String {
    Sha256::digest(text)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Takes the lock of an agent's directory, for as long as the file is open.
///
/// # Errors
///
/// Another agent has it.
pub fn lock(state: &Path) -> Result<File> {
    let path = state.join("lock");
    let mut file = open_lock(&path).with_context(|| format!("open {path:?}"))?;
    let end = Deadline::after(LOCK_LIMIT);
    while flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        if end.left().is_some() {
            wait_a_moment();
            continue;
        }
        let mut owner = String::new();
        file.read_to_string(&mut owner)
            .with_context(|| format!("read {path:?}"))?;
        let owner = match owner.trim() {
            "" => String::new(),
            number => format!(", process {number}"),
        };
        bail!("another agent has {state:?}{owner}: stop it first, or use another directory");
    }
    let written = file
        .set_len(0)
        .and_then(|()| file.write_all(format!("{}\n", std::process::id()).as_bytes()));
    if let Err(error) = written {
        // The number is for people; the lock holds without it.
        error::warn(&format!("write {path:?}: {error}"));
    }
    Ok(file)
}

/// On a file system that is read-only, one that is there can be locked as well.
fn open_lock(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    let options = options.read(true).write(true).create(true).truncate(false);
    match options.mode(0o600).open(path) {
        Err(error) if error.kind() == ErrorKind::ReadOnlyFilesystem => File::open(path),
        opened => opened,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::WantedJob;
    use crate::api::Goal;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("agent-disk-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    fn wanted() -> Wanted {
        let job = r#"{"name": "web", "version": "1", "tasks": {"web": {"bundle": "/srv/web"}}}"#;
        Wanted {
            store: Some("3f9c1a2b".to_owned()),
            revision: 7,
            jobs: vec![WantedJob {
                job: std::sync::Arc::new(serde_json::from_str(job).unwrap()),
                goal: Goal::Start,
                count: 3,
            }],
            reserved: [80].into(),
        }
    }

    #[test]
    fn what_is_wanted_is_read_as_it_was_written_or_refused() {
        let state = folder("wanted");
        assert_eq!(read_wanted(&state).unwrap(), None);
        write_wanted(&state, &wanted()).unwrap();
        assert_eq!(read_wanted(&state).unwrap(), Some(wanted()));
        let path = state.join(WANTED);
        let whole = fs::read(&path).unwrap();
        // Each beginning, and each byte changed.
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            read_wanted(&state).unwrap_err();
            let mut other = whole.clone();
            other[length] ^= 1;
            fs::write(&path, &other).unwrap();
            read_wanted(&state).unwrap_err();
        }
        fs::remove_dir_all(&state).unwrap();
    }

    #[test]
    fn a_second_agent_is_refused_and_told_who_is_there() {
        let state = folder("lock");
        let first = lock(&state).unwrap();
        let told = lock(&state).unwrap_err().to_string();
        assert!(
            told.contains(&format!("process {}", std::process::id())),
            "{told}"
        );
        drop(first);
        lock(&state).unwrap();
        fs::remove_dir_all(&state).unwrap();
    }
}
