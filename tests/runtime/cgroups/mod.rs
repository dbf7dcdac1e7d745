//! cgroup v2: each limit as the kernel has it, the device filter, and what is killed and removed.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use libtest_mimic::Trial;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::{Value, json};

use crate::support::Bundle;

mod controllers;
mod cpu;
mod devices;
mod inner;
mod io;
mod kill;
mod manager;
mod memory;
mod no_filter;
mod path;
mod pause;
mod systemd;
mod unified;

/// The tests of this folder.
pub fn all() -> Vec<Trial> {
    let subjects = [
        controllers::all(),
        cpu::all(),
        devices::all(),
        inner::all(),
        io::all(),
        kill::all(),
        manager::all(),
        no_filter::all(),
        memory::all(),
        path::all(),
        pause::all(),
        systemd::all(),
        unified::all(),
    ];
    subjects.into_iter().flatten().collect()
}

/// Where the host has its cgroups, in these tests' mount namespace.
const HOST: &str = "/sys/fs/cgroup";

/// Processes are slow to end where the processor is emulated.
const PATIENCE: Timespec = Timespec {
    tv_sec: 60,
    tv_nsec: 0,
};

/// A bundle that runs `script` under the limits of `resources`, and sees its cgroup.
fn limited(resources: Value, script: &str) -> Bundle {
    let bundle = Bundle::new(script);
    bundle.edit(|config| {
        let all = config["linux"]["resources"].as_object_mut().unwrap();
        all.extend(resources.as_object().unwrap().clone());
    });
    mount_cgroup(&bundle, "ro");
    bundle
}

/// Mounts the container's cgroup at /sys/fs/cgroup in it, `ro` or `rw`.
fn mount_cgroup(bundle: &Bundle, access: &str) {
    bundle.edit(|config| {
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.push(
            json!({"destination": HOST, "type": "cgroup", "source": "cgroup",
            "options": ["nosuid", "noexec", "nodev", "relatime", access]}),
        );
    });
}

/// The container's processes are those of the host too: none of them dies with init.
fn share_pids(bundle: &Bundle) {
    bundle.edit(|config| {
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != "pid");
    });
}

fn cgroups_path(bundle: &Bundle, path: &str) {
    bundle.edit(|config| config["linux"]["cgroupsPath"] = json!(path));
}

/// The first line of each of `files`, as the container sees it under the limits of `resources`.
/// Read by the shell itself: a limit of processes may forbid another.
fn seen(resources: Value, files: &[&str]) -> Vec<String> {
    let script = format!(
        r#"cd {HOST}; for file in {}; do read -r line < $file; echo "$line"; done"#,
        files.join(" ")
    );
    let seen = limited(resources, &script).run().success();
    seen.lines().map(str::to_owned).collect()
}

/// The one value of `file` under the limits of `resources`.
fn value(resources: Value, file: &str) -> String {
    seen(resources, &[file]).concat()
}

/// Creates the container and starts it.
fn start(bundle: &Bundle) {
    bundle.create().success();
    bundle.verb("start").success();
}

fn pid(bundle: &Bundle) -> i32 {
    let state: Value = serde_json::from_str(&bundle.verb("state").success()).unwrap();
    i32::try_from(state["pid"].as_i64().unwrap()).unwrap()
}

/// The cgroup of a container that has no `cgroupsPath`.
fn cgroup(bundle: &Bundle) -> PathBuf {
    Path::new(HOST).join("parhelion").join(&bundle.id)
}

/// A cgroup that a test made on the host; removed, with those below it, when the test ends.
struct HostCgroup(PathBuf);

impl HostCgroup {
    fn new(bundle: &Bundle) -> HostCgroup {
        let path = Path::new(HOST).join(format!("{}-host", bundle.id));
        fs::create_dir(&path).unwrap();
        HostCgroup(path)
    }

    /// As `cgroupsPath` names it.
    fn name(&self) -> &str {
        self.0.to_str().unwrap().strip_prefix(HOST).unwrap()
    }
}

impl Drop for HostCgroup {
    fn drop(&mut self) {
        for child in fs::read_dir(&self.0).into_iter().flatten().flatten() {
            // The files among them are the kernel's and go with the directory.
            let _ = fs::remove_dir(child.path());
        }
        // A test that failed may have left a container below; that test is told already.
        let _ = fs::remove_dir(&self.0);
    }
}

/// Waits until no process is left in a cgroup or below it.
fn wait_until_empty(cgroup: &Path) {
    let events = match File::open(cgroup.join("cgroup.events")) {
        Ok(events) => events,
        Err(_removed) => return,
    };
    loop {
        let mut text = [0; 256];
        let Ok(length) = rustix::io::pread(&events, &mut text, 0) else {
            return; // removed
        };
        if String::from_utf8_lossy(&text[..length]).contains("populated 0") {
            return;
        }
        let mut fds = [PollFd::new(&events, PollFlags::PRI)];
        assert_eq!(poll(&mut fds, Some(&PATIENCE)), Ok(1), "still populated");
    }
}

/// Whether this host's cgroup v2 tree has a controller.
fn offers(controller: &str) -> bool {
    let offered = fs::read_to_string(Path::new(HOST).join("cgroup.controllers")).unwrap();
    offered.split_whitespace().any(|name| name == controller)
}
