//! Anything is killed at any moment, and at the end all is there, once.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use serde_json::json;

use crate::support::tests;
use crate::victims::{programs, random, try_kill};
use crate::world::{OBEDIENT, World, pids};

pub fn all() -> Vec<Trial> {
    tests![after_a_storm_every_instance_is_there_once]
}

#[allow(clippy::disallowed_methods, reason = "a storm has an end")]
fn after_a_storm_every_instance_is_there_once() {
    // The virtual host is ten times slower.
    let small = std::env::var_os("PARHELION_TEST_ALL").is_some();
    let (count, seconds) = if small { (6, 10) } else { (50, 20) };
    let mut world = World::new(OBEDIENT);
    let quick = json!({ "restart": { "crash": { "base": "10ms", "cap": "1s" }, "image": { "base": "10ms", "cap": "1s" } } });
    let job = world.job("web", quick);
    world.want(&[(job.clone(), count, "start")]);
    world.until_running(count as usize);
    let mut seed = 1;
    let begun = Instant::now();
    let mut killed = [0; 3];
    while begun.elapsed() < Duration::from_secs(seconds) {
        let what = random(&mut seed, 20);
        if what == 0 {
            world.lose_agent();
            std::thread::sleep(Duration::from_millis(random(&mut seed, 200) as u64));
            world.start();
            killed[2] += 1;
        } else if what < 8 {
            let keepers: Vec<i32> = world.keepers().into_values().collect();
            if !keepers.is_empty() {
                killed[1] += usize::from(try_kill(keepers[random(&mut seed, keepers.len())]));
            }
        } else {
            let programs = programs(&world.cgroup());
            if !programs.is_empty() {
                killed[0] += usize::from(try_kill(programs[random(&mut seed, programs.len())]));
            }
        }
        std::thread::sleep(Duration::from_millis(random(&mut seed, 100) as u64));
    }
    println!(
        "killed: {} programs, {} keepers, {} agents",
        killed[0], killed[1], killed[2]
    );
    let calm = Instant::now();
    world.until(|all| {
        all.len() == count as usize
            && all
                .iter()
                .all(|one| one["phase"] == "running" && one["fault"].is_null())
    });
    println!("all were back {:?} after the end", calm.elapsed());
    let known = pids(&world.until_running(count as usize));
    let there: BTreeSet<i32> = programs(&world.cgroup()).into_iter().collect();
    assert_eq!(there, known.into_values().collect());
    assert_eq!(there.len(), count as usize);
    assert_eq!(world.keepers().len(), count as usize);
    assert_eq!(world.containers().len(), count as usize);
}
