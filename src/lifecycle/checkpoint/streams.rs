//! The program's standard streams that come from outside of the container: pipes, files, sockets.
//!
//! `create` notes what they are, `checkpoint` writes it beside the images (runc's descriptors.json), and
//! at a `restore` the streams of its caller take their place.

use std::os::fd::AsFd;

use anyhow::{Context, Result};
use oci_spec::runtime::Spec;
use rustix::fs::{AtFlags, FileType, StatxFlags, statx};

use super::images::Images;
use crate::criu::{Options, Text};
use crate::lifecycle::facts::Facts;
use crate::sys::process::standard_stream;

/// The file that names them, in their order.
const FILE: &str = "descriptors.json";

/// The devices of linux/major.h of which a file is like any other: null, zero and their like.
const MEMORY_DEVICES: u32 = 1;

/// How the names of what can come from outside begin.
const PIPE_KIND: &str = "pipe:[";
const FILE_KIND: &str = "file[";
const SOCKET_KIND: &str = "socket:[";

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
        FileType::CharacterDevice if stat.stx_rdev_major == MEMORY_DEVICES => file(),
        FileType::Socket => format!("{SOCKET_KIND}{}]", stat.stx_ino),
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

/// Tells a dump of what the container got, and writes it beside the images.
///
/// # Errors
///
/// What the file system answered.
pub fn dump(facts: &Facts, images: &Images, options: &mut Options) -> Result<()> {
    for name in &facts.streams {
        if name.starts_with(FILE_KIND) {
            options.text(Text::External, name);
        } else if let Some(rest) = name.strip_prefix(SOCKET_KIND) {
            options.text(Text::External, &format!("unix[{rest}"));
        }
        // The end of a pipe that is outside need not be named.
    }
    let text = serde_json::to_vec(&facts.streams).context(FILE)?;
    images.write(FILE, &text)
}

/// Tells a restore which of this process' streams are to take the place of what the container had.
///
/// # Errors
///
/// The file beside the images can not be read, or is none.
pub fn restore(images: &Images, options: &mut Options) -> Result<()> {
    let Some(text) = images.read(FILE)? else {
        return Ok(());
    };
    let names: Vec<String> = serde_json::from_slice(&text)
        .with_context(|| format!("{FILE} beside the images is no list of descriptors"))?;
    let kinds = [PIPE_KIND, FILE_KIND, SOCKET_KIND];
    for (number, name) in names.iter().enumerate().take(3) {
        let first = !names[..number].contains(name);
        if first && kinds.iter().any(|kind| name.starts_with(kind)) {
            options.inherit(name, number as i32);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn streams_from_outside_have_the_names_of_criu() {
        let (pipe, _other_end) = std::io::pipe().unwrap();
        let link = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&pipe));
        let link = std::fs::read_link(link).unwrap();
        assert_eq!(name(&pipe), link.to_str().unwrap());
        let (socket, _other_end) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(name(&socket).starts_with("socket:["));
        for path in ["/dev/null", "/proc/self/exe"] {
            let name = name(File::open(path).unwrap());
            assert!(name.starts_with("file[") && name.ends_with(']'), "{name}");
        }
        assert_eq!(name(File::open("/").unwrap()), "");
        let master = File::open("/dev/ptmx").unwrap();
        assert_eq!(name(master), "", "a terminal");
    }
}
