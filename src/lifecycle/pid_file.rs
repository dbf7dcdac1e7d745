//! The file of `--pid-file`: there, and complete, when a create has succeeded, and only then.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::sys::{Call, Errno};

/// The file that tells callers init's pid; removed on drop unless kept.
#[derive(Debug)]
pub struct PidFile(Option<PathBuf>);

impl PidFile {
    /// Whole or not at all: callers read it as soon as it is there.
    ///
    /// # Errors
    ///
    /// What the file system answered; nothing is left then.
    pub fn write(path: &Path, pid: i32) -> Result<PidFile> {
        let name = path
            .file_name()
            .context("is no file name")?
            .to_string_lossy();
        // While it has this name, dropping it removes it.
        let mut file = PidFile(Some(path.with_file_name(format!(".{name}.{pid}"))));
        if let Some(temporary) = &file.0 {
            let errno = |error: std::io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
            std::fs::write(temporary, pid.to_string())
                .map_err(errno)
                .call(|| format!("write({temporary:?})"))?;
            std::fs::rename(temporary, path)
                .map_err(errno)
                .call(|| format!("rename({temporary:?}, {path:?})"))?;
        }
        file.0 = Some(path.to_owned());
        Ok(file)
    }

    /// Leaves the file in place.
    pub fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            // Dropped on the way out of an error, which is the one to be told.
            let _ = std::fs::remove_file(path);
        }
    }
}
