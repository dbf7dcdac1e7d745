//! What the programs are made of besides this repository: docs/dependencies.md prints it, and it is true.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::fs;
use std::path::Path;
use std::process::Command;

const PAGE: &str = "docs/dependencies.md";

/// The page's blocks of text between lines of three backquotes, in their order.
fn blocks(page: &str) -> Vec<String> {
    let parts = page.split("```\n").skip(1).step_by(2);
    parts.map(str::to_owned).collect()
}

/// What `cargo tree` prints for one of the programs, without the place of this checkout.
fn tree(options: &[&str]) -> String {
    let output = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--locked",
            "--offline",
            "--edges",
            "normal,no-proc-macro",
        ])
        .args(options)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    let text = String::from_utf8(output.stdout).unwrap();
    let (first, rest) = text.split_once('\n').unwrap();
    format!("{}\n{rest}", first.split(" (").next().unwrap())
}

#[test]
fn the_page_prints_what_the_programs_are_made_of() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join(PAGE)).unwrap();
    let init = ["--no-default-features", "--features", "freestanding"];
    let supervisor = ["--features", "supervisor"];
    let expected = [tree(&[]), tree(&init), tree(&supervisor)];
    let printed = blocks(&page);
    assert_eq!(printed.len(), expected.len(), "{PAGE}: blocks");
    for (printed, expected) in printed.iter().zip(&expected) {
        assert_eq!(
            printed, expected,
            "{PAGE} is not what Cargo.lock says: put this there"
        );
    }
}
