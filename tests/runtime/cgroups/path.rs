//! Where the container's cgroup is, who made it, and that it goes.

use std::fs;
use std::path::Path;
use std::process::{Child, Command};

use libtest_mimic::Trial;

use super::{HOST, HostCgroup, cgroup, cgroups_path, mount_cgroup, pid, start, wait_until_empty};
use crate::caller::Fifo;
use crate::support::{Bundle, tests};

pub fn all() -> Vec<Trial> {
    tests![
        without_a_path_the_id_names_the_cgroup,
        a_relative_path_counts_from_parhelion,
        an_absolute_path_counts_from_the_root,
        a_path_that_leads_out_is_refused,
        a_path_in_the_form_of_systemd_is_refused,
        delete_removes_cgroups_that_the_container_made,
        run_removes_the_cgroup,
        a_cgroup_with_processes_of_others_is_refused_and_left_alone,
        a_cgroup_left_behind_is_made_anew,
        a_failed_creation_removes_the_cgroups_above_that_it_made,
        a_writable_cgroup_belongs_to_the_user_inside,
    ]
}

/// The cgroup of a process, as the host sees it.
fn cgroup_of(pid: i32) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let path = text.lines().find_map(|line| line.strip_prefix("0::"));
    path.unwrap().to_owned()
}

fn without_a_path_the_id_names_the_cgroup() {
    let bundle = Bundle::new("sleep 100");
    bundle.create().success();
    assert_eq!(cgroup_of(pid(&bundle)), format!("/parhelion/{}", bundle.id));
    bundle.verb("delete").success();
    assert!(!cgroup(&bundle).exists());
}

fn a_relative_path_counts_from_parhelion() {
    let bundle = Bundle::new("sleep 100");
    let path = format!("{}-pod/web", bundle.id);
    cgroups_path(&bundle, &path);
    bundle.create().success();
    assert_eq!(cgroup_of(pid(&bundle)), format!("/parhelion/{path}"));
    bundle.verb("delete").success();
    let pod = Path::new(HOST).join("parhelion").join(&path);
    assert!(!pod.exists());
    fs::remove_dir(pod.parent().unwrap()).unwrap(); // of a pod, which outlives the container
}

fn an_absolute_path_counts_from_the_root() {
    let bundle = Bundle::new("sleep 100");
    let above = HostCgroup::new(&bundle);
    let path = format!("{}/a/web", above.name());
    cgroups_path(&bundle, &path);
    start(&bundle);
    assert_eq!(cgroup_of(pid(&bundle)), path);
    bundle
        .parhelion(&["delete", "--force", &bundle.id])
        .success();
    assert!(!above.0.join("a/web").exists());
    assert!(above.0.join("a").exists());
}

fn a_path_that_leads_out_is_refused() {
    for path in ["/", "/a/../../b", "..", "a\u{7}b"] {
        let bundle = Bundle::new("true");
        cgroups_path(&bundle, path);
        let error = bundle.create().failure();
        assert!(error.contains("linux.cgroupsPath: must "), "{error}");
        assert!(bundle.verb("state").failure().contains("does not exist"));
    }
}

fn a_path_in_the_form_of_systemd_is_refused() {
    let bundle = Bundle::new("true");
    cgroups_path(&bundle, "system.slice:parhelion:web");
    let error = bundle.create().failure();
    assert!(error.contains("linux.cgroupsPath: "), "{error}");
    assert!(error.contains("--systemd-cgroup"), "{error}");
}

/// A container that divides its cgroup: two levels, with its program in the lower one.
fn dividing_container() -> (Bundle, Fifo) {
    let script = "cd /sys/fs/cgroup && busybox mkdir -p one/two three &&
        echo $$ > one/two/cgroup.procs && echo ready > /tmp/ready; exec sleep 100";
    let bundle = Bundle::new(script);
    mount_cgroup(&bundle, "rw");
    let ready = Fifo::new(&bundle, "ready");
    (bundle, ready)
}

fn delete_removes_cgroups_that_the_container_made() {
    let (bundle, mut ready) = dividing_container();
    start(&bundle);
    ready.hear();
    let below = cgroup(&bundle).join("one/two");
    assert!(cgroup_of(pid(&bundle)).ends_with("/one/two") && below.exists());
    bundle.parhelion(&["kill", &bundle.id, "KILL"]).success();
    wait_until_empty(&cgroup(&bundle));
    assert!(below.exists());
    bundle.verb("delete").success();
    assert!(!cgroup(&bundle).exists());
}

fn run_removes_the_cgroup() {
    let bundle = Bundle::new("cd /sys/fs/cgroup && busybox mkdir one two");
    mount_cgroup(&bundle, "rw");
    bundle.run().success();
    assert!(!cgroup(&bundle).exists());
}

/// A process in a cgroup of its own; ends with the test.
struct Guest(Child);

impl Guest {
    fn in_cgroup(cgroup: &HostCgroup) -> Guest {
        let child = Command::new("sleep").arg("1000").spawn().unwrap();
        fs::write(cgroup.0.join("cgroup.procs"), child.id().to_string()).unwrap();
        Guest(child)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn a_cgroup_with_processes_of_others_is_refused_and_left_alone() {
    let bundle = Bundle::new("true");
    let others = HostCgroup::new(&bundle);
    let mut guest = Guest::in_cgroup(&others);
    cgroups_path(&bundle, others.name());
    let error = bundle.create().failure();
    let pid = guest.0.id().to_string();
    assert!(error.contains("has processes of others in it"), "{error}");
    assert!(error.contains(&pid), "{error}");
    assert!(bundle.verb("state").failure().contains("does not exist"));
    bundle
        .parhelion(&["delete", "--force", &bundle.id])
        .success();
    assert!(guest.0.try_wait().unwrap().is_none(), "it was killed");
    let still = fs::read_to_string(others.0.join("cgroup.procs")).unwrap();
    assert_eq!(still.trim(), pid);
}

fn a_cgroup_left_behind_is_made_anew() {
    let bundle = Bundle::new("read -r most < /sys/fs/cgroup/cgroup.max.depth; echo $most");
    mount_cgroup(&bundle, "ro");
    let left = HostCgroup::new(&bundle);
    fs::create_dir(left.0.join("child")).unwrap();
    fs::write(left.0.join("cgroup.max.depth"), "7").unwrap();
    cgroups_path(&bundle, left.name());
    assert_eq!(bundle.run().success(), "max\n");
}

fn a_failed_creation_removes_the_cgroups_above_that_it_made() {
    let bundle = Bundle::new("true");
    let above = HostCgroup::new(&bundle);
    cgroups_path(&bundle, &format!("{}/a/b/web", above.name()));
    bundle.edit(|config| config["process"]["args"] = serde_json::json!(["no-such-program"]));
    bundle.create().failure();
    assert!(above.0.exists());
    assert!(!above.0.join("a").exists());
}

fn a_writable_cgroup_belongs_to_the_user_inside() {
    let script = "cd /sys/fs/cgroup; stat -c %u . cgroup.procs cgroup.max.depth;
        busybox mkdir mine && echo $$ > mine/cgroup.procs && cat /proc/self/cgroup";
    let bundle = Bundle::new(script);
    bundle.edit(|config| {
        config["process"]["user"] = serde_json::json!({"uid": 5, "gid": 5});
        // To set them on another user's process needs CAP_SYS_RESOURCE, which not every root has.
        config["process"]["rlimits"] = serde_json::json!([]);
    });
    mount_cgroup(&bundle, "rw");
    let seen = bundle.run().success();
    assert!(seen.starts_with("5\n5\n0\n"), "{seen}");
    assert!(seen.lines().any(|line| line == "0::/mine"), "{seen}");
}
