//! What CRIU answers and tells: `criu_resp` of its rpc.proto.

use anyhow::{Context as _, Result};

use super::wire::{Value, fields};

/// An answer, or something that CRIU tells on the way there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Response {
    /// The number of the [`super::Kind`] it belongs to.
    pub kind: i32,
    pub success: bool,
    pub notice: Notice,
    /// An errno, or 0.
    pub errno: i32,
    /// The first error that CRIU has logged; mostly empty.
    pub message: String,
    /// The numbers of features that the kernel has.
    pub features: Vec<u32>,
    pub version: Version,
}

/// A step that CRIU tells of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Notice {
    /// Its name, as `setup-namespaces`.
    pub step: String,
    /// The first process of the tree in the caller's pid namespace; 0 where it is not told.
    pub pid: i32,
}

/// How old a CRIU is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// The first number of it.
    pub major: i32,
    /// The second.
    pub minor: i32,
    /// The third.
    pub sublevel: i32,
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)?;
        match self.sublevel {
            0 => Ok(()),
            sublevel => write!(f, ".{sublevel}"),
        }
    }
}

impl Response {
    /// Reads a message.
    ///
    /// # Errors
    ///
    /// It is none.
    pub(super) fn read(bytes: &[u8]) -> Result<Response> {
        let mut response = Response::default();
        for (field, value) in fields(bytes).context("an answer of criu can not be read")? {
            match field {
                1 => response.kind = value.int(),
                2 => response.success = value.is_true(),
                5 => response.notice = notice(value)?,
                7 => response.errno = value.int(),
                8 => response.features = features(value)?,
                9 => response.message = value.text(),
                10 => response.version = version(value)?,
                _ => {}
            }
        }
        Ok(response)
    }
}

fn notice(value: Value<'_>) -> Result<Notice> {
    let mut notice = Notice::default();
    for (field, value) in fields(value.bytes())? {
        match field {
            1 => notice.step = value.text(),
            2 => notice.pid = value.int(),
            _ => {}
        }
    }
    Ok(notice)
}

fn features(value: Value<'_>) -> Result<Vec<u32>> {
    let read = fields(value.bytes())?.into_iter();
    Ok(read
        .filter(|(_, value)| value.is_true())
        .map(|(field, _)| field)
        .collect())
}

fn version(value: Value<'_>) -> Result<Version> {
    let mut version = Version::default();
    for (field, value) in fields(value.bytes())? {
        match field {
            1 => version.major = value.int(),
            2 => version.minor = value.int(),
            4 => version.sublevel = value.int(),
            _ => {}
        }
    }
    Ok(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_with_what_it_holds() {
        let bytes = b"\x08\x06\x10\x01\x2a\x0c\x0a\x07foo-bar\x10\xac\x02\x38\x16\x4a\x02no\
            \x42\x04\x08\x01\x10\x00\x52\x06\x08\x04\x10\x01\x20\x02";
        let expected = Response {
            kind: 6,
            success: true,
            notice: Notice {
                step: "foo-bar".into(),
                pid: 300,
            },
            errno: 22,
            message: "no".into(),
            features: vec![1],
            version: Version {
                major: 4,
                minor: 1,
                sublevel: 2,
            },
        };
        assert_eq!(Response::read(bytes).unwrap(), expected);
        assert!(Response::read(b"\x08").is_err());
    }

    #[test]
    fn versions_are_compared_by_their_numbers() {
        let version = |major, minor, sublevel| Version {
            major,
            minor,
            sublevel,
        };
        assert!(version(3, 9, 1) < version(3, 16, 0));
        assert!(version(4, 0, 0) > version(3, 19, 5));
        assert_eq!(version(4, 1, 1).to_string(), "4.1.1");
        assert_eq!(version(3, 16, 0).to_string(), "3.16");
    }
}
