//! `--config`: a configuration of another name or place than the bundle's config.json.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::caller::{command, quietly};
use crate::support::{Bundle, Ran, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        another_configuration_counts_from_where_the_caller_is,
        the_name_of_the_bundles_own_is_the_bundles,
        what_joins_later_finds_the_same_configuration,
        what_is_wrong_is_told_with_the_name_of_the_file,
        a_configuration_that_is_missing_is_named,
    ]
}

/// A bundle, and in its folder `elsewhere` a configuration whose program prints a word that the bundle's
/// own does not.
fn with_another(script: &str) -> Bundle {
    let bundle = Bundle::new("echo own");
    let own: Value =
        serde_json::from_slice(&fs::read(bundle.folder.join("config.json")).unwrap()).unwrap();
    let mut other = own;
    other["process"]["args"] = json!(["/bin/sh", "-c", script]);
    other["process"]["env"] = json!(["PATH=/bin", "WORD=other"]);
    let elsewhere = bundle.folder.join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let text = serde_json::to_vec(&other).unwrap();
    fs::write(elsewhere.join("web.json"), &text).unwrap();
    fs::write(elsewhere.join("config.json"), &text).unwrap();
    bundle
}

/// Calls the program from within a folder.
fn from(folder: &Path, bundle: &Bundle, arguments: &[&str]) -> Ran {
    let mut command = command(bundle, arguments);
    command.current_dir(folder).stdin(Stdio::null());
    Ran(command.output().unwrap())
}

fn another_configuration_counts_from_where_the_caller_is() {
    let bundle = with_another("echo $WORD");
    let elsewhere = bundle.folder.join("elsewhere");
    let absolute = elsewhere.join("web.json");
    for (folder, flags) in [
        (&elsewhere, &["--config", "web.json"][..]),
        (&elsewhere, &["--config=./config.json"]),
        (&bundle.folder, &["-f", "elsewhere/web.json"]),
        (&bundle.folder, &["-f", absolute.to_str().unwrap()]),
    ] {
        let run = ["run", "--bundle", bundle.path()];
        let arguments = [&run[..], flags, &[&bundle.id]].concat();
        let told = from(folder, &bundle, &arguments).success();
        assert_eq!(told, "other\n", "{flags:?}");
    }
}

fn the_name_of_the_bundles_own_is_the_bundles() {
    let bundle = with_another("echo $WORD");
    let elsewhere = bundle.folder.join("elsewhere");
    for flags in [&[][..], &["--config", "config.json"]] {
        let run = ["run", "--bundle", bundle.path()];
        let arguments = [&run[..], flags, &[&bundle.id]].concat();
        assert_eq!(from(&elsewhere, &bundle, &arguments).success(), "own\n");
    }
}

fn what_joins_later_finds_the_same_configuration() {
    let bundle = with_another("sleep 1000");
    let elsewhere = bundle.folder.join("elsewhere");
    let create = ["create", "--config", "web.json", "--bundle", bundle.path()];
    let mut create = command(&bundle, &[&create[..], &[&bundle.id]].concat());
    quietly(create.current_dir(&elsewhere));
    bundle.verb("start").success();
    let word = ["exec", &bundle.id, "sh", "-c", "echo $WORD"];
    assert_eq!(bundle.parhelion(&word).success(), "other\n");
    // Where the bundle's own has no part in it.
    fs::remove_file(bundle.folder.join("config.json")).unwrap();
    assert_eq!(bundle.parhelion(&word).success(), "other\n");
    let state: Value = serde_json::from_str(&bundle.verb("state").success()).unwrap();
    assert_eq!(state["bundle"], bundle.path());
    bundle
        .parhelion(&["delete", "--force", &bundle.id])
        .success();
}

fn what_is_wrong_is_told_with_the_name_of_the_file() {
    let bundle = with_another("true");
    let file = bundle.folder.join("elsewhere/web.json");
    let right: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    for (part, field, value) in [
        ("process", "cwd", "tmp"),       // found while it is read
        ("linux", "cgroupsPath", "/.."), // and while it is planned
    ] {
        let mut config = right.clone();
        config[part][field] = json!(value);
        fs::write(&file, config.to_string()).unwrap();
        let run = ["run", "--bundle", bundle.path(), "--config"];
        let all = [&run[..], &[file.to_str().unwrap(), &bundle.id]].concat();
        let error = bundle.parhelion(&all).failure();
        let expected = format!("{file:?}: {part}.{field}: ");
        assert!(error.contains(&expected), "{error}");
    }
}

fn a_configuration_that_is_missing_is_named() {
    let bundle = with_another("true");
    for verb in ["create", "run"] {
        let arguments = [verb, "-b", bundle.path(), "-f", "/no/such.json", &bundle.id];
        let error = bundle.parhelion(&arguments).failure();
        assert!(
            error.contains("\"/no/such.json\" does not exist"),
            "{error}"
        );
        let arguments = [verb, "-b", bundle.path(), "-f", "/", &bundle.id];
        let error = bundle.parhelion(&arguments).failure();
        assert!(error.contains("\"/\" is not a regular file"), "{error}");
        assert!(bundle.verb("state").failure().contains("does not exist"));
    }
}
