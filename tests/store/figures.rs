//! How fast the embedded store is on this disk: looked at, not asserted.
//!
//! `cargo test --release --locked --features supervisor --test store figures -- --ignored --nocapture`

#![allow(clippy::disallowed_methods, reason = "time is measured")]

use std::fs;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Instant;

use parhelion::store::embedded::Embedded;
use parhelion::store::{Operation, Revision, Store, Txn};

use super::contract::{committed, put};
use super::crash::report;
use super::{Scratch, Virtual};

fn open(scratch: &Scratch) -> Embedded {
    Embedded::open(&scratch.store(), Arc::new(Virtual::default())).unwrap()
}

/// Transactions of one key of 200 bytes in a second, from so many callers.
fn rate(callers: u64, each: u64) -> f64 {
    let scratch = Scratch::new("rate");
    let store = open(&scratch);
    let begin = Instant::now();
    thread::scope(|scope| {
        for caller in 0..callers {
            let store = &store;
            scope.spawn(move || {
                let key = format!("jobs/{caller}");
                for _ in 0..each {
                    committed(store, vec![], vec![put(&key, &"v".repeat(200))]);
                }
            });
        }
    });
    (callers * each) as f64 / begin.elapsed().as_secs_f64()
}

fn resident_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
#[ignore = "figures: nothing can fail"]
fn rates() {
    for (callers, each) in [(1, 500), (8, 200), (64, 100)] {
        report(&format!(
            "{callers} callers: {:.0} txn/s",
            rate(callers, each)
        ));
    }
}

#[test]
#[ignore = "figures: nothing can fail"]
fn watch_latency() {
    let scratch = Scratch::new("latency");
    let store = open(&scratch);
    let mut watch = store.watch(b"", Revision(1)).unwrap();
    let (told, times) = channel();
    let mut all = Vec::new();
    thread::scope(|scope| {
        scope.spawn(move || {
            (0..300).for_each(|_| {
                watch.wait().unwrap();
                told.send(Instant::now()).unwrap();
            })
        });
        for _ in 0..300 {
            committed(&store, vec![], vec![put("a", "1")]);
            let acknowledged = Instant::now();
            all.push(
                times
                    .recv()
                    .unwrap()
                    .saturating_duration_since(acknowledged),
            );
        }
    });
    all.sort();
    report(&format!(
        "acknowledged to watched: p50 {:?}, p99 {:?}",
        all[150], all[297]
    ));
}

#[test]
#[ignore = "figures: nothing can fail"]
fn opening() {
    let before = resident_kib();
    let scratch = Scratch::new("opening");
    let store = open(&scratch);
    for hundred in 0..100 {
        let key = |i| format!("jobs/{:05}", hundred * 100 + i).into_bytes();
        let put = |i| Operation::Put {
            key: key(i),
            value: vec![b'v'; 1000],
            lease: None,
        };
        let then = (0..100).map(put).collect();
        store
            .txn(Txn {
                compare: vec![],
                then,
            })
            .unwrap();
    }
    drop(store);
    let size = fs::metadata(scratch.store().join("store")).unwrap().len();
    let begin = Instant::now();
    let store = open(&scratch);
    let time = begin.elapsed();
    let memory = resident_kib().saturating_sub(before);
    report(&format!(
        "10,000 keys of 1,000 bytes, {size} bytes: open in {time:?}, {memory} KiB more"
    ));
    let begin = Instant::now();
    store.compact(Revision(101)).unwrap();
    report(&format!("compaction: {:?}", begin.elapsed()));
}
