//! A container's id, checked where it enters the program.
//!
//! An id becomes the name of a directory and of a cgroup, so nothing that was not checked here may
//! reach either of them: functions below take [`ContainerId`], not text.

use std::fmt;

use anyhow::{Result, bail};

/// The longest id: it is one component of a path, and no Linux file system takes a longer one.
const MAX_LENGTH: usize = 255;

/// An id of letters, digits and `_ + - .`, as runc allows it; never `.` or `..`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ContainerId(String);

impl ContainerId {
    /// Checks an id that came from outside.
    ///
    /// # Errors
    ///
    /// Says what is wrong with it.
    pub fn parse(text: &str) -> Result<ContainerId> {
        if text.is_empty() {
            bail!("container id cannot be empty");
        }
        if text.len() > MAX_LENGTH {
            let length = text.len();
            bail!(
                "invalid container id: {length} characters long, at most {MAX_LENGTH} fit into a path"
            );
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || "_+-.".contains(c);
        if !text.chars().all(allowed) || text == "." || text == ".." {
            bail!("invalid container id {text:?}: letters, digits and _ + - . make an id");
        }
        Ok(ContainerId(text.to_owned()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_runc_takes_are_taken() {
        for id in ["web", "a", "0", "A_b+c-d.e", "...", "-x", ".hidden"] {
            assert_eq!(ContainerId::parse(id).unwrap().as_str(), id);
        }
        assert!(ContainerId::parse(&"x".repeat(255)).is_ok());
    }

    #[test]
    fn ids_that_could_leave_their_directory_are_refused() {
        for id in [".", "..", "a/b", "../x", "/", "a\0b", "a b", "ä", "a\n"] {
            let error = ContainerId::parse(id).unwrap_err().to_string();
            assert!(error.starts_with("invalid container id"), "{id:?}: {error}");
        }
    }

    #[test]
    fn an_id_that_is_empty_or_too_long_is_refused_with_the_reason() {
        let empty = ContainerId::parse("").unwrap_err().to_string();
        assert_eq!(empty, "container id cannot be empty");
        let long = ContainerId::parse(&"x".repeat(256))
            .unwrap_err()
            .to_string();
        assert!(long.contains("256 characters long"), "{long}");
    }
}
