//! Programs of the host that change the kernel's packet filter.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Where they are besides PATH: users' PATH often lacks these.
const ALSO: [&str; 3] = ["/usr/sbin", "/sbin", "/usr/local/sbin"];

/// nft(8).
///
/// # Errors
///
/// It is not there.
pub fn nft() -> Result<PathBuf> {
    find("nft").context(
        "network = \"bridge\" needs the program nft: install the package nftables, or say network = \"host\"",
    )
}

/// A program on PATH or where an administrator's are.
pub fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path)
        .chain(ALSO.map(PathBuf::from))
        .collect();
    let mut programs = folders.into_iter().map(|folder| folder.join(name));
    programs.find(|program| program.is_file())
}

/// What it prints, when it is given `input`.
///
/// # Errors
///
/// It can not be run, or has ended with another code than 0.
pub fn run(program: &Path, words: &[&str], input: &str) -> Result<String> {
    let text = || format!("{} {}", program.display(), words.join(" "));
    let mut command = Command::new(program);
    command.args(words).env_clear().env("LC_ALL", "C");
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.stderr(Stdio::piped()).spawn().with_context(text)?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that has ended early says why.
        let _ended = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().with_context(text)?;
    if !output.status.success() {
        let told = String::from_utf8_lossy(&output.stderr);
        let first = told.lines().find(|line| !line.trim().is_empty());
        bail!(
            "{}: {}",
            text(),
            first.unwrap_or("it says no reason").trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
