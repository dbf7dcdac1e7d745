//! System calls that are decided by a filter: `linux.seccomp` compiled to classic BPF.
//!
//! `profile` reads the configuration and finds what is wrong with it, `decide` says what holds for
//! each number of each architecture, `compile` writes that as instructions. Pure: init installs the
//! program (`sys::seccomp`), at a moment that is init's to know (docs/decisions/0007). `kept` holds programs
//! for the next container with the same profile.

mod arch;
mod compile;
mod decide;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod kept;
mod profile;
mod raw;
#[cfg(any(test, feature = "fuzzing"))]
mod reference;
mod syscalls;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::PathBuf;

use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompFilterFlag, Spec};
use serde::Deserialize;
use serde::de::value::BorrowedStrDeserializer;

use arch::Arch;
use decide::Decision;
pub use kept::Kept;
use profile::{Action, FIELD, Profile};
use syscalls::Syscall;

use crate::error::{self, Problems};
use crate::sys::seccomp::{Instruction, LONGEST, flag, takes};

/// JSON path of the listener's socket.
const LISTENER: &str = "linux.seccomp.listenerPath";

/// crun's annotation for the same, and how it is called where something is wrong with it.
const RECEIVER: &str = "run.oci.seccomp.receiver";
const RECEIVER_FIELD: &str = "annotations[\"run.oci.seccomp.receiver\"]";

/// crun's variable for the same, in the caller's environment.
const RECEIVER_VARIABLE: &str = "RUN_OCI_SECCOMP_RECEIVER";

/// crun's annotation by which names of system calls have to be known.
const FAIL_UNKNOWN: &str = "run.oci.seccomp_fail_unknown_syscall";

/// The filter of a container.
#[derive(Debug)]
pub struct Plan {
    /// What the program is made from, as errors call it.
    field: &'static str,
    program: Vec<Instruction>,
    flags: u32,
    listener: Option<Listener>,
    summary: String,
}

/// Who is asked about calls with SCMP_ACT_NOTIFY.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// What names it in the configuration, as errors call it.
    pub field: &'static str,
    /// The socket at which it waits for the descriptor to read from.
    pub socket: PathBuf,
    /// What it is told beside.
    pub metadata: String,
}

impl Plan {
    /// The compiled profile, or the program in its place, if there is one; what is wrong with it goes to
    /// `problems`.
    #[must_use]
    pub fn new(spec: &Spec, problems: &mut Problems) -> Option<Plan> {
        let linux = spec.linux().as_ref();
        let seccomp = linux.and_then(|linux| linux.seccomp().as_ref());
        if let Some(data) = annotation(spec, raw::ANNOTATION) {
            return Some(Plan::of_data(data, seccomp, problems));
        }
        let seccomp = seccomp?;
        let profile = Profile::new(seccomp, Arch::NATIVE, problems);
        if insists_on_names(spec) {
            refuse_unknown_names(&profile, problems);
        }
        let receiver = receiver(spec, &profile, problems);
        let listener = listener((seccomp, receiver), &profile, problems);
        let mut contradictions = Vec::new();
        let program = compile::compile(&profile, &mut contradictions);
        contradictions.dedup_by_key(|found| (found.rule, found.earlier));
        for found in contradictions {
            let message = format!(
                "wants another action for the same call and arguments than {FIELD}.syscalls[{}]",
                found.earlier
            );
            problems.add(format!("{FIELD}.syscalls[{}]", found.rule), message);
        }
        if program.len() > LONGEST {
            let message = format!(
                "compiles to {} instructions, and the kernel takes {LONGEST}: use fewer conditions",
                program.len()
            );
            problems.add(FIELD, message);
        }
        error::debug(|| unknown_names(&profile));
        Some(Plan {
            field: FIELD,
            flags: flags(seccomp.flags().as_deref(), profile.notifies()),
            summary: summary(&profile),
            program,
            listener,
        })
    }

    /// The program in an annotation, with the flags of the profile in whose place it is.
    fn of_data(data: &str, seccomp: Option<&LinuxSeccomp>, problems: &mut Problems) -> Plan {
        let program = raw::program(data).unwrap_or_else(|wrong| {
            problems.add(raw::FIELD, wrong);
            Vec::new()
        });
        Plan {
            field: raw::FIELD,
            program,
            flags: flags(
                seccomp.and_then(|seccomp| seccomp.flags().as_deref()),
                false,
            ),
            listener: None,
            summary: format!("of {}", raw::ANNOTATION),
        }
    }

    /// What the program is made from, as errors call it.
    #[must_use]
    pub fn field(&self) -> &'static str {
        self.field
    }

    /// The instructions.
    #[must_use]
    pub fn program(&self) -> &[Instruction] {
        &self.program
    }

    /// Flags of seccomp(2).
    #[must_use]
    pub fn flags(&self) -> u32 {
        self.flags
    }

    /// Who is asked, when somebody is.
    #[must_use]
    pub fn listener(&self) -> Option<&Listener> {
        self.listener.as_ref()
    }
}

/// An annotation that asks for something.
fn annotation<'a>(spec: &'a Spec, name: &str) -> Option<&'a str> {
    let value = spec.annotations().as_ref()?.get(name)?;
    (!value.is_empty()).then_some(value)
}

/// Whether unknown names of system calls are a mistake: by the annotation alone, unless it is `0`.
fn insists_on_names(spec: &Spec) -> bool {
    let annotations = spec.annotations().as_ref();
    let value = annotations.and_then(|all| all.get(FAIL_UNKNOWN));
    value.is_some_and(|value| value != "0")
}

fn refuse_unknown_names(profile: &Profile<'_>, problems: &mut Problems) {
    for (index, rule) in profile.rules.iter().enumerate() {
        for (i, name) in rule.names.iter().enumerate() {
            // An empty one is told as such.
            if !name.is_empty() && Syscall::named(name).is_none() {
                let path = format!("{FIELD}.syscalls[{index}].names[{i}]");
                let message = format!("unknown system call {name:?}, and {FAIL_UNKNOWN} is set");
                problems.add(path, message);
            }
        }
    }
}

/// The listener's socket in crun's ways, the annotation before the variable, and which it is. The variable
/// may be there for all containers of a caller: one in which nobody is asked has nothing to do with it.
fn receiver(
    spec: &Spec,
    profile: &Profile<'_>,
    problems: &mut Problems,
) -> Option<(&'static str, PathBuf)> {
    if let Some(path) = annotation(spec, RECEIVER) {
        return Some((RECEIVER_FIELD, path.into()));
    }
    if !profile.notifies() {
        return None;
    }
    let path = PathBuf::from(std::env::var_os(RECEIVER_VARIABLE).filter(|path| !path.is_empty())?);
    if !path.is_absolute() {
        let message = format!("must be an absolute path, is {path:?}");
        problems.add(RECEIVER_VARIABLE, message);
        return None;
    }
    Some((RECEIVER_VARIABLE, path))
}

/// The listener, which must be there exactly when it is asked.
fn listener(
    (seccomp, receiver): (&LinuxSeccomp, Option<(&'static str, PathBuf)>),
    profile: &Profile<'_>,
    problems: &mut Problems,
) -> Option<Listener> {
    let metadata = seccomp.listener_metadata().clone();
    let path = seccomp.listener_path().clone();
    if let (Some(path), Some((field, receiver))) = (&path, &receiver)
        && path != receiver
    {
        let message = format!("names another listener than {LISTENER}: remove one of them");
        problems.add(*field, message);
    }
    let named = path.map(|path| (LISTENER, path)).or(receiver);
    let Some((field, socket)) = named else {
        if metadata.is_some() {
            let message = "is told to a listener: set listenerPath, or remove it";
            problems.add(format!("{FIELD}.listenerMetadata"), message);
        }
        if profile.notifies() {
            let message = "is required with SCMP_ACT_NOTIFY";
            problems.add(LISTENER, message);
        }
        return None;
    };
    if !profile.notifies() {
        return None; // nobody is asked; as with runc, the path alone asks for nothing
    }
    if !passes(profile, "sendmsg") {
        let message = "must allow sendmsg when it uses SCMP_ACT_NOTIFY: init hands the listener \
             over by this call, under the filter already";
        problems.add(FIELD, message);
    }
    Some(Listener {
        field,
        socket,
        metadata: metadata.unwrap_or_default(),
    })
}

/// Whether a call of this program's architecture is made whatever its arguments are.
fn passes(profile: &Profile<'_>, name: &str) -> bool {
    let Some(number) = Syscall::named(name).and_then(|call| call.number(Arch::NATIVE)) else {
        return false;
    };
    let ranges = decide::ranges(profile, Arch::NATIVE, &mut Vec::new());
    let next = ranges.partition_point(|range| range.from <= number);
    let allowed = [Action::ALLOW, Action::LOG].map(Decision::Always);
    allowed.contains(&ranges[next - 1].decision)
}

fn flags(list: Option<&[LinuxSeccompFilterFlag]>, notifies: bool) -> u32 {
    let Some(list) = list else {
        // As runc, where not even an empty list is given.
        return flag::SPEC_ALLOW | if notifies { flag::NEW_LISTENER } else { 0 };
    };
    let mut flags = 0;
    for wanted in list {
        flags |= bit(wanted);
    }
    if !notifies {
        // It is about notifications, and the kernel refuses it where there are none.
        return flags & !flag::WAIT_KILLABLE_RECV;
    }
    if flags & flag::TSYNC != 0 {
        // Else the call could not answer both a descriptor and a thread that fails.
        flags |= flag::TSYNC_ESRCH;
    }
    flags | flag::NEW_LISTENER
}

/// The kernel's flag for that of config.json.
fn bit(named: &LinuxSeccompFilterFlag) -> u32 {
    match named {
        LinuxSeccompFilterFlag::SeccompFilterFlagTsync => flag::TSYNC,
        LinuxSeccompFilterFlag::SeccompFilterFlagLog => flag::LOG,
        LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => flag::SPEC_ALLOW,
        LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => flag::WAIT_KILLABLE_RECV,
    }
}

/// Whether this kernel takes the flag that config.json names so, as `SECCOMP_FILTER_FLAG_LOG`.
#[must_use]
pub fn kernel_takes_flag(name: &str) -> bool {
    named(name).is_some_and(|named| match bit(&named) {
        // About notifications, and refused where there are none.
        flag::WAIT_KILLABLE_RECV => takes(flag::WAIT_KILLABLE_RECV | flag::NEW_LISTENER),
        bit => takes(bit),
    })
}

/// The value of the specification that is written so.
fn named<'de, T: Deserialize<'de>>(name: &'de str) -> Option<T> {
    let name = BorrowedStrDeserializer::<serde::de::value::Error>::new(name);
    T::deserialize(name).ok()
}

fn summary(profile: &Profile<'_>) -> String {
    let archs: Vec<_> = profile.archs.iter().map(|arch| arch.name()).collect();
    format!(
        "{} rules and default {} for {}",
        profile.rules.len(),
        profile.default,
        archs.join(" ")
    )
}

/// Names that no architecture of the table has: a newer kernel's, or mistakes. They are ignored, as
/// profiles are written for all kernels at once.
fn unknown_names(profile: &Profile<'_>) -> String {
    let names = profile.rules.iter().flat_map(|rule| rule.names);
    let unknown: Vec<_> = names
        .filter(|name| Syscall::named(name).is_none())
        .map(|name| format!("{name:?}"))
        .collect();
    match unknown.is_empty() {
        true => format!("{FIELD}: all names are known"),
        false => format!("{FIELD}: unknown names, ignored: {}", unknown.join(" ")),
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (count, flags) = (self.program.len(), self.flags);
        write!(f, "seccomp {}", self.summary)?;
        writeln!(f, ": {count} instructions, flags {flags:#x}")?;
        match &self.listener {
            Some(listener) => writeln!(f, "seccomp asks {:?}", listener.socket),
            None => Ok(()),
        }
    }
}
