//! Names of system calls to their numbers on each architecture.
//!
//! The table is text (`syscalls.txt`), read by the compiler: the program holds its rows, and a hash
//! table of them. Both are made at compile time, and a profile has hundreds of names.

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

/// Places in [`ROWS`] by the hash of the name; where it is taken, the next free one after it.
static SLOTS: [u16; SLOT_COUNT] = slots();

/// At least twice the rows, and a power of two.
const SLOT_COUNT: usize = 1024;

/// A slot without a row.
const FREE: u16 = u16::MAX;

/// A line of the table: where its name is in the text, and the numbers.
#[derive(Clone, Copy)]
struct Row {
    start: u16,
    length: u8,
    /// The call through which 32-bit x86 makes it too, and the first argument there; 0: none.
    through: u8,
    numbers: [u16; COLUMNS],
}

/// In `through`: `ipc`, and not `socketcall`.
const IPC: u8 = 0x80;

impl Row {
    fn name(&self) -> &'static [u8] {
        let start = usize::from(self.start);
        &TEXT.as_bytes()[start..start + usize::from(self.length)]
    }
}

/// A system call that some architecture has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Syscall(u16);

/// A call that makes others, chosen by its first argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Multiplexer {
    Socketcall,
    Ipc,
}

impl Syscall {
    /// The call with this name.
    pub(super) fn named(name: &str) -> Option<Syscall> {
        let name = name.as_bytes();
        let mut slot = hash(name, 0, name.len());
        loop {
            match SLOTS[slot] {
                FREE => return None,
                row if ROWS[usize::from(row)].name() == name => return Some(Syscall(row)),
                _ => slot = (slot + 1) % SLOT_COUNT,
            }
        }
    }

    fn row(self) -> &'static Row {
        &ROWS[usize::from(self.0)]
    }

    /// Its number on `arch`, without the bit that marks calls of x32.
    pub(super) fn number(self, arch: Arch) -> Option<u32> {
        match self.row().numbers[arch.column()] {
            NONE => None,
            private if private >= PRIVATE => Some(ARM_PRIVATE + u32::from(private - PRIVATE)),
            number => Some(u32::from(number)),
        }
    }

    /// Through which call 32-bit x86 makes it too, and by which first argument.
    pub(super) fn multiplexed(self) -> Option<(Multiplexer, u64)> {
        match self.row().through {
            0 => None,
            call if call & IPC == 0 => Some((Multiplexer::Socketcall, call.into())),
            call => Some((Multiplexer::Ipc, (call & !IPC).into())),
        }
    }
}

impl Multiplexer {
    /// Its number on 32-bit x86.
    pub(super) fn number(self) -> u32 {
        match self {
            Multiplexer::Socketcall => 102,
            Multiplexer::Ipc => 117,
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
        through: 0,
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
        through: 0,
        numbers: [NONE; COLUMNS],
    };
    let mut column = 0;
    while column < COLUMNS {
        at += 1; // the space
        if text[at] == b'-' {
            at += 1;
        } else {
            let (number, end) = parse_number(text, at);
            (row.numbers[column], at) = (pack(number), end);
        }
        column += 1;
    }
    if text[at] == b' ' {
        let name = at + 1;
        at = name;
        while text[at] != b' ' {
            at += 1;
        }
        let (number, _end) = parse_number(text, at + 1);
        row.through = if text[name] == b'i' { IPC } else { 0 } | number as u8;
    }
    row
}

/// The number at `at`, and where it ends.
const fn parse_number(text: &[u8], mut at: usize) -> (u32, usize) {
    let mut number = 0;
    while text[at].is_ascii_digit() {
        number = number * 10 + (text[at] - b'0') as u32;
        at += 1;
    }
    (number, at)
}

const fn slots() -> [u16; SLOT_COUNT] {
    let rows = parse();
    assert!(rows.len() * 2 <= SLOT_COUNT);
    let mut slots = [FREE; SLOT_COUNT];
    let mut index = 0;
    while index < rows.len() {
        let start = rows[index].start as usize;
        let mut slot = hash(TEXT.as_bytes(), start, start + rows[index].length as usize);
        while slots[slot] != FREE {
            slot = (slot + 1) % SLOT_COUNT;
        }
        slots[slot] = index as u16;
        index += 1;
    }
    slots
}

/// The slot of the name in `text[at..end]` (FNV-1a).
const fn hash(text: &[u8], mut at: usize, end: usize) -> usize {
    let mut hash: u32 = 0x811c_9dc5;
    while at < end {
        hash = (hash ^ text[at] as u32).wrapping_mul(0x0100_0193);
        at += 1;
    }
    (hash ^ hash >> 16) as usize % SLOT_COUNT
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
            let somewhere = row.numbers.iter().any(|number| *number != NONE);
            assert!(somewhere || row.through != 0);
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
    fn calls_that_are_made_through_another_one_are_known() {
        let through = |name| Syscall::named(name).unwrap().multiplexed();
        assert_eq!(through("socket"), Some((Multiplexer::Socketcall, 1)));
        assert_eq!(through("recv"), Some((Multiplexer::Socketcall, 10)));
        assert_eq!(through("sendmmsg"), Some((Multiplexer::Socketcall, 20)));
        assert_eq!(through("semop"), Some((Multiplexer::Ipc, 1)));
        assert_eq!(through("shmctl"), Some((Multiplexer::Ipc, 24)));
        assert_eq!(through("read"), None);
        for (call, name) in [
            (Multiplexer::Socketcall, "socketcall"),
            (Multiplexer::Ipc, "ipc"),
        ] {
            let number = Syscall::named(name).unwrap().number(Arch::X86);
            assert_eq!(number, Some(call.number()));
        }
        let all = ROWS.iter().filter(|row| row.through != 0);
        assert_eq!(all.count(), 20 + 12);
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
