//! `create` and `run`: from a bundle to a process that waits for its start.
//!
//! Everything is read, checked and planned before the first effect. Each effect is undone when a
//! later step fails, and can be found by `delete --force` when this process is killed: the record
//! that names the cgroup is written before the cgroup is made.

use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use anyhow::Result;

use super::caller::{Caller, Start, check_terminal};
use super::descriptors::Passed;
use super::filters::Filters;
use super::foreground::{Child, Foreground, Orphans};
use super::ground::{Ground, undo};
use super::interrupt::Interrupt;
use super::notify::Notify;
use super::pid_file::PidFile;
use super::record::Record;
use super::set_up::{Parts, SetUp, set_up};
use super::terminal::Relay;
use super::{CreateRequest, RunOptions, delete, limits, start};
use crate::bundle::Bundle;
use crate::error::{self, Problems};
use crate::init::handshake::ToInit;
use crate::init::{Init, Seed};
use crate::namespaces;
use crate::sys::rights::Rights;

/// Starts the seed of a container before it is known whether one will be made: it takes as long to
/// get ready as the command line and the bundle take to read. None where the caller passes on
/// descriptors, whose number must be known, and where it can not be started, as will be told later.
#[must_use]
pub fn sow() -> Sown {
    match Passed::find(0) {
        Ok(passed) if passed.total() == 0 => Sown(Seed::start(0).ok()),
        Ok(_) | Err(_) => Sown(None),
    }
}

/// A seed that was started before it is known whether it is needed, or none.
#[derive(Debug, Default)]
pub struct Sown(Option<Seed>);

impl Sown {
    /// The seed, or a new one where descriptors are passed on.
    ///
    /// # Errors
    ///
    /// Out of memory, processes or descriptors.
    pub(super) fn or_start(self, passed: Passed) -> Result<Seed> {
        match self.0 {
            Some(seed) if passed.total() == 0 => Ok(seed),
            Some(_) | None => Seed::start(passed.total()),
        }
    }
}

/// Creates a container, from a seed that was sown or one of its own; its program waits for `start`.
///
/// # Errors
///
/// Everything that is wrong with the bundle, or the step that failed; nothing is left then.
pub fn create(request: &CreateRequest, sown: Sown) -> Result<()> {
    let passed = Passed::find(request.preserve_fds)?;
    let made = make(request, Start::Later, passed, sown)?;
    if let Err(error) = made.init.say(&ToInit::Continue) {
        return Err(made.undo(error));
    }
    let _init_lives_on = made.keep();
    Ok(())
}

/// Creates a container and starts it; in the foreground, stands for it until it ends.
///
/// Returns the program's exit code, 128 and the number of the signal that ended it, or 0 for one
/// that goes on in the background.
///
/// # Errors
///
/// As for [`create`]; nothing is left then.
pub fn run(request: &CreateRequest, options: &RunOptions, sown: Sown) -> Result<i32> {
    // Before anything is opened here, which would be taken for a descriptor of the caller.
    let passed = Passed::find(request.preserve_fds)?;
    let foreground = match options.detach {
        true => None,
        false => Some(Foreground::prepare(orphans(*options))?),
    };
    let start = if options.detach {
        Start::Detached
    } else {
        Start::Foreground
    };
    let mut made = make(request, start, passed, sown)?;
    let (relay, notify) = match begin(&mut made) {
        Ok(begun) => begun,
        Err(error) => return Err(made.undo(error)),
    };
    let pid = made.init.pid().as_raw_nonzero().get();
    start::run_poststart_hooks(&made.record, pid);
    let id = made.record.id.clone();
    // The program is at work, so this is nobody's time.
    let prepared = match foreground.is_some() && !options.keep {
        true => Some(delete::Prepared::of(&made.record)),
        false => None,
    };
    let pidfd = made.keep();
    let Some(foreground) = foreground else {
        if let Some(notify) = notify {
            notify.until_ready(pid, pidfd.as_fd())?;
        }
        return Ok(0);
    };
    let pidfd = Rc::try_unwrap(pidfd).map_or_else(|shared| shared.try_clone(), Ok)?;
    let code = foreground.supervise(&Child { pid, pidfd }, relay, notify)?;
    if let Some(prepared) = prepared {
        delete::delete_prepared(&request.root, &id, prepared)?;
    }
    Ok(code)
}

pub(super) fn orphans(options: RunOptions) -> Orphans {
    if options.no_subreaper {
        Orphans::LeftToHost
    } else {
        Orphans::Adopted
    }
}

/// Starts the program. Its terminal is connected before, so that it finds the size that will stay.
fn begin(made: &mut Made) -> Result<(Option<Relay>, Option<Notify>)> {
    let notify = Notify::listen(&made.record)?;
    let relay = made.terminal.take().map(Relay::begin).transpose()?;
    if !made.is_told {
        made.init.say(&ToInit::Continue)?;
        made.init.say(&ToInit::Start)?;
    }
    made.interrupt.or_ready(made.init.conversation())?;
    made.init.wait_until_executed()?;
    Ok((relay, notify))
}

/// A container that is complete but for its start.
struct Made {
    record: Record,
    init: Init,
    /// The terminal's master, when this process relays it.
    terminal: Option<OwnedFd>,
    pid_file: Option<PidFile>,
    /// Init knows already that it is to execute the program.
    is_told: bool,
    interrupt: Interrupt,
}

impl Made {
    /// Leaves the container to itself; its pidfd.
    fn keep(self) -> Rc<OwnedFd> {
        self.pid_file.into_iter().for_each(PidFile::keep);
        self.record.keep();
        self.init.release()
    }

    /// Ends and removes it, as its creation failed with `error`.
    fn undo(self, error: anyhow::Error) -> anyhow::Error {
        drop((self.init, self.pid_file));
        undo(self.record, error)
    }
}

fn make(request: &CreateRequest, start: Start, passed: Passed, sown: Sown) -> Result<Made> {
    let caller = Caller {
        start,
        passed,
        interrupt: Interrupt::prepare("the container was complete")?,
    };
    let mut seed = sown.or_start(caller.passed)?;
    let mut filters = Filters::below(&request.root);
    let config = request.config.as_deref();
    let known = |text: &str| filters.know(text);
    let bundle = Bundle::load_changed(&request.bundle, config, known, "", |config| {
        request.joins.iter().try_for_each(|join| join.apply(config))
    })?;
    let rights = Rights::find();
    seed.adjust_oom_score(limits::oom_score_adj(
        bundle.spec.process().as_ref(),
        rights,
    ));
    for warning in &bundle.warnings {
        error::warn(warning);
    }
    check_terminal(&bundle.spec, request, start)?;
    let mut problems = Problems::default();
    let namespaces = namespaces::Plan::new(&bundle.spec, rights, &mut problems);
    if problems.is_empty() {
        // Takes longest of all, and nothing of it is left when something else is wrong.
        seed.enter(&namespaces)?;
    }
    let (plans, mut ground) =
        Ground::lay(request, (&bundle, filters), namespaces, rights, problems)?;
    let parts = Parts {
        bundle: &bundle,
        plans,
        seed,
        rights,
        cgroup: ground.cgroup.as_mut(),
    };
    match set_up(request, parts, &mut ground.record, &caller) {
        Ok(SetUp {
            init,
            terminal,
            pid_file,
            is_told,
        }) => Ok(Made {
            record: ground.keep_cgroup(),
            init,
            terminal,
            pid_file,
            is_told,
            interrupt: caller.interrupt,
        }),
        Err(error) => Err(ground.take_back(error)),
    }
}
