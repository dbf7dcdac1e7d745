//! Compiled filters that are kept: which container is under which.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::thread;

use libtest_mimic::Trial;
use oci_spec::runtime::Spec;
use parhelion::seccomp::{Kept, Plan};
use rustix::fs::{CWD, Mode, mkfifoat};
use serde_json::{Value, json};

use super::probe::Call;
use super::{YIELD, allowing, docker, making, rule};
use crate::inside::Inside;
use crate::support::{Bundle, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        a_filter_is_kept_for_the_next_container,
        the_kept_filter_is_the_containers,
        a_process_that_joins_is_under_the_kept_filter,
        every_byte_of_the_profile_counts,
        what_is_not_whole_or_not_ours_is_not_used_but_replaced,
        a_folder_that_others_can_write_to_is_not_used,
        only_what_the_profile_says_alone_is_kept,
        no_more_than_a_few_are_kept,
        several_containers_keep_the_same_at_once,
        what_is_wrong_is_told_with_its_place,
        a_log_of_decisions_has_the_plan_of_a_profile_that_is_kept,
    ]
}

/// A profile that answers this errno to the probe's call.
fn answering(errno: u32) -> Value {
    let mut rule = rule("sched_yield", "ERRNO");
    rule["errnoRet"] = json!(errno);
    allowing(json!([rule]))
}

/// A bundle whose program ends with the errno of its call.
fn yielding(profile: Value) -> Bundle {
    making(Call::native(YIELD), profile)
}

fn folder(bundle: &Bundle) -> PathBuf {
    bundle.folder.join("state/@seccomp")
}

/// The only file there.
fn file(bundle: &Bundle) -> PathBuf {
    let files = files(&folder(bundle));
    assert_eq!(files.len(), 1, "{files:?}");
    files.into_iter().next().unwrap()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// The text of a bundle's profile in its config.json, where it is one line.
fn text(bundle: &Bundle) -> String {
    bundle.edit(|_| {});
    let config = fs::read_to_string(bundle.folder.join("config.json")).unwrap();
    let from = config.find("\"seccomp\":").unwrap() + "\"seccomp\":".len();
    let text = config[from..].trim_start();
    // An object ends where its braces do; no name here has any.
    let mut depth = 0;
    let end = text.find(|character| {
        depth += match character {
            '{' => 1,
            '}' => -1,
            _ => 0,
        };
        depth == 0
    });
    text[..=end.unwrap()].to_owned()
}

/// Puts the filter of another profile where that of the bundle's is kept.
fn exchange(bundle: &Bundle, profile: &Value) {
    let config = json!({"ociVersion": "1.0.0", "linux": {"seccomp": profile}});
    let spec: Spec = serde_json::from_value(config).unwrap();
    let plan = Plan::new(&spec, &mut parhelion::error::Problems::default()).unwrap();
    Kept::below(&bundle.folder.join("state")).keep(&text(bundle), &plan);
}

fn a_filter_is_kept_for_the_next_container() {
    let bundle = yielding(answering(71));
    assert_eq!(bundle.run().code(), Some(71));
    let folder = folder(&bundle);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&folder), 0o700);
    let file = file(&bundle);
    assert_eq!(mode(&file), 0o600);
    let (before, made) = (
        fs::read(&file).unwrap(),
        fs::metadata(&file).unwrap().modified().unwrap(),
    );
    assert_eq!(bundle.run().code(), Some(71));
    assert_eq!(fs::read(&file).unwrap(), before);
    assert_eq!(fs::metadata(&file).unwrap().modified().unwrap(), made);
    // It is no container.
    assert_eq!(bundle.parhelion(&["list", "--quiet"]).success(), "");
    assert!(
        bundle
            .parhelion(&["state", "@seccomp"])
            .failure()
            .contains("container id")
    );
}

fn the_kept_filter_is_the_containers() {
    let bundle = yielding(answering(71));
    assert_eq!(bundle.run().code(), Some(71));
    // What is kept there is believed: so it was not compiled again.
    exchange(&bundle, &answering(72));
    file(&bundle);
    assert_eq!(bundle.run().code(), Some(72));
    fs::remove_file(file(&bundle)).unwrap();
    assert_eq!(bundle.run().code(), Some(71));
    // Docker's profile, with 377 names for three architectures, is as good.
    let bundle = yielding(docker());
    for _ in 0..2 {
        assert_eq!(bundle.run().code(), Some(0));
    }
    exchange(&bundle, &answering(73));
    assert_eq!(bundle.run().code(), Some(73));
}

fn a_process_that_joins_is_under_the_kept_filter() {
    let bundle = Inside::bundle();
    super::probe::write(&bundle, "probe", Call::native(YIELD));
    bundle.edit(|config| config["linux"]["seccomp"] = answering(71));
    let inside = Inside::of(bundle);
    let exec = || {
        inside
            .bundle
            .parhelion(&["exec", &inside.bundle.id, "/probe"])
    };
    assert_eq!(exec().code(), Some(71));
    exchange(&inside.bundle, &answering(72));
    assert_eq!(exec().code(), Some(72));
    fs::remove_file(file(&inside.bundle)).unwrap();
    assert_eq!(exec().code(), Some(71));
}

fn every_byte_of_the_profile_counts() {
    let bundle = yielding(answering(71));
    assert_eq!(bundle.run().code(), Some(71));
    bundle.edit(|config| config["linux"]["seccomp"] = answering(74));
    assert_eq!(bundle.run().code(), Some(74));
    assert_eq!(files(&folder(&bundle)).len(), 2);
    // What is around it does not.
    bundle.edit(|config| config["hostname"] = json!("other"));
    assert_eq!(bundle.run().code(), Some(74));
    assert_eq!(files(&folder(&bundle)).len(), 2);
}

fn what_is_not_whole_or_not_ours_is_not_used_but_replaced() {
    let bundle = yielding(answering(71));
    bundle.run();
    let file = file(&bundle);
    let whole = fs::read(&file).unwrap();
    let elsewhere = bundle.folder.join("elsewhere");
    let flip = |place: usize| {
        let mut bytes = whole.clone();
        bytes[place] ^= 1;
        fs::write(&file, bytes).unwrap();
    };
    exchange(&bundle, &answering(72));
    let exchanged = fs::read(&file).unwrap();
    assert_ne!(whole, exchanged);
    // A whole filter of another profile, which would be seen if it were used.
    let other = |path: &Path| fs::write(path, &exchanged).unwrap();
    let harms: [&dyn Fn(); 9] = [
        &|| fs::write(&file, "").unwrap(),
        &|| fs::write(&file, &whole[..whole.len() - 1]).unwrap(),
        &|| flip(0),
        &|| flip(40),
        &|| flip(whole.len() - 1),
        &|| {
            other(&file);
            fs::set_permissions(&file, fs::Permissions::from_mode(0o602)).unwrap();
        },
        &|| {
            other(&file);
            chown(&file, Some(1), None).unwrap();
        },
        &|| {
            other(&elsewhere);
            fs::set_permissions(&elsewhere, fs::Permissions::from_mode(0o600)).unwrap();
            symlink(&elsewhere, &file).unwrap();
        },
        &|| mkfifoat(CWD, &file, Mode::RUSR).unwrap(),
    ];
    for (number, harm) in harms.iter().enumerate() {
        if number > 4 {
            fs::remove_file(&file).unwrap();
        }
        harm();
        assert_eq!(bundle.run().code(), Some(71), "harm {number}");
        assert_eq!(fs::read(&file).unwrap(), whole, "harm {number}");
        assert!(!fs::symlink_metadata(&file).unwrap().is_symlink());
    }
    assert_eq!(fs::read(&elsewhere).unwrap(), exchanged);
    // What can not be replaced hinders nobody.
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    assert_eq!(bundle.run().code(), Some(71));
    assert_eq!(files(&folder(&bundle)), [file]);
}

fn a_folder_that_others_can_write_to_is_not_used() {
    let bundle = yielding(answering(71));
    bundle.run();
    exchange(&bundle, &answering(72));
    assert_eq!(bundle.run().code(), Some(72));
    let folder = folder(&bundle);
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o770)).unwrap();
    assert_eq!(bundle.run().code(), Some(71));
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
    chown(&folder, Some(1), None).unwrap();
    assert_eq!(bundle.run().code(), Some(71));
    chown(&folder, Some(0), None).unwrap();
    let elsewhere = bundle.folder.join("elsewhere");
    fs::rename(&folder, &elsewhere).unwrap();
    symlink(&elsewhere, &folder).unwrap();
    assert_eq!(bundle.run().code(), Some(71));
}

fn only_what_the_profile_says_alone_is_kept() {
    let nothing = |bundle: &Bundle| {
        bundle.run().success();
        assert!(!folder(bundle).exists());
    };
    nothing(&Bundle::new("true"));
    let with = |change: &dyn Fn(&mut Value)| {
        let bundle = Bundle::new("true");
        bundle.edit(|config| {
            config["linux"]["seccomp"] = answering(71);
            change(config);
        });
        bundle
    };
    // An annotation has a say.
    let strict = "run.oci.seccomp_fail_unknown_syscall";
    nothing(&with(&|config| config["annotations"][strict] = json!("1")));
    // A person is told of it, each time.
    let bundle = with(&|config| config["linux"]["seccomp"]["syscals"] = json!([]));
    for _ in 0..2 {
        let told = "linux.seccomp.syscals: unknown property, ignored";
        let ran = bundle.run();
        assert!(ran.stderr().contains(told), "{}", ran.stderr());
        nothing(&bundle);
    }
    // A profile that asks for nothing.
    nothing(&with(&|config| config["linux"]["seccomp"] = json!({})));
    nothing(&with(&|config| config["linux"]["seccomp"] = Value::Null));
    // And one beside them is.
    let bundle = with(&|_| {});
    bundle.run().success();
    file(&bundle);
    // A filter that an annotation has is not the profile's.
    exchange(&bundle, &answering(72));
    super::probe::write(&bundle, "probe", Call::native(YIELD));
    bundle.edit(|config| config["process"]["args"] = json!(["/probe"]));
    assert_eq!(bundle.run().code(), Some(72));
    bundle.edit(|config| config["annotations"][strict] = json!("1"));
    assert_eq!(bundle.run().code(), Some(71));
}

fn no_more_than_a_few_are_kept() {
    const MOST: usize = 32;
    let bundle = yielding(answering(1));
    for errno in 1..=40 {
        bundle.edit(|config| config["linux"]["seccomp"] = answering(errno));
        assert_eq!(bundle.run().code(), Some(errno as i32));
        let kept = files(&folder(&bundle)).len();
        assert_eq!(kept, MOST.min(errno as usize), "after {errno}");
    }
    // The newest are there.
    exchange(&bundle, &answering(99));
    assert_eq!(bundle.run().code(), Some(99));
    bundle.edit(|config| config["linux"]["seccomp"] = answering(1));
    assert_eq!(bundle.run().code(), Some(1));
    assert_eq!(files(&folder(&bundle)).len(), MOST);
}

fn several_containers_keep_the_same_at_once() {
    let bundle = yielding(answering(71));
    let run = |number: u32| {
        let id = format!("{}-{number}", bundle.id);
        let ran = bundle.parhelion(&["run", "--bundle", bundle.path(), &id]);
        assert_eq!(ran.code(), Some(71), "{}", ran.stderr());
    };
    thread::scope(|scope| {
        for number in 0..8 {
            scope.spawn(move || run(number));
        }
    });
    let file = file(&bundle);
    exchange(&bundle, &answering(72));
    assert_eq!(files(&folder(&bundle)), [file]);
    assert_eq!(bundle.run().code(), Some(72));
}

fn what_is_wrong_is_told_with_its_place() {
    let bundle = yielding(answering(71));
    assert_eq!(bundle.run().code(), Some(71));
    let config = bundle.folder.join("config.json");
    let lines = fs::read_to_string(&config).unwrap();
    let lines: Value = serde_json::from_str(&lines).unwrap();
    let whole = serde_json::to_string_pretty(&lines).unwrap();
    let action = "\"SCMP_ACT_ALLOW\"";
    let line = whole.lines().position(|line| line.contains(action));
    let line = format!("line {} ", line.unwrap() + 1);
    for (word, replaced, told) in [
        (
            action,
            "\"\", \"defaultAction\": \"\"",
            "the name \"defaultAction\" is given twice",
        ),
        (
            action,
            "SCMP_ACT_ALLOW",
            "expected value: correct the JSON there",
        ),
        (
            action,
            "\"SCMP_ACT_\\q\"",
            "invalid escape: correct the JSON there",
        ),
    ] {
        fs::write(&config, whole.replacen(word, replaced, 1)).unwrap();
        let error = bundle.run().failure();
        assert!(error.contains(told) && error.contains(&line), "{error}");
    }
    for (word, replaced, told) in [
        (
            action,
            "\"SCMP_ACT_ALOW\"",
            "linux.seccomp.defaultAction: must be",
        ),
        (
            "\"seccomp\"",
            "\"seccomp\": {}, \"seccomp\"",
            "the name \"seccomp\" is given twice",
        ),
    ] {
        fs::write(&config, whole.replacen(word, replaced, 1)).unwrap();
        let error = bundle.run().failure();
        assert!(error.contains(told), "{error}");
    }
    // None of it has harmed what is kept.
    fs::write(&config, &whole).unwrap();
    assert_eq!(bundle.run().code(), Some(71));
}

fn a_log_of_decisions_has_the_plan_of_a_profile_that_is_kept() {
    let bundle = yielding(answering(71));
    for _ in 0..2 {
        let debugging = ["--debug", "run", "--bundle", bundle.path(), &bundle.id];
        let ran = bundle.parhelion(&debugging);
        assert_eq!(ran.code(), Some(71));
        let told = "seccomp 1 rules and default ALLOW for";
        assert!(ran.stderr().contains(told), "{}", ran.stderr());
    }
    file(&bundle);
}
