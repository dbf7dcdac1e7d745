//! The handlers over a store and a fake agent: what they refuse, what they keep, what reaches the agent.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::testing::{World, instance, job};
use super::{expiry, routes, wanted};
use crate::agent::Origin;
use crate::api::{self, Event};

#[tokio::test]
async fn a_job_is_created_once_and_found_by_parts_of_its_id() {
    let world = World::new();
    let none = json!({});
    let id = world.job("1", &none).await;
    let (status, told) = world.send("POST", "/v1/jobs", &job("1", &none)).await;
    assert_eq!(status, 409);
    assert_eq!(told["candidates"][0], id.to_string());
    let other = world.job("1", &json!({ "hostname": "other" })).await;
    let (status, told) = world.get("/v1/jobs/web:1").await;
    assert_eq!(status, 409, "{told}");
    assert_eq!(told["candidates"].as_array().unwrap().len(), 2);
    let path = format!("/v1/jobs/web:1:{:.9}", other.digest);
    let (status, told) = world.get(&path).await;
    assert_eq!(
        (status.as_u16(), told["job"]["hostname"].clone()),
        (200, json!("other"))
    );
    let (_, all) = world.get("/v1/jobs?name=web&deployed=false").await;
    assert_eq!(all.as_array().unwrap().len(), 2);
    let (_, none) = world.get("/v1/jobs?name=we").await;
    assert_eq!(none, json!([]));
    let path = "/v1/jobs?id=web:1:0";
    let (status, told) = world.send("POST", path, &job("3", &json!({}))).await;
    assert_eq!(status, 400, "{told}");
}

#[tokio::test]
async fn every_error_is_json_with_what_to_do_next() {
    let world = World::new();
    let wrong = job("1", &json!({ "comand": ["x"] }));
    let version = [(api::VERSION_HEADER, "99.0.0")];
    for (told, expected) in [
        (world.send("POST", "/v1/jobs", &wrong).await, 400),
        (world.get("/v1/jobs/none").await, 404),
        (world.get("/v1/jobs?nam=x").await, 400),
        (world.get("/nowhere").await, 404),
        (world.send("PUT", "/v1/jobs", &Value::Null).await, 405),
        (world.get("/v1/instances/none").await, 404),
        (
            world
                .send("POST", "/v1/instances/none/exec", &json!({}))
                .await,
            426,
        ),
        (
            world
                .send("PUT", "/v1/hosts/other/jobs/web", &json!({}))
                .await,
            404,
        ),
        (
            world
                .send("PUT", "/v1/hosts/here/jobs/web", &json!({ "count": 0 }))
                .await,
            400,
        ),
        (
            world
                .send("PUT", "/v1/hosts/here/jobs/web", &json!({ "cuont": 1 }))
                .await,
            422,
        ),
        (
            world
                .send_with("GET", "/v1/version", &Value::Null, &version)
                .await,
            400,
        ),
        (
            world
                .send("POST", "/v1/jobs", &json!("x".repeat(600 << 10)))
                .await,
            413,
        ),
    ] {
        let (status, told) = told;
        assert_eq!(status, expected, "{told}");
        for field in ["error", "hint"] {
            let text = told[field].as_str();
            assert!(text.is_some_and(|text| !text.is_empty()), "{told}");
        }
    }
}

#[tokio::test]
async fn a_deployed_job_is_not_removed_and_an_undeployed_one_is() {
    let world = World::new();
    world.job("1", &json!({})).await;
    let deploy = json!({ "count": 2 });
    let (status, told) = world.send("PUT", "/v1/hosts/here/jobs/web", &deploy).await;
    assert_eq!(status, 201, "{told}");
    let (status, _) = world.send("PUT", "/v1/hosts/here/jobs/web", &deploy).await;
    assert_eq!(status, 200);
    let (status, told) = world.send("DELETE", "/v1/jobs/web", &Value::Null).await;
    assert_eq!(status, 409, "{told}");
    let stop = json!({ "goal": "stop" });
    let (_, told) = world.send("PATCH", "/v1/hosts/here/jobs/web", &stop).await;
    assert_eq!(
        (told["goal"].clone(), told["count"].clone()),
        (json!("stop"), json!(2))
    );
    let (_, all) = world.get("/v1/deployments").await;
    assert_eq!(all, json!([told]));
    let (status, _) = world
        .send("DELETE", "/v1/hosts/here/jobs/web", &Value::Null)
        .await;
    assert_eq!(status, 200);
    let (status, _) = world
        .send("DELETE", "/v1/hosts/here/jobs/web", &Value::Null)
        .await;
    assert_eq!(status, 404);
    let (status, _) = world.send("DELETE", "/v1/jobs/web", &Value::Null).await;
    assert_eq!(status, 200);
    let (_, all) = world.get("/v1/jobs").await;
    assert_eq!(all, json!([]));
}

#[tokio::test]
async fn a_job_with_a_token_is_moved_by_who_knows_it() {
    let world = World::new();
    world.job("1", &json!({ "token": "secret" })).await;
    let path = "/v1/hosts/here/jobs/web";
    let right = [(api::TOKEN_HEADER, "secret")];
    for (method, body) in [
        ("PUT", json!({})),
        ("PATCH", json!({ "goal": "stop" })),
        ("DELETE", Value::Null),
    ] {
        for wrong in [&[][..], &[(api::TOKEN_HEADER, "secreT")]] {
            let (status, told) = world.send_with(method, path, &body, wrong).await;
            assert_eq!(status, 403, "{told}");
        }
        let (status, told) = world.send_with(method, path, &body, &right).await;
        assert!(status.is_success(), "{told}");
        if method == "DELETE" {
            return;
        }
        let (_, told) = world.get("/v1/jobs/web").await;
        assert!(!told.to_string().contains("secret\""), "{told}");
    }
}

#[tokio::test]
async fn an_instance_of_a_job_with_a_token_is_restarted_and_entered_by_who_knows_it() {
    let world = World::new();
    let id = world.job("1", &json!({ "token": "secret" })).await;
    let name = instance(&id).name;
    world.show(vec![instance(&id)]);
    let path = format!("/v1/instances/{name}/restart");
    let right = [(api::TOKEN_HEADER, "secret")];
    for wrong in [&[][..], &[(api::TOKEN_HEADER, "secreT")]] {
        let (status, told) = world.send_with("POST", &path, &Value::Null, wrong).await;
        assert_eq!(status, 403, "{told}");
    }
    assert!(world.agent.restarted.lock().unwrap().is_empty());
    let (status, told) = world.send_with("POST", &path, &Value::Null, &right).await;
    assert_eq!(status, 200, "{told}");
}

#[tokio::test]
async fn what_is_wanted_reaches_the_agent_with_every_change() {
    let world = World::new();
    let follow = tokio::spawn(wanted::follow(Arc::clone(&world.control)));
    let mut wanted = world.agent.wanted.subscribe();
    let id = world.job("1", &json!({})).await;
    world
        .send("PUT", "/v1/hosts/here/jobs/web", &json!({ "count": 3 }))
        .await;
    let is = |count: Option<u32>| {
        let id = id.clone();
        move |wanted: &Option<crate::agent::Wanted>| {
            let Some(wanted) = wanted else { return false };
            let jobs = wanted.jobs.iter().map(|job| (job.job.id(), job.count));
            jobs.eq(count.map(|count| (id.clone(), count)))
        }
    };
    wanted.wait_for(is(Some(3))).await.unwrap();
    world
        .send("PATCH", "/v1/hosts/here/jobs/web", &json!({ "count": 1 }))
        .await;
    let first = wanted.wait_for(is(Some(1))).await.unwrap().clone();
    world
        .send("DELETE", "/v1/hosts/here/jobs/web", &Value::Null)
        .await;
    let last = wanted.wait_for(is(None)).await.unwrap().clone();
    assert!(last.unwrap().revision > first.unwrap().revision);
    follow.abort();
}

#[tokio::test]
async fn what_can_not_be_read_in_the_store_ends_no_instance() {
    use crate::store::{Operation, Txn};
    let world = World::new();
    let id = world.job("1", &json!({})).await;
    world
        .send("PUT", "/v1/hosts/here/jobs/web", &json!({}))
        .await;
    let key = super::keys::deployment("here", &id);
    let (value, lease) = (b"{}".to_vec(), None);
    let then = vec![Operation::Put { key, value, lease }];
    let txn = Txn {
        compare: vec![],
        then,
    };
    world.control.store.txn(txn).unwrap();
    let follow = tokio::spawn(wanted::follow(Arc::clone(&world.control)));
    while world.control.health.fault().is_none() {
        tokio::task::yield_now().await;
    }
    assert!(world.agent.wanted.borrow().is_none());
    let (status, _) = world.get("/healthz").await;
    assert_eq!(status, 500);
    follow.abort();
}

#[tokio::test]
async fn an_expired_job_is_undeployed_and_removed() {
    let world = World::new();
    let expires = json!({ "expires": "2030-01-01T00:00:00Z" });
    world.job("1", &expires).await;
    world.job("2", &json!({})).await;
    world
        .send("PUT", "/v1/hosts/here/jobs/web:1", &json!({}))
        .await;
    let end = SystemTime::UNIX_EPOCH + Duration::from_secs(1_893_456_000);
    let before = end - Duration::from_secs(7);
    let next = world.control.expire(before).await.unwrap();
    assert_eq!(next, Duration::from_secs(7));
    world.control.expire(end).await.unwrap();
    let (_, jobs) = world.get("/v1/jobs").await;
    assert_eq!(jobs.as_array().unwrap().len(), 1);
    assert_eq!(jobs[0]["job"]["version"], "2");
    let (_, deployments) = world.get("/v1/deployments").await;
    assert_eq!(deployments, json!([]));
    // Seen by the timer as well.
    world
        .job("3", &json!({ "expires": "2001-01-01T00:00:00Z" }))
        .await;
    let follow = tokio::spawn(expiry::follow(Arc::clone(&world.control)));
    while world.get("/v1/jobs").await.1.as_array().unwrap().len() > 1 {
        tokio::task::yield_now().await;
    }
    // Likewise one that is made while the timer waits for later ones.
    world
        .job("4", &json!({ "expires": "2001-01-01T00:00:00Z" }))
        .await;
    let gone = async {
        while world.get("/v1/jobs").await.1.as_array().unwrap().len() > 1 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone)
        .await
        .unwrap();
    follow.abort();
}

#[tokio::test]
async fn services_are_those_of_ready_instances() {
    let world = World::new();
    let said = json!({
        "ports": { "http": {} },
        "registration": [{ "service": "shop", "port": "http" }],
    });
    let id = world.job("1", &said).await;
    let mut one = instance(&id);
    world.show(vec![one.clone()]);
    let (_, told) = world.get("/v1/services").await;
    assert_eq!(told[0]["name"], "shop");
    assert_eq!(told[0]["endpoints"][0]["port"], 20_000);
    one.health = api::Health::NotReady;
    world.show(vec![one]);
    let (_, told) = world.get("/v1/services").await;
    assert_eq!(told, json!([{ "name": "shop", "endpoints": [] }]));
}

#[tokio::test]
async fn history_is_that_of_the_job_or_instance_with_causes() {
    let world = World::new();
    let id = world.job("1", &json!({})).await;
    let event = |number, job: bool, instance: Option<&str>| Event {
        number,
        time: "2030-01-01T00:00:00Z".to_owned(),
        host: "here".to_owned(),
        job: job.then(|| id.clone()),
        instance: instance.map(str::to_owned),
        kind: "ended".to_owned(),
        cause: "code 1".to_owned(),
    };
    *world.agent.events.lock().unwrap() = vec![
        event(1, true, Some("a")),
        event(2, false, None),
        event(3, true, Some("b")),
    ];
    let numbers = |told: Value| {
        let told = told.as_array().unwrap().clone();
        told.iter()
            .map(|one| one["number"].as_u64().unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(numbers(world.get("/v1/jobs/web/history").await.1), [1, 3]);
    assert_eq!(
        numbers(world.get("/v1/jobs/web/history?limit=1").await.1),
        [3]
    );
    assert_eq!(numbers(world.get("/v1/instances/b/history").await.1), [3]);
    assert_eq!(
        numbers(world.get("/v1/jobs/other/history").await.1),
        [] as [u64; 0]
    );
    let (_, text) = world.get("/v1/events?from=2").await;
    let lines: Vec<_> = text.as_str().unwrap().lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), 2);
}

#[tokio::test]
async fn the_history_has_the_whole_life_of_a_job() {
    let world = World::new();
    let expires = json!({ "expires": "2030-01-01T00:00:00Z" });
    world.job("1", &expires).await;
    let path = "/v1/hosts/here/jobs/web:1";
    for (method, body) in [
        ("PUT", json!({})),
        // The same once more is nothing new.
        ("PUT", json!({})),
        ("PATCH", json!({ "goal": "start" })),
        ("PUT", json!({ "count": 3 })),
        ("PATCH", json!({ "goal": "stop" })),
        ("DELETE", Value::Null),
        ("PUT", json!({})),
    ] {
        let (status, told) = world.send(method, path, &body).await;
        assert!(status.is_success(), "{told}");
    }
    let end = SystemTime::UNIX_EPOCH + Duration::from_secs(1_893_456_000);
    world.control.expire(end).await.unwrap();
    world.job("1", &json!({})).await;
    world.send("DELETE", "/v1/jobs/web", &Value::Null).await;
    let (_, told) = world.get("/v1/jobs/web:1/history").await;
    let told = told.as_array().unwrap().iter();
    let told: Vec<String> = told
        .map(|one| format!("{}: {}", one["kind"], one["cause"]).replace('"', ""))
        .collect();
    // Over a socket it is the kernel who says by whom.
    let by = "by nobody knows whom";
    assert_eq!(
        told,
        [
            format!("created: {by}"),
            format!("deployed: goal start, count 1 on here, {by}"),
            format!("changed: goal start, count 3 on here, and was goal start, count 1, {by}"),
            format!("changed: goal stop, count 3 on here, and was goal start, count 3, {by}"),
            format!("undeployed: on here, it was goal stop, count 3, {by}"),
            format!("deployed: goal start, count 1 on here, {by}"),
            "undeployed: on here, it was goal start, count 1, as its end was 2030-01-01T00:00:00Z"
                .to_owned(),
            "expired: it is removed, as its end was 2030-01-01T00:00:00Z".to_owned(),
            format!("created: {by}"),
            format!("removed: {by}"),
        ]
    );
}

#[tokio::test]
async fn a_watch_tells_all_and_then_what_changes_and_ends_with_the_daemon() {
    let world = World::new();
    let id = world.job("1", &json!({})).await;
    world.show(vec![instance(&id)]);
    let mut other = instance(&id);
    other.name = "z".to_owned();
    let show = async {
        while world.agent.snapshots.receiver_count() == 0 {
            tokio::task::yield_now().await;
        }
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        world.show(vec![other.clone()]);
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        world.stop.send(true).unwrap();
    };
    let (told, ()) = tokio::join!(world.get("/v1/watch?job=web"), show);
    let text = told.1.as_str().unwrap().to_owned();
    let kinds: Vec<String> = text
        .lines()
        .map(|line| {
            serde_json::from_str::<Value>(line).unwrap()["kind"]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    assert_eq!(kinds, ["snapshot", "removed", "changed"], "{text}");
}

#[tokio::test]
async fn a_watch_begins_when_what_was_wanted_before_has_reached_the_agent() {
    let world = World::new();
    world.job("1", &json!({})).await;
    // The store has a revision that the agent knows nothing of yet.
    let early = async {
        while world.agent.snapshots.receiver_count() == 0 {
            tokio::task::yield_now().await;
        }
        world.stop.send(true).unwrap();
    };
    let (told, ()) = tokio::join!(world.get("/v1/watch"), early);
    assert_eq!(told.1, "");
    // One that can not be reached is told as it is.
    let world = World::new();
    world.job("1", &json!({})).await;
    world.control.health.set(Some(wanted::Failure {
        refused: false,
        why: "the disk is full".to_owned(),
    }));
    let late = async {
        while world.agent.snapshots.receiver_count() == 0 {
            tokio::task::yield_now().await;
        }
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        world.stop.send(true).unwrap();
    };
    let (told, ()) = tokio::join!(world.get("/v1/watch"), late);
    assert_eq!(told.1["kind"], "snapshot");
}

#[tokio::test]
async fn a_log_is_followed_across_the_rotation_of_its_files() {
    let world = World::new();
    let id = world.job("1", &json!({})).await;
    let name = instance(&id).name;
    world.show(vec![instance(&id)]);
    let log = world.folder.join("log");
    let line = |text: &str| format!("T stdout F {text}\n");
    std::fs::write(&log, line("zero") + &line("one")).unwrap();
    let path = format!("/v1/instances/{name}/logs?follow=true&tail=1&stream=stdout");
    let write = async {
        let wait = || tokio::time::sleep(Duration::from_millis(50));
        wait().await;
        std::fs::write(&log, line("zero") + &line("one") + &line("two")).unwrap();
        wait().await;
        for text in ["three", "four"] {
            std::fs::rename(log.with_extension("1"), log.with_extension("2")).unwrap_or_default();
            std::fs::rename(&log, log.with_extension("1")).unwrap();
            std::fs::write(&log, line(text)).unwrap();
        }
        wait().await;
        world.stop.send(true).unwrap();
    };
    let (told, ()) = tokio::join!(world.get(&path), write);
    assert_eq!(told.1, "one\ntwo\nthree\nfour\n");
}

#[tokio::test]
async fn another_store_is_not_followed_before_somebody_says_that_it_is_the_truth() {
    let world = World::new();
    let id = world.job("1", &json!({})).await;
    let other = Origin {
        store: Some("f".repeat(32)),
        revision: 1,
    };
    *world.agent.followed.lock().unwrap() = Some(other);
    let following = tokio::spawn(wanted::follow(Arc::clone(&world.control)));
    world.control.health.fails().await;
    let (status, told) = world.get("/healthz").await;
    assert_eq!(status, 503);
    let (error, hint) = (
        told["error"].as_str().unwrap(),
        told["hint"].as_str().unwrap(),
    );
    assert!(error.contains("is from store ffffffff"), "{error}");
    assert!(hint.contains("parctl store accept"), "{hint}");
    let (_, text) = world.get("/metrics").await;
    let text = text.as_str().unwrap();
    assert!(
        text.contains("parhelion_fault{of=\"identity\"} 1\n"),
        "{text}"
    );
    assert!(text.contains("parhelion_agent_reached 0\n"), "{text}");
    assert!(world.agent.wanted.borrow().is_none());
    let (_, hosts) = world.get("/v1/hosts").await;
    let name = hosts[0]["store"].as_str().unwrap().to_owned();
    assert_eq!(name.len(), 32);
    for wrong in ["ffffffff", &name[..7], ""] {
        let accept = json!({ "store": wrong });
        let (status, told) = world.send("POST", "/v1/hosts/here/accept", &accept).await;
        assert_eq!(status, 409, "{told}");
        assert!(
            told["hint"].as_str().unwrap().contains(&name[..12]),
            "{told}"
        );
    }
    let deploy = format!("/v1/hosts/here/jobs/{id}");
    world.send("PUT", &deploy, &json!({})).await;
    let accept = json!({ "store": name[..8] });
    let (status, host) = world.send("POST", "/v1/hosts/here/accept", &accept).await;
    assert_eq!(
        (status.as_u16(), &host["fault"]),
        (200, &Value::Null),
        "{host}"
    );
    assert_eq!(world.agent.wanted.borrow().as_ref().unwrap().jobs.len(), 1);
    // And from then on without a word.
    world.send("DELETE", &deploy, &Value::Null).await;
    let mut wanted = world.agent.wanted.subscribe();
    let nothing = wanted.wait_for(|wanted| wanted.as_ref().is_some_and(|one| one.jobs.is_empty()));
    nothing.await.unwrap();
    following.abort();
}

#[tokio::test]
async fn a_store_that_was_put_back_stays_refused_however_much_is_changed_in_it() {
    let world = World::new();
    let following = tokio::spawn(wanted::follow(Arc::clone(&world.control)));
    let mut wanted = world.agent.wanted.subscribe();
    wanted.wait_for(Option::is_some).await.unwrap();
    following.abort();
    let (_, hosts) = world.get("/v1/hosts").await;
    let first = hosts[0]["store"].as_str().unwrap().to_owned();
    // The agent knows more of this store than it does itself.
    let ahead = Origin {
        store: Some(first.clone()),
        revision: 5,
    };
    *world.agent.followed.lock().unwrap() = Some(ahead);
    let following = tokio::spawn(wanted::follow(Arc::clone(&world.control)));
    world.control.health.fails().await;
    for version in 0..10 {
        world.job(&version.to_string(), &json!({})).await;
    }
    world.control.accepted.notify_one();
    let renamed = async {
        loop {
            let (_, hosts) = world.get("/v1/hosts").await;
            let fault = hosts[0]["fault"].as_str().unwrap_or_default().to_owned();
            if hosts[0]["store"] != first.as_str() && fault.contains("this is store") {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), renamed)
        .await
        .unwrap();
    assert_eq!(wanted.borrow().as_ref().unwrap().jobs, []);
    following.abort();
}

#[tokio::test]
async fn metrics_count_what_there_is() {
    let world = World::new();
    let id = world.job("1", &json!({})).await;
    world
        .send("PUT", "/v1/hosts/here/jobs/web", &json!({ "count": 2 }))
        .await;
    let mut one = instance(&id);
    one.restarts = 3;
    world.show(vec![one]);
    let (status, text) = world.get("/metrics").await;
    let text = text.as_str().unwrap();
    assert_eq!(status, 200);
    for line in [
        "parhelion_instances{job=\"web\",version=\"1\",phase=\"running\",health=\"unknown\"} 1",
        "parhelion_instance_restarts_total{job=\"web\",version=\"1\"} 3",
        "parhelion_instances_wanted{job=\"web\",version=\"1\"} 2",
        "parhelion_agent_reached 1",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
}

#[test]
fn the_document_of_the_api_is_the_published_one() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/openapi.json");
    let text = routes::open_api().unwrap();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, &text).unwrap();
    }
    let published = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        text == published,
        "UPDATE=1 cargo test writes docs/openapi.json anew"
    );
}
