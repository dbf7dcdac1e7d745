//! The supervisor's program: the daemon, and nothing else.

fn main() {
    std::process::exit(parhelion::control::daemon::main(parhelion::client::halt))
}
