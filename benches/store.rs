//! How fast the embedded store is on this disk: transactions, watches, opening and compaction.
//!
//! `cargo bench --locked --features supervisor --bench store`; the store is below the target folder.

#![allow(clippy::disallowed_methods, reason = "time is measured")]
#![allow(clippy::print_stdout, reason = "figures are what it is for")]
#![allow(clippy::unwrap_used, reason = "without the store there is no figure")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use parhelion::store::embedded::Embedded;
use parhelion::store::{Clock, Operation, Revision, Store, Txn, TxnResponse};

fn main() {
    for (callers, each) in [(1, 500), (8, 200), (64, 100)] {
        println!("{callers} callers: {:.0} txn/s", rate(callers, each));
    }
    watch_latency();
    opening();
}

/// No lease is granted here.
struct Stopped;

impl Clock for Stopped {
    fn now(&self) -> Duration {
        Duration::ZERO
    }
}

/// The directory of a store that begins empty.
fn place() -> PathBuf {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench-store");
    if place.exists() {
        fs::remove_dir_all(&place).unwrap();
    }
    place
}

fn open(place: &Path) -> Embedded {
    Embedded::open(place, Arc::new(Stopped)).unwrap()
}

fn put(key: &str, bytes: usize) -> Operation {
    Operation::Put {
        key: key.into(),
        value: vec![b'v'; bytes],
        lease: None,
    }
}

fn commit(store: &Embedded, then: Vec<Operation>) {
    let compare = vec![];
    let response = store.txn(Txn { compare, then }).unwrap();
    assert!(matches!(response, TxnResponse::Committed { .. }));
}

/// Transactions of one key of 200 bytes in a second, from so many callers.
fn rate(callers: u64, each: u64) -> f64 {
    let store = open(&place());
    let begin = Instant::now();
    thread::scope(|scope| {
        for caller in 0..callers {
            let store = &store;
            scope.spawn(move || {
                let key = format!("jobs/{caller}");
                for _ in 0..each {
                    commit(store, vec![put(&key, 200)]);
                }
            });
        }
    });
    (callers * each) as f64 / begin.elapsed().as_secs_f64()
}

/// From the answer to who has written to the return of who waits.
fn watch_latency() {
    let store = open(&place());
    let mut watch = store.watch(b"", Revision(1)).unwrap();
    let (told, times) = channel();
    let mut all = Vec::new();
    thread::scope(|scope| {
        scope.spawn(move || {
            for _ in 0..300 {
                watch.wait().unwrap();
                told.send(Instant::now()).unwrap();
            }
        });
        for _ in 0..300 {
            commit(&store, vec![put("a", 1)]);
            let acknowledged = Instant::now();
            let told = times.recv().unwrap();
            all.push(told.saturating_duration_since(acknowledged));
        }
    });
    all.sort();
    let (median, p99) = (all[150], all[297]);
    println!("acknowledged to watched: p50 {median:?}, p99 {p99:?}");
}

fn opening() {
    let before = resident_kib();
    let place = place();
    let store = open(&place);
    for hundred in 0..100 {
        let key = |i| format!("jobs/{:05}", hundred * 100 + i);
        commit(&store, (0..100).map(|i| put(&key(i), 1000)).collect());
    }
    drop(store);
    let size = fs::metadata(place.join("store")).unwrap().len();
    let begin = Instant::now();
    let store = open(&place);
    let time = begin.elapsed();
    let memory = resident_kib().saturating_sub(before);
    println!("10,000 keys of 1,000 bytes, {size} bytes: open in {time:?}, {memory} KiB more");
    let begin = Instant::now();
    store.compact(Revision(101)).unwrap();
    println!("compaction: {:?}", begin.elapsed());
    drop(store);
    fs::remove_dir_all(&place).unwrap();
}

fn resident_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let mut lines = status.lines();
    let line = lines.find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.unwrap().split_whitespace().next();
    number.unwrap().parse().unwrap()
}
