//! The agent's files as it reads them when it begins: no panic, what is wanted is the same when it is written again, and
//! no event gets the number of another.

#![no_main]

use libfuzzer_sys::fuzz_target;
use parhelion::agent::fuzzing::Place;

thread_local! {
    static PLACE: Place = Place::new();
}

// The first letter says which file it is.
fuzz_target!(|text: &[u8]| {
    let Some((file, text)) = text.split_first() else {
        return;
    };
    PLACE.with(|place| match file {
        b'w' => place.wanted(text),
        b'i' => place.instance(text),
        b'e' => place.events(text),
        _ => place.verdicts(text),
    });
});
