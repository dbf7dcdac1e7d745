//! `exec`: a further process in a container, seen from inside and from the host.

mod cgroup;
mod described;
mod hidden;
mod identity;
mod passed;
mod place;
mod processors;
mod program;
mod races;
mod status;
mod terminal;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::caller::{command, start};
use crate::support::{Bundle, Ran};

/// The tests of this folder.
pub fn all() -> Vec<Trial> {
    let files = [
        cgroup::all(),
        described::all(),
        races::all(),
        hidden::all(),
        identity::all(),
        passed::all(),
        place::all(),
        processors::all(),
        program::all(),
        status::all(),
        terminal::all(),
    ];
    files.into_iter().flatten().collect()
}

/// A bundle whose program outlives any test.
fn sleeping() -> Bundle {
    let bundle = Bundle::new("");
    bundle.edit(|config| config["process"]["args"] = json!(["/bin/sleep", "100000"]));
    bundle
}

/// A container that runs.
fn running() -> Bundle {
    changed(|_config| {})
}

/// A container that runs with a changed configuration.
fn changed(change: impl FnOnce(&mut Value)) -> Bundle {
    let bundle = sleeping();
    bundle.edit(change);
    start(&bundle);
    bundle
}

/// `exec` with flags, of a program with its arguments.
fn exec_command(bundle: &Bundle, flags: &[&str], program: &[&str]) -> Command {
    command(bundle, &[&["exec"], flags, &[&bundle.id], program].concat())
}

/// As [`exec_command`], until it has ended.
fn exec(bundle: &Bundle, flags: &[&str], program: &[&str]) -> Ran {
    let mut command = exec_command(bundle, flags, program);
    Ran(command.stdin(Stdio::null()).output().unwrap())
}

/// What a shell that is executed prints.
fn sh(bundle: &Bundle, flags: &[&str], script: &str) -> String {
    exec(bundle, flags, &["/bin/sh", "-c", script]).success()
}

/// Executes a program that stays, in the background: its process id on the host.
fn background(bundle: &Bundle, flags: &[&str]) -> i32 {
    let file = bundle.folder.join("pid");
    let own = ["--detach", "--pid-file", file.to_str().unwrap()];
    let program = ["/bin/sleep", "100000"];
    let mut command = exec_command(bundle, &[&own, flags].concat(), &program);
    // Not through pipes, which the program would hold open.
    let output = fs::File::create(bundle.folder.join("background")).unwrap();
    let streams = command
        .stdin(Stdio::null())
        .stderr(output.try_clone().unwrap());
    let status = streams.stdout(output).status().unwrap();
    let told = fs::read_to_string(bundle.folder.join("background")).unwrap();
    assert!(status.success(), "{told}");
    fs::read_to_string(file).unwrap().parse().unwrap()
}

/// It fails as `exec` does when it is not the program's own failure: with 255 and one line.
fn refusal(ran: &Ran) -> String {
    let error = ran.failure();
    assert_eq!(ran.code(), Some(255), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
    error
}

/// The container's cgroup as the host sees it.
fn cgroup_of(bundle: &Bundle) -> PathBuf {
    Path::new("/sys/fs/cgroup/parhelion").join(&bundle.id)
}

/// The processes that are in a cgroup itself.
fn processes(cgroup: &Path) -> Vec<i32> {
    let text = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap();
    text.lines().map(|pid| pid.parse().unwrap()).collect()
}

/// Gives the container a user namespace whose root is 100000 on the host.
fn own_user_namespace(config: &mut Value, bundle_rootfs: &Path) {
    let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
    let linux = &mut config["linux"];
    let namespaces = linux["namespaces"].as_array_mut().unwrap();
    namespaces.push(json!({"type": "user"}));
    linux["uidMappings"] = map.clone();
    linux["gidMappings"] = map;
    std::os::unix::fs::chown(bundle_rootfs, Some(100_000), Some(100_000)).unwrap();
}

/// A container that runs in a user namespace of its own.
fn in_user_namespace(change: impl FnOnce(&mut Value)) -> Bundle {
    let bundle = sleeping();
    let rootfs = bundle.folder.join("rootfs");
    bundle.edit(|config| {
        own_user_namespace(config, &rootfs);
        change(config);
    });
    start(&bundle);
    bundle
}

/// Takes a kind of namespace out of the list, so that the container has the host's.
fn leave(config: &mut Value, kind: &str) {
    let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|namespace| namespace["type"] != kind);
    if kind == "uts" {
        config.as_object_mut().unwrap().remove("hostname");
    }
    if kind == "mount" {
        for field in ["maskedPaths", "readonlyPaths"] {
            config["linux"][field] = json!([]);
        }
        config["mounts"] = json!([]);
        config["root"]["readonly"] = json!(false);
    }
}

/// Asks until it is so: for what no event tells, as a process that appears in a cgroup.
fn wait_until(is_so: impl Fn() -> bool) {
    for _ in 0..30_000 {
        if is_so() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    panic!("it did not become so in a minute");
}
