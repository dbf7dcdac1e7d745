//! From decisions to classic BPF: which architecture, then a balanced tree over the numbers.
//!
//! The tree is small, and equal neighbours are one leaf: the kernel runs a new filter once for each
//! number to find those that are always allowed, so that what a filter costs to install is the way
//! through it. A conditional jump reaches 255 instructions; where a target lies beyond, a long jump
//! stands beside it.

use super::arch::Arch;
use super::decide::{self, Contradiction, Decision, Range};
use super::profile::{Action, Condition, Profile, Test};
use crate::sys::seccomp::{Instruction, LONGEST};

// Operations of linux/bpf_common.h.
const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
const JUMP: u16 = 0x05; // BPF_JMP | BPF_JA
const IF_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const IF_GREATER: u16 = 0x25; // BPF_JMP | BPF_JGT | BPF_K
const IF_AT_LEAST: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
const RETURN: u16 = 0x06; // BPF_RET | BPF_K

/// Places in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGS: u32 = 16;
/// Its size.
const DATA: u32 = 64;

/// How far a conditional jump reaches.
const REACH: usize = u8::MAX as usize;

/// The program for a profile.
pub(super) fn compile(
    profile: &Profile<'_>,
    contradictions: &mut Vec<Contradiction>,
) -> Vec<Instruction> {
    let mut program = Assembler {
        backwards: Vec::new(),
        answers: Vec::new(),
        default: profile.default,
        narrow: false,
    };
    let mut others = program.answer(Action::KILL_THREAD);
    // The program's own architecture is the first in the list, and the first to be asked for.
    for arch in profile.archs.iter().rev().filter(|a| **a != Arch::X32) {
        let ranges = decide::ranges(profile, *arch, contradictions);
        let section = program.section(&ranges);
        others = program.branch(IF_EQUAL, arch.audit(), section, others);
    }
    program.load(ARCH);
    program.backwards.reverse();
    program.backwards
}

/// Builds a program from its end, so that the target of each jump is known when it is made.
struct Assembler {
    /// The last instruction first.
    backwards: Vec<Instruction>,
    /// The newest instruction for each answer.
    answers: Vec<(Action, Target)>,
    default: Action,
    /// Arguments of the call at hand have 32 bits.
    narrow: bool,
}

/// An instruction that is jumped to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Target(usize);

impl Assembler {
    fn push(&mut self, code: u16, jump_true: usize, jump_false: usize, k: u32) -> Target {
        self.backwards.push(Instruction {
            code,
            // `reach` keeps both within 255.
            jump_true: jump_true as u8,
            jump_false: jump_false as u8,
            k,
        });
        Target(self.backwards.len() - 1)
    }

    /// How many instructions the next one would jump over.
    fn distance(&self, target: Target) -> usize {
        self.backwards.len() - 1 - target.0
    }

    fn load(&mut self, place: u32) -> Target {
        self.push(LOAD, 0, 0, place)
    }

    /// An instruction that ends the program with this answer.
    fn answer(&mut self, action: Action) -> Target {
        let known = self.answers.iter().find(|(known, _)| *known == action);
        match known {
            Some((_, target)) if self.distance(*target) < REACH / 2 => *target,
            Some(_) | None => {
                let target = self.push(RETURN, 0, 0, action.0);
                self.answers.retain(|(known, _)| *known != action);
                self.answers.push((action, target));
                target
            }
        }
    }

    /// A target that stands for this one and is reached even from `spare` instructions further on.
    fn reach(&mut self, target: Target, spare: usize) -> Target {
        let distance = self.distance(target);
        if distance + spare <= REACH {
            return target;
        }
        let there = self.backwards[target.0];
        match there.code {
            RETURN => self.push(RETURN, 0, 0, there.k),
            _ => self.push(JUMP, 0, 0, distance as u32),
        }
    }

    /// `if test(k) goto yes else goto no`
    fn branch(&mut self, test: u16, k: u32, yes: Target, no: Target) -> Target {
        if yes == no {
            return yes;
        }
        let yes = self.reach(yes, 1); // what `no` may need stands between
        let no = self.reach(no, 0);
        let (yes, no) = (self.distance(yes), self.distance(no));
        self.push(test, yes, no, k)
    }

    /// Loads the number, and decides on it.
    fn section(&mut self, ranges: &[Range]) -> Target {
        let root = self.tree(ranges);
        let distance = self.distance(root);
        if distance > 0 {
            self.push(JUMP, 0, 0, distance as u32);
        }
        self.load(NUMBER)
    }

    /// Finds the range by halving.
    fn tree(&mut self, ranges: &[Range]) -> Target {
        if let [only] = ranges {
            return match &only.decision {
                Decision::Always(action) => self.answer(*action),
                Decision::ByArguments { lists, narrow } => {
                    self.narrow = *narrow;
                    self.by_arguments(lists)
                }
            };
        }
        let (low, high) = ranges.split_at(ranges.len() / 2);
        let from = high[0].from;
        let high = self.tree(high);
        let low = self.tree(low);
        self.branch(IF_AT_LEAST, from, high, low)
    }

    /// The answer of the first list that holds, else the default.
    fn by_arguments(&mut self, lists: &[(Vec<Condition>, Action)]) -> Target {
        let mut next = self.answer(self.default);
        for (conditions, action) in lists.iter().rev() {
            let mut yes = self.answer(*action);
            for condition in conditions.iter().rev() {
                yes = self.condition(condition, yes, next);
            }
            next = yes;
        }
        next
    }

    fn condition(&mut self, condition: &Condition, yes: Target, no: Target) -> Target {
        if yes == no {
            return yes;
        }
        let low = ARGS + 8 * condition.index as u32;
        let value = match self.narrow {
            true => narrowed(condition.value),
            false => condition.value,
        };
        match condition.test {
            Test::Equal(bits) => self.equal(low, bits, value, yes, no),
            Test::NotEqual => self.equal(low, u64::MAX, value, no, yes),
            Test::Greater => self.greater(IF_GREATER, low, value, yes, no),
            Test::LessOrEqual => self.greater(IF_GREATER, low, value, no, yes),
            Test::GreaterOrEqual => self.greater(IF_AT_LEAST, low, value, yes, no),
            Test::Less => self.greater(IF_AT_LEAST, low, value, no, yes),
        }
    }

    /// `argument & bits == value`
    fn equal(&mut self, place: u32, bits: u64, value: u64, yes: Target, no: Target) -> Target {
        if self.narrow {
            return match value >> 32 {
                0 => self.half_equal(place, bits as u32, value as u32, yes, no),
                _ => no,
            };
        }
        let low = self.half_equal(place, bits as u32, value as u32, yes, no);
        let upper = |number: u64| (number >> 32) as u32;
        self.half_equal(place + 4, upper(bits), upper(value), low, no)
    }

    fn half_equal(&mut self, place: u32, bits: u32, value: u32, yes: Target, no: Target) -> Target {
        if bits == 0 {
            return yes; // `value` has no bit outside `bits`
        }
        self.branch(IF_EQUAL, value, yes, no);
        if bits != u32::MAX {
            self.push(AND, 0, 0, bits);
        }
        self.load(place)
    }

    /// `argument > value`, or `>=` by `test`; the upper halves decide unless they are equal.
    fn greater(&mut self, test: u16, place: u32, value: u64, yes: Target, no: Target) -> Target {
        let upper = (value >> 32) as u32;
        if self.narrow && upper > 0 {
            return no;
        }
        self.branch(test, value as u32, yes, no);
        let low = self.load(place);
        if self.narrow {
            return low;
        }
        let equal = self.branch(IF_EQUAL, upper, low, no);
        self.branch(IF_GREATER, upper, yes, equal);
        self.load(place + 4)
    }
}

/// Whether a program that was kept somewhere can be one of [`compile`]: it has its instructions only, ends
/// wherever it goes, reads nothing but what a call is, and asks nobody.
pub(super) fn is_program(program: &[Instruction]) -> bool {
    let ends = program.last().is_some_and(|one| one.code == RETURN);
    let is_sound = |(place, one): (usize, &Instruction)| {
        let left = program.len() - 1 - place;
        match one.code {
            LOAD => one.k.is_multiple_of(4) && one.k < DATA,
            AND => true,
            JUMP => (one.k as usize) < left,
            IF_EQUAL | IF_GREATER | IF_AT_LEAST => {
                usize::from(one.jump_true.max(one.jump_false)) < left
            }
            RETURN => one.k & 0xffff_0000 != Action::NOTIFY.0,
            _ => false,
        }
    };
    ends && program.len() <= LONGEST && program.iter().enumerate().all(is_sound)
}

/// A value as an argument of 32 bits has it: a negative number is one there too. Another one that
/// needs more bits stays, and is larger than every argument.
fn narrowed(value: u64) -> u64 {
    match i32::try_from(value.cast_signed()) {
        Ok(negative) if negative < 0 => negative.cast_unsigned().into(),
        Ok(_) | Err(_) => value,
    }
}
