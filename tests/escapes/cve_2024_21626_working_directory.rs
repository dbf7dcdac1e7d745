//! CVE-2024-21626 (runc): a working directory that is a descriptor of the runtime's or its caller's, open on a folder of
//! the host's: `/proc/self/fd/7`, written in the configuration, given to `exec`, or a link in the image.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Stdio;

use libtest_mimic::Trial;
use serde_json::json;

use crate::caller::{from_shell, start};
use crate::subject::Subject;
use crate::support::{Bundle, Ran, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        no_number_of_a_descriptor_leads_out_of_a_new_container,
        a_descriptor_that_is_left_open_would_lead_out_of_a_new_container,
        no_number_of_a_descriptor_leads_out_by_exec,
        a_descriptor_that_is_left_open_would_lead_out_by_exec,
        a_place_that_is_found_outside_is_refused,
        no_descriptor_of_the_caller_is_open_in_the_program,
        descriptors_of_the_caller_would_be_open_in_the_program,
    ]
}

/// What a process may have open: those of the caller (3 to 9), then the runtime's.
const NUMBERS: std::ops::Range<u32> = 3..24;

/// A caller that has a folder of the host's open, as a daemon may.
fn call(bundle: &Bundle, arguments: &[&str]) -> Ran {
    let outside = bundle.folder.join("outside");
    let open = format!(
        "cd {}; exec 3<. 4<. 5<. 6<. 7<. 8<. 9<.; cd /; exec \"$@\"",
        outside.display()
    );
    let mut command = from_shell(bundle, &open, arguments);
    Ran(command.stdin(Stdio::null()).output().unwrap())
}

fn bundle(subject: Subject) -> Bundle {
    let bundle = subject.bundle("sleep 100000");
    fs::create_dir(bundle.folder.join("outside")).unwrap();
    fs::write(bundle.folder.join("outside/secret"), "of the host\n").unwrap();
    bundle
}

/// Whether `run` with one of these working directories reads the host's file.
fn run_leads_out(subject: Subject) -> bool {
    let bundle = bundle(subject);
    let way = bundle.folder.join("rootfs/way");
    let run = |cwd: &str| {
        bundle.edit(|config| {
            config["process"]["cwd"] = json!(cwd);
            config["process"]["args"] = json!(["/bin/cat", "secret"]);
        });
        let ran = call(&bundle, &["run", "--bundle", bundle.path(), &bundle.id]);
        let out = String::from_utf8_lossy(&ran.0.stdout).into_owned();
        assert!(ran.code() != Some(0) || out.contains("host"), "{out}");
        out.contains("of the host")
    };
    let either = |number| {
        let place = format!("/proc/self/fd/{number}");
        symlink(&place, &way).unwrap();
        let found = run(&place) || run("/way");
        fs::remove_file(&way).unwrap();
        found
    };
    NUMBERS.into_iter().any(either)
}

fn no_number_of_a_descriptor_leads_out_of_a_new_container() {
    assert!(!run_leads_out(Subject::Real));
}

/// Three things are in the way: nothing is open, the place is made inside the root and not by magic links, and what
/// was entered is looked at.
fn a_descriptor_that_is_left_open_would_lead_out_of_a_new_container() {
    let without = "descriptors,working-directory,in-root";
    assert!(run_leads_out(Subject::Without(without)));
}

fn exec_leads_out(subject: Subject) -> bool {
    let bundle = bundle(subject);
    start(&bundle);
    let exec = |number| {
        let cwd = format!("/proc/self/fd/{number}");
        let ran = call(
            &bundle,
            &["exec", "--cwd", &cwd, &bundle.id, "cat", "secret"],
        );
        String::from_utf8_lossy(&ran.0.stdout).contains("of the host")
    };
    NUMBERS.into_iter().any(exec)
}

fn no_number_of_a_descriptor_leads_out_by_exec() {
    assert!(!exec_leads_out(Subject::Real));
}

fn a_descriptor_that_is_left_open_would_lead_out_by_exec() {
    assert!(exec_leads_out(Subject::Without(
        "descriptors,working-directory"
    )));
}

/// The last of the barriers by itself: descriptors are left open, and the place is looked at.
fn a_place_that_is_found_outside_is_refused() {
    assert!(!exec_leads_out(Subject::Without("descriptors")));
}

/// Which descriptors the program has, new and by exec, for such a caller.
fn open_inside(subject: Subject) -> [String; 2] {
    let show = ["/bin/sh", "-c", "ls /proc/$$/fd; true"];
    let own = bundle(subject);
    own.edit(|config| config["process"]["args"] = json!(show));
    let new = call(&own, &["run", "--bundle", own.path(), &own.id]);
    let other = bundle(subject);
    start(&other);
    let joined = call(&other, &[&["exec", &other.id][..], &show].concat());
    [new.success(), joined.success()]
}

fn no_descriptor_of_the_caller_is_open_in_the_program() {
    for open in open_inside(Subject::Real) {
        assert_eq!(open, "0\n1\n2\n");
    }
}

fn descriptors_of_the_caller_would_be_open_in_the_program() {
    for open in open_inside(Subject::Without("descriptors")) {
        let is_open = |number: u32| open.lines().any(|line| line == number.to_string());
        assert!((3..10).all(is_open), "{open}");
    }
}
