//! Follows a command of the program from the clone of its seed to some calls of the container's program: what each process
//! calls, and what it is at each call.
//!
//! One thread traces, as in tests/runtime/faults, whose tracer starts the command.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitStatus, Stdio};

use nix::libc;
use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::WaitStatus;
use nix::unistd::Pid;

use super::calls::Call;
use super::state::State;
use crate::tracer::{Limit, begins, next, resume, start, unasked};

/// How many calls of the container's program are looked at.
const CALLS_OF_THE_PROGRAM: usize = 8;

/// Whose process it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// The command itself, and what it starts on the host.
    Runtime,
    /// The seed, init, what joins a container, and what they clone, before they execute something else.
    Init,
    /// The container's program.
    Program,
    /// A hook.
    Hook,
}

/// What a process does when it is stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A system call begins.
    Calls(Call),
    /// It has executed a program.
    Executed,
}

/// A process, stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stop {
    pub pid: i32,
    pub who: Who,
    pub what: What,
    pub state: State,
}

impl Stop {
    /// The call, if it is one.
    pub fn call(&self) -> Option<&Call> {
        match &self.what {
            What::Calls(call) => Some(call),
            What::Executed => None,
        }
    }

    /// Its number.
    pub fn number(&self) -> Option<i64> {
        self.call().map(|call| call.number)
    }
}

/// Everything that was seen, in order.
#[derive(Debug)]
pub struct Trace {
    pub stops: Vec<Stop>,
    /// How the command ended.
    pub status: ExitStatus,
}

impl Trace {
    /// One of a command that ended well, for tests of what looks at it.
    pub fn made_up(stops: Vec<Stop>) -> Trace {
        let status = ExitStatus::from_raw(0);
        Trace { stops, status }
    }

    /// The stops of one kind of process.
    pub fn of(&self, who: Who) -> impl Iterator<Item = &Stop> {
        self.stops.iter().filter(move |stop| stop.who == who)
    }

    /// The container's program, when it has just been executed.
    pub fn program(&self) -> &Stop {
        let executed = self.of(Who::Program).find(|s| s.what == What::Executed);
        executed.expect("the program was not executed")
    }

    /// The hooks, likewise, in order.
    pub fn hooks(&self) -> Vec<&Stop> {
        let executed = |stop: &&Stop| stop.what == What::Executed;
        self.of(Who::Hook).filter(executed).collect()
    }
}

/// Follows `command`. When that has ended and init still waits, `afterwards` has it go on.
pub fn follow(command: &Command, output: &File, afterwards: Option<&mut Command>) -> Trace {
    let runtime = start(command, output);
    let limit = Limit::of(runtime);
    let of_runtime = Known {
        who: Who::Runtime,
        runs_a_hook: false,
        has_own_memory: false,
        calls: 0,
    };
    let mut tracer = Tracer {
        runtime,
        known: BTreeMap::from([(runtime, of_runtime)]),
        early: Vec::new(),
        has_seed: false,
        stops: Vec::new(),
        status: None,
        afterwards,
        helper: None,
    };
    tracer.follow();
    drop(limit);
    Trace {
        stops: tracer.stops,
        status: tracer.status.unwrap(),
    }
}

struct Tracer<'a> {
    runtime: Pid,
    known: BTreeMap<Pid, Known>,
    /// Stopped before their parent has told of them.
    early: Vec<Pid>,
    has_seed: bool,
    stops: Vec<Stop>,
    status: Option<ExitStatus>,
    afterwards: Option<&'a mut Command>,
    /// Who does that.
    helper: Option<Pid>,
}

/// What is known of a process.
#[derive(Debug, Clone, Copy)]
struct Known {
    who: Who,
    /// What it executes next is a hook, not the container's program.
    runs_a_hook: bool,
    /// Its memory is its own: the seed's is the runtime's until its execve.
    has_own_memory: bool,
    calls: usize,
}

impl Tracer<'_> {
    fn follow(&mut self) {
        while self.status.is_none() || !self.known.is_empty() {
            match next() {
                WaitStatus::PtraceSyscall(pid) if begins(pid) => self.calls(pid),
                WaitStatus::PtraceSyscall(pid) => self.go_on(pid, None),
                WaitStatus::PtraceEvent(pid, _, libc::PTRACE_EVENT_EXEC) => self.executed(pid),
                WaitStatus::PtraceEvent(pid, _, libc::PTRACE_EVENT_STOP) => self.begun(pid),
                WaitStatus::PtraceEvent(pid, _, _) => self.cloned(pid),
                WaitStatus::Stopped(pid, signal) => self.go_on(pid, Some(signal)),
                WaitStatus::Exited(pid, code) => self.ended(pid, code << 8),
                WaitStatus::Signaled(pid, signal, _) => self.ended(pid, signal as i32),
                event @ (WaitStatus::Continued(_) | WaitStatus::StillAlive) => unasked(event),
            }
        }
    }

    /// To the next stop that matters for the process.
    fn go_on(&self, pid: Pid, signal: Option<Signal>) {
        match self.known.get(&pid).map(|known| known.who) {
            Some(Who::Init | Who::Program) => resume(ptrace::syscall(pid, signal)),
            Some(Who::Runtime | Who::Hook) | None => resume(ptrace::cont(pid, signal)),
        }
    }

    fn let_go(&mut self, pid: Pid) {
        resume(ptrace::detach(pid, None));
        self.known.remove(&pid);
    }

    /// A process whose parent has told of it takes its first step.
    fn begun(&mut self, pid: Pid) {
        if self.known.contains_key(&pid) {
            self.go_on(pid, None);
        } else {
            self.early.push(pid);
        }
    }

    /// A parent tells of a new process. The runtime's first is the seed.
    fn cloned(&mut self, parent: Pid) {
        if let Ok(child) = ptrace::getevent(parent) {
            let child = Pid::from_raw(child.try_into().unwrap());
            let of_runtime = parent == self.runtime;
            let is_seed = of_runtime && !std::mem::replace(&mut self.has_seed, true);
            let mut known = self.known[&parent];
            known.who = if is_seed { Who::Init } else { known.who };
            // Seeds and inits are their parents' siblings.
            known.runs_a_hook = !is_seed && is_child_of(child, parent);
            known.calls = 0;
            self.known.insert(child, known);
            if let Some(at) = self.early.iter().position(|early| *early == child) {
                self.early.remove(at);
                self.go_on(child, None);
            }
        }
        self.go_on(parent, None);
    }

    fn calls(&mut self, pid: Pid) {
        let Some(known) = self.known.get_mut(&pid) else {
            return self.go_on(pid, None);
        };
        known.calls += 1;
        let known = *known;
        if known.has_own_memory
            && let Some(call) = Call::of(pid.as_raw())
        {
            self.note(pid, What::Calls(call));
        }
        if known.who == Who::Program && known.calls == CALLS_OF_THE_PROGRAM {
            return self.let_go(pid);
        }
        self.go_on(pid, None);
    }

    fn executed(&mut self, pid: Pid) {
        if pid == self.runtime {
            return self.go_on(pid, None);
        }
        let arguments = std::fs::read(format!("/proc/{}/cmdline", pid.as_raw()));
        let is_ours = arguments.is_ok_and(|text| text.starts_with(b"parhelion-init\0"));
        let known = self.known.get_mut(&pid).unwrap();
        known.has_own_memory = true;
        known.calls = 0;
        known.who = match known.who {
            _ if known.runs_a_hook => Who::Hook,
            Who::Init if is_ours => Who::Init,
            Who::Init | Who::Program => Who::Program,
            Who::Runtime | Who::Hook => Who::Hook,
        };
        let who = known.who;
        self.note(pid, What::Executed);
        match who {
            Who::Hook => self.let_go(pid),
            Who::Init | Who::Program | Who::Runtime => self.go_on(pid, None),
        }
    }

    fn note(&mut self, pid: Pid, what: What) {
        let who = self.known[&pid].who;
        let pid = pid.as_raw();
        match State::of(pid) {
            Some(state) => self.stops.push(Stop {
                pid,
                who,
                what,
                state,
            }),
            // The seed is killed when it is not needed any more.
            None => assert!(is_gone(pid), "{pid} is not to be read at {what:?}"),
        }
    }

    #[allow(clippy::zombie_processes, reason = "the loop above waits for it")]
    fn ended(&mut self, pid: Pid, status: i32) {
        self.known.remove(&pid);
        if pid == self.runtime {
            self.status = Some(ExitStatus::from_raw(status));
            if let Some(command) = self.afterwards.take() {
                let child = command.stdin(Stdio::null()).spawn().unwrap();
                self.helper = Some(Pid::from_raw(child.id().try_into().unwrap()));
            }
        } else if Some(pid) == self.helper {
            assert_eq!(status, 0, "what was to be done afterwards failed");
        }
    }
}

fn is_child_of(child: Pid, parent: Pid) -> bool {
    let text = std::fs::read_to_string(format!("/proc/{}/status", child.as_raw()));
    let line = format!("PPid:\t{}\n", parent.as_raw());
    text.is_ok_and(|text| text.contains(&line))
}

fn is_gone(pid: i32) -> bool {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"));
    text.map_or(true, |text| {
        text.contains("State:\tZ") || text.contains("State:\tX")
    })
}
