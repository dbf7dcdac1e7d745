//! The door for the fuzz target `seccomp`: a profile compiled, and every answer of the program compared.
//!
//! Decides which calls are tried; what is right is [`super::reference`]'s to say.

use oci_spec::runtime::LinuxSeccomp;

use super::arch::Arch;
use super::compile::compile;
use super::decide::X32;
use super::profile::Profile;
use super::reference::{Call, plainly, run};
use super::syscalls::Syscall;
use crate::error::Problems;
use crate::sys::seccomp::{Instruction, LONGEST, load};

const ARCHS: [Arch; 5] = [Arch::X86_64, Arch::X86, Arch::X32, Arch::Aarch64, Arch::Arm];

/// How many numbers of an architecture are tried, and with how many lists of arguments each.
const NUMBERS: usize = 48;
const ARGUMENTS: usize = 12;

/// What of a profile was looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Looked {
    /// Programs that were compiled.
    pub programs: usize,
    /// Calls that were answered as the profile says.
    pub calls: usize,
    /// Programs that the kernel took.
    pub loaded: usize,
}

/// Compiles `profile`, an object as `linux.seccomp`, on machines of both architectures and compares what
/// the programs answer with what the profile says, for calls that are drawn by `seed`. With `kernel`, has
/// the kernel check the program too. What is refused with problems is right as well.
///
/// # Panics
///
/// A program answers otherwise, does not end, or is refused by the kernel.
#[must_use]
pub fn check(profile: &[u8], seed: u64, kernel: bool) -> Looked {
    let mut looked = Looked::default();
    let Ok(seccomp) = serde_json::from_slice::<LinuxSeccomp>(profile) else {
        return looked;
    };
    for native in [Arch::X86_64, Arch::Aarch64] {
        let mut problems = Problems::default();
        let profile = Profile::new(&seccomp, native, &mut problems);
        let mut contradictions = Vec::new();
        let program = compile(&profile, &mut contradictions);
        let refused = !problems.is_empty() || !contradictions.is_empty();
        if refused || program.len() > LONGEST {
            continue;
        }
        looked.programs += 1;
        looked.calls += compare(&profile, &program, &mut Draw(seed));
        if kernel && native == Arch::NATIVE && program.len() < LONGEST {
            have_checked(&program);
            looked.loaded += 1;
        }
    }
    looked
}

/// How many calls were compared.
fn compare(profile: &Profile<'_>, program: &[Instruction], draw: &mut Draw) -> usize {
    let names: Vec<_> = profile.rules.iter().flat_map(|rule| rule.names).collect();
    let conditions = profile.rules.iter().flat_map(|rule| &rule.alternatives);
    let values: Vec<_> = conditions.flatten().map(|found| found.value).collect();
    let mut calls = 0;
    for arch in ARCHS {
        for _ in 0..NUMBERS {
            let number = number(arch, &names, draw);
            for _ in 0..ARGUMENTS {
                let args = [(); 6].map(|()| argument(&values, draw));
                let (found, steps) = run(program, &Call::new(arch, number, args));
                let expected = plainly(profile, arch, number, args);
                assert_eq!(found, expected, "{arch:?} {number} {args:x?}");
                assert!(steps <= program.len(), "{steps} steps");
                calls += 1;
            }
        }
    }
    calls
}

/// A number at or beside that of a name, or any below the bit of x32.
fn number(arch: Arch, names: &[&String], draw: &mut Draw) -> u32 {
    let any = draw.next() as u32;
    let named = match names.len() {
        0 => None,
        len => Syscall::named(names[draw.next() as usize % len]),
    };
    let number = named.and_then(|call| call.number(arch));
    match (number, draw.next() % 8) {
        (Some(number), 0..5) => number,
        (Some(number), 5) => number + 1,
        (Some(number), 6) => number.saturating_sub(1),
        // What 32-bit x86 makes others through, and what all have.
        (None, 0) => 102,
        (None, 1) => 117,
        (_, 2) => any % X32,
        (_, _) => any % 600,
    }
}

/// A value of a condition, or near one, or with another upper half, or any.
fn argument(values: &[u64], draw: &mut Draw) -> u64 {
    let any = draw.next();
    let value = match values.len() {
        0 => any % 32,
        len => values[draw.next() as usize % len],
    };
    match draw.next() % 8 {
        0..3 => value,
        3 => value.wrapping_add(1),
        4 => value.wrapping_sub(1),
        5 => value ^ (any << 32),
        6 => any,
        _ => any % 32,
    }
}

/// Has the kernel check a program, on a thread that ends at once. An instruction before it allows every
/// call, so that the thread can end; the rest is checked nevertheless, and jumps are relative.
fn have_checked(program: &[Instruction]) {
    let allow = Instruction {
        code: 0x06,
        jump_true: 0,
        jump_false: 0,
        k: 0x7fff_0000,
    };
    let program: Vec<_> = [allow].into_iter().chain(program.iter().copied()).collect();
    let thread = std::thread::spawn(move || {
        rustix::thread::set_no_new_privs(true).map_err(|error| error.to_string())?;
        load(&program, 0)
            .map(drop)
            .map_err(|error| error.to_string())
    });
    let taken = thread.join().expect("the thread does not panic");
    assert_eq!(taken, Ok(()), "the kernel refuses a program");
}

/// Numbers that follow from a seed (splitmix64).
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
