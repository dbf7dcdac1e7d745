//! From a bundle's directory to the JSON value of its config.json.
//!
//! Decides only whether there is a JSON object to look at; what it means is for `walk` and
//! `checks`. Each failure is one line that names the path and says what to do.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;

use super::strict;
use crate::sys::{Errno, SysError};

/// The largest config.json that is read. The kernel takes at most 6 MiB of arguments and
/// environment; real configs have some 10 KiB, with a seccomp profile some 100 KiB.
const MAX_SIZE: u64 = 8 << 20;

/// The bundle's directory as an absolute path without symbolic links.
pub(super) fn directory(dir: &Path) -> Result<PathBuf> {
    let advice = "name a directory that holds config.json (--bundle)";
    let found = match std::fs::canonicalize(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            bail!("bundle {dir:?} does not exist: {advice}");
        }
        other => other
            .map_err(|error| os_error("realpath", dir, error))
            .context("bundle")?,
    };
    if !found.is_dir() {
        bail!("bundle {dir:?} is not a directory: {advice}");
    }
    Ok(found)
}

/// A failed call on a path, with the words that all of the runtime's errors have.
pub(super) fn os_error(call: &str, path: &Path, error: std::io::Error) -> SysError {
    // Without an errno, which no call on a path leaves out, EIO is nearest to what happened.
    let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
    SysError::new(format!("{call}({path:?})"), errno)
}

/// The file of the configuration in a bundle's directory.
pub(super) fn config_path(dir: &Path) -> PathBuf {
    dir.join("config.json")
}

/// What stands in the file of the configuration.
pub(super) fn config(path: &Path) -> Result<Vec<u8>> {
    if !path.try_exists().unwrap_or(true) {
        bail!("{path:?} does not exist: \"parhelion spec\" writes one to start from");
    }
    bytes(path)
}

/// The JSON object in a file.
pub(super) fn object(path: &Path) -> Result<Value> {
    let bytes = bytes(path)?;
    parse(&bytes).with_context(|| format!("{path:?}"))
}

fn bytes(path: &Path) -> Result<Vec<u8>> {
    let info = match std::fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => bail!("{path:?} does not exist"),
        Err(error) => return Err(os_error("stat", path, error).into()),
        Ok(info) => info,
    };
    // Opening a fifo would wait for its writer, and a device may never end.
    if !info.is_file() {
        bail!("{path:?} is not a regular file: put the configuration there");
    }
    let mut bytes = Vec::with_capacity(info.len().min(MAX_SIZE) as usize + 1);
    File::open(path)
        .and_then(|file| file.take(MAX_SIZE + 1).read_to_end(&mut bytes))
        .map_err(|error| os_error("read", path, error))?;
    if bytes.len() as u64 > MAX_SIZE {
        bail!(
            "{path:?} is larger than {} MiB: make it smaller",
            MAX_SIZE >> 20
        );
    }
    Ok(bytes)
}

/// The JSON object in these bytes.
pub(super) fn parse(bytes: &[u8]) -> Result<Value> {
    let value = parse_any(bytes)?;
    if !value.is_object() {
        bail!(
            "line 1: must be a JSON object, is {}",
            super::report::show(&value)
        );
    }
    Ok(value)
}

/// The JSON object in these bytes without the object `linux.seccomp`, and the text of that; or all of it,
/// where there is none.
pub(super) fn parse_apart(bytes: &[u8]) -> Result<(Value, Option<&str>)> {
    let text = std::str::from_utf8(bytes).ok();
    let apart = text.and_then(|text| strict::from_str_around(text, &["linux", "seccomp"]).ok());
    match apart {
        Some((value, None)) => Ok((value, None)),
        Some((value, Some(profile))) if profile.starts_with('{') => Ok((value, Some(profile))),
        // Something is there that is wrong, or asks for nothing: as a rule, that is to be told.
        Some(_) | None => Ok((parse(bytes)?, None)),
    }
}

/// The JSON value in these bytes.
pub(super) fn parse_any(bytes: &[u8]) -> Result<Value> {
    if bytes.starts_with(b"\xef\xbb\xbf") {
        bail!("begins with a byte order mark: save it as UTF-8 without one");
    }
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let (line, column) = position(&bytes[..error.valid_up_to()]);
        anyhow!("line {line} column {column}: not UTF-8: save it as UTF-8")
    })?;
    strict::from_str(text).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        let full = error.to_string();
        let position = format!(" at line {line} column {column}");
        let reason = full.strip_suffix(&position).unwrap_or(&full);
        let reason = match reason {
            // serde_json stops at a depth of 128, before the stack is in danger.
            "recursion limit exceeded" => "nested too deeply",
            other => other,
        };
        anyhow!("line {line} column {column}: {reason}: correct the JSON there")
    })
}

/// Line and column, from 1, of the byte after these.
fn position(before: &[u8]) -> (usize, usize) {
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    let column = before
        .iter()
        .rev()
        .take_while(|byte| **byte != b'\n')
        .count()
        + 1;
    (line, column)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(bytes: &[u8]) -> String {
        format!("{:#}", parse(bytes).unwrap_err())
    }

    #[test]
    fn malformed_json_is_reported_with_line_and_column() {
        assert_eq!(
            failure(b"{\n  \"ociVersion\": \"1.0.0\"\n  \"root\": {}\n}"),
            "line 3 column 3: expected `,` or `}`: correct the JSON there"
        );
        assert_eq!(
            failure(b"{\"a\":"),
            "line 1 column 5: EOF while parsing a value: correct the JSON there"
        );
        assert_eq!(
            failure(b""),
            "line 1 column 0: EOF while parsing a value: correct the JSON there"
        );
        assert_eq!(
            failure(b"{} {}"),
            "line 1 column 4: trailing characters: correct the JSON there"
        );
    }

    #[test]
    fn a_name_that_is_given_twice_is_reported() {
        assert_eq!(
            failure(b"{\"a\": [{\"b\": 1, \"b\": 2}]}"),
            "line 1 column 19: the name \"b\" is given twice: correct the JSON there"
        );
    }

    #[test]
    fn what_is_not_utf_8_is_reported_with_line_and_column() {
        assert_eq!(
            failure(b"{\n \"a\": \"\xff\"}"),
            "line 2 column 8: not UTF-8: save it as UTF-8"
        );
        assert_eq!(
            failure(b"\xef\xbb\xbf{}"),
            "begins with a byte order mark: save it as UTF-8 without one"
        );
    }

    #[test]
    fn deep_nesting_is_refused_before_the_stack_ends() {
        let deep = "[".repeat(1_000_000);
        assert_eq!(
            failure(deep.as_bytes()),
            "line 1 column 128: nested too deeply: correct the JSON there"
        );
    }

    #[test]
    fn only_an_object_is_a_config() {
        assert_eq!(failure(b"null"), "line 1: must be a JSON object, is null");
        assert_eq!(
            failure(b"[1]"),
            "line 1: must be a JSON object, is an array"
        );
    }
}
