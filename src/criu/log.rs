//! CRIU's log: what of it is told when something fails.

use std::path::{Path, PathBuf};

/// Where CRIU writes what it does.
#[derive(Debug, Clone)]
pub struct Log(PathBuf);

impl Log {
    /// The log of this name in CRIU's working directory.
    #[must_use]
    pub fn new(directory: &Path, name: &str) -> Log {
        Log(directory.join(name))
    }

    /// What has failed, and where all of the log is. Without an error in it, what CRIU has said
    /// otherwise.
    #[must_use]
    pub fn explain(&self, said: &str) -> String {
        let text = std::fs::read(&self.0).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let first = first_error(&text).unwrap_or(said);
        let place = self.0.display();
        match first {
            "" => format!("see {place}"),
            first => format!("{first} (see {place})"),
        }
    }
}

/// The first line of an error, without the time before it.
fn first_error(log: &str) -> Option<&str> {
    log.lines().find_map(|line| {
        let at = line.find("Error (")?;
        Some(line[at..].trim_end())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_error_is_told_without_its_time() {
        let log = "(00.001) Will dump\n(00.002)      7: Error (criu/x.c:5): no such thing\n\
            (00.003) Error (criu/cr-dump.c:9): Dumping FAILED.\n";
        assert_eq!(first_error(log), Some("Error (criu/x.c:5): no such thing"));
        assert_eq!(first_error("(00.001) Warn  (criu/x.c:5): Error?\n"), None);
    }

    #[test]
    fn a_log_that_is_not_there_is_named_with_what_was_said() {
        let log = Log::new(Path::new("/no/such"), "dump.log");
        assert_eq!(log.explain("errno 5"), "errno 5 (see /no/such/dump.log)");
        assert_eq!(log.explain(""), "see /no/such/dump.log");
    }
}
