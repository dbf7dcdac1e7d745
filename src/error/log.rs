//! Where lines for callers go, how they look there, and which are written.
//!
//! A destination is a file, the journal of systemd or syslog, as crun names them. It is opened with
//! the first line: most commands write none. What could not be written is an error for the one who
//! prints to say; nothing is printed here.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, Write};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde::Serialize;

use super::{cause_in_words, rfc3339};

/// How lines in the log look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// `time="2026-01-02T03:04:05Z" level=error msg="…"`, as logrus writes; the message alone where
    /// the destination keeps time and level by itself.
    Text,
    /// `{"level":"error","msg":"…","time":"2026-01-02T03:04:05Z"}`.
    Json,
}

/// How much a line matters, from what matters least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Each decision.
    Debug,
    /// What went as it should. No line has this level: it asks for the ones above.
    Info,
    /// What went wrong without failing the command.
    Warning,
    /// Why the command failed.
    Error,
}

impl Level {
    /// All of them.
    pub const ALL: [Level; 4] = [Level::Error, Level::Warning, Level::Info, Level::Debug];

    /// The level as it is written.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Level::Debug => "debug",
            Level::Info => "info",
            Level::Warning => "warning",
            Level::Error => "error",
        }
    }

    /// The number that syslog(3) and the journal have for it.
    fn severity(self) -> u8 {
        match self {
            Level::Debug => 7,
            Level::Info => 6,
            Level::Warning => 4,
            Level::Error => 3,
        }
    }
}

/// Where lines go, and which.
#[derive(Debug)]
pub struct Log {
    /// None: lines are for people only.
    pub destination: Option<Destination>,
    /// How lines look there.
    pub format: LogFormat,
    /// Lines that matter less are not written, nor printed.
    pub level: Level,
}

/// What receives the lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// A file to append to.
    File(PathBuf),
    /// systemd's journal, under this identifier.
    Journal(String),
    /// syslog, under this tag.
    Syslog(String),
}

/// The identifier of lines whose destination is given without one.
const IDENTIFIER: &str = "parhelion";

/// Where systemd-journald receives entries in its own protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL).
const JOURNAL: &str = "/run/systemd/journal/socket";

/// Where whoever serves syslog(3) receives lines.
const SYSLOG: &str = "/dev/log";

/// The facility of syslog(3) for programs of users, `LOG_USER`.
const FACILITY: u8 = 1 << 3;

impl Destination {
    /// Reads `file:PATH`, `journald:[NAME]`, `syslog:[NAME]` or the path of a file.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn parse(text: &OsStr) -> Result<Destination, String> {
        let bytes = text.as_bytes();
        let after = |prefix: &[u8]| bytes.strip_prefix(prefix).map(OsStr::from_bytes);
        if let Some(path) = after(b"file:") {
            return match path.is_empty() {
                true => Err("file: needs a path".to_owned()),
                false => Ok(Destination::File(path.into())),
            };
        }
        if let Some(name) = after(b"journald:") {
            return identifier(name).map(Destination::Journal);
        }
        if let Some(name) = after(b"syslog:") {
            return identifier(name).map(Destination::Syslog);
        }
        // What looks like another of them would become a file of a strange name.
        let letters = bytes.iter().take_while(|byte| byte.is_ascii_alphabetic());
        let letters = letters.count();
        if letters > 0 && bytes.get(letters) == Some(&b':') {
            let advice = "must be file:PATH, journald:[NAME], syslog:[NAME] or a path; a file of this \
                name is file:PATH";
            return Err(format!("{advice}, is {text:?}"));
        }
        Ok(Destination::File(text.into()))
    }

    /// Hands one line over.
    ///
    /// # Errors
    ///
    /// What could not be written where, in one line.
    pub(super) fn write(
        &self,
        format: LogFormat,
        level: Level,
        message: &str,
    ) -> Result<(), String> {
        let line = || log_line(format, level, message, &present());
        let text = || match format {
            LogFormat::Text => message.to_owned(),
            LogFormat::Json => line().trim_end().to_owned(),
        };
        let (what, written): (String, io::Result<()>) = match self {
            Destination::File(path) => (format!("{path:?}"), append(path, &line())),
            Destination::Journal(name) => (
                format!("journald {JOURNAL:?}"),
                send_to_journal(&journal_entry(name, level, &text())),
            ),
            Destination::Syslog(name) => (
                format!("syslog {SYSLOG:?}"),
                send_to_syslog(&syslog_line(name, std::process::id(), level, &text())),
            ),
        };
        written.map_err(|error| format!("log {what}: {}", cause_in_words(&error)))
    }
}

/// What stands before each line of a container's in the journal or in syslog. One word: a blank would end
/// it there, and a line break would begin another field.
fn identifier(name: &OsStr) -> Result<String, String> {
    match name.to_str() {
        Some("") => Ok(IDENTIFIER.to_owned()),
        Some(word) if word.chars().all(|c| c.is_ascii_graphic()) => Ok(word.to_owned()),
        _ => Err(format!(
            "the name after the colon must be one word of ASCII, is {name:?}"
        )),
    }
}

/// Opened anew for each line: there are few, and a file that was rotated away is not written to.
fn append(path: &Path, line: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file: File = options.append(true).create(true).mode(0o644).open(path)?;
    // One write per line, so that lines of parallel commands do not mix.
    file.write_all(line.as_bytes())
}

/// One entry in the journal's own protocol: its fields, the one that may have line breaks with its length.
fn journal_entry(name: &str, level: Level, message: &str) -> Vec<u8> {
    let severity = level.severity();
    let mut entry =
        format!("PRIORITY={severity}\nSYSLOG_IDENTIFIER={name}\nMESSAGE\n").into_bytes();
    entry.extend((message.len() as u64).to_le_bytes());
    entry.extend(message.as_bytes());
    entry.push(b'\n');
    entry
}

/// An entry that is too large for a datagram goes as a sealed file in memory, as the protocol has it.
fn send_to_journal(entry: &[u8]) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(JOURNAL)?;
    match socket.send(entry) {
        Err(error) if error.raw_os_error() == Some(Errno::MSGSIZE.raw_os_error()) => {}
        sent => return sent.map(drop),
    }
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut file = File::from(memfd_create("journal-entry", flags)?);
    file.write_all(entry)?;
    let all = SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL;
    fcntl_add_seals(&file, all)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [file.as_fd()];
    // There is room for one, which is what it was made for.
    let _has_room = control.push(SendAncillaryMessage::ScmRights(&fds));
    let nothing: &[IoSlice<'_>] = &[];
    sendmsg(&socket, nothing, &mut control, SendFlags::empty())?;
    Ok(())
}

/// A line as syslog(3) writes it, but for the time: whoever serves syslog takes that of its arrival, and
/// which zone ours is in could not be said.
fn syslog_line(name: &str, pid: u32, level: Level, message: &str) -> String {
    format!("<{}>{name}[{pid}]: {message}", FACILITY | level.severity())
}

fn send_to_syslog(line: &str) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    match socket.connect(SYSLOG) {
        // Some listen for connections, in which a zero ends each line.
        Err(error) if error.raw_os_error() == Some(Errno::PROTOTYPE.raw_os_error()) => {
            UnixStream::connect(SYSLOG)?.write_all(format!("{line}\0").as_bytes())
        }
        connected => {
            connected?;
            socket.send(line.as_bytes()).map(drop)
        }
    }
}

/// One line of the log, with its end.
pub(super) fn log_line(format: LogFormat, level: Level, message: &str, time: &str) -> String {
    #[derive(Serialize)]
    struct Line<'a> {
        level: Level,
        msg: &'a str,
        time: &'a str,
    }
    let quoted = |text: &str| without_controls(serde_json::Value::from(text).to_string());
    match format {
        LogFormat::Json => {
            let line = Line {
                level,
                msg: message,
                time,
            };
            // Cannot fail: the fields are text.
            without_controls(serde_json::to_string(&line).unwrap_or_default()) + "\n"
        }
        LogFormat::Text => {
            format!(
                "time={} level={} msg={}\n",
                quoted(time),
                level.name(),
                quoted(message)
            )
        }
    }
}

/// JSON whose control characters are all escaped: the standard lets those from U+007F on stand, and a
/// terminal on which it is read does not. Ends of lines stand between values only, and stay.
#[must_use]
pub fn without_controls(json: String) -> String {
    let is_control = |c: char| c.is_control() && c != '\n';
    if !json.contains(is_control) {
        return json;
    }
    let mut escaped = String::with_capacity(json.len());
    for c in json.chars() {
        match is_control(c) {
            // Cannot fail: it is a string that is written to.
            true => drop(write!(escaped, "\\u{:04x}", u32::from(c))),
            false => escaped.push(c),
        }
    }
    escaped
}

#[allow(
    clippy::disallowed_methods,
    reason = "lines carry the moment they were written"
)]
fn present() -> String {
    rfc3339(SystemTime::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_for_callers_is_one_json_object_with_the_fields_they_read() {
        let line = log_line(LogFormat::Json, Level::Error, "no \"web\"\n", "T");
        assert_eq!(
            line,
            "{\"level\":\"error\",\"msg\":\"no \\\"web\\\"\\n\",\"time\":\"T\"}\n"
        );
        let text = log_line(LogFormat::Text, Level::Warning, "a \"b\"", "T");
        assert_eq!(text, "time=\"T\" level=warning msg=\"a \\\"b\\\"\"\n");
    }

    #[test]
    fn no_line_has_a_control_character() {
        for format in [LogFormat::Json, LogFormat::Text] {
            let line = log_line(format, Level::Error, "a\u{1b}\u{7f}\u{9b}31m\nb", "T");
            let expected = "a\\u001b\\u007f\\u009b31m\\nb";
            assert!(line.contains(expected), "{line:?}");
            assert!(!line.trim_end().contains(char::is_control), "{line:?}");
        }
    }

    #[test]
    fn a_destination_has_a_prefix_or_is_a_path() {
        let parse = |text: &str| Destination::parse(OsStr::new(text));
        let file = |path: &str| Ok(Destination::File(path.into()));
        assert_eq!(parse("/run/a:b/log"), file("/run/a:b/log"));
        assert_eq!(parse("log"), file("log"));
        assert_eq!(parse("file:syslog:x"), file("syslog:x"));
        assert_eq!(
            parse("journald:"),
            Ok(Destination::Journal("parhelion".into()))
        );
        assert_eq!(parse("syslog:web"), Ok(Destination::Syslog("web".into())));
        for wrong in ["file:", "jurnal:web", "journald:a b", "syslog:a\nMESSAGE=b"] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_line_break_in_a_message_begins_no_other_field() {
        let entry = journal_entry("web", Level::Warning, "a\nPRIORITY=0");
        let expected =
            b"PRIORITY=4\nSYSLOG_IDENTIFIER=web\nMESSAGE\n\x0c\0\0\0\0\0\0\0a\nPRIORITY=0\n";
        assert_eq!(entry, expected);
    }

    #[test]
    fn a_line_of_syslog_has_its_priority_its_tag_and_the_process() {
        let line = syslog_line("web", 7, Level::Error, "no such file");
        assert_eq!(line, "<11>web[7]: no such file");
        assert!(syslog_line("web", 7, Level::Debug, "").starts_with("<15>"));
    }

    #[test]
    fn levels_are_in_the_order_in_which_they_matter() {
        assert!(Level::ALL.is_sorted_by(|more, less| more > less));
    }
}
