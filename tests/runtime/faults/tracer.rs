//! Runs the program under ptrace and kills it, or its init, at a chosen system call.
//!
//! One thread traces: ptrace and `__WNOTHREAD` are of the calling thread, so that tests in parallel
//! do not take each other's children. Whoever is not killed is let go and runs on by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use rustix::process::{PidfdFlags, pidfd_open, pidfd_send_signal};

/// A command that has not ended by then hangs: it is killed, and its status tells. A traced one takes long where others want the
/// processors.
const LIMIT: Duration = Duration::from_secs(300);

/// A process of a container that is being made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// The command itself.
    Runtime,
    /// The seed and what that clones into the container, up to the program's execve.
    Init,
    /// A process that is there already and not traced, as the init of a container that is joined.
    Other(i32),
}

/// Kill `victim` before the system call `number` (from 0) of `whose` is done.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    pub whose: Whose,
    pub number: usize,
    pub victim: Whose,
}

/// How a traced command ended.
#[derive(Debug)]
pub struct Ended {
    /// False when it got through before the step.
    pub killed: bool,
    pub status: ExitStatus,
    /// Who was cloned meanwhile.
    pub others: Vec<OwnedFd>,
}

/// Runs `program` up to `step`.
pub fn run(program: &Command, output: &File, step: Step) -> Ended {
    let runtime = start(program, output);
    let limit = Limit::of(runtime);
    let mut tracer = Tracer {
        runtime,
        step,
        passed: 0,
        status: None,
        runtime_traced: true,
        followed: BTreeMap::new(),
        met: BTreeSet::new(),
        others: Vec::new(),
    };
    let killed = tracer.follow();
    let status = tracer.release();
    drop(limit);
    let others = tracer.others;
    Ended {
        killed,
        status,
        others,
    }
}

/// Starts `program`, traced by this thread, with its new processes and their programs.
#[allow(clippy::zombie_processes, reason = "the tracer waits for it")]
pub fn start(program: &Command, output: &File) -> Pid {
    let variables = program.get_envs();
    // It waits until it is traced, and is executed by the very process that waited.
    let mut child = Command::new("/bin/sh")
        .args(["-c", "read go && exec \"$@\"", "sh"])
        .arg(program.get_program())
        .args(program.get_args())
        .envs(variables.filter_map(|(name, value)| Some((name, value?))))
        .stdin(Stdio::piped())
        .stdout(output.try_clone().unwrap())
        .stderr(output.try_clone().unwrap())
        .spawn()
        .unwrap();
    let traced = Pid::from_raw(child.id().try_into().unwrap());
    let events = Options::PTRACE_O_TRACEEXEC
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK;
    let all = events | Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_EXITKILL;
    ptrace::seize(traced, all).unwrap();
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    traced
}

/// Kills a process that takes longer than [`LIMIT`]; dropped when it has ended.
pub struct Limit(#[allow(dead_code, reason = "its end is what is heard")] mpsc::Sender<()>);

impl Limit {
    pub fn of(pid: Pid) -> Limit {
        let pidfd = open(pid).unwrap();
        let (done, over) = mpsc::channel::<()>();
        std::thread::spawn(move || {
            if over.recv_timeout(LIMIT) == Err(mpsc::RecvTimeoutError::Timeout) {
                // Ended at this very moment, then.
                let _ = pidfd_send_signal(&pidfd, rustix::process::Signal::KILL);
            }
        });
        Limit(done)
    }
}

struct Tracer {
    runtime: Pid,
    step: Step,
    /// How many system calls of `step.whose` have begun.
    passed: usize,
    /// The runtime's, once it has ended.
    status: Option<ExitStatus>,
    /// It was not let go yet.
    runtime_traced: bool,
    /// The traced processes besides the runtime.
    followed: BTreeMap<Pid, Now>,
    /// Everyone who was ever traced, as a stop of a child may come before its parent tells of it.
    met: BTreeSet<Pid>,
    others: Vec<OwnedFd>,
}

/// What a traced process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Now {
    Runs,
    IsStopped,
    /// Its parent hears of its end only after its tracer has.
    IsKilled,
}

impl Tracer {
    /// Follows until the step, and kills; false when the command ended before.
    fn follow(&mut self) -> bool {
        while self.status.is_none() {
            let event = next();
            if let Some(pid) = event.pid() {
                self.meet(pid);
            }
            match event {
                WaitStatus::PtraceSyscall(pid) => {
                    if begins(pid) && self.is_the_step(pid) {
                        self.kill(pid);
                        return true;
                    }
                    resume(ptrace::syscall(pid, None));
                }
                WaitStatus::PtraceEvent(pid, _, libc::PTRACE_EVENT_EXEC) => self.executed(pid),
                WaitStatus::PtraceEvent(pid, _, libc::PTRACE_EVENT_STOP) => self.begun(pid),
                WaitStatus::PtraceEvent(pid, _, _) => {
                    self.cloned(pid);
                    self.go_on(pid, None);
                }
                WaitStatus::Stopped(pid, signal) => self.go_on(pid, Some(signal)),
                WaitStatus::Exited(pid, code) => self.ended(pid, code << 8),
                WaitStatus::Signaled(pid, signal, _) => self.ended(pid, signal as i32),
                WaitStatus::Continued(_) | WaitStatus::StillAlive => unasked(event),
            }
        }
        false
    }

    /// Notes a process that is seen for the first time.
    fn meet(&mut self, pid: Pid) {
        if pid != self.runtime && self.met.insert(pid) {
            self.followed.insert(pid, Now::Runs);
            self.others.extend(open(pid));
        }
    }

    /// Notes a new process when its parent tells: its own first stop may come only later.
    fn cloned(&mut self, parent: Pid) {
        if let Ok(child) = ptrace::getevent(parent) {
            self.meet(Pid::from_raw(child.try_into().unwrap()));
        }
    }

    /// A new process takes its first step. The first of all is the seed; later ones outside the
    /// container's cgroup are hooks and of no interest.
    fn begun(&mut self, pid: Pid) {
        let cgroup = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        let is_seed = self.met.len() == 1 && self.met.contains(&pid);
        if pid == self.runtime || is_seed || cgroup.contains("/parhelion/") {
            self.go_on(pid, None);
        } else {
            self.let_go(pid, None);
        }
    }

    fn is_the_step(&mut self, pid: Pid) -> bool {
        if (pid == self.runtime) != (self.step.whose == Whose::Runtime) {
            return false;
        }
        self.passed += 1;
        self.passed > self.step.number
    }

    /// Kills the victim, while `at` is stopped.
    fn kill(&mut self, at: Pid) {
        let (victim, now) = match self.step.victim {
            Whose::Runtime => (self.runtime, Now::IsStopped),
            Whose::Init => (at, Now::IsKilled),
            Whose::Other(pid) => (Pid::from_raw(pid), Now::IsStopped),
        };
        self.followed.entry(at).and_modify(|old| *old = now);
        kill(victim, Signal::SIGKILL).unwrap();
        if at == self.runtime && victim != at {
            resume(ptrace::detach(at, None));
            self.runtime_traced = false;
        }
    }

    /// From one stop to the next that matters for the process.
    fn go_on(&mut self, pid: Pid, signal: Option<Signal>) {
        if (pid == self.runtime) == (self.step.whose == Whose::Runtime) {
            resume(ptrace::syscall(pid, signal));
        } else if pid == self.runtime {
            resume(ptrace::cont(pid, signal));
        } else {
            self.let_go(pid, signal);
        }
    }

    /// A hook or the container's program runs on untraced.
    fn executed(&mut self, pid: Pid) {
        let exe = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
        if pid == self.runtime || exe.to_string_lossy().contains("parhelion-init") {
            self.go_on(pid, None);
        } else {
            self.let_go(pid, None);
        }
    }

    /// Whoever is being killed at that moment stays traced, and its parent hears of its end only
    /// after its tracer has.
    fn let_go(&mut self, pid: Pid, signal: Option<Signal>) {
        let detached = ptrace::detach(pid, signal);
        resume(detached);
        match detached {
            Ok(()) => self.followed.remove(&pid),
            Err(_killed) => self.followed.insert(pid, Now::IsKilled),
        };
    }

    fn ended(&mut self, pid: Pid, status: i32) {
        if pid == self.runtime {
            self.status = Some(ExitStatus::from_raw(status));
        } else {
            self.followed.remove(&pid);
        }
    }

    /// Lets everybody go, and waits for the runtime.
    fn release(&mut self) -> ExitStatus {
        self.runtime_traced &= self.status.is_none();
        for (pid, now) in self.followed.clone() {
            match now {
                Now::Runs => resume(ptrace::interrupt(pid)),
                Now::IsStopped => self.let_go(pid, None),
                Now::IsKilled => {}
            }
        }
        if self.runtime_traced {
            resume(ptrace::interrupt(self.runtime));
        }
        loop {
            if let (Some(status), true) = (self.status, self.followed.is_empty()) {
                return status;
            }
            let event = next();
            if let Some(pid) = event.pid() {
                self.meet(pid);
            }
            let (pid, signal) = match event {
                WaitStatus::Stopped(pid, signal) => (pid, Some(signal)),
                WaitStatus::PtraceSyscall(pid)
                | WaitStatus::PtraceEvent(pid, _, libc::PTRACE_EVENT_STOP)
                | WaitStatus::PtraceEvent(pid, _, libc::PTRACE_EVENT_EXEC) => (pid, None),
                WaitStatus::PtraceEvent(pid, _, _) => {
                    self.cloned(pid);
                    (pid, None)
                }
                WaitStatus::Exited(pid, code) => {
                    self.ended(pid, code << 8);
                    continue;
                }
                WaitStatus::Signaled(pid, signal, _) => {
                    self.ended(pid, signal as i32);
                    continue;
                }
                WaitStatus::Continued(_) | WaitStatus::StillAlive => unasked(event),
            };
            if pid == self.runtime && self.runtime_traced {
                resume(ptrace::detach(pid, signal));
                self.runtime_traced = false;
            } else {
                self.let_go(pid, signal);
            }
        }
    }
}

/// The next thing that happens to a process that this thread traces.
pub fn next() -> WaitStatus {
    let flags = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
    waitpid(None, Some(flags)).unwrap()
}

pub fn unasked(event: WaitStatus) -> ! {
    panic!("waitpid answered {event:?}, which it was not asked for")
}

/// True at the beginning of a system call, false at its end.
pub fn begins(pid: Pid) -> bool {
    // A process that is being killed has no answer.
    ptrace::syscall_info(pid).is_ok_and(|info| info.op == libc::PTRACE_SYSCALL_INFO_ENTRY)
}

/// A process that was killed while it was stopped can not be resumed; its end is told next.
pub fn resume(answer: nix::Result<()>) {
    assert!(
        matches!(answer, Ok(()) | Err(nix::Error::ESRCH)),
        "ptrace: {answer:?}"
    );
}

fn open(pid: Pid) -> Option<OwnedFd> {
    let pid = rustix::process::Pid::from_raw(pid.as_raw()).unwrap();
    pidfd_open(pid, PidfdFlags::empty()).ok()
}
