//! The program's standard streams that come from outside of the container: pipes, files, sockets.
//!
//! `create` notes what they are, `checkpoint` writes it beside the images (runc's descriptors.json), and
//! at a `restore` the streams of its caller take their place.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use anyhow::{Context, Result, bail};
use oci_spec::runtime::Spec;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, StatxFlags, makedev, statx};
use rustix::termios::isatty;

use super::images::Images;
use crate::criu::{Options, Text};
use crate::lifecycle::facts::Facts;
use crate::sys::process::standard_stream;
use crate::sys::{Call, Errno};

/// The file that names them, in their order.
const FILE: &str = "descriptors.json";

/// What the standard streams are called.
const NAMES: [&str; 3] = ["input", "output", "error"];

/// What nobody reads from and everybody may write to.
const NULL: &str = "/dev/null";

/// The devices of linux/major.h of which a file is like any other: null, zero and their like.
const MEMORY_DEVICES: u32 = 1;

/// How the names of what can come from outside begin.
const PIPE_KIND: &str = "pipe:[";
const FILE_KIND: &str = "file[";
const SOCKET_KIND: &str = "socket:[";
const TERMINAL_KIND: &str = "tty[";
/// Like a file to CRIU; nobody misses it, whatever the stream is at a restore.
const NULL_KIND: &str = "null[";

/// What of this process' streams the program of `spec` gets, by the names that CRIU has for them.
pub fn inherited(spec: &Spec) -> Vec<String> {
    let process = spec.process().as_ref();
    if process.and_then(|p| p.terminal()).unwrap_or(false) {
        return Vec::new();
    }
    (0..=2)
        .map(|number| name(standard_stream(number)))
        .collect()
}

/// The name of what a descriptor refers to; empty where CRIU needs none.
fn name(stream: impl AsFd) -> String {
    let wanted = StatxFlags::TYPE | StatxFlags::INO | StatxFlags::MNT_ID;
    // One that can not be asked is found by CRIU, if a checkpoint is ever made.
    let Ok(stat) = statx(&stream, "", AtFlags::EMPTY_PATH, wanted) else {
        return String::new();
    };
    let file = || format!("{FILE_KIND}{:x}:{:x}]", stat.stx_mnt_id, stat.stx_ino);
    match FileType::from_raw_mode(stat.stx_mode.into()) {
        FileType::Fifo if is_unnamed_pipe(&stream) => format!("{PIPE_KIND}{}]", stat.stx_ino),
        FileType::Fifo | FileType::RegularFile => file(),
        FileType::CharacterDevice if stat.stx_rdev_major == MEMORY_DEVICES => {
            format!("{NULL_KIND}{:x}:{:x}]", stat.stx_mnt_id, stat.stx_ino)
        }
        FileType::Socket => format!("{SOCKET_KIND}{}]", stat.stx_ino),
        FileType::CharacterDevice if isatty(&stream) => {
            let device = makedev(stat.stx_rdev_major, stat.stx_rdev_minor);
            let on = makedev(stat.stx_dev_major, stat.stx_dev_minor);
            format!("{TERMINAL_KIND}{device:x}:{on:x}]")
        }
        FileType::CharacterDevice
        | FileType::Directory
        | FileType::BlockDevice
        | FileType::Symlink
        | FileType::Unknown => String::new(),
    }
}

/// linux/magic.h, `PIPEFS_MAGIC`.
const PIPEFS_MAGIC: u64 = 0x5049_5045;

fn is_unnamed_pipe(stream: impl AsFd) -> bool {
    rustix::fs::fstatfs(stream).is_ok_and(|found| found.f_type as u64 == PIPEFS_MAGIC)
}

/// Tells a dump of what the container got, and writes it beside the images. A terminal stays outside only
/// with `shell_job`, as who restores has to have one too.
///
/// # Errors
///
/// What the file system answered.
pub fn dump(facts: &Facts, shell_job: bool, images: &Images, options: &mut Options) -> Result<()> {
    for name in &facts.streams {
        if name.starts_with(FILE_KIND) || (shell_job && name.starts_with(TERMINAL_KIND)) {
            options.text(Text::External, name);
        } else if let Some(rest) = name.strip_prefix(NULL_KIND) {
            options.text(Text::External, &format!("{FILE_KIND}{rest}"));
        } else if let Some(rest) = name.strip_prefix(SOCKET_KIND) {
            options.text(Text::External, &format!("unix[{rest}"));
        }
        // The end of a pipe that is outside need not be named.
    }
    let text = serde_json::to_vec(&facts.streams).context(FILE)?;
    images.write(FILE, &text)
}

/// Tells a restore which of this process' streams are to take the place of what the container had; the
/// open ones have to be handed to CRIU.
///
/// # Errors
///
/// The file beside the images can not be read, or is none; a stream that can not take a file's place.
pub fn restore(images: &Images, options: &mut Options) -> Result<Vec<OwnedFd>> {
    let Some(text) = images.read(FILE)? else {
        return Ok(Vec::new());
    };
    let names: Vec<String> = serde_json::from_slice(&text)
        .with_context(|| format!("{FILE} beside the images is no list of descriptors"))?;
    let mut opened = Vec::new();
    for (number, name) in names.iter().enumerate().take(3) {
        if names[..number].contains(name) {
            continue;
        }
        let stream = number as i32;
        // CRIU closes what it is given, and may want its own streams afterwards.
        let mut give = |name: &str| {
            let copy = rustix::io::fcntl_dupfd_cloexec(standard_stream(stream), 3);
            let copy = copy.call(|| format!("fcntl({stream}, F_DUPFD_CLOEXEC)"))?;
            options.inherit(name, copy.as_raw_fd());
            opened.push(copy);
            Ok::<_, anyhow::Error>(())
        };
        if let Some(rest) = name.strip_prefix(NULL_KIND) {
            let flags = OFlags::RDWR | OFlags::CLOEXEC;
            let null = rustix::fs::open(NULL, flags, Mode::empty());
            let null = null.call(|| format!("open({NULL:?})"))?;
            options.inherit(&format!("{FILE_KIND}{rest}"), null.as_raw_fd());
            opened.push(null);
        } else if name.starts_with(FILE_KIND) {
            check_is_file(stream)?;
            give(name)?;
        } else if name.starts_with(TERMINAL_KIND) {
            check_is_terminal(stream)?;
            give(name)?;
        } else if name.starts_with(PIPE_KIND) || name.starts_with(SOCKET_KIND) {
            give(name)?;
        }
    }
    Ok(opened)
}

/// CRIU puts a file where it was, so that what takes its place has to have a position.
fn check_is_file(stream: i32) -> Result<()> {
    match rustix::fs::tell(standard_stream(stream)) {
        Err(Errno::SPIPE) => {
            let name = NAMES[stream.unsigned_abs() as usize];
            bail!(
                "standard {name} was a file when the container was created: it has to be a file \
                again, or {NULL}"
            )
        }
        // What else is wrong with it, CRIU will say.
        Ok(_) | Err(_) => Ok(()),
    }
}

fn check_is_terminal(stream: i32) -> Result<()> {
    if isatty(standard_stream(stream)) {
        return Ok(());
    }
    let name = NAMES[stream.unsigned_abs() as usize];
    bail!("standard {name} was a terminal when the container was created: it has to be one again")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn streams_from_outside_have_the_names_of_criu() {
        let (pipe, _other_end) = std::io::pipe().unwrap();
        let link = format!("/proc/self/fd/{}", pipe.as_raw_fd());
        let link = std::fs::read_link(link).unwrap();
        assert_eq!(name(&pipe), link.to_str().unwrap());
        let (socket, _other_end) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(name(&socket).starts_with("socket:["));
        for (path, kind) in [("/dev/null", "null["), ("/proc/self/exe", "file[")] {
            let name = name(File::open(path).unwrap());
            assert!(name.starts_with(kind) && name.ends_with(']'), "{name}");
        }
        assert_eq!(name(File::open("/").unwrap()), "");
        let terminal = name(File::open("/dev/ptmx").unwrap());
        assert!(terminal.starts_with("tty[502:"), "{terminal}");
    }
}
