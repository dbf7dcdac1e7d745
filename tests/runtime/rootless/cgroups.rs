//! Cgroups of a user: where a part of the tree was handed over, and where none was.

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

use libtest_mimic::Trial;
use serde_json::{Value, json};

use super::{HOST, Rootless, user};
use crate::support::{needs_controllers, tests, wait_until_gone};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    let mut all = tests![
        limits_hold_in_a_cgroup_that_was_handed_over,
        a_limit_without_a_cgroup_is_refused,
        without_limits_the_container_stays_where_it_is_created,
        verbs_work_in_a_cgroup_that_was_handed_over,
        in_a_cgroup_with_processes_a_container_has_its_own_below,
        a_process_that_may_not_enter_the_cgroup_joins_all_the_same,
        a_path_from_the_root_is_taken_where_it_is_the_users,
        rootless_false_insists_on_the_hosts_tree,
        rootless_true_treats_root_as_a_user,
        a_cgroup_below_the_containers_is_the_users_to_divide,
    ];
    all.extend(needs_controllers(
        &["memory", "pids"],
        tests![
            limits_of_controllers_hold_in_a_cgroup_that_was_handed_over,
            a_controller_that_was_not_handed_over_is_told,
            a_limit_below_a_cgroup_with_processes_is_refused,
        ],
    ));
    all
}

/// A cgroup of the host that is the user's, with one below it for who calls; removed when the test ends.
struct HandedOver(PathBuf);

impl HandedOver {
    fn new(rootless: &mut Rootless, controllers: &str) -> HandedOver {
        let path = Path::new(HOST).join(format!("{}-user", rootless.id()));
        let root = Path::new(HOST).join("cgroup.subtree_control");
        if !controllers.is_empty() {
            fs::write(root, controllers).unwrap();
        }
        fs::create_dir_all(path.join("main")).unwrap();
        for folder in [path.clone(), path.join("main")] {
            chown(&folder, Some(user()), Some(user())).unwrap();
            for file in ["cgroup.procs", "cgroup.subtree_control", "cgroup.threads"] {
                chown(folder.join(file), Some(user()), Some(user())).unwrap();
            }
        }
        rootless.cgroup = Some(path.join("main"));
        HandedOver(path)
    }

    /// Where a container without a path goes.
    fn of(&self, rootless: &Rootless) -> PathBuf {
        self.0.join(format!("parhelion-{}", rootless.id()))
    }

    fn children(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).unwrap().map(Result::unwrap);
        let folders = entries.filter(|entry| entry.file_type().unwrap().is_dir());
        let mut names: Vec<_> = folders
            .map(|f| f.file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

impl Drop for HandedOver {
    fn drop(&mut self) {
        for name in self.children() {
            let _ = fs::remove_dir(self.0.join(name));
        }
        // A test that failed may have left a container in it; that test is told already.
        let _ = fs::remove_dir(&self.0);
    }
}

fn resources(rootless: &Rootless, resources: Value) {
    rootless.edit(|config| config["linux"]["resources"] = resources);
}

/// A limit that is the kernel's own and needs no controller.
fn without_controller() -> Value {
    json!({"unified": {"cgroup.max.descendants": "3"}})
}

fn read(folder: &Path, file: &str) -> String {
    fs::read_to_string(folder.join(file))
        .unwrap()
        .trim_end()
        .to_owned()
}

/// The cgroup of a process, from the host's root on.
fn cgroup_of(pid: i32) -> PathBuf {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"));
    Path::new(HOST).join(path.unwrap())
}

fn limits_hold_in_a_cgroup_that_was_handed_over() {
    let mut rootless = Rootless::new(
        "cat /sys/fs/cgroup/cgroup.max.descendants; cat /proc/self/cgroup | busybox grep ^0",
    );
    let handed_over = HandedOver::new(&mut rootless, "");
    resources(&rootless, without_controller());
    assert_eq!(rootless.run().success(), "3\n0::/\n");
    assert_eq!(handed_over.children(), ["main"]);
    rootless.nothing_is_left();
}

fn a_limit_without_a_cgroup_is_refused() {
    let rootless = Rootless::new("true");
    resources(&rootless, without_controller());
    let error = rootless.run().failure();
    let expected = "linux.resources.unified[\"cgroup.max.descendants\"]: needs a cgroup, and this user may \
        make none here: run in one that was handed over";
    assert!(error.contains(expected), "{error}");
    rootless.nothing_is_left();
    resources(
        &rootless,
        json!({"pids": {"limit": -1}, "memory": {"limit": -1}}),
    );
    rootless.run().success();
}

fn without_limits_the_container_stays_where_it_is_created() {
    let rootless = Rootless::new("sleep 1000");
    rootless.start();
    let here = cgroup_of(std::process::id().cast_signed());
    assert_eq!(cgroup_of(rootless.pid()), here);
    let before = read(&here, "cgroup.procs");
    rootless
        .parhelion(&["delete", "--force", rootless.id()])
        .success();
    assert!(
        before.contains(&std::process::id().to_string()),
        "nobody else was ended"
    );
    rootless.nothing_is_left();
}

fn verbs_work_in_a_cgroup_that_was_handed_over() {
    let mut rootless = Rootless::new("sleep 1000 & sleep 1000");
    let handed_over = HandedOver::new(&mut rootless, "");
    rootless.start();
    let (pid, cgroup) = (rootless.pid(), handed_over.of(&rootless));
    assert_eq!(cgroup_of(pid), cgroup);
    rootless.verb("pause").success();
    assert_eq!(rootless.status(), "paused");
    assert!(read(&cgroup, "cgroup.events").contains("frozen 1"));
    rootless.verb("resume").success();
    assert_eq!(rootless.status(), "running");
    let file = rootless.bundle.folder.join("update.json");
    fs::write(&file, without_controller().to_string()).unwrap();
    rootless
        .parhelion(&[
            "update",
            "--resources",
            file.to_str().unwrap(),
            rootless.id(),
        ])
        .success();
    assert_eq!(read(&cgroup, "cgroup.max.descendants"), "3");
    let stats = rootless
        .parhelion(&["events", "--stats", rootless.id()])
        .success();
    assert!(stats.contains("\"type\":\"stats\""), "{stats}");
    rootless
        .parhelion(&["exec", "--detach", rootless.id(), "sleep", "1000"])
        .success();
    let pids: Vec<i32> = serde_json::from_str(
        &rootless
            .parhelion(&["ps", "--format", "json", rootless.id()])
            .success(),
    )
    .unwrap();
    assert!(
        pids.len() >= 3 && pids.iter().all(|&pid| cgroup_of(pid) == cgroup),
        "{pids:?}"
    );
    rootless
        .parhelion(&["kill", "--all", rootless.id(), "KILL"])
        .success();
    pids.into_iter().for_each(wait_until_gone);
    rootless.verb("delete").success();
    assert_eq!(handed_over.children(), ["main"]);
    rootless.nothing_is_left();
}

fn in_a_cgroup_with_processes_a_container_has_its_own_below() {
    let mut rootless = Rootless::new("sleep 1000");
    let handed_over = HandedOver::new(&mut rootless, "");
    // Only where the caller is, not above.
    let root = Some(0);
    chown(handed_over.0.join("cgroup.procs"), root, root).unwrap();
    rootless.start();
    let cgroup = handed_over
        .0
        .join("main")
        .join(format!("parhelion-{}", rootless.id()));
    assert_eq!(cgroup_of(rootless.pid()), cgroup);
    rootless.verb("pause").success();
    rootless
        .parhelion(&["delete", "--force", rootless.id()])
        .success();
    assert!(!cgroup.exists());
}

fn a_process_that_may_not_enter_the_cgroup_joins_all_the_same() {
    let mut rootless = Rootless::new("sleep 1000");
    let handed_over = HandedOver::new(&mut rootless, "");
    rootless.start();
    // From elsewhere the first cgroup above both is root's.
    rootless.cgroup = None;
    let joined = rootless.exec("echo inside");
    assert!(
        joined
            .stderr()
            .contains("the process is not in the container's cgroup"),
        "{}",
        joined.stderr()
    );
    assert_eq!(joined.success(), "inside\n");
    assert_eq!(
        read(&handed_over.of(&rootless), "cgroup.procs")
            .lines()
            .count(),
        1
    );
    rootless
        .parhelion(&["delete", "--force", rootless.id()])
        .success();
    assert_eq!(handed_over.children(), ["main"]);
}

fn a_path_from_the_root_is_taken_where_it_is_the_users() {
    let mut rootless = Rootless::new("sleep 1000");
    let handed_over = HandedOver::new(&mut rootless, "");
    let name = handed_over
        .0
        .strip_prefix(HOST)
        .unwrap()
        .to_str()
        .unwrap()
        .to_owned();
    for (path, place) in [
        (format!("/{name}/a/b"), Some("a/b")),
        ("c/d".to_owned(), Some("c/d")),
        ("/parhelion-of-root/x".to_owned(), None),
    ] {
        rootless.edit(|config| config["linux"]["cgroupsPath"] = json!(path));
        rootless.start();
        let expected = place.map_or(handed_over.0.join("main"), |place| {
            handed_over.0.join(place)
        });
        assert_eq!(cgroup_of(rootless.pid()), expected, "{path}");
        rootless
            .parhelion(&["delete", "--force", rootless.id()])
            .success();
    }
    for left in ["a", "c"] {
        fs::remove_dir(handed_over.0.join(left)).unwrap();
    }
}

fn rootless_false_insists_on_the_hosts_tree() {
    let rootless = Rootless::new("true");
    let run = [
        "--rootless",
        "false",
        "run",
        "--bundle",
        rootless.bundle.path(),
        rootless.id(),
    ];
    let error = rootless.parhelion(&run).failure();
    assert!(
        error.contains("mkdir(\"/sys/fs/cgroup/parhelion"),
        "{error}"
    );
    rootless.nothing_is_left();
    let run = [
        "--rootless",
        "true",
        "run",
        "--bundle",
        rootless.bundle.path(),
        rootless.id(),
    ];
    rootless.parhelion(&run).success();
}

fn rootless_true_treats_root_as_a_user() {
    let bundle = crate::support::Bundle::new("sleep 1000");
    let create = |mode: &str| {
        let out = fs::File::create(bundle.folder.join("output")).unwrap();
        let arguments = [
            "--rootless",
            mode,
            "create",
            "--bundle",
            bundle.path(),
            &bundle.id,
        ];
        let status = crate::caller::command(&bundle, &arguments)
            .stdin(std::process::Stdio::null())
            .stdout(out.try_clone().unwrap())
            .stderr(out)
            .status()
            .unwrap();
        assert!(status.success(), "{}", crate::caller::output(&bundle));
        let cgroup = cgroup_of(bundle.pid());
        bundle
            .parhelion(&["delete", "--force", &bundle.id])
            .success();
        cgroup
    };
    let usual = Path::new(HOST).join("parhelion").join(&bundle.id);
    assert_eq!(create("auto"), usual);
    assert_eq!(create("false"), usual);
    let name = format!("parhelion-{}", bundle.id);
    let own = cgroup_of(std::process::id().cast_signed());
    let below = create("true");
    assert_eq!(below.file_name().unwrap().to_str(), Some(name.as_str()));
    assert!(
        own.starts_with(below.parent().unwrap()),
        "{below:?} is not above {own:?}"
    );
}

fn limits_of_controllers_hold_in_a_cgroup_that_was_handed_over() {
    let mut rootless = Rootless::new(
        "cd /sys/fs/cgroup; read -r a < memory.max; read -r b < pids.max; echo $a $b",
    );
    let handed_over = HandedOver::new(&mut rootless, "+memory +pids +cpu");
    resources(
        &rootless,
        json!({"memory": {"limit": 67_108_864}, "pids": {"limit": 30}}),
    );
    assert_eq!(rootless.run().success(), "67108864 30\n");
    rootless.edit(|config| config["process"]["args"] = json!(["sleep", "1000"]));
    rootless.start();
    let cgroup = handed_over.of(&rootless);
    assert_eq!(read(&cgroup, "memory.max"), "67108864");
    rootless
        .parhelion(&[
            "update",
            "--memory",
            "128m",
            "--pids-limit",
            "40",
            rootless.id(),
        ])
        .success();
    assert_eq!(
        (read(&cgroup, "memory.max"), read(&cgroup, "pids.max")),
        ("134217728".into(), "40".into())
    );
    rootless
        .parhelion(&["delete", "--force", rootless.id()])
        .success();
    assert_eq!(handed_over.children(), ["main"]);
}

fn a_controller_that_was_not_handed_over_is_told() {
    let mut rootless = Rootless::new("true");
    let handed_over = HandedOver::new(&mut rootless, "+memory +pids");
    // Not writable: this user can not hand any on.
    chown(
        handed_over.0.join("cgroup.subtree_control"),
        Some(0),
        Some(0),
    )
    .unwrap();
    resources(&rootless, json!({"memory": {"limit": 67_108_864}}));
    let error = rootless.run().failure();
    let expected = "linux.resources.memory.limit: can not enable the controller memory, as the cgroup above \
        was not handed over to this user with it";
    assert!(error.contains(expected), "{error}");
    assert_eq!(handed_over.children(), ["main"]);
    rootless.nothing_is_left();
}

fn a_limit_below_a_cgroup_with_processes_is_refused() {
    let mut rootless = Rootless::new("true");
    let handed_over = HandedOver::new(&mut rootless, "+memory +pids");
    chown(handed_over.0.join("cgroup.procs"), Some(0), Some(0)).unwrap();
    resources(&rootless, json!({"pids": {"limit": 30}}));
    let error = rootless.run().failure();
    let expected = "linux.resources.pids.limit: can not enable the controller pids";
    assert!(error.contains(expected), "{error}");
    assert!(
        fs::read_dir(handed_over.0.join("main"))
            .unwrap()
            .all(|entry| !entry.unwrap().path().is_dir())
    );
    rootless.nothing_is_left();
}

fn a_cgroup_below_the_containers_is_the_users_to_divide() {
    let mut rootless = Rootless::new("sleep 1000");
    let handed_over = HandedOver::new(&mut rootless, "");
    rootless.edit(|config| {
        config["annotations"] = json!({
            "run.oci.systemd.subgroup": "main", "run.oci.delegate-cgroup": "mine"
        });
    });
    rootless.start();
    let place = handed_over.of(&rootless).join("main/mine");
    assert_eq!(cgroup_of(rootless.pid()), place);
    let owner =
        std::os::unix::fs::MetadataExt::uid(&fs::metadata(place.join("cgroup.procs")).unwrap());
    assert_eq!(owner, user());
    let seen = [
        "exec",
        rootless.id(),
        "busybox",
        "grep",
        "^0",
        "/proc/self/cgroup",
    ];
    assert_eq!(rootless.parhelion(&seen).success(), "0::/mine\n");
    rootless
        .parhelion(&["delete", "--force", rootless.id()])
        .success();
    assert_eq!(handed_over.children(), ["main"]);
    rootless.nothing_is_left();
}
