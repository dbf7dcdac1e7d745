//! A host whose cgroups systemd manages: neither gets in the other's way.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use libtest_mimic::Trial;
use serde_json::json;

use super::{HOST, cgroup, cgroups_path, limited, pid, start};
use crate::support::{Bundle, needs_controllers, tests};

/// The hosts that have all controllers for cgroup v2 are those that systemd manages.
pub fn all() -> Vec<Trial> {
    needs_controllers(
        &["cpuset", "cpu", "io", "memory", "hugetlb", "pids"],
        tests![
            systemd_and_a_container_leave_each_other_their_limits,
            a_container_lives_in_a_unit_that_is_delegated,
            a_unit_with_processes_can_not_divide_controllers_and_this_is_told,
            a_unit_with_processes_can_have_a_container_without_limits,
        ],
    )
}

/// Runs systemd's own commands.
fn systemd(command: &[&str]) -> String {
    let ended = Command::new(command[0]).args(&command[1..]).output();
    let ended = ended.unwrap();
    let error = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{command:?}: {error}");
    String::from_utf8_lossy(&ended.stdout).into_owned()
}

/// What makes systemd look at all cgroups again: its configuration anew, and a unit with limits of
/// its own that comes and goes.
fn stir() {
    systemd(&["systemctl", "daemon-reload"]);
    let properties = ["-pMemoryMax=64M", "-pCPUWeight=50", "-pAllowedCPUs=0"];
    let mut command = vec!["systemd-run", "--wait", "--quiet", "-pIOWeight=50"];
    command.extend(properties);
    command.push("true");
    systemd(&command);
}

fn read(directory: &Path, file: &str) -> String {
    let text = fs::read_to_string(directory.join(file));
    let text = text.unwrap_or_else(|error| panic!("{directory:?} {file}: {error}"));
    text.trim_end().to_owned()
}

/// Limits of five controllers, and the files that say them.
fn with_limits() -> (Bundle, [(&'static str, &'static str); 5]) {
    let limits = json!({"memory": {"limit": 67_108_864}, "pids": {"limit": 50},
        "cpu": {"shares": 512, "cpus": "0"},
        "hugepageLimits": [{"pageSize": "2MB", "limit": 2_097_152}]});
    let files = [
        ("memory.max", "67108864"),
        ("pids.max", "50"),
        ("cpu.weight", "59"),
        ("cpuset.cpus", "0"),
        ("hugetlb.2MB.max", "2097152"),
    ];
    (limited(limits, "sleep 1000"), files)
}

fn systemd_and_a_container_leave_each_other_their_limits() {
    let (bundle, files) = with_limits();
    start(&bundle);
    let unit = Unit::new(&bundle, &["-pMemoryMax=32M"]);
    stir();
    for (file, value) in files {
        assert_eq!(read(&cgroup(&bundle), file), value, "{file}");
    }
    assert_eq!(bundle.status(), "running");
    bundle
        .parhelion(&["delete", "--force", &bundle.id])
        .success();
    assert_eq!(read(&unit.cgroup, "memory.max"), "33554432");
    assert_eq!(unit.property("ActiveState"), "active");
    let enabled = read(Path::new(HOST), "cgroup.subtree_control");
    for controller in ["memory", "pids"] {
        assert!(enabled.contains(controller), "{enabled}");
    }
}

/// A transient service that only sleeps; stopped with the test.
struct Unit {
    name: String,
    cgroup: PathBuf,
}

impl Unit {
    fn new(bundle: &Bundle, properties: &[&str]) -> Unit {
        let name = format!("{}.service", bundle.id);
        let unit = format!("--unit={name}");
        let mut command = vec!["systemd-run", "--quiet", "--collect", &unit];
        command.extend(properties);
        command.extend(["sleep", "1000"]);
        systemd(&command);
        let cgroup = Path::new(HOST).join("system.slice").join(&name);
        Unit { name, cgroup }
    }

    fn property(&self, property: &str) -> String {
        let property = format!("--property={property}");
        let show = ["systemctl", "show", "--value", &property, &self.name];
        systemd(&show).trim().to_owned()
    }

    /// As `cgroupsPath` names a cgroup below the unit's.
    fn below(&self, name: &str) -> String {
        let path = self.cgroup.join(name);
        path.to_str()
            .unwrap()
            .strip_prefix(HOST)
            .unwrap()
            .to_owned()
    }

    fn stop(&self) {
        systemd(&["systemctl", "stop", &self.name]);
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        // A unit that has been stopped is gone; one that can not be is told by the test itself.
        let _ = Command::new("systemctl")
            .args(["stop", &self.name])
            .output();
    }
}

fn a_container_lives_in_a_unit_that_is_delegated() {
    let (bundle, files) = with_limits();
    let delegated = ["-pDelegate=yes", "-pDelegateSubgroup=main"];
    let unit = Unit::new(&bundle, &delegated);
    let path = unit.below("web");
    cgroups_path(&bundle, &path);
    start(&bundle);
    stir();
    let cgroup = unit.cgroup.join("web");
    for (file, value) in files {
        assert_eq!(read(&cgroup, file), value, "{file}");
    }
    assert_eq!(read(&cgroup, "cgroup.procs"), pid(&bundle).to_string());
    assert_eq!(unit.property("ActiveState"), "active");
    // The unit is the container's end as well.
    unit.stop();
    assert_eq!(bundle.status(), "stopped");
    bundle.verb("delete").success();
}

fn a_unit_with_processes_can_not_divide_controllers_and_this_is_told() {
    let bundle = limited(json!({"memory": {"limit": 67_108_864}}), "true");
    let unit = Unit::new(&bundle, &["-pDelegate=yes"]);
    cgroups_path(&bundle, &unit.below("web"));
    let error = bundle.create().failure();
    let told = "linux.resources.memory.limit: can not enable the controller memory, as there are \
                processes in the cgroup itself";
    assert!(error.contains(told), "{error}");
    assert!(!unit.cgroup.join("web").exists());
    assert_eq!(unit.property("ActiveState"), "active");
    // Nor is it made threaded for the sake of cpu and pids, which the kernel would do.
    assert_eq!(read(&unit.cgroup, "cgroup.type"), "domain");
    assert_eq!(read(&unit.cgroup, "cgroup.subtree_control"), "");
}

fn a_unit_with_processes_can_have_a_container_without_limits() {
    let bundle = Bundle::new("cat /proc/self/cgroup");
    let unit = Unit::new(&bundle, &["-pDelegate=yes"]);
    cgroups_path(&bundle, &unit.below("web"));
    assert!(bundle.run().success().contains("0::/\n"));
    assert!(!unit.cgroup.join("web").exists());
    assert_eq!(read(&unit.cgroup, "cgroup.type"), "domain");
}
