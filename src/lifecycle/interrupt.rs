//! A request to end while a container is made: what was made is removed before this process ends.
//!
//! The signals are blocked, and looked for wherever creation waits for somebody: init or a hook.
//! One that the caller ignores, as nohup(1) does, stays ignored.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, poll};

use super::process::wait_for_exit;
use crate::sys::signals::{REQUESTS_TO_END, is_ignored};
use crate::sys::{Errno, SysError};

/// Tells when somebody wants this process to end.
#[derive(Debug)]
pub struct Interrupt {
    signals: SignalFd,
    /// What would have come: "the container was complete".
    before: &'static str,
}

impl Interrupt {
    /// Blocks the signals from now on, until what `before` says: "the container was complete". Call it
    /// before the first effect.
    ///
    /// # Errors
    ///
    /// What the kernel answered.
    pub fn prepare(before: &'static str) -> Result<Interrupt> {
        let heeded = REQUESTS_TO_END
            .into_iter()
            .filter(|signal| !is_ignored(*signal as i32));
        let heeded: SigSet = heeded.collect();
        heeded.thread_block().context("block signals")?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let signals = SignalFd::with_flags(&heeded, flags).context("signalfd")?;
        Ok(Interrupt { signals, before })
    }

    /// Waits until there is something to read from `other`.
    ///
    /// # Errors
    ///
    /// A signal came, and nothing to read.
    pub fn or_ready(&self, other: BorrowedFd<'_>) -> Result<()> {
        loop {
            let mut fds = [
                PollFd::new(&self.signals, PollFlags::IN),
                PollFd::from_borrowed_fd(other, PollFlags::IN),
            ];
            match poll(&mut fds, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(SysError::new("poll", errno).into()),
            }
            let [signal, ready] = fds.map(|fd| !fd.revents().is_empty());
            // What was said counts first: when the program runs already, the signal is for it.
            if ready {
                return Ok(());
            }
            if signal {
                self.check()?;
            }
        }
    }

    /// Asks without waiting.
    ///
    /// # Errors
    ///
    /// A signal came.
    fn check(&self) -> Result<()> {
        let Some(info) = self.signals.read_signal().context("read(signalfd)")? else {
            return Ok(());
        };
        let before = self.before;
        let number = i32::try_from(info.ssi_signo).unwrap_or_default();
        match Signal::try_from(number) {
            Ok(signal) => bail!("ended by {signal} before {before}"),
            Err(_) => bail!("ended by signal {number} before {before}"),
        }
    }
}

/// What ends a hook before its time: a request to end, or the end of the container's init, as by
/// `delete --force`, which then waits for this process.
#[derive(Debug, Clone, Copy)]
pub struct Stop<'a> {
    /// The request.
    pub interrupt: &'a Interrupt,
    /// Init's pidfd.
    pub init: BorrowedFd<'a>,
}

impl Stop<'_> {
    /// What to watch.
    pub fn descriptors(&self) -> [PollFd<'_>; 2] {
        let interrupt = PollFd::new(&self.interrupt.signals, PollFlags::IN);
        [
            interrupt,
            PollFd::from_borrowed_fd(self.init, PollFlags::IN),
        ]
    }

    /// Asks without waiting.
    ///
    /// # Errors
    ///
    /// It is to end, and why.
    pub fn check(&self) -> Result<()> {
        self.interrupt.check()?;
        if wait_for_exit(self.init, Some(Duration::ZERO))? {
            bail!("the container's init has ended meanwhile");
        }
        Ok(())
    }
}
