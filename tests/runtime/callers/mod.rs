//! The callers of a runtime, for real: Docker, containerd and Podman, as docs/callers.md sets them up.
//!
//! In the virtual host only, as they write to /etc and use the host's own daemons. Each daemon is started
//! by the first test that wants it, has one image, and is stopped at the end.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, OnceLock};

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::support::{Bundle, Ran, only_where, program};

mod checkpoints;
mod containerd;
mod docker;
mod docker_changes;
mod podman;
mod pods;
mod rootless;

/// The tests of this folder.
pub fn all() -> Vec<Trial> {
    let subjects = [
        checkpoints::all(),
        containerd::all(),
        docker::all(),
        docker_changes::all(),
        podman::all(),
        pods::all(),
        rootless::all(),
    ];
    in_the_virtual_host(subjects.into_iter().flatten().collect())
}

/// `trials`, if this is the virtual host; said loudly where it is not.
fn in_the_virtual_host(trials: Vec<Trial>) -> Vec<Trial> {
    let is_it = std::env::var_os("PARHELION_TEST_ALL").is_some();
    let lacks = "they change the settings of Docker, containerd and Podman";
    only_where(is_it, lacks, trials)
}

/// The name of the image that each caller gets.
const IMAGE: &str = "localhost/busybox:1";

/// A command of the host, called as by a person there: not in the tests' own mount namespace, so
/// that what Podman mounts can be seen by systemd and by its other commands.
fn host(words: &[&str]) -> Command {
    let mut command = Command::new("nsenter");
    command
        .args(["--target", "1", "--mount", "--"])
        .args(words)
        .stdin(Stdio::null());
    command
}

/// What such a command answers.
fn call(words: &[&str]) -> Ran {
    Ran(host(words).output().unwrap())
}

/// What it prints; it must end well.
fn ask(words: &[&str]) -> String {
    let ran = call(words);
    let status = ran.0.status;
    assert!(status.success(), "{words:?}: {status}: {}", ran.stderr());
    ran.success().trim_end().to_owned()
}

/// It must end with this code; what it says on stderr.
fn ends_with(code: i32, words: &[&str]) -> String {
    let ran = call(words);
    assert_eq!(ran.code(), Some(code), "{words:?}: {}", ran.stderr());
    ran.stderr()
}

/// The services that were started and are stopped by [`stop`].
static STARTED: Mutex<Vec<&str>> = Mutex::new(Vec::new());

/// Starts a service of the host's systemd; returns when it has said that it is ready.
fn start(services: &[&'static str]) {
    STARTED.lock().unwrap().extend(services);
    ask(&[&["systemctl", "start"], services].concat());
}

/// Stops what was started. Called when all tests have ended.
pub fn stop() {
    let started = STARTED.lock().unwrap();
    if !started.is_empty() {
        ask(&[&["systemctl", "stop"], &started[..]].concat());
    }
}

/// An archive of the image, as `docker save` writes one: all three load it.
fn archive() -> &'static Path {
    static ARCHIVE: OnceLock<PathBuf> = OnceLock::new();
    ARCHIVE.get_or_init(|| {
        let bundle = Bundle::new("");
        let folder = bundle.folder.join("image");
        fs::create_dir(&folder).unwrap();
        let etc = bundle.folder.join("rootfs/etc");
        fs::write(etc.join("passwd"), "root:x:0:0:root:/:/bin/sh\n").unwrap();
        fs::write(etc.join("group"), "root:x:0:\n").unwrap();
        let run = |words: &[&str]| {
            let output = Command::new(words[0])
                .args(&words[1..])
                .current_dir(&folder)
                .output();
            Ran(output.unwrap()).success()
        };
        // The programs are links to one file, which another test may have given to its user.
        let owner = ["--owner=0", "--group=0"];
        let pack = ["-C", "../rootfs", "-cf", "layer.tar", "."];
        run(&[&["tar"], &owner[..], &pack].concat());
        let sum = run(&["sha256sum", "layer.tar"]);
        let layer = format!("sha256:{}", sum.split(' ').next().unwrap());
        let write = |name: &str, value: &Value| {
            fs::write(folder.join(name), value.to_string()).unwrap();
        };
        write(
            "config.json",
            &json!({"architecture": "amd64", "os": "linux",
                "config": {"Env": ["PATH=/bin"], "Cmd": ["sh"]},
                "rootfs": {"type": "layers", "diff_ids": [layer]}}),
        );
        write(
            "manifest.json",
            &json!([{"Config": "config.json", "RepoTags": [IMAGE], "Layers": ["layer.tar"]}]),
        );
        let archive = std::env::temp_dir().join("parhelion-image.tar");
        let name = archive.to_str().unwrap();
        run(&[
            "tar",
            "-cf",
            name,
            "config.json",
            "manifest.json",
            "layer.tar",
        ]);
        archive
    })
}

/// The program's path, as callers are told it.
fn runtime() -> String {
    program().to_str().unwrap().to_owned()
}

/// The directory of a process's cgroup.
fn cgroup_of(pid: &str) -> PathBuf {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let path = text.trim_end().trim_start_matches("0::/");
    Path::new("/sys/fs/cgroup").join(path)
}

/// A file of that directory.
fn limit(pid: &str, file: &str) -> String {
    let text = fs::read_to_string(cgroup_of(pid).join(file));
    let text = text.unwrap_or_else(|error| panic!("{file} of process {pid}: {error}"));
    text.trim_end().to_owned()
}

/// What docs/callers.md says is to be in a file, with the path of the program under test.
fn setting(file: &str) -> String {
    let text = include_str!("../../../docs/callers.md");
    let (_, after) = text.split_once(&format!("`{file}`")).unwrap();
    let (_, block) = after.split_once("```").unwrap();
    let (block, _) = block.split_once("```").unwrap();
    let (_language, lines) = block.split_once('\n').unwrap();
    lines.replace("/usr/local/bin/parhelion", &runtime())
}
