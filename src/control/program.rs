//! The runtime that runs a further program inside an instance, and how both end.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// How long a program may take to end when its client has gone.
const GRACE: Duration = Duration::from_secs(10);

/// The files of a session, which end with it.
pub struct Files {
    /// Where the runtime sends the terminal.
    pub socket: PathBuf,
    /// Where it writes which process the program is.
    pub pid: PathBuf,
}

impl Drop for Files {
    fn drop(&mut self) {
        for file in [&self.socket, &self.pid] {
            // There is one only if it was made.
            drop(std::fs::remove_file(file));
        }
    }
}

/// The runtime, which stands for the program. Both end when this is dropped.
pub struct Program {
    /// The runtime.
    pub child: Child,
    files: Files,
}

impl Program {
    /// Starts it.
    pub fn spawn(command: &mut Command, files: Files) -> Result<Program> {
        let child = command.spawn().context("the runtime")?;
        Ok(Program { child, files })
    }

    /// The runtime's process, until it was waited for.
    pub fn pid(&self) -> Option<Pid> {
        let pid = self.child.id()?;
        Pid::from_raw(pid.cast_signed())
    }

    /// Kills the program: the runtime hands on every signal but this one.
    fn kill(&self) {
        // Once the runtime is waited for, the number may be another's.
        let text = self
            .pid()
            .and_then(|_| std::fs::read_to_string(&self.files.pid).ok());
        let pid = text.and_then(|text| text.trim().parse().ok());
        if let Some(pid) = pid.and_then(Pid::from_raw) {
            let _ended = kill_process(pid, Signal::KILL);
        }
    }

    /// Ends it for a client that has gone: as at the end of a terminal, and then by force.
    pub async fn end(mut self) -> Result<()> {
        signal(self.pid(), libc::SIGHUP);
        for _ in 0..2 {
            if let Ok(ended) = timeout(GRACE, self.child.wait()).await {
                return ended.map(drop).context("the runtime");
            }
            self.kill();
        }
        self.child.kill().await.context("the runtime")
    }

    /// Its exit code, as a shell tells it.
    pub async fn code(mut self) -> i32 {
        code(self.child.wait().await)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Sends a signal to a process, if there are such ones.
pub fn signal(pid: Option<Pid>, number: i32) {
    if let (Some(pid), Some(signal)) = (pid, Signal::from_named_raw(number)) {
        // One that has just ended needs none.
        let _ended = kill_process(pid, signal);
    }
}

fn code(status: io::Result<std::process::ExitStatus>) -> i32 {
    use std::os::unix::process::ExitStatusExt as _;
    let killed = |status: std::process::ExitStatus| status.signal().map(|signal| 128 + signal);
    match status {
        Ok(status) => status.code().or_else(|| killed(status)).unwrap_or(255),
        Err(_) => 255,
    }
}
