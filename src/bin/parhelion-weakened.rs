//! The runtime with mitigations that an environment variable switches off, for tests/escapes alone: what an attack
//! does to it shows that the tests of the runtime can fail. Built with the feature `weakened`, and never installed.

fn main() {
    parhelion::sys::signals::prepare_main();
    // As the runtime itself: not returned, so that std flushes its buffers.
    std::process::exit(parhelion::cli::main())
}
