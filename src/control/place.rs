//! The directory of everything that is to survive: its owner's only, and nobody else can put another in its place.

use std::fs::{self, DirBuilder, Metadata, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::error;

/// Whether others may write in a directory.
const WRITABLE: u32 = 0o022;

/// Whether in such a directory each may remove what is their own only.
const STICKY: u32 = 0o1000;

/// Makes a directory that is for its owner only, if it is not there.
///
/// On a disk that takes nothing one that is there is used as it is.
///
/// # Errors
///
/// Others can write in it, or put another one in its place; or it can not be made.
pub fn own(path: &Path) -> Result<()> {
    let path = std::path::absolute(path).with_context(|| format!("{path:?}"))?;
    let made = DirBuilder::new().recursive(true).mode(0o700).create(&path);
    made.with_context(|| format!("make {path:?}"))?;
    check_way(&path)?;
    let found = fs::metadata(&path).with_context(|| format!("{path:?}"))?;
    let user = rustix::process::geteuid().as_raw();
    if found.uid() != user {
        bail!(
            "{path:?} belongs to user {}, and must belong to user {user}, as whom this runs: chown {user} {path:?}, if \
             all in it can be trusted",
            found.uid()
        );
    }
    if found.mode() & WRITABLE != 0 {
        bail!(
            "others than its owner may write in {path:?} (mode {:04o}): chmod 700 {path:?}, if all in it can be trusted",
            found.mode() & 0o7777
        );
    }
    if found.mode() & 0o777 == 0o700 {
        return Ok(());
    }
    match fs::set_permissions(&path, Permissions::from_mode(0o700)) {
        // Others can read in it, as before.
        Err(problem) if problem.kind() == ErrorKind::ReadOnlyFilesystem => {
            error::warn(&format!("{path:?} can be read by others: {problem}"));
            Ok(())
        }
        done => done.with_context(|| format!("chmod 700 {path:?}")),
    }
}

/// Refuses a path of which another part can be swapped by somebody else: sshd does the same for keys. What links
/// lead to is looked at as well.
fn check_way(path: &Path) -> Result<()> {
    let mut way = PathBuf::new();
    for part in path.components() {
        way.push(part);
        if part == Component::ParentDir {
            continue;
        }
        let found = fs::symlink_metadata(&way).with_context(|| format!("{way:?}"))?;
        if found.is_symlink() {
            check_owner(&way, &found, path)?;
            let target = fs::canonicalize(&way).with_context(|| format!("{way:?}"))?;
            check_way(&target)?;
        } else if way != path {
            check_owner(&way, &found, path)?;
            check_mode(&way, &found, path)?;
        }
    }
    Ok(())
}

fn check_owner(at: &Path, found: &Metadata, path: &Path) -> Result<()> {
    let user = rustix::process::geteuid().as_raw();
    if found.uid() == 0 || found.uid() == user {
        return Ok(());
    }
    bail!(
        "{path:?} can be put aside by user {}, to whom {at:?} belongs: give it to root, or use another --state",
        found.uid()
    );
}

fn check_mode(at: &Path, found: &Metadata, path: &Path) -> Result<()> {
    if found.mode() & WRITABLE == 0 || found.mode() & STICKY != 0 {
        return Ok(());
    }
    bail!(
        "{path:?} can be put aside by whoever may write in {at:?} (mode {:04o}): chmod go-w {at:?}, or use another --state",
        found.mode() & 0o7777
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    fn refused(path: &Path) -> String {
        format!("{:#}", own(path).unwrap_err())
    }

    #[test]
    fn a_directory_in_which_or_above_which_others_write_is_refused() {
        let name = format!("parhelion-place-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        let state = folder.join("above/state");
        own(&state).unwrap();
        let now = || fs::metadata(&state).unwrap().mode() & 0o7777;
        assert_eq!(now(), 0o700);
        // What can be read only is closed; what could be written may have been.
        mode(&state, 0o755);
        own(&state).unwrap();
        assert_eq!(now(), 0o700);
        for open in [0o770, 0o707, 0o1777] {
            mode(&state, open);
            let told = refused(&state);
            assert!(told.contains("others than its owner may write"), "{told}");
            assert!(told.contains("chmod 700"), "{told}");
            assert_eq!(now(), open);
        }
        mode(&state, 0o700);
        for open in [0o775, 0o777] {
            mode(&folder.join("above"), open);
            let told = refused(&state);
            assert!(told.contains("can be put aside by whoever"), "{told}");
        }
        // By way of a link as well.
        let link = folder.join("link");
        std::os::unix::fs::symlink(&state, &link).unwrap();
        assert!(refused(&link).contains("can be put aside"));
        // There each may remove what is their own only.
        mode(&folder.join("above"), 0o1777);
        own(&state).unwrap();
        own(&link).unwrap();
        fs::remove_dir_all(folder).unwrap();
    }
}
