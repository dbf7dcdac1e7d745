//! A keeper that is killed is not missed: the container runs on, and the next keeper goes on with it.

use std::fs;
use std::time::Duration;

use libtest_mimic::Trial;
use serde_json::{Value, json};

use super::{Instance, attempt, attempts, pid, random, runs};
use crate::caller::{Fifo, wait_for_exit};
use crate::support::tests;

pub fn all() -> Vec<Trial> {
    tests![
        the_container_of_a_killed_keeper_is_adopted_and_its_lines_are_kept,
        how_an_adopted_program_ends_is_recorded,
        a_program_that_ends_without_a_keeper_is_started_again_by_the_next_one,
        a_damaged_status_file_costs_no_container,
        an_adopted_container_is_stopped_like_any_other,
        a_storm_of_killed_keepers_restarts_nothing,
        a_keeper_killed_while_it_makes_a_container_leaves_one_at_most,
    ]
}

/// Prints the lines it is told to print, and ends when it is told to.
const OBEYS: &str = "exec 3<>/tmp/say; echo ready; \
    while read -r line <&3; do case $line in exit*) $line;; *) echo $line;; esac; done";

struct Obedient(Instance, Fifo);

impl Obedient {
    fn new() -> Obedient {
        let mut instance = Instance::new(OBEYS, json!({ "stop": { "grace": "0" } }));
        let say = Fifo::new(&instance.bundle, "say");
        instance.keep();
        instance.until(runs);
        instance.until_line("ready");
        Obedient(instance, say)
    }

    fn say(&mut self, line: &str) {
        self.1.say(line);
    }
}

fn the_container_of_a_killed_keeper_is_adopted_and_its_lines_are_kept() {
    let mut told = Obedient::new();
    let before = told.0.status();
    told.0.lose_keeper();
    told.say("without a keeper");
    assert_eq!(told.0.bundle.status(), "running");
    told.0.keep();
    told.0.until_line("without a keeper");
    told.say("with another one");
    told.0.until_line("with another one");
    let after = told.0.status();
    assert_eq!(
        after["container"]["process"],
        before["container"]["process"]
    );
    assert_eq!(after["container"]["adopted"], true);
    assert_eq!(after["state"]["counts"], before["state"]["counts"]);
    let expected = ["ready", "without a keeper", "with another one"];
    assert_eq!(told.0.texts(), expected);
}

fn how_an_adopted_program_ends_is_recorded() {
    let mut told = Obedient::new();
    told.0.lose_keeper();
    told.0.keep();
    told.say("exit 7");
    let status = told.0.until(|status| runs(status) && attempts(status) == 2);
    assert_exit(&attempt(&status, 1)["exit"], &json!({ "code": 7 }));
}

/// Where the kernel tells nobody but the parent how a process has ended, that may not be known.
fn assert_exit(exit: &Value, expected: &Value) {
    if exit == "unknown" && !kernel_keeps_exits() {
        println!("NOT HERE: how it ended is not known, as the kernel is older than Linux 6.15");
        return;
    }
    assert_eq!(exit, expected);
}

fn kernel_keeps_exits() -> bool {
    let release = rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned();
    let mut numbers = release
        .split(['.', '-'])
        .map_while(|part| part.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(6), Some(15))
}

fn a_program_that_ends_without_a_keeper_is_started_again_by_the_next_one() {
    let mut told = Obedient::new();
    let before = told.0.pid();
    told.0.lose_keeper();
    told.say("last words");
    told.say("exit 7");
    wait_for_exit(before);
    told.0.keep();
    let status = told.0.until(|status| runs(status) && attempts(status) == 2);
    let first = attempt(&status, 1);
    assert_eq!(first["exit"], "unknown", "{first:#}");
    assert!(first["ended"].is_string());
    assert_eq!(status["state"]["counts"]["crashes"], 1);
}

fn a_damaged_status_file_costs_no_container() {
    let mut instance = Instance::running("exec sleep 1000", json!({}));
    let before = instance.pid();
    instance.lose_keeper();
    for damage in ["", "{\"id\":", "[]"] {
        fs::write(instance.file("status.json"), damage).unwrap();
        instance.keep();
        assert_eq!(pid(&instance.until(runs)), before);
        let told = instance.lose_keeper();
        assert!(told.contains("what happened before is not known"), "{told}");
    }
    fs::remove_file(instance.file("status.json")).unwrap();
    instance.keep();
    assert_eq!(pid(&instance.until(runs)), before);
    instance.kill_program();
    let status = instance.until(|status| runs(status) && attempts(status) == 1);
    assert_exit(&attempt(&status, 0)["exit"], &json!({ "signal": 9 }));
}

fn an_adopted_container_is_stopped_like_any_other() {
    let mut told = Obedient::new();
    told.0.lose_keeper();
    told.0.keep();
    let before = told.0.pid();
    told.0.ask(&["stop"]);
    wait_for_exit(before);
    told.0.container_is_gone();
}

fn a_storm_of_killed_keepers_restarts_nothing() {
    const INSTANCES: usize = 10;
    let script = "i=0; while :; do i=$((i+1)); echo line $i; sleep 0.02; done";
    let mut all: Vec<Instance> = (0..INSTANCES)
        .map(|_| Instance::running(script, json!({})))
        .collect();
    let before: Vec<Value> = all
        .iter()
        .map(|one| one.status()["container"]["process"].clone())
        .collect();
    let mut seed = 5;
    for _ in 0..40 {
        let one = &mut all[random(&mut seed, INSTANCES as u64) as usize];
        std::thread::sleep(Duration::from_millis(random(&mut seed, 20)));
        one.lose_keeper();
        if random(&mut seed, 2) == 0 {
            one.keep();
        } else {
            // Killed while it adopts.
            let mut keeper = one.keeper_begins();
            std::thread::sleep(Duration::from_millis(random(&mut seed, 15)));
            keeper.signal(rustix::process::Signal::KILL);
            keeper.end();
            one.keep();
        }
    }
    for (one, before) in all.iter().zip(&before) {
        let status = one.until(runs);
        assert_eq!(status["container"]["process"], *before);
        assert_eq!(attempts(&status), 1);
        assert_eq!(
            status["faults"],
            json!({ "status": null, "log": null, "container": null })
        );
    }
    for one in &all {
        let numbers: Vec<u64> = one
            .texts()
            .iter()
            .filter_map(|text| text.strip_prefix("line ")?.parse().ok())
            .collect();
        // A keeper that is killed when lines are in the file, and not taken yet, has them written again.
        assert_eq!(numbers[0], 1);
        let gaps = numbers.windows(2).filter(|two| two[1] > two[0] + 1);
        assert_eq!(gaps.count(), 0, "{numbers:?}");
        assert!(*numbers.last().unwrap() > 20);
    }
    for one in &all {
        one.kill_program();
        let status = one.until(|status| runs(status) && attempts(status) == 2);
        assert_exit(&attempt(&status, 1)["exit"], &json!({ "signal": 9 }));
    }
}

fn a_keeper_killed_while_it_makes_a_container_leaves_one_at_most() {
    let mut instance = Instance::new(
        "echo run; exec sleep 1000",
        json!({ "stop": { "grace": "0" } }),
    );
    let mut seed = 11;
    for round in 0..30 {
        let mut keeper = instance.keeper_begins();
        std::thread::sleep(Duration::from_micros(random(&mut seed, 25_000)));
        keeper.signal(rustix::process::Signal::KILL);
        keeper.end();
        instance.keep();
        let status = instance.until(runs);
        assert_eq!(instance.bundle.pid(), pid(&status), "{round}");
        let cgroup = status["container"]["cgroup"].as_str().unwrap();
        let inside = fs::read_to_string(format!("{cgroup}/cgroup.procs")).unwrap();
        assert_eq!(inside.trim(), pid(&status).to_string(), "{round}");
        instance.ask(&["stop"]);
        instance.ask(&["start"]);
        instance.kill_program();
        instance.lose_keeper();
    }
    instance.keep();
    instance.ask(&["stop"]);
    let left = fs::read_dir(instance.bundle.folder.join("state"))
        .unwrap()
        .count();
    assert_eq!(left, 0);
}
