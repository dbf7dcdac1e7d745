//! The directories that CRIU works in, and the options that follow from them.

use std::fs::{self, DirBuilder, File};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::{Mode, OFlags};

use super::ImagesRequest;
use crate::criu::{Flag, Log, Number, Options, Text};
use crate::lifecycle::facts::Facts;
use crate::sys::Call;

/// The file by which CRIU finds all others.
const INVENTORY: &str = "inventory.img";

/// Options that CRIU reads from a file and that go before ours; runc's annotation.
pub(in crate::lifecycle) const OPTIONS_OF_CRIU: &str = "org.criu.config";

/// Where they are without one, for containers of this runtime and for those of runc, which an
/// administrator has written it for.
const CONFIGS: [&str; 2] = ["/etc/criu/parhelion.conf", "/etc/criu/runc.conf"];

/// As much as is logged: with it an error can be understood.
const LOG_LEVEL: u32 = 4;

/// The open directories.
#[derive(Debug)]
pub struct Images {
    path: PathBuf,
    images: OwnedFd,
    work: Option<(PathBuf, OwnedFd)>,
}

impl Images {
    /// Makes the directories, where they are missing.
    ///
    /// # Errors
    ///
    /// What the file system answered; a parent that is none.
    pub fn make(request: &ImagesRequest, parent: Option<&Path>) -> Result<Images> {
        make(&request.images).context("--image-path")?;
        if let Some(parent) = parent {
            if parent.is_absolute() {
                bail!("--parent-path {parent:?}: must be relative to --image-path");
            }
            let path = request.images.join(parent);
            open(&path).context("--parent-path")?;
        }
        Images::in_place(request)
    }

    /// Opens what `checkpoint` has written.
    ///
    /// # Errors
    ///
    /// It is not there.
    pub fn of_checkpoint(request: &ImagesRequest) -> Result<Images> {
        let images = Images::in_place(request)?;
        let inventory = images.path.join(INVENTORY);
        if !inventory.exists() {
            bail!(
                "--image-path {:?}: no checkpoint is there ({INVENTORY} is missing)",
                images.path
            );
        }
        Ok(images)
    }

    fn in_place(request: &ImagesRequest) -> Result<Images> {
        let images = open(&request.images).context("--image-path")?;
        let work = match &request.work {
            None => None,
            Some(path) => {
                make(path).context("--work-path")?;
                Some((path.clone(), open(path).context("--work-path")?))
            }
        };
        Ok(Images {
            path: request.images.clone(),
            images,
            work,
        })
    }

    /// CRIU's log of this name.
    pub fn log(&self, name: &str) -> Log {
        let work = self.work.as_ref().map(|(path, _)| path);
        Log::new(work.unwrap_or(&self.path), name)
    }

    /// The same directories, opened in the mount namespace in which this process is now: CRIU mounts in
    /// its working directory.
    ///
    /// # Errors
    ///
    /// What the file system answered.
    pub fn opened_here(&self) -> Result<Images> {
        let work = match &self.work {
            Some((path, _)) => Some((path.clone(), open(path)?)),
            None => None,
        };
        Ok(Images {
            path: self.path.clone(),
            images: open(&self.path)?,
            work,
        })
    }

    /// Tells where the directories are; they have to stay open until the request was served.
    pub fn name(&self, options: &mut Options) {
        options.descriptor(Number::Images, self.images.as_raw_fd());
        if let Some((_, work)) = &self.work {
            options.descriptor(Number::Work, work.as_raw_fd());
        }
    }

    /// The options that any request has, but for the directories.
    pub fn options(&self, request: &ImagesRequest, facts: &Facts, log: &str) -> Options {
        let mut options = Options::default();
        options.number(Number::LogLevel, LOG_LEVEL);
        options.text(Text::LogFile, log);
        options.flag(Flag::Notify, true);
        options.flag(Flag::OrphanTerminal, true);
        request.set_flags(&mut options);
        options.number(Number::CgroupsMode, request.cgroups as u32);
        // Interfaces and addresses are not the runtime's: a hook or who made the namespace sets them.
        options.number(Number::EmptyNamespaces, libc::CLONE_NEWNET.cast_unsigned());
        if let Some(file) = config_file(facts) {
            options.text(Text::ConfigFile, &file);
        }
        options
    }

    /// Writes a file beside the images.
    ///
    /// # Errors
    ///
    /// What the file system answered.
    pub fn write(&self, name: &str, text: &[u8]) -> Result<()> {
        let path = self.path.join(name);
        fs::write(&path, text).with_context(|| format!("write({path:?})"))
    }

    /// Reads a file beside the images; None when it is not there.
    ///
    /// # Errors
    ///
    /// What the file system answered.
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let path = self.path.join(name);
        match fs::read(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("read({path:?})")),
        }
    }
}

impl ImagesRequest {
    fn set_flags(&self, options: &mut Options) {
        options.flag(Flag::TcpEstablished, self.tcp_established);
        options.flag(Flag::ExternalUnixSockets, self.external_unix_sockets);
        options.flag(Flag::ShellJob, self.shell_job);
        options.flag(Flag::FileLocks, self.file_locks);
        options.flag(Flag::AutoDedup, self.auto_dedup);
        options.flag(Flag::LazyPages, self.lazy_pages);
    }
}

fn config_file(facts: &Facts) -> Option<String> {
    match facts.annotations.get(OPTIONS_OF_CRIU) {
        Some(file) => Some(file.clone()).filter(|file| !file.is_empty()),
        None => {
            let found = CONFIGS.iter().find(|file| File::open(file).is_ok());
            found.map(|file| (*file).to_owned())
        }
    }
}

fn make(path: &Path) -> Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.with_context(|| format!("mkdir({path:?})"))
}

fn open(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = rustix::fs::open(path, flags, Mode::empty());
    Ok(opened.call(|| format!("open({path:?}, O_DIRECTORY)"))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lifecycle::checkpoint::testing::{only, request};

    #[test]
    fn each_flag_of_both_verbs_is_handed_to_criu() {
        let set = |change: fn(&mut ImagesRequest)| {
            let mut request = request();
            change(&mut request);
            let mut options = Options::default();
            request.set_flags(&mut options);
            options
        };
        assert_eq!(set(|_| {}), Options::default());
        assert_eq!(
            set(|r| r.tcp_established = true),
            only(Flag::TcpEstablished)
        );
        assert_eq!(set(|r| r.shell_job = true), only(Flag::ShellJob));
        assert_eq!(set(|r| r.file_locks = true), only(Flag::FileLocks));
        assert_eq!(set(|r| r.auto_dedup = true), only(Flag::AutoDedup));
        assert_eq!(set(|r| r.lazy_pages = true), only(Flag::LazyPages));
        let external = set(|r| r.external_unix_sockets = true);
        assert_eq!(external, only(Flag::ExternalUnixSockets));
    }

    #[test]
    fn a_file_of_options_is_the_one_that_the_annotation_names() {
        let annotated = |file: &str| {
            let annotations = [(OPTIONS_OF_CRIU.to_owned(), file.to_owned())];
            config_file(&Facts {
                annotations: annotations.into_iter().collect(),
                ..Facts::default()
            })
        };
        assert_eq!(annotated("/etc/own.conf").as_deref(), Some("/etc/own.conf"));
        assert_eq!(annotated(""), None);
    }
}
