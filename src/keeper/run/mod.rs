//! The keeper's loop: waits for what happens, tells the policy, and does what it says.
//!
//! One thread and one epoll(7) over signals, each container's end, the helper's report, the pipes and the
//! control socket. Nothing is looked at in intervals, but for a disk that is full: there is no event for its
//! having room again.

mod actions;
mod container;
mod people;
mod visits;

use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{Timespec, epoll};
use rustix::process::{Pid, WaitStatus, getpid, set_child_subreaper};

use super::clock;
use super::control::{CONNECTIONS, Control};
use super::helper::{Helper, Recipe};
use super::logs::{self, Logs};
use super::orders::{Ground, Orders};
use super::policy::{AGAIN, Action, Event, Found, Moment, Phase, Policy};
use super::status::{self, Container, Faults, Status};
use crate::error;
use crate::sys::signals::{REQUESTS_TO_END, is_ignored};
use crate::sys::{Call, Errno, SysError, SysResult};
use visits::Visit;

/// What epoll tells for each descriptor; for one of a task, with the task's number from this bit on.
const SIGNALS: u64 = 0;
const CONTAINER: u64 = 1;
const HELPER: u64 = 2;
const PIPES: [u64; 2] = [3, 4];
const LISTENER: u64 = 5;
const PEERS: u64 = 16;
const VISITS: u64 = 32;
const TASK: u32 = 8;

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
    let (mut keeper, found) = Keeper::prepare(orders, ground)?;
    keeper.begin(found)?;
    while !keeper.is_done() {
        keeper.turn()?;
    }
    keeper.leave();
    Ok(0)
}

struct Keeper {
    policy: Policy,
    recipe: Recipe,
    /// Its containers, in the order of the status' tasks.
    members: Vec<Member>,
    status: Status,
    ground: Ground,
    epoll: OwnedFd,
    signals: SignalFd,
    control: Control,
    helper: Option<Helper>,
    strays: Vec<(Pid, WaitStatus)>,
    /// Commands that people have asked for.
    visits: Vec<Visit>,
    /// When what has failed is tried again.
    retry_at: Option<Moment>,
    /// How often this process was asked to end.
    asked_to_end: u32,
}

/// A container, whether its program runs or not.
struct Member {
    /// The stop signal's number.
    signal: i32,
    logs: Logs,
    /// The first process, while it runs.
    live: Option<Live>,
    /// Output is not read, as it can not be written.
    is_stuck: bool,
}

struct Live {
    pid: Pid,
    pidfd: OwnedFd,
}

impl Keeper {
    fn prepare(orders: Orders, ground: Ground) -> Result<(Keeper, Vec<Option<Container>>)> {
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
        let directory = ground.directory.as_fd();
        let mut members = Vec::with_capacity(orders.tasks.len());
        let mut found = Vec::with_capacity(orders.tasks.len());
        for (task, part) in orders.tasks.into_iter().zip(&orders.recipe.parts) {
            let place = logs::open_place(directory, part.name.as_deref())?;
            members.push(Member {
                signal: task.signal,
                logs: Logs::open(place, task.log)?,
                live: None,
                is_stuck: false,
            });
            found.push(task.found);
        }
        let control = Control::listen(directory, epoll.try_clone()?)?;
        let status = Status {
            tasks: orders.recipe.parts.iter().map(status::Task::of).collect(),
            root: orders.recipe.root.clone(),
            boot: orders.boot,
            keeper: std::process::id(),
            state: orders.state,
            flapping: false,
            next_attempt: None,
            attempts: orders.attempts,
            faults: Faults::default(),
        };
        let keeper = Keeper {
            policy: orders.policy,
            recipe: orders.recipe,
            members,
            status,
            ground,
            epoll,
            signals,
            control,
            helper: None,
            strays: Vec::new(),
            visits: Vec::new(),
            retry_at: None,
            asked_to_end: 0,
        };
        watch(&keeper.epoll, &keeper.signals, SIGNALS)?;
        watch(&keeper.epoll, keeper.control.fd(), LISTENER)?;
        (0..keeper.members.len()).try_for_each(|task| keeper.watch_pipes(task))?;
        Ok((keeper, found))
    }

    fn watch_pipes(&self, task: usize) -> SysResult<()> {
        let pipes = self.members[task].logs.pipes();
        for (pipe, number) in pipes.into_iter().zip(PIPES) {
            let data = epoll::EventData::new_u64(of_task(number, task));
            epoll::add(&self.epoll, pipe, data, CHANGES)
                .call(|| format!("epoll_ctl(ADD, {number})"))?;
        }
        Ok(())
    }

    /// Tells the policy what was found.
    fn begin(&mut self, found: Vec<Option<Container>>) -> Result<()> {
        for (task, container) in found.into_iter().enumerate() {
            if let Some(container) = container {
                self.adopt(task, container)?;
            }
        }
        let runs = |task: usize| self.members[task].live.is_some();
        let all = 0..self.members.len();
        if !all.clone().any(runs) {
            let ran = matches!(
                self.status.state.phase,
                Phase::Running { .. } | Phase::Stopping { .. }
            );
            if ran {
                all.for_each(|task| self.note_lost(task));
            }
            return self.tell(Event::Found(Found::Nothing));
        }
        let lost: Vec<usize> = all
            .filter(|task| !runs(*task) && !self.has_completed(*task))
            .collect();
        lost.iter().for_each(|task| self.note_lost(*task));
        self.tell(Event::Found(match lost.is_empty() {
            true => Found::Alive,
            false => Found::Part,
        }))
    }

    /// Goes on with a container of an earlier keeper, if its program still runs.
    fn adopt(&mut self, task: usize, mut container: Container) -> Result<()> {
        let Some(pidfd) = container.process.open()? else {
            return Ok(());
        };
        container.adopted = true;
        watch(&self.epoll, &pidfd, of_task(CONTAINER, task))?;
        let pid = container.process.pid;
        self.members[task].live = Pid::from_raw(pid).map(|pid| Live { pid, pidfd });
        self.status.tasks[task].container = Some(container);
        if self.status.attempts.is_empty() {
            self.status.begin_attempt();
        }
        if let Some(program) = self.status.program(task) {
            program.pid = Some(pid);
            // It may be of an attempt before, where the disk has not taken what came later.
            program.exit = None;
        }
        Ok(())
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
                HELPER => self.hear_helper()?,
                LISTENER => self.accept()?,
                peer if (PEERS..PEERS + CONNECTIONS as u64).contains(&peer) => {
                    self.hear_peer((peer - PEERS) as usize)?;
                }
                visit if (VISITS..VISITS + CONNECTIONS as u64).contains(&visit) => {
                    self.hear_visit((visit - VISITS) as usize)?;
                }
                of_task => {
                    let (task, what) = ((of_task >> TASK) as usize, of_task % (1 << TASK));
                    match what.checked_sub(PIPES[0]) {
                        Some(pipe) => self.serve_pipe(task, pipe as usize)?,
                        None => self.stranger_ended(task)?,
                    }
                }
            }
        }
        let now = clock::now();
        if self.retry_at.is_some_and(|moment| now >= moment) {
            self.retry()?;
        }
        self.end_visits(now);
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
        let policy = self.policy.wake_at(&self.status.state);
        let moments = [policy, self.retry_at, self.visit_due()];
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
        self.count_output();
        let written = self.status.write(self.ground.directory.as_fd());
        let fault = written.err().map(|error| error.to_string());
        if fault.is_some() {
            self.retry_soon();
            if self.status.faults.status.is_none() {
                error::warn(&format!(
                    "{}: its status is not on disk",
                    self.recipe.title()
                ));
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
        for task in 0..self.members.len() {
            let member = &mut self.members[task];
            if !member.is_stuck {
                continue;
            }
            match member.logs.retry() {
                Ok(()) => {
                    member.is_stuck = false;
                    self.watch_pipes(task)?;
                    if !self.members.iter().any(|member| member.is_stuck) {
                        self.status.faults.log = None;
                    }
                }
                Err(_still) => self.retry_soon(),
            }
        }
        self.publish();
        Ok(())
    }

    fn count_output(&mut self) {
        for (task, member) in self.status.tasks.iter_mut().zip(&self.members) {
            task.log = member.logs.counts();
        }
    }
}

/// What epoll tells for a descriptor of a task.
fn of_task(what: u64, task: usize) -> u64 {
    what | (task as u64) << TASK
}

fn watch(epoll: &OwnedFd, fd: impl AsFd, number: u64) -> SysResult<()> {
    let data = epoll::EventData::new_u64(number);
    epoll::add(epoll, fd, data, epoll::EventFlags::IN).call(|| format!("epoll_ctl(ADD, {number})"))
}
