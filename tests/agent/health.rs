//! Checks of real containers, and what follows from them.

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::support::tests;
use crate::world::{OBEDIENT, World, name, pid, runs};

pub fn all() -> Vec<Trial> {
    tests![
        a_program_that_hangs_is_restarted_by_its_check,
        an_agent_that_is_killed_makes_nobody_unready,
    ]
}

/// A job that is alive as long as its volume has no file `dead`, and ready as long as it has none of the name `busy`.
fn job(world: &World) -> Value {
    let check = |file: &str| {
        json!({
            "exec": ["/bin/sh", "-c", format!("test ! -e /v/{file}")],
            "interval": "200ms", "failures": 2, "timeout": "30s",
        })
    };
    let mut job = world.job("web", json!({}));
    let task = &mut job["tasks"]["web"];
    task["volumes"] = json!({ "/v": { "instance": "v" } });
    task["health"] = json!({ "readiness": check("busy"), "liveness": check("dead") });
    job
}

fn is_ready(all: &[Value]) -> bool {
    all.len() == 1 && runs(&all[0]) && all[0]["health"] == "ready"
}

fn a_program_that_hangs_is_restarted_by_its_check() {
    let mut world = World::new(OBEDIENT);
    let job = job(&world);
    world.want(&[(job, 1, "start")]);
    let before = world.until(is_ready);
    let volume = world.instances().join(name(&before[0])).join("volumes/v");
    std::fs::write(volume.join("busy"), "").unwrap();
    let busy = world.until(|all| all[0]["health"] == "not-ready");
    assert_eq!(
        pid(&busy[0]),
        pid(&before[0]),
        "who is busy is not restarted"
    );
    std::fs::remove_file(volume.join("busy")).unwrap();
    world.until(is_ready);
    std::fs::write(volume.join("dead"), "").unwrap();
    world.until(|all| all[0]["restarts"] == 1);
    std::fs::remove_file(volume.join("dead")).unwrap();
    let after = world.until(is_ready);
    assert_ne!(pid(&after[0]), pid(&before[0]));
    let ended = world.until_event(|event| event["kind"] == "ended" || event["kind"] == "unhealthy");
    let cause = ended["cause"].as_str().unwrap();
    assert!(
        cause.contains("liveness of web has failed 2 times"),
        "{ended}"
    );
}

fn an_agent_that_is_killed_makes_nobody_unready() {
    let mut world = World::new(OBEDIENT);
    let job = job(&world);
    world.want(&[(job, 1, "start")]);
    let before = world.until(is_ready);
    let memory = world.bundle.folder.join("agent/health.json");
    while !std::fs::read_to_string(&memory)
        .unwrap_or_default()
        .contains("\"ready\"")
    {
        std::thread::yield_now();
    }
    world.lose_agent();
    world.start();
    let after = world.until(|all| {
        let health = &all[0]["health"];
        assert!(health == "unknown" || health == "ready", "{health}");
        runs(&all[0]) && health == "ready"
    });
    assert_eq!(pid(&after[0]), pid(&before[0]));
}
