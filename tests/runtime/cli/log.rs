//! What is told of a failure, to people and in the log.

use std::fs;
use std::io::Read;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use libtest_mimic::Trial;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_json::{Value, json};

use super::parhelion;
use crate::caller::wait_readable;
use crate::support::{Bundle, Ran, needs_systemd, program, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    let mut all = tests![
        errors_are_one_line_for_people_and_one_in_the_log,
        the_log_in_json_has_exactly_the_keys_that_callers_read,
        the_log_in_text_is_as_logrus_writes,
        the_log_has_the_plan_when_debugging,
        a_wrong_command_line_is_in_the_log_too,
        each_level_shows_what_matters_so_much_and_more,
        of_two_flags_that_say_the_level_the_last_counts,
        a_file_can_be_named_with_its_prefix,
        the_journal_gets_an_entry_in_its_own_protocol,
        an_entry_that_is_too_large_goes_as_a_file,
        syslog_gets_a_line,
        syslog_over_connections_gets_a_line_too,
        a_log_that_nobody_receives_is_told_and_the_error_too,
        a_destination_that_is_none_is_refused,
    ];
    all.extend(needs_systemd(tests![
        the_journal_of_this_host_keeps_what_was_told,
    ]));
    all
}

/// What a verb that fails writes to stderr and to the log in this format.
fn failure_with_log(format: &str) -> (String, String) {
    let bundle = Bundle::new("");
    bundle.edit(|config| config["process"]["args"] = json!(["no-such\nprogram \"x\""]));
    let log = bundle.folder.join("log");
    let flags = ["--log", log.to_str().unwrap(), "--log-format", format];
    let arguments = [&flags[..], &["run", "--bundle", bundle.path(), &bundle.id]].concat();
    let ran = bundle.parhelion(&arguments);
    assert_eq!(ran.code(), Some(1));
    (ran.failure(), fs::read_to_string(log).unwrap())
}

fn errors_are_one_line_for_people_and_one_in_the_log() {
    for format in ["json", "text"] {
        let (error, log) = failure_with_log(format);
        assert_eq!(error.lines().count(), 1, "{error}");
        assert!(error.starts_with("run \"test-"), "{error}");
        assert_eq!(log.lines().count(), 1, "{log}");
        assert!(log.ends_with('\n'));
    }
}

fn the_log_in_json_has_exactly_the_keys_that_callers_read() {
    let (error, log) = failure_with_log("json");
    let line: Value = serde_json::from_str(&log).unwrap();
    let keys: Vec<&String> = line.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["level", "msg", "time"]);
    assert_eq!(line["level"], "error");
    assert_eq!(line["msg"], error.trim_end());
    let time = line["time"].as_str().unwrap();
    assert!(
        time.len() >= 20 && time.ends_with('Z') && time.contains('T'),
        "{time}"
    );
}

fn the_log_in_text_is_as_logrus_writes() {
    let (_, log) = failure_with_log("text");
    assert!(log.starts_with("time=\"2"), "{log}");
    assert!(log.contains("Z\" level=error msg=\"run "), "{log}");
}

/// For callers who read nothing else, as containerd.
fn a_wrong_command_line_is_in_the_log_too() {
    let bundle = Bundle::new("");
    let log = bundle.folder.join("log");
    let path = log.to_str().unwrap();
    let flags = ["--log", path, "--log-format", "json"];
    let wrong = ["create", "--no-such-flag", &bundle.id];
    let ran = bundle.parhelion(&[&flags[..], &wrong].concat());
    assert_eq!(ran.code(), Some(1));
    let line: Value = serde_json::from_slice(&fs::read(&log).unwrap()).unwrap();
    assert_eq!(line["level"], "error");
    assert_eq!(line["msg"], "unexpected argument '--no-such-flag' found");
    let help = [&flags[..], &["create", "--help"]].concat();
    fs::remove_file(&log).unwrap();
    bundle.parhelion(&help).success();
    assert!(!log.exists());
}

fn the_log_has_the_plan_when_debugging() {
    let bundle = Bundle::new("exit 0");
    let log = bundle.folder.join("log");
    let flags = [
        "--debug",
        "--log-format=json",
        "--log",
        log.to_str().unwrap(),
    ];
    let run = ["run", "--bundle", bundle.path(), &bundle.id];
    let ran = bundle.parhelion(&[&flags[..], &run].concat());
    ran.success();
    assert_eq!(ran.stderr(), "");
    let log = fs::read_to_string(log).unwrap();
    let lines: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let plan = lines
        .iter()
        .find(|line| line["msg"].as_str().unwrap().starts_with("plan:"));
    let plan = plan.unwrap();
    assert_eq!(plan["level"], "debug");
    assert!(plan["msg"].as_str().unwrap().contains("proc"), "{plan}");
    // And without the flag there is nothing to say.
    let quiet = bundle.folder.join("quiet");
    let flags = ["--log", quiet.to_str().unwrap()];
    bundle.parhelion(&[&flags[..], &run].concat()).success();
    assert!(!quiet.exists());
}

/// A bundle with something to warn about; its program can not be executed.
fn warned_and_failing() -> Bundle {
    let bundle = Bundle::new("");
    bundle.edit(|config| {
        config["process"]["args"] = json!(["no-such-program"]);
        config["annotations"] = json!({"run.oci.no-such": "1"});
    });
    bundle
}

/// The levels of the lines that `run` writes to its log with these flags, each once, and its stderr.
fn levels(flags: &[&str]) -> (Vec<String>, String) {
    let bundle = warned_and_failing();
    let log = bundle.folder.join("log");
    let to_log = ["--log-format=json", "--log", log.to_str().unwrap()];
    let run = ["run", "--bundle", bundle.path(), &bundle.id];
    let ran = bundle.parhelion(&[flags, &to_log, &run].concat());
    let mut levels: Vec<String> = fs::read_to_string(log)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .map(|line| line["level"].as_str().unwrap().to_owned())
        .collect();
    levels.sort();
    levels.dedup();
    (levels, ran.failure())
}

fn each_level_shows_what_matters_so_much_and_more() {
    let rows: [(&[&str], &[&str]); 5] = [
        (&[], &["error", "warning"]),
        (&["--log-level", "error"], &["error"]),
        (&["--log-level=warning"], &["error", "warning"]),
        (&["--log-level=info"], &["error", "warning"]),
        (&["--log-level=debug"], &["debug", "error", "warning"]),
    ];
    for (flags, expected) in rows {
        let (levels, told) = levels(flags);
        assert_eq!(levels, expected, "{flags:?}");
        // The error reaches people in any case.
        assert!(told.contains("no-such-program"), "{told}");
    }
    // Without a log they are lines for people.
    let bundle = warned_and_failing();
    let run = ["run", "--bundle", bundle.path(), &bundle.id];
    let told = bundle.parhelion(&run).failure();
    assert!(told.contains("warning: annotations["), "{told}");
    let quiet = bundle.parhelion(&[&["--log-level=error"][..], &run].concat());
    let told = quiet.failure();
    assert_eq!(told.lines().count(), 1, "{told}");
}

fn of_two_flags_that_say_the_level_the_last_counts() {
    let (last, _) = levels(&["--debug", "--log-level=error"]);
    assert_eq!(last, ["error"]);
    let (last, _) = levels(&["--log-level=error", "--debug"]);
    assert_eq!(last, ["debug", "error", "warning"]);
}

fn a_file_can_be_named_with_its_prefix() {
    let bundle = Bundle::new("");
    let log = bundle.folder.join("syslog:log");
    let flag = format!("--log=file:{}", log.display());
    bundle.parhelion(&[&flag, "state", "none"]).failure();
    let log = fs::read_to_string(log).unwrap();
    assert!(log.contains("level=error"), "{log}");
}

/// Runs the program where the folder `instead` is in the place of `of`, in a mount namespace of its own.
fn with_folder(instead: &Path, of: &str, arguments: &[&str]) -> Ran {
    let script = "mkdir -p \"$2\" && mount --bind \"$1\" \"$2\" && shift 2 && exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script, "sh"]);
    command.arg(instead).arg(of).arg(program()).args(arguments);
    Ran(command.stdin(Stdio::null()).output().unwrap())
}

/// A bundle's folder for the sockets of a host, and its arguments for a verb that fails.
fn failing_beside(socket: &str) -> (Bundle, PathBuf) {
    let bundle = Bundle::new("");
    let place = bundle.folder.join("host").join(socket);
    fs::create_dir_all(place.parent().unwrap()).unwrap();
    (bundle, place)
}

const JOURNAL: &str = "/run/systemd";

fn the_journal_gets_an_entry_in_its_own_protocol() {
    let rows = [
        ("journald:", "parhelion", ""),
        ("journald:web", "web", "{\"level\":\"error\",\"msg\":\""),
    ];
    for (flag, identifier, begin) in rows {
        let (bundle, place) = failing_beside("journal/socket");
        let socket = UnixDatagram::bind(place).unwrap();
        let format = if begin.is_empty() { "text" } else { "json" };
        let arguments = ["--log", flag, "--log-format", format, "state", "none"];
        let told = with_folder(&bundle.folder.join("host"), JOURNAL, &arguments).failure();
        assert_eq!(told, "state \"none\": container \"none\" does not exist\n");
        let mut entry = [0; 4096];
        wait_readable(&socket);
        let length = socket.recv(&mut entry).unwrap();
        let head = format!("PRIORITY=3\nSYSLOG_IDENTIFIER={identifier}\nMESSAGE\n");
        let rest = entry[..length].strip_prefix(head.as_bytes()).unwrap();
        let (size, message) = rest.split_at(8);
        let size = u64::from_le_bytes(size.try_into().unwrap());
        assert_eq!(size, message.len() as u64 - 1);
        let message = String::from_utf8(message.to_vec()).unwrap();
        assert!(message.starts_with(begin), "{message}");
        if begin.is_empty() {
            assert_eq!(message, told);
        }
    }
}

fn an_entry_that_is_too_large_goes_as_a_file() {
    let (bundle, place) = failing_beside("journal/socket");
    let socket = UnixDatagram::bind(place).unwrap();
    let folder = bundle.folder.join("host");
    bundle.edit(|config| {
        // A name that is quoted in full, in a configuration that is refused.
        config["process"]["cwd"] = json!(format!("/{}", "x".repeat(4000)));
        config["mounts"] = (0..400)
            .map(|i| json!({"destination": format!("/{i}{}", "y".repeat(700)), "type": "tmpfs", "source": "tmpfs"}))
            .collect();
    });
    let run = ["run", "--bundle", bundle.path(), &bundle.id];
    let flags = ["--log=journald:big", "--log-level=debug"];
    let root = format!("--root={}", bundle.folder.join("state").display());
    let arguments = [&[root.as_str()][..], &flags, &run].concat();
    // The plan is a quarter of a megabyte, more than a datagram holds.
    let reader = std::thread::spawn(move || receive_file(&socket));
    let _ended = with_folder(&folder, JOURNAL, &arguments);
    let entry = reader.join().unwrap();
    assert!(entry.len() > 250_000, "{}", entry.len());
    let head = "PRIORITY=7\nSYSLOG_IDENTIFIER=big\nMESSAGE\n";
    assert!(entry.starts_with(head.as_bytes()));
    let begin = String::from_utf8_lossy(&entry[head.len() + 8..][..5]).into_owned();
    assert_eq!(begin, "plan:");
}

/// The content of the first file that comes over the socket; what comes before is passed over.
fn receive_file(socket: &UnixDatagram) -> Vec<u8> {
    loop {
        wait_readable(socket);
        let mut data = [0; 16];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [std::io::IoSliceMut::new(&mut data)];
        recvmsg(socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
        if let Some(RecvAncillaryMessage::ScmRights(mut fds)) = control.drain().next() {
            return content(fds.next().unwrap());
        }
    }
}

fn content(file: OwnedFd) -> Vec<u8> {
    let seals = rustix::fs::fcntl_get_seals(&file).unwrap();
    assert!(seals.contains(rustix::fs::SealFlags::WRITE), "{seals:?}");
    let mut content = Vec::new();
    let mut file = fs::File::from(file);
    std::io::Seek::rewind(&mut file).unwrap();
    file.read_to_end(&mut content).unwrap();
    content
}

/// The line for `state` of no container under this tag, of whichever process.
fn is_syslog_line(line: &str, tag: &str) -> bool {
    let rest = line.strip_prefix(&format!("<11>{tag}["));
    let rest = rest.and_then(|rest| rest.split_once("]: "));
    rest.is_some_and(|(pid, message)| {
        pid.parse::<u32>().is_ok() && message == "state \"none\": container \"none\" does not exist"
    })
}

fn syslog_gets_a_line() {
    for (flag, tag) in [("syslog:", "parhelion"), ("syslog:web", "web")] {
        let (bundle, place) = failing_beside("log");
        let socket = UnixDatagram::bind(place).unwrap();
        let arguments = ["--log", flag, "state", "none"];
        with_folder(&bundle.folder.join("host"), "/dev", &arguments).failure();
        let mut line = [0; 4096];
        wait_readable(&socket);
        let length = socket.recv(&mut line).unwrap();
        let line = std::str::from_utf8(&line[..length]).unwrap();
        assert!(is_syslog_line(line, tag), "{line}");
    }
}

fn syslog_over_connections_gets_a_line_too() {
    let (bundle, place) = failing_beside("log");
    let socket = UnixListener::bind(place).unwrap();
    let arguments = ["--log", "syslog:web", "state", "none"];
    with_folder(&bundle.folder.join("host"), "/dev", &arguments).failure();
    wait_readable(&socket);
    let mut line = String::new();
    socket
        .accept()
        .unwrap()
        .0
        .read_to_string(&mut line)
        .unwrap();
    let line = line.strip_suffix('\0').unwrap();
    assert!(is_syslog_line(line, "web"), "{line}");
}

fn a_log_that_nobody_receives_is_told_and_the_error_too() {
    let rows = [
        (
            "journald:",
            JOURNAL,
            "log journald \"/run/systemd/journal/socket\": ",
        ),
        ("syslog:", "/dev", "log syslog \"/dev/log\": "),
        ("file:/dev/none/log", "/dev", "log \"/dev/none/log\": "),
    ];
    for (flag, of, words) in rows {
        let (bundle, _) = failing_beside("log");
        let arguments = ["--log", flag, "state", "none"];
        let told = with_folder(&bundle.folder.join("host"), of, &arguments).failure();
        let lines: Vec<&str> = told.lines().collect();
        assert!(lines[0].ends_with("does not exist"), "{told}");
        assert_eq!(lines[1], format!("{words}no such file or directory"));
        assert_eq!(lines.len(), 2, "{told}");
    }
    // So is a warning, for which nothing stops.
    let bundle = warned_and_failing();
    let folder = bundle.folder.join("host");
    fs::create_dir(&folder).unwrap();
    let root = format!("--root={}", bundle.folder.join("state").display());
    let run = ["run", "--bundle", bundle.path(), &bundle.id];
    let arguments = [&[root.as_str(), "--log=journald:"][..], &run].concat();
    let told = with_folder(&folder, JOURNAL, &arguments).failure();
    assert!(told.contains("warning: annotations["), "{told}");
}

fn a_destination_that_is_none_is_refused() {
    let rows = [
        ("file:", "--log: file: needs a path"),
        (
            "jurnald:web",
            "--log: must be file:PATH, journald:[NAME], syslog:[NAME] or a path",
        ),
        (
            "journald:a b",
            "--log: the name after the colon must be one word",
        ),
        (
            "syslog:a\nb",
            "--log: the name after the colon must be one word",
        ),
    ];
    for (value, words) in rows {
        let ran = parhelion(&["--log", value, "list"]);
        assert_eq!(ran.code(), Some(1));
        assert!(ran.stderr().contains(words), "{}", ran.stderr());
        assert!(!Path::new(value).exists());
    }
    // As for runc, an empty one is none.
    let ran = parhelion(&["--log=", "state", "none"]);
    assert_eq!(ran.failure().lines().count(), 1);
    let ran = parhelion(&["--log-level", "loud", "list"]);
    assert_eq!(ran.code(), Some(1));
    assert!(ran.stderr().contains("loud"), "{}", ran.stderr());
}

/// The entries of the host's journal under an identifier, with all that it has received by now.
fn journal_entries(identifier: &str) -> Vec<Value> {
    let journalctl = |arguments: &[&str]| {
        let output = Command::new("journalctl").args(arguments).output().unwrap();
        Ran(output).success()
    };
    journalctl(&["--sync"]);
    let text = journalctl(&["--output=json", "--identifier", identifier]);
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    lines.collect()
}

fn the_journal_of_this_host_keeps_what_was_told() {
    for (way, transport) in [("journald", "journal"), ("syslog", "syslog")] {
        let bundle = warned_and_failing();
        let identifier = format!("{}-{way}", bundle.id);
        let flag = format!("--log={way}:{identifier}");
        let run = ["run", "--bundle", bundle.path(), &bundle.id];
        let arguments = [&[flag.as_str(), "--log-level=debug"][..], &run].concat();
        let told = bundle.parhelion(&arguments).failure();
        let entries = journal_entries(&identifier);
        assert!(entries.iter().all(|entry| entry["_TRANSPORT"] == transport));
        let with = |priority: &str| {
            let found = entries.iter().find(|entry| entry["PRIORITY"] == priority);
            let found = found.unwrap_or_else(|| panic!("no {priority} in {entries:?}"));
            found["MESSAGE"].as_str().unwrap_or_default().to_owned()
        };
        assert_eq!(with("3"), told.trim_end());
        assert!(with("4").contains("run.oci.no-such"));
        assert!(with("7").starts_with("plan:"));
        assert!(with("7").contains("proc"));
    }
}
