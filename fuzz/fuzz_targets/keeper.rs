//! keeper.json: no panic.

#![no_main]

use libfuzzer_sys::fuzz_target;
use parhelion::keeper::spec::Spec;

fuzz_target!(|text: &[u8]| {
    let _ = Spec::of_bytes(text);
});
