//! Makes init's plan from config.json: everything that is decided, on the host, before the clone.

use std::path::Path;

use anyhow::{Context as _, Result};
use oci_spec::runtime::{self, Process, Spec};
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags};

use super::grants::{groups, identity};
use super::labels::Labels;
use super::landlock::Rules;
use super::limits::Limit;
use super::plan::{
    Exec, Filter, Hook, Hooks, Network, Plan, Program, Sysctl, Terminal, UserNamespace,
};
use super::settings::{Scheduling, Settings};
use crate::namespaces::{self, Kind};
use crate::rootfs::{self, OpenTree};
use crate::seccomp;
use crate::sys::fd::{Inheritance, InheritedFd};
use crate::sys::weakened::{Mitigation, is_off};

/// What the plan depends on beside config.json.
#[derive(Debug)]
pub struct Request<'a> {
    /// The configuration.
    pub spec: &'a Spec,
    /// The bundle's directory.
    pub bundle: &'a Path,
    /// The container's id, for the keyring's name.
    pub id: &'a str,
    /// Its namespaces.
    pub namespaces: &'a namespaces::Plan,
    /// Its file system, opened.
    pub rootfs: rootfs::Plan<OpenTree>,
    /// The filter of its system calls.
    pub seccomp: Option<&'a seccomp::Plan>,
    /// A session keyring of its own.
    pub keyring: bool,
    /// setgroups(2) is refused inside.
    pub groups_are_fixed: bool,
    /// Where a later `start` says go.
    pub gate: Option<InheritedFd>,
    /// The lock that tells *created* from *running*.
    pub lock: InheritedFd,
    /// Descriptors beside the standard streams that the program gets.
    pub preserved: u32,
    /// Descriptors passed by socket activation (sd_listen_fds(3)), the first of `preserved`.
    pub listening: u32,
    /// The state while the container is created, as JSON cut where the process id belongs.
    pub creating: [String; 2],
    /// The state before it is started, likewise.
    pub created: [String; 2],
}

/// The plan, and what of the configuration the host can not grant, for the log.
///
/// # Errors
///
/// `/proc` of the host can not be opened.
pub fn build(request: Request<'_>, inheritance: &mut Inheritance) -> Result<(Plan, Vec<String>)> {
    let spec = request.spec;
    let process = spec.process().as_ref().context("process is missing")?;
    let linux = spec.linux().as_ref();
    let user_namespace = request.namespaces.is_own(Kind::User);
    let mut warnings = Vec::new();
    let mut plan = Plan {
        user_namespace: if request.namespaces.is_new(Kind::User) {
            UserNamespace::New
        } else if user_namespace {
            UserNamespace::Joined
        } else {
            UserNamespace::Host
        },
        keyring: request.keyring.then(|| keyring(request.id)),
        network: network(request.namespaces),
        hostname: spec.hostname().clone().filter(|name| !name.is_empty()),
        domainname: spec.domainname().clone().filter(|name| !name.is_empty()),
        rootfs: request.rootfs,
        bundle: request.bundle.to_string_lossy().into_owned(),
        host_proc: inheritance.give(host_proc()?),
        sysctls: sysctls(linux),
        waits_when_made: has_hooks_at_creation(spec.hooks().as_ref())
            || request.namespaces.moves_devices(),
        hooks: hooks(spec.hooks().as_ref(), request.creating, request.created),
        program: program(process),
        limits: if user_namespace {
            Vec::new()
        } else {
            limits(process)
        },
        labels: Labels::of(process),
        landlock: Rules::of(spec),
        settings: settings(process, linux, user_namespace),
        identity: identity(
            process,
            groups(process, keeps_groups(spec), request.groups_are_fixed)?,
            user_namespace,
            &mut warnings,
        )?
        .with_filter(request.seccomp.is_some()),
        filter: request.seccomp.map(filter),
        terminal: terminal(process),
        gate: request.gate,
        lock: request.lock,
        preserved: request.preserved,
        listening: request.listening,
    };
    if is_off(Mitigation::HookEnvironment) {
        for hook in &mut plan.hooks.create_container {
            hook.env.extend(plan.program.env.iter().cloned());
        }
    }
    Ok((plan, warnings))
}

fn host_proc() -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open("/proc", flags, Mode::empty()).context("open(\"/proc\")")
}

/// What the plan of a process that joins a container depends on.
#[derive(Debug)]
pub struct ExecRequest<'a> {
    /// The process.
    pub process: &'a Process,
    /// The session keyring that it joins.
    pub keyring: Option<String>,
    /// The container's root.
    pub root: InheritedFd,
    /// The container's configuration.
    pub linux: Option<&'a runtime::Linux>,
    /// Rights that it gives up.
    pub landlock: Option<Rules>,
    /// What decides on the program's system calls.
    pub seccomp: Option<&'a seccomp::Plan>,
    /// The container has a user namespace of its own.
    pub user_namespace: bool,
    /// setgroups(2) is refused inside.
    pub groups_are_fixed: bool,
    /// Descriptors beside the standard streams that the program gets.
    pub preserved: u32,
    /// Descriptors passed by socket activation (sd_listen_fds(3)), the first of `preserved`.
    pub listening: u32,
}

/// The plan of a process that joins a container, and what can not be granted to it, for the log.
///
/// # Errors
///
/// The runtime's own capabilities can not be read.
pub fn build_exec(
    request: ExecRequest<'_>,
    inheritance: &mut Inheritance,
) -> Result<(Exec, Vec<String>)> {
    let (process, user_namespace) = (request.process, request.user_namespace);
    let mut warnings = Vec::new();
    let plan = Exec {
        user_namespace: match user_namespace {
            true => UserNamespace::Joined,
            false => UserNamespace::Host,
        },
        keyring: request.keyring,
        root: request.root,
        host_proc: inheritance.give(host_proc()?),
        program: program(process),
        limits: match user_namespace {
            true => Vec::new(),
            false => limits(process),
        },
        labels: Labels::of(process),
        landlock: request.landlock,
        settings: settings(process, request.linux, user_namespace),
        identity: identity(
            process,
            groups(process, false, request.groups_are_fixed)?,
            user_namespace,
            &mut warnings,
        )?
        .with_filter(request.seccomp.is_some()),
        filter: request.seccomp.map(filter),
        terminal: terminal(process),
        preserved: request.preserved,
        listening: request.listening,
    };
    Ok((plan, warnings))
}

/// How init comes into its network.
fn network(namespaces: &namespaces::Plan) -> Network {
    match namespaces.is_new(Kind::Network) {
        true if namespaces.network_follows() => Network::Follows,
        true => Network::Made,
        false => Network::Entered,
    }
}

/// The name of a container's session keyring.
#[must_use]
pub fn keyring(id: &str) -> String {
    format!("_ses.{id}")
}

/// `linux.sysctl`, in the order of the files.
fn sysctls(linux: Option<&runtime::Linux>) -> Vec<Sysctl> {
    let mut sysctls: Vec<Sysctl> = linux
        .and_then(|l| l.sysctl().as_ref())
        .into_iter()
        .flatten()
        .map(|(name, value)| Sysctl {
            file: sysctl_file(name),
            value: value.clone(),
        })
        .collect();
    sysctls.sort_by(|a, b| a.file.cmp(&b.file));
    sysctls
}

/// The file below /proc/sys: `.` separates, unless a `/` comes first (sysctl.d(5)).
fn sysctl_file(name: &str) -> String {
    match name.find(['.', '/']) {
        Some(at) if name.as_bytes()[at] == b'.' => name
            .chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                other => other,
            })
            .collect(),
        Some(_) | None => name.to_owned(),
    }
}

/// Whether hooks run while the mounts are made and the root is not entered: they find the network up.
fn has_hooks_at_creation(hooks: Option<&runtime::Hooks>) -> bool {
    #[allow(
        deprecated,
        reason = "prestart is deprecated and still what NVIDIA's runtime writes"
    )]
    let prestart = hooks.and_then(|h| h.prestart().as_ref());
    let outside = hooks.and_then(|h| h.create_runtime().as_ref());
    let inside = hooks.and_then(|h| h.create_container().as_ref());
    [prestart, outside, inside]
        .into_iter()
        .flatten()
        .any(|list| !list.is_empty())
}

fn hooks(hooks: Option<&runtime::Hooks>, creating: [String; 2], created: [String; 2]) -> Hooks {
    let list = |name: &str, list: Option<&Vec<runtime::Hook>>| {
        list.into_iter()
            .flatten()
            .enumerate()
            .map(|(i, h)| hook(name, i, h))
            .collect()
    };
    Hooks {
        create_container: list(
            "createContainer",
            hooks.and_then(|h| h.create_container().as_ref()),
        ),
        start_container: list(
            "startContainer",
            hooks.and_then(|h| h.start_container().as_ref()),
        ),
        outputs: [None, None],
        creating,
        created,
    }
}

fn hook(name: &str, index: usize, hook: &runtime::Hook) -> Hook {
    Hook {
        json_path: format!("hooks.{name}[{index}]"),
        path: hook.path().to_string_lossy().into_owned(),
        args: hook.args().clone().unwrap_or_default(),
        env: hook.env().clone().unwrap_or_default(),
        timeout_ms: hook
            .timeout()
            .map(|seconds| seconds.unsigned_abs().saturating_mul(1000)),
    }
}

fn filter(plan: &seccomp::Plan) -> Filter {
    Filter {
        field: plan.field().to_owned(),
        program: plan.program().to_vec(),
        flags: plan.flags(),
    }
}

fn program(process: &Process) -> Program {
    let mut env = environment(process.env().iter().flatten());
    if is_off(Mitigation::Environment) {
        env.extend(std::env::vars().map(|(name, value)| format!("{name}={value}")));
    }
    Program {
        args: process.args().clone().unwrap_or_default(),
        env,
        cwd: process.cwd().to_string_lossy().into_owned(),
    }
}

/// Each variable once, with the value that it is given last: a program that finds two takes the first.
fn environment<'a>(entries: impl Iterator<Item = &'a String>) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for entry in entries {
        let name = entry.find('=').map_or(entry.as_str(), |at| &entry[..=at]);
        match all.iter_mut().find(|other| other.starts_with(name)) {
            Some(other) => other.clone_from(entry),
            None => all.push(entry.clone()),
        }
    }
    all
}

/// `process.rlimits` as init's plan has them.
pub fn limits(process: &Process) -> Vec<Limit> {
    let limits = process.rlimits().iter().flatten().enumerate();
    let limit = |(index, limit): (usize, &runtime::PosixRlimit)| Limit {
        json_path: format!("process.rlimits[{index}]"),
        kind: limit.typ().to_string(),
        soft: limit.soft(),
        hard: limit.hard(),
    };
    limits.map(limit).collect()
}

/// In a user namespace the runtime sets scheduling.
fn settings(process: &Process, linux: Option<&runtime::Linux>, user_namespace: bool) -> Settings {
    let mut settings = Settings::of(process, linux);
    if user_namespace {
        settings.scheduling = Scheduling::default();
    }
    settings
}

fn terminal(process: &Process) -> Option<Terminal> {
    let size = process.console_size();
    let clamp = |value: u64| u16::try_from(value).unwrap_or(u16::MAX);
    process.terminal().unwrap_or(false).then(|| Terminal {
        rows: size.map_or(0, |s| clamp(s.height())),
        columns: size.map_or(0, |s| clamp(s.width())),
    })
}

/// crun's annotation, by which `podman run --group-add keep-groups` asks for it.
fn keeps_groups(spec: &Spec) -> bool {
    let annotations = spec.annotations().as_ref();
    let asked = annotations.and_then(|all| all.get("run.oci.keep_original_groups"));
    asked.is_some_and(|value| value != "0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_values_of_a_variable_the_last_one_counts() {
        let entries = ["A=1", "AB=2", "A=", "B=4", "A=5=6"].map(String::from);
        assert_eq!(environment(entries.iter()), ["A=5=6", "AB=2", "B=4"]);
    }

    #[test]
    fn a_sysctl_name_becomes_a_file() {
        assert_eq!(sysctl_file("net.ipv4.ip_forward"), "net/ipv4/ip_forward");
        assert_eq!(
            sysctl_file("net/ipv4/conf/eth0.1/forwarding"),
            "net/ipv4/conf/eth0.1/forwarding"
        );
        assert_eq!(
            sysctl_file("net.ipv4.conf.eth0/1.forwarding"),
            "net/ipv4/conf/eth0.1/forwarding"
        );
    }
}
