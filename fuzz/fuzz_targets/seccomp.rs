//! A seccomp profile to BPF: the program answers each call as the profile, read rule by rule, says; now
//! and then the kernel checks it too.
//!
//! Input that begins with `{` is a profile as JSON; any other is bytes from which one is made whose names,
//! architectures and values occur.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};

/// One in so many inputs is given to the kernel: a thread each.
const KERNEL: u64 = 8;

/// Each call of the table, and one that is in none.
static NAMES: LazyLock<Vec<&str>> = LazyLock::new(|| {
    let lines = include_str!("../../src/seccomp/syscalls.txt").lines();
    let names = lines.filter(|line| !line.starts_with('#'));
    let names = names.filter_map(|line| line.split_whitespace().next());
    names.chain(["no_such_call"]).collect()
});

/// Names of which few bytes are enough: at the ends of the table, of one architecture, made in two ways.
const OFTEN: [&str; 16] = [
    "read",
    "write",
    "kill",
    "clone",
    "socket",
    "socketcall",
    "shmget",
    "ipc",
    "execve",
    "set_tls",
    "mseal",
    "statx",
    "recv",
    "semtimedop",
    "io_setup",
    "personality",
];

const ARCHS: [&str; 8] = [
    "X86_64", "X86", "X32", "AARCH64", "ARM", "NATIVE", "S390X", "RISCV64",
];
const ACTIONS: [&str; 8] = [
    "ALLOW",
    "ERRNO",
    "KILL",
    "KILL_PROCESS",
    "KILL_THREAD",
    "LOG",
    "TRACE",
    "TRAP",
];
const TESTS: [&str; 7] = ["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"];
const VALUES: [u64; 12] = [
    0,
    1,
    2,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x1_0000_0000,
    0x1_0000_0001,
    0xffff_ffff_8000_0000,
    0xffff_ffff_0000_0000,
    u64::MAX - 1,
    u64::MAX,
];

fuzz_target!(|data: &[u8]| {
    let seed = data.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    });
    let kernel = seed % KERNEL == 0;
    if data.first() == Some(&b'{') {
        let _ = parhelion::seccomp::fuzzing::check(data, seed, kernel);
    } else {
        let profile = profile(&mut data.iter().copied());
        let _ = parhelion::seccomp::fuzzing::check(profile.to_string().as_bytes(), seed, kernel);
    }
});

/// A profile; bytes that are missing are 0.
fn profile(bytes: &mut impl Iterator<Item = u8>) -> Value {
    let mut profile = json!({});
    let archs = next(bytes);
    let listed = ARCHS
        .iter()
        .enumerate()
        .filter(|(i, _)| archs >> i & 1 == 1);
    profile["architectures"] = listed
        .map(|(_, arch)| format!("SCMP_ARCH_{arch}"))
        .collect();
    action(&mut profile, ["defaultAction", "defaultErrnoRet"], bytes);
    let rules = next(bytes) % 10;
    profile["syscalls"] = (0..rules).map(|_| rule(bytes)).collect();
    profile
}

fn rule(bytes: &mut impl Iterator<Item = u8>) -> Value {
    let shape = next(bytes);
    let names = (0..=shape % 4).map(|_| name(bytes)).collect::<Vec<_>>();
    let args = (0..shape / 4 % 4)
        .map(|_| condition(bytes))
        .collect::<Vec<_>>();
    let mut rule = json!({ "names": names, "args": args });
    action(&mut rule, ["action", "errnoRet"], bytes);
    rule
}

fn name(bytes: &mut impl Iterator<Item = u8>) -> &'static str {
    match next(bytes) {
        few @ 0..128 => OFTEN[usize::from(few) % OFTEN.len()],
        high => NAMES[(usize::from(high) << 8 | usize::from(next(bytes))) % NAMES.len()],
    }
}

fn action(object: &mut Value, [key, data]: [&str; 2], bytes: &mut impl Iterator<Item = u8>) {
    let byte = next(bytes);
    let word = ACTIONS[usize::from(byte % 8)];
    object[key] = format!("SCMP_ACT_{word}").into();
    if ["ERRNO", "TRACE"].contains(&word) && byte & 8 != 0 {
        object[data] = (u32::from(next(bytes)) << (byte >> 4)).into();
    }
}

fn condition(bytes: &mut impl Iterator<Item = u8>) -> Value {
    let shape = next(bytes);
    let test = TESTS[usize::from(shape) % TESTS.len()];
    json!({
        "index": next(bytes) % 7,
        "op": format!("SCMP_CMP_{test}"),
        "value": value(bytes),
        "valueTwo": value(bytes),
    })
}

fn value(bytes: &mut impl Iterator<Item = u8>) -> u64 {
    match next(bytes) {
        few @ 0..128 => VALUES[usize::from(few) % VALUES.len()],
        128..192 => next(bytes).into(),
        _ => (0..8).fold(0, |value, _| value << 8 | u64::from(next(bytes))),
    }
}

fn next(bytes: &mut impl Iterator<Item = u8>) -> u8 {
    bytes.next().unwrap_or(0)
}
