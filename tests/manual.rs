//! The manual pages and completions that `make manual` writes: complete, and of use to the programs
//! that read them.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

#[path = "../examples/manual/pages.rs"]
mod pages;

use std::process::{Command, Stdio};

/// The text of the file whose path ends so.
fn file(end: &str) -> String {
    let files = pages::all().unwrap();
    let file = files.iter().find(|file| file.path.ends_with(end));
    let file = file.unwrap_or_else(|| panic!("there is no {end}"));
    String::from_utf8(file.content.clone()).unwrap()
}

/// All verbs with their definitions.
fn verbs() -> Vec<clap::Command> {
    let mut program = parhelion::cli::command();
    program.build();
    let verbs = program
        .get_subcommands()
        .filter(|verb| verb.get_name() != "help");
    verbs.cloned().collect()
}

/// The flags of a verb as they are written, without those that are hidden.
fn flags(verb: &clap::Command) -> Vec<String> {
    let shown = verb.get_arguments().filter(|flag| !flag.is_hide_set());
    shown
        .filter_map(|flag| Some(format!("--{}", flag.get_long()?)))
        .collect()
}

#[test]
fn every_verb_and_every_flag_has_its_place_in_the_manual() {
    let all = verbs();
    assert!(all.len() > 10, "the definitions are elsewhere");
    let overview = file("man8/parhelion.8");
    for verb in all {
        let name = verb.get_name();
        assert!(
            overview.contains(&format!("parhelion\\-{name}(8)")),
            "{name}"
        );
        let page = file(&format!("man8/parhelion-{name}.8"));
        let plain = page.replace("\\*(Aq", "'").replace('\\', "");
        assert!(
            plain.contains(&verb.get_about().unwrap().to_string()),
            "{page}"
        );
        for flag in flags(&verb) {
            assert!(plain.contains(&flag), "{name} {flag}");
        }
    }
    assert!(!file("man8/parhelion-update.8").contains("kernel"));
}

#[test]
fn every_verb_and_every_flag_is_completed_by_every_shell() {
    let shells = [
        file("completions/parhelion"),
        file("site-functions/_parhelion"),
        file("vendor_completions.d/parhelion.fish"),
    ];
    for script in shells {
        for verb in verbs() {
            for flag in flags(&verb).into_iter().chain([verb.get_name().to_owned()]) {
                // fish writes "-l memory" for "--memory".
                let long = format!("-l {}", flag.trim_start_matches('-'));
                assert!(script.contains(&flag) || script.contains(&long), "{flag}");
            }
        }
    }
}

/// What bash offers after these words.
fn offered(words: &[&str]) -> String {
    let script = "source /dev/stdin; COMP_WORDS=(parhelion \"$@\"); COMP_CWORD=$#; \
                  _parhelion parhelion \"${COMP_WORDS[-1]}\" \"${COMP_WORDS[-2]}\"; \
                  echo \"${COMPREPLY[@]}\"";
    let mut bash = Command::new("bash");
    bash.args(["-c", script, "bash"]).args(words);
    let piped = bash.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut bash = piped.stderr(Stdio::piped()).spawn().unwrap();
    let text = file("completions/parhelion");
    let mut stdin = bash.stdin.take().unwrap();
    std::io::Write::write_all(&mut stdin, text.as_bytes()).unwrap();
    drop(stdin);
    let output = bash.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    String::from_utf8(output.stdout)
        .unwrap()
        .trim_end()
        .to_owned()
}

#[test]
fn bash_completes_verbs_flags_and_values() {
    assert_eq!(offered(&["up"]), "update");
    assert_eq!(
        offered(&["update", "--memory-"]),
        "--memory-reservation --memory-swap"
    );
    assert_eq!(offered(&["list", "--format", ""]), "table json");
}

/// The commands of the supervisor, as those of the runtime: each has its page and its completions.
#[cfg(feature = "supervisor")]
#[test]
fn the_supervisors_programs_have_pages_and_completions() {
    let mut client = parhelion::client::command();
    client.build();
    let fish = file("vendor_completions.d/parctl.fish");
    for verb in client.get_subcommands() {
        let name = verb.get_name();
        if name == "help" {
            continue;
        }
        let page = file(&format!("man8/parctl-{name}.8"));
        for flag in flags(verb) {
            let long = format!("-l {}", flag.trim_start_matches('-'));
            assert!(page.replace('\\', "").contains(&flag), "{name} {flag}");
            assert!(fish.contains(&long), "{name} {flag}");
        }
    }
    let page = file("man8/parheliond.8").replace('\\', "");
    for flag in flags(&parhelion::control::command()) {
        assert!(page.contains(&flag), "{flag}");
    }
    assert!(file("completions/parheliond").contains("--cgroup-parent"));
}
