//! A program that ends is started again, or not, as its policy says.

use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use serde_json::{Value, json};

use super::{Instance, attempt, attempts, kill, phase, pid, rests, runs};
use crate::caller::{Fifo, Running, command};
use crate::support::{needs_controllers, tests};

pub fn all() -> Vec<Trial> {
    let mut trials = tests![
        a_program_that_crashes_is_back_at_once,
        each_policy_ends_where_it_says,
        other_success_codes_are_honoured,
        waits_grow_to_the_cap_flapping_is_seen_and_a_good_run_ends_it,
        a_container_that_can_not_be_made_says_why_and_comes_when_it_can,
        a_keeper_answers_while_it_makes_a_container_after_one_that_could_not_be_made,
        an_unhealthy_instance_is_stopped_and_started_again_with_its_reason,
        a_container_that_somebody_deletes_comes_back,
        the_other_commands_see_a_kept_container,
    ];
    let memory = tests![a_kill_for_want_of_memory_is_recorded];
    trials.extend(needs_controllers(&["memory"], memory));
    trials
}

fn a_program_that_crashes_is_back_at_once() {
    let script = "echo started > /tmp/started; exec sleep 1000";
    let mut instance = Instance::new(script, json!({ "stop": { "grace": "0" } }));
    let mut started = Fifo::new(&instance.bundle, "started");
    instance.keep();
    started.hear();
    let mut times = Vec::new();
    for round in 0..5 {
        let status = instance.until(|status| runs(status) && attempts(status) == 2 * round + 1);
        let before = now();
        kill(pid(&status));
        started.hear();
        times.push(before.elapsed());
        let number = 2 * round + 1;
        let status = instance.until(|status| runs(status) && attempts(status) == number + 1);
        assert_eq!(attempt(&status, number)["exit"], json!({ "signal": 9 }));
        // Forgets the failure, so that the next one is the first again.
        instance.ask(&["restart"]);
        started.hear();
    }
    println!("crash to the replacement's first line: {times:?}");
}

#[allow(clippy::disallowed_methods, reason = "a figure for people")]
fn now() -> Instant {
    Instant::now()
}

fn each_policy_ends_where_it_says() {
    for (policy, code, rest) in [
        ("on-failure", 0, "completed"),
        ("never", 0, "completed"),
        ("never", 3, "failed"),
    ] {
        let script = format!("exit {code}");
        let mut instance = Instance::new(&script, json!({ "restart": { "policy": policy } }));
        instance.keep();
        let status = instance.until(|status| rests(status) == rest);
        assert_eq!(attempts(&status), 1, "{policy} {code}");
        assert_eq!(attempt(&status, 1)["exit"], json!({ "code": code }));
        instance.container_is_gone();
    }
    for (policy, code) in [("always", 0), ("always", 3), ("on-failure", 3)] {
        let script =
            format!("test -e /tmp/again && exec sleep 1000; touch /tmp/again; exit {code}");
        let mut instance = Instance::new(&script, json!({ "restart": { "policy": policy } }));
        instance.keep();
        let status = instance.until(|status| runs(status) && attempts(status) == 2);
        assert_eq!(
            attempt(&status, 1)["exit"],
            json!({ "code": code }),
            "{policy}"
        );
    }
}

fn other_success_codes_are_honoured() {
    let restart = json!({ "restart": { "policy": "on-failure", "successCodes": [3, 4] } });
    let mut instance = Instance::new("exit 4", restart.clone());
    instance.keep();
    instance.until(|status| rests(status) == "completed");
    let mut instance = Instance::new("exit 0", restart);
    instance.keep();
    let status = instance.until(|status| attempts(status) > 2);
    assert_eq!(status["state"]["counts"]["completed"], 0);
}

fn waits_grow_to_the_cap_flapping_is_seen_and_a_good_run_ends_it() {
    let crash = json!({ "base": "50ms", "factor": 2, "cap": "200ms", "jitter": 0 });
    let restart = json!({ "restart": { "crash": crash, "goodRun": "700ms" } });
    let mut instance = Instance::new("test -e /tmp/well && exec sleep 1000; exit 1", restart);
    instance.keep();
    let waiting = instance.until(|status| phase(status) == "waiting");
    assert!(
        waiting["flapping"] == true && waiting["nextAttempt"].is_string(),
        "{waiting:#}"
    );
    let status = instance.until(|status| attempts(status) >= 7);
    let moment = |number, name: &str| {
        let text = attempt(&status, number)[name].as_str().unwrap().to_owned();
        parse(&text)
    };
    for (number, least) in [(2, 0), (3, 50), (4, 100), (5, 200), (6, 200), (7, 200)] {
        let wait = moment(number, "begun") - moment(number - 1, "ended");
        assert!(wait >= Duration::from_millis(least), "{number}: {wait:?}");
    }
    fs::write(instance.bundle.folder.join("rootfs/tmp/well"), "").unwrap();
    let well = instance.until(|status| runs(status) && status["flapping"] == false);
    assert_eq!(well["state"]["inARow"]["crash"], 0);
    assert_eq!(well["state"]["counts"]["crashes"], attempts(&well) - 1);
}

/// A moment of the status, of this day: the time since its beginning.
fn parse(text: &str) -> Duration {
    let time = text.split('T').nth(1).unwrap().trim_end_matches('Z');
    let parts: Vec<f64> = time.split(':').map(|part| part.parse().unwrap()).collect();
    let day = if parts[0] < 1.0 { 86_400.0 } else { 0.0 }; // midnight may come in between
    Duration::from_secs_f64(day + parts[0] * 3600.0 + parts[1] * 60.0 + parts[2])
}

fn a_container_that_can_not_be_made_says_why_and_comes_when_it_can() {
    let image = json!({ "base": "50ms", "cap": "100ms" });
    let mut instance = Instance::new("exec sleep 1000", json!({ "restart": { "image": image } }));
    let (rootfs, away) = ("rootfs", "away");
    let place = |name: &str| instance.bundle.folder.join(name);
    fs::rename(place(rootfs), place(away)).unwrap();
    instance.keep();
    let status = instance.until(|status| status["state"]["counts"]["notMade"].as_u64() > Some(2));
    let reason = attempt(&status, 1)["reason"].to_string();
    assert!(reason.contains("rootfs"), "{reason}");
    instance.ask(&["stop"]);
    let told = instance.asked(&["start"]).failure();
    assert!(
        told.contains("rootfs") && told.contains("keeper status DIR"),
        "{told}"
    );
    let place = |name: &str| instance.bundle.folder.join(name);
    fs::rename(place(away), place(rootfs)).unwrap();
    instance.until(runs);
}

fn a_keeper_answers_while_it_makes_a_container_after_one_that_could_not_be_made() {
    let mut instance = Instance::new("exec sleep 1000", json!({}));
    let mut held = instance.held_while_made();
    instance.keep();
    held.until_begun();
    held.fail();
    held.until_begun();
    let arguments = ["keeper", "status", &instance.path()];
    let mut asking = Running::spawn(&mut command(&instance.bundle, &arguments), Stdio::null());
    let answer: Value = serde_json::from_str(&asking.end().1).unwrap();
    assert_eq!((phase(&answer), attempts(&answer)), ("starting", 2));
    held.go_on();
    instance.until(runs);
}

fn an_unhealthy_instance_is_stopped_and_started_again_with_its_reason() {
    let script = "trap 'exit 0' TERM; while :; do sleep 0.05; done";
    let instance = Instance::running(script, json!({ "restart": { "policy": "on-failure" } }));
    instance.ask(&["unhealthy", "--reason", "no answer at /health"]);
    let status = instance.until(|status| runs(status) && attempts(status) == 2);
    let first = attempt(&status, 1);
    assert_eq!(first["told"], "unhealthy");
    assert_eq!(first["reason"], "no answer at /health");
    assert_eq!(status["state"]["counts"]["unhealthy"], 1);
    assert_eq!(status["state"]["counts"]["completed"], 0);
    assert_eq!(status["state"]["inARow"]["unhealthy"], 1);
}

fn a_container_that_somebody_deletes_comes_back() {
    let instance = Instance::running("exec sleep 1000", json!({}));
    let before = instance.pid();
    let id = &instance.bundle.id;
    instance
        .bundle
        .parhelion(&["delete", "--force", id])
        .success();
    let status = instance.until(|status| runs(status) && attempts(status) == 2);
    assert_ne!(pid(&status), before);
}

fn the_other_commands_see_a_kept_container() {
    let instance = Instance::running("exec sleep 1000", json!({}));
    let state: Value = serde_json::from_str(&instance.bundle.verb("state").success()).unwrap();
    assert_eq!(state["status"], "running");
    assert_eq!(state["pid"], instance.pid());
    let folder = fs::canonicalize(instance.folder()).unwrap();
    assert_eq!(
        state["annotations"]["org.parhelion.keeper"],
        folder.to_str().unwrap()
    );
    let listed = instance.bundle.parhelion(&["list", "--quiet"]).success();
    assert_eq!(listed.trim(), instance.bundle.id);
    let said = instance
        .bundle
        .parhelion(&["exec", &instance.bundle.id, "echo", "inside"]);
    assert_eq!(said.success(), "inside\n");
}

fn a_kill_for_want_of_memory_is_recorded() {
    let script = "x=0123456789abcdef; while :; do x=$x$x; done";
    let mut instance = Instance::new(script, json!({ "restart": { "policy": "never" } }));
    instance.bundle.edit(|config| {
        config["linux"]["resources"]["memory"] = json!({ "limit": 16 << 20, "swap": 16 << 20 });
    });
    instance.keep();
    let status = instance.until(|status| rests(status) == "failed");
    let first = attempt(&status, 1);
    assert_eq!(first["exit"], json!({ "signal": 9 }), "{first:#}");
    assert!(first["oomKills"].as_u64() >= Some(1), "{first:#}");
}
