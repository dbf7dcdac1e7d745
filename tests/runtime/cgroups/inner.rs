//! Cgroups below a container's own in which its processes begin, by crun's annotations.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use libtest_mimic::Trial;
use serde_json::{Value, json};

use super::{HOST, cgroup, cgroups_path, mount_cgroup, share_pids, start, wait_until_empty};
use crate::caller::{command, init_pid, quietly, wait_for_exit};
use crate::inside::Inside;
use crate::support::{Bundle, needs_controllers, needs_systemd, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    let mut all = tests![
        a_subgroup_is_the_root_that_the_container_sees,
        what_is_delegated_is_below_that_root_and_the_containers_to_divide,
        both_lie_below_each_other,
        without_a_namespace_of_its_own_the_whole_way_is_seen,
        limits_and_devices_stay_above,
        what_joins_begins_where_the_first_process_did,
        all_processes_are_reached_from_above,
        both_are_removed_when_the_creation_fails,
        an_empty_name_asks_for_nothing,
        a_name_that_leads_elsewhere_is_refused,
        without_a_cgroup_there_is_none_below,
    ];
    all.extend(needs_controllers(
        &["pids"],
        tests![controllers_are_handed_on_to_where_the_container_divides],
    ));
    all.extend(needs_systemd(tests![
        a_scope_has_a_subgroup_and_the_limits,
        what_is_delegated_in_a_scope_is_the_containers,
    ]));
    all
}

const SUBGROUP: &str = "run.oci.systemd.subgroup";
const DELEGATED: &str = "run.oci.delegate-cgroup";

fn annotate(bundle: &Bundle, annotations: &[(&str, &str)]) {
    bundle.edit(|config| {
        for (name, value) in annotations {
            config["annotations"][*name] = json!(value);
        }
    });
}

/// A container with these annotations that answers, and sees its cgroups, which it may write to as far as
/// they are its own.
fn inside(annotations: &[(&str, &str)], change: impl FnOnce(&Bundle)) -> Inside {
    let bundle = Inside::bundle();
    bundle.edit(|config| config["root"]["readonly"] = json!(false));
    mount_cgroup(&bundle, "rw");
    annotate(&bundle, annotations);
    change(&bundle);
    Inside::of(bundle)
}

/// The cgroup of a process, on the host.
fn cgroup_of(pid: i32) -> PathBuf {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"));
    Path::new(HOST).join(path.unwrap())
}

/// What a container sees of its place.
const OWN_PLACE: &str = "busybox sed -n s/^0:://p /proc/self/cgroup";

/// A user namespace whose root is 70000 on the host.
fn in_user_namespace(bundle: &Bundle) {
    bundle.edit(|config| {
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.push(json!({ "type": "user" }));
        let map = json!([{ "containerID": 0, "hostID": 70000, "size": 1000 }]);
        config["linux"]["uidMappings"] = map.clone();
        config["linux"]["gidMappings"] = map;
    });
    for folder in ["rootfs", "rootfs/tmp"] {
        std::os::unix::fs::chown(bundle.folder.join(folder), Some(70000), Some(70000)).unwrap();
    }
}

fn owner(path: PathBuf) -> u32 {
    fs::metadata(path).unwrap().uid()
}

fn a_subgroup_is_the_root_that_the_container_sees() {
    let mut inside = inside(&[(SUBGROUP, "main")], |_bundle| ());
    let own = cgroup(&inside.bundle);
    assert_eq!(cgroup_of(init_pid(&inside.bundle)), own.join("main"));
    assert_eq!(inside.ask(OWN_PLACE), "/\n");
    // Nothing above it is to be seen, and what is made there is below it.
    inside.ask("busybox mkdir /sys/fs/cgroup/made");
    assert!(own.join("main/made").is_dir());
    let in_own = fs::read_to_string(own.join("cgroup.procs")).unwrap();
    assert_eq!(in_own, "");
    inside
        .bundle
        .parhelion(&["delete", "--force", &inside.bundle.id])
        .success();
    assert!(!own.exists());
}

fn what_is_delegated_is_below_that_root_and_the_containers_to_divide() {
    for user_namespace in [false, true] {
        let mut inside = inside(&[(DELEGATED, "mine")], |bundle| {
            if user_namespace {
                in_user_namespace(bundle);
            }
        });
        let own = cgroup(&inside.bundle);
        let delegated = own.join("mine");
        assert_eq!(cgroup_of(init_pid(&inside.bundle)), delegated);
        assert_eq!(inside.ask(OWN_PLACE), "/mine\n");
        let root = if user_namespace { 70000 } else { 0 };
        for file in ["", "cgroup.procs", "cgroup.subtree_control"] {
            assert_eq!(owner(delegated.join(file)), root, "{file}");
        }
        // Its limits are not its own.
        assert_eq!(owner(delegated.join("cgroup.max.depth")), 0);
        let told = inside.ask(
            "cd /sys/fs/cgroup/mine && busybox mkdir made && echo 0 > made/cgroup.procs \
             && busybox sed -n s/^0:://p /proc/self/cgroup",
        );
        assert_eq!(told, "/mine/made\n", "{user_namespace}");
        assert!(delegated.join("made").is_dir());
        inside
            .bundle
            .parhelion(&["delete", "--force", &inside.bundle.id])
            .success();
        assert!(!own.exists());
    }
}

fn both_lie_below_each_other() {
    let both = [(SUBGROUP, "main"), (DELEGATED, "/deep/er")];
    let mut inside = inside(&both, in_user_namespace);
    let own = cgroup(&inside.bundle);
    let place = own.join("main/deep/er");
    assert_eq!(cgroup_of(init_pid(&inside.bundle)), place);
    assert_eq!(inside.ask(OWN_PLACE), "/deep/er\n");
    assert_eq!(owner(place), 70000);
    assert_eq!(owner(own.clone()), 0);
    let bundle = &inside.bundle;
    bundle.parhelion(&["kill", &bundle.id, "KILL"]).success();
    wait_until_empty(&own);
    bundle.verb("delete").success();
    assert!(!own.exists());
}

fn without_a_namespace_of_its_own_the_whole_way_is_seen() {
    let both = [(SUBGROUP, "main"), (DELEGATED, "mine")];
    let mut inside = inside(&both, |bundle| {
        bundle.edit(|config| {
            let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
            namespaces.retain(|namespace| namespace["type"] != "cgroup");
        });
    });
    let expected = format!("/parhelion/{}/main/mine\n", inside.bundle.id);
    assert_eq!(inside.ask(OWN_PLACE), expected);
}

fn limits_and_devices_stay_above() {
    let mut inside = inside(&[(SUBGROUP, "main"), (DELEGATED, "mine")], |bundle| {
        bundle.edit(|config| {
            config["linux"]["resources"]["unified"] = json!({"cgroup.max.descendants": "7"});
            for set in ["bounding", "effective", "permitted"] {
                let set = config["process"]["capabilities"][set].as_array_mut();
                set.unwrap().push(json!("CAP_MKNOD"));
            }
        });
    });
    let own = cgroup(&inside.bundle);
    let read = |place: &str| fs::read_to_string(own.join(place)).unwrap();
    assert_eq!(read("cgroup.max.descendants"), "7\n");
    assert_eq!(read("main/cgroup.max.descendants"), "max\n");
    // Two are there, five more are allowed.
    let told = inside.ask(
        "cd /sys/fs/cgroup/mine; for i in 1 2 3 4 5; do busybox mkdir $i || echo no; done; \
         busybox mkdir 6 2>/dev/null || echo full",
    );
    assert_eq!(told, "full\n");
    let told = inside.ask(
        "busybox mknod /tmp/kmsg c 1 11 && (cat /tmp/kmsg 2>&1 | busybox grep -o 'not permitted')",
    );
    assert_eq!(told, "not permitted\n");
    let changed = inside.bundle.folder.join("resources.json");
    fs::write(&changed, r#"{"unified": {"cgroup.max.descendants": "8"}}"#).unwrap();
    let update = ["update", "--resources", changed.to_str().unwrap()];
    let update = [&update[..], &[&inside.bundle.id]].concat();
    inside.bundle.parhelion(&update).success();
    assert_eq!(read("cgroup.max.descendants"), "8\n");
    assert_eq!(read("main/cgroup.max.descendants"), "max\n");
}

/// The cgroup of a process that has joined in the background, and what it is.
fn joined(bundle: &Bundle, flags: &[&str]) -> PathBuf {
    let pid_file = bundle.folder.join("pid");
    let exec = ["exec", "--detach", "--pid-file", pid_file.to_str().unwrap()];
    let arguments = [&exec[..], flags, &[&bundle.id, "sleep", "1000"]].concat();
    let status = command(bundle, &arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status();
    assert!(status.unwrap().success());
    let pid = fs::read_to_string(pid_file).unwrap();
    cgroup_of(pid.parse().unwrap())
}

fn what_joins_begins_where_the_first_process_did() {
    let both = [(SUBGROUP, "main"), (DELEGATED, "mine")];
    for user_namespace in [false, true] {
        let mut inside = inside(&both, |bundle| {
            if user_namespace {
                in_user_namespace(bundle);
            }
        });
        let own = cgroup(&inside.bundle);
        assert_eq!(joined(&inside.bundle, &[]), own.join("main/mine"));
        let seen = inside
            .bundle
            .parhelion(&["exec", &inside.bundle.id, "sh", "-c", OWN_PLACE]);
        assert_eq!(seen.success(), "/mine\n");
        // Another one is named as the container sees it.
        inside.ask("busybox mkdir /sys/fs/cgroup/mine/other");
        let place = joined(&inside.bundle, &["--cgroup", "/mine/other"]);
        assert_eq!(place, own.join("main/mine/other"));
    }
}

fn all_processes_are_reached_from_above() {
    for (verb, signal) in [
        (&["kill", "--all"][..], Some("TERM")),
        (&["delete", "--force"], None),
    ] {
        let bundle = Bundle::new("trap 'exit 0' TERM; sleep 1000 & wait");
        share_pids(&bundle);
        annotate(&bundle, &[(SUBGROUP, "main"), (DELEGATED, "mine")]);
        start(&bundle);
        let own = cgroup(&bundle);
        joined(&bundle, &[]);
        let ps = bundle.parhelion(&["ps", "--format", "json", &bundle.id]);
        let pids: Vec<i32> = serde_json::from_str(&ps.success()).unwrap();
        assert!(
            pids.contains(&init_pid(&bundle)) && pids.len() >= 2,
            "{pids:?}"
        );
        bundle.verb("pause").success();
        assert_eq!(bundle.status(), "paused");
        let frozen = fs::read_to_string(own.join("main/mine/cgroup.events")).unwrap();
        assert!(frozen.contains("frozen 1"), "{frozen}");
        bundle.verb("resume").success();
        let signal: Vec<&str> = signal.into_iter().collect();
        let all = [verb, &[&bundle.id], &signal].concat();
        bundle.parhelion(&all).success();
        wait_until_empty(&own);
        pids.into_iter().for_each(wait_for_exit);
    }
}

fn both_are_removed_when_the_creation_fails() {
    let bundle = Bundle::new("true");
    annotate(&bundle, &[(SUBGROUP, "main"), (DELEGATED, "mine")]);
    bundle.edit(|config| config["process"]["args"] = json!(["/no/such/program"]));
    bundle.run().failure();
    assert!(!cgroup(&bundle).exists());
    // As when the kernel has another use for the name.
    let bundle = Bundle::new("true");
    annotate(&bundle, &[(SUBGROUP, "cgroup.procs")]);
    let error = bundle.run().failure();
    let told = "cgroup.procs\"): file exists";
    assert!(error.contains(told), "{error}");
    assert!(!cgroup(&bundle).exists());
    assert!(bundle.verb("state").failure().contains("does not exist"));
}

fn an_empty_name_asks_for_nothing() {
    let bundle = Bundle::new("sleep 1000");
    annotate(&bundle, &[(SUBGROUP, ""), (DELEGATED, "")]);
    start(&bundle);
    assert_eq!(cgroup_of(init_pid(&bundle)), cgroup(&bundle));
}

fn a_name_that_leads_elsewhere_is_refused() {
    for name in [SUBGROUP, DELEGATED] {
        for wrong in ["..", "a/../../b", "/", ".", "a\nb"] {
            let bundle = Bundle::new("true");
            annotate(&bundle, &[(name, wrong)]);
            let error = bundle.run().failure();
            let told = format!("annotations[\"{name}\"]: must name a cgroup below the container's");
            assert!(error.contains(&told), "{wrong:?}: {error}");
            assert!(!cgroup(&bundle).exists());
        }
    }
}

fn without_a_cgroup_there_is_none_below() {
    let bundle = Bundle::new("true");
    let devices = json!([{"allow": true, "access": "rwm"}]);
    bundle.edit(|config| config["linux"]["resources"] = json!({"devices": devices}));
    annotate(&bundle, &[(SUBGROUP, "main")]);
    let run = [
        "--cgroup-manager=disabled",
        "run",
        "--bundle",
        bundle.path(),
    ];
    let error = bundle
        .parhelion(&[&run[..], &[&bundle.id]].concat())
        .failure();
    let told =
        "annotations[\"run.oci.systemd.subgroup\"]: needs a cgroup, and --cgroup-manager disabled";
    assert!(error.contains(told), "{error}");
}

fn controllers_are_handed_on_to_where_the_container_divides() {
    for annotations in [
        &[(SUBGROUP, "main")][..],
        &[(DELEGATED, "mine")],
        &[(SUBGROUP, "main"), (DELEGATED, "mine")],
    ] {
        let mut inside = inside(annotations, |bundle| {
            bundle.edit(|config| config["linux"]["resources"]["pids"] = json!({"limit": 50}));
        });
        let own = cgroup(&inside.bundle);
        assert_eq!(fs::read_to_string(own.join("pids.max")).unwrap(), "50\n");
        let place = inside.ask(OWN_PLACE);
        // It divides what it was given, and limits a part of it.
        let told = inside.ask(&format!(
            "cd /sys/fs/cgroup{}; busybox mkdir all part; echo 1 > all/cgroup.procs; \
             echo 0 > all/cgroup.procs; echo +pids > cgroup.subtree_control; \
             echo 3 > part/pids.max; cat pids.max part/pids.max",
            place.trim_end()
        ));
        assert_eq!(told, "max\n3\n", "{annotations:?}");
    }
}

/// Starts the bundle's container in a scope, whose name it gives.
fn in_scope(bundle: &Bundle) -> String {
    cgroups_path(bundle, &format!("system.slice:inner:{}", bundle.id));
    let create = ["--systemd-cgroup", "create", "--bundle", bundle.path()];
    quietly(&mut command(bundle, &[&create[..], &[&bundle.id]].concat()));
    bundle.verb("start").success();
    format!("inner-{}.scope", bundle.id)
}

fn systemctl(arguments: &[&str]) -> String {
    let output = Command::new("systemctl").args(arguments).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

fn a_scope_has_a_subgroup_and_the_limits() {
    let bundle = Bundle::new("sleep 1000");
    annotate(&bundle, &[(SUBGROUP, "container")]);
    bundle.edit(|config| config["linux"]["resources"]["pids"] = json!({"limit": 40}));
    let scope = in_scope(&bundle);
    let own = Path::new(HOST).join("system.slice").join(&scope);
    assert_eq!(cgroup_of(init_pid(&bundle)), own.join("container"));
    let seen = bundle.parhelion(&["exec", &bundle.id, "sh", "-c", OWN_PLACE]);
    assert_eq!(seen.success(), "/\n");
    let read = |file: &str| fs::read_to_string(own.join(file)).unwrap();
    assert_eq!(read("pids.max"), "40\n");
    assert_eq!(read("container/pids.max"), "max\n");
    assert_eq!(
        systemctl(&["show", "--property=TasksMax", &scope]),
        "TasksMax=40\n"
    );
    // A look of systemd's at all units leaves it as it is.
    systemctl(&["daemon-reload"]);
    assert_eq!(cgroup_of(init_pid(&bundle)), own.join("container"));
    assert_eq!(read("pids.max"), "40\n");
    bundle
        .parhelion(&["update", "--pids-limit", "41", &bundle.id])
        .success();
    assert_eq!(read("pids.max"), "41\n");
    bundle
        .parhelion(&["delete", "--force", &bundle.id])
        .success();
    assert!(!own.exists());
    let loaded = systemctl(&["show", "--property=LoadState", &scope]);
    assert_eq!(loaded, "LoadState=not-found\n");
}

fn what_is_delegated_in_a_scope_is_the_containers() {
    let bundle = Bundle::new("sleep 1000");
    in_user_namespace(&bundle);
    mount_cgroup(&bundle, "rw");
    annotate(&bundle, &[(SUBGROUP, "container"), (DELEGATED, "mine")]);
    let scope = in_scope(&bundle);
    let own = Path::new(HOST).join("system.slice").join(&scope);
    let place = own.join("container/mine");
    assert_eq!(cgroup_of(init_pid(&bundle)), place);
    assert_eq!(owner(place.clone()), 70000);
    assert_eq!(joined(&bundle, &[]), place);
    let script = format!("busybox mkdir /sys/fs/cgroup/mine/x && {OWN_PLACE}");
    let seen = bundle.parhelion(&["exec", &bundle.id, "sh", "-c", &script]);
    assert_eq!(seen.success(), "/mine\n");
    let state: Value = serde_json::from_str(&bundle.verb("state").success()).unwrap();
    assert_eq!(state["status"], "running");
    bundle
        .parhelion(&["delete", "--force", &bundle.id])
        .success();
    assert!(!own.exists());
}
