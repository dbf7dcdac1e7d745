//! One rule of `linux.resources.devices`: parsed, compared with others, and those given to all.
//!
//! Leaves to `devices` which rules are in force together.

use std::fmt;

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

use super::FIELD;
use crate::error::Problems;

/// Kinds of access, as the kernel counts them (BPF_DEVCG_ACC_* of linux/bpf.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Access(pub(super) u32);

impl Access {
    /// mknod(2)
    pub const MAKE: Access = Access(1);
    /// open(2) for reading
    pub const READ: Access = Access(2);
    /// open(2) for writing
    pub const WRITE: Access = Access(4);
    /// Everything.
    pub const ALL: Access = Access(7);

    /// The letters as config.json has them; None when one is unknown or there is none.
    fn parse(letters: &str) -> Option<Access> {
        let bits = letters.chars().try_fold(0, |bits, letter| match letter {
            'r' => Some(bits | Access::READ.0),
            'w' => Some(bits | Access::WRITE.0),
            'm' => Some(bits | Access::MAKE.0),
            _ => None,
        })?;
        (bits != 0).then_some(Access(bits))
    }
}

/// What a rule's type names (BPF_DEVCG_DEV_* of linux/bpf.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// `a`
    Any,
    /// `b`
    Block,
    /// `c`
    Char,
}

/// One rule. A number that is None stands for all numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    /// Block or character devices, or both.
    pub kind: Kind,
    /// The driver's number.
    pub major: Option<u32>,
    /// The device's number within the driver.
    pub minor: Option<u32>,
    /// The kinds of access that this rule decides.
    pub access: Access,
    /// Its decision.
    pub allow: bool,
}

pub(super) const fn allow(
    kind: Kind,
    major: Option<u32>,
    minor: Option<u32>,
    access: Access,
) -> Rule {
    Rule {
        kind,
        major,
        minor,
        access,
        allow: true,
    }
}

const fn allow_char(major: u32, minor: Option<u32>) -> Rule {
    allow(Kind::Char, Some(major), minor, Access::ALL)
}

/// What every container may use: `AllowedDevices` of runc (libcontainer/specconv), which crun's
/// `default_devices` (cgroup-resources.c) repeats, with 5:1 in addition.
pub(super) const DEFAULT_RULES: [Rule; 11] = [
    allow(Kind::Any, None, None, Access::MAKE), // a node is no use without an open
    allow_char(1, Some(3)),                     // null
    allow_char(1, Some(5)),                     // zero
    allow_char(1, Some(7)),                     // full
    allow_char(1, Some(8)),                     // random
    allow_char(1, Some(9)),                     // urandom
    allow_char(5, Some(0)),                     // tty
    allow_char(5, Some(1)),                     // console
    allow_char(5, Some(2)),                     // ptmx
    allow_char(136, None),                      // pts/*
    allow_char(10, Some(200)),                  // net/tun: runc 1.2 left it out and put it back
];

impl Rule {
    pub(super) fn parse(
        index: usize,
        rule: &LinuxDeviceCgroup,
        problems: &mut Problems,
    ) -> Option<Rule> {
        let mut refuse = |key: &str, message: String| {
            problems.add(format!("{FIELD}[{index}].{key}"), message);
        };
        let kind = match rule.typ().unwrap_or_default() {
            LinuxDeviceType::A => Some(Kind::Any),
            LinuxDeviceType::B => Some(Kind::Block),
            LinuxDeviceType::C => Some(Kind::Char),
            other @ (LinuxDeviceType::U | LinuxDeviceType::P) => {
                refuse(
                    "type",
                    format!("must be a, b or c, is \"{}\"", other.as_str()),
                );
                None
            }
        };
        let mut number = |key: &str, number: Option<i64>| match number {
            None | Some(-1) => Some(None),
            Some(number) => u32::try_from(number).map(Some).ok().or_else(|| {
                refuse(
                    key,
                    format!("must be 0 to {}, or -1 for all, is {number}", u32::MAX),
                );
                None
            }),
        };
        let (major, minor) = (number("major", rule.major()), number("minor", rule.minor()));
        let letters = rule.access().as_deref().unwrap_or_default();
        let access = Access::parse(letters).or_else(|| {
            refuse(
                "access",
                format!("must be one or more of r, w and m, is \"{letters}\""),
            );
            None
        });
        let (major, minor) = (major?, minor?);
        Some(Rule {
            kind: kind?,
            major,
            minor,
            access: access?,
            allow: rule.allow(),
        })
    }

    pub(super) fn is_everything(&self) -> bool {
        self.covers(&allow(Kind::Any, None, None, Access::ALL))
    }

    /// True when this rule decides whatever `other` decides.
    pub(super) fn covers(&self, other: &Rule) -> bool {
        (self.kind == Kind::Any || self.kind == other.kind)
            && (self.major.is_none() || self.major == other.major)
            && (self.minor.is_none() || self.minor == other.minor)
            && self.access.0 & other.access.0 == other.access.0
    }
}

impl fmt::Display for Rule {
    /// As the devices.allow file of cgroup v1: "c 1:3 rwm".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Any => 'a',
            Kind::Block => 'b',
            Kind::Char => 'c',
        };
        let number = |n: Option<u32>| n.map_or("*".to_owned(), |n| n.to_string());
        write!(f, "{kind} {}:{} ", number(self.major), number(self.minor))?;
        let letters = [
            (Access::READ, 'r'),
            (Access::WRITE, 'w'),
            (Access::MAKE, 'm'),
        ];
        let mut given = letters.iter().filter(|(bit, _)| self.access.0 & bit.0 != 0);
        given.try_for_each(|(_, letter)| write!(f, "{letter}"))
    }
}
