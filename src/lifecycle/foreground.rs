//! `run` in the foreground: lives as long as the container, and stands for it.
//!
//! One loop over a signalfd, the container's pidfd and its terminal. Every signal that reaches us
//! reaches the container's init; its exit code becomes ours. [`Foreground::prepare`] comes before
//! the clone: a signal or a death in between would be lost otherwise.

use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result};
use nix::sys::signal::SigSet;
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{getpid, set_child_subreaper};

use super::notify::Notify;
use super::reap;
use super::terminal::{Interests, Ready};
use crate::error;
use crate::sys::signals::send_signal;
use crate::sys::{Call, Errno, SysError};

pub use super::terminal::Relay;

/// The container's init, a child of this process.
#[derive(Debug)]
pub struct Child {
    /// Its pid.
    pub pid: i32,
    /// The descriptor its clone has given.
    pub pidfd: OwnedFd,
}

/// Whose children the container's orphans become: those whose parent ends while they live, and
/// who have no pid namespace of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Orphans {
    /// Ours; we reap them.
    Adopted,
    /// The host's init's.
    LeftToHost,
}

/// This process, ready to stand for a container.
#[derive(Debug)]
pub struct Foreground {
    signals: SignalFd,
    orphans: Orphans,
}

impl Foreground {
    /// Blocks all signals, to be forwarded later, and adopts orphans. Call it before the clone;
    /// the child has to unblock signals before it executes the program.
    ///
    /// # Errors
    ///
    /// What the kernel answered.
    pub fn prepare(orphans: Orphans) -> Result<Foreground> {
        let all = SigSet::all();
        all.thread_block().context("block signals")?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let signals = SignalFd::with_flags(&all, flags).context("signalfd")?;
        if orphans == Orphans::Adopted {
            set_child_subreaper(Some(getpid())).call(|| "prctl(PR_SET_CHILD_SUBREAPER)".into())?;
        }
        Ok(Foreground { signals, orphans })
    }

    /// Stands for the container until its init has ended: its exit code, or 128 and the number of
    /// the signal that ended it.
    ///
    /// # Errors
    ///
    /// When the kernel fails us; the container then goes on alone.
    pub fn supervise(
        &self,
        child: &Child,
        mut terminal: Option<Relay>,
        mut notify: Option<Notify>,
    ) -> Result<i32> {
        let code = loop {
            let woken = self.wait(child, terminal.as_ref(), notify.as_ref())?;
            if woken.notify {
                pass_on(&mut notify);
            }
            if woken.signal {
                self.forward_signals(child, terminal.as_ref())?;
            }
            if let Some(relay) = &mut terminal {
                relay.serve(woken.relay)?;
            }
            if (woken.exit || woken.signal)
                && let Some(code) = self.reap(child)?
            {
                break code;
            }
        };
        if let Some(relay) = &mut terminal {
            self.finish(relay)?;
        }
        Ok(code)
    }

    /// Waits until there is something to do.
    fn wait(&self, child: &Child, relay: Option<&Relay>, notify: Option<&Notify>) -> Result<Woken> {
        let mut fds = vec![
            PollFd::new(&self.signals, PollFlags::IN),
            PollFd::new(&child.pidfd, PollFlags::IN),
        ];
        let Interests {
            input,
            master,
            output,
        } = relay.map(Relay::interests).unwrap_or_default();
        let notify = notify.map(|notify| (notify.fd(), PollFlags::IN));
        let watched = [input, master, output, notify];
        let flatten = watched.iter().flatten();
        fds.extend(flatten.map(|(fd, flags)| PollFd::from_borrowed_fd(*fd, *flags)));
        match poll(&mut fds, None) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(Woken::default()),
            Err(errno) => return Err(SysError::new("poll", errno).into()),
        }
        let mut named = fds.iter().map(|fd| !fd.revents().is_empty());
        let mut next = || named.next().unwrap_or(false);
        let (signal, exit) = (next(), next());
        let [input, master, output, notify] = watched.map(|one| one.is_some() && next());
        Ok(Woken {
            signal,
            exit,
            notify,
            relay: Ready {
                input,
                master,
                output,
            },
        })
    }

    /// Passes on what has arrived.
    fn forward_signals(&self, child: &Child, relay: Option<&Relay>) -> Result<()> {
        while let Some(signal) = self.next_signal()? {
            match signal {
                libc::SIGWINCH => relay.into_iter().for_each(Relay::resize),
                // Reaping follows in any case. SIGURG is no message to anybody: runc's runtime
                // uses it for itself, so nobody sends it to a runtime.
                libc::SIGCHLD | libc::SIGURG => {}
                number => match send_signal(child.pidfd.as_fd(), number) {
                    Err(error) if error.errno != Errno::SRCH => {
                        error::warn(&error.to_string());
                    }
                    Ok(()) | Err(_) => {}
                },
            }
        }
        Ok(())
    }

    fn next_signal(&self) -> Result<Option<i32>> {
        let info = self.signals.read_signal().context("read(signalfd)")?;
        Ok(info.and_then(|info| i32::try_from(info.ssi_signo).ok()))
    }

    /// Reaps whoever has ended; the code of the container if it is among them.
    fn reap(&self, child: &Child) -> Result<Option<i32>> {
        match self.orphans {
            Orphans::Adopted => reap::all(child),
            Orphans::LeftToHost => reap::one(child),
        }
    }

    /// Writes what the container had still printed. A signal that asks us to end is heeded: whoever
    /// reads our output may have stopped doing so.
    fn finish(&self, relay: &mut Relay) -> Result<()> {
        while relay.read_rest()? {
            let interests = relay.interests();
            let Some((output, flags)) = interests.output else {
                return Ok(());
            };
            let mut fds = [
                PollFd::new(&self.signals, PollFlags::IN),
                PollFd::from_borrowed_fd(output, flags),
            ];
            match poll(&mut fds, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(SysError::new("poll(stdout)", errno).into()),
            }
            let [signal, output] = fds.map(|fd| !fd.revents().is_empty());
            if signal && self.is_asked_to_end()? {
                return Ok(());
            }
            relay.serve(Ready {
                output,
                ..Ready::default()
            })?;
        }
        Ok(())
    }

    fn is_asked_to_end(&self) -> Result<bool> {
        while let Some(signal) = self.next_signal()? {
            if [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT].contains(&signal) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// What has happened.
#[derive(Debug, Default)]
struct Woken {
    signal: bool,
    exit: bool,
    notify: bool,
    relay: Ready,
}

/// Tells the caller what the program says of itself, until the caller no longer listens.
fn pass_on(notify: &mut Option<Notify>) {
    // Signals to this process reach the program: it is what stands for the service.
    let main_pid = getpid().as_raw_nonzero().get();
    if let Some(Err(told)) = notify.as_mut().map(|notify| notify.relay(main_pid)) {
        error::warn(&told.to_string());
        *notify = None;
    }
}

#[cfg(test)]
#[allow(clippy::zombie_processes, reason = "supervise waits for them")]
mod tests {
    use super::*;
    use crate::lifecycle::terminal::tests::{pty, relay};
    use crate::lifecycle::testing::process_of;
    use std::io::{BufRead, BufReader, Read, Write};
    use std::process::{Command, Stdio};

    /// A container that prepares as the real one does: with no signal blocked. Commands inherit the
    /// mask, so a test starts its own before it blocks signals, from a thread that has not yet.
    fn sh(script: &str) -> Command {
        SigSet::empty().thread_set_mask().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    fn child_of(running: &std::process::Child) -> Child {
        let pid = running.id().try_into().unwrap();
        Child {
            pid,
            pidfd: process_of(running).open().unwrap().unwrap(),
        }
    }

    /// Runs a script on a terminal; its exit code and what came out.
    fn run_on_terminal(script: &str, input: &[u8]) -> (i32, String) {
        let (master, peer) = pty();
        let (relay, mut keys, mut screen) = relay(master);
        let stream = || Stdio::from(peer.try_clone().unwrap());
        let mut command = sh(script);
        let running = command
            .stdin(stream())
            .stdout(stream())
            .stderr(stream())
            .spawn()
            .unwrap();
        let child = child_of(&running);
        let foreground = Foreground::prepare(Orphans::LeftToHost).unwrap();
        drop((command, peer));
        keys.write_all(input).unwrap();
        drop(keys);
        let reader = std::thread::spawn(move || {
            let mut text = String::new();
            screen.read_to_string(&mut text).unwrap();
            text
        });
        let code = foreground.supervise(&child, Some(relay), None).unwrap();
        (code, reader.join().unwrap())
    }

    #[test]
    fn the_exit_code_is_the_containers() {
        for (script, code) in [
            ("exit 0", 0),
            ("exit 42", 42),
            ("kill -9 $$", 137),
            ("kill $$", 143),
        ] {
            // Held back until its descriptor is open.
            let mut command = sh(&format!("read go; {script}"));
            let mut running = command.stdin(Stdio::piped()).spawn().unwrap();
            let child = child_of(&running);
            drop(running.stdin.take());
            let foreground = Foreground::prepare(Orphans::LeftToHost).unwrap();
            assert_eq!(
                foreground.supervise(&child, None, None).unwrap(),
                code,
                "{script}"
            );
        }
    }

    #[test]
    fn signals_reach_the_container() {
        let mut command = sh("trap 'exit 7' USR1; echo ready; while :; do sleep 0.01; done");
        let mut running = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(running.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let child = child_of(&running);
        let foreground = Foreground::prepare(Orphans::LeftToHost).unwrap();
        for signal in [
            nix::sys::signal::SIGURG,
            nix::sys::signal::SIGWINCH,
            nix::sys::signal::SIGUSR1,
        ] {
            nix::sys::signal::raise(signal).unwrap();
        }
        assert_eq!(foreground.supervise(&child, None, None).unwrap(), 7);
    }

    #[test]
    fn all_output_arrives_also_what_came_just_before_the_end() {
        let (code, text) = run_on_terminal("seq 1 20000; printf end; exit 3", b"");
        assert_eq!(code, 3);
        let numbers: String = (1..=20000).map(|number| format!("{number}\n")).collect();
        assert_eq!(text, numbers + "end");
    }

    #[test]
    fn input_arrives_and_its_end_too() {
        let (code, text) = run_on_terminal("stty -echo; cat; exit 4", b"one\ntwo");
        assert_eq!(code, 4);
        assert!(text.ends_with("one\ntwo"), "{text:?}");
    }

    #[test]
    fn a_container_that_closes_its_terminal_can_open_it_again() {
        let script = "t=$(tty); exec </dev/null >/dev/null 2>&1; sleep 0.05; echo again > $t";
        let (code, text) = run_on_terminal(script, b"");
        assert_eq!(code, 0);
        assert!(text.ends_with("again\n"), "{text:?}");
    }

    #[test]
    fn orphans_are_reaped() {
        // Reaps every child of its process, so it runs in one of its own, away from other tests.
        const ALONE: &str = "PARHELION_TEST_ALONE";
        if std::env::var_os(ALONE).is_none() {
            let mut alone = Command::new(std::env::current_exe().unwrap());
            let name = "lifecycle::foreground::tests::orphans_are_reaped";
            let output = alone.args(["--exact", name]).env(ALONE, "1").output();
            let output = output.unwrap();
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(
                output.status.success() && text.contains("1 passed"),
                "{text}"
            );
            return;
        }
        let running = sh("sh -c 'sleep 0.02 &'; sleep 0.2; exit 5")
            .spawn()
            .unwrap();
        let child = child_of(&running);
        let foreground = Foreground::prepare(Orphans::Adopted).unwrap();
        assert_eq!(foreground.supervise(&child, None, None).unwrap(), 5);
        let nobody_left = rustix::process::wait(rustix::process::WaitOptions::NOHANG);
        assert_eq!(nobody_left.map(|one| one.is_some()), Err(Errno::CHILD));
    }
}
