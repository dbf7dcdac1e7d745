//! Programs of one system call, as machine code: what no shell can ask for, such as 32-bit calls and
//! numbers that no kernel has. x86_64 only, as all containers of these tests.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::support::Bundle;

/// A system call.
#[derive(Debug, Clone, Copy)]
pub struct Call {
    way: Way,
    number: u64,
    args: [u64; 6],
}

#[derive(Debug, Clone, Copy)]
enum Way {
    /// `syscall`
    Native,
    /// `int 0x80`, the 32-bit call that a 64-bit program can make too.
    X86,
    /// `syscall`; a handler of SIGSYS ends the program with [`CAUGHT`].
    Handled,
}

/// How a program ends that has caught SIGSYS.
pub const CAUGHT: i32 = 42;

impl Call {
    pub fn native(number: u64) -> Call {
        let (way, args) = (Way::Native, [0; 6]);
        Call { way, number, args }
    }

    /// By its number on 32-bit x86.
    pub fn x86(number: u64) -> Call {
        let (way, args) = (Way::X86, [0; 6]);
        Call { way, number, args }
    }

    /// By its number on x32.
    pub fn x32(number: u64) -> Call {
        Call::native(number | 0x4000_0000)
    }

    pub fn with(mut self, index: usize, value: u64) -> Call {
        self.args[index] = value;
        self
    }

    pub fn handled(mut self) -> Call {
        self.way = Way::Handled;
        self
    }
}

/// Writes the program into the bundle's root.
pub fn write(bundle: &Bundle, name: &str, call: Call) {
    // By another process: one of a parallel test, forked while the file is open for writing here,
    // would have it open too, and such a file is not executed (ETXTBSY).
    let mut shell = Command::new("/bin/sh")
        .args(["-c", "cat > \"$1\" && chmod 755 \"$1\"", "sh"])
        .arg(bundle.folder.join("rootfs").join(name))
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = shell.stdin.take().unwrap();
    stdin.write_all(&program(call)).unwrap();
    drop(stdin);
    assert!(shell.wait().unwrap().success());
}

const ADDRESS: u64 = 0x40_0000;
const HEADERS: u64 = 64 + 56;

/// An ELF file whose one segment is the whole file.
fn program(call: Call) -> Vec<u8> {
    assert_eq!(std::env::consts::ARCH, "x86_64");
    let code = code(call);
    let size = HEADERS + code.len() as u64;
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    let half = |file: &mut Vec<u8>, numbers: &[u16]| {
        numbers.iter().for_each(|n| file.extend(n.to_le_bytes()));
    };
    let word = |file: &mut Vec<u8>, numbers: &[u32]| {
        numbers.iter().for_each(|n| file.extend(n.to_le_bytes()));
    };
    let long = |file: &mut Vec<u8>, numbers: &[u64]| {
        numbers.iter().for_each(|n| file.extend(n.to_le_bytes()));
    };
    half(&mut file, &[2, 62]); // an executable for x86_64
    word(&mut file, &[1]);
    long(&mut file, &[ADDRESS + HEADERS, 64, 0]); // entry, program headers, section headers
    word(&mut file, &[0]);
    half(&mut file, &[64, 56, 1, 0, 0, 0]);
    word(&mut file, &[1, 5]); // to load, to read and execute
    long(&mut file, &[0, ADDRESS, ADDRESS, size, size, 4096]);
    file.extend(code);
    file
}

/// `exit_group(edi)`
const EXIT: &[u8] = &[0xb8, 231, 0, 0, 0, 0x0f, 0x05];

fn code(call: Call) -> Vec<u8> {
    let mut code = Vec::new();
    if let Way::Handled = call.way {
        // rt_sigaction(SIGSYS, act, 0, 8), with the handler and `act` in front, jumped over.
        let handler = ADDRESS + HEADERS + 2;
        let mut data = vec![0xbf, CAUGHT as u8, 0, 0, 0]; // mov edi, CAUGHT
        data.extend(EXIT);
        let act = handler + data.len() as u64;
        const SA_RESTORER: u64 = 0x0400_0000; // the kernel asks for it, and it never returns
        for field in [handler, SA_RESTORER, handler, 0] {
            data.extend(field.to_le_bytes());
        }
        code.extend([0xeb, data.len() as u8]); // jmp over
        code.extend(data);
        code.extend(registers(NATIVE, 13, [31, act, 0, 8, 0, 0]));
        code.extend([0x0f, 0x05]);
    }
    let (order, enter) = match call.way {
        Way::Native | Way::Handled => (NATIVE, [0x0f, 0x05]),
        Way::X86 => (X86, [0xcd, 0x80]),
    };
    code.extend(registers(order, call.number, call.args));
    code.extend(enter);
    code.extend([0x48, 0x89, 0xc7]); // mov rdi, rax
    code.extend([0x48, 0xf7, 0xdf]); // neg rdi
    code.extend([0x48, 0x85, 0xc0]); // test rax, rax
    code.extend([0x78, 0x02]); // js over the next
    code.extend([0x31, 0xff]); // xor edi, edi
    code.extend(EXIT);
    code
}

/// `mov register, imm64` for the arguments: rdi rsi rdx r10 r8 r9, or rbx rcx rdx rsi rdi rbp.
type Order = [[u8; 2]; 6];
const NATIVE: Order = [
    [0x48, 0xbf],
    [0x48, 0xbe],
    [0x48, 0xba],
    [0x49, 0xba],
    [0x49, 0xb8],
    [0x49, 0xb9],
];
const X86: Order = [
    [0x48, 0xbb],
    [0x48, 0xb9],
    [0x48, 0xba],
    [0x48, 0xbe],
    [0x48, 0xbf],
    [0x48, 0xbd],
];

fn registers(order: Order, number: u64, args: [u64; 6]) -> Vec<u8> {
    let mut code = vec![0x48, 0xb8]; // mov rax, number
    code.extend(number.to_le_bytes());
    for (register, value) in order.iter().zip(args) {
        code.extend(register);
        code.extend(value.to_le_bytes());
    }
    code
}
