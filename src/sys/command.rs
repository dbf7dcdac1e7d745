//! How a program of the host starts that works for this process: hooks, and tools as CRIU.

#![allow(unsafe_code)]

use std::os::fd::RawFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::fd::OwnedFd;

use super::process::{join_session_keyring, keep_on_exec, unshare};
use super::signals::{reset_signals, unblock_signals};

/// What a program starts with.
#[derive(Debug, Default)]
pub struct Start {
    /// It is killed when this process ends.
    pub ends_with_us: bool,
    /// Descriptors of this process that it gets under the same numbers.
    pub kept: Vec<RawFd>,
    /// `cgroup.procs` of the cgroup in which it starts, open for writing.
    pub cgroup: Option<OwnedFd>,
    /// The session keyring that it joins, made if there is none of this name.
    pub keyring: Option<String>,
    /// `CLONE_NEW*` of namespaces that are made for it, in that cgroup.
    pub namespaces: u64,
    /// It leads a session of its own, so that nothing that is meant for ours reaches it.
    pub session: bool,
    /// How many files it may have open, where that is not what we may.
    pub open_files: Option<rustix::process::Rlimit>,
}

/// Lets `command` start like this, and with no signal blocked or ignored, as std hands on what the
/// caller does and a runtime in the foreground has blocked all signals.
pub fn prepare(command: &mut Command, start: Start) {
    let prepare = move || {
        reset_signals();
        unblock_signals();
        if start.ends_with_us {
            rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
        }
        for number in &start.kept {
            keep_on_exec(*number).map_err(|error| error.errno)?;
        }
        if let Some(cgroup) = &start.cgroup {
            rustix::io::write(cgroup, b"0")?;
        }
        if let Some(keyring) = &start.keyring {
            join_session_keyring(keyring).map_err(|error| error.errno)?;
        }
        if start.session {
            rustix::process::setsid()?;
        }
        if let Some(limit) = start.open_files {
            rustix::process::setrlimit(rustix::process::Resource::Nofile, limit)?;
        }
        if start.namespaces != 0 {
            unshare(start.namespaces).map_err(|error| error.errno)?;
        }
        Ok(())
    };
    // SAFETY: between fork and execve it makes system calls only. Where an error is put into words this
    // process has one thread, so that no lock of the allocator is held; the daemon, which has more, asks for
    // a session and a limit alone, whose errors are numbers.
    unsafe { command.pre_exec(prepare) };
}

/// Lets `command` start with no signal blocked or ignored, and end when this process does.
pub fn bind_to_us(command: &mut Command) {
    let start = Start {
        ends_with_us: true,
        ..Start::default()
    };
    prepare(command, start);
}
