//! A group of containers under one keeper: they live and die together, and share what they are asked to.

use std::fs;
use std::path::PathBuf;

use std::time::Duration;

use libtest_mimic::Trial;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde_json::{Value, json};

use super::{Instance, attempt, attempts, kill, random, rests, runs, until_in_folder};
use crate::caller::{Fifo, command, quietly};
use crate::support::{Bundle, tests};

pub fn all() -> Vec<Trial> {
    tests![
        tasks_share_what_they_are_asked_to_and_nothing_else,
        what_belongs_to_a_shared_namespace_is_the_first_ones,
        the_end_of_one_program_is_the_end_of_all_and_all_are_started_again,
        when_the_first_ends_those_in_its_pid_namespace_end_with_it,
        one_that_can_not_be_made_leaves_none_and_no_program_has_run,
        one_that_can_not_be_started_leaves_none,
        a_task_that_completes_leaves_the_others_and_the_last_one_completes_the_group,
        all_are_stopped_each_by_its_signal_and_killed_after_the_grace,
        a_group_is_adopted_whole_and_with_a_task_that_had_completed,
        a_group_of_which_a_part_has_ended_without_a_keeper_is_started_again,
        a_keeper_killed_while_it_makes_a_group_leaves_one_at_most,
        a_storm_of_killed_tasks_and_keepers_leaves_a_whole_group,
        the_other_commands_see_each_container,
        a_container_of_somebody_else_keeps_the_group_from_beginning,
    ]
}

/// A task: its name, its script, and what it shares.
type Task<'a> = (&'a str, &'a str, &'a [&'a str]);

/// An instance of some tasks, whose containers are all gone when it goes.
struct Group {
    instance: Instance,
    tasks: Vec<Bundle>,
}

impl Group {
    fn new(tasks: &[Task<'_>], changes: Value) -> Group {
        let bundles: Vec<Bundle> = tasks.iter().map(|task| Bundle::new(task.1)).collect();
        let entry = |(task, bundle): (&Task<'_>, &Bundle)| {
            bundle.edit(|config| config["root"]["readonly"] = json!(false));
            json!({ "name": task.0, "id": bundle.id, "bundle": bundle.path(), "share": task.2 })
        };
        let entries: Vec<Value> = tasks.iter().zip(&bundles).map(entry).collect();
        let mut spec = json!({ "tasks": entries });
        for (name, value) in changes.as_object().unwrap() {
            spec[name] = value.clone();
        }
        let instance = Instance::new("exit 0", json!({}));
        fs::write(instance.file("keeper.json"), spec.to_string()).unwrap();
        let tasks = bundles;
        Group { instance, tasks }
    }

    fn running(tasks: &[Task<'_>], changes: Value) -> Group {
        let mut group = Group::new(tasks, changes);
        group.instance.keep();
        group.instance.until(runs);
        group
    }

    /// The texts of a task's log.
    fn texts(&self, name: &str) -> Vec<String> {
        let log = self.instance.file(&format!("logs/{name}/log"));
        let log = fs::read_to_string(log).unwrap_or_default();
        let text = |line: &str| line.splitn(4, ' ').nth(3).unwrap().to_owned();
        log.lines().map(text).collect()
    }

    /// Waits until a task's log has so many lines.
    fn until_texts(&self, name: &str, count: usize) {
        let folder = self.instance.file(&format!("logs/{name}"));
        until_in_folder(&folder, || self.texts(name).len() >= count);
    }

    fn pid(&self, task: usize) -> i32 {
        pid(&self.instance.status(), task)
    }

    /// Asserts that no container is left.
    fn is_gone(&self) {
        let state = self.instance.bundle.folder.join("state");
        let left = fs::read_dir(state).unwrap().count();
        assert_eq!(left, 0);
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        drop(self.instance.keeper.take());
        for task in &self.tasks {
            self.instance
                .bundle
                .parhelion(&["delete", "--force", &task.id]);
        }
    }
}

/// The first process of a task.
fn pid(status: &Value, task: usize) -> i32 {
    let pid = status["tasks"][task]["container"]["process"]["pid"].as_i64();
    pid.unwrap_or_else(|| panic!("{status:#}"))
        .try_into()
        .unwrap()
}

fn namespace(pid: i32, name: &str) -> PathBuf {
    fs::read_link(format!("/proc/{pid}/ns/{name}")).unwrap()
}

/// How the program of a task ended in an attempt.
fn exit(status: &Value, number: u64, task: usize) -> Value {
    attempt(status, number)["tasks"][task]["exit"].clone()
}

const SLEEPS: &str = "exec sleep 1000";

/// Says that it begins, and ends when it is told to, with that code.
const OBEYS: &str = "echo begun > /tmp/begun; read code < /tmp/end; exit $code";

fn tasks_share_what_they_are_asked_to_and_nothing_else() {
    let inside = "cd /proc/self/ns; for ns in net ipc uts pid mnt; do /bin/busybox readlink $ns; done; exec sleep 1000";
    let group = Group::running(
        &[
            ("web", inside, &[]),
            ("side", inside, &["network", "ipc", "uts", "pid"]),
            ("alone", inside, &["uts"]),
        ],
        json!({}),
    );
    let status = group.instance.status();
    let [web, side, alone] = [0, 1, 2].map(|task| pid(&status, task));
    for name in ["net", "ipc", "uts", "pid"] {
        assert_eq!(namespace(web, name), namespace(side, name), "{name}");
        let same = namespace(web, name) == namespace(alone, name);
        assert_eq!(same, name == "uts", "{name}");
        let own = fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
        assert_ne!(namespace(web, name), own, "{name}");
    }
    for name in ["mnt", "cgroup"] {
        assert_ne!(namespace(web, name), namespace(side, name), "{name}");
    }
    let seen = |name: &str| {
        group.until_texts(name, 5);
        group.texts(name)
    };
    assert_eq!(seen("web")[..4], seen("side")[..4]);
    assert_ne!(seen("web")[4], seen("side")[4]);
    assert_eq!(seen("alone")[2], seen("web")[2]);
    assert_ne!(seen("alone")[0], seen("web")[0]);
}

fn what_belongs_to_a_shared_namespace_is_the_first_ones() {
    let mut group = Group::new(
        &[
            ("web", "hostname > /tmp/name; exec sleep 1000", &[]),
            (
                "side",
                "hostname > /tmp/name; exec sleep 1000",
                &["uts", "pid"],
            ),
        ],
        json!({}),
    );
    group.tasks[0].edit(|config| config["hostname"] = json!("first"));
    group.tasks[1].edit(|config| config["hostname"] = json!("second"));
    let mut names: Vec<Fifo> = group
        .tasks
        .iter()
        .map(|task| Fifo::new(task, "name"))
        .collect();
    group.instance.keep();
    for name in &mut names {
        assert_eq!(name.hear(), "first\n");
    }
    group.instance.until(runs);
    let side = &group.tasks[1].id;
    let seen = group
        .instance
        .bundle
        .parhelion(&["exec", side, "cat", "/proc/1/cmdline"]);
    assert!(seen.success().starts_with("sleep\0"));
}

fn the_end_of_one_program_is_the_end_of_all_and_all_are_started_again() {
    let heeds = "trap 'exit 7' TERM; while :; do sleep 0.05; done";
    for policy in ["always", "on-failure"] {
        let group = Group::running(
            &[("web", heeds, &[]), ("side", SLEEPS, &["network"])],
            json!({ "restart": { "policy": policy } }),
        );
        let before = group.instance.status();
        kill(pid(&before, 1));
        let status = group
            .instance
            .until(|status| runs(status) && attempts(status) == 2);
        assert_eq!(exit(&status, 1, 1), json!({ "signal": 9 }));
        assert_eq!(exit(&status, 1, 0), json!({ "code": 7 }));
        let first = attempt(&status, 1);
        assert_eq!(first["told"], "group");
        assert!(first["ended"].is_string());
        for task in 0..2 {
            assert_ne!(pid(&status, task), pid(&before, task));
        }
        let (web, side) = (pid(&status, 0), pid(&status, 1));
        assert_eq!(namespace(web, "net"), namespace(side, "net"));
        assert_eq!(status["state"]["counts"]["crashes"], 1);
        assert_eq!(status["state"]["inARow"]["crash"], 1);
    }
}

fn when_the_first_ends_those_in_its_pid_namespace_end_with_it() {
    let group = Group::running(
        &[
            ("web", SLEEPS, &[]),
            ("side", SLEEPS, &["pid"]),
            ("third", SLEEPS, &["pid"]),
        ],
        json!({ "stop": { "grace": "1h" } }),
    );
    let before = group.instance.status();
    kill(pid(&before, 0));
    let status = group
        .instance
        .until(|status| runs(status) && attempts(status) == 2);
    for task in 0..3 {
        assert_eq!(exit(&status, 1, task), json!({ "signal": 9 }));
    }
    assert_eq!(status["faults"]["container"], Value::Null);
}

fn one_that_can_not_be_made_leaves_none_and_no_program_has_run() {
    let image = json!({ "restart": { "image": { "base": "1h", "cap": "1h" } } });
    let ran = "echo ran; exec sleep 1000";
    let tasks: &[Task<'_>] = &[
        ("web", ran, &[]),
        ("side", ran, &["network", "pid"]),
        ("third", ran, &[]),
    ];
    let mut group = Group::new(tasks, image);
    let place = |group: &Group, name: &str| group.tasks[2].folder.join(name);
    fs::rename(place(&group, "rootfs"), place(&group, "away")).unwrap();
    group.instance.keep();
    let status = group.instance.until_phase("waiting");
    let reason = attempt(&status, 2)["reason"].to_string();
    assert!(
        reason.contains("task \\\"third\\\"") && reason.contains("rootfs"),
        "{reason}"
    );
    assert_eq!(attempt(&status, 2)["tasks"][0]["pid"], Value::Null);
    group.is_gone();
    assert_eq!(group.texts("web"), [""; 0]);
    assert_eq!(group.texts("side"), [""; 0]);
    fs::rename(place(&group, "away"), place(&group, "rootfs")).unwrap();
    group.instance.ask(&["start"]);
    assert!(runs(&group.instance.status()));
}

fn one_that_can_not_be_started_leaves_none() {
    let image = json!({ "restart": { "image": { "base": "1h", "cap": "1h" } } });
    let mut group = Group::new(&[("web", SLEEPS, &[]), ("side", SLEEPS, &["pid"])], image);
    // Found when it is made, and no program when it is executed.
    fs::write(
        group.tasks[1].folder.join("rootfs/bin/broken"),
        "#!/no/such/shell\n",
    )
    .unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(group.tasks[1].folder.join("rootfs/bin/broken"), mode).unwrap();
    group.tasks[1].edit(|config| config["process"]["args"] = json!(["/bin/broken"]));
    group.instance.keep();
    let status = group.instance.until_phase("waiting");
    let reason = attempt(&status, 2)["reason"].to_string();
    assert!(reason.contains("task \\\"side\\\""), "{reason}");
    group.is_gone();
}

fn a_task_that_completes_leaves_the_others_and_the_last_one_completes_the_group() {
    let tasks: &[Task<'_>] = &[("job", OBEYS, &[]), ("other", OBEYS, &["network"])];
    let mut group = Group::new(tasks, json!({ "restart": { "policy": "on-failure" } }));
    let fifos = |group: &Group, name| [0, 1].map(|task| Fifo::new(&group.tasks[task], name));
    let (mut begun, mut end) = (fifos(&group, "begun"), fifos(&group, "end"));
    group.instance.keep();
    begun.iter_mut().for_each(|fifo| drop(fifo.hear()));
    let before = group.instance.until(runs);
    end[0].say("0");
    let status = group
        .instance
        .until(|status| exit(status, 1, 0) == json!({ "code": 0 }));
    assert!(runs(&status), "{status:#}");
    assert_eq!(status["tasks"][0]["container"], Value::Null);
    assert_eq!(pid(&status, 1), pid(&before, 1));
    end[1].say("0");
    let status = group.instance.until(|status| rests(status) == "completed");
    assert_eq!(attempts(&status), 1);
    assert_eq!(status["state"]["counts"]["completed"], 2);
    group.is_gone();

    // After one that has failed, the one that had completed starts again as well.
    group.instance.ask(&["start"]);
    begun.iter_mut().for_each(|fifo| drop(fifo.hear()));
    end[0].say("0");
    group
        .instance
        .until(|status| exit(status, 2, 0) == json!({ "code": 0 }));
    end[1].say("3");
    begun.iter_mut().for_each(|fifo| drop(fifo.hear()));
    let status = group
        .instance
        .until(|status| runs(status) && attempts(status) == 3);
    assert_eq!(exit(&status, 2, 1), json!({ "code": 3 }));
}

fn all_are_stopped_each_by_its_signal_and_killed_after_the_grace() {
    let quits = "trap 'exit 5' QUIT; trap '' TERM; echo ready; while :; do sleep 0.05; done";
    let stubborn = "trap '' TERM; echo ready; while :; do sleep 0.05; done";
    let mut group = Group::new(
        &[("web", quits, &[]), ("side", stubborn, &["network"])],
        json!({ "stop": { "grace": "1s" } }),
    );
    let file = group.instance.file("keeper.json");
    let mut spec: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    spec["tasks"][0]["stopSignal"] = json!("QUIT");
    fs::write(&file, spec.to_string()).unwrap();
    group.instance.keep();
    group.instance.until(runs);
    for name in ["web", "side"] {
        group.until_texts(name, 1);
    }
    let before = group.instance.status();
    let cgroups = [0, 1].map(|task| before["tasks"][task]["container"]["cgroup"].clone());
    group.instance.ask(&["stop"]);
    let status = group.instance.status();
    assert_eq!(rests(&status), "stopped");
    assert_eq!(exit(&status, 1, 0), json!({ "code": 5 }));
    assert_eq!(exit(&status, 1, 1), json!({ "signal": 9 }));
    group.is_gone();
    for cgroup in cgroups {
        assert!(!PathBuf::from(cgroup.as_str().unwrap()).exists());
    }
}

fn a_group_is_adopted_whole_and_with_a_task_that_had_completed() {
    let tasks: &[Task<'_>] = &[("job", OBEYS, &[]), ("other", OBEYS, &["network"])];
    let mut group = Group::new(tasks, json!({ "restart": { "policy": "on-failure" } }));
    let mut end = [0, 1].map(|task| Fifo::new(&group.tasks[task], "end"));
    let mut begun = [0, 1].map(|task| Fifo::new(&group.tasks[task], "begun"));
    group.instance.keep();
    begun.iter_mut().for_each(|fifo| drop(fifo.hear()));
    let before = group.instance.until(runs);
    group.instance.lose_keeper();
    group.instance.keep();
    let after = group.instance.until(runs);
    for task in 0..2 {
        assert_eq!(pid(&after, task), pid(&before, task));
        assert_eq!(after["tasks"][task]["container"]["adopted"], true);
    }
    assert_eq!(attempts(&after), 1);
    // Whether that is known depends on the kernel where it is no child: with a keeper that started it, it is.
    group.instance.ask(&["restart"]);
    begun.iter_mut().for_each(|fifo| drop(fifo.hear()));
    let before = group
        .instance
        .until(|status| runs(status) && attempts(status) == 2);
    end[0].say("0");
    group
        .instance
        .until(|status| exit(status, 2, 0) == json!({ "code": 0 }));
    group.instance.lose_keeper();
    group.instance.keep();
    let after = group.instance.until(runs);
    assert_eq!(pid(&after, 1), pid(&before, 1));
    assert_eq!(
        (attempts(&after), exit(&after, 2, 0)),
        (2, json!({ "code": 0 }))
    );
}

fn a_group_of_which_a_part_has_ended_without_a_keeper_is_started_again() {
    let mut group = Group::running(
        &[("web", SLEEPS, &[]), ("side", SLEEPS, &["network"])],
        json!({ "restart": { "policy": "on-failure", "goodRun": "1ms" }, "stop": { "grace": "0" } }),
    );
    for (number, lost) in [(1, vec![1]), (2, vec![0]), (3, vec![0, 1])] {
        let before = group
            .instance
            .until(|status| runs(status) && attempts(status) == number);
        group.instance.lose_keeper();
        lost.iter().for_each(|task| kill(pid(&before, *task)));
        group.instance.keep();
        let again = |status: &Value| runs(status) && attempts(status) == number + 1;
        let status = group.instance.until(again);
        for task in lost {
            assert_eq!(exit(&status, number, task), "unknown");
        }
        assert_eq!(status["state"]["counts"]["crashes"], number);
        for task in 0..2 {
            assert_ne!(pid(&status, task), pid(&before, task));
        }
    }
}

fn a_keeper_killed_while_it_makes_a_group_leaves_one_at_most() {
    let mut group = Group::new(
        &[("web", SLEEPS, &[]), ("side", SLEEPS, &["network", "pid"])],
        json!({ "restart": { "policy": "on-failure" }, "stop": { "grace": "0" } }),
    );
    let mut seed = 7;
    for round in 0..15 {
        let mut keeper = group.instance.keeper_begins();
        std::thread::sleep(Duration::from_micros(random(&mut seed, 60_000)));
        keeper.signal(Signal::KILL);
        keeper.end();
        group.instance.keep();
        let status = group.instance.until(runs);
        for task in 0..2 {
            let cgroup = status["tasks"][task]["container"]["cgroup"]
                .as_str()
                .unwrap();
            let inside = fs::read_to_string(format!("{cgroup}/cgroup.procs")).unwrap();
            assert_eq!(inside.trim(), pid(&status, task).to_string(), "{round}");
        }
        group.instance.ask(&["stop"]);
        group.is_gone();
        group.instance.ask(&["start"]);
        kill(group.pid(round as usize % 2));
        group.instance.lose_keeper();
    }
}

fn a_storm_of_killed_tasks_and_keepers_leaves_a_whole_group() {
    let mut group = Group::running(
        &[
            ("web", SLEEPS, &[]),
            ("side", SLEEPS, &["network", "ipc"]),
            ("third", SLEEPS, &["pid"]),
        ],
        json!({ "restart": { "goodRun": "1ms" }, "stop": { "grace": "0" } }),
    );
    let mut seed = 3;
    for _ in 0..25 {
        std::thread::sleep(Duration::from_millis(random(&mut seed, 40)));
        match random(&mut seed, 3) {
            0 => drop(group.instance.lose_keeper()),
            _ => {
                let status = group.instance.status();
                let task = random(&mut seed, 3) as usize;
                let pid = &status["tasks"][task]["container"]["process"]["pid"];
                let pid = pid.as_i64().and_then(|pid| Pid::from_raw(pid as i32));
                if let Some(pidfd) = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()) {
                    // It may just have ended with its group.
                    let _ended = pidfd_send_signal(&pidfd, Signal::KILL);
                }
            }
        }
        if group.instance.keeper.is_none() {
            group.instance.keep();
        }
    }
    let whole = |status: &Value| {
        let lives = |task: &Value| task["container"].is_object();
        runs(status) && status["tasks"].as_array().unwrap().iter().all(lives)
    };
    let status = group.instance.until(whole);
    assert_eq!(
        namespace(pid(&status, 0), "net"),
        namespace(pid(&status, 1), "net")
    );
    group.instance.ask(&["stop"]);
    group.is_gone();
}

fn the_other_commands_see_each_container() {
    let group = Group::running(
        &[("web", SLEEPS, &[]), ("side", SLEEPS, &["pid"])],
        json!({}),
    );
    let status = group.instance.status();
    let folder = fs::canonicalize(group.instance.folder()).unwrap();
    for (number, task) in group.tasks.iter().enumerate() {
        let state = group
            .instance
            .bundle
            .parhelion(&["state", &task.id])
            .success();
        let state: Value = serde_json::from_str(&state).unwrap();
        assert_eq!(state["pid"], pid(&status, number));
        let keeper = &state["annotations"]["org.parhelion.keeper"];
        assert_eq!(*keeper, folder.to_str().unwrap());
        let said = group
            .instance
            .bundle
            .parhelion(&["exec", &task.id, "echo", "inside"]);
        assert_eq!(said.success(), "inside\n");
    }
    let id = &group.tasks[1].id;
    group
        .instance
        .bundle
        .parhelion(&["delete", "--force", id])
        .success();
    group
        .instance
        .until(|status| runs(status) && attempts(status) == 2);
}

fn a_container_of_somebody_else_keeps_the_group_from_beginning() {
    let group = Group::new(&[("web", SLEEPS, &[]), ("side", SLEEPS, &[])], json!({}));
    let (bundle, side) = (&group.instance.bundle, &group.tasks[1]);
    let arguments = ["run", "--detach", "--bundle", side.path(), &side.id];
    quietly(&mut command(bundle, &arguments));
    let told = bundle
        .parhelion(&["keep", &group.instance.path()])
        .failure();
    assert!(
        told.contains("is not of this instance") && told.contains(&side.id),
        "{told}"
    );
    assert!(
        bundle
            .parhelion(&["state", &side.id])
            .success()
            .contains("running")
    );
}
