//! state.json: whatever a file says, `state` tells of it or refuses it, and a record that is read is
//! written again as the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use parhelion::lifecycle::fuzzing::Place;

thread_local! {
    static PLACE: Place = Place::new();
}

fuzz_target!(|text: &[u8]| {
    let _ = PLACE.with(|place| place.state(text));
});
