//! The operator's client of parheliond, and nothing else.

fn main() {
    std::process::exit(parhelion::client::main())
}
