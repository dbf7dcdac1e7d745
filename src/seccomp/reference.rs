//! What a filter answers, found in two ways that share nothing with the compiler: by an interpreter of
//! its instructions in place of the kernel, and by reading the profile rule by rule.
//!
//! For tests and fuzz targets alone.

use super::arch::Arch;
use super::decide::X32;
use super::profile::{Action, Condition, Profile, Rule, Test};
use super::syscalls::{Multiplexer, Syscall};
use crate::sys::seccomp::Instruction;

/// A system call as a filter sees it (`struct seccomp_data`).
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    number: u32,
    arch: u32,
    args: [u64; 6],
}

impl Call {
    pub(super) fn new(arch: Arch, number: u32, args: [u64; 6]) -> Call {
        let bit = if arch == Arch::X32 { X32 } else { 0 };
        Call {
            number: number | bit,
            arch: arch.audit(),
            args,
        }
    }

    fn word(&self, place: u32) -> u32 {
        let half = |arg: u64| [arg as u32, (arg >> 32) as u32];
        match place {
            0 => self.number,
            4 => self.arch,
            16..64 => {
                assert_eq!(place % 4, 0, "place {place} is between two words");
                let word = (place as usize - 16) / 4;
                half(self.args[word / 2])[word % 2]
            }
            _ => panic!("place {place} is outside what a filter is for"),
        }
    }
}

/// What the kernel's interpreter makes of a program: the answer, and in how many steps.
pub(super) fn run(program: &[Instruction], call: &Call) -> (Action, usize) {
    let (mut at, mut accumulator, mut steps) = (0, 0, 0);
    loop {
        let Instruction {
            code,
            jump_true,
            jump_false,
            k,
        } = program[at];
        at += 1;
        steps += 1;
        let mut jump_if =
            |holds: bool| at += usize::from(if holds { jump_true } else { jump_false });
        match code {
            0x20 => accumulator = call.word(k),
            0x54 => accumulator &= k,
            0x05 => at += k as usize,
            0x15 => jump_if(accumulator == k),
            0x25 => jump_if(accumulator > k),
            0x35 => jump_if(accumulator >= k),
            0x06 => return (Action(k), steps),
            _ => panic!("instruction {code:#x} is none that the compiler makes"),
        }
    }
}

/// The profile read as its text says, rule by rule, for one call.
pub(super) fn plainly(profile: &Profile<'_>, arch: Arch, number: u32, args: [u64; 6]) -> Action {
    if !profile.archs.contains(&arch) {
        return Action::KILL_THREAD;
    }
    let found = rules_on(profile, arch, number);
    if let Some((_, action)) = found.iter().find(|(list, _)| list.is_empty()) {
        return *action;
    }
    let holds = |list: &[Condition]| list.iter().all(|c| compare(c, args[c.index], arch));
    let matching = found.iter().filter(|(list, _)| holds(list));
    if let Some((_, action)) = matching.min_by_key(|(list, _)| special(list)) {
        return *action;
    }
    let named = profile.rules.iter().flat_map(|rule| rule.names);
    let numbers = named.filter_map(|name| Syscall::named(name)?.number(arch));
    let newest = numbers.filter(|number| *number < 0xf_0000).max();
    match newest {
        Some(newest) if number > newest && found.is_empty() && !profile.default.lets_pass() => {
            Action::NO_SUCH_CALL
        }
        Some(_) | None => profile.default,
    }
}

/// The lists of conditions for a number, with their actions, in the profile's order.
fn rules_on(profile: &Profile<'_>, arch: Arch, number: u32) -> Vec<(Vec<Condition>, Action)> {
    let is_named = |name: &str| Syscall::named(name).and_then(|c| c.number(arch)) == Some(number);
    let effective = |rule: &&Rule<'_>| rule.action != profile.default;
    let mut found = Vec::new();
    for rule in profile.rules.iter().filter(effective) {
        for name in rule.names {
            if is_named(name) {
                let lists = rule.alternatives.iter().cloned();
                found.extend(lists.map(|list| (list, rule.action)));
            }
            // 32-bit x86 makes some calls also through another one.
            let through = Syscall::named(name).and_then(|call| call.multiplexed());
            let through = through.filter(|(by, _)| arch == Arch::X86 && by.number() == number);
            let through = through.map(|(by, call)| match by {
                Multiplexer::Socketcall => (u64::MAX, call),
                Multiplexer::Ipc => (0xffff, call),
            });
            let plain = rule.alternatives.iter().all(Vec::is_empty);
            if let Some((bits, value)) = through
                && (!rule.action.lets_pass() || plain)
            {
                let (index, test) = (0, Test::Equal(bits));
                found.push((vec![Condition { index, test, value }], rule.action));
            }
        }
    }
    found
}

fn compare(condition: &Condition, arg: u64, arch: Arch) -> bool {
    let lower = |number: u64| number & 0xffff_ffff;
    let (arg, value) = match (arch.is_narrow(), condition.value) {
        // -1 is -1 in 32 bits, too.
        (true, value @ 0xffff_ffff_8000_0000..) => (lower(arg), lower(value)),
        (true, value) => (lower(arg), value),
        (false, value) => (arg, value),
    };
    match condition.test {
        Test::NotEqual => arg != value,
        Test::Less => arg < value,
        Test::LessOrEqual => arg <= value,
        Test::Equal(bits) => arg & bits == value,
        Test::GreaterOrEqual => arg >= value,
        Test::Greater => arg > value,
    }
}

/// The most special first.
fn special(list: &[Condition]) -> Vec<(usize, u8, u64)> {
    let special = |condition: &Condition| {
        let argument = 5 - condition.index;
        match condition.test {
            Test::Equal(_) | Test::NotEqual => (argument, 0, u64::MAX - condition.value),
            Test::Less | Test::LessOrEqual => (argument, 1, condition.value),
            Test::Greater | Test::GreaterOrEqual => (argument, 2, u64::MAX - condition.value),
        }
    };
    list.iter().map(special).collect()
}
