//! The runtime's side of init's way from its plan to *ready*: what is done when the mounts are made,
//! the hooks of the host, the terminal.
//!
//! What both say to each other stands in `init::handshake`.

use std::os::fd::OwnedFd;

use anyhow::{Result, bail};
use oci_spec::runtime::Hooks;

use super::interrupt::{Interrupt, Stop};
use super::process::Process;
use super::record::Record;
use super::{CreateRequest, Status, handover, hooks};
use crate::bundle::Bundle;
use crate::init::Init;
use crate::init::handshake::{FromInit, ToInit};

/// Answers init until it is ready.
pub(super) struct Guide<'a> {
    pub init: &'a Init,
    pub bundle: &'a Bundle,
    pub request: &'a CreateRequest,
    pub interrupt: &'a Interrupt,
}

impl Guide<'_> {
    /// The terminal's master, if this process keeps it. `restrict` puts the device filter into
    /// force: before hooks, which may want to change it, and never before init has made the devices.
    /// `record` is told of init when the hooks are through. Then init need not wait, if `at_once`.
    ///
    /// # Errors
    ///
    /// What init, a hook or the console socket says; that the caller asked to stop.
    pub fn until_ready(
        &self,
        restrict: impl FnOnce() -> Result<()>,
        record: &mut Record,
        at_once: bool,
    ) -> Result<Option<OwnedFd>> {
        self.interrupt.or_ready(self.init.conversation())?;
        match self.init.hear()? {
            (FromInit::Made, _) => {}
            (said, _) => bail!("init said {said:?} where it should have made mounts"),
        }
        restrict()?;
        self.run_creation_hooks(record)?;
        record.created(Process::of(self.init.pid(), self.init.pidfd())?)?;
        if at_once {
            self.init.say(&ToInit::Continue)?;
            self.init.say(&ToInit::Start)?;
        }
        let mut terminal = None;
        loop {
            self.interrupt.or_ready(self.init.conversation())?;
            match self.init.hear()? {
                (FromInit::Terminal, Some(master)) => match &self.request.console_socket {
                    Some(socket) => handover::send_terminal(socket, master)?,
                    None => terminal = Some(master),
                },
                (FromInit::Ready, _) => return Ok(terminal),
                (said, _) => bail!("init said {said:?} where it should have been getting ready"),
            }
        }
    }

    /// The hooks of the runtime's namespaces, while the container's are made and its root is not
    /// entered yet: prestart first, as it is the older of the two. Init waits for them if there are
    /// any.
    fn run_creation_hooks(&self, record: &Record) -> Result<()> {
        let all = self.bundle.spec.hooks().as_ref();
        #[allow(
            deprecated,
            reason = "prestart is deprecated and still what NVIDIA's runtime writes"
        )]
        let prestart = |h: &Hooks| h.prestart().clone();
        let lists = [
            ("prestart", all.and_then(prestart)),
            (
                "createRuntime",
                all.and_then(|h| h.create_runtime().clone()),
            ),
        ];
        let lists = lists.map(|(name, list)| (name, list.unwrap_or_default()));
        if lists.iter().all(|(_, list)| list.is_empty()) {
            return Ok(());
        }
        let pid = self.init.pid().as_raw_nonzero().get();
        let stop = Stop {
            interrupt: self.interrupt,
            init: self.init.pidfd(),
        };
        let state = hooks::state(record, &Status::Creating, Some(pid));
        for (name, list) in lists {
            hooks::run(name, &list, &state, &self.bundle.dir, Some(stop))?;
        }
        self.init.say(&ToInit::Continue)
    }
}
