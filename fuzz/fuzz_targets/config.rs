//! config.json to every plan: no panic, and no path of a plan leads out of its root.
//!
//! A hash of the input chooses whose rights and which manager of cgroups.

#![no_main]

use libfuzzer_sys::fuzz_target;
use parhelion::lifecycle::fuzzing::Place;

thread_local! {
    static PLACE: Place = Place::in_silence();
}

fuzz_target!(|config: &[u8]| {
    // Mostly as root of the host, as others are refused more.
    let hash = config
        .iter()
        .fold(7_u32, |hash, byte| hash.wrapping_mul(31) ^ u32::from(*byte));
    let host = if hash % 2 == 0 { 0 } else { (hash >> 8) as u8 };
    let _ = PLACE.with(|place| place.plan(config, host));
});
