//! A job file to a [`Job`], or to all that is wrong in it, each with its line and column.
//!
//! Both formats become one tree with places (`tree.rs`). serde reads its values; what it refuses is noted and taken
//! away, for what is missing something stands in, and it reads again. What is left is held against the rules of
//! [`Job::check`], but for those about what was taken away. So one reading of a file tells everything.

mod json;
mod suggest;
#[cfg(test)]
mod tests;
mod toml;
mod tree;

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_path_to_error::Segment;
use utoipa::ToSchema;

use super::check::{Lost, Meant};
use super::{Job, check};
use tree::Node;

pub(super) use tree::{Step, written};

/// The largest file that is read, in bytes.
pub const MAX_SIZE: usize = 1 << 20;

/// How many problems are told; more help nobody.
const TOLD: usize = 50;

/// The formats of a job file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// RFC 8259.
    Json,
    /// TOML 1.1.
    Toml,
}

/// Why a job file is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal(Vec<Fault>);

/// One thing that is wrong in a job file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Fault {
    /// Its line, from 1.
    pub line: usize,
    /// Its column, in characters, from 1.
    pub column: usize,
    /// Which field it is about, as `tasks.web.bundle`; empty for the file itself.
    pub path: String,
    /// What is wrong and what to do.
    pub message: String,
}

impl Format {
    /// By a file's name if that ends in `.json` or `.toml`, else by its text.
    #[must_use]
    pub fn of(path: &Path, text: &str) -> Format {
        let extension = path.extension().and_then(|extension| extension.to_str());
        match extension.map(str::to_ascii_lowercase).as_deref() {
            Some("json") => Format::Json,
            Some("toml") => Format::Toml,
            _ if text.trim_start().starts_with('{') => Format::Json,
            _ => Format::Toml,
        }
    }
}

/// The job that a file's text says.
///
/// # Errors
///
/// All that is wrong with the text; if that is nothing, all that is wrong with what it says.
pub fn parse(text: &str, format: Format) -> Result<Job, Refusal> {
    let mut root = tree(text, format)?;
    let mut reading = Reading {
        text,
        faults: Vec::new(),
        lost: Vec::new(),
    };
    let job = reading.read(&mut root);
    if let Some(job) = &job {
        reading.check(&root, job);
    }
    match job {
        Some(job) if reading.faults.is_empty() => Ok(job),
        Some(_) | None => Err(Refusal::of(reading.faults)),
    }
}

fn tree(text: &str, format: Format) -> Result<Node, Refusal> {
    if text.len() > MAX_SIZE {
        let message = format!("is larger than {} MiB", MAX_SIZE >> 20);
        return Err(Refusal::of(vec![fault(text, 0, &[], &message)]));
    }
    let refused = match format {
        Format::Toml => match toml::tree(text) {
            Ok(root) => return Ok(root),
            Err(wrong) => wrong,
        },
        // As a value, so that what is nested too deep is refused.
        Format::Json => match serde_json::from_str::<serde_json::Value>(text) {
            Err(error) => return Err(no_json(&error)),
            Ok(_) => match json::tree(text) {
                Ok(root) => return Ok(root),
                Err((at, name)) => vec![(at, format!("{name:?} is given twice"))],
            },
        },
    };
    let faults = refused.iter();
    let faults = faults.map(|(at, message)| fault(text, *at, &[], message));
    Err(Refusal::of(faults.collect()))
}

fn no_json(error: &serde_json::Error) -> Refusal {
    let place = format!(" at line {} column {}", error.line(), error.column());
    let message = error.to_string();
    Refusal::of(vec![Fault {
        line: error.line(),
        column: error.column(),
        path: String::new(),
        message: message.strip_suffix(&place).unwrap_or(&message).to_owned(),
    }])
}

/// A file that is being read.
struct Reading<'a> {
    text: &'a str,
    faults: Vec<Fault>,
    /// What was taken away or is missing, in the numbers of the text.
    lost: Vec<Lost>,
}

impl Reading<'_> {
    /// What serde makes of the tree without what it refuses, one thing after another; None where nothing can be made.
    fn read(&mut self, root: &mut Node) -> Option<Job> {
        while self.faults.len() <= TOLD {
            let error = match serde_path_to_error::deserialize::<_, Job>(&root.value()) {
                Ok(job) => return Some(job),
                Err(error) => error,
            };
            let path: Vec<Step> = error.path().iter().filter_map(step).collect();
            if !self.put_right(root, &path, &error.inner().to_string()) {
                return None;
            }
        }
        None
    }

    /// Tells what is wrong, and makes the tree such that it is not told again; false where that can not be.
    fn put_right(&mut self, root: &mut Node, path: &[Step], message: &str) -> bool {
        if root.stands_in(path) {
            return root.stand_in_next(path);
        }
        let here = root.in_text(path);
        let missing = message.strip_prefix("missing field `");
        if let Some(field) = missing.and_then(|rest| rest.split('`').next()) {
            let path_of_field = [here.as_slice(), &[Step::Key(field.to_owned())]].concat();
            // What is missing because it was wrong, and taken away, has been told.
            if self.lost.iter().all(|lost| lost.path != path_of_field) {
                self.tell(root.place(path), &here, message);
                self.lost.push(Lost {
                    path: path_of_field,
                    meant: Meant::Itself,
                });
            }
            return root.stand_in(path, field);
        }
        let told = suggest::helped(message);
        self.tell(root.place(path), &here, &told);
        let meant = match suggest::suggested(&told) {
            _ if !message.starts_with("unknown field `") => Meant::Itself,
            Some(name) => Meant::Beside(name),
            None => Meant::AnyBeside,
        };
        self.lost.push(Lost { path: here, meant });
        root.remove(path)
    }

    /// Holds what could be read against the rules.
    fn check(&mut self, root: &Node, job: &Job) {
        let lost = self.lost.iter().map(|lost| Lost {
            path: root.now(&lost.path),
            meant: lost.meant.clone(),
        });
        for (path, message) in check::problems(job, lost.collect()) {
            self.tell(root.place(&path), &root.in_text(&path), &message);
        }
    }

    fn tell(&mut self, at: usize, path: &[Step], message: &str) {
        self.faults.push(fault(self.text, at, path, message));
    }
}

fn step(segment: &Segment) -> Option<Step> {
    match segment {
        Segment::Seq { index } => Some(Step::Index(*index)),
        Segment::Map { key } => Some(Step::Key(key.clone())),
        Segment::Enum { variant } => Some(Step::Key(variant.clone())),
        Segment::Unknown => None,
    }
}

fn fault(text: &str, at: usize, path: &[Step], message: &str) -> Fault {
    let (line, column) = tree::line_and_column(text, at);
    Fault {
        line,
        column,
        path: tree::written(path),
        message: message.to_owned(),
    }
}

impl Refusal {
    fn of(mut faults: Vec<Fault>) -> Refusal {
        faults.sort_by_key(|fault| (fault.line, fault.column));
        Refusal(faults)
    }

    /// What is wrong, in the order of the text; at least one thing.
    pub fn faults(&self) -> impl Iterator<Item = &Fault> {
        self.0.iter()
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (line, column) = (self.line, self.column);
        write!(f, "line {line}, column {column}: ")?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, fault) in self.0.iter().take(TOLD).enumerate() {
            let separator = if i == 0 { "" } else { "; " };
            write!(f, "{separator}{fault}")?;
        }
        let more = self.0.len().saturating_sub(TOLD);
        if more > 0 {
            write!(f, "; and {more} more")?;
        }
        Ok(())
    }
}

impl std::error::Error for Refusal {}
