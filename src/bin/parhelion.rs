//! The OCI runtime's program: the command line, and nothing else.

fn main() -> std::process::ExitCode {
    parhelion::cli::main()
}
