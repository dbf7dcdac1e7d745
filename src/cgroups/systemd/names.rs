//! The names of a container's unit: from `linux.cgroupsPath` to slice, scope and cgroup.
//!
//! With systemd the path has the form `slice:prefix:name`, as runc has it: the scope is
//! `prefix-name.scope` in that slice. What is left out is the default: the system's slice, or the
//! user's for a user's systemd; "parhelion"; the container's id.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// What stands before the container's name in its unit's, when the configuration gives no path.
const PREFIX: &str = "parhelion";

/// The longest name that a unit can have (systemd.unit(5)).
const LONGEST: usize = 255;

/// Where a container's scope is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Names {
    /// None when the configuration leaves the choice to us.
    pub slice: Option<String>,
    pub scope: String,
}

impl Names {
    /// The names that `linux.cgroupsPath` asks for.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub(super) fn parse(configured: Option<&Path>, id: &str) -> Result<Names, String> {
        let text = configured.map_or(Some(""), Path::to_str);
        let text = text.ok_or("must be text in UTF-8")?;
        let (slice, prefix, name) = match text.split(':').collect::<Vec<_>>()[..] {
            [""] => ("", PREFIX, id),
            [slice, prefix, name] => (slice, prefix, name),
            _ => {
                return Err(format!(
                    "must have the form slice:prefix:name with --systemd-cgroup, is {text:?}"
                ));
            }
        };
        if name.is_empty() {
            return Err(format!("has no name after the last colon, is {text:?}"));
        }
        if name.ends_with(".slice") {
            return Err(format!(
                "{name:?} names a slice, and processes live in scopes only"
            ));
        }
        let slice = match slice {
            "" => None,
            slice => Some(check_slice(slice)?.to_owned()),
        };
        let joined = match prefix {
            "" => name.to_owned(),
            prefix => format!("{prefix}-{name}"),
        };
        let scope = format!("{}.scope", escape(&joined));
        if scope.len() > LONGEST {
            return Err(format!(
                "makes a unit's name of {} characters, of which {LONGEST} are possible",
                scope.len()
            ));
        }
        Ok(Names { slice, scope })
    }
}

/// Replaces what a unit's name can not have, as a container's id may (`+`), in the way of
/// systemd-escape(1). What can stay does: callers look for the name that they gave.
fn escape(name: &str) -> String {
    let mut escaped = String::new();
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b':' | b'-' | b'_' | b'.' | b'@' | b'\\' => {
                escaped.push(byte.into());
            }
            // Writing to a string can not fail.
            _ => drop(write!(escaped, "\\x{byte:02x}")),
        }
    }
    escaped
}

fn check_slice(slice: &str) -> Result<&str, String> {
    let Some(name) = slice.strip_suffix(".slice") else {
        return Err(format!(
            "its first part must be a slice, as system.slice, is {slice:?}"
        ));
    };
    let parts = name.split('-');
    let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '\\' | ':');
    if name != "-" && (parts.clone().any(str::is_empty) || !name.chars().all(valid)) {
        return Err(format!("{slice:?} can not be a slice's name"));
    }
    Ok(slice)
}

/// The cgroup of a slice: each dash leads one level down, `a-b.slice` is `a.slice/a-b.slice`. The
/// root slice, `-.slice`, is no level.
pub(super) fn expand(slice: &str) -> PathBuf {
    let name = slice.strip_suffix(".slice").unwrap_or(slice);
    if name == "-" {
        return PathBuf::new();
    }
    let ends = name.match_indices('-').map(|(place, _)| place);
    ends.chain([name.len()])
        .map(|end| format!("{}.slice", &name[..end]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(path: &str) -> Result<(Option<String>, String), String> {
        Names::parse(Some(Path::new(path)), "web").map(|names| (names.slice, names.scope))
    }

    #[test]
    fn slice_prefix_and_name_become_a_scope_in_a_slice() {
        assert_eq!(
            names("machine.slice:libpod:abc"),
            Ok((Some("machine.slice".into()), "libpod-abc.scope".into()))
        );
        assert_eq!(names(":docker:abc"), Ok((None, "docker-abc.scope".into())));
        assert_eq!(
            names("-.slice::abc"),
            Ok((Some("-.slice".into()), "abc.scope".into()))
        );
    }

    #[test]
    fn without_a_path_the_name_is_the_containers() {
        let expected = Ok((None, "parhelion-web.scope".into()));
        assert_eq!(names(""), expected);
        let none = Names::parse(None, "web").map(|names| (names.slice, names.scope));
        assert_eq!(none, expected);
    }

    #[test]
    fn what_a_unit_can_not_be_named_is_escaped() {
        let none = Names::parse(None, "a+b_c.d").map(|names| names.scope);
        assert_eq!(none, Ok("parhelion-a\\x2bb_c.d.scope".into()));
        assert_eq!(names(":p:a/b"), Ok((None, "p-a\\x2fb.scope".into())));
    }

    #[test]
    fn other_forms_are_refused() {
        for (path, problem) in [
            ("/pods/web", "must have the form slice:prefix:name"),
            ("system.slice:web", "must have the form slice:prefix:name"),
            ("a:b:c:d", "must have the form slice:prefix:name"),
            ("system.slice:runc:", "has no name"),
            ("system.slice:runc:a.slice", "names a slice"),
            ("system:runc:web", "must be a slice"),
            ("a--b.slice:runc:web", "can not be a slice's name"),
            ("-a.slice:runc:web", "can not be a slice's name"),
            ("a-.slice:runc:web", "can not be a slice's name"),
            (".slice:runc:web", "can not be a slice's name"),
            ("../a.slice:runc:web", "can not be a slice's name"),
        ] {
            let error = names(path).unwrap_err();
            assert!(error.contains(problem), "{path}: {error}");
        }
        let long = format!(":p:{}", "x".repeat(300));
        assert!(names(&long).unwrap_err().contains("308 characters"));
        assert!(names(&long).unwrap_err().contains("255 are possible"));
    }

    #[test]
    fn a_dash_in_a_slice_leads_one_level_down() {
        let expanded = |slice| expand(slice).to_str().unwrap().to_owned();
        assert_eq!(expanded("system.slice"), "system.slice");
        assert_eq!(
            expanded("kubepods-burstable-pod1_2.slice"),
            "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1_2.slice"
        );
        assert_eq!(expanded("-.slice"), "");
    }
}
