//! Job configurations of Helios (Job.java of spotify/helios, version 0.9), each field of which becomes something
//! here, or is refused with the reason. docs/helios-jobs.md has the table for people.

mod fields;
mod health;
mod mounts;
mod network;
mod security;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use anyhow::{Result, bail};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{Job, Task};
use crate::error::Problems;
use fields::FIELDS;

/// The name of the only task.
pub const TASK: &str = "main";

/// What a configuration of Helios does not say.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The bundle that was made from the image.
    pub bundle: Option<PathBuf>,
    /// The job's name and version, instead of `id`: Helios' client was told them, with the image, beside the file.
    pub id: Option<(String, String)>,
}

/// What became of a field, where a person should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// The field's path in the configuration of Helios.
    pub field: String,
    /// What became of it.
    pub message: String,
}

/// The job that a configuration of Helios says, and what a person should know of it.
///
/// # Errors
///
/// What is no JSON object, with its place; or the [`Problems`], all at once.
pub fn import(text: &str, options: &Options) -> Result<(Job, Vec<Note>)> {
    if text.len() > super::MAX_SIZE {
        bail!("is larger than {} MiB", super::MAX_SIZE >> 20);
    }
    let Value::Object(given) = serde_json::from_str(text)? else {
        bail!("must be a JSON object");
    };
    let mut import = Import {
        given,
        job: Job::default(),
        task: Task::default(),
        notes: Vec::new(),
        problems: Problems::default(),
    };
    for (_, _, read) in FIELDS {
        read(&mut import, options);
    }
    import.finish()
}

/// An import under way.
struct Import {
    /// The fields that were not read yet.
    given: Map<String, Value>,
    job: Job,
    task: Task,
    notes: Vec<Note>,
    problems: Problems,
}

impl Import {
    /// Takes a field out; None where it is missing or null.
    fn take<T: DeserializeOwned>(&mut self, field: &str) -> Option<T> {
        let value = self.given.remove(field).filter(|value| !value.is_null())?;
        self.read(field, value)
    }

    /// The same of text that is empty where there is none.
    fn text(&mut self, field: &str) -> Option<String> {
        self.take(field).filter(|text: &String| !text.is_empty())
    }

    fn read<T: DeserializeOwned>(&mut self, path: &str, value: Value) -> Option<T> {
        match serde_json::from_value(value) {
            Ok(value) => Some(value),
            Err(error) => {
                self.problem(path, error.to_string());
                None
            }
        }
    }

    fn note(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.notes.push(Note {
            field: field.into(),
            message: message.into(),
        });
    }

    fn problem(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.problems.add(field, message);
    }

    /// Keeps a value that changes nothing here where people find it.
    fn keep(&mut self, field: &str, value: String) {
        self.job.metadata.insert(format!("helios.{field}"), value);
    }

    fn finish(mut self) -> Result<(Job, Vec<Note>)> {
        let unknown: Vec<String> = self.given.keys().cloned().collect();
        for field in unknown {
            self.note(
                field,
                "is no field of Helios, which ignores it: so it is here",
            );
        }
        self.job.tasks.insert(TASK.to_owned(), self.task);
        self.problems.into_result()?;
        self.job.check()?;
        // By way of its JSON, in which nothing is written that is a default.
        let job = serde_json::from_value(serde_json::to_value(&self.job)?)?;
        Ok((job, self.notes))
    }
}
