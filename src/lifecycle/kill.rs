//! A signal for a container: `kill`.
//!
//! Takes no lock: a signal changes nothing that is written, and must get through while another
//! command hangs. It goes through a pidfd that was compared with the record, so it can never reach
//! a process that only inherited the pid.

use std::os::fd::AsFd;
use std::path::Path;
use std::str::FromStr;

use anyhow::{Result, bail};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::id::ContainerId;
use super::process::send_signal;
use super::record::Snapshot;
use super::{ps, query};
use crate::error::Kind;
use crate::sys::Errno;

/// The number of a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signal(i32);

/// Real-time signals as programs outside libc count them (signal(7)).
const REAL_TIME: std::ops::RangeInclusive<i32> = 34..=64;

/// Names that signal(7) lists besides the usual one.
const OTHER_NAMES: [(&str, i32); 3] = [
    ("CLD", libc::SIGCHLD),
    ("IOT", libc::SIGABRT),
    ("POLL", libc::SIGIO),
];

impl Signal {
    /// Ends a process, whatever it does.
    pub const KILL: Signal = Signal(libc::SIGKILL);
    /// Asks a process to end.
    pub const TERM: Signal = Signal(libc::SIGTERM);

    /// A signal by name, with or without `SIG`, in any case, or by number; 0 only asks whether a
    /// signal could be sent.
    ///
    /// # Errors
    ///
    /// When there is no such signal.
    pub fn parse(text: &str) -> Result<Signal> {
        if let Ok(number) = text.parse() {
            if (0..=*REAL_TIME.end()).contains(&number) {
                return Ok(Signal(number));
            }
        } else if let Some(number) = by_name(&text.to_ascii_uppercase()) {
            return Ok(Signal(number));
        }
        bail!("unknown signal {text:?}: give a name as TERM or SIGTERM, or a number up to 64")
    }

    /// The signal's number.
    pub fn number(self) -> i32 {
        self.0
    }
}

fn by_name(upper: &str) -> Option<i32> {
    let name = upper.strip_prefix("SIG").unwrap_or(upper);
    if let Some(rest) = name.strip_prefix("RT") {
        return real_time(rest);
    }
    if let Some((_, number)) = OTHER_NAMES.iter().find(|(other, _)| *other == name) {
        return Some(*number);
    }
    let signal = nix::sys::signal::Signal::from_str(&format!("SIG{name}")).ok()?;
    Some(signal as i32)
}

/// `MIN`, `MIN+n`, `MAX-n` or `MAX`.
fn real_time(name: &str) -> Option<i32> {
    let (first, last) = REAL_TIME.into_inner();
    let number = match (name.strip_prefix("MIN"), name.strip_prefix("MAX")) {
        (Some(""), _) => first,
        (_, Some("")) => last,
        (Some(offset), _) => {
            first
                + offset
                    .strip_prefix('+')?
                    .parse::<u8>()
                    .map(i32::from)
                    .ok()?
        }
        (_, Some(offset)) => {
            last - offset
                .strip_prefix('-')?
                .parse::<u8>()
                .map(i32::from)
                .ok()?
        }
        (None, None) => return None,
    };
    REAL_TIME.contains(&number).then_some(number)
}

/// Whom a signal is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Init; with SIGKILL, everything that would outlive it.
    Init,
    /// Every process in the container. That there is none is no error.
    All,
}

/// Sends a signal.
///
/// # Errors
///
/// [`Kind::NotFound`]; [`Kind::NotRunning`]; or what the kernel answered.
pub fn kill(root: &Path, id: &ContainerId, signal: Signal, target: Target) -> Result<()> {
    let container = Snapshot::read(root, id)?;
    match target {
        Target::All if container.facts.cgroup.is_none() && container.is_written() => {
            signal_namespace(&container, signal)
        }
        Target::All => signal_processes(&container, signal).map(drop),
        Target::Init => {
            // In a pid namespace of its own the kernel ends everything else with init. Without
            // one, the rest would live on in a container that counts as stopped.
            let alone = signal != Signal::KILL || container.facts.own_pid_namespace;
            if alone || signal_processes(&container, signal)? == Reached::Nobody {
                signal_init(&container, signal)?;
            }
            Ok(())
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Reached {
    Nobody,
    Somebody,
}

fn signal_processes(container: &Snapshot, signal: Signal) -> Result<Reached> {
    let Some(cgroup) = query::cgroup(container)? else {
        return Ok(Reached::Nobody);
    };
    if signal != Signal::KILL {
        let count = cgroup.signal_all(signal.number())?;
        return Ok(if count == 0 {
            Reached::Nobody
        } else {
            Reached::Somebody
        });
    }
    if cgroup.pids()?.is_empty() {
        return Ok(Reached::Nobody);
    }
    // cgroup.kill also reaches processes that are forked meanwhile.
    cgroup.kill_all()?;
    Ok(Reached::Somebody)
}

/// Signals every process of a container that has no cgroup, and with SIGKILL all at once: the kernel ends
/// a pid namespace with its init.
fn signal_namespace(container: &Snapshot, signal: Signal) -> Result<()> {
    let Some(namespace) = ps::Namespace::of(container)? else {
        return Ok(());
    };
    if signal == Signal::KILL {
        return signal_init(container, signal);
    }
    for pid in namespace.pids()? {
        let process = Pid::from_raw(pid).map(|pid| pidfd_open(pid, PidfdFlags::empty()));
        // One whose number was given to another since it was listed is inside no more.
        let Some(Ok(process)) = process.filter(|_| namespace.has(pid)) else {
            continue;
        };
        match send_signal(process.as_fd(), signal.number()) {
            Err(error) if error.errno != Errno::SRCH => return Err(error.into()),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

fn signal_init(container: &Snapshot, signal: Signal) -> Result<()> {
    let not_running = || Kind::NotRunning(container.id.to_string());
    let init = container.init.as_ref().ok_or_else(not_running)?;
    let pidfd = init.open()?.ok_or_else(not_running)?;
    match send_signal(pidfd.as_fd(), signal.number()) {
        Ok(()) => Ok(()),
        Err(error) if error.errno == Errno::SRCH => Err(not_running().into()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lifecycle::record::Record;
    use crate::lifecycle::testing::{Root, Sleeper, earlier, facts, id};

    #[test]
    fn signals_are_known_by_name_and_number() {
        for text in ["TERM", "SIGTERM", "term", "SigTerm", "15"] {
            assert_eq!(Signal::parse(text).unwrap(), Signal::TERM, "{text}");
        }
        let number = |text: &str| Signal::parse(text).map(Signal::number).ok();
        assert_eq!(
            [number("CLD"), number("iot"), number("SIGPOLL")],
            [Some(17), Some(6), Some(29)]
        );
        assert_eq!(
            [number("RTMIN"), number("SIGRTMIN+3"), number("rtmax-1")],
            [Some(34), Some(37), Some(63)]
        );
        assert_eq!(
            [number("0"), number("64"), number("WINCH")],
            [Some(0), Some(64), Some(28)]
        );
    }

    #[test]
    fn what_is_no_signal_is_refused() {
        for text in [
            "",
            "FOO",
            "SIG",
            "65",
            "-9",
            "SIGSIGTERM",
            "RTMIN-1",
            "RTMIN+31",
            "RTMAX+1",
            "9x",
        ] {
            let error = Signal::parse(text).unwrap_err().to_string();
            assert!(error.starts_with("unknown signal"), "{text}: {error}");
        }
    }

    #[test]
    fn a_signal_reaches_init_and_then_the_container_is_not_running() {
        let root = Root::new();
        let child = Sleeper::new();
        let mut record = Record::reserve(root.path(), &id("web"), facts()).unwrap();
        let send = |signal| kill(root.path(), &id("web"), signal, Target::Init);
        let early = send(Signal::TERM).unwrap_err().to_string();
        assert!(early.contains("container not running"), "{early}");
        record.created(child.process()).unwrap();
        send(Signal::parse("0").unwrap()).unwrap();
        send(Signal::TERM).unwrap();
        assert_eq!(child.ended_by(), Some(15));
        let late = send(Signal::KILL).unwrap_err();
        assert_eq!(late.downcast_ref(), Some(&Kind::NotRunning("web".into())));
    }

    #[test]
    fn another_process_with_inits_pid_gets_no_signal() {
        let root = Root::new();
        let child = Sleeper::new();
        let mut record = Record::reserve(root.path(), &id("web"), facts()).unwrap();
        record.created(earlier(child.process())).unwrap();
        assert!(kill(root.path(), &id("web"), Signal::KILL, Target::Init).is_err());
        assert!(child.process().open().unwrap().is_some());
    }

    #[test]
    fn a_signal_for_all_processes_of_none_is_no_error() {
        let root = Root::new();
        let _record = Record::reserve(root.path(), &id("web"), facts()).unwrap();
        kill(root.path(), &id("web"), Signal::KILL, Target::All).unwrap();
        kill(root.path(), &id("web"), Signal::TERM, Target::All).unwrap();
    }
}
