//! Who has sent a request, for the history.

use std::fmt;

use axum::Extension;
use tokio::net::UnixStream;

/// The process that has opened a connection, as the kernel knew it then: unix(7), SO_PEERCRED.
#[derive(Debug, Clone, Copy)]
pub struct Caller {
    user: u32,
    process: Option<i32>,
}

impl Caller {
    /// Who is at the other end; None where the kernel does not say.
    pub fn of(stream: &UnixStream) -> Option<Caller> {
        let known = stream.peer_cred().ok()?;
        Some(Caller {
            user: known.uid(),
            // 0 is a process of another pid namespace, which has no number here.
            process: known.pid().filter(|pid| *pid > 0),
        })
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "user {}", self.user)?;
        match self.process {
            Some(process) => write!(to, ", process {process}"),
            None => Ok(()),
        }
    }
}

/// What a handler knows of its caller.
pub type Who = Option<Extension<Caller>>;

/// By whom something was done, at the end of a cause.
pub fn by(who: &Who) -> String {
    match who {
        Some(Extension(caller)) => format!("by {caller}"),
        None => "by nobody knows whom".to_owned(),
    }
}
