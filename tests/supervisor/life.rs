//! A job's life: created, deployed, killed and back, restarted, stopped, replaced, undeployed, removed.

use std::time::{Duration, SystemTime};

use libtest_mimic::Trial;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::caller::wait_for_exit;
use crate::host::Host;
use crate::support::tests;

pub fn all() -> Vec<Trial> {
    tests![
        a_job_is_created_deployed_looked_at_undeployed_and_removed,
        a_job_that_is_undeployed_at_once_leaves_nothing,
        a_killed_program_is_back_and_its_history_says_why,
        the_killed_daemon_is_not_missed,
        a_restarted_instance_has_another_process,
        a_stopped_job_stays_deployed_and_starts_again,
        who_uses_a_service_finds_another_one_before_it_is_told_to_end,
        a_newer_version_takes_the_place_of_the_older_one,
        a_version_that_never_runs_leaves_the_older_one,
        an_expired_job_goes_by_itself,
        a_job_with_a_token_obeys_who_knows_it,
    ]
}

const SLEEP: &str = "while :; do sleep 1; done";

fn kill(pid: i32) {
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    wait_for_exit(pid);
}

fn a_job_is_created_deployed_looked_at_undeployed_and_removed() {
    let host = Host::new(SLEEP);
    let created = host.json(&["create", &host.job("1", &json!({}))]);
    let id = created["id"].as_str().unwrap();
    assert!(id.starts_with("web:1:"), "{created}");
    let jobs = host.json(&["jobs"]);
    assert_eq!(
        (jobs[0]["id"].as_str(), jobs[0]["deployments"].clone()),
        (Some(id), json!([]))
    );
    let deployed = host.json(&["deploy", "web:1", "--count", "2", "--wait"]);
    assert_eq!(
        (deployed["host"].clone(), deployed["count"].clone()),
        (json!("here"), json!(2))
    );
    let status = host.json(&["status"]);
    for (index, instance) in status.as_array().unwrap().iter().enumerate() {
        assert_eq!(instance["name"], format!("web.1.{}.{index}", &id[6..13]));
        assert_eq!(instance["phase"], "running");
    }
    assert_eq!(host.json(&["hosts"])[0]["running"], 2);
    let pid = host.pid();
    host.parctl(&["deploy", "web", "--count", "1", "--wait"])
        .success();
    host.until("one is left", || {
        host.json(&["status"]).as_array().unwrap().len() == 1
    });
    host.parctl(&["undeploy", "web", "--wait"]).success();
    wait_for_exit(pid);
    assert_eq!(host.json(&["status"]), json!([]));
    host.parctl(&["remove", "web"]).success();
    assert_eq!(host.json(&["jobs"]), json!([]));
    let history = host.json(&["history", "web"]);
    let of_job = history.as_array().unwrap().iter();
    let of_job = of_job.filter(|event| event["instance"].is_null());
    let kinds: Vec<&Value> = of_job.clone().map(|event| &event["kind"]).collect();
    let expected = ["created", "deployed", "changed", "undeployed", "removed"];
    assert_eq!(kinds, expected, "{history:#}");
    for event in of_job {
        let cause = event["cause"].as_str().unwrap();
        assert!(cause.contains("by user 0, process "), "{cause}");
    }
}

fn a_job_that_is_undeployed_at_once_leaves_nothing() {
    let host = Host::new(SLEEP);
    host.parctl(&["create", &host.job("1", &json!({}))])
        .success();
    for _ in 0..5 {
        host.parctl(&["deploy", "web", "--count", "3"]).success();
        host.parctl(&["undeploy", "web", "--wait"]).success();
        assert_eq!(host.json(&["status"]), json!([]));
        let left = host.bundle.parhelion(&["list", "--quiet"]).success();
        assert_eq!(left, "");
    }
    host.parctl(&["remove", "web"]).success();
}

fn a_killed_program_is_back_and_its_history_says_why() {
    let host = Host::new(SLEEP);
    let name = host.deploy(&json!({}));
    let pid = host.pid();
    kill(pid);
    host.until("it is back", || {
        let instance = host.instance();
        instance["phase"] == "running" && instance["restarts"] == 1
    });
    assert_ne!(host.pid(), pid);
    let history = host.json(&["history", &name]);
    let told = |kind: &str, cause: &str| {
        let all = history.as_array().unwrap().iter();
        let of = all.filter(|event| event["kind"] == kind);
        of.into_iter()
            .any(|event| event["cause"].as_str().unwrap().contains(cause))
    };
    assert!(told("ended", "signal 9 (KILL)"), "{history:#}");
}

fn the_killed_daemon_is_not_missed() {
    let mut host = Host::new(SLEEP);
    host.deploy(&json!({}));
    let first = host.pid();
    host.lose_daemon();
    let keeper_alone = || std::fs::read_to_string(format!("/proc/{first}/cmdline")).is_ok();
    assert!(keeper_alone());
    for asked in [&["status"][..], &["version"], &["--json", "version"]] {
        let refused = host.parctl(asked).failure();
        assert!(
            refused.contains("no daemon answers") && refused.contains("start it"),
            "{asked:?}: {refused}"
        );
    }
    kill(first);
    host.start();
    host.until("it was started again", || {
        let instance = host.instance();
        instance["phase"] == "running" && instance["tasks"]["main"]["pid"] != first
    });
    let second = host.pid();
    host.stop_daemon();
    host.start();
    host.until("it is known again", || {
        host.instance()["phase"] == "running"
    });
    assert_eq!(host.pid(), second);
    assert_eq!(host.instance()["restarts"], 1);
}

fn a_restarted_instance_has_another_process() {
    let host = Host::new(SLEEP);
    let name = host.deploy(&json!({}));
    let before = host.pid();
    let told = host
        .parctl(&["restart", "web", "--reason", "because"])
        .success();
    assert!(told.contains(&name), "{told}");
    wait_for_exit(before);
    host.until("it was started again", || {
        let instance = host.instance();
        instance["phase"] == "running" && instance["tasks"]["main"]["pid"] != before
    });
    let history = host.json(&["history", &name]).to_string();
    assert!(history.contains("because"), "{history}");
}

fn a_stopped_job_stays_deployed_and_starts_again() {
    let host = Host::new(SLEEP);
    host.deploy(&json!({}));
    let before = host.pid();
    host.parctl(&["stop", "web", "--wait"]).success();
    wait_for_exit(before);
    assert_eq!(host.instance()["phase"], "stopped");
    assert_eq!(host.json(&["jobs"])[0]["deployments"][0]["goal"], "stop");
    host.parctl(&["start", "web", "--wait"]).success();
    assert_ne!(host.pid(), before);
}

fn who_uses_a_service_finds_another_one_before_it_is_told_to_end() {
    let host = Host::new("trap 'echo told; exit 0' TERM; while :; do sleep 1000 & wait; done");
    let job = |delay: &str| {
        json!({
            "ports": { "http": {} },
            "registration": [{ "service": "web", "port": "http" }],
            "stop": { "delay": delay, "grace": "1m" },
        })
    };
    let name = host.deploy(&job("1h"));
    let endpoints = || host.json(&["services"])[0]["endpoints"].clone();
    assert_eq!(endpoints()[0]["instance"], name.as_str());
    let pid = host.pid();
    host.parctl(&["stop", "web"]).success();
    host.until("it stops", || host.instance()["phase"] == "stopping");
    // No endpoint any more, and it runs on and knows nothing of it.
    assert_eq!(endpoints(), json!([]));
    assert_eq!(host.pid(), pid);
    assert_eq!(host.parctl(&["logs", &name]).success(), "");
    kill(pid);
    host.until("it has stopped", || host.instance()["phase"] == "stopped");
    host.parctl(&["undeploy", "web", "--wait"]).success();
    let file = host.job("2", &job("100ms"));
    host.parctl(&["create", &file]).success();
    host.parctl(&["deploy", "web:2", "--wait"]).success();
    let name = host.instance()["name"].as_str().unwrap().to_owned();
    host.parctl(&["stop", "web:2", "--wait"]).success();
    assert_eq!(host.parctl(&["logs", &name]).success(), "told\n");
}

fn a_newer_version_takes_the_place_of_the_older_one() {
    let host = Host::new(SLEEP);
    let file = host.job("1", &json!({}));
    host.parctl(&["apply", &file, "--count", "2"]).success();
    let told = host.json(&["apply", &host.job("2", &json!({}))]);
    assert_eq!(
        (told["count"].clone(), told["replaced"][0].is_string()),
        (json!(2), true)
    );
    let status = host.json(&["status"]);
    let versions = status.as_array().unwrap().iter();
    let versions: Vec<_> = versions
        .map(|one| one["name"].as_str().unwrap()[..6].to_owned())
        .collect();
    assert_eq!(versions, ["web.2.", "web.2."]);
    // The same once more changes nothing.
    let pid = host.pid();
    let told = host.json(&["apply", &host.job("2", &json!({})), "--order", "stop-first"]);
    assert_eq!(told["replaced"], json!([]));
    assert_eq!(host.pid(), pid);
}

fn a_version_that_never_runs_leaves_the_older_one() {
    let host = Host::new(SLEEP);
    host.deploy(&json!({}));
    let pid = host.pid();
    let main = json!({ "bundle": host.bundle.path(), "command": ["/bin/nothing"] });
    let file = host.job("2", &json!({ "tasks": { "main": main } }));
    let refused = host.parctl(&["apply", &file, "--timeout", "2s"]).failure();
    assert!(
        refused.contains("the older version was put back"),
        "{refused}"
    );
    host.until("the newer one is gone", || {
        host.json(&["status"]).as_array().unwrap().len() == 1
    });
    assert_eq!(host.pid(), pid);
}

/// Deploys a job that ends so soon; the process of its instance, or None where the host was too slow for it to run at all.
fn deploy_for(host: &Host, length: Duration) -> Option<i32> {
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap();
    let end = parhelion::error::rfc3339(SystemTime::UNIX_EPOCH + now + length);
    let version = length.as_secs().to_string();
    let file = host.job(&version, &json!({ "expires": end }));
    let created = host.parctl(&["create", &file]).0.status.success();
    let name = format!("web:{version}");
    if !created || !host.parctl(&["deploy", &name, "--wait"]).0.status.success() {
        return None;
    }
    let pid = host.instance()["tasks"]["main"]["pid"].as_i64()?;
    pid.try_into().ok()
}

fn an_expired_job_goes_by_itself() {
    let host = Host::new(SLEEP);
    let mut lengths = [4, 20, 100].map(Duration::from_secs).into_iter();
    let pid = lengths.find_map(|length| deploy_for(&host, length));
    let pid = pid.expect("it never ran");
    host.until("it is removed", || host.json(&["jobs"]) == json!([]));
    wait_for_exit(pid);
    host.until("nothing is left", || host.json(&["status"]) == json!([]));
}

fn a_job_with_a_token_obeys_who_knows_it() {
    let host = Host::new(SLEEP);
    let file = host.job("1", &json!({ "token": "secret" }));
    host.parctl(&["create", &file]).success();
    let refused = host.parctl(&["deploy", "web"]).failure();
    assert!(
        refused.contains("token") && refused.contains("PARHELION_TOKEN"),
        "{refused}"
    );
    let refused = host
        .parctl(&["--token", "wrong", "deploy", "web"])
        .failure();
    assert!(refused.contains("another token"), "{refused}");
    host.parctl(&["--token", "secret", "deploy", "web", "--wait"])
        .success();
    host.parctl(&["stop", "web"]).failure();
    host.parctl(&["undeploy", "web"]).failure();
    assert_eq!(host.instance()["phase"], "running");
    assert!(
        !host
            .json(&["inspect", "web"])
            .to_string()
            .contains("secret")
    );
    let mut command = host.parctl_command(&["undeploy", "web", "--wait"]);
    assert!(
        command
            .env("PARHELION_TOKEN", "secret")
            .status()
            .unwrap()
            .success()
    );
}
