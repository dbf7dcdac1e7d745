//! A caller of the program, for tests: one that reads it line by line, sends it signals, gives it a
//! terminal or sockets, and waits for a process by its pidfd. Nothing here waits for ever.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{CWD, Mode, OFlags, mkfifoat};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde_json::Value;

use crate::support::Bundle;

/// How long an answer may take before the test fails: the virtual host is slow.
const PATIENCE: Duration = Duration::from_secs(60);

/// The program with the bundle's state directory and `arguments`.
pub fn command(bundle: &Bundle, arguments: &[impl AsRef<OsStr>]) -> Command {
    let mut command = bundle.command();
    command.args(arguments);
    command
}

/// The program called from a shell whose `script` ends with `exec "$@"`, for what only the process
/// itself can change before it executes another: descriptors, signals, umask.
pub fn from_shell(bundle: &Bundle, script: &str, arguments: &[impl AsRef<OsStr>]) -> Command {
    let mut command = Command::new("/bin/sh");
    let called = bundle.command();
    command.args(["-c", script, "sh"]).arg(called.get_program());
    command.args(called.get_args()).args(arguments);
    let variables = called.get_envs();
    command.envs(variables.filter_map(|(name, value)| Some((name, value?))));
    command
}

/// `run` of the bundle, in the foreground.
pub fn run(bundle: &Bundle) -> Command {
    command(bundle, &["run", "--bundle", bundle.path(), &bundle.id])
}

/// `state`, parsed.
pub fn state(bundle: &Bundle) -> Value {
    serde_json::from_str(&bundle.verb("state").success()).unwrap()
}

/// Init's pid.
pub fn init_pid(bundle: &Bundle) -> i32 {
    state(bundle)["pid"].as_i64().unwrap().try_into().unwrap()
}

/// Runs a command that has to end well, with nothing to read or write: a container that it makes would keep
/// its pipes open.
pub fn quietly(command: &mut Command) {
    let command = command.stdin(Stdio::null()).stdout(Stdio::null());
    assert!(command.stderr(Stdio::null()).status().unwrap().success());
}

/// Creates and starts the bundle's container, with its output in a file that [`output`] reads.
pub fn start(bundle: &Bundle) {
    bundle.create().success();
    bundle.verb("start").success();
}

/// What a container of [`start`] has printed.
pub fn output(bundle: &Bundle) -> String {
    std::fs::read_to_string(bundle.folder.join("output")).unwrap()
}

/// Waits until the container's program has ended.
pub fn wait_for_end(bundle: &Bundle) {
    let pid = init_pid(bundle);
    if pid != 0 {
        wait_for_exit(pid);
    }
}

/// Waits until the process has ended; one that is gone has.
pub fn wait_for_exit(pid: i32) {
    match pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()) {
        Ok(pidfd) => wait_readable(&pidfd),
        Err(errno) => assert_eq!(errno, rustix::io::Errno::SRCH),
    }
}

/// Waits until there is something to read.
pub fn wait_readable(fd: &impl AsFd) {
    assert!(
        is_readable_within(fd, PATIENCE),
        "nothing happened in {PATIENCE:?}"
    );
}

fn is_readable_within(fd: &impl AsFd, limit: Duration) -> bool {
    let limit = limit.try_into().unwrap();
    poll(&mut [PollFd::new(fd, PollFlags::IN)], Some(&limit)).unwrap() == 1
}

/// A command that runs, read line by line. Killed on drop.
pub struct Running {
    child: Child,
    lines: Receiver<String>,
    errors: Receiver<String>,
}

impl Running {
    /// Starts it, with stdin from `Stdio`; stdout and stderr are read here.
    pub fn spawn(command: &mut Command, stdin: Stdio) -> Running {
        let piped = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = piped.stdin(stdin).spawn().unwrap();
        let lines = read_lines(child.stdout.take().unwrap());
        let errors = read_lines(child.stderr.take().unwrap());
        Running {
            child,
            lines,
            errors,
        }
    }

    pub fn pid(&self) -> i32 {
        self.child.id().try_into().unwrap()
    }

    /// Its stdin, once; closed on drop.
    pub fn stdin(&mut self) -> ChildStdin {
        self.child.stdin.take().unwrap()
    }

    /// The next line of its stdout.
    pub fn line(&self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("no further line")
    }

    /// The next line of its stdout; None when there is none for long, or it has ended.
    pub fn try_line(&self) -> Option<String> {
        self.lines.recv_timeout(PATIENCE).ok()
    }

    /// Whether it has printed a line that was not read yet.
    pub fn has_line(&self) -> bool {
        self.lines.try_recv().is_ok()
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid()).unwrap();
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).unwrap();
        pidfd_send_signal(&pidfd, signal).unwrap();
    }

    /// Whether it ends in this time.
    pub fn ends_within(&self, limit: Duration) -> bool {
        let pid = Pid::from_raw(self.pid()).unwrap();
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).unwrap();
        is_readable_within(&pidfd, limit)
    }

    /// Waits for its end: the status, the rest of stdout, and stderr.
    pub fn end(&mut self) -> (ExitStatus, String, String) {
        wait_for_exit(self.pid());
        let status = self.child.wait().unwrap();
        let rest = |lines: &Receiver<String>| {
            let next = || lines.recv_timeout(PATIENCE).ok();
            std::iter::from_fn(next).collect::<Vec<_>>().join("\n")
        };
        (status, rest(&self.lines), rest(&self.errors))
    }

    /// Waits for its end, which must be this exit code.
    pub fn ends_with(&mut self, code: i32) {
        let (status, out, errors) = self.end();
        assert_eq!(status.code(), Some(code), "{out}\n{errors}");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended, unless the test has failed.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// The lines that come from `stream`, as they come.
pub fn read_lines(stream: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for line in BufReader::new(stream).split(b'\n') {
            // A terminal that hung up ends with an error, not with an end of file.
            let Ok(line) = line else { return };
            let text = String::from_utf8_lossy(&line);
            if sender.send(text.trim_end_matches('\r').to_owned()).is_err() {
                return;
            }
        }
    });
    receiver
}

/// The next of [`read_lines`].
pub fn next_line(lines: &Receiver<String>) -> String {
    lines.recv_timeout(PATIENCE).expect("no further line")
}

/// A fifo between the test and a program: only one of them writes to it.
pub struct Fifo(File);

impl Fifo {
    /// Makes the fifo /tmp/NAME of the container.
    pub fn new(bundle: &Bundle, name: &str) -> Fifo {
        Fifo::at(&bundle.folder.join("rootfs/tmp").join(name))
    }

    /// Makes it at a path of the host.
    pub fn at(path: &Path) -> Fifo {
        mkfifoat(CWD, path, Mode::from(0o666)).unwrap();
        // Open for both, so that neither side waits for the other.
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        Fifo(rustix::fs::open(path, flags, Mode::empty()).unwrap().into())
    }

    /// What the program writes next.
    pub fn hear(&mut self) -> String {
        wait_readable(&self.0);
        let mut buffer = [0; 4096];
        let length = self.0.read(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    /// Writes a line for the program to read.
    pub fn say(&mut self, line: &str) {
        self.0.write_all(format!("{line}\n").as_bytes()).unwrap();
    }
}

/// A socket in the bundle's folder, for the program to send a descriptor to.
pub struct Socket {
    listener: UnixListener,
    pub path: String,
}

impl Socket {
    pub fn new(bundle: &Bundle, name: &str) -> Socket {
        let path = bundle.folder.join(name);
        let listener = UnixListener::bind(&path).unwrap();
        let path = path.to_str().unwrap().to_owned();
        Socket { listener, path }
    }

    /// The data and the descriptor of the one message that was sent.
    pub fn receive(&self) -> (String, OwnedFd) {
        wait_readable(&self.listener);
        let (stream, _) = self.listener.accept().unwrap();
        wait_readable(&stream);
        let mut data = [0; 4096];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(&mut data)];
        let got = recvmsg(&stream, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
        let Some(RecvAncillaryMessage::ScmRights(mut fds)) = control.drain().next() else {
            panic!("no descriptor came along");
        };
        let name = String::from_utf8(data[..got.bytes].to_vec()).unwrap();
        (name, fds.next().unwrap())
    }
}

/// Processor time of a process, user and system, in clock ticks: proc_pid_stat(5).
pub fn ticks(pid: i32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, after_name) = stat.rsplit_once(')').unwrap();
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}
