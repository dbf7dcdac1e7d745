//! Volumes and file systems in memory, in the words of Docker.

use std::collections::BTreeMap;

use super::{Import, Options};
use crate::job::{Size, Tmpfs, Volume};

pub(super) fn volumes(import: &mut Import, _options: &Options) {
    let given: BTreeMap<String, Option<String>> = import.take("volumes").unwrap_or_default();
    for (key, source) in given {
        let path = format!("volumes[{key:?}]");
        let (inside, mode) = key.split_once(':').unwrap_or((&key, "rw"));
        let mut read_only = false;
        for word in mode.split(',') {
            match word {
                "ro" => read_only = true,
                "rw" => {}
                // Labels of SELinux for files, which are the host's to give.
                "z" | "Z" => import.note(path.clone(), format!("{word}: files keep their labels")),
                _ => import.problem(
                    path.clone(),
                    format!("must end with :ro or :rw, not :{word}"),
                ),
            }
        }
        let mut volume = Volume {
            read_only,
            ..Volume::default()
        };
        match source.unwrap_or_default() {
            empty if empty.is_empty() => {
                volume.instance = Some(name(inside));
                import.note(
                    path,
                    "is a directory of the instance, which is there after a restart too",
                );
            }
            host if host.starts_with('/') => {
                volume.host = Some(host.into());
                import.note(path, "has to be there on the host: it is not made");
            }
            name => volume.name = Some(name),
        }
        import.task.volumes.insert(inside.to_owned(), volume);
    }
}

/// A name for the volume at a path, which no other path has.
fn name(inside: &str) -> String {
    let mut name = "v".to_owned();
    for c in inside.chars() {
        match c {
            '/' => name.push('-'),
            c if c.is_ascii_alphanumeric() => name.push(c),
            c => name.push_str(&format!("_{:x}.", u32::from(c))),
        }
    }
    name
}

pub(super) fn ramdisks(import: &mut Import, _options: &Options) {
    let given: BTreeMap<String, Option<String>> = import.take("ramdisks").unwrap_or_default();
    for (inside, options) in given {
        let path = format!("ramdisks[{inside:?}]");
        let mut tmpfs = Tmpfs::default();
        let options = options.unwrap_or_default();
        for option in options.split(',').filter(|option| !option.is_empty()) {
            match option.split_once('=') {
                Some(("size", text)) => match size(text) {
                    Some(size) => tmpfs.size = Some(size),
                    None => {
                        let message = format!("size: must be a number with k, m or g, is {text:?}");
                        import.problem(path.clone(), message);
                    }
                },
                Some(("mode", mode)) => tmpfs.mode = Some(mode.to_owned()),
                _ => tmpfs.options.push(option.to_owned()),
            }
        }
        import.task.tmpfs.insert(inside, tmpfs);
    }
}

/// As tmpfs(5) reads it.
fn size(text: &str) -> Option<Size> {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = match unit {
        "" => 1,
        "k" | "K" => 1 << 10,
        "m" | "M" => 1 << 20,
        "g" | "G" => 1 << 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit).map(Size)
}
