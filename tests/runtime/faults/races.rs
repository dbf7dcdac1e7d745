//! Several commands on one container, or on neighbours, at the same moment.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Barrier;
use std::time::Duration;

use libtest_mimic::Trial;
use nix::libc::PTRACE_EVENT_EXIT;
use nix::sys::ptrace::{self, Options};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use serde_json::json;

use super::remains;
use crate::caller::{self, Running};
use crate::support::{Bundle, program, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        of_fifty_parallel_creates_of_one_id_one_wins,
        neighbours_are_created_and_deleted_in_parallel,
        eight_callers_make_two_hundred_containers_and_nothing_is_left,
        create_and_delete_by_force_at_once_leave_a_container_or_nothing,
        of_two_deletes_at_once_neither_fails_by_the_other,
        a_kill_during_create_ends_it_or_comes_too_early,
        a_start_that_fails_returns_when_the_container_has_stopped,
    ]
}

/// What one command answered.
struct Answer {
    ended_well: bool,
    told: String,
}

/// Runs a command for the container `id` of this bundle. `number` tells its output from others'.
fn answer(
    bundle: &Bundle,
    number: usize,
    before_id: &[&str],
    after_id: &[&str],
    id: &str,
) -> Answer {
    let path = bundle.folder.join(format!("output-{number}"));
    let output = File::create(&path).unwrap();
    let status = Command::new(program())
        .arg("--root")
        .arg(bundle.folder.join("state"))
        .args(before_id)
        .arg(id)
        .args(after_id)
        .stdin(Stdio::null())
        .stdout(output.try_clone().unwrap())
        .stderr(output)
        .status()
        .unwrap();
    let told = fs::read_to_string(path).unwrap();
    Answer {
        ended_well: status.success(),
        told,
    }
}

fn create(bundle: &Bundle, number: usize, id: &str) -> Answer {
    answer(
        bundle,
        number,
        &["create", "--bundle", bundle.path()],
        &[],
        id,
    )
}

fn delete(bundle: &Bundle, number: usize, id: &str) -> Answer {
    answer(bundle, number, &["delete", "--force"], &[], id)
}

fn states(bundle: &Bundle) -> usize {
    fs::read_dir(bundle.folder.join("state")).map_or(0, Iterator::count)
}

fn cgroup(id: &str) -> String {
    format!("/sys/fs/cgroup/parhelion/{id}")
}

fn nothing_is_left(bundle: &Bundle, id: &str, told: &str) {
    assert_eq!(states(bundle), 0, "state is left: {told}");
    assert!(!fs::exists(cgroup(id)).unwrap(), "a cgroup is left: {told}");
    remains::nothing_is_left(&bundle.folder, id);
}

/// Runs `first` and `second` at once, in round `n` the second some moments later.
fn at_once<A: Send>(
    n: u64,
    first: impl FnOnce() -> A + Send,
    second: impl FnOnce() -> A + Send,
) -> [A; 2] {
    let start = Barrier::new(2);
    std::thread::scope(|scope| {
        let one = scope.spawn(|| {
            start.wait();
            first()
        });
        let two = scope.spawn(|| {
            start.wait();
            // Not to wait for something: each round meets the other command at another step.
            std::thread::sleep(Duration::from_micros(500 * n));
            second()
        });
        [one.join().unwrap(), two.join().unwrap()]
    })
}

fn of_fifty_parallel_creates_of_one_id_one_wins() {
    let bundle = Bundle::new("sleep 1000");
    let start = Barrier::new(50);
    let answers: Vec<Answer> = std::thread::scope(|scope| {
        let one = |number| {
            let (bundle, start) = (&bundle, &start);
            move || {
                start.wait();
                create(bundle, number, &bundle.id)
            }
        };
        let all: Vec<_> = (0..50).map(|number| scope.spawn(one(number))).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let (won, lost): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.ended_well);
    assert_eq!(won.len(), 1);
    let expected = format!(
        "create {id:?}: container with id {id:?} already exists: choose another id, or delete it \
         first\n",
        id = bundle.id
    );
    for answer in lost {
        assert_eq!(answer.told, expected);
    }
    assert_eq!((states(&bundle), bundle.status().as_str()), (1, "created"));
    let processes = fs::read_to_string(cgroup(&bundle.id) + "/cgroup.procs").unwrap();
    assert_eq!(
        processes.lines().count(),
        1,
        "processes of losers: {processes}"
    );
    bundle.verb("start").success();
    let gone = delete(&bundle, 50, &bundle.id);
    assert!(gone.ended_well, "{}", gone.told);
    nothing_is_left(&bundle, &bundle.id, "");
}

fn neighbours_are_created_and_deleted_in_parallel() {
    let bundle = Bundle::new("sleep 1000");
    let start = Barrier::new(16);
    std::thread::scope(|scope| {
        for number in 0..16 {
            let (bundle, start) = (&bundle, &start);
            scope.spawn(move || {
                let id = format!("{}-{number}", bundle.id);
                start.wait();
                for _ in 0..4 {
                    let made = create(bundle, number, &id);
                    assert!(made.ended_well, "{}", made.told);
                    let gone = delete(bundle, number, &id);
                    assert!(gone.ended_well, "{}", gone.told);
                    assert!(!fs::exists(cgroup(&id)).unwrap());
                }
            });
        }
    });
    assert_eq!(states(&bundle), 0);
}

/// How many processes live in cgroups of containers whose id starts so.
fn processes_of(start: &str) -> usize {
    let all = fs::read_dir("/proc").unwrap().flatten();
    let lives = |process: &Path| {
        let cgroup = fs::read_to_string(process.join("cgroup")).unwrap_or_default();
        // One that has ended has no program, but may have to wait for its parent.
        cgroup.contains(start) && fs::read_link(process.join("exe")).is_ok()
    };
    all.filter(|entry| lives(&entry.path())).count()
}

fn eight_callers_make_two_hundred_containers_and_nothing_is_left() {
    const CALLERS: usize = 8;
    const EACH: usize = 25;
    let bundle = Bundle::new("sleep 1000");
    let mounts = || {
        fs::read_to_string("/proc/self/mountinfo")
            .unwrap()
            .lines()
            .count()
    };
    let before = mounts();
    let (begun, all_live) = (Barrier::new(CALLERS), Barrier::new(CALLERS + 1));
    std::thread::scope(|scope| {
        for caller in 0..CALLERS {
            let (bundle, begun, all_live) = (&bundle, &begun, &all_live);
            scope.spawn(move || {
                let ids = (0..EACH).map(|n| format!("{}-{caller}-{n}", bundle.id));
                let ids: Vec<_> = ids.collect();
                begun.wait();
                let mut failures = Vec::new();
                for id in &ids {
                    let made = create(bundle, caller, id);
                    let started = answer(bundle, caller, &["start"], &[], id);
                    failures.extend([made, started].into_iter().filter(|a| !a.ended_well));
                }
                // Twice: between the two, somebody counts.
                all_live.wait();
                all_live.wait();
                for id in &ids {
                    let gone = delete(bundle, caller, id);
                    failures.extend(Some(gone).filter(|answer| !answer.ended_well));
                    assert!(!fs::exists(cgroup(id)).unwrap());
                }
                let told: Vec<_> = failures.into_iter().map(|answer| answer.told).collect();
                assert!(told.is_empty(), "{told:?}");
            });
        }
        all_live.wait();
        let alive = (states(&bundle), processes_of(&bundle.id));
        all_live.wait();
        assert_eq!(alive, (CALLERS * EACH, CALLERS * EACH));
    });
    assert_eq!(states(&bundle), 0);
    assert_eq!(processes_of(&bundle.id), 0);
    assert_eq!(mounts(), before);
}

fn create_and_delete_by_force_at_once_leave_a_container_or_nothing() {
    let bundle = Bundle::new("sleep 1000");
    for round in 0..40 {
        let [made, gone] = at_once(
            round,
            || create(&bundle, 0, &bundle.id),
            || delete(&bundle, 1, &bundle.id),
        );
        assert!(gone.ended_well, "round {round}: {}", gone.told);
        if made.ended_well && states(&bundle) == 1 {
            assert_eq!(bundle.status(), "created", "round {round}");
            delete(&bundle, 1, &bundle.id);
        } else if !made.ended_well {
            assert_eq!(made.told.lines().count(), 1, "round {round}: {}", made.told);
        }
        nothing_is_left(&bundle, &bundle.id, &made.told);
    }
}

fn of_two_deletes_at_once_neither_fails_by_the_other() {
    let bundle = Bundle::new("sleep 1000");
    for round in 0..20 {
        bundle.create().success();
        if round % 2 == 0 {
            bundle.verb("start").success();
        }
        let delete = |number| {
            let bundle = &bundle;
            move || delete(bundle, number, &bundle.id)
        };
        for answer in at_once(round / 2, delete(0), delete(1)) {
            assert!(answer.ended_well, "round {round}: {}", answer.told);
        }
        nothing_is_left(&bundle, &bundle.id, "");
    }
    for round in 0..10 {
        bundle.create().success();
        let delete = |number| {
            let bundle = &bundle;
            move || answer(bundle, number, &["delete"], &[], &bundle.id)
        };
        let answers = at_once(round, delete(0), delete(1));
        assert!(answers.iter().any(|answer| answer.ended_well));
        for answer in answers.iter().filter(|answer| !answer.ended_well) {
            assert!(answer.told.contains("does not exist"), "{}", answer.told);
        }
        nothing_is_left(&bundle, &bundle.id, "");
    }
}

fn a_kill_during_create_ends_it_or_comes_too_early() {
    let bundle = Bundle::new("sleep 1000");
    for round in 0..40 {
        let kill = || answer(&bundle, 1, &["kill"], &["KILL"], &bundle.id);
        let [made, killed] = at_once(round, || create(&bundle, 0, &bundle.id), kill);
        if !killed.ended_well {
            let early = ["does not exist", "container not running"];
            let told = &killed.told;
            assert!(
                early.iter().any(|words| told.contains(words)),
                "round {round}: {told}"
            );
            assert!(made.ended_well, "round {round}: {}", made.told);
        }
        if made.ended_well {
            let gone = delete(&bundle, 0, &bundle.id);
            assert!(gone.ended_well, "{}", gone.told);
        } else {
            let told = &made.told;
            assert!(told.contains("killed by signal 9"), "round {round}: {told}");
        }
        nothing_is_left(&bundle, &bundle.id, &made.told);
    }
}

/// Init is held where it ends, with its last words said.
fn a_start_that_fails_returns_when_the_container_has_stopped() {
    let bundle = Bundle::new("");
    bundle.edit(|config| config["hooks"]["startContainer"] = json!([{ "path": "/bin/false" }]));
    bundle.create().success();
    let init = Pid::from_raw(caller::init_pid(&bundle));
    ptrace::seize(init, Options::PTRACE_O_TRACEEXIT).unwrap();
    let mut start = caller::command(&bundle, &["start", &bundle.id]);
    let mut start = Running::spawn(&mut start, Stdio::null());
    let flags = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
    let next = || waitpid(init, Some(flags)).unwrap();
    let mut held = next();
    // Its hook's SIGCHLD.
    while let WaitStatus::Stopped(_, signal) = held {
        ptrace::cont(init, signal).unwrap();
        held = next();
    }
    let ends = matches!(held, WaitStatus::PtraceEvent(_, _, PTRACE_EVENT_EXIT));
    assert!(ends, "{held:?}");
    assert!(
        !start.ends_within(Duration::from_millis(300)),
        "it has returned"
    );
    ptrace::detach(init, None).unwrap();
    let (status, _, told) = start.end();
    assert!(!status.success() && told.contains("/bin/false"), "{told}");
    assert_eq!(bundle.status(), "stopped");
    bundle.verb("delete").success();
}
