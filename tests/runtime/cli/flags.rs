//! The command line itself: versions, help, flags, what is refused.

use std::process::Stdio;

use libtest_mimic::Trial;

use super::parhelion;
use crate::caller::{command, start};
use crate::support::{Bundle, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        the_version_has_three_lines,
        help_names_every_verb,
        a_wrong_command_line_ends_with_1_and_says_what_is_wrong,
        an_error_that_nobody_can_be_told_is_an_error_all_the_same,
        values_are_taken_with_a_blank_or_an_equals_sign,
        an_id_that_could_leave_its_directory_is_refused,
        the_root_directory_holds_all_state,
        delete_by_force_of_an_unknown_container_is_success,
        create_leaves_orphans_to_others_in_any_case,
        the_version_is_told_by_cruns_short_flag_too,
        help_and_usage_are_told_by_cruns_flags_too,
    ]
}

fn the_version_has_three_lines() {
    for flag in ["--version", "-v"] {
        let text = parhelion(&[flag]).success();
        let lines: Vec<&str> = text.lines().collect();
        let [name, commit, spec] = lines[..] else {
            panic!("{text}");
        };
        assert!(name.starts_with("parhelion version "), "{text}");
        assert!(commit.starts_with("commit: "), "{text}");
        assert!(spec.starts_with("spec: 1."), "{text}");
    }
}

fn help_names_every_verb() {
    let text = parhelion(&["--help"]).success();
    for verb in [
        "create", "start", "run", "state", "kill", "delete", "list", "spec", "ps", "pause",
        "resume", "update", "events", "features", "mounts",
    ] {
        let row = |line: &str| line.trim_start().starts_with(verb);
        assert!(text.lines().any(row), "{verb} in {text}");
        parhelion(&[verb, "--help"]).success();
    }
}

fn a_wrong_command_line_ends_with_1_and_says_what_is_wrong() {
    let wrong: [(&[&str], &str); 10] = [
        (&["no-such-verb"], "no-such-verb"),
        (&["create"], "<ID>"),
        (&["start"], "<ID>"),
        (&["start", "a", "b"], "'b'"),
        (&["create", "--no-such-flag", "a"], "--no-such-flag"),
        // One dash makes a row of short flags, as for other programs.
        (&["create", "-bundle", "/x", "a"], "unexpected argument"),
        (&["--log-format", "xml", "list"], "xml"),
        (&["--rootless", "maybe", "list"], "maybe"),
        (&["list", "--format", "yaml"], "yaml"),
        (&["create", "--preserve-fds", "x", "a"], "x"),
    ];
    for (arguments, words) in wrong {
        let ran = parhelion(arguments);
        assert_eq!(ran.code(), Some(1), "{arguments:?}");
        assert!(
            ran.stderr().contains(words),
            "{arguments:?}: {}",
            ran.stderr()
        );
        assert!(ran.0.stdout.is_empty());
    }
}

fn an_error_that_nobody_can_be_told_is_an_error_all_the_same() {
    let bundle = Bundle::new("true");
    let full = std::fs::File::options().write(true).open("/dev/full");
    let mut state = command(&bundle, &["state", "nobody"]);
    let status = state.stderr(full.unwrap()).status().unwrap();
    assert_eq!(status.code(), Some(1), "{status}");
}

fn values_are_taken_with_a_blank_or_an_equals_sign() {
    let bundle = Bundle::new("exit 0");
    let root = bundle.folder.join("state");
    let root = root.to_str().unwrap();
    let (root_is, bundle_is) = (
        format!("--root={root}"),
        format!("--bundle={}", bundle.path()),
    );
    let id = bundle.id.as_str();
    for rootless in ["--rootless=auto", "--rootless=true", "--rootless=false"] {
        parhelion(&[&root_is, rootless, "run", &bundle_is, id]).success();
    }
    parhelion(&["--root", root, "run", "-b", bundle.path(), id]).success();
    parhelion(&[
        "--root",
        root,
        "--debug",
        "--log",
        "/dev/null",
        "--log-format=json",
        "list",
    ])
    .success();
}

fn an_id_that_could_leave_its_directory_is_refused() {
    let bundle = Bundle::new("exit 0");
    for id in ["..", "a/b", "../x", "a b", "ä", ""] {
        let error = bundle
            .parhelion(&["create", "--bundle", bundle.path(), id])
            .failure();
        assert!(error.contains("container id"), "{id:?}: {error}");
    }
}

fn the_root_directory_holds_all_state() {
    let bundle = Bundle::new("sleep 1000");
    start(&bundle);
    let folder = bundle.folder.join("state").join(&bundle.id);
    assert!(folder.join("state.json").exists());
    let elsewhere = bundle.folder.join("other");
    let root = format!("--root={}", elsewhere.display());
    let error = parhelion(&[&root, "state", &bundle.id]).failure();
    assert!(error.contains("does not exist"), "{error}");
    assert_eq!(parhelion(&[&root, "list", "--quiet"]).success(), "");
    assert!(!elsewhere.exists(), "a query made a directory");
    bundle
        .parhelion(&["delete", "--force", &bundle.id])
        .success();
    assert!(!folder.exists());
}

fn delete_by_force_of_an_unknown_container_is_success() {
    let bundle = Bundle::new("");
    for flag in ["--force", "-f"] {
        let ran = bundle.parhelion(&["delete", flag, "never-created"]);
        assert_eq!(
            (ran.success(), ran.stderr()),
            (String::new(), String::new())
        );
    }
    let error = bundle.parhelion(&["delete", "never-created"]).failure();
    assert!(
        error.contains("container \"never-created\" does not exist"),
        "{error}"
    );
}

fn create_leaves_orphans_to_others_in_any_case() {
    let bundle = Bundle::new("exit 0");
    let flags = ["create", "--no-subreaper", "-b", bundle.path(), &bundle.id];
    let create = |flags: &[&str]| {
        let mut create = command(&bundle, flags);
        let null = || Stdio::null();
        let created = create.stdin(null()).stdout(null()).stderr(null()).status();
        assert!(created.unwrap().success());
        assert_eq!(bundle.status(), "created");
        bundle.parhelion(&["delete", "-f", &bundle.id]).success();
    };
    create(&flags);
    // As go-runc writes it for other verbs.
    create(&["create", "-no-subreaper", "-b", bundle.path(), &bundle.id]);
}

fn the_version_is_told_by_cruns_short_flag_too() {
    assert_eq!(
        parhelion(&["-V"]).success(),
        parhelion(&["--version"]).success()
    );
}

fn help_and_usage_are_told_by_cruns_flags_too() {
    for verb in [&[][..], &["run"], &["exec"], &["update"]] {
        let told = |flag| parhelion(&[verb, &[flag]].concat()).success();
        assert_eq!(told("-?"), told("--help"), "{verb:?}");
        let usage = told("--usage");
        assert_eq!(usage.lines().count(), 1, "{usage}");
        assert!(told("--help").contains(&usage), "{usage}");
    }
    let refused = parhelion(&["run", "--no-such-flag", "--usage", "web"]).failure();
    assert!(refused.contains("'--no-such-flag'"), "{refused}");
    // Where they are a program's, they stay that.
    let bundle = Bundle::new("exec busybox tail -f /dev/null");
    bundle.create().success();
    bundle.verb("start").success();
    let echo = ["exec", &bundle.id, "echo", "-?", "--usage"];
    assert_eq!(bundle.parhelion(&echo).success(), "-? --usage\n");
    bundle
        .parhelion(&["delete", "--force", &bundle.id])
        .success();
}
