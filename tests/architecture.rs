//! The layers of the crate: who may import whom, and where `unsafe` lives.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::fs;
use std::path::{Path, PathBuf};

/// Each layer and the layers it may import.
const LAYERS: &[(&str, &[&str])] = &[
    ("sys", &[]),
    ("error", &[]),
    ("namespaces", &["sys", "error"]),
    ("cgroups", &["sys", "error"]),
    ("rootfs", &["sys", "error"]),
    ("bundle", &["sys", "error"]),
    ("init", &["sys", "error", "namespaces", "rootfs"]),
    (
        "lifecycle",
        &[
            "sys",
            "error",
            "namespaces",
            "cgroups",
            "rootfs",
            "bundle",
            "init",
        ],
    ),
    ("cli", &["error", "bundle", "lifecycle"]),
];

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
    found
}

fn all() -> Vec<(String, PathBuf, String)> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    sources(&src)
        .into_iter()
        .map(|path| {
            let below = path.strip_prefix(&src).unwrap().to_owned();
            let first = below
                .components()
                .next()
                .unwrap()
                .as_os_str()
                .to_str()
                .unwrap();
            let layer = first.trim_end_matches(".rs").to_owned();
            let text = fs::read_to_string(&path).unwrap();
            (layer, below, text)
        })
        .collect()
}

#[test]
fn every_import_goes_down() {
    let mut wrong = Vec::new();
    for (layer, path, text) in all() {
        let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == layer) else {
            assert!(
                ["lib", "bin"].contains(&layer.as_str()),
                "{path:?} is in no layer"
            );
            continue;
        };
        for (other, _) in LAYERS.iter().filter(|(other, _)| *other != layer) {
            if text.contains(&format!("crate::{other}")) && !allowed.contains(other) {
                wrong.push(format!("{path:?} imports {other}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn unsafe_lives_in_sys_alone() {
    for (layer, path, text) in all() {
        let allowed = layer == "sys" || path == Path::new("bin/parhelion-init.rs");
        let here =
            text.contains("unsafe {") || text.contains("unsafe fn") || text.contains("unsafe impl");
        assert!(allowed || !here, "{path:?} has unsafe code");
    }
}

#[test]
fn every_file_says_what_it_decides() {
    for (_, path, text) in all() {
        assert!(text.starts_with("//!"), "{path:?} does not open with //!");
    }
}
