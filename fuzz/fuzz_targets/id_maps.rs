//! Maps of ids: what is taken is what the kernel takes, by its rules read naively
//! (user_namespaces(7)), and becomes these lines and no others.
//!
//! Input is ranges of three numbers, for users and for groups in turn; a few bytes make a number.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use parhelion::lifecycle::fuzzing::Place;
use serde_json::{Value, json};

thread_local! {
    static PLACE: Place = Place::new();
}

static CONFIG: LazyLock<Value> = LazyLock::new(|| {
    let text = include_str!("../seeds/config/default-rootless.json");
    serde_json::from_str(text).expect("the seed is JSON")
});

/// Container id, host id, size.
type Range = [u64; 3];

fuzz_target!(|data: &[u8]| {
    let mut bytes = data.iter().copied();
    let mut maps: [Vec<Range>; 2] = [Vec::new(), Vec::new()];
    let mut turn = 0;
    while let Some(shape) = bytes.next() {
        let range = [0, 2, 4].map(|shift| number(shape >> shift & 3, &mut bytes));
        maps[turn % 2].push(range);
        turn += 1;
    }
    let mut config = CONFIG.clone();
    for (name, map) in ["uidMappings", "gidMappings"].into_iter().zip(&maps) {
        let list = map.iter().map(|[container, host, size]| {
            json!({ "containerID": container, "hostID": host, "size": size })
        });
        config["linux"][name] = list.collect();
    }
    let config = serde_json::to_vec(&config).expect("it was JSON");
    let planned = PLACE.with(|place| place.plan(&config, 0));
    let sound = maps.iter().all(|map| is_sound(map));
    assert_eq!(planned.is_some(), sound, "{maps:?}");
    if let Some(planned) = planned {
        let found = planned.namespaces.id_maps().map(ToString::to_string);
        let line = |map: &[Range]| {
            let ranges = map
                .iter()
                .map(|[container, host, size]| format!("{container} {host} {size}"));
            ranges.collect::<Vec<_>>().join(", ")
        };
        let expected = format!("uids   {}\ngids   {}\n", line(&maps[0]), line(&maps[1]));
        assert_eq!(found, Some(expected));
    }
});

fn number(kind: u8, bytes: &mut impl Iterator<Item = u8>) -> u64 {
    let mut next = || u64::from(bytes.next().unwrap_or(0));
    match kind {
        0 => next(),
        1 => next() << 8 | next(),
        // At the end of the ids.
        2 => u64::from(u32::MAX).saturating_sub(next()),
        _ => (0..8).fold(0, |number, _| number << 8 | next()),
    }
}

/// What the kernel asks of a map, and that root is mapped, by which the namespace is set up.
fn is_sound(map: &[Range]) -> bool {
    let lines = map
        .iter()
        .map(|[container, host, size]| format!("{container} {host} {size}\n").len());
    let fits = |[container, host, size]: &Range| {
        let end = |first: &u64| u128::from(*first) + u128::from(*size) <= u128::from(u32::MAX);
        *size > 0 && end(container) && end(host)
    };
    let overlap = |a: &Range, b: &Range| {
        (0..2).any(|side| a[side] < b[side] + b[2] && b[side] < a[side] + a[2])
    };
    map.len() <= 340
        && lines.sum::<usize>() < 4096
        && map.iter().all(fits)
        && map.iter().any(|[container, ..]| *container == 0)
        && map
            .iter()
            .enumerate()
            .all(|(i, a)| map[..i].iter().all(|b| !overlap(a, b)))
}
