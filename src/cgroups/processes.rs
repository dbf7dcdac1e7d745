//! The processes in a cgroup and below it: listing, signalling, killing, freezing, waiting.
//!
//! Nothing here decides who is to be signalled, nor knows containers.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, PidfdFlags};

use super::events::{Deadline, Events};
use super::{Cgroup, files, tree};
use crate::sys::signals::send_signal;
use crate::sys::{Call, Errno, SysError};

/// How long the kernel may take to stop or wake all processes. One in an uninterruptible wait,
/// as for a dead network file system, is not stopped before this wait ends.
const FREEZE_TIMEOUT: Duration = Duration::from_secs(10);

/// How many processes are held open at once: RLIMIT_NOFILE is 1024 as a rule.
const OPEN_PROCESSES: usize = 256;

impl Cgroup {
    /// The process ids in the cgroup and below it, rising. Processes of other pid namespaces that
    /// the caller can not see are left out.
    ///
    /// # Errors
    ///
    /// A cgroup.procs can not be read. A cgroup that is gone has no processes.
    pub fn pids(&self) -> Result<Vec<i32>> {
        let mut list = Pids(Vec::new());
        match tree::walk(self.fd(), &mut list) {
            Ok(()) | Err(Errno::NOENT | Errno::NODEV) => {}
            Err(errno) => Err(errno).call(|| format!("read({:?})", self.place("cgroup.procs")))?,
        }
        list.0.sort_unstable();
        list.0.dedup();
        Ok(list.0)
    }

    /// True when the cgroup hands controllers on to those below it, so that no process can be in it.
    ///
    /// # Errors
    ///
    /// It can not be read.
    pub fn is_divided(&self) -> Result<bool> {
        let handed_on = self.read("cgroup.subtree_control")?;
        Ok(handed_on.is_some_and(|controllers| !controllers.trim().is_empty()))
    }

    /// Kills every process in the cgroup and below it, at once (cgroup.kill, Linux 5.14). Also
    /// those that are frozen, and those that are forked meanwhile.
    ///
    /// # Errors
    ///
    /// The kernel is older, or denies the write. A cgroup that is gone is fine.
    pub fn kill_all(&self) -> Result<()> {
        match self.write("cgroup.kill", "1") {
            Err(error) if is_gone(&error) && self.is_gone() => Ok(()),
            Err(error) if error.errno == Errno::NOENT => {
                Err(error).context("killing a whole cgroup needs Linux 5.14")
            }
            result => Ok(result?),
        }
    }

    /// Sends `signal` to every process in the cgroup and below it: any number that is a signal's,
    /// or 0, which only asks. Returns how many got it.
    ///
    /// Each gets it once, also one that is just being forked: for the last look the cgroup is frozen
    /// for a moment. A process that exits before its turn is fine, and one that took over its id
    /// elsewhere is not signalled.
    ///
    /// # Errors
    ///
    /// `signal` is no signal's number; a process may not be signalled.
    pub fn signal_all(&self, signal: i32) -> Result<usize> {
        if signal == libc::SIGKILL {
            let count = self.pids()?.len();
            return self.kill_all().map(|()| count);
        }
        let mut reached = BTreeSet::new();
        self.signal_new(signal, &mut reached)?;
        // While it is forked, a process stands in no list, and its parent may have had its signal
        // already. Of processes that are stopped, none is forking.
        let was_frozen = self.is_frozen()?;
        match self.freeze() {
            Err(_) if self.is_gone() => return Ok(reached.len()),
            stopped => stopped?,
        }
        let result = self.signal_new(signal, &mut reached);
        if !was_frozen {
            self.thaw()?;
        }
        result.map(|()| reached.len())
    }

    /// Signals the processes that are not in `reached`, and adds them.
    fn signal_new(&self, signal: i32, reached: &mut BTreeSet<i32>) -> Result<()> {
        let new: Vec<i32> = self
            .pids()?
            .into_iter()
            .filter(|pid| !reached.contains(pid))
            .collect();
        for pids in new.chunks(OPEN_PROCESSES) {
            let mut open = Vec::with_capacity(pids.len());
            for &pid in pids {
                match Pid::from_raw(pid)
                    .map(|p| rustix::process::pidfd_open(p, PidfdFlags::empty()))
                {
                    Some(Ok(process)) => open.push((pid, process)),
                    None | Some(Err(Errno::SRCH)) => {}
                    Some(Err(errno)) => Err(errno).call(|| format!("pidfd_open({pid})"))?,
                }
            }
            // An id that is still listed after the open was not given to a process elsewhere.
            let listed = self.pids()?;
            for (pid, process) in open {
                if listed.binary_search(&pid).is_err() {
                    continue;
                }
                match send_signal(process.as_fd(), signal) {
                    Err(error) if error.errno != Errno::SRCH => {
                        return Err(error).context(format!("process {pid}"));
                    }
                    Ok(()) | Err(_) => reached.insert(pid),
                };
            }
        }
        Ok(())
    }

    /// Waits until no process is in the cgroup or below it.
    ///
    /// # Errors
    ///
    /// There still are some after `timeout`.
    pub fn wait_empty(&self, timeout: Duration) -> Result<()> {
        if self.wait("populated", false, timeout)? {
            return Ok(());
        }
        let pids: Vec<String> = self.pids()?.iter().map(i32::to_string).collect();
        bail!(
            "{self}: still has processes after {timeout:?}: {}",
            pids.join(", ")
        )
    }

    /// Stops all processes and waits until they are (cgroup.freeze, Linux 5.2).
    ///
    /// # Errors
    ///
    /// The kernel refuses, or some run on after ten seconds: then all run again.
    pub fn freeze(&self) -> Result<()> {
        self.write("cgroup.freeze", "1")?;
        let stopped = self.wait_frozen(FREEZE_TIMEOUT);
        if let Ok(true) = stopped {
            return Ok(());
        }
        self.write("cgroup.freeze", "0")?;
        stopped?;
        bail!("{self}: not all processes could be stopped within {FREEZE_TIMEOUT:?}")
    }

    /// Lets all processes run again and waits until they do.
    ///
    /// # Errors
    ///
    /// The kernel refuses, or a cgroup above is frozen too.
    pub fn thaw(&self) -> Result<()> {
        self.write("cgroup.freeze", "0")?;
        if self.wait("frozen", false, FREEZE_TIMEOUT)? {
            return Ok(());
        }
        bail!("{self}: still frozen after {FREEZE_TIMEOUT:?}: a cgroup above it is frozen")
    }

    /// True when all processes are stopped, by this cgroup's freezer or by one above.
    ///
    /// # Errors
    ///
    /// The state can not be read.
    pub fn is_frozen(&self) -> Result<bool> {
        self.is("frozen")
    }

    /// True when there is a process in the cgroup or below it.
    ///
    /// # Errors
    ///
    /// The state can not be read.
    pub fn is_populated(&self) -> Result<bool> {
        self.is("populated")
    }

    fn is(&self, key: &str) -> Result<bool> {
        let is = Events::open(self.fd()).and_then(|events| events.is(key));
        self.or_gone(is, false)
    }

    fn wait(&self, key: &str, value: bool, timeout: Duration) -> Result<bool> {
        let end = Deadline::after(timeout);
        let done = Events::open(self.fd()).and_then(|events| events.wait(key, value, &end));
        self.or_gone(done, true)
    }

    /// Waits until everything is stopped in every cgroup from here down. The kernel calls a cgroup
    /// frozen as soon as its own processes are, when those below may still run on
    /// (cgroup_update_frozen).
    fn wait_frozen(&self, timeout: Duration) -> Result<bool> {
        let mut stopped = Stopped {
            end: Deadline::after(timeout),
            waited: true,
            in_time: true,
        };
        // Until a whole round has nothing to wait for: one that runs may go where all were stopped.
        while stopped.waited && stopped.in_time {
            stopped.waited = false;
            let walked = tree::walk(self.fd(), &mut stopped).map(|()| true);
            self.or_gone(walked, true)?;
        }
        Ok(stopped.in_time)
    }

    /// The answer from cgroup.events, or `gone` when the cgroup has been removed.
    fn or_gone(&self, answer: Result<bool, Errno>, gone: bool) -> Result<bool> {
        match answer {
            Err(Errno::NOENT | Errno::NODEV) => Ok(gone),
            answer => Ok(answer.call(|| format!("read({:?})", self.place("cgroup.events")))?),
        }
    }

    fn is_gone(&self) -> bool {
        Events::open(self.fd()).is_err()
    }
}

/// True when a write failed as it does in a removed cgroup.
fn is_gone(error: &SysError) -> bool {
    matches!(error.errno, Errno::NOENT | Errno::NODEV)
}

/// Waits at every directory until it is frozen.
struct Stopped {
    end: Deadline,
    /// Whether one was not frozen yet.
    waited: bool,
    /// Whether all were before the end.
    in_time: bool,
}

impl tree::Visit for Stopped {
    fn enter(&mut self, directory: BorrowedFd<'_>) -> Result<(), Errno> {
        let wait = Events::open(directory).and_then(|events| {
            if !events.is("frozen")? {
                self.waited = true;
                self.in_time &= events.wait("frozen", true, &self.end)?;
            }
            Ok(())
        });
        match wait {
            // Removed meanwhile.
            Err(Errno::NOENT | Errno::NODEV) => Ok(()),
            other => other,
        }
    }
}

/// Collects cgroup.procs of every directory.
struct Pids(Vec<i32>);

impl tree::Visit for Pids {
    fn enter(&mut self, directory: BorrowedFd<'_>) -> Result<(), Errno> {
        match files::read(directory, "cgroup.procs") {
            // 0 stands for a process of a pid namespace that we can not see.
            Ok(text) => self.0.extend(
                text.lines()
                    .flat_map(str::parse)
                    .filter(|&pid: &i32| pid != 0),
            ),
            // Removed meanwhile; or threaded: its processes are listed further up.
            Err(Errno::NOENT | Errno::NODEV | Errno::OPNOTSUPP) => {}
            Err(errno) => return Err(errno),
        }
        Ok(())
    }
}
