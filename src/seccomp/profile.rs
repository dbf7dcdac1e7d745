//! `linux.seccomp` as the compiler takes it, or everything that is wrong with it.
//!
//! Rules mean what they mean to runc: a rule that names one argument twice is a rule for each of its
//! conditions, any of which is enough; else all its conditions must hold.

use std::fmt;

use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator, LinuxSyscall,
};

use super::arch::Arch;
use super::syscalls::Syscall;
use crate::error::Problems;

/// JSON path of the profile.
pub(super) const FIELD: &str = "linux.seccomp";

/// How many arguments a system call has.
pub(super) const ARGUMENTS: usize = 6;

/// How many pairs of a name and a list of conditions are worth compiling: far more than fit into a
/// program, and few enough to be looked at.
const MOST_PAIRS: usize = 1 << 16;

/// The largest errno that a call can answer (MAX_ERRNO of the kernel).
const LARGEST_ERRNO: u32 = 4095;

/// What a filter answers: `SECCOMP_RET_*` of linux/seccomp.h with its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Action(pub u32);

impl Action {
    pub(super) const KILL_THREAD: Action = Action(0x0000_0000);
    pub(super) const KILL_PROCESS: Action = Action(0x8000_0000);
    pub(super) const TRAP: Action = Action(0x0003_0000);
    pub(super) const NOTIFY: Action = Action(0x7fc0_0000);
    pub(super) const LOG: Action = Action(0x7ffc_0000);
    pub(super) const ALLOW: Action = Action(0x7fff_0000);
    pub(super) const NO_SUCH_CALL: Action = Action::errno(38);

    pub(super) const fn errno(number: u32) -> Action {
        Action(0x0005_0000 | number)
    }

    pub(super) const fn trace(data: u32) -> Action {
        Action(0x7ff0_0000 | data)
    }

    /// Whether the call is made, now or as far as a tracer wants it.
    pub(super) fn lets_pass(self) -> bool {
        let class = self.0 & 0xffff_0000;
        self == Action::ALLOW || self == Action::LOG || class == Action::trace(0).0
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let data = self.0 & 0xffff;
        match Action(self.0 & 0xffff_0000) {
            Action::KILL_THREAD => f.write_str("KILL_THREAD"),
            Action::KILL_PROCESS => f.write_str("KILL_PROCESS"),
            Action::TRAP => f.write_str("TRAP"),
            Action::NOTIFY => f.write_str("NOTIFY"),
            Action::LOG => f.write_str("LOG"),
            Action::ALLOW => f.write_str("ALLOW"),
            class if class == Action::errno(0) => write!(f, "ERRNO({data})"),
            _ => write!(f, "TRACE({data})"),
        }
    }
}

/// How an argument is compared with a value of 64 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Test {
    NotEqual,
    Less,
    LessOrEqual,
    /// Only these bits of the argument count.
    Equal(u64),
    GreaterOrEqual,
    Greater,
}

/// A condition on one argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Condition {
    pub index: usize,
    pub test: Test,
    pub value: u64,
}

/// What happens to the calls of some names.
#[derive(Debug)]
pub(super) struct Rule<'a> {
    pub names: &'a [String],
    /// Those of the names that are known.
    pub calls: Vec<Syscall>,
    pub action: Action,
    /// Lists of conditions, in the order of the arguments: it applies when all of one list hold.
    pub alternatives: Vec<Vec<Condition>>,
}

/// A profile without faults.
#[derive(Debug)]
pub(super) struct Profile<'a> {
    /// For calls without a rule.
    pub default: Action,
    /// Those of the profile whose calls this machine can make; the program's own is one of them.
    pub archs: Vec<Arch>,
    /// As in the configuration.
    pub rules: Vec<Rule<'a>>,
}

impl<'a> Profile<'a> {
    /// The profile on a machine of architecture `native`; what is wrong with it goes to `problems`.
    pub(super) fn new(
        seccomp: &'a LinuxSeccomp,
        native: Arch,
        problems: &mut Problems,
    ) -> Profile<'a> {
        let action = (seccomp.default_action(), seccomp.default_errno_ret());
        let default = action_of(action, FIELD, "defaultErrnoRet", problems);
        if default == Action::NOTIFY {
            let why = "SCMP_ACT_NOTIFY can not be the default: init itself would wait for an \
                 answer before anybody can give one";
            problems.add(format!("{FIELD}.defaultAction"), why);
        }
        let rules = seccomp.syscalls().iter().flatten().enumerate();
        let mut rules: Vec<Rule<'_>> = rules
            .map(|(index, rule)| Rule::new(index, rule, problems))
            .collect();
        let pairs = rules.iter().fold(0_usize, |sum, rule| {
            sum.saturating_add(rule.names.len().saturating_mul(rule.alternatives.len()))
        });
        if pairs > MOST_PAIRS {
            let message = format!("{pairs} pairs of a name and a condition are too many");
            problems.add(format!("{FIELD}.syscalls"), message);
            rules.clear();
        }
        Profile {
            default,
            rules,
            archs: archs(seccomp, native),
        }
    }

    /// Whether some call is decided by somebody who listens.
    pub(super) fn notifies(&self) -> bool {
        self.rules.iter().any(|rule| rule.action == Action::NOTIFY)
    }
}

fn archs(seccomp: &LinuxSeccomp, native: Arch) -> Vec<Arch> {
    let mut found = vec![native];
    for name in seccomp.architectures().iter().flatten() {
        match Arch::named(*name) {
            Some(arch) if found.contains(&arch) => {}
            // Of others this kernel gets no calls, so that nothing is to be decided.
            Some(arch) if arch.runs_beside(native) => found.push(arch),
            Some(_) | None => {}
        }
    }
    found
}

impl<'a> Rule<'a> {
    fn new(index: usize, rule: &'a LinuxSyscall, problems: &mut Problems) -> Rule<'a> {
        let path = format!("{FIELD}.syscalls[{index}]");
        if rule.names().is_empty() {
            problems.add(format!("{path}.names"), "must name a system call");
        }
        for (i, name) in rule.names().iter().enumerate() {
            if name.is_empty() {
                let path = format!("{path}.names[{i}]");
                problems.add(path, "must name a system call, is \"\"");
            }
        }
        let action = (rule.action(), rule.errno_ret());
        let action = action_of(action, &path, "errnoRet", problems);
        let args = rule.args().as_deref().unwrap_or_default();
        for (i, arg) in args.iter().enumerate() {
            if arg.index() >= ARGUMENTS {
                let message = format!("must be at most {}, is {}", ARGUMENTS - 1, arg.index());
                problems.add(format!("{path}.args[{i}].index"), message);
            }
        }
        Rule {
            names: rule.names(),
            calls: rule
                .names()
                .iter()
                .filter_map(|n| Syscall::named(n))
                .collect(),
            action,
            alternatives: alternatives(args),
        }
    }
}

fn action_of(
    (action, data): (LinuxSeccompAction, Option<u32>),
    path: &str,
    field: &str,
    problems: &mut Problems,
) -> Action {
    const EPERM: u32 = 1;
    let mut at_most = |largest: u32| {
        let data = data.unwrap_or(EPERM);
        if data > largest {
            let message = format!("must be at most {largest}, is {data}");
            problems.add(format!("{path}.{field}"), message);
        }
        data.min(largest)
    };
    let plain = match action {
        LinuxSeccompAction::ScmpActErrno => return Action::errno(at_most(LARGEST_ERRNO)),
        LinuxSeccompAction::ScmpActTrace => return Action::trace(at_most(u16::MAX.into())),
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => {
            Action::KILL_THREAD
        }
        LinuxSeccompAction::ScmpActKillProcess => Action::KILL_PROCESS,
        LinuxSeccompAction::ScmpActTrap => Action::TRAP,
        LinuxSeccompAction::ScmpActNotify => Action::NOTIFY,
        LinuxSeccompAction::ScmpActLog => Action::LOG,
        LinuxSeccompAction::ScmpActAllow => Action::ALLOW,
    };
    if data.is_some() {
        // config-linux.md: "When the action doesn't support an errno, the runtime MUST ... fail".
        let message = "is for SCMP_ACT_ERRNO and SCMP_ACT_TRACE only: remove it";
        problems.add(format!("{path}.{field}"), message);
    }
    plain
}

fn alternatives(args: &[LinuxSeccompArg]) -> Vec<Vec<Condition>> {
    let mut all: Vec<Condition> = args.iter().map(condition).collect();
    all.sort_by_key(|condition| condition.index);
    if all.windows(2).any(|two| two[0].index == two[1].index) {
        return all.into_iter().map(|condition| vec![condition]).collect();
    }
    vec![all]
}

fn condition(arg: &LinuxSeccompArg) -> Condition {
    let value = arg.value();
    let (test, value) = match arg.op() {
        LinuxSeccompOperator::ScmpCmpNe => (Test::NotEqual, value),
        LinuxSeccompOperator::ScmpCmpLt => (Test::Less, value),
        LinuxSeccompOperator::ScmpCmpLe => (Test::LessOrEqual, value),
        LinuxSeccompOperator::ScmpCmpEq => (Test::Equal(u64::MAX), value),
        LinuxSeccompOperator::ScmpCmpGe => (Test::GreaterOrEqual, value),
        LinuxSeccompOperator::ScmpCmpGt => (Test::Greater, value),
        // `value` is the mask; bits of the other value outside it are left out, as in libseccomp.
        LinuxSeccompOperator::ScmpCmpMaskedEq => {
            (Test::Equal(value), arg.value_two().unwrap_or(0) & value)
        }
    };
    Condition {
        // A larger one is told as a problem, and the program is not used.
        index: arg.index().min(ARGUMENTS - 1),
        test,
        value,
    }
}
