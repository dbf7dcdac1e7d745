//! What the checks found: problems that refuse the bundle, and warnings that do not.
//!
//! Also how a place and a value are written in a message. A config may be hostile, hence long
//! values are cut, control characters escaped, and a flood of findings is counted, not kept.

use std::fmt::{self, Display, Write};

use serde_json::Value;

use crate::error::Problems;

/// How many problems, and how many warnings, are kept; more help nobody.
const KEPT: usize = 100;

/// How many characters of a value a message shows.
const SHOWN: usize = 80;

/// Everything found so far.
#[derive(Debug, Default)]
pub(super) struct Report {
    problems: Problems,
    problems_found: usize,
    warnings: Vec<String>,
    warnings_found: usize,
}

impl Report {
    /// Notes what refuses the bundle.
    pub(super) fn problem(&mut self, path: impl Display, message: impl Display) {
        self.problems_found += 1;
        if self.problems_found <= KEPT {
            self.problems.add(path.to_string(), message.to_string());
        }
    }

    /// Notes what a person should know, though the container runs.
    pub(super) fn warning(&mut self, path: impl Display, message: impl Display) {
        self.warnings_found += 1;
        if self.warnings_found <= KEPT {
            self.warnings.push(format!("{path}: {message}"));
        }
    }

    /// Ok when there is no problem, else all of them.
    ///
    /// # Errors
    ///
    /// The problems, in the order in which they were found.
    pub(super) fn refuse_problems(&mut self) -> Result<(), Problems> {
        if self.problems_found > KEPT {
            let more = format!("has {} more problems", self.problems_found - KEPT);
            self.problems.add("config.json", more);
        }
        std::mem::take(&mut self.problems).into_result()
    }

    /// The warnings, in the order in which they were found.
    pub(super) fn into_warnings(mut self) -> Vec<String> {
        if self.warnings_found > KEPT {
            let more = self.warnings_found - KEPT;
            self.warnings
                .push(format!("config.json: {more} more warnings"));
        }
        self.warnings
    }
}

/// A place in config.json, kept as a chain on the stack so that only a finding costs memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    above: Option<&'a Place<'a>>,
    step: Step<'a>,
}

/// One step from a value to one inside it.
#[derive(Debug, Clone, Copy)]
enum Step<'a> {
    Key(&'a str),
    Index(usize),
}

impl<'a> Place<'a> {
    /// The property `key` of the object at `above`, or of config.json itself.
    pub(super) fn key(above: Option<&'a Place<'a>>, key: &'a str) -> Self {
        Place {
            above,
            step: Step::Key(key),
        }
    }

    /// The element `index` of the array at `above`.
    pub(super) fn index(above: &'a Place<'a>, index: usize) -> Self {
        Place {
            above: Some(above),
            step: Step::Index(index),
        }
    }
}

impl Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(above) = self.above {
            write!(f, "{above}")?;
        }
        match self.step {
            Step::Index(index) => write!(f, "[{index}]"),
            Step::Key(key) if !is_plain(key) => write!(f, "[{}]", quote(key)),
            Step::Key(key) if self.above.is_none() => f.write_str(key),
            Step::Key(key) => write!(f, ".{key}"),
        }
    }
}

/// True for a key that needs no quotes in a path: `net.core` would look like two.
fn is_plain(key: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    !key.is_empty() && key.len() <= SHOWN && key.bytes().all(plain)
}

/// A string of the config as a message shows it: in quotes, escaped, and cut when long.
pub(super) fn quote(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{:?}...", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// A value of the config as a message shows it.
pub(super) fn show(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(truth) => truth.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => quote(text),
        Value::Array(_) => "an array".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}

/// Words as a message lists them: `a, b or c`.
pub(super) fn list(words: &[&str]) -> String {
    let mut text = String::new();
    for (i, word) in words.iter().enumerate() {
        let separator = match i {
            0 => "",
            _ if i + 1 == words.len() => " or ",
            _ => ", ",
        };
        // Writing to a String cannot fail.
        let _ = write!(text, "{separator}{word}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_written_as_people_write_paths() {
        let linux = Place::key(None, "linux");
        let sysctl = Place::key(Some(&linux), "sysctl");
        let devices = Place::key(Some(&linux), "devices");
        let device = Place::index(&devices, 2);
        let line_break = Place::key(Some(&sysctl), "a\nb");
        assert_eq!(
            Place::key(Some(&device), "major").to_string(),
            "linux.devices[2].major"
        );
        assert_eq!(line_break.to_string(), r#"linux.sysctl["a\nb"]"#);
        assert_eq!(Place::key(None, "").to_string(), r#"[""]"#);
    }

    #[test]
    fn a_long_value_is_cut_and_a_flood_of_findings_is_counted() {
        assert_eq!(
            quote(&"é".repeat(1000)),
            format!("\"{}\"...", "é".repeat(SHOWN))
        );
        let mut report = Report::default();
        for i in 0..1000 {
            report.problem(format_args!("args[{i}]"), "wrong");
            report.warning(format_args!("env[{i}]"), "odd");
        }
        let problems = report.refuse_problems().unwrap_err();
        assert_eq!(problems.iter().count(), KEPT + 1);
        assert!(
            problems
                .to_string()
                .ends_with("; config.json: has 900 more problems")
        );
        let warnings = report.into_warnings();
        assert_eq!(warnings.last().unwrap(), "config.json: 900 more warnings");
    }

    #[test]
    fn words_are_listed_in_english() {
        assert_eq!(list(&["a"]), "a");
        assert_eq!(list(&["a", "b", "c"]), "a, b or c");
    }
}
