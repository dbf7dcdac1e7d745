//! Hooks that run in the runtime's namespaces: prestart, createRuntime, poststart, poststop.
//!
//! A hook gets exactly the environment and arguments that the configuration names, the container's
//! state as JSON on stdin, and the bundle as working directory. What it prints is kept for the
//! error. Who calls decides what a failure means; hooks inside the container are `init`'s.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{PipeReader, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use oci_spec::runtime::{Hook, Hooks};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use serde::Serialize;

use super::Status;
use super::facts::Facts;
use super::interrupt::Stop;
use super::record::Snapshot;
use crate::bundle::Bundle;
use crate::sys::weakened::{Mitigation, is_off};
use crate::sys::{Call, Errno, SysError};

/// How much of a hook's output an error can show: its end, where the reason mostly stands.
const OUTPUT_KEPT: usize = 1024;

/// crun's annotations that name files for what hooks print, which is not told by their errors then.
const OUTPUTS: [&str; 2] = ["run.oci.hooks.stdout", "run.oci.hooks.stderr"];

/// The files for the output and the errors of hooks, where an annotation names them.
///
/// # Errors
///
/// One that can not be opened or made.
pub fn outputs(facts: &Facts) -> Result<[Option<File>; 2]> {
    let open = |name: &str| {
        let path = facts.annotations.get(name).filter(|path| !path.is_empty());
        let open = |path: &String| {
            let opened = File::options().append(true).create(true).open(path);
            let opened = opened.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO));
            opened.call(|| format!("open({path:?})"))
        };
        path.map(open)
            .transpose()
            .with_context(|| format!("annotations[{name:?}]"))
    };
    Ok([open(OUTPUTS[0])?, open(OUTPUTS[1])?])
}

/// Runs the hooks of one list, `name`, in order; the first that fails ends it.
///
/// # Errors
///
/// `hooks.poststart[1] (/usr/bin/x): exit status 3: what it printed`.
///
/// `stop` ends the hook that runs, with an error.
pub fn run(
    name: &str,
    hooks: &[Hook],
    state: &str,
    facts: &Facts,
    stop: Option<Stop<'_>>,
) -> Result<()> {
    hooks
        .iter()
        .enumerate()
        .try_for_each(|(index, hook)| run_at(name, index, hook, state, facts, stop))
}

/// Runs the hooks of the runtime's namespaces, while the container's are made and its root is not
/// entered yet: prestart first, as it is the older of the two. `pid` is init's.
///
/// # Errors
///
/// As for [`run`].
pub fn run_at_creation(
    bundle: &Bundle,
    container: &Snapshot,
    pid: i32,
    stop: Stop<'_>,
) -> Result<()> {
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
    let state = state(container, &Status::Creating, Some(pid));
    for (name, list) in lists {
        let list = list.unwrap_or_default();
        run(name, &list, &state, &container.facts, Some(stop))?;
    }
    Ok(())
}

/// Runs all hooks of one list, `name`, whatever becomes of each; returns what failed.
pub fn run_each(name: &str, hooks: &[Hook], state: &str, facts: &Facts) -> Vec<anyhow::Error> {
    let run = |(index, hook)| run_at(name, index, hook, state, facts, None).err();
    hooks.iter().enumerate().filter_map(run).collect()
}

/// The state that hooks get on stdin (OCI runtime specification, "State").
///
/// `pid` is init's as the hook's pid namespace sees it: OCI asks for it also while the container is
/// being created, where no [`Status`] holds one.
pub fn state(container: &Snapshot, status: &Status, pid: Option<i32>) -> String {
    #[derive(Serialize)]
    struct State<'a> {
        #[serde(rename = "ociVersion")]
        oci_version: &'a str,
        id: &'a str,
        status: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        pid: Option<i32>,
        bundle: String,
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        annotations: &'a BTreeMap<String, String>,
    }
    let facts = &container.facts;
    let state = State {
        oci_version: &facts.oci_version,
        id: container.id.as_str(),
        status: status.to_string(),
        pid,
        bundle: facts.bundle.to_string_lossy().into_owned(),
        annotations: &facts.annotations,
    };
    // Cannot fail: the fields are text and numbers.
    serde_json::to_string(&state).unwrap_or_default()
}

/// The state for hooks that init runs, cut where the process id belongs: only init knows its own
/// as the container sees it.
pub fn state_around_pid(container: &Snapshot, status: &Status) -> [String; 2] {
    const PID: &str = "\"pid\":0";
    let text = state(container, status, Some(0));
    let at = text.find(PID).map_or(text.len(), |at| at + PID.len() - 1);
    [
        text[..at].to_owned(),
        text.get(at + 1..).unwrap_or_default().to_owned(),
    ]
}

fn run_at(
    name: &str,
    index: usize,
    hook: &Hook,
    state: &str,
    facts: &Facts,
    stop: Option<Stop<'_>>,
) -> Result<()> {
    run_one(hook, state.as_bytes(), facts, stop)
        .with_context(|| format!("hooks.{name}[{index}] ({})", hook.path().display()))
}

fn run_one(hook: &Hook, state: &[u8], facts: &Facts, stop: Option<Stop<'_>>) -> Result<()> {
    let (mut running, output) = spawn(hook, facts)?;
    let limit = hook
        .timeout()
        .and_then(|seconds| u64::try_from(seconds).ok());
    let mut talk = Talk {
        stdin: running.stdin.take(),
        state,
        output,
        printed: Vec::new(),
        stop,
    };
    let pidfd = pidfd_of(&running)?;
    let in_time = talk.until_exit(pidfd.as_fd(), limit.map(Duration::from_secs));
    if !matches!(in_time, Ok(true)) {
        kill_group(&running);
        running.kill().context("kill")?;
    }
    let status = running.wait().context("wait")?;
    let in_time = in_time?;
    // What it wrote before its end is in the pipe by now. Its end is not awaited: a daemon that the
    // hook left behind may keep it open for ever.
    talk.read_output()?;
    if !in_time {
        bail!(
            "not finished after {} s, killed{}",
            limit.unwrap_or(0),
            talk.shown()
        );
    }
    if status.success() {
        return Ok(());
    }
    Err(anyhow!("{}{}", in_words(status), talk.shown()))
}

/// Kills a hook that is not reaped yet and what it has started, but for what left its group.
fn kill_group(hook: &Child) {
    let leader = i32::try_from(hook.id()).ok().and_then(Pid::from_raw);
    // It may have left the group it was started in; it is killed by itself as well.
    let _no_group = leader.map(|pid| kill_process_group(pid, Signal::KILL));
}

/// Starts the hook as the leader of a process group, with no signal blocked.
fn spawn(hook: &Hook, facts: &Facts) -> Result<(Child, PipeReader)> {
    let (output, printed) = std::io::pipe().context("pipe")?;
    let [stdout, stderr] = outputs(facts)?;
    let mut command = Command::new(hook.path());
    if let Some((name, args)) = hook.args().as_ref().and_then(|args| args.split_first()) {
        command.arg0(name).args(args);
    }
    let env = hook.env().iter().flatten();
    if !is_off(Mitigation::HookEnvironment) {
        command.env_clear();
    }
    command.envs(env.map(|pair| pair.split_once('=').unwrap_or((pair, ""))));
    // Callers may have removed the bundle before they delete the container.
    command.current_dir(if facts.bundle.is_dir() {
        facts.bundle.as_path()
    } else {
        Path::new("/")
    });
    command
        .stdin(Stdio::piped())
        .stdout(match stdout {
            Some(file) => Stdio::from(file),
            None => printed.try_clone().context("pipe")?.into(),
        })
        .stderr(stderr.map_or_else(|| printed.into(), Stdio::from));
    command.process_group(0);
    crate::sys::command::bind_to_us(&mut command);
    let child = command.spawn();
    let child = child.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO));
    Ok((child.call(|| "execve".into())?, output))
}

fn pidfd_of(child: &Child) -> Result<OwnedFd> {
    let pid = i32::try_from(child.id())
        .ok()
        .and_then(Pid::from_raw)
        .context("no child")?;
    Ok(pidfd_open(pid, PidfdFlags::empty()).call(|| "pidfd_open(hook)".into())?)
}

/// What goes to a hook and what comes from it.
struct Talk<'a> {
    /// Closed when all was written or the hook does not want it.
    stdin: Option<ChildStdin>,
    state: &'a [u8],
    output: PipeReader,
    printed: Vec<u8>,
    stop: Option<Stop<'a>>,
}

impl Talk<'_> {
    /// Serves both pipes until the process ends; false when it had no time left. An error when this
    /// process is asked to end.
    #[allow(
        clippy::disallowed_methods,
        reason = "drives a process with a deadline"
    )]
    fn until_exit(&mut self, pidfd: BorrowedFd<'_>, limit: Option<Duration>) -> Result<bool> {
        let set = |fd: BorrowedFd<'_>| rustix::io::ioctl_fionbio(fd, true);
        set(self.output.as_fd()).call(|| "ioctl(FIONBIO)".into())?;
        if let Some(stdin) = &self.stdin {
            set(stdin.as_fd()).call(|| "ioctl(FIONBIO)".into())?;
        }
        let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
        let mut output_open = true;
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let ready = self.wait(pidfd, output_open, left)?;
            if ready.exited {
                return Ok(true);
            }
            self.stop.map_or(Ok(()), |stop| stop.check())?;
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(false);
            }
            if ready.stdin {
                self.write_state();
            }
            if ready.output {
                output_open = self.read_output()?;
            }
        }
    }

    fn wait(
        &self,
        pidfd: BorrowedFd<'_>,
        output_open: bool,
        left: Option<Duration>,
    ) -> Result<Ready> {
        let timeout = left.map(|left| Timespec {
            tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        });
        let mut fds = vec![PollFd::from_borrowed_fd(pidfd, PollFlags::IN)];
        if output_open {
            fds.push(PollFd::new(&self.output, PollFlags::IN));
        }
        if let Some(stdin) = &self.stdin {
            fds.push(PollFd::new(stdin, PollFlags::OUT));
        }
        // Last, as the places of the others are counted.
        fds.extend(self.stop.iter().flat_map(Stop::descriptors));
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(SysError::new("poll(hook)", errno).into()),
        }
        let ready = |index: usize| fds.get(index).is_some_and(|fd| !fd.revents().is_empty());
        let after_output = 1 + usize::from(output_open);
        Ok(Ready {
            exited: ready(0),
            output: output_open && ready(1),
            stdin: self.stdin.is_some() && ready(after_output),
        })
    }

    /// Writes what the pipe takes. A hook need not read its stdin: its closed end is no error.
    fn write_state(&mut self) {
        let Some(stdin) = &mut self.stdin else { return };
        match stdin.write(self.state) {
            Ok(written) => self.state = &self.state[written..],
            Err(error) if is_try_again(&error) => return,
            Err(_) => self.state = &[],
        }
        if self.state.is_empty() {
            self.stdin = None;
        }
    }

    /// Reads what is there; false at the end of the output.
    fn read_output(&mut self) -> Result<bool> {
        let mut chunk = [0; 4096];
        loop {
            match self.output.read(&mut chunk) {
                Ok(0) => return Ok(false),
                Ok(length) => self.printed.extend_from_slice(&chunk[..length]),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) if is_try_again(&error) => return Ok(true),
                Err(error) => return Err(error).context("read what it printed"),
            }
            let excess = self.printed.len().saturating_sub(OUTPUT_KEPT);
            self.printed.drain(..excess);
        }
    }

    /// The end of what the hook printed, as the end of an error.
    fn shown(&self) -> String {
        let text = String::from_utf8_lossy(&self.printed);
        match text.trim() {
            "" => String::new(),
            text => format!(": {text}"),
        }
    }
}

/// Which of a hook's descriptors poll has named.
struct Ready {
    exited: bool,
    output: bool,
    stdin: bool,
}

fn is_try_again(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::WouldBlock
}

fn in_words(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => status.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lifecycle::record::Record;
    use crate::lifecycle::testing::{Root, facts, id};
    use oci_spec::runtime::HookBuilder;

    fn sh(script: &str) -> Hook {
        let args = ["my-name", "-c", script].map(String::from);
        HookBuilder::default()
            .path("/bin/sh")
            .args(args)
            .build()
            .unwrap()
    }

    /// Facts of a container whose bundle is there.
    fn at(bundle: &Path) -> Facts {
        Facts {
            bundle: bundle.to_owned(),
            ..facts()
        }
    }

    fn try_hook(hook: Hook, state: &str) -> Result<(), String> {
        let result = run(
            "poststart",
            &[sh("exit 0"), hook],
            state,
            &at(Path::new("/no/such/bundle")),
            None,
        );
        result.map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn a_hook_gets_its_own_environment_its_name_and_the_state() {
        let root = Root::new();
        let file = root.path().join("seen");
        let script = format!(
            "{{ echo $0; echo $ONLY; echo ${{HOME-none}}; pwd; cat; }} > {}",
            file.display()
        );
        let hook = HookBuilder::default()
            .path("/bin/sh")
            .env(["ONLY=a=b".to_owned()]);
        let hook = hook
            .args(["my-name", "-c", &script].map(String::from))
            .build()
            .unwrap();
        let facts = at(root.path());
        run("poststop", &[hook], "{\"id\":\"web\"}", &facts, None).unwrap();
        let seen = std::fs::read_to_string(file).unwrap();
        let path = root.path().display();
        assert_eq!(
            seen,
            format!("my-name\na=b\nnone\n{path}\n{{\"id\":\"web\"}}")
        );
    }

    #[test]
    fn a_failure_names_the_hook_its_status_and_what_it_printed() {
        let error = try_hook(sh("echo out; echo because >&2; exit 3"), "").unwrap_err();
        assert_eq!(
            error,
            "hooks.poststart[1] (/bin/sh): exit status 3: out\nbecause"
        );
        let error = try_hook(sh("kill -9 $$"), "").unwrap_err();
        assert_eq!(error, "hooks.poststart[1] (/bin/sh): killed by signal 9");
        let gone = HookBuilder::default().path("/no/hook").build().unwrap();
        let error = try_hook(gone, "").unwrap_err();
        assert_eq!(
            error,
            "hooks.poststart[1] (/no/hook): execve: no such file or directory"
        );
    }

    #[test]
    fn a_hook_that_does_not_read_its_stdin_is_no_failure() {
        let long = "x".repeat(1 << 20);
        try_hook(sh("exec <&-; sleep 0.05"), &long).unwrap();
        try_hook(sh("exit 0"), &long).unwrap();
        try_hook(sh("sleep 0.05"), &long).unwrap();
    }

    #[test]
    fn a_long_state_and_a_long_output_pass_each_other() {
        let long = "x".repeat(1 << 20);
        let error = try_hook(sh("cat; echo end; exit 1"), &long).unwrap_err();
        assert!(error.ends_with("xend"), "{error}");
        assert!(error.len() < OUTPUT_KEPT + 100);
    }

    #[test]
    fn a_hook_over_its_time_is_killed() {
        let args = ["sh", "-c", "echo begun; exec sleep 1000"].map(String::from);
        let hook = HookBuilder::default().path("/bin/sh").args(args).timeout(1);
        let error = try_hook(hook.build().unwrap(), "").unwrap_err();
        assert_eq!(
            error,
            "hooks.poststart[1] (/bin/sh): not finished after 1 s, killed: begun"
        );
    }

    #[test]
    fn a_daemon_that_a_hook_leaves_behind_is_not_waited_for() {
        let root = Root::new();
        let pid = root.path().join("pid");
        let script = format!("sleep 1000 & echo $! > {}; exit 7", pid.display());
        let error = try_hook(sh(&script), "").unwrap_err();
        assert!(error.ends_with("exit status 7"), "{error}");
        let pid = std::fs::read_to_string(pid).unwrap();
        assert!(
            Command::new("kill")
                .arg(pid.trim())
                .status()
                .unwrap()
                .success()
        );
    }

    #[test]
    fn all_poststop_hooks_run_and_each_failure_is_told() {
        let hooks = [sh("exit 1"), sh("exit 0"), sh("exit 2")];
        let errors = run_each("poststop", &hooks, "", &at(Path::new("/")));
        let errors: Vec<String> = errors.iter().map(|error| format!("{error:#}")).collect();
        assert_eq!(
            errors,
            [
                "hooks.poststop[0] (/bin/sh): exit status 1",
                "hooks.poststop[2] (/bin/sh): exit status 2"
            ]
        );
    }

    #[test]
    fn the_state_for_hooks_has_the_fields_of_the_specification() {
        let root = Root::new();
        let record = Record::reserve(root.path(), &id("web"), facts()).unwrap();
        assert_eq!(
            state(&record, &Status::Creating, Some(7)),
            "{\"ociVersion\":\"1.3.0\",\"id\":\"web\",\"status\":\"creating\",\"pid\":7,\
             \"bundle\":\"/srv/web\",\"annotations\":{\"a\":\"b\"}}"
        );
        assert!(!state(&record, &Status::Stopped, None).contains("pid"));
    }
}
