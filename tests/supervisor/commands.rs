//! Every command of parctl with its options, as people give them; and what each prints with `--json`.

use std::fs;
use std::process::Stdio;

use libtest_mimic::Trial;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::caller::Running;
use crate::host::Host;
use crate::support::tests;

pub fn all() -> Vec<Trial> {
    tests![
        a_job_says_otherwise_what_the_command_line_says,
        a_job_of_helios_is_created_whole,
        a_job_of_helios_runs_as_it_says,
        a_job_of_helios_is_applied,
        every_fault_of_a_job_file_is_told_at_once,
        jobs_are_selected,
        what_is_wanted_is_waited_for_on_the_host_that_is_named,
        who_waits_is_told_why_it_was_in_vain,
        programs_run_in_the_task_directory_and_user_that_are_named,
        the_past_is_told_as_far_as_it_is_asked_for,
        decisions_are_told_where_they_are_asked_for,
        every_command_prints_json,
    ]
}

const SLEEP: &str = "while :; do sleep 1; done";

fn a_job_says_otherwise_what_the_command_line_says() {
    let host = Host::new(SLEEP);
    let file = host.job("1", &json!({ "labels": { "team": "a", "tier": "1" } }));
    let words = [
        "create",
        &file,
        "--name",
        "shop",
        "--job-version",
        "7",
        "--env",
        "A=b=c",
        "-e",
        "main:B=d",
        "--label",
        "team=b",
        "-l",
        "new=",
        "--expires",
        "2030-01-31T13:00:00+01:00",
    ];
    let shown = host.json(&[&["create", "--dry-run"], &words[1..]].concat());
    assert_eq!(host.json(&["jobs"]), json!([]));
    host.parctl(&words).success();
    let kept = host.json(&["inspect", "shop"]);
    let job = &kept["job"];
    assert_eq!(*job, shown);
    assert!(
        kept["id"].as_str().unwrap().starts_with("shop:7:"),
        "{kept}"
    );
    assert_eq!(job["tasks"]["main"]["env"], json!({ "A": "b=c", "B": "d" }));
    assert_eq!(
        job["labels"],
        json!({ "team": "b", "tier": "1", "new": "" })
    );
    assert_eq!(job["expires"], "2030-01-31T12:00:00Z");
    for (more, told) in [
        (["--env", "A"], "write --env NAME=VALUE"),
        (["--env", "other:A=b"], "its tasks are main"),
        (["--label", "A"], "write --label NAME=VALUE"),
        (["--expires", "soon"], "write it in UTC"),
        (["--name", "a/b"], "give other options"),
    ] {
        let refused = host
            .parctl(&[&["create", &file], &more[..]].concat())
            .failure();
        assert!(refused.contains(told), "{more:?}: {refused}");
    }
}

/// A configuration with each field that Helios has; what of it needs controllers is only kept here.
fn of_helios() -> Value {
    json!({
        "id": "site:5:0123456789012345678901234567890123456789",
        "image": "registry.example/site:5",
        "command": ["sh", "-c", "mkdir -p /run/up; echo up > /run/up/now; while :; do sleep 1; done"],
        "env": { "MODE": "production" },
        "hostname": "site-1",
        "networkMode": "host",
        "ports": { "http": { "internalPort": 31080, "externalPort": 31080, "protocol": "tcp" } },
        "registration": { "site/http": { "ports": { "http": {} } } },
        "registrationDomain": "example.org",
        "volumes": { "/spool": "" },
        "ramdisks": { "/run/up": "size=1m,mode=0700" },
        "healthCheck": { "type": "exec", "command": ["/bin/cat", "/run/up/now"] },
        "securityOpt": ["no-new-privileges"],
        "addCapabilities": ["NET_RAW"],
        "dropCapabilities": ["KILL"],
        "secondsToWaitBeforeKill": 0,
        "expires": "2030-01-31T12:00:00Z",
        "token": "secret",
        "labels": { "team": "web" },
        "metadata": { "owner": "somebody" },
        "created": 1_400_000_000_000_i64,
        "creatingUser": "somebody",
        "rolloutOptions": { "parallelism": 2 },
        "runtime": "runc",
    })
}

/// Writes a configuration of Helios; its path.
fn helios_file(host: &Host, config: &Value) -> String {
    let path = host.path("helios_job_config.json");
    fs::write(&path, config.to_string()).unwrap();
    path.to_str().unwrap().to_owned()
}

fn a_job_of_helios_is_created_whole() {
    let host = Host::new(SLEEP);
    let mut config = of_helios();
    config["resources"] = json!({ "memory": 67_108_864, "cpuShares": 512, "cpuset": "0" });
    config["gracePeriod"] = json!(60);
    let file = helios_file(&host, &config);
    let refused = host.parctl(&["create", "--helios", &file]).failure();
    assert!(refused.contains("--bundle"), "{refused}");
    let created = host.parctl(&["create", "--helios", &file, "--bundle", host.bundle.path()]);
    // What became otherwise is told.
    for field in [
        "id: ",
        "resources.memorySwap: ",
        "rolloutOptions: ",
        "runtime: ",
    ] {
        assert!(
            created.stderr().contains(field),
            "{field} {}",
            created.stderr()
        );
    }
    assert!(created.success().starts_with("site:5:"));
    let job = &host.json(&["inspect", "site"])["job"];
    let task = &job["tasks"]["main"];
    assert_eq!(task["bundle"], host.bundle.path());
    assert_eq!(task["resources"]["memorySwap"], "128MiB");
    assert_eq!(job["stop"]["delay"], "1m");
    assert_eq!(job["registration"][0]["domain"], "example.org");
    let of_others = ["id", "image", "created", "creatingUser", "rolloutOptions"];
    for kept in of_others {
        assert!(
            job["metadata"][format!("helios.{kept}")].is_string(),
            "{kept}: {job:#}"
        );
    }
}

fn a_job_of_helios_runs_as_it_says() {
    let host = Host::new(SLEEP);
    let file = helios_file(&host, &of_helios());
    let words = [
        "create",
        "--helios",
        &file,
        "--bundle",
        host.bundle.path(),
        "--name",
        "web",
        "--job-version",
        "9",
    ];
    host.parctl(&words).success();
    host.parctl(&["deploy", "web:9", "--wait", "--token", "secret"])
        .success();
    let instance = host.instance();
    let name = instance["name"].as_str().unwrap();
    assert_eq!(
        (&instance["health"], &instance["ports"]["http"]),
        (&json!("ready"), &json!(31080))
    );
    let script = "echo $MODE; hostname; stat -c %a /run/up; touch /spool/x && echo written; cat /proc/self/status";
    let inside = ["--token", "secret", "exec", name, "sh", "-c", script];
    let told = host.parctl(&inside).success();
    for line in ["production", "site-1", "700", "written", "NoNewPrivs:\t1"] {
        assert!(told.lines().any(|one| one == line), "{line}: {told}");
    }
    let rights = told.lines().find_map(|line| line.strip_prefix("CapBnd:\t"));
    let rights = u64::from_str_radix(rights.unwrap(), 16).unwrap();
    // CAP_KILL and CAP_NET_RAW of capabilities(7).
    assert_eq!((rights >> 5 & 1, rights >> 13 & 1), (0, 1), "{rights:x}");
    let endpoint = &host.json(&["services"])[0]["endpoints"][0];
    assert_eq!(
        (&endpoint["port"], &endpoint["protocol"]),
        (&json!(31080), &json!("http"))
    );
    host.parctl(&["undeploy", "web", "--wait", "--token", "secret"])
        .success();
}

fn a_job_of_helios_is_applied() {
    let host = Host::new(SLEEP);
    let file = helios_file(
        &host,
        &json!({ "id": "old:1", "networkMode": "host", "secondsToWaitBeforeKill": 0 }),
    );
    let words = [
        "apply",
        "--helios",
        &file,
        "--bundle",
        host.bundle.path(),
        "--name",
        "web",
        "--job-version",
        "2",
        "-e",
        "A=b",
        "-l",
        "a=b",
        "--expires",
        "2030-01-31T12:00:00Z",
        "-n",
        "2",
        "--host",
        "here",
        "--order",
        "start-first",
        "--timeout",
        "2m",
    ];
    let applied = host.json(&words);
    assert_eq!(
        (&applied["count"], &applied["host"]),
        (&json!(2), &json!("here"))
    );
    let job = &host.json(&["inspect", "web:2"])["job"];
    assert_eq!(job["tasks"]["main"]["env"], json!({ "A": "b" }));
    assert_eq!(
        (&job["labels"], &job["expires"]),
        (&json!({ "a": "b" }), &json!("2030-01-31T12:00:00Z"))
    );
    let refused = host.parctl(&["apply", &file, "--host", "other"]).failure();
    assert!(refused.contains("missing field `name`"), "{refused}");
}

const TOML: &str = r#"name = "web"
version = 1
[tasks.app]
bundle = "srv"
comand = ["a"]

[tasks.db]
bundle = "/b"
readOnly = "yes"
health.liveness.tcp.port = "sql"
"#;

const JSON: &str = r#"{"name": "web", "version": 1,
"tasks": {"app": {"bundle": "srv", "comand": ["a"]},
          "db": {"bundle": "/b", "readOnly": "yes", "health": {"liveness": {"tcp": {"port": "sql"}}}}}}"#;

/// What is wrong with both: which field, in which line of each, and why.
const FAULTS: [(&str, [usize; 2], &str); 5] = [
    (
        "version",
        [2, 1],
        "invalid type: integer `1`, expected a string: write \"1\"",
    ),
    ("tasks.app.bundle", [4, 2], "must be an absolute path"),
    (
        "tasks.app.comand",
        [5, 2],
        "unknown field `comand`: did you mean `command`?",
    ),
    (
        "tasks.db.readOnly",
        [9, 3],
        "invalid type: string \"yes\", expected a boolean",
    ),
    (
        "tasks.db.health.liveness.tcp.port",
        [10, 3],
        "\"sql\" is none of the job's ports",
    ),
];

/// Where the faults are that were told.
fn places(told: &Value) -> Vec<(&str, u64)> {
    let faults = told["faults"].as_array().unwrap().iter();
    faults
        .map(|fault| {
            (
                fault["path"].as_str().unwrap(),
                fault["line"].as_u64().unwrap(),
            )
        })
        .collect()
}

fn every_fault_of_a_job_file_is_told_at_once() {
    let host = Host::new(SLEEP);
    for (format, (name, text)) in [("job.toml", TOML), ("job.json", JSON)]
        .into_iter()
        .enumerate()
    {
        let path = host.path(name);
        fs::write(&path, text).unwrap();
        let path = path.to_str().unwrap();
        let told = host.parctl(&["create", path]).failure();
        let refused = told.lines().filter(|line| line.starts_with("parctl: "));
        let refused: Vec<&str> = refused.collect();
        assert_eq!(refused.len(), FAULTS.len(), "{told}");
        for ((field, lines, message), refused) in FAULTS.iter().zip(refused) {
            let start = format!("parctl: {path}: line {}, column ", lines[format]);
            assert!(refused.starts_with(&start), "{start}\n{told}");
            let rest = format!(": {field}: {message}");
            assert!(refused.contains(&rest), "{rest}\n{told}");
        }
        let told = host.parctl(&["--json", "apply", path]).failure();
        let told: Value = serde_json::from_str(&told).unwrap();
        assert_eq!(
            places(&told),
            FAULTS.map(|(field, lines, _)| (field, lines[format] as u64))
        );
    }
    // What is sent to the daemon by others is told in the same way.
    let (status, told) = host.ask("POST", "/v1/jobs", JSON);
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(status, 400, "{told:#}");
    assert_eq!(
        places(&told),
        FAULTS.map(|(field, lines, _)| (field, lines[1] as u64))
    );
    assert_eq!(host.json(&["jobs"]), json!([]));
}

fn jobs_are_selected() {
    let host = Host::new(SLEEP);
    for (version, labels) in [
        ("1", json!({ "team": "a" })),
        ("2", json!({ "team": "b" })),
        ("3", json!({})),
    ] {
        host.parctl(&["create", &host.job(version, &json!({ "labels": labels }))])
            .success();
    }
    host.parctl(&["deploy", "web:2", "--wait"]).success();
    let versions = |words: &[&str]| -> Vec<String> {
        let jobs = host.json(words);
        let jobs = jobs.as_array().unwrap().iter();
        jobs.map(|job| job["job"]["version"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(versions(&["jobs"]), ["1", "2", "3"]);
    assert_eq!(versions(&["jobs", "--label", "team"]), ["1", "2"]);
    assert_eq!(versions(&["jobs", "-l", "team=b"]), ["2"]);
    assert_eq!(versions(&["jobs", "--deployed"]), ["2"]);
    assert_eq!(versions(&["jobs", "--undeployed"]), ["1", "3"]);
    assert_eq!(versions(&["jobs", "web:3"]), ["3"]);
    let ids = host
        .parctl(&["jobs", "--quiet", "--label", "team=a"])
        .success();
    assert!(
        ids.starts_with("web:1:") && ids.lines().count() == 1,
        "{ids}"
    );
    let table = host.parctl(&["jobs", "--deployed"]).success();
    assert!(
        table.contains("here x1") && !table.contains("web:3"),
        "{table}"
    );
}

fn what_is_wanted_is_waited_for_on_the_host_that_is_named() {
    let host = Host::new(SLEEP);
    host.parctl(&["create", &host.job("1", &json!({}))])
        .success();
    let words = [
        "deploy",
        "web",
        "--stopped",
        "-n",
        "2",
        "--host",
        "here",
        "--wait",
        "--timeout",
        "2m",
    ];
    host.parctl(&words).success();
    let phases = || {
        let status = host.json(&["status", "web"]);
        let all = status.as_array().unwrap().iter();
        all.map(|one| one["phase"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(phases(), ["stopped", "stopped"]);
    for (words, expected) in [
        (
            [
                "start",
                "web",
                "--host",
                "here",
                "--wait",
                "--timeout",
                "2m",
            ],
            "running",
        ),
        (
            ["stop", "web", "--host", "here", "-w", "--timeout", "2m"],
            "stopped",
        ),
        (
            ["start", "web", "--host", "here", "-w", "--timeout", "2m"],
            "running",
        ),
    ] {
        host.parctl(&words).success();
        assert_eq!(phases(), [expected, expected], "{words:?}");
    }
    host.parctl(&["restart", "web", "--timeout", "2m"])
        .success();
    host.parctl(&["undeploy", "web", "--host", "here", "-w", "--timeout", "2m"])
        .success();
    assert_eq!(host.json(&["status"]), json!([]));
    host.parctl(&["remove", "web:1", "--undeploy"]).success();
}

fn who_waits_is_told_why_it_was_in_vain() {
    let host = Host::new(SLEEP);
    host.deploy(&json!({}));
    for verb in ["start", "stop", "undeploy"] {
        let refused = host.parctl(&[verb, "web", "--host", "other"]).failure();
        assert!(
            refused.contains("other") && refused.contains("here"),
            "{refused}"
        );
    }
    // It ends, but not so soon.
    let never = json!({ "command": ["/bin/nothing"], "bundle": host.bundle.path() });
    let file = host.job("2", &json!({ "tasks": { "main": never } }));
    host.parctl(&["create", &file]).success();
    let late = host
        .parctl(&["deploy", "web:2", "-w", "--timeout", "500ms"])
        .failure();
    assert!(
        late.contains("not ready after 500ms") && late.contains("--timeout"),
        "{late}"
    );
}

fn programs_run_in_the_task_directory_and_user_that_are_named() {
    let host = Host::new(SLEEP);
    let task = |text: &str| {
        let script = format!("echo {text}; {SLEEP}");
        json!({ "bundle": host.bundle.path(), "command": ["sh", "-c", script], "env": { "OWN": text } })
    };
    host.deploy(&json!({ "tasks": { "one": task("first"), "two": task("second") } }));
    let script = "echo $OWN $A; pwd; id -u; id -g";
    let words = [
        "exec",
        "--task",
        "two",
        "--cwd",
        "/tmp",
        "--user",
        "1000:1001",
        "--env",
        "A=b",
        "web",
        "sh",
        "-c",
        script,
    ];
    assert_eq!(
        host.parctl(&words).success(),
        "second b\n/tmp\n1000\n1001\n"
    );
    let refused = host.parctl(&["exec", "web", "true"]).failure();
    assert!(
        refused.contains("one") && refused.contains("two"),
        "{refused}"
    );
    host.until("both have printed", || {
        let of = |task: &str| host.parctl(&["logs", "web", "--task", task]).success();
        (of("one"), of("two")) == ("first\n".to_owned(), "second\n".to_owned())
    });
}

fn the_past_is_told_as_far_as_it_is_asked_for() {
    let host = Host::new(SLEEP);
    host.deploy(&json!({}));
    host.parctl(&["create", &host.job("2", &json!({})), "--name", "other"])
        .success();
    let all = host.json(&["history", "web"]);
    let all = all.as_array().unwrap();
    assert!(all.len() > 3, "{all:#?}");
    let last = host.json(&["history", "web", "--limit", "2"]);
    assert_eq!(last.as_array().unwrap()[..], all[all.len() - 2..]);
    let lines = |words: &[&str]| -> Vec<Value> {
        let told = host.parctl(&[&["--json"], words].concat()).success();
        let lines = told.lines();
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    };
    let everything = lines(&["events"]);
    let number = all[1]["number"].to_string();
    let from = lines(&["events", "--from", &number]);
    assert_eq!(from[..], everything[everything.len() - from.len()..]);
    assert_eq!(from[0]["number"], all[1]["number"]);
    let of_other = lines(&["events", "--job", "other"]);
    let kinds: Vec<&Value> = of_other.iter().map(|event| &event["kind"]).collect();
    assert_eq!(kinds, ["created"]);
}

fn decisions_are_told_where_they_are_asked_for() {
    let mut host = Host::without_daemon(SLEEP);
    let mut command = host.command();
    // A network for documentation (RFC 5737); nothing of it is made without a job that needs it.
    command.args([
        "--debug",
        "--bridge",
        "phtest0",
        "--subnet",
        "198.51.100.0/24",
    ]);
    host.start_as(&mut command);
    host.deploy(&json!({}));
    host.parctl(&["undeploy", "web", "--wait"]).success();
    let told = host.stop_daemon();
    assert!(told.contains("debug: ready at "), "{told}");
}

/// What a command prints with `--json`.
#[derive(Clone, Copy, PartialEq)]
enum Prints {
    /// One document.
    Document,
    /// A document a line.
    Lines,
    /// The same, without an end.
    Stream,
    /// What a program inside prints: only refusals are JSON.
    Nothing,
}

/// The words with which a command is tried; one that is new has to be added.
fn attempt<'a>(verb: &str, created: &'a str, applied: &'a str) -> (Vec<&'a str>, Prints) {
    match verb {
        "create" => (vec!["create", created], Prints::Document),
        "apply" => (vec!["apply", applied], Prints::Document),
        "deploy" => (vec!["deploy", "web:3", "--wait"], Prints::Document),
        "undeploy" => (vec!["undeploy", "web:3", "--wait"], Prints::Document),
        "start" => (vec!["start", "web:1", "--wait"], Prints::Document),
        "stop" => (vec!["stop", "web:1", "--wait"], Prints::Document),
        "restart" => (vec!["restart", "web"], Prints::Lines),
        "status" => (vec!["status"], Prints::Document),
        "jobs" => (vec!["jobs"], Prints::Document),
        "hosts" => (vec!["hosts"], Prints::Document),
        "history" => (vec!["history", "web"], Prints::Document),
        "logs" => (vec!["logs", "web"], Prints::Lines),
        "exec" => (vec!["exec", "web", "echo", "plain"], Prints::Nothing),
        "inspect" => (vec!["inspect", "web:1"], Prints::Document),
        "watch" => (vec!["watch"], Prints::Stream),
        "top" => (vec!["top"], Prints::Nothing),
        "events" => (vec!["events"], Prints::Lines),
        "remove" => (vec!["remove", "web:2"], Prints::Lines),
        "services" => (vec!["services"], Prints::Document),
        "store" => (vec!["store", "show"], Prints::Document),
        "schema" => (vec!["schema"], Prints::Document),
        "version" => (vec!["version"], Prints::Document),
        other => panic!("nobody knows what parctl --json {other} prints"),
    }
}

fn every_command_prints_json() {
    let host = Host::new("echo up; while :; do sleep 1; done");
    let more =
        json!({ "ports": { "http": {} }, "registration": [{ "service": "web", "port": "http" }] });
    let files = ["1", "2", "3"].map(|version| host.job(version, &more));
    host.parctl(&["create", &files[0]]).success();
    let client = parhelion::client::command();
    let mut tried = 0;
    for verb in client.get_subcommands() {
        // As it is for each: one version runs, and has printed.
        host.parctl(&["deploy", "web:1", "--wait"]).success();
        let (words, prints) = attempt(verb.get_name(), &files[1], &files[2]);
        let words = [&["--json"], &words[..]].concat();
        tried += 1;
        match prints {
            Prints::Stream => {
                let mut command = host.parctl_command(&words);
                let stream = Running::spawn(&mut command, Stdio::null());
                serde_json::from_str::<Value>(&stream.line()).unwrap();
                stream.signal(Signal::INT);
            }
            Prints::Nothing => {}
            Prints::Document | Prints::Lines => {
                let ran = host.parctl(&words);
                let told = ran.success();
                let read = |text: &str| {
                    let read = serde_json::from_str::<Value>(text);
                    read.unwrap_or_else(|error| panic!("{words:?}: {error}: {told}"));
                };
                match prints {
                    Prints::Document => read(&told),
                    Prints::Lines | Prints::Stream | Prints::Nothing => {
                        told.lines().for_each(read);
                    }
                }
                assert!(!told.is_empty(), "{words:?}");
                assert_eq!(ran.stderr(), "", "{words:?}");
            }
        }
        // And what is refused, also where a program's output is no JSON.
        let socket = host.path("nowhere");
        let mut command = crate::host::parctl_at(&socket, &words);
        let refused = command.stdin(Stdio::null()).output().unwrap();
        if verb.get_name() != "schema" {
            let told: Value = serde_json::from_slice(&refused.stderr)
                .unwrap_or_else(|error| panic!("{words:?}: {error}: {refused:?}"));
            assert!(
                told["error"].is_string() && told["hint"].is_string(),
                "{told}"
            );
        }
    }
    assert!(tried > 20, "the definitions are elsewhere");
}
