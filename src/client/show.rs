//! What is printed: tables and colours for people, JSON for programs, progress where somebody looks at it.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the command's answer"
)]

use std::io::{self, IsTerminal as _, Write as _};

use serde::Serialize;

use super::failure::Failure;
use crate::api::{Health, Instance, Phase, Problem};
use crate::error::{harmless, without_controls};
use crate::job::Fault;

/// How an answer is printed.
#[derive(Debug)]
pub struct Output {
    /// As JSON.
    pub json: bool,
    colours: bool,
    progress: bool,
}

/// A colour, as its code of ECMA-48.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colour {
    /// As it is.
    Plain,
    /// Well.
    Green,
    /// To be looked at.
    Yellow,
    /// Not well.
    Red,
    /// Not so important.
    Dim,
}

/// One field of a table: one line, with which no job and no program inside makes the terminal do things.
#[derive(Debug, Clone)]
pub struct Cell(String, Colour);

impl Cell {
    /// One in a colour.
    pub fn new(text: impl Into<String>, colour: Colour) -> Cell {
        let text = harmless(&text.into()).replace('\n', " ");
        Cell(text, colour)
    }

    /// Its text and its colour.
    pub fn into_parts(self) -> (String, Colour) {
        (self.0, self.1)
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Cell {
        Cell::new(text, Colour::Plain)
    }
}

impl Colour {
    fn of(self, text: &str) -> String {
        let code = match self {
            Colour::Plain => return text.to_owned(),
            Colour::Green => 32,
            Colour::Yellow => 33,
            Colour::Red => 31,
            Colour::Dim => 2,
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

impl Output {
    /// By the command line, the terminal and NO_COLOR.
    pub fn new(json: bool) -> Output {
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Output {
            json,
            colours: !json && !no_colour && !dumb && io::stdout().is_terminal(),
            progress: !json && io::stderr().is_terminal(),
        }
    }

    /// Prints text as it is.
    pub fn text(&self, text: &[u8]) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        let written = out.write_all(text).and_then(|()| out.flush());
        written.map_err(|error| match error.kind() == io::ErrorKind::BrokenPipe {
            true => Failure::Closed,
            false => Failure::new(format!("standard output: {error}"), "free its disk"),
        })
    }

    /// Prints a line for people.
    pub fn say(&self, text: &str) -> Result<(), Failure> {
        self.text(format!("{}\n", harmless(text)).as_bytes())
    }

    /// Prints a value as JSON on many lines.
    pub fn value<T: Serialize>(&self, value: &T) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(value).map_err(Failure::strange)?;
        self.text(format!("{}\n", without_controls(text)).as_bytes())
    }

    /// Prints a value as JSON on one line.
    pub fn line<T: Serialize>(&self, value: &T) -> Result<(), Failure> {
        let text = serde_json::to_string(value).map_err(Failure::strange)?;
        self.text(format!("{}\n", without_controls(text)).as_bytes())
    }

    /// Prints a table.
    pub fn table(&self, head: &[&str], rows: &[Vec<Cell>]) -> Result<(), Failure> {
        let text = table(head, rows, self.colours);
        self.text(text.as_bytes())
    }

    /// Says something to a person who may be there, on stderr.
    pub fn note(&self, text: &str) {
        if !self.json {
            eprintln!("{}", harmless(text));
        }
    }

    /// Shows how far it is, on one line that is written anew; nothing where nobody looks.
    pub fn progress(&self, text: &str) {
        if self.progress {
            eprint!("\r\x1b[K{}", harmless(text));
        }
    }

    /// Takes the line of progress away.
    pub fn progress_ends(&self) {
        self.progress("");
    }

    /// Tells why it was not done.
    pub fn failure(&self, failure: &Failure) {
        let Failure::Told(problem) = failure else {
            return;
        };
        self.progress_ends();
        match serde_json::to_string(problem) {
            Ok(text) if self.json => eprintln!("{}", without_controls(text)),
            Ok(_) | Err(_) => {
                for line in lines(problem) {
                    eprintln!("parctl: {}", harmless(&line));
                }
                eprintln!("    {}", harmless(&problem.hint));
            }
        }
    }
}

/// What is wrong, each fault of a file on a line of its own.
fn lines(problem: &Problem) -> Vec<String> {
    let faults: Vec<String> = problem.faults.iter().map(Fault::to_string).collect();
    match problem.error.strip_suffix(&faults.join("; ")) {
        Some(file) if !faults.is_empty() => {
            let lines = faults.iter().map(|fault| format!("{file}{fault}"));
            lines.collect()
        }
        Some(_) | None => vec![problem.error.clone()],
    }
}

/// A table: each column as wide as its widest field.
fn table(head: &[&str], rows: &[Vec<Cell>], colours: bool) -> String {
    let width = |column: usize| {
        let fields = rows.iter().filter_map(|row| row.get(column));
        let widths = fields.map(|cell| cell.0.chars().count());
        let own = head.get(column).map_or(0, |name| name.len());
        widths.max().unwrap_or(0).max(own)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let head: Vec<Cell> = head
        .iter()
        .map(|name| Cell::new(*name, Colour::Dim))
        .collect();
    let mut text = String::new();
    for row in std::iter::once(&head).chain(rows) {
        let last = row.len().saturating_sub(1);
        for (column, cell) in row.iter().enumerate() {
            let coloured = match colours {
                true => cell.1.of(&cell.0),
                false => cell.0.clone(),
            };
            text.push_str(&coloured);
            if column < last {
                let width = widths.get(column).copied().unwrap_or_default();
                let missing = width.saturating_sub(cell.0.chars().count());
                text.push_str(&" ".repeat(missing + 2));
            }
        }
        text.push('\n');
    }
    text
}

/// A word as the API writes it.
pub fn word<T: Serialize>(value: T) -> String {
    let value = serde_json::to_value(value).unwrap_or_default();
    value.as_str().unwrap_or_default().to_owned()
}

/// Where an instance is, in its colour.
pub fn phase(instance: &Instance) -> Cell {
    let colour = match instance.phase {
        Phase::Running | Phase::Completed => Colour::Green,
        Phase::Pending | Phase::Starting | Phase::Stopping => Colour::Yellow,
        Phase::Waiting | Phase::Failed | Phase::Broken => Colour::Red,
        Phase::Stopped => Colour::Dim,
    };
    let text = match instance.flapping {
        true => format!("{} (flapping)", word(instance.phase)),
        false => word(instance.phase),
    };
    Cell::new(text, colour)
}

/// What its checks say, in its colour.
pub fn health(instance: &Instance) -> Cell {
    let colour = match instance.health {
        Health::Ready => Colour::Green,
        Health::Unknown => Colour::Dim,
        Health::Starting | Health::NotReady => Colour::Yellow,
        Health::Unhealthy => Colour::Red,
    };
    let text = match instance.health {
        Health::Unknown => "-".to_owned(),
        Health::Starting | Health::Ready | Health::NotReady | Health::Unhealthy => {
            word(instance.health)
        }
    };
    Cell::new(text, colour)
}

/// The columns of instances.
pub const INSTANCES: [&str; 6] = ["INSTANCE", "PHASE", "HEALTH", "RESTARTS", "PORTS", "NOTE"];

/// An instance as a row.
pub fn row(instance: &Instance) -> Vec<Cell> {
    let ports = instance.ports.iter();
    let ports: Vec<String> = ports.map(|(name, port)| format!("{name}={port}")).collect();
    let exits = instance
        .tasks
        .values()
        .find_map(|task| task.last_exit.clone());
    let next = instance.next_attempt.as_ref();
    let note = match (&instance.fault, next, exits) {
        (Some(fault), _, _) => fault.clone(),
        (None, Some(next), Some(exit)) => format!("last {exit}, next attempt {next}"),
        (None, Some(next), None) => format!("next attempt {next}"),
        (None, None, Some(exit)) => format!("last {exit}"),
        (None, None, None) => String::new(),
    };
    vec![
        instance.name.clone().into(),
        phase(instance),
        health(instance),
        instance.restarts.to_string().into(),
        ports.join(",").into(),
        note.into(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_below_each_other_with_colours_and_without() {
        let rows = vec![
            vec!["a".into(), Cell::new("ok", Colour::Green)],
            vec!["longer".into(), "x".into()],
        ];
        let plain = table(&["NAME", "STATE"], &rows, false);
        assert_eq!(plain, "NAME    STATE\na       ok\nlonger  x\n");
        let coloured = table(&["NAME", "STATE"], &rows, true);
        assert!(coloured.contains("\x1b[32mok\x1b[0m"), "{coloured:?}");
    }

    #[test]
    fn no_text_of_a_job_makes_the_terminal_do_things() {
        let rows = vec![vec![
            "a\x1b]0;title\x07\u{9b}31m\nb".into(),
            Cell::new("\r\x1b[2J", Colour::Red),
        ]];
        let plain = table(&[], &rows, false);
        assert_eq!(
            plain,
            "\na\\u{1b}]0;title\\u{7}\\u{9b}31m b  \\r\\u{1b}[2J\n"
        );
        let json = serde_json::to_string_pretty(&["\u{9b}31m\u{7f}\x1b\n"]).unwrap();
        let text = without_controls(json);
        assert_eq!(text, "[\n  \"\\u009b31m\\u007f\\u001b\\n\"\n]");
    }
}
