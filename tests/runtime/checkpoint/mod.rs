//! `checkpoint` and `restore`: what a container was, it is again, and its processes go on.
//!
//! Most of it needs criu, which the virtual host has.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};

use libtest_mimic::Trial;
use serde_json::json;

use crate::caller::command;
use crate::inside::Inside;
use crate::support::{Bundle, Ran, only_where};

mod failures;
mod hooks;
mod labels;
mod life;
mod memory;
mod network;
mod outside;
mod refusals;
mod terminal;
mod unix_sockets;

/// The tests of this folder.
pub fn all() -> Vec<Trial> {
    let subjects = [
        failures::all(),
        hooks::all(),
        labels::all(),
        life::all(),
        memory::all(),
        network::all(),
        outside::all(),
        terminal::all(),
        unix_sockets::all(),
    ];
    let mut trials = needs_criu(subjects.into_iter().flatten().collect());
    trials.extend(refusals::all());
    trials
}

/// `trials`, if criu works here; said loudly where it does not.
fn needs_criu(trials: Vec<Trial>) -> Vec<Trial> {
    let checked = Command::new("criu").arg("check").output();
    let works = checked.is_ok_and(|ended| ended.status.success());
    only_where(works, "criu does not work", trials)
}

/// A bundle that counts the lines it is given: for [`Inside::of`]. The line `end N` ends it.
pub fn counter() -> Bundle {
    let bundle = Bundle::new(
        "exec 3<>/tmp/ask 4<>/tmp/answer
        i=0
        while read -r line <&3; do
            i=$((i + 1))
            case $line in 'end '*) exit ${line#end };; esac
            (eval \"$line\") >&4 2>&1; echo . >&4
        done",
    );
    bundle.edit(|config| config["root"]["readonly"] = json!(false));
    bundle
}

/// A container that counts, and has counted to one.
fn counting() -> Inside {
    let mut inside = Inside::of(counter());
    assert_eq!(inside.ask("echo $i"), "1\n");
    inside
}

/// The directory of the images of a bundle's container.
fn images(bundle: &Bundle) -> String {
    format!("{}/images", bundle.path())
}

/// `checkpoint` of the bundle's container.
pub fn checkpoint(bundle: &Bundle, flags: &[&str]) -> Ran {
    let images = images(bundle);
    let mut arguments = vec!["checkpoint", "--image-path", &images];
    arguments.extend(flags);
    arguments.push(&bundle.id);
    bundle.parhelion(&arguments)
}

/// `restore` of the bundle's container in the background, with its output in the same file as before.
pub fn restore(bundle: &Bundle, flags: &[&str]) -> Ran {
    restore_as(bundle, &bundle.id, flags)
}

/// The words of a `restore` of the bundle's images.
fn restoring(bundle: &Bundle, flags: &[&str], id: &str) -> Vec<String> {
    let images = images(bundle);
    let ours = ["--image-path", &images, "--bundle", bundle.path()];
    let words = [&["restore"], &ours[..], flags, &[id]].concat();
    words.into_iter().map(str::to_owned).collect()
}

/// As [`restore`], under another id.
fn restore_as(bundle: &Bundle, id: &str, flags: &[&str]) -> Ran {
    let arguments = restoring(bundle, &[&["--detach"], flags].concat(), id);
    let errors = bundle.folder.join("errors");
    let output = File::options()
        .append(true)
        .create(true)
        .open(bundle.folder.join("output"));
    let status = command(bundle, &arguments)
        .stdin(Stdio::null())
        .stdout(output.unwrap())
        .stderr(File::create(&errors).unwrap())
        .status()
        .unwrap();
    Ran(std::process::Output {
        status,
        stdout: Vec::new(),
        stderr: std::fs::read(&errors).unwrap(),
    })
}

/// Nothing is left of a container but its images: no record, no cgroup, no mount.
pub fn is_gone(bundle: &Bundle) -> bool {
    let told = bundle.verb("state").failure();
    let cgroup = Path::new("/sys/fs/cgroup/parhelion").join(&bundle.id);
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    told.contains("does not exist") && !cgroup.exists() && !mounts.contains(bundle.path())
}
