//! The container's first process, as a program of its own: small, static, without std and libc.
//!
//! `build.rs` builds it and embeds it in `parhelion`, which copies it into a sealed memfd for each
//! container and executes that copy inside. Everything it does is in `parhelion::init`.
#![no_std]
#![no_main]
#![allow(unsafe_code)]

/// Called by the entry in `parhelion::sys::freestanding` with the handshake's descriptor.
#[unsafe(no_mangle)]
fn parhelion_init_main(handshake: i32) -> i32 {
    parhelion::init::main(handshake)
}
