//! The keeper's loop: waits for what happens, tells the policy, and does what it says.
//!
//! One thread and one epoll(7) over signals, the container's end, the helper's report, both pipes and the
//! control socket. Nothing is looked at in intervals, but for a disk that is full: there is no event for its
//! having room again.

mod actions;
mod container;
mod people;

use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{Timespec, epoll};
use rustix::process::{Pid, WaitStatus, getpid, set_child_subreaper};

use super::clock;
use super::control::Control;
use super::helper::{Helper, Recipe};
use super::logs::Logs;
use super::orders::{Ground, Orders};
use super::policy::{AGAIN, Action, Event, Exit, Found, Moment, Phase, Policy};
use super::status::{Container, Status};
use crate::error;
use crate::sys::signals::{REQUESTS_TO_END, is_ignored};
use crate::sys::{Call, Errno, SysError, SysResult};

/// What epoll tells for each descriptor.
const SIGNALS: u64 = 0;
const CONTAINER: u64 = 1;
const HELPER: u64 = 2;
const PIPES: [u64; 2] = [3, 4];
const LISTENER: u64 = 5;
const PEERS: u64 = 16;

/// Of a pipe it is told when something has come, not for as long as something is in it.
const CHANGES: epoll::EventFlags = epoll::EventFlags::IN.union(epoll::EventFlags::ET);

/// How many events are taken at once.
const EVENTS: usize = 8;

/// How many children that ended are remembered while a helper has not reported which of them is its
/// container's: those of hooks, and that one.
const STRAYS: usize = 64;

/// Keeps an instance, until somebody asks this process to end: the container runs on then.
///
/// # Errors
///
/// When the kernel fails us; the container then goes on alone.
pub fn keep(orders: Orders, ground: Ground) -> Result<i32> {
    let mut keeper = Keeper::prepare(orders, ground)?;
    keeper.begin()?;
    while !keeper.is_done() {
        keeper.turn()?;
    }
    keeper.leave();
    Ok(0)
}

struct Keeper {
    policy: Policy,
    recipe: Recipe,
    /// The stop signal's number.
    signal: i32,
    status: Status,
    ground: Ground,
    epoll: OwnedFd,
    signals: SignalFd,
    logs: Logs,
    control: Control,
    helper: Option<Helper>,
    /// The first process of the container that runs.
    live: Option<Live>,
    /// A container that was found at the beginning.
    found: Option<Container>,
    strays: Vec<(Pid, WaitStatus)>,
    /// Output is not read, as it can not be written.
    is_stuck: bool,
    /// When what has failed is tried again.
    retry_at: Option<Moment>,
    /// How often this process was asked to end.
    asked_to_end: u32,
}

struct Live {
    pid: Pid,
    pidfd: OwnedFd,
}

impl Keeper {
    fn prepare(orders: Orders, ground: Ground) -> Result<Keeper> {
        rustix::process::fchdir(&ground.directory).call(|| "fchdir()".into())?;
        let wanted = REQUESTS_TO_END
            .into_iter()
            .filter(|signal| !is_ignored(*signal as i32));
        let wanted: SigSet = wanted.chain([Signal::SIGCHLD]).collect();
        wanted.thread_block().context("block signals")?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let signals = SignalFd::with_flags(&wanted, flags).context("signalfd")?;
        set_child_subreaper(Some(getpid())).call(|| "prctl(PR_SET_CHILD_SUBREAPER)".into())?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).call(|| "epoll_create1()".into())?;
        let logs = Logs::open(ground.directory.try_clone()?, orders.log)?;
        let control = Control::listen(ground.directory.as_fd(), epoll.try_clone()?)?;
        let mut keeper = Keeper {
            policy: orders.policy,
            recipe: orders.recipe,
            signal: orders.signal,
            status: orders.status,
            ground,
            epoll,
            signals,
            logs,
            control,
            helper: None,
            live: None,
            found: orders.found,
            strays: Vec::new(),
            is_stuck: false,
            retry_at: None,
            asked_to_end: 0,
        };
        keeper.status.keeper = std::process::id();
        watch(&keeper.epoll, &keeper.signals, SIGNALS)?;
        watch(&keeper.epoll, keeper.control.fd(), LISTENER)?;
        keeper.watch_pipes()?;
        Ok(keeper)
    }

    fn watch_pipes(&self) -> SysResult<()> {
        for (pipe, number) in self.logs.pipes().into_iter().zip(PIPES) {
            let data = epoll::EventData::new_u64(number);
            epoll::add(&self.epoll, pipe, data, CHANGES)
                .call(|| format!("epoll_ctl(ADD, {number})"))?;
        }
        Ok(())
    }

    /// Tells the policy what was found.
    fn begin(&mut self) -> Result<()> {
        let pidfd = match &self.found {
            Some(container) => container.process.open()?,
            None => None,
        };
        match (self.found.take(), pidfd) {
            (Some(mut container), Some(pidfd)) => {
                container.adopted = true;
                watch(&self.epoll, &pidfd, CONTAINER)?;
                let pid = container.process.pid;
                self.live = Pid::from_raw(pid).map(|pid| Live { pid, pidfd });
                self.status.container = Some(container);
                if self.status.attempts.is_empty() {
                    self.status.begin_attempt();
                }
                if let Some(attempt) = self.status.attempt() {
                    attempt.pid = Some(pid);
                }
                self.tell(Event::Found(Found::Alive))
            }
            (_, _) => {
                let ran = matches!(
                    self.status.state.phase,
                    Phase::Running { .. } | Phase::Stopping { .. }
                );
                if ran {
                    self.note_end(Exit::Unknown);
                }
                self.tell(Event::Found(Found::Nothing))
            }
        }
    }

    fn is_done(&self) -> bool {
        // A container that is just being made would not survive us.
        self.asked_to_end > 1 || self.asked_to_end == 1 && self.helper.is_none()
    }

    /// Waits for something to happen, and follows it.
    fn turn(&mut self) -> Result<()> {
        let mut events = [const {
            epoll::Event {
                flags: epoll::EventFlags::empty(),
                data: epoll::EventData::new_u64(0),
            }
        }; EVENTS];
        let timeout = self.timeout();
        let count = match epoll::wait(&self.epoll, &mut events[..], timeout.as_ref()) {
            Ok(count) => count,
            Err(Errno::INTR) => 0,
            Err(errno) => return Err(SysError::new("epoll_wait", errno).into()),
        };
        for event in &events[..count] {
            match event.data.u64() {
                SIGNALS => self.hear_signals()?,
                CONTAINER => self.stranger_ended()?,
                HELPER => self.hear_helper()?,
                LISTENER => self.accept()?,
                pipe if PIPES.contains(&pipe) => self.serve_pipe((pipe - PIPES[0]) as usize)?,
                peer => self.hear_peer((peer - PEERS) as usize)?,
            }
        }
        let now = clock::now();
        if self.retry_at.is_some_and(|moment| now >= moment) {
            self.retry()?;
        }
        if self
            .policy
            .wake_at(&self.status.state)
            .is_some_and(|moment| now >= moment)
        {
            self.tell(Event::Time)?;
        }
        Ok(())
    }

    fn timeout(&self) -> Option<Timespec> {
        let moments = [self.policy.wake_at(&self.status.state), self.retry_at];
        let next = moments.into_iter().flatten().min()?;
        let left = next.saturating_sub(clock::now());
        Some(Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        })
    }

    /// Takes a step of the policy, writes down where that leads, and does what it asks for.
    fn tell(&mut self, event: Event) -> Result<()> {
        let (state, actions) = self.policy.step(&self.status.state, event, clock::now());
        if state == self.status.state && actions.is_empty() {
            return Ok(());
        }
        let status = &mut self.status;
        status.state = state;
        status.flapping = status.state.is_flapping();
        status.next_attempt = match status.state.phase {
            Phase::Waiting { until, .. } => Some(clock::in_words(until)),
            Phase::Resting { .. }
            | Phase::Starting { .. }
            | Phase::Running { .. }
            | Phase::Stopping { .. }
            | Phase::Removing { .. } => None,
        };
        if let Phase::Stopping { why, .. } = status.state.phase
            && let Some(attempt) = status.attempt()
        {
            attempt.told = Some(why);
        }
        if actions.contains(&Action::Create) {
            status.begin_attempt();
        }
        self.publish();
        actions.into_iter().try_for_each(|action| self.act(action))
    }

    /// Writes the status and tells who watches. A file that can not be written is tried again.
    fn publish(&mut self) {
        self.status.log = self.logs.counts();
        let written = self.status.write(self.ground.directory.as_fd());
        let fault = written.err().map(|error| error.to_string());
        if fault.is_some() {
            self.retry_soon();
            if self.status.faults.status.is_none() {
                error::warn(&format!("{}: its status is not on disk", self.recipe.id));
            }
        }
        self.status.faults.status = fault;
        if self.control.is_watched() {
            self.control.publish(&self.status.text());
        }
    }

    fn retry_soon(&mut self) {
        self.retry_at.get_or_insert(clock::now() + AGAIN);
    }

    fn retry(&mut self) -> Result<()> {
        self.retry_at = None;
        if self.is_stuck {
            match self.logs.retry() {
                Ok(()) => {
                    self.is_stuck = false;
                    self.watch_pipes()?;
                    self.status.faults.log = None;
                }
                Err(_still) => self.retry_soon(),
            }
        }
        self.publish();
        Ok(())
    }
}

fn watch(epoll: &OwnedFd, fd: impl AsFd, number: u64) -> SysResult<()> {
    let data = epoll::EventData::new_u64(number);
    epoll::add(epoll, fd, data, epoll::EventFlags::IN).call(|| format!("epoll_ctl(ADD, {number})"))
}
