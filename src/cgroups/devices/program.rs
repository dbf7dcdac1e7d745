//! The eBPF program that decides a request as the rules do.
//!
//! Writes instructions only; their encoding and their way into the kernel are `sys::bpf`'s.

use super::rule::{Access, Kind, Rule};
use crate::sys::bpf::{Insn, Register, Test};

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
pub(super) struct Assembler {
    code: Vec<Insn>,
    /// Jumps to the answer "no" and to the answer "yes", whose places are not known yet.
    exits: [Vec<usize>; 2],
}

impl Assembler {
    pub(super) fn run(&mut self, run: &[Rule]) {
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
    pub(super) fn finish(mut self, otherwise: bool) -> Vec<Insn> {
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

#[cfg(test)]
mod tests {
    use super::super::Filter;
    use super::super::rule::allow;
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
}
