//! What a client of exec sends after the upgrade: no panic, and a frame that is read is the same when it is written again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use parhelion::api::exec::{Frame, HEADER};

fuzz_target!(|bytes: &[u8]| {
    let mut rest = bytes;
    while let Some((header, after)) = rest.split_first_chunk::<HEADER>() {
        let Some((payload, after)) = Frame::length(*header).and_then(|length| after.split_at_checked(length)) else {
            return;
        };
        let Some(frame) = Frame::parse(*header, payload.to_vec()) else {
            return;
        };
        assert_eq!(frame.bytes(), [&header[..], payload].concat());
        rest = after;
    }
});
