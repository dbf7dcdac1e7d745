//! Properties of jobs: each has one identity, however it is written, and any text is taken or refused.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::any::any_job;
use super::*;

/// A value as TOML.
fn toml(job: &Job) -> String {
    ::toml::to_string(job).unwrap()
}

/// The same JSON with the members of every object in the other order.
fn reversed(value: &Value) -> String {
    match value {
        Value::Object(object) => {
            let members = object.iter().rev();
            let members: Vec<String> = members
                .map(|(key, value)| format!("{}:{}", Value::from(key.as_str()), reversed(value)))
                .collect();
            format!("{{{}}}", members.join(","))
        }
        Value::Array(list) => {
            let list: Vec<String> = list.iter().map(reversed).collect();
            format!("[{}]", list.join(","))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.to_string(),
    }
}

proptest! {
    #[test]
    fn a_job_is_the_same_by_way_of_json_and_of_toml(job in any_job()) {
        job.check().unwrap();
        let json = serde_json::to_string(&job).unwrap();
        prop_assert_eq!(&parse(&json, Format::Json).unwrap(), &job);
        prop_assert_eq!(&parse(&toml(&job), Format::Toml).unwrap(), &job);
        let value = serde_json::to_value(&job).unwrap();
        let turned = parse(&reversed(&value), Format::Json).unwrap();
        prop_assert_eq!(turned.id(), job.id());
        let id: JobId = job.id().to_string().parse().unwrap();
        prop_assert_eq!(id, job.id());
    }

    /// Two wrong values are two faults, wherever they are, and nothing that follows from them is told.
    #[test]
    fn wrong_values_are_told_together_and_nothing_that_follows(
        job in any_job(), first in any::<prop::sample::Index>(), second in any::<prop::sample::Index>()
    ) {
        let value = serde_json::to_value(&job).unwrap();
        let mut places = Vec::new();
        pointers(&value, String::new(), &mut places);
        let (first, second) = (&places[first.index(places.len())], &places[second.index(places.len())]);
        let faults = |wrong: &[&String]| {
            let mut value = value.clone();
            for place in wrong {
                let value = value.pointer_mut(place).unwrap();
                *value = if value.is_boolean() { json!("x") } else { json!(true) };
            }
            let refusal = parse(&value.to_string(), Format::Json).err();
            let faults = refusal.iter().flat_map(Refusal::faults);
            faults.map(ToString::to_string).collect::<Vec<_>>()
        };
        let (one, other) = (faults(&[first]), faults(&[second]));
        prop_assert!(one.len() <= 1, "{}: {:#?}", first, one);
        let inside = |a: &str, b: &str| (format!("{a}/")).starts_with(&format!("{b}/"));
        if !inside(first, second) && !inside(second, first) {
            let both = faults(&[first, second]);
            prop_assert_eq!(both.len(), one.len() + other.len(), "{} {}: {:#?}", first, second, both);
        }
    }

    #[test]
    fn any_text_is_taken_or_refused(text in "\\PC{0,200}") {
        let _ = parse(&text, Format::Json);
        let _ = parse(&text, Format::Toml);
    }

    #[test]
    fn a_damaged_job_is_taken_or_refused_with_places_in_it(
        job in any_job(), at in any::<prop::sample::Index>(), new in any::<char>()
    ) {
        for (format, text) in [
            (Format::Json, serde_json::to_string_pretty(&job).unwrap()),
            (Format::Toml, toml(&job)),
        ] {
            let mut letters: Vec<char> = text.chars().collect();
            let at = at.index(letters.len());
            letters[at] = new;
            let text: String = letters.into_iter().collect();
            if let Err(refusal) = parse(&text, format) {
                prop_assert!(refusal.faults().count() > 0);
                for fault in refusal.faults() {
                    prop_assert!(fault.line <= text.matches('\n').count() + 1, "{}", fault);
                }
            }
        }
    }
}

/// The place of each value inside of a value (RFC 6901), but for those of a profile, of which more than one thing is told.
fn pointers(value: &Value, at: String, to: &mut Vec<String>) {
    if at.ends_with("/seccomp") {
        return;
    }
    let inner: Vec<(String, &Value)> = match value {
        Value::Object(members) => members
            .iter()
            .map(|(name, value)| (name.clone(), value))
            .collect(),
        Value::Array(all) => all
            .iter()
            .enumerate()
            .map(|(i, value)| (i.to_string(), value))
            .collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    };
    for (name, value) in inner {
        let name = name.replace('~', "~0").replace('/', "~1");
        pointers(value, format!("{at}/{name}"), to);
    }
    if !at.is_empty() {
        to.push(at);
    }
}

/// Of a job, what people may write in two ways: with every default, and without any.
#[test]
fn defaults_that_are_written_out_change_no_identity() {
    let short = json!({
        "name": "web", "version": "1",
        "ports": { "http": {} },
        "registration": [{ "service": "web", "port": "http" }],
        "tasks": { "app": {
            "bundle": "/srv/web", "tmpfs": { "/tmp": {} },
            "volumes": { "/data": { "name": "data" } },
            "health": {
                "startup": { "exec": ["up"] }, "readiness": { "http": { "port": "http" } },
                "liveness": { "tcp": { "port": "http" } }
            }
        } }
    });
    let curve =
        |base: &str, cap: &str| json!({ "base": base, "cap": cap, "factor": 2, "jitter": 0.2 });
    let check = json!({ "interval": "10s", "timeout": "5000ms", "failures": 3, "successes": 1 });
    let with = |probe: Value, check: &Value| {
        let mut check = check.clone();
        check
            .as_object_mut()
            .unwrap()
            .extend(probe.as_object().unwrap().clone());
        check
    };
    let http = json!({ "http": { "port": "http", "path": "/", "host": null, "status": [] } });
    let long = json!({
        "token": null, "expires": null, "metadata": {}, "labels": {},
        "log": { "whenFull": "wait", "maxFiles": 5, "maxSize": "10240KiB" },
        "stop": { "grace": "0m10s", "signal": 15 },
        "restart": {
            "policy": "always", "successCodes": [0], "goodRun": "10s",
            "crash": curve("0.2s", "60s"), "unhealthy": curve("1s", "300s"), "image": curve("1s", "5m"),
        },
        "network": "host", "addHosts": {}, "dns": null, "hostname": null, "share": [],
        "ports": { "http": { "external": null, "protocol": "tcp", "address": null } },
        "registration": [{
            "service": "web", "port": "http", "protocol": "http", "tags": [], "domain": null
        }],
        "tasks": { "app": {
            "command": null, "env": {}, "user": null, "groups": null, "workingDirectory": null,
            "readOnly": null, "capabilities": { "add": [], "drop": [] }, "noNewPrivileges": null,
            "seccomp": null, "apparmor": null, "selinux": null,
            "resources": { "memory": null, "memorySwap": null, "pids": null,
                "cpu": { "cores": null, "shares": null, "cpuset": null },
                "io": { "weight": null, "devices": {} } },
            "volumes": { "/data": { "name": "data", "host": null, "instance": null, "readOnly": false } },
            "tmpfs": { "/tmp": { "size": null, "mode": null, "options": [] } },
            "health": {
                "startup": with(json!({ "exec": ["up"], "interval": "1s", "failures": 300 }), &check),
                "readiness": with(http, &check),
                "liveness": with(json!({ "tcp": { "port": "http" } }), &check)
            },
            "bundle": "/srv/web"
        } },
        "version": "1", "name": "web"
    });
    let read = |value: &Value| parse(&value.to_string(), Format::Json).unwrap();
    assert_eq!(read(&short), read(&long));
    assert_eq!(read(&short).id(), read(&long).id());
}

/// Jobs are stored under their identities: it must never change.
#[test]
fn identities_are_those_of_the_first_release() {
    let short = "name = 'web'\nversion = '1'\n[tasks.app]\nbundle = '/srv/web'\n";
    let job = parse(short, Format::Toml).unwrap();
    assert_eq!(
        serde_json::to_string(&job).unwrap(),
        r#"{"name":"web","version":"1","tasks":{"app":{"bundle":"/srv/web"}}}"#
    );
    assert_eq!(
        job.id().digest,
        "cdb9093adcace263ea78331a55fec9f348081494c3f3f151ee56cef56a3f6182"
    );
    let rich = render::tests::rich();
    assert_eq!(
        rich.id().digest,
        "b4541c2fb8acf28680139513f9a220179db6569d5f63f54a53b31fdb706df873"
    );
}

/// Each example of the manual is a job that keeps the rules.
#[test]
fn the_examples_of_the_manual_are_jobs() {
    let pages = [
        (include_str!("../../docs/jobs.md"), 3),
        (include_str!("../../docs/health.md"), 1),
        (include_str!("../../docs/network.md"), 1),
    ];
    for (page, least) in pages {
        let examples: Vec<&str> = page.split("```toml\n").skip(1).collect();
        assert!(examples.len() >= least, "{page}");
        for example in examples {
            let text = example.split("```").next().unwrap();
            let read = parse(text, Format::Toml);
            assert!(read.is_ok(), "{}\n{text}", read.unwrap_err());
        }
    }
    // Every field has its word there.
    let page = pages[0].0;
    let schema = schema();
    let mut objects = vec![&schema];
    objects.extend(schema["$defs"].as_object().unwrap().values());
    for object in objects {
        let Some(fields) = object["properties"].as_object() else {
            continue;
        };
        for field in fields.keys() {
            assert!(
                page.contains(&format!("`{field}`")),
                "{field} is not in docs/jobs.md"
            );
        }
    }
}

#[test]
fn ports_say_what_their_network_can_carry_out() {
    let refused = |network: &str, port: Value, share: Value| {
        let job = json!({
            "name": "web", "version": "1", "network": network, "ports": { "http": port }, "share": share,
            "tasks": { "a": { "bundle": "/srv/web" }, "b": { "bundle": "/srv/web" } },
        });
        let read = parse(&job.to_string(), Format::Json);
        read.err()
            .map(|error| error.to_string())
            .unwrap_or_default()
    };
    let none = json!([]);
    let mapped = json!({ "port": 8080, "external": 80, "address": "127.0.0.1" });
    assert_eq!(refused("bridge", mapped.clone(), none.clone()), "");
    for (network, port, share, told) in [
        (
            "host",
            mapped.clone(),
            none.clone(),
            "listens at the host's port itself",
        ),
        (
            "none",
            mapped,
            none.clone(),
            "the job's network is \"none\"",
        ),
        (
            "bridge",
            json!({ "port": 0 }),
            none.clone(),
            "from 1 to 65535",
        ),
        (
            "bridge",
            json!({ "address": "::1" }),
            none,
            "must be an IPv4 address",
        ),
        (
            "bridge",
            json!({}),
            json!(["network"]),
            "every task has that of its instance",
        ),
    ] {
        let error = refused(network, port, share);
        assert!(error.contains(told), "{network}: {error}");
    }
}
