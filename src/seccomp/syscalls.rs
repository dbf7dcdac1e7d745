//! Names of system calls to their numbers on each architecture.
//!
//! The table is text (`syscalls.txt`), read by the compiler: the program holds an index of it in the
//! order of the names, and looks up by halving.

use super::arch::Arch;

const TEXT: &str = include_str!("syscalls.txt");

/// How many architectures a line has.
const COLUMNS: usize = 5;

/// Stands for "no such call" in a row.
const NONE: u16 = u16::MAX;

/// The calls that only ARM has begin here (`__ARM_NR_BASE`); a row keeps what is above it.
const ARM_PRIVATE: u32 = 0x000f_0000;
const PRIVATE: u16 = 0xf000;

static ROWS: [Row; count()] = parse();

/// A line of the table: where its name is in the text, and the numbers.
#[derive(Clone, Copy)]
struct Row {
    start: u16,
    length: u8,
    numbers: [u16; COLUMNS],
}

impl Row {
    fn name(&self) -> &'static [u8] {
        let start = usize::from(self.start);
        &TEXT.as_bytes()[start..start + usize::from(self.length)]
    }
}

/// A system call that some architecture has.
#[derive(Clone, Copy)]
pub(super) struct Syscall(&'static Row);

impl Syscall {
    /// The call with this name.
    pub(super) fn named(name: &str) -> Option<Syscall> {
        let found = ROWS.binary_search_by(|row| row.name().cmp(name.as_bytes()));
        found.ok().map(|index| Syscall(&ROWS[index]))
    }

    /// Its number on `arch`, without the bit that marks calls of x32.
    pub(super) fn number(self, arch: Arch) -> Option<u32> {
        match self.0.numbers[arch.column()] {
            NONE => None,
            private if private >= PRIVATE => Some(ARM_PRIVATE + u32::from(private - PRIVATE)),
            number => Some(u32::from(number)),
        }
    }
}

/// Whether a number is one of ARM's own, which are no part of the ordinary sequence.
pub(super) fn is_private(number: u32) -> bool {
    number >= ARM_PRIVATE
}

const fn count() -> usize {
    let text = TEXT.as_bytes();
    let (mut at, mut rows) = (0, 0);
    while at < text.len() {
        if text[at] != b'#' {
            rows += 1;
        }
        at = line_end(text, at) + 1;
    }
    rows
}

const fn line_end(text: &[u8], mut at: usize) -> usize {
    while text[at] != b'\n' {
        at += 1;
    }
    at
}

const fn parse() -> [Row; count()] {
    let text = TEXT.as_bytes();
    let empty = Row {
        start: 0,
        length: 0,
        numbers: [NONE; COLUMNS],
    };
    let mut rows = [empty; count()];
    let (mut at, mut filled) = (0, 0);
    while at < text.len() {
        if text[at] != b'#' {
            rows[filled] = parse_line(text, at);
            filled += 1;
        }
        at = line_end(text, at) + 1;
    }
    rows
}

const fn parse_line(text: &[u8], start: usize) -> Row {
    let mut at = start;
    while text[at] != b' ' {
        at += 1;
    }
    let mut row = Row {
        start: start as u16,
        length: (at - start) as u8,
        numbers: [NONE; COLUMNS],
    };
    let mut column = 0;
    while column < COLUMNS {
        at += 1; // the space
        let mut number = 0;
        while text[at] != b' ' && text[at] != b'\n' {
            if text[at] != b'-' {
                number = number * 10 + (text[at] - b'0') as u32;
                row.numbers[column] = pack(number);
            }
            at += 1;
        }
        column += 1;
    }
    row
}

const fn pack(number: u32) -> u16 {
    if number >= ARM_PRIVATE {
        PRIVATE + (number - ARM_PRIVATE) as u16
    } else {
        number as u16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(name: &str) -> [Option<u32>; COLUMNS] {
        let all = [Arch::X86_64, Arch::X86, Arch::X32, Arch::Aarch64, Arch::Arm];
        let call = Syscall::named(name).unwrap();
        all.map(|arch| call.number(arch))
    }

    #[test]
    fn the_names_are_in_order_and_each_is_there_once() {
        assert!(ROWS.windows(2).all(|two| two[0].name() < two[1].name()));
        assert!(ROWS.len() > 480, "{}", ROWS.len());
        for row in &ROWS {
            assert!(row.numbers.iter().any(|number| *number != NONE));
        }
    }

    #[test]
    fn numbers_are_those_of_each_architecture() {
        assert_eq!(
            numbers("read"),
            [Some(0), Some(3), Some(0), Some(63), Some(3)]
        );
        assert_eq!(
            numbers("execve"),
            [Some(59), Some(11), Some(520), Some(221), Some(11)]
        );
        assert_eq!(numbers("socketcall"), [None, Some(102), None, None, None]);
        assert_eq!(numbers("set_tls"), [None, None, None, None, Some(0xf_0005)]);
        assert_eq!(numbers("mseal"), [Some(462); COLUMNS]);
        assert!(Syscall::named("no_such_call").is_none());
        assert!(Syscall::named("").is_none());
    }

    #[test]
    fn the_numbers_of_this_architecture_are_those_of_its_c_library() {
        let known = [
            ("clone3", libc::SYS_clone3),
            ("openat2", libc::SYS_openat2),
            ("seccomp", libc::SYS_seccomp),
            ("sendmsg", libc::SYS_sendmsg),
            ("getrandom", libc::SYS_getrandom),
            ("prlimit64", libc::SYS_prlimit64),
            ("statx", libc::SYS_statx),
            ("wait4", libc::SYS_wait4),
        ];
        for (name, number) in known {
            let ours = Syscall::named(name).unwrap().number(Arch::NATIVE);
            assert_eq!(ours, u32::try_from(number).ok(), "{name}");
        }
    }
}
