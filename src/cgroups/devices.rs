//! Which devices a container may use: an eBPF program made from `linux.resources.devices`.
//!
//! Nothing is allowed unless a rule says so. The default devices of runc and crun come after the
//! rules of the configuration and so can not be denied. Each kind of access that a process asks
//! for is decided by the last rule that names the device and this access, and all must be
//! allowed: denying `w` also stops an open for reading and writing, which a rule-by-rule
//! comparison (crun, and runc below an "allow all") would let through.
//!
//! A rule means what it says, also with type `a`: numbers and access narrow it, where runc takes
//! every such rule as "all devices, all access".

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result};
use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

use crate::error::Problems;
use crate::sys::bpf::{self, Insn, Register, Test};

/// JSON path of the rules.
const FIELD: &str = "linux.resources.devices";

/// Kinds of access, as the kernel counts them (BPF_DEVCG_ACC_* of linux/bpf.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Access(u32);

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

const fn allow(kind: Kind, major: Option<u32>, minor: Option<u32>, access: Access) -> Rule {
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
const DEFAULT_RULES: [Rule; 11] = [
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
    fn parse(index: usize, rule: &LinuxDeviceCgroup, problems: &mut Problems) -> Option<Rule> {
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

    fn is_everything(&self) -> bool {
        self.covers(&allow(Kind::Any, None, None, Access::ALL))
    }

    /// True when this rule decides whatever `other` decides.
    fn covers(&self, other: &Rule) -> bool {
        (self.kind == Kind::Any || self.kind == other.kind)
            && (self.major.is_none() || self.major == other.major)
            && (self.minor.is_none() || self.minor == other.minor)
            && self.access.0 & other.access.0 == other.access.0
    }
}

/// The rules in force, without those that change nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// What holds where no rule does.
    otherwise: bool,
    /// Rules with one decision each, the later ones stronger; decisions alternate, so the order
    /// within one is free.
    runs: Vec<Vec<Rule>>,
}

impl Filter {
    /// The filter for the configuration's rules and the default ones.
    pub(super) fn plan(rules: &[LinuxDeviceCgroup], problems: &mut Problems) -> Filter {
        let rules = rules
            .iter()
            .enumerate()
            .filter_map(|(i, r)| Rule::parse(i, r, problems));
        let rules: Vec<Rule> = rules.chain(DEFAULT_RULES).collect();
        let filter = Filter::new(&rules);
        if i16::try_from(filter.program().len()).is_err() {
            problems.add(
                FIELD,
                format!("{} rules are too many for one program", rules.len()),
            );
        }
        filter
    }

    /// Sorts the rules into runs, and drops what later or wider ones overrule.
    #[must_use]
    pub fn new(rules: &[Rule]) -> Filter {
        let last_of_all = rules.iter().rposition(Rule::is_everything);
        let otherwise = last_of_all.is_some_and(|place| rules[place].allow);
        let rules = &rules[last_of_all.map_or(0, |place| place + 1)..];
        let mut filter = Filter {
            otherwise,
            runs: Vec::new(),
        };
        for (i, rule) in rules.iter().enumerate() {
            if rules[i + 1..].iter().any(|later| later.covers(rule)) {
                continue;
            }
            match filter.runs.last_mut() {
                Some(run) if run[0].allow == rule.allow => run.push(*rule),
                None if filter.otherwise == rule.allow => {}
                Some(_) | None => filter.runs.push(vec![*rule]),
            }
        }
        for run in &mut filter.runs {
            run.sort_unstable();
            // No rule is there twice: an equal later one has taken its place above.
            let wider = |rule: &Rule| run.iter().any(|other| other != rule && other.covers(rule));
            *run = run.iter().filter(|rule| !wider(rule)).copied().collect();
        }
        filter
    }

    /// True when there is nothing to decide: every access is allowed.
    #[must_use]
    pub fn allows_everything(&self) -> bool {
        self.otherwise && self.runs.is_empty()
    }

    /// The program that decides as these rules do.
    #[must_use]
    pub fn program(&self) -> Vec<Insn> {
        let mut program = Assembler::default();
        for run in self.runs.iter().rev() {
            program.run(run);
        }
        program.finish(self.otherwise)
    }

    /// Loads the program into the kernel; None when none is needed.
    pub(super) fn load(&self) -> Result<Option<OwnedFd>> {
        if self.allows_everything() {
            return Ok(None);
        }
        bpf::load_device_program(&self.program())
            .context(FIELD)
            .map(Some)
    }
}

/// Puts a loaded program into force for all who are or will be in `cgroup`.
pub(super) fn attach(cgroup: BorrowedFd<'_>, program: &OwnedFd) -> Result<()> {
    bpf::attach_device_program(cgroup, program.as_fd()).context(FIELD)
}

/// Where the parts of a request are while the program runs.
const ACCESS: Register = Register::R2; // those kinds that are not decided yet
const KIND: Register = Register::R3;
const MAJOR: Register = Register::R4;
const MINOR: Register = Register::R5;

/// Writes the program from the strongest rules to the weakest.
///
/// Allowed kinds of access are taken out of ACCESS; when none is left the answer is yes. A denied
/// kind that is still there makes it no. Rules of one type or major number share that test.
#[derive(Default)]
struct Assembler {
    code: Vec<Insn>,
    /// Jumps to the answer "no" and to the answer "yes", whose places are not known yet.
    exits: [Vec<usize>; 2],
}

impl Assembler {
    fn run(&mut self, run: &[Rule]) {
        for of_kind in run.chunk_by(|a, b| a.kind == b.kind) {
            let other_kind = match of_kind[0].kind {
                Kind::Any => None,
                Kind::Block => Some(self.unless(KIND, 1)), // BPF_DEVCG_DEV_BLOCK
                Kind::Char => Some(self.unless(KIND, 2)),  // BPF_DEVCG_DEV_CHAR
            };
            for of_major in of_kind.chunk_by(|a, b| a.major == b.major) {
                self.of_major(of_major);
            }
            self.land(other_kind);
        }
    }

    fn of_major(&mut self, rules: &[Rule]) {
        if let [
            Rule {
                major: Some(major),
                minor: None,
                access: Access::ALL,
                allow,
                ..
            },
        ] = rules
        {
            return self.exit_if(Test::Equal, MAJOR, *major, *allow);
        }
        let other_major = rules[0].major.map(|major| self.unless(MAJOR, major));
        for rule in rules {
            match (rule.minor, rule.access) {
                (Some(minor), Access::ALL) => self.exit_if(Test::Equal, MINOR, minor, rule.allow),
                (minor, _) => {
                    let other_minor = minor.map(|minor| self.unless(MINOR, minor));
                    self.decide(rule);
                    self.land(other_minor);
                }
            }
        }
        self.land(other_major);
    }

    /// Decides a request for which the rule's device tests have held.
    fn decide(&mut self, rule: &Rule) {
        match (rule.allow, rule.access) {
            (allow, Access::ALL) => {
                self.exits[usize::from(allow)].push(self.code.len());
                self.code.push(Insn::Jump { skip: 0 });
            }
            (true, Access(bits)) => {
                self.code.push(Insn::And {
                    register: ACCESS,
                    mask: Access::ALL.0 & !bits,
                });
                self.exit_if(Test::Equal, ACCESS, 0, true);
            }
            (false, Access(bits)) => self.exit_if(Test::HasBitOf, ACCESS, bits, false),
        }
    }

    fn exit_if(&mut self, test: Test, register: Register, value: u32, allow: bool) {
        self.exits[usize::from(allow)].push(self.code.len());
        self.code.push(Insn::JumpIf {
            test,
            register,
            value,
            skip: 0,
        });
    }

    /// Starts a part that is passed over unless `register` equals `value`; [`Self::land`] ends it.
    fn unless(&mut self, register: Register, value: u32) -> usize {
        self.code.push(Insn::JumpIf {
            test: Test::Differs,
            register,
            value,
            skip: 0,
        });
        self.code.len() - 1
    }

    /// Lets the jump at `from` arrive at the next instruction.
    fn land(&mut self, from: Option<usize>) {
        let here = self.code.len();
        let Some(from) = from else { return };
        // A program too long for its jumps is refused by `Filter::plan`.
        let distance = i16::try_from(here - from - 1).unwrap_or(i16::MAX);
        match &mut self.code[from] {
            Insn::JumpIf { skip, .. } | Insn::Jump { skip } => *skip = distance,
            Insn::Load { .. }
            | Insn::Copy { .. }
            | Insn::And { .. }
            | Insn::ShiftRight { .. }
            | Insn::Answer(_)
            | Insn::Exit => {}
        }
    }

    /// Adds the two answers, puts the request's parts into their registers before everything.
    fn finish(mut self, otherwise: bool) -> Vec<Insn> {
        for allow in [otherwise, !otherwise] {
            let jumps = std::mem::take(&mut self.exits[usize::from(allow)]);
            // The verifier refuses code that nothing leads to.
            if allow == otherwise || !jumps.is_empty() {
                jumps.into_iter().for_each(|jump| self.land(Some(jump)));
                self.code.extend([Insn::Answer(allow), Insn::Exit]);
            }
        }
        // struct bpf_cgroup_dev_ctx: u32 access << 16 | type, u32 major, u32 minor.
        let mut program = vec![
            Insn::Load {
                to: KIND,
                offset: 0,
            },
            Insn::Copy {
                to: ACCESS,
                from: KIND,
            },
            Insn::ShiftRight {
                register: ACCESS,
                bits: 16,
            },
            Insn::And {
                register: KIND,
                mask: 0xffff,
            },
            Insn::Load {
                to: MAJOR,
                offset: 4,
            },
            Insn::Load {
                to: MINOR,
                offset: 8,
            },
        ];
        program.append(&mut self.code);
        program
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = |allow| if allow { "allow" } else { "deny" };
        writeln!(f, "device   {} all", verdict(self.otherwise))?;
        for rule in self.runs.iter().flatten() {
            writeln!(f, "device   {} {rule}", verdict(rule.allow))?;
        }
        Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What a process asks for. Access is never empty: the kernel asks of opens and mknods only.
    #[derive(Debug, Clone, Copy)]
    struct Request {
        kind: Kind,
        major: u32,
        minor: u32,
        access: Access,
    }

    /// The definition: the last rule that names device and access decides each access.
    fn decide(rules: &[Rule], request: Request) -> bool {
        [Access::READ, Access::WRITE, Access::MAKE]
            .iter()
            .all(|access| {
                let part = Rule {
                    kind: request.kind,
                    major: Some(request.major),
                    minor: Some(request.minor),
                    access: *access,
                    allow: true,
                };
                let asked = request.access.0 & access.0 != 0;
                let last = rules.iter().rfind(|rule| rule.covers(&part));
                !asked || last.is_some_and(|rule| rule.allow)
            })
    }

    /// Runs a program as the kernel would.
    fn interpret(program: &[Insn], request: Request) -> bool {
        let kind = if request.kind == Kind::Block { 1 } else { 2 };
        let context = [request.access.0 << 16 | kind, request.major, request.minor];
        let mut registers = [0_u32; 11];
        let mut next = 0_usize;
        loop {
            let insn = program[next];
            next += 1;
            match insn {
                Insn::Load { to, offset } => {
                    registers[to.number()] = context[usize::try_from(offset).unwrap() / 4];
                }
                Insn::Copy { to, from } => registers[to.number()] = registers[from.number()],
                Insn::And { register, mask } => registers[register.number()] &= mask,
                Insn::ShiftRight { register, bits } => registers[register.number()] >>= bits,
                Insn::JumpIf {
                    test,
                    register,
                    value,
                    skip,
                } => {
                    let left = registers[register.number()];
                    let taken = match test {
                        Test::Equal => left == value,
                        Test::Differs => left != value,
                        Test::HasBitOf => left & value != 0,
                    };
                    next += if taken {
                        usize::try_from(skip).unwrap()
                    } else {
                        0
                    };
                }
                Insn::Jump { skip } => next += usize::try_from(skip).unwrap(),
                Insn::Answer(allow) => registers[0] = allow.into(),
                Insn::Exit => return registers[0] == 1,
            }
        }
    }

    /// Few numbers, so that rules and requests often meet.
    fn number() -> impl Strategy<Value = u32> {
        prop_oneof![0..3_u32, Just(u32::MAX)]
    }

    fn kind() -> impl Strategy<Value = Kind> {
        prop_oneof![Just(Kind::Block), Just(Kind::Char)]
    }

    fn rule() -> impl Strategy<Value = Rule> {
        let kind = prop_oneof![Just(Kind::Any), kind()];
        let numbers = (
            proptest::option::of(number()),
            proptest::option::of(number()),
        );
        (kind, numbers, 1..8_u32, any::<bool>()).prop_map(|(kind, (major, minor), bits, allow)| {
            Rule {
                kind,
                major,
                minor,
                access: Access(bits),
                allow,
            }
        })
    }

    fn request() -> impl Strategy<Value = Request> {
        (kind(), number(), number(), 1..8_u32).prop_map(|(kind, major, minor, bits)| Request {
            kind,
            major,
            minor,
            access: Access(bits),
        })
    }

    /// True when every instruction can be reached, as the verifier demands.
    fn all_reachable(program: &[Insn]) -> bool {
        let mut reached = vec![false; program.len()];
        reached[0] = true;
        for (i, insn) in program.iter().enumerate() {
            let skip = if let Insn::JumpIf { skip, .. } | Insn::Jump { skip } = insn {
                usize::try_from(*skip).unwrap()
            } else {
                0
            };
            if reached[i] && *insn != Insn::Exit {
                reached[i + 1 + skip] = true;
                reached[i + 1] |= !matches!(insn, Insn::Jump { .. });
            }
        }
        reached.into_iter().all(|reached| reached)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]
        #[test]
        fn the_program_decides_as_the_rules_do(
            rules in proptest::collection::vec(rule(), 0..12),
            requests in proptest::collection::vec(request(), 1..40),
        ) {
            let program = Filter::new(&rules).program();
            prop_assert!(all_reachable(&program), "{program:?}");
            for request in requests {
                prop_assert_eq!(interpret(&program, request), decide(&rules, request));
            }
        }
    }

    fn filter(json: &str) -> Filter {
        let rules: Vec<LinuxDeviceCgroup> = serde_json::from_str(json).unwrap();
        let mut problems = Problems::default();
        let filter = Filter::plan(&rules, &mut problems);
        assert_eq!(problems, Problems::default());
        filter
    }

    const DEFAULT: &str = "\
device   deny all
device   allow a *:* m
device   allow c 1:3 rwm
device   allow c 1:5 rwm
device   allow c 1:7 rwm
device   allow c 1:8 rwm
device   allow c 1:9 rwm
device   allow c 5:0 rwm
device   allow c 5:1 rwm
device   allow c 5:2 rwm
device   allow c 10:200 rwm
device   allow c 136:* rwm
";

    #[test]
    fn without_rules_only_the_default_devices_are_allowed() {
        assert_eq!(filter("[]").to_string(), DEFAULT);
        assert_eq!(filter("[]").program().len(), 26);
    }

    #[test]
    fn the_rules_of_docker_add_nothing_to_the_default_devices() {
        let docker = r#"[{"allow": false, "access": "rwm"},
            {"allow": true, "type": "c", "major": 1, "minor": 5, "access": "rwm"},
            {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rw"},
            {"allow": true, "type": "c", "major": -1, "minor": -1, "access": "m"},
            {"allow": true, "type": "b", "access": "m"},
            {"allow": false, "type": "c", "major": 10, "minor": 229, "access": "rwm"}]"#;
        assert_eq!(filter(docker).to_string(), DEFAULT);
    }

    #[test]
    fn a_container_that_may_use_everything_needs_no_program() {
        assert!(filter(r#"[{"allow": true, "access": "rwm"}]"#).allows_everything());
    }

    #[test]
    fn denying_writing_also_denies_reading_and_writing_at_once() {
        let rules = [
            allow(Kind::Any, None, None, Access::ALL),
            Rule {
                allow: false,
                ..allow(Kind::Char, Some(1), Some(11), Access::WRITE)
            },
        ];
        let program = Filter::new(&rules).program();
        let ask = |bits| {
            let access = Access(bits);
            interpret(
                &program,
                Request {
                    kind: Kind::Char,
                    major: 1,
                    minor: 11,
                    access,
                },
            )
        };
        assert!(ask(Access::READ.0));
        assert!(!ask(Access::READ.0 | Access::WRITE.0));
    }

    #[test]
    fn every_wrong_rule_is_told_with_its_place() {
        let json = r#"[{"allow": true, "type": "p", "access": "x"},
                       {"allow": true, "major": -2, "minor": 4294967296}]"#;
        let rules: Vec<LinuxDeviceCgroup> = serde_json::from_str(json).unwrap();
        let mut problems = Problems::default();
        Filter::plan(&rules, &mut problems);
        let lines: Vec<_> = problems
            .iter()
            .map(|p| format!("{}: {}", p.path, p.message))
            .collect();
        assert_eq!(
            lines,
            [
                "linux.resources.devices[0].type: must be a, b or c, is \"p\"",
                "linux.resources.devices[0].access: must be one or more of r, w and m, is \"x\"",
                "linux.resources.devices[1].major: must be 0 to 4294967295, or -1 for all, is -2",
                "linux.resources.devices[1].minor: \
             must be 0 to 4294967295, or -1 for all, is 4294967296",
                "linux.resources.devices[1].access: must be one or more of r, w and m, is \"\"",
            ]
        );
    }
}
