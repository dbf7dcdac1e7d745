//! Where the runtime's memory comes from: see [`super::arena`].

use std::alloc::System;

use super::arena::Arena;

/// Twice what a `run` of the default bundle takes. It costs nothing where it is not touched.
const FIRST: usize = 512 * 1024;

#[global_allocator]
static MEMORY: Arena<FIRST, System> = Arena::before(System);
