//! Builds `parhelion-init` and hands it to the runtime, which embeds it.
//!
//! A second run of cargo, with a target folder of its own inside OUT_DIR: the init is the same
//! crate without std, for the same target, so one source serves both programs. Why the init is a
//! program of its own stands in docs/decisions/0001.

use std::env;
use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::PathBuf;
use std::process::Command;

/// What the init is made of; nothing else causes a second build.
const SOURCES: &[&str] = &[
    "Cargo.toml",
    "Cargo.lock",
    "src/lib.rs",
    "src/bin/parhelion-init.rs",
    "src/init",
    "src/rootfs",
    "src/sys",
];

/// No start files and no libraries: the program brings its own entry (src/sys/freestanding.rs).
/// A fixed address needs no relocation at start.
const RUSTFLAGS: &[&str] = &[
    "-Ctarget-feature=+crt-static",
    "-Crelocation-model=static",
    "-Clink-arg=-nostartfiles",
    "-Clink-arg=-nostdlib",
    "-Clink-arg=-static",
    "-Clink-arg=-Wl,--build-id=none,-z,norelro,-z,noseparate-code",
];

/// A linker script, as `tools/first-calls` writes it.
const FIRST_CALLS: &str = "src/bin/parhelion.ld";

/// What filters of system calls are made by, from the text of a profile to a program.
const COMPILER: &[&str] = &["Cargo.lock", "src/bundle", "src/seccomp"];

fn main() {
    for source in SOURCES.iter().chain(COMPILER) {
        println!("cargo::rerun-if-changed={source}");
    }
    if env::var_os("CARGO_FEATURE_FREESTANDING").is_some() {
        return; // this is the second run: the init itself
    }
    println!(
        "cargo::rustc-env=PARHELION_COMPILER={:016x}",
        digest(COMPILER)
    );
    println!("cargo::rustc-env=PARHELION_TARGET={}", variable("TARGET"));
    let out = PathBuf::from(variable("OUT_DIR")).join("init");
    if env::var_os("CARGO_CFG_MIRI").is_some() {
        // Miri interprets unit tests (tools/sanitize), none of which starts a program.
        fs::write(&out, "").expect("a file of no init");
        println!("cargo::rustc-env=PARHELION_INIT={}", out.display());
        return;
    }
    let target = variable("TARGET");
    let status = Command::new(variable("CARGO"))
        .args(["build", "--quiet", "--locked", "--bin", "parhelion-init"])
        .args(["--no-default-features", "--features", features()])
        .args(["--profile", "freestanding", "--target", &target])
        .arg("--manifest-path")
        .arg(PathBuf::from(variable("CARGO_MANIFEST_DIR")).join("Cargo.toml"))
        .arg("--target-dir")
        .arg(&out)
        .env("CARGO_ENCODED_RUSTFLAGS", RUSTFLAGS.join("\u{1f}"))
        // Clippy and coverage tools wrap the compiler for the crate under work, not for this.
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("CARGO_TARGET_DIR")
        .status()
        .expect("cannot run cargo to build parhelion-init");
    assert!(status.success(), "building parhelion-init failed: {status}");
    let program = out.join(target).join("freestanding/parhelion-init");
    println!("cargo::rustc-env=PARHELION_INIT={}", program.display());
    keep_first_calls_together();
}

/// Has the linker put the functions that a start of a container calls beside each other: the kernel maps
/// sixteen pages around each one that is touched. A name that is not there, as with another compiler, changes
/// nothing but the place of that function.
fn keep_first_calls_together() {
    println!("cargo::rerun-if-changed={FIRST_CALLS}");
    if variable("PROFILE") == "release" && variable("CARGO_CFG_TARGET_ENV") == "gnu" {
        let script = PathBuf::from(variable("CARGO_MANIFEST_DIR")).join(FIRST_CALLS);
        // Not by -Wl, which would take a comma in the path for the end of a word.
        println!("cargo::rustc-link-arg-bin=parhelion=-T{}", script.display());
    }
}

/// Differs where a file of these differs.
fn digest(sources: &[&str]) -> u64 {
    let mut hasher = DefaultHasher::new();
    let mut left: Vec<PathBuf> = sources.iter().map(PathBuf::from).collect();
    while let Some(path) = left.pop() {
        if path.is_dir() {
            let entries = fs::read_dir(&path).expect("a folder of sources");
            let mut below: Vec<_> = entries
                .map(|entry| entry.expect("an entry").path())
                .collect();
            below.sort();
            left.extend(below);
        } else {
            fs::read(&path).expect("a source").hash(&mut hasher);
        }
    }
    hasher.finish()
}

/// The init's, which is weakened together with the runtime.
fn features() -> &'static str {
    match env::var_os("CARGO_FEATURE_WEAKENED") {
        Some(_) => "freestanding,weakened",
        None => "freestanding",
    }
}

/// A variable that cargo sets for every build script.
fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("cargo did not set {name}"))
}
