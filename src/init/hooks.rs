//! Runs the hooks that belong inside the container: createContainer and startContainer.
//!
//! State and output go through memory files, so that a hook which reads or writes nothing, or
//! much, blocks nobody.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString};

use anyhow::{Context as _, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{MemfdFlags, SeekFrom};
use rustix::process::{Signal, WaitIdOptions, WaitIdStatus};

use super::plan::{self, Hook};
use crate::sys::fd::{Inherited, InheritedFd};
use crate::sys::process::{self, CloneRequest, Cloned};
use crate::sys::{Call, SysError, SysResult};

/// How much of a failed hook's output is told.
const OUTPUT_TOLD: u64 = 2048;

/// Files for the output and the errors of hooks; None: kept for the error of a hook that fails.
pub(super) struct Outputs([Option<OwnedFd>; 2]);

impl Outputs {
    /// Takes them from the plan, once.
    ///
    /// # Errors
    ///
    /// They were not sent.
    pub(super) fn claim(hooks: &plan::Hooks, inherited: &mut Inherited) -> SysResult<Outputs> {
        let [stdout, stderr] = hooks.outputs;
        let mut claim = |file: Option<InheritedFd>| file.map(|fd| inherited.claim(fd)).transpose();
        Ok(Outputs([claim(stdout)?, claim(stderr)?]))
    }
}

/// Runs `hooks` in order; the first that fails ends it. `state` is cut where this process' id, as
/// the container sees it, belongs (runtime-spec, "State").
pub(super) fn run(hooks: &[Hook], state: &[String; 2], outputs: &Outputs) -> Result<()> {
    if hooks.is_empty() {
        return Ok(());
    }
    let pid = rustix::process::getpid().as_raw_nonzero();
    let state = format!("{}{pid}{}", state[0], state[1]);
    for hook in hooks {
        run_one(hook, &state, outputs)
            .with_context(|| format!("{} ({})", hook.json_path, hook.path))?;
    }
    Ok(())
}

fn run_one(hook: &Hook, state: &str, outputs: &Outputs) -> Result<()> {
    let input = memory_file("hook-state")?;
    rustix::io::write(&input, state.as_bytes()).call(|| "write(state)".to_string())?;
    rustix::fs::seek(&input, SeekFrom::Start(0)).call(|| "lseek(state)".to_string())?;
    let output = memory_file("hook-output")?;
    match process::clone(CloneRequest::default())? {
        Cloned::Child => execute(hook, &input, &output, outputs),
        Cloned::Parent { pid, pidfd } => {
            let in_time = wait(&pidfd, hook.timeout_ms)?;
            if !in_time {
                // With what it has started. It may have left its group, so also by itself; and it
                // may end by itself at this moment: then there is nothing to kill.
                let _no_group = rustix::process::kill_process_group(pid, Signal::KILL);
                let _ended = rustix::process::pidfd_send_signal(&pidfd, Signal::KILL);
            }
            let options = WaitIdOptions::EXITED;
            let status =
                rustix::process::waitid(rustix::process::WaitId::PidFd(pidfd.as_fd()), options)
                    .call(|| "waitid(hook)".to_string())?;
            if !in_time {
                bail!(
                    "not finished after {} s, killed{}",
                    hook.timeout_ms.unwrap_or(0) / 1000,
                    shown(&output)
                );
            }
            judge(status, &output)
        }
    }
}

fn memory_file(name: &str) -> Result<OwnedFd, SysError> {
    rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC).call(|| format!("memfd_create(\"{name}\")"))
}

/// In the child: streams, a process group of its own, then the hook. Its exit status is 127 when it can not be executed, with
/// the reason in its output, as from a shell.
fn execute(hook: &Hook, input: &OwnedFd, output: &OwnedFd, outputs: &Outputs) -> ! {
    let failed = || -> Result<(), SysError> {
        process::duplicate_onto(input.as_fd(), 0)?;
        for (file, number) in outputs.0.iter().zip(1..) {
            process::duplicate_onto(file.as_ref().unwrap_or(output).as_fd(), number)?;
        }
        process::close_on_exec_from(3)?;
        rustix::process::setpgid(None, None).call(|| "setpgid(0, 0)".to_string())?;
        let args = if hook.args.is_empty() {
            &[hook.path.to_owned()]
        } else {
            &hook.args[..]
        };
        let (args, env) = (process::c_strings(args)?, process::c_strings(&hook.env)?);
        Err(process::execute(
            &process::c_string(&hook.path)?,
            &args,
            &env,
        ))
    };
    if let Err(error) = failed() {
        // Nobody reads it when this fails, and the status says enough.
        let _ = rustix::io::write(output, error.to_string().as_bytes());
    }
    process::exit(127)
}

/// Waits for the process to end; false when `timeout_ms` passed first.
fn wait(pidfd: &OwnedFd, timeout_ms: Option<u64>) -> Result<bool, SysError> {
    let timeout = timeout_ms.map(|ms| Timespec {
        tv_sec: (ms / 1000) as i64,
        tv_nsec: ((ms % 1000) * 1_000_000) as i64,
    });
    let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
    rustix::io::retry_on_intr(|| poll(&mut fds, timeout.as_ref()))
        .call(|| "poll(hook)".to_string())
        .map(|ready| ready > 0)
}

fn judge(status: Option<WaitIdStatus>, output: &OwnedFd) -> Result<()> {
    let how = match status
        .as_ref()
        .map(|s| (s.exit_status(), s.terminating_signal()))
    {
        Some((Some(0), _)) => return Ok(()),
        Some((Some(code), _)) => format!("exit status {code}"),
        Some((None, Some(signal))) => format!("killed by signal {signal}"),
        Some((None, None)) | None => "ended for a reason unknown".to_string(),
    };
    bail!("{how}{}", shown(output))
}

/// The end of what the hook wrote, as the end of an error.
fn shown(output: &OwnedFd) -> String {
    match tail(output) {
        text if text.is_empty() => text,
        text => format!(": {text}"),
    }
}

/// The end of what the hook wrote, on one line.
fn tail(output: &OwnedFd) -> String {
    let length = rustix::fs::fstat(output).map_or(0, |stat| stat.st_size as u64);
    let mut buffer = [0; OUTPUT_TOLD as usize];
    let read = rustix::io::pread(output, &mut buffer, length.saturating_sub(OUTPUT_TOLD));
    let text = String::from_utf8_lossy(&buffer[..read.unwrap_or(0)]);
    text.trim().replace('\n', "; ")
}
