//! The layers of the crate: who may import whom, where `unsafe` lives, how a file opens and how long it may be.
//!
//! Reads the sources as tokens, so that groups (`use crate::{a, b}`), relative paths
//! (`super::super::a`) and paths inside a function count, and comments and strings do not.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod sources;

use std::fs;
use std::path::{Path, PathBuf};

use sources::rust_files;

/// Each layer and the layers it may import, from the lowest up: the table of `src/lib.rs`.
const LAYERS: &[(&str, &[&str])] = &[
    ("sys", &[]),
    ("error", &[]),
    ("namespaces", &["sys", "error"]),
    ("cgroups", &["sys", "error"]),
    ("rootfs", &["sys", "error"]),
    ("seccomp", &["sys", "error"]),
    ("criu", &["sys", "error"]),
    ("bundle", &["sys", "error"]),
    ("init", &["sys", "error", "namespaces", "rootfs", "seccomp"]),
    (
        "lifecycle",
        &[
            "sys",
            "error",
            "namespaces",
            "cgroups",
            "rootfs",
            "seccomp",
            "criu",
            "bundle",
            "init",
        ],
    ),
    ("keeper", &["sys", "error", "cgroups", "lifecycle"]),
    ("cli", &["error", "bundle", "lifecycle", "keeper"]),
    ("store", &["sys", "error"]),
    ("job", &["error", "bundle", "lifecycle", "keeper"]),
    ("api", &["error", "job"]),
    ("network", &["sys", "error", "job"]),
    (
        "agent",
        &[
            "sys",
            "error",
            "cgroups",
            "lifecycle",
            "keeper",
            "job",
            "api",
            "network",
        ],
    ),
    (
        "control",
        &[
            "sys",
            "error",
            "lifecycle",
            "store",
            "job",
            "api",
            "network",
            "agent",
        ],
    ),
    ("client", &["error", "lifecycle", "job", "api"]),
];

/// A source file: its place below `src/`, the modules that lead to it, its text.
struct Source {
    path: PathBuf,
    module: Vec<String>,
    text: String,
}

impl Source {
    /// The topmost module; "lib" and "bin" for what is in none.
    fn layer(&self) -> &str {
        &self.module[0]
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources() -> Vec<Source> {
    let src = root().join("src");
    let files = rust_files(&src);
    assert!(files.len() > 50, "the sources are elsewhere");
    files
        .into_iter()
        .map(|file| {
            let path = file.strip_prefix(&src).unwrap().to_owned();
            let module = path.with_extension("");
            let module = module
                .components()
                .map(|part| part.as_os_str().to_str().unwrap().to_owned())
                .filter(|part| part != "mod")
                .collect();
            let text = fs::read_to_string(&file).unwrap();
            Source { path, module, text }
        })
        .collect()
}

/// Names, `::` and single characters of Rust code, without comments, strings and lifetimes.
fn tokens(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => block_comment(rest),
            '"' => string(rest),
            '\'' => character(rest),
            ':' if rest.starts_with("::") => token(&mut found, rest, 2),
            c if c.is_alphanumeric() || c == '_' => {
                let name = |c: char| !(c.is_alphanumeric() || c == '_');
                let end = rest.find(name).unwrap_or(rest.len());
                match raw_string(rest, end) {
                    Some(length) => length,
                    None => token(&mut found, rest, end),
                }
            }
            c if c.is_whitespace() => c.len_utf8(),
            c => token(&mut found, rest, c.len_utf8()),
        };
        rest = &rest[length..];
    }
    found
}

fn token<'a>(found: &mut Vec<&'a str>, rest: &'a str, length: usize) -> usize {
    found.push(&rest[..length]);
    length
}

fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    loop {
        if rest[at..].starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest[at..].starts_with("*/") {
            (depth, at) = (depth - 1, at + 2);
        } else {
            at += rest[at..].chars().next().unwrap().len_utf8();
        }
        if depth == 0 {
            return at;
        }
    }
}

fn string(rest: &str) -> usize {
    let mut escaped = true; // the opening quote does not end it
    for (at, c) in rest.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    panic!("a string without an end: {:.40}", rest);
}

/// The length of a raw string that begins with the name of this length, if one does.
fn raw_string(rest: &str, name: usize) -> Option<usize> {
    let body = &rest[name..];
    let hashes = body.len() - body.trim_start_matches('#').len();
    let raw = ["r", "br", "cr"].contains(&&rest[..name]) && body[hashes..].starts_with('"');
    let end = format!("\"{}", "#".repeat(hashes));
    raw.then(|| {
        let start = name + hashes + 1;
        start + rest[start..].find(&end).unwrap() + end.len()
    })
}

/// The length of a character literal; of the quote alone, where a lifetime begins.
fn character(rest: &str) -> usize {
    let mut chars = rest.char_indices().skip(1);
    let (_, first) = chars.next().unwrap();
    if first == '\\' {
        let after = 3; // also past an escaped quote
        return after + rest[after..].find('\'').unwrap() + 1;
    }
    match chars.next() {
        Some((at, '\'')) => at + 1,
        _ => 1,
    }
}

/// Every path that starts at `tokens[0]`, with its groups taken apart: `crate::{a, b::c}` is
/// `crate::a` and `crate::b::c`.
fn paths<'a>(tokens: &[&'a str], before: &[&'a str], found: &mut Vec<Vec<&'a str>>) -> usize {
    let mut path = before.to_vec();
    let mut at = 0;
    loop {
        match tokens.get(at) {
            Some(&"{") => {
                at += 1;
                while tokens[at] != "}" {
                    at += paths(&tokens[at..], &path, found);
                    if tokens[at] == "," {
                        at += 1;
                    }
                }
                return at + 1;
            }
            Some(name) => path.push(name),
            None => panic!("the file ends in a path"),
        }
        at += 1;
        if tokens.get(at) != Some(&"::") {
            found.push(path);
            // `a as b`
            return if tokens.get(at) == Some(&"as") {
                at + 2
            } else {
                at
            };
        }
        at += 1;
    }
}

/// What a file refers to in the crate's root: names of layers, or what leads there unnamed ("*").
fn imports(module: &[String], text: &str) -> Vec<String> {
    let tokens = tokens(text);
    let mut wanted = Vec::new();
    // For each open brace: whether it is that of an inline module.
    let mut braces: Vec<bool> = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let before = |n: usize| at.checked_sub(n).map_or("", |place| tokens[place]);
        match tokens[at] {
            "{" => braces.push(before(2) == "mod"),
            "}" => drop(braces.pop()),
            // `extern crate alloc`, and `pub(crate)`; `pub(in crate::a)` is a path like others.
            "crate" if before(1) == "extern" || before(1) == "(" && before(2) == "pub" => {}
            "super" if before(1) == "(" && before(2) == "pub" => {}
            "crate" | "super" => {
                let inline = braces.iter().filter(|inline| **inline).count();
                let mut found = Vec::new();
                at += paths(&tokens[at..], &[], &mut found);
                wanted.extend(
                    found
                        .iter()
                        .filter_map(|p| below_root(p, module.len() + inline)),
                );
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    wanted
}

/// The name below the crate's root that a path goes through; None when it stays in its layer.
fn below_root(path: &[&str], depth: usize) -> Option<String> {
    let ups = path.iter().take_while(|part| **part == "super").count();
    let rest = &path[ups..];
    let in_root = if ups == 0 {
        path[0] == "crate"
    } else {
        ups >= depth
    };
    let name = if ups == 0 { rest.get(1) } else { rest.first() };
    in_root.then(|| name.copied().unwrap_or("*").to_owned())
}

#[test]
fn every_import_goes_down() {
    let mut wrong = Vec::new();
    for source in sources() {
        let layer = source.layer();
        let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == layer) else {
            assert!(
                // The simulation of a whole host is a test of all layers.
                ["lib", "bin", "simulation"].contains(&layer),
                "{:?} is in no layer",
                source.path
            );
            continue;
        };
        for other in imports(&source.module, &source.text) {
            if other != layer && !allowed.contains(&other.as_str()) {
                wrong.push(format!("{:?} imports {other}", source.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn no_import_can_hide() {
    let module = ["rootfs".to_owned(), "plan".to_owned()];
    let seen = |text: &str| imports(&module, text).join(" ");
    assert_eq!(seen("use crate::cli;"), "cli");
    assert_eq!(
        seen("use crate::{sys::{fd, mount as m}, cli};"),
        "sys sys cli"
    );
    assert_eq!(
        seen("use super::super::{bundle::x, error};"),
        "bundle error"
    );
    assert_eq!(seen("use super::{super::cli, Plan};"), "cli");
    assert_eq!(
        seen("fn f() { crate::cli::run(); super::super::cli::run() }"),
        "cli cli"
    );
    assert_eq!(seen("mod tests { use super::super::super::cli; }"), "cli");
    assert_eq!(seen("mod tests { fn f() {} use super::super::Plan; }"), "");
    assert_eq!(
        seen("use super::Plan; pub(super) struct A; pub(crate) struct B;"),
        ""
    );
    assert_eq!(
        seen("use crate::*; use super::super::*; use crate as all;"),
        "* * *"
    );
    let noise = "/* crate::a /* */ crate::b */ // crate::c\n r#\"\" crate::d\"# '\"' 'x' b\"\\\" crate::e\"";
    assert_eq!(seen(&format!("{noise} &'a str crate::cli")), "cli");
}

#[test]
fn the_table_of_layers_is_that_of_the_crate() {
    let text = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let table = text.split("//! ```").nth(1).unwrap();
    let words = table.lines().skip(1).flat_map(|line| {
        let names = line.trim_start_matches("//!").trim().split("  ").next();
        names
            .unwrap()
            .split([' ', ','])
            .filter(|name| !name.is_empty())
    });
    let words: Vec<_> = words.collect();
    let layers: Vec<_> = LAYERS.iter().map(|(name, _)| *name).collect();
    assert_eq!(words, layers);

    let mut modules: Vec<_> = text
        .lines()
        .filter_map(|l| l.strip_prefix("pub mod "))
        .collect();
    modules.sort_unstable();
    let mut layers: Vec<_> = layers.iter().map(|name| format!("{name};")).collect();
    layers.sort_unstable();
    assert_eq!(modules, layers);
}

#[test]
fn the_table_of_layers_itself_goes_down() {
    for (i, (layer, allowed)) in LAYERS.iter().enumerate() {
        for other in *allowed {
            let lower = LAYERS[..i].iter().any(|(name, _)| name == other);
            assert!(
                lower,
                "{layer} may import {other}, which does not stand before it"
            );
        }
    }
}

#[test]
fn unsafe_lives_in_sys_alone() {
    for source in sources() {
        // Both programs export one function each, which is entered by code that is not Rust.
        let entries = ["bin/parhelion.rs", "bin/parhelion-init.rs"].map(Path::new);
        let allowed = source.layer() == "sys" || entries.contains(&source.path.as_path());
        let tokens = tokens(&source.text);
        let here = tokens.iter().any(|t| ["unsafe", "unsafe_code"].contains(t));
        assert!(allowed || !here, "{:?} has unsafe code", source.path);
    }
}

#[test]
fn every_file_says_what_it_decides() {
    let mut files = vec![root().join("build.rs")];
    for folder in ["src", "tests", "benches", "examples"] {
        files.extend(rust_files(&root().join(folder)));
    }
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.starts_with("//! "), "{file:?} does not open with //!");
    }
}

#[test]
fn no_file_is_longer_than_400_lines_before_its_tests() {
    let long: Vec<_> = sources()
        .into_iter()
        .filter(|source| {
            source
                .path
                .file_name()
                .is_some_and(|name| name != "tests.rs")
        })
        .map(|source| (lines_before_tests(&source.text), source.path))
        .filter(|(lines, _)| *lines > 400)
        .collect();
    assert!(long.is_empty(), "{long:#?}");
}

/// How many lines stand before the module of tests; one that is a file of its own does not end them.
fn lines_before_tests(text: &str) -> usize {
    let lines: Vec<_> = text.lines().collect();
    let tests = lines.windows(2).position(|two| {
        two[0] == "#[cfg(test)]" && two[1].contains("mod ") && two[1].ends_with('{')
    });
    tests.unwrap_or(lines.len())
}
