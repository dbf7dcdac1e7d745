//! Why a request is refused: a status of HTTP, what is wrong, and what to do next.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use crate::api::Problem;
use crate::store;

/// A refused request.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// The status of HTTP.
    pub status: StatusCode,
    /// What is told, boxed so that results stay small.
    pub problem: Box<Problem>,
}

impl Refusal {
    /// One with this status.
    pub fn new(status: StatusCode, error: impl Into<String>, hint: impl Into<String>) -> Refusal {
        let problem = Problem {
            error: error.into(),
            hint: hint.into(),
            candidates: Vec::new(),
            faults: Vec::new(),
        };
        Refusal {
            status,
            problem: Box::new(problem),
        }
    }

    /// What was asked for can not be read or is not allowed.
    pub fn bad(error: impl Into<String>, hint: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::BAD_REQUEST, error, hint)
    }

    /// There is none.
    pub fn missing(error: impl Into<String>, hint: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::NOT_FOUND, error, hint)
    }

    /// What there is stands in the way.
    pub fn conflict(error: impl Into<String>, hint: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::CONFLICT, error, hint)
    }

    /// The same with what may have been meant.
    #[must_use]
    pub fn with(mut self, candidates: Vec<String>) -> Refusal {
        self.problem.candidates = candidates;
        self
    }

    /// Something changed between a look and the deed, again and again.
    pub fn raced(what: &str) -> Refusal {
        Refusal::conflict(
            format!("{what} was changed by somebody else meanwhile"),
            "look at it, and try again",
        )
    }
}

impl From<store::Error> for Refusal {
    fn from(error: store::Error) -> Refusal {
        let hint = match error {
            store::Error::Invalid(_) => return Refusal::bad(error.to_string(), "make it smaller"),
            store::Error::NotWritten(_) => {
                "make room on the disk of that directory (--state), and try again; instances run on meanwhile"
            }
            store::Error::Uncertain(_) | store::Error::ReadOnly(_) => {
                "make room on the disk of that directory (--state), or make it writable: parheliond finds that out by \
                 itself, and instances run on meanwhile"
            }
            store::Error::Compacted { .. }
            | store::Error::FutureRevision { .. }
            | store::Error::LeaseNotFound(_)
            | store::Error::Damaged { .. }
            | store::Error::Missing { .. }
            | store::Error::Version { .. }
            | store::Error::Locked { .. }
            | store::Error::Open(_)
            | store::Error::Closed => "try again; see the log of parheliond if it stays so",
        };
        let status = StatusCode::SERVICE_UNAVAILABLE;
        Refusal::new(status, format!("the store: {error}"), hint)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.status, Json(*self.problem)).into_response()
    }
}
