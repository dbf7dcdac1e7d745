//! A request to the daemon, to its handlers: no panic, no fault of the daemon's, and each refusal says what to do.

#![no_main]

use std::cell::RefCell;

use libfuzzer_sys::fuzz_target;
use parhelion::control::fuzzing::Door;

thread_local! {
    static DOOR: RefCell<Door> = RefCell::new(Door::new());
}

fuzz_target!(|text: &[u8]| {
    DOOR.with_borrow_mut(|door| door.send(text));
});
