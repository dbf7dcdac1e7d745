//! A filter that somebody else has compiled, in an annotation: crun's `run.oci.seccomp_bpf_data`.
//!
//! It is in the place of the rules of `linux.seccomp`; the flags there still count. Decides whether it can
//! be a filter at all; whether it is one, the kernel says.

use crate::sys::seccomp::{Instruction, LONGEST};

use super::profile::Action;

/// The annotation that has it.
pub(super) const ANNOTATION: &str = "run.oci.seccomp_bpf_data";

/// How it is called where something is wrong with it.
pub(super) const FIELD: &str = "annotations[\"run.oci.seccomp_bpf_data\"]";

/// The bytes of an instruction.
const SIZE: usize = size_of::<Instruction>();

/// `BPF_RET | BPF_K`: the answer is in the instruction (linux/bpf_common.h).
const ANSWER: u16 = 0x06;

/// The instructions in base64, in this machine's byte order.
///
/// # Errors
///
/// What is wrong with it.
pub(super) fn program(text: &str) -> Result<Vec<Instruction>, String> {
    let bytes = decode(text)?;
    if !bytes.len().is_multiple_of(SIZE) {
        let (length, wanted) = (bytes.len(), "an instruction of BPF has 8");
        return Err(format!("has {length} bytes, no multiple of 8: {wanted}"));
    }
    let program: Vec<Instruction> = bytes.chunks_exact(SIZE).filter_map(instruction).collect();
    if program.len() > LONGEST {
        let count = program.len();
        return Err(format!(
            "has {count} instructions, and the kernel takes {LONGEST}"
        ));
    }
    let asks = |one: &Instruction| one.code == ANSWER && one.k & 0xffff_0000 == Action::NOTIFY.0;
    if let Some(place) = program.iter().position(asks) {
        return Err(format!(
            "instruction {place} answers SECCOMP_RET_USER_NOTIF, which is for rules of linux.seccomp \
             (SCMP_ACT_NOTIFY) alone: whether init can hand a listener over must be known"
        ));
    }
    Ok(program)
}

/// The instruction that is written so; None when it has another length.
pub(super) fn instruction(bytes: &[u8]) -> Option<Instruction> {
    let [c, d, jump_true, jump_false, k @ ..] = bytes else {
        return None;
    };
    Some(Instruction {
        code: u16::from_ne_bytes([*c, *d]),
        jump_true: *jump_true,
        jump_false: *jump_false,
        k: u32::from_ne_bytes(k.try_into().ok()?),
    })
}

/// The bytes that a text in base64 stands for (RFC 4648, section 4): whole groups of four, without line
/// breaks, and without bits that no byte has.
fn decode(text: &str) -> Result<Vec<u8>, String> {
    let wrong = |place: usize| format!("is not base64: at character {}", place + 1);
    let end = text.trim_end_matches('=').len();
    let padding = text.len() - end;
    if !text.len().is_multiple_of(4) || padding > 2 {
        return Err(wrong(end));
    }
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut held) = (0, 0_u32);
    for (place, character) in text[..end].bytes().enumerate() {
        let value = value_of(character).ok_or_else(|| wrong(place))?;
        held = held << 6 | value;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((held >> bits) as u8);
            held &= (1 << bits) - 1;
        }
    }
    match held {
        0 => Ok(bytes),
        _ => Err(wrong(end)),
    }
}

fn value_of(character: u8) -> Option<u32> {
    let value = match character {
        b'A'..=b'Z' => character - b'A',
        b'a'..=b'z' => character - b'a' + 26,
        b'0'..=b'9' => character - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    };
    Some(value.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_read_as_its_specification_has_it() {
        // RFC 4648, section 10.
        for (text, expected) in [
            ("", ""),
            ("Zg==", "f"),
            ("Zm8=", "fo"),
            ("Zm9v", "foo"),
            ("Zm9vYg==", "foob"),
            ("Zm9vYmE=", "fooba"),
            ("Zm9vYmFy", "foobar"),
        ] {
            assert_eq!(decode(text).unwrap(), expected.as_bytes());
        }
        assert_eq!(decode("+/+/").unwrap(), [0xfb, 0xff, 0xbf]);
        for wrong in [
            "Zg", "Zg=", "Z===", "====", "Zh==", "Zm9=", "Zm 9", "Zm9v\n", "Zg==Zg==", "_-_-",
            "Zé8=",
        ] {
            assert!(decode(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_program_has_whole_instructions_and_not_too_many() {
        let allow = Instruction {
            code: ANSWER,
            jump_true: 0,
            jump_false: 0,
            k: Action::ALLOW.0,
        };
        // BPF_RET | BPF_K, SECCOMP_RET_ALLOW, on a machine of little endian.
        if cfg!(target_endian = "little") {
            assert_eq!(program("BgAAAAAA/38=").unwrap(), [allow]);
        }
        let told = program("BgAAAAAA/w==").unwrap_err();
        assert_eq!(
            told,
            "has 7 bytes, no multiple of 8: an instruction of BPF has 8"
        );
        // Three instructions are 32 characters.
        let three = "A".repeat(32);
        assert_eq!(program(&three.repeat(1365)).unwrap().len(), 4095);
        let told = program(&three.repeat(1366)).unwrap_err();
        assert_eq!(told, "has 4098 instructions, and the kernel takes 4096");
    }

    #[test]
    fn a_program_that_asks_somebody_is_refused() {
        if cfg!(target_endian = "little") {
            let told = program("BgAAAAAA/38GAAAAAADAfw==").unwrap_err();
            assert!(
                told.starts_with("instruction 1 answers SECCOMP_RET_USER_NOTIF"),
                "{told}"
            );
        }
    }
}
