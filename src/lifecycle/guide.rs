//! The runtime's side of init's way from its plan to *ready*: the hooks of the host, the terminal.
//!
//! What both say to each other stands in `init::handshake`.

use std::os::fd::OwnedFd;

use anyhow::{Result, bail};
use oci_spec::runtime::Hooks;

use super::interrupt::{Interrupt, Stop};
use super::record::Record;
use super::{CreateRequest, Status, handover, hooks};
use crate::bundle::Bundle;
use crate::init::Init;
use crate::init::handshake::{FromInit, ToInit};

/// Answers init until it is ready.
pub(super) struct Guide<'a> {
    pub init: &'a Init,
    pub bundle: &'a Bundle,
    pub record: &'a Record,
    pub request: &'a CreateRequest,
    pub interrupt: &'a Interrupt,
}

impl Guide<'_> {
    /// The terminal's master, if this process keeps it. `restrict` puts the device filter into
    /// force: before hooks, which may want to change it, and never before init has made the devices.
    ///
    /// # Errors
    ///
    /// What init, a hook or the console socket says; that the caller asked to stop.
    pub fn until_ready(&self, restrict: &mut dyn FnMut() -> Result<()>) -> Result<Option<OwnedFd>> {
        let mut terminal = None;
        loop {
            self.interrupt.or_ready(self.init.conversation())?;
            match self.init.hear()? {
                (FromInit::HostHooksDue, _) => {
                    restrict()?;
                    run_creation_hooks(self.bundle, self.record, self.init, self.interrupt)?;
                    self.init.say(&ToInit::Continue)?;
                }
                (FromInit::Terminal, Some(master)) => match &self.request.console_socket {
                    Some(socket) => handover::send_terminal(socket, master)?,
                    None => terminal = Some(master),
                },
                (FromInit::Ready, _) => return Ok(terminal),
                (
                    said @ (FromInit::Terminal
                    | FromInit::Executing
                    | FromInit::Failed(_)
                    | FromInit::NotExecuted(..)),
                    _,
                ) => {
                    bail!("init said {said:?} where it should have been getting ready")
                }
            }
        }
    }
}

/// The hooks of the runtime's namespaces, while the container's are made and its root is not
/// entered yet: prestart first, as it is the older of the two.
fn run_creation_hooks(
    bundle: &Bundle,
    record: &Record,
    init: &Init,
    interrupt: &Interrupt,
) -> Result<()> {
    let pid = init.pid().as_raw_nonzero().get();
    let stop = Stop {
        interrupt,
        init: init.pidfd(),
    };
    let state = hooks::state(record, &Status::Creating, Some(pid));
    let all = bundle.spec.hooks().as_ref();
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
    for (name, list) in lists {
        let list = list.unwrap_or_default();
        hooks::run(name, &list, &state, &record.facts, Some(stop))?;
    }
    Ok(())
}
