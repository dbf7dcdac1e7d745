//! What is attacked: the program, or a build that does without a mitigation; and that no other build can.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use libtest_mimic::Trial;

use crate::support::{Bundle, program, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![nothing_can_be_switched_off_in_the_program]
}

/// Who is attacked.
#[derive(Debug, Clone, Copy)]
pub enum Subject {
    /// The program under test.
    Real,
    /// The build for these tests, without the mitigations of these names.
    Without(&'static str),
}

impl Subject {
    /// Its program.
    pub fn program(self) -> PathBuf {
        match self {
            Subject::Real => program(),
            Subject::Without(_) => weakened(),
        }
    }

    /// A bundle for it that runs `script` in a shell.
    pub fn bundle(self, script: &str) -> Bundle {
        Bundle::of(self.program(), self.without(), script)
    }

    pub fn without(self) -> &'static str {
        match self {
            Subject::Real => "",
            Subject::Without(names) => names,
        }
    }
}

/// The build without mitigations lies beside the program under test.
fn weakened() -> PathBuf {
    let path = program().with_file_name("parhelion-weakened");
    assert!(path.exists(), "{path:?} is missing: make weakened");
    path
}

/// A copy of a program, which nobody has open for writing by the time it is executed (ETXTBSY): it is made
/// by a process of its own, as one of a parallel test may be forked at any time.
pub fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg(from).arg(to).status().unwrap();
    assert!(copied.success());
}

/// Asks until it is so: for what no event tells, as a process that appears.
pub fn wait_until(is_so: impl Fn() -> bool) {
    for _ in 0..30_000 {
        if is_so() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    panic!("it did not become so in a minute");
}

fn nothing_can_be_switched_off_in_the_program() {
    let marks = ["PARHELION_WEAKENED", "sealed-copy", "opened-places"];
    let holds = |program: &Path, mark: &str| {
        let bytes = fs::read(program).unwrap();
        bytes
            .windows(mark.len())
            .any(|part| part == mark.as_bytes())
    };
    for mark in marks {
        assert!(holds(&weakened(), mark), "{mark}");
        assert!(!holds(&program(), mark), "{mark}");
    }
}
