//! Why a command was not done, and what to do next.

use crate::api::Problem;

/// A command that was not done.
#[derive(Debug)]
pub enum Failure {
    /// What is wrong.
    Told(Box<Problem>),
    /// Nobody reads what is printed any more.
    Closed,
}

impl Failure {
    /// One with what to do next.
    pub fn new(error: impl Into<String>, hint: impl Into<String>) -> Failure {
        Failure::Told(Box::new(Problem {
            error: error.into(),
            hint: hint.into(),
            candidates: Vec::new(),
            faults: Vec::new(),
        }))
    }

    /// The daemon has said something that is not understood.
    pub fn strange(what: impl std::fmt::Display) -> Failure {
        Failure::new(
            format!("the daemon's answer is not understood: {what}"),
            "use a parctl of the daemon's version: parctl version",
        )
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Failure {
        Failure::Told(Box::new(problem))
    }
}
