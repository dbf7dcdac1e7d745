//! What is decided for each number of an architecture: the rules, in the order in which they count.
//!
//! The order is libseccomp's, so that a profile means here what it means to runc. Where several
//! rules have one system call:
//!
//! - a rule whose action is the default's counts for nothing;
//! - a rule without conditions beats those with conditions, wherever it stands; of two such the
//!   first counts;
//! - rules with conditions are asked from the more special to the more general one (`order`),
//!   whatever their order in the profile; two that differ in nothing but their action contradict
//!   each other.
//!
//! 32-bit x86 makes socket and System V IPC calls in two ways: directly, or as `socketcall` and `ipc`
//! with the call as first argument. A rule for such a call is for both ways. The other arguments are
//! in memory then, where a filter can not see them: a rule with conditions that lets calls pass does
//! not hold for the second way, and one that stops calls stops all of them. (libseccomp lets them
//! all pass, by which 32-bit programs get around a rule on the family of a socket.)

use std::borrow::Cow;
use std::cmp::Ordering;

use super::arch::Arch;
use super::profile::{Action, Condition, Profile, Rule, Test};
use super::syscalls::{self, Multiplexer};

/// What is decided for a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Decision {
    /// The same whatever the arguments are.
    Always(Action),
    /// That of the first list of conditions that hold, else the default.
    ByArguments {
        /// In the order in which they are asked.
        lists: Vec<(Vec<Condition>, Action)>,
        /// Arguments have 32 bits.
        narrow: bool,
    },
}

/// Numbers from `from` on, up to the next range.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub from: u32,
    pub decision: Decision,
}

/// Two rules of the profile, by index, of which each wants something else for the same calls.
pub(super) struct Contradiction {
    pub rule: usize,
    pub earlier: usize,
}

/// Numbers of x32 have this bit (`__X32_SYSCALL_BIT`).
pub(super) const X32: u32 = 0x4000_0000;

/// What a tracer makes of the number of a call that is to be left out: no call that is too new.
const NO_NUMBER: u32 = u32::MAX;

/// The decisions for all numbers that the kernel can give for an architecture; x86_64 has those of
/// x32 among its own.
pub(super) fn ranges(
    profile: &Profile<'_>,
    arch: Arch,
    contradictions: &mut Vec<Contradiction>,
) -> Vec<Range> {
    let mut ranges = Ranges(Vec::new());
    ranges.add(profile, arch, 0, contradictions);
    if arch == Arch::X86_64 {
        if profile.archs.contains(&Arch::X32) {
            ranges.add(profile, Arch::X32, X32, contradictions);
        } else {
            ranges.push(X32, Decision::Always(Action::KILL_THREAD));
        }
    }
    ranges.push(NO_NUMBER, Decision::Always(profile.default));
    ranges.0
}

struct Ranges(Vec<Range>);

impl Ranges {
    /// Appends the calls of `arch`, whose numbers begin at `base`.
    fn add(
        &mut self,
        profile: &Profile<'_>,
        arch: Arch,
        base: u32,
        contradictions: &mut Vec<Contradiction>,
    ) {
        let entries = Entries::of(profile, arch);
        // A call that is newer than the profile does not exist, which programs know to deal with,
        // rather than being forbidden.
        let newer = match profile.default.lets_pass() {
            true => profile.default,
            false => Action::NO_SUCH_CALL,
        };
        let newest = entries.largest.map_or(u32::MAX, |largest| base + largest);
        // What no rule is for, from `from` to `to`; ARM's own calls are far beyond the others.
        let rest = |ranges: &mut Ranges, from: u32, to: u32| {
            if from < to && from <= newest {
                ranges.push(from, Decision::Always(profile.default));
            }
            if to > newest && from.max(newest + 1) < to {
                ranges.push(from.max(newest + 1), Decision::Always(newer));
            }
        };
        let mut next = base;
        for (number, call) in entries.calls() {
            let number = base + number;
            rest(self, next, number);
            self.push(number, decide(call, arch, contradictions));
            next = number + 1;
        }
        rest(self, next, u32::MAX);
    }

    /// Appends a range, or makes the last one longer.
    fn push(&mut self, from: u32, decision: Decision) {
        if self.0.last().is_none_or(|last| last.decision != decision) {
            self.0.push(Range { from, decision });
        }
    }
}

/// One list of conditions of one rule.
struct Entry<'p> {
    rule: usize,
    action: Action,
    conditions: Cow<'p, [Condition]>,
}

/// What the profile says of an architecture's calls.
struct Entries<'p> {
    /// In the profile's order.
    all: Vec<Entry<'p>>,
    /// Each number, and in the lower half the place of an entry; in order.
    by_number: Vec<u64>,
    /// The largest number that the profile names, with or without effect.
    largest: Option<u32>,
}

impl<'p> Entries<'p> {
    fn of(profile: &'p Profile<'_>, arch: Arch) -> Entries<'p> {
        let names = profile.rules.iter().map(|rule| rule.calls.len()).sum();
        let mut entries = Entries {
            all: Vec::with_capacity(profile.rules.len()),
            by_number: Vec::with_capacity(names),
            largest: None,
        };
        for (index, rule) in profile.rules.iter().enumerate() {
            let effective = rule.action != profile.default;
            let first = entries.all.len();
            entries
                .all
                .extend(rule.alternatives.iter().map(|list| Entry {
                    rule: index,
                    action: rule.action,
                    conditions: Cow::Borrowed(list),
                }));
            for call in &rule.calls {
                let Some(number) = call.number(arch) else {
                    continue;
                };
                if !syscalls::is_private(number) {
                    entries.largest = entries.largest.max(Some(number));
                }
                if effective {
                    (0..rule.alternatives.len()).for_each(|i| entries.add(number, first + i));
                }
            }
            if effective && arch == Arch::X86 {
                entries.add_multiplexed(index, rule);
            }
        }
        entries.by_number.sort_unstable();
        entries
    }

    fn add(&mut self, number: u32, place: usize) {
        self.by_number.push(u64::from(number) << 32 | place as u64);
    }

    /// The calls of a rule that 32-bit x86 also makes through another one.
    fn add_multiplexed(&mut self, index: usize, rule: &Rule<'_>) {
        if rule.action.lets_pass() && rule.alternatives.iter().any(|list| !list.is_empty()) {
            return;
        }
        for (through, call) in rule.calls.iter().filter_map(|call| call.multiplexed()) {
            // Above 16 bits `ipc` has a version of the call.
            let bits = match through {
                Multiplexer::Socketcall => u64::MAX,
                Multiplexer::Ipc => 0xffff,
            };
            let first = Condition {
                index: 0,
                test: Test::Equal(bits),
                value: call,
            };
            self.add(through.number(), self.all.len());
            self.all.push(Entry {
                rule: index,
                action: rule.action,
                conditions: Cow::Owned(vec![first]),
            });
        }
    }

    /// Each number with its entries.
    fn calls(&self) -> impl Iterator<Item = (u32, impl Iterator<Item = &Entry<'p>> + Clone)> {
        let same = self.by_number.chunk_by(|a, b| a >> 32 == b >> 32);
        same.map(move |keys| {
            let place = |key: &u64| (*key & u64::from(u32::MAX)) as usize;
            let entries = keys.iter().map(move |key| &self.all[place(key)]);
            ((keys[0] >> 32) as u32, entries)
        })
    }
}

/// The decision for one number, of whose entries there is at least one.
fn decide<'e>(
    entries: impl Iterator<Item = &'e Entry<'e>> + Clone,
    arch: Arch,
    contradictions: &mut Vec<Contradiction>,
) -> Decision {
    if let Some(entry) = entries.clone().find(|entry| entry.conditions.is_empty()) {
        return Decision::Always(entry.action);
    }
    let mut entries: Vec<_> = entries.collect();
    entries.sort_by(|a, b| order(&a.conditions, &b.conditions));
    for (place, entry) in entries.iter().enumerate() {
        let before = entries[..place].iter().rev();
        let mut near = before.take_while(|e| order(&e.conditions, &entry.conditions).is_eq());
        if let Some(earlier) = near.find(|earlier| earlier.conditions == entry.conditions)
            && earlier.action != entry.action
        {
            let (rule, earlier) = (entry.rule, earlier.rule);
            contradictions.push(Contradiction { rule, earlier });
        }
    }
    entries.dedup_by(|a, b| a.conditions == b.conditions);
    let lists = entries.into_iter();
    Decision::ByArguments {
        lists: lists
            .map(|entry| (entry.conditions.to_vec(), entry.action))
            .collect(),
        narrow: arch.is_narrow(),
    }
}

/// Which of two lists of conditions is asked first, as libseccomp orders its tree: by the first
/// condition in which they differ; a list that is the beginning of another comes before it, which
/// then never counts.
fn order(a: &[Condition], b: &[Condition]) -> Ordering {
    let differing = a.iter().zip(b).map(|(a, b)| rank(a).cmp(&rank(b)));
    let first = differing.into_iter().find(|found| found.is_ne());
    first.unwrap_or_else(|| a.len().cmp(&b.len()))
}

/// The larger argument first; equality before "less" before "greater"; the narrower range first.
fn rank(condition: &Condition) -> (usize, u8, u64) {
    let (kind, value) = match condition.test {
        Test::Equal(_) | Test::NotEqual => (0, !condition.value),
        Test::Less | Test::LessOrEqual => (1, condition.value),
        Test::GreaterOrEqual | Test::Greater => (2, !condition.value),
    };
    (super::profile::ARGUMENTS - condition.index, kind, value)
}
