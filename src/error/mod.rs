//! What can go wrong, for callers that branch on it, and the only place that prints an error.
//!
//! Most errors are [`anyhow::Error`] with context; [`Kind`] exists where a caller branches.
//! [`Problems`] collects everything that is wrong with a configuration, so that a person sees all
//! of it at once.
//!
//! [`report`], [`warn`] and [`debug`] write lines for people to stderr and, with `--log`, for
//! callers to a log: the only place that does. Callers read the last line of level `error` there.

#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod log;

use std::fmt::{self, Write as _};
use std::io::{self, Write as _};
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::io::Errno;

pub use log::{Destination, Level, Log, LogFormat, without_controls};

/// An error that a caller branches on.
///
/// The messages carry the words that containerd, Docker and Podman look for in a runtime's last
/// error ("does not exist", "container not running").
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// No container has this id.
    NotFound(String),
    /// A container with this id exists already.
    Exists(String),
    /// The verb is not legal in the container's present status.
    WrongStatus {
        /// The container.
        id: String,
        /// What was asked and what the status is, as one phrase that stands for itself:
        /// "cannot start an already running container".
        reason: String,
    },
    /// The container has no process to signal.
    NotRunning(String),
}

impl Kind {
    /// Whether `error` says that there is no such container.
    pub fn is_not_found(error: &anyhow::Error) -> bool {
        matches!(error.downcast_ref(), Some(Kind::NotFound(_)))
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kind::NotFound(id) => write!(f, "container \"{id}\" does not exist"),
            Kind::Exists(id) => write!(
                f,
                "container with id \"{id}\" already exists: choose another id, or delete it first"
            ),
            // These reach people after the verb and the id: `kill "web": container not running`.
            Kind::WrongStatus { reason, .. } => f.write_str(reason),
            Kind::NotRunning(_) => f.write_str("container not running"),
        }
    }
}

impl std::error::Error for Kind {}

/// Everything that is wrong with a configuration: each problem with its JSON path.
///
/// ```
/// use parhelion::error::Problems;
/// let mut problems = Problems::default();
/// problems.add("process.cwd", "must be an absolute path, is \"tmp\"");
/// assert_eq!(problems.into_result().unwrap_err().to_string(),
///     "process.cwd: must be an absolute path, is \"tmp\"");
/// ```
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

/// One thing that is wrong: where, and what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Path in config.json as `linux.namespaces[2].path`.
    pub path: String,
    /// What is wrong and what to do, in one lower-case phrase.
    pub message: String,
}

impl Problems {
    /// Notes a problem at a JSON path.
    pub fn add(&mut self, path: impl Into<String>, message: impl Into<String>) {
        let (path, message) = (path.into(), message.into());
        self.0.push(Problem { path, message });
    }

    /// True when nothing was found wrong.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The problems in the order in which they were found.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.0.iter()
    }

    /// The same problems under other names: for values that came by another way than config.json.
    #[must_use]
    pub fn renamed(mut self, name: impl Fn(&str) -> String) -> Problems {
        for problem in &mut self.0 {
            problem.path = name(&problem.path);
        }
        self
    }

    /// Ok when nothing was found wrong, else all problems as one error.
    ///
    /// # Errors
    ///
    /// The problems themselves.
    pub fn into_result(self) -> Result<(), Problems> {
        if self.is_empty() { Ok(()) } else { Err(self) }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.0.iter().enumerate() {
            let separator = if i == 0 { "" } else { "; " };
            write!(f, "{separator}{}: {}", problem.path, problem.message)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// The log that the command line asked for. Set once, before anything can go wrong.
static LOG: OnceLock<Log> = OnceLock::new();

/// Says where lines go from now on. A second call changes nothing.
pub fn set_log(log: Log) {
    // Only the command line's driver calls this, once; tests share a process and keep the first.
    let _ = LOG.set(log);
}

/// Prints a line. One that is not taken, as on a full disk, ends nothing: the keeper's and the daemon's work goes on.
fn print(line: &str) {
    let mut line = line.to_owned();
    line.push('\n');
    let _not_taken = io::stderr().write_all(line.as_bytes());
}

/// Tells a person, and the log, why the command failed: one line.
pub fn report(error: &anyhow::Error) {
    let message = one_line(&in_words(error));
    print(&message);
    report_to_log(&message);
}

/// Tells the log, if there is one, why the command failed, for who has told a person already.
pub fn report_to_log(message: &str) {
    if let Err(reason) = write_to_log(Level::Error, &one_line(message)) {
        print(&reason);
    }
}

/// Tells what went wrong without failing the command: in the log, or on stderr without one. An
/// error is told with [`in_words`].
pub fn warn(message: &str) {
    if is_written(Level::Warning) {
        write_line(Level::Warning, &one_line(message));
    }
}

/// Notes a step, with `--log-level debug`: in the log, or on stderr without one.
pub fn debug(message: impl FnOnce() -> String) {
    if is_written(Level::Debug) {
        write_line(Level::Debug, &message());
    }
}

/// Whether steps are noted.
#[must_use]
pub fn is_debugging() -> bool {
    is_written(Level::Debug)
}

/// Whether lines of this level are wanted; before the command line has said so, those of its default.
fn is_written(level: Level) -> bool {
    level >= LOG.get().map_or(Level::Warning, |log| log.level)
}

fn write_line(level: Level, message: &str) {
    let shown = || format!("{}: {}", level.name(), harmless(message));
    match write_to_log(level, message) {
        Ok(true) => {}
        Ok(false) => print(&shown()),
        Err(reason) => print(&format!("{reason}\n{}", shown())),
    }
}

/// The error and its causes: `what: why`, an errno in lower-case words wherever it comes from.
pub fn in_words(error: &anyhow::Error) -> String {
    let words: Vec<String> = error.chain().map(cause_in_words).collect();
    words.join(": ")
}

fn cause_in_words(cause: &(dyn std::error::Error + 'static)) -> String {
    let io = cause.downcast_ref().and_then(io::Error::raw_os_error);
    let rustix = cause.downcast_ref::<Errno>().map(|e| e.raw_os_error());
    let nix = cause.downcast_ref::<nix::Error>().map(|e| *e as i32);
    let Some(number) = io.or(rustix).or(nix) else {
        return cause.to_string();
    };
    // libc's text, "Permission denied (os error 13)", as it stands in the middle of a line.
    let text = io::Error::from_raw_os_error(number).to_string();
    let words = text.split(" (os error").next().unwrap_or_default();
    let (first, rest) = words.split_at_checked(1).unwrap_or((words, ""));
    first.to_lowercase() + rest
}

/// A message as one line, whatever it contains.
fn one_line(text: &str) -> String {
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    harmless(&lines.join("; "))
}

/// A text for a terminal, on as many lines: other control characters, with which a configuration could
/// make it do things, as Rust writes them.
pub(crate) fn harmless(text: &str) -> String {
    let is_ours = |c: char| c == '\n' || !c.is_control();
    if text.chars().all(is_ours) {
        return text.to_owned();
    }
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match is_ours(c) {
            true => shown.push(c),
            false => shown.extend(c.escape_default()),
        }
    }
    shown
}

/// Writes a line to the log; false when there is none.
fn write_to_log(level: Level, message: &str) -> Result<bool, String> {
    let Some((log, destination)) = LOG
        .get()
        .and_then(|log| Some((log, log.destination.as_ref()?)))
    else {
        return Ok(false);
    };
    destination.write(log.format, level, message).map(|()| true)
}

/// A moment as people and callers read it, in UTC: `2026-01-02T03:04:05.67Z`.
///
/// Fractions of a second are as short as they can be, down to none; a moment before 1970 is 1970.
pub fn rfc3339(moment: SystemTime) -> String {
    let since = moment.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, second_of_day) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (
        second_of_day / 3600,
        second_of_day / 60 % 60,
        second_of_day % 60,
    );
    let mut text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
    if since.subsec_nanos() > 0 {
        // Writing to a string cannot fail.
        let _ = write!(text, ".{:09}", since.subsec_nanos());
        text.truncate(text.trim_end_matches('0').len());
    }
    text + "Z"
}

/// Year, month and day, so many days after 1970-01-01 in the Gregorian calendar.
///
/// Counts from a 1 March, so that the leap day is a year's last, in eras of 400 years, after which
/// the calendar repeats.
fn date(days_since_1970: u64) -> (u64, u64, u64) {
    const DAYS_TO_1970: u64 = 719_468; // from 0000-03-01
    const ERA: u64 = 146_097;
    let days = days_since_1970 + DAYS_TO_1970;
    let day_of_era = days % ERA;
    let leap_days = day_of_era / 1460 - day_of_era / 36_524 + day_of_era / (ERA - 1);
    let year_of_era = (day_of_era - leap_days) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = days / ERA * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn at(seconds: u64, nanos: u32) -> String {
        rfc3339(UNIX_EPOCH + Duration::new(seconds, nanos))
    }

    #[test]
    fn moments_are_written_as_rfc_3339_with_the_shortest_fraction() {
        assert_eq!(at(0, 0), "1970-01-01T00:00:00Z");
        assert_eq!(at(1_709_210_096, 0), "2024-02-29T12:34:56Z");
        assert_eq!(at(951_868_799, 120_000_000), "2000-02-29T23:59:59.12Z");
        assert_eq!(at(4_107_542_400, 1), "2100-03-01T00:00:00.000000001Z");
        assert_eq!(at(1_798_675_199, 0), "2026-12-30T23:59:59Z");
    }

    #[test]
    fn every_day_of_four_centuries_follows_the_one_before() {
        let mut before = date(0);
        for day in 1..=146_097 {
            let now = date(day);
            let next_day = (before.0, before.1, before.2 + 1) == now;
            let next_month = (before.0, before.1 + 1, 1) == now && before.2 >= 28;
            let next_year = (before.0 + 1, 1, 1) == now && (before.1, before.2) == (12, 31);
            assert!(next_day || next_month || next_year, "{before:?} -> {now:?}");
            before = now;
        }
        assert_eq!(before, (2370, 1, 1));
    }

    #[test]
    fn an_errno_has_the_kernels_words_wherever_it_comes_from() {
        let std = std::io::Error::from_raw_os_error(libc::ENOENT);
        let std = anyhow::Error::new(std).context("open(\"/x\")");
        assert_eq!(in_words(&std), "open(\"/x\"): no such file or directory");
        let rustix = anyhow::Error::new(Errno::MFILE).context("pidfd_open(1)");
        assert_eq!(in_words(&rustix), "pidfd_open(1): too many open files");
    }

    #[test]
    fn control_characters_of_a_message_are_told_and_not_sent_to_a_terminal() {
        let told = one_line("\"/a\u{1b}[2J\u{7f}\u{9b}é\tb\r\n\" is no namespace");
        let expected = r#""/a\u{1b}[2J\u{7f}\u{9b}é\tb; " is no namespace"#;
        assert_eq!(told, expected);
        assert_eq!(
            harmless("plan:\nroot /a\u{1b}c\n"),
            "plan:\nroot /a\\u{1b}c\n"
        );
    }

    #[test]
    fn an_error_and_its_causes_are_one_line() {
        let error = anyhow::anyhow!("first\n  second\n\n").context("run");
        assert_eq!(one_line(&in_words(&error)), "run: first; second");
    }
}
