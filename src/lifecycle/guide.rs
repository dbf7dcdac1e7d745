//! The runtime's side of init's way from its plan to *ready*: what is done when the mounts are made,
//! the hooks of the host, the terminal.
//!
//! What both say to each other stands in `init::handshake`.

use std::os::fd::OwnedFd;

use anyhow::{Result, bail};

use super::interrupt::{Interrupt, Stop};
use super::process::Process;
use super::record::Record;
use super::{CreateRequest, Status, handover, hooks};
use crate::bundle::Bundle;
use crate::init::Init;
use crate::init::handshake::{FromInit, ToInit};
use crate::seccomp::Listener;

/// Answers init until it is ready.
pub(super) struct Guide<'a> {
    pub init: &'a Init,
    pub bundle: &'a Bundle,
    pub request: &'a CreateRequest,
    pub listener: Option<&'a Listener>,
    pub waits_when_made: bool,
    pub word: Word,
    pub interrupt: &'a Interrupt,
}

/// When init hears that it may execute the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    /// Beside its mounts: nothing that is done for it here waits for them.
    AtOnce,
    /// When they are made.
    WhenMade,
    /// Later, by somebody else.
    Later,
}

impl Word {
    /// For an init that is told by its creator or not, and mounts that something waits for or not.
    pub fn of(is_told: bool, waits_for_mounts: bool) -> Word {
        match (is_told, waits_for_mounts) {
            (false, _) => Word::Later,
            (true, true) => Word::WhenMade,
            (true, false) => Word::AtOnce,
        }
    }
}

impl Guide<'_> {
    /// The terminal's master, if this process keeps it. `made` does what is due when the mounts and
    /// devices are made, as putting the device filter into force: before hooks, which may want to
    /// change that, and no earlier than [`Word`] says. `record` is told of init when the hooks are through.
    ///
    /// # Errors
    ///
    /// What init, a hook or the console socket says; that the caller asked to stop.
    pub fn until_ready(
        &self,
        made: impl FnOnce(&Record) -> Result<()>,
        record: &mut Record,
    ) -> Result<Option<OwnedFd>> {
        if self.word == Word::AtOnce {
            made(record)?;
            self.give_word(record)?;
            self.until_made()?;
        } else {
            self.until_made()?;
            made(record)?;
            let stop = Stop {
                interrupt: self.interrupt,
                init: self.init.pidfd(),
            };
            let pid = self.init.pid().as_raw_nonzero().get();
            hooks::run_at_creation(self.bundle, record, pid, stop)?;
            if self.waits_when_made {
                self.init.say(&ToInit::Continue)?;
            }
            self.give_word(record)?;
        }
        let mut terminal = None;
        loop {
            self.interrupt.or_ready(self.init.conversation())?;
            match self.init.hear()? {
                (FromInit::Terminal, Some(master)) => match &self.request.console_socket {
                    Some(socket) => handover::send_terminal(socket, master)?,
                    None => terminal = Some(master),
                },
                (FromInit::Listener, Some(fd)) => self.hand_over_listener(record, fd)?,
                (FromInit::Ready, _) => return Ok(terminal),
                (said, _) => bail!("init said {said:?} where it should have been getting ready"),
            }
        }
    }

    fn until_made(&self) -> Result<()> {
        self.interrupt.or_ready(self.init.conversation())?;
        match self.init.hear()? {
            (FromInit::Made, _) => Ok(()),
            (said, _) => bail!("init said {said:?} where it should have made mounts"),
        }
    }

    /// Lets the record know init, and init go on to the program.
    fn give_word(&self, record: &mut Record) -> Result<()> {
        record.created(Process::of(self.init.pid(), self.init.pidfd())?)?;
        if self.word != Word::Later {
            self.init.say(&ToInit::Continue)?;
            self.init.say(&ToInit::Start)?;
        }
        Ok(())
    }

    /// Gives the filter's listener to whoever decides on the container's calls.
    fn hand_over_listener(&self, record: &Record, fd: OwnedFd) -> Result<()> {
        let Some(listener) = self.listener else {
            bail!("init sent a listener that nobody waits for");
        };
        let pid = self.init.pid().as_raw_nonzero().get();
        let state = hooks::state(record, &Status::Creating, Some(pid));
        handover::send_listener(listener, &record.facts.oci_version, pid, &state, fd)
    }
}
