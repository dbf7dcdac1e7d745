//! System calls that are decided by a filter: `linux.seccomp` compiled to classic BPF.
//!
//! `profile` reads the configuration and finds what is wrong with it, `decide` says what holds for
//! each number of each architecture, `compile` writes that as instructions. Pure: init installs the
//! program (`sys::seccomp`), at a moment that is init's to know (docs/decisions/0007).

mod arch;
mod compile;
mod decide;
mod profile;
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
use profile::{Action, FIELD, Profile};
use syscalls::Syscall;

use crate::error::{self, Problems};
use crate::sys::seccomp::{Instruction, LONGEST, flag, takes};

/// The filter of a container.
#[derive(Debug)]
pub struct Plan {
    program: Vec<Instruction>,
    flags: u32,
    listener: Option<Listener>,
    summary: String,
}

/// Who is asked about calls with SCMP_ACT_NOTIFY.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// The socket at which it waits for the descriptor to read from.
    pub socket: PathBuf,
    /// What it is told beside.
    pub metadata: String,
}

impl Plan {
    /// The compiled profile, if there is one; what is wrong with it goes to `problems`.
    #[must_use]
    pub fn new(spec: &Spec, problems: &mut Problems) -> Option<Plan> {
        let seccomp = spec.linux().as_ref()?.seccomp().as_ref()?;
        let profile = Profile::new(seccomp, Arch::NATIVE, problems);
        let listener = listener(seccomp, &profile, problems);
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
            flags: flags(seccomp, profile.notifies()),
            summary: summary(&profile),
            program,
            listener,
        })
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

/// The listener, which must be there exactly when it is asked.
fn listener(
    seccomp: &LinuxSeccomp,
    profile: &Profile<'_>,
    problems: &mut Problems,
) -> Option<Listener> {
    let metadata = seccomp.listener_metadata().clone();
    let Some(socket) = seccomp.listener_path().clone() else {
        if metadata.is_some() {
            let message = "is told to a listener: set listenerPath, or remove it";
            problems.add(format!("{FIELD}.listenerMetadata"), message);
        }
        if profile.notifies() {
            let message = "is required with SCMP_ACT_NOTIFY";
            problems.add(format!("{FIELD}.listenerPath"), message);
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

fn flags(seccomp: &LinuxSeccomp, notifies: bool) -> u32 {
    let Some(list) = seccomp.flags() else {
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

/// Whether the architecture that config.json names so, as `SCMP_ARCH_X86`, has a table of calls here.
#[must_use]
pub fn knows_architecture(name: &str) -> bool {
    named(name).and_then(Arch::named).is_some()
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
