//! Children of the program that was this process before: keepers that it has started, and what was left of programs for
//! clients when a newer program took over. Nobody else knows them, so they are waited for here.

use std::fs;
use std::os::fd::AsFd as _;

use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, getpid, pidfd_open, waitid};

use super::socket;
use crate::error;
use crate::sys::Errno;
use crate::sys::watched::Watched;

/// Waits for each of them from now on. To be called before this program starts one of its own.
pub fn adopt() {
    if std::env::var_os(socket::KEPT).is_none() {
        return;
    }
    for pid in children() {
        // Until it is waited for, nobody else has its number.
        let opened = pidfd_open(pid, PidfdFlags::NONBLOCK).map_err(std::io::Error::from);
        match opened.and_then(Watched::new) {
            Ok(process) => drop(tokio::spawn(wait(process))),
            Err(problem) => error::warn(&format!("process {pid}, a child from before: {problem}")),
        }
    }
}

async fn wait(process: Watched) {
    loop {
        let Ok(mut ready) = process.readable().await else {
            return;
        };
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        match waitid(WaitId::PidFd(process.as_fd()), options) {
            Ok(None) | Err(Errno::AGAIN) => ready.clear_ready(),
            Err(Errno::INTR) => {}
            Ok(Some(_)) | Err(_) => return,
        }
    }
}

/// The children of this process, also those that have ended.
fn children() -> Vec<Pid> {
    let own = getpid().as_raw_nonzero().to_string();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let child = |entry: fs::DirEntry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let stat = fs::read(entry.path().join("stat")).ok()?;
        // The name may have anything in it but ends with the last parenthesis (proc_pid_stat(5)).
        let end = stat.iter().rposition(|byte| *byte == b')')?;
        let rest = String::from_utf8_lossy(&stat[end..]);
        let parent = rest.split_whitespace().nth(2)?;
        (parent == own).then(|| Pid::from_raw(pid)).flatten()
    };
    entries.filter_map(child).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_are_found_also_when_they_have_ended() {
        let mut ended = std::process::Command::new("true").spawn().unwrap();
        let pid = Pid::from_child(&ended);
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        waitid(WaitId::Pid(pid), options).unwrap();
        assert!(children().contains(&pid));
        ended.wait().unwrap();
        assert!(!children().contains(&pid));
    }
}
