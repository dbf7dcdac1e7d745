//! The OCI runtime's program: the command line, and nothing else.
//!
//! Entered by libc's start code and not by std's, whose preparations cost a tenth of the time of
//! `state`: it reads /proc/self/maps and makes a signal stack, for a message at a stack overflow.
//! What of them is needed here, `sys::signals::prepare_main` does.
#![no_main]
#![allow(unsafe_code)]

use std::ffi::{c_char, c_int};

/// The entry that libc calls; std finds the arguments by itself.
#[unsafe(no_mangle)]
extern "C" fn main(_argc: c_int, _argv: *const *const c_char) -> c_int {
    parhelion::sys::signals::prepare_main();
    // Not returned, so that std flushes its buffers.
    std::process::exit(parhelion::cli::main())
}
