//! Random requests, to the embedded store and to the model: the same answers, keys and watches.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use libtest_mimic::Trial;
use parhelion::store::embedded::Embedded;
use parhelion::store::{
    Change, Compare, Error, LeaseId, Operation, Range, Revision, Store, Txn, TxnResponse,
};
use proptest::collection::vec;
use proptest::prelude::*;

use super::model::{Model, below};
use super::support::tests;
use super::{Scratch, Virtual};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        the_embedded_store_does_what_the_model_does,
        one_order_explains_what_threads_were_answered,
    ]
}

/// One step of a story.
#[derive(Debug, Clone)]
pub enum Step {
    Txn(Txn),
    Grant(u64),
    KeepAlive(u64),
    Revoke(u64),
    /// Milliseconds.
    Pass(u64),
    /// How many revisions behind the newest; a negative one is in the future.
    Compact(i8),
    Reopen,
}

const KEYS: [&str; 5] = ["a", "a/x", "a/y", "b", "b/z"];

fn key() -> impl Strategy<Value = Vec<u8>> {
    prop::sample::select(KEYS.to_vec()).prop_map(|key| key.as_bytes().to_vec())
}

fn compare() -> impl Strategy<Value = Compare> {
    (key(), 0..5u8, 1..12u64).prop_map(|(key, kind, number)| match kind {
        0 => Compare::Absent(key),
        1 => Compare::CreateRevision(key, Revision(number)),
        2 => Compare::ModRevision(key, Revision(number)),
        3 => Compare::Version(key, number % 4),
        _ => Compare::Value(key, vec![b'v'; number as usize % 3]),
    })
}

fn operation() -> impl Strategy<Value = Operation> {
    let lease = prop::option::weighted(0.4, 1..6u64).prop_map(|id| id.map(LeaseId));
    let put = (key(), 0..3usize, lease).prop_map(|(key, length, lease)| Operation::Put {
        key,
        value: vec![b'v'; length],
        lease,
    });
    prop_oneof![3 => put, 1 => key().prop_map(|key| Operation::Delete { key })]
}

/// A transaction, most of which hold.
pub fn txn() -> impl Strategy<Value = Txn> {
    (vec(compare(), 0..2), vec(operation(), 0..4)).prop_map(|(compare, then)| Txn { compare, then })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => txn().prop_map(Step::Txn),
        2 => (0..4000u64).prop_map(Step::Grant),
        1 => (1..6u64).prop_map(Step::KeepAlive),
        1 => (1..6u64).prop_map(Step::Revoke),
        2 => (0..3000u64).prop_map(Step::Pass),
        1 => (-1..8i8).prop_map(Step::Compact),
        1 => Just(Step::Reopen),
    ]
}

/// An answer to compare: values as they are, an error by its words.
fn answer<T: std::fmt::Debug>(answer: Result<T, Error>) -> String {
    match answer {
        Ok(value) => format!("{value:?}"),
        Err(Error::Invalid(_)) => "invalid".to_owned(),
        Err(error) => error.to_string(),
    }
}

/// What a watch tells now, and how it ends.
fn told(store: &dyn Store, prefix: &[u8], from: Revision) -> (Vec<Change>, String) {
    let mut watch = store.watch(prefix, from).unwrap();
    let mut changes = Vec::new();
    loop {
        match watch.try_next() {
            Ok(Some(change)) => changes.push(change),
            end => return (changes, answer(end)),
        }
    }
}

/// Whether two stores look alike: all keys, and the watches from every revision.
pub fn assert_alike(store: &dyn Store, model: &Model) {
    let all = |store: &dyn Store| store.get(&Range::Prefix(vec![])).unwrap();
    let newest = all(model).revision;
    assert_eq!(all(store), all(model));
    for prefix in ["a", "a/", "b/z"].map(str::as_bytes) {
        let range = Range::Prefix(prefix.to_vec());
        assert_eq!(store.get(&range).unwrap(), model.get(&range).unwrap());
    }
    for from in 0..=newest.0 + 1 {
        for prefix in ["", "a", "b/"].map(str::as_bytes) {
            let from = Revision(from);
            let expected = told(model, prefix, from);
            assert_eq!(told(store, prefix, from), expected);
            // The model's watch, against the plainest words for what a watch is.
            if from >= model.oldest() {
                let late = model.changes().into_iter().filter(|c| c.revision >= from);
                let seen = late.map(|change| below(&change, prefix));
                let seen: Vec<_> = seen.filter(|change| !change.events.is_empty()).collect();
                assert_eq!(expected.0, seen);
            }
        }
    }
}

/// The same request to both, whose answers are to be the same.
fn request(store: &dyn Store, step: &Step) -> String {
    let newest = || store.get(&Range::Prefix(vec![])).unwrap().revision;
    match step {
        Step::Txn(txn) => answer(store.txn(txn.clone())),
        Step::Grant(ttl) => answer(store.grant(Duration::from_millis(*ttl))),
        Step::KeepAlive(id) => answer(store.keep_alive(LeaseId(*id))),
        Step::Revoke(id) => answer(store.revoke(LeaseId(*id))),
        Step::Compact(back) => {
            let revision = newest().0.saturating_add_signed(-i64::from(*back));
            answer(store.compact(Revision(revision)))
        }
        Step::Pass(_) | Step::Reopen => String::new(),
    }
}

fn story(steps: &[Step]) {
    let scratch = Scratch::new("random");
    let clock = Arc::new(Virtual::default());
    let open = || Embedded::open(&scratch.store(), clock.clone()).unwrap();
    let mut store = Some(open());
    let model = Model::new(clock.clone());
    for step in steps {
        let opened = store.as_ref().unwrap();
        let (ours, expected) = (request(opened, step), request(&model, step));
        assert_eq!(ours, expected, "{step:?}");
        match step {
            Step::Pass(time) => {
                clock.pass(Duration::from_millis(*time));
                opened.expire().unwrap();
                model.expire();
            }
            Step::Reopen => {
                drop(store.take());
                store = Some(open());
                model.reopen();
            }
            Step::Txn(_)
            | Step::Grant(_)
            | Step::KeepAlive(_)
            | Step::Revoke(_)
            | Step::Compact(_) => {}
        }
        assert_alike(store.as_ref().unwrap(), &model);
    }
}

fn the_embedded_store_does_what_the_model_does() {
    let config = ProptestConfig {
        cases: 64,
        ..ProptestConfig::default()
    };
    proptest!(config, |(steps in vec(step(), 1..40))| story(&steps));
}

/// Requests of many threads at once, and what each was answered.
///
/// The model, given the same transactions in the order of the revisions that were answered, has to give
/// the same answers: then one order explains them all. Failed ones are placed by the revision that they
/// saw. A caller's own transactions are in its own order, as each begins after the last has ended.
fn one_order_explains_what_threads_were_answered() {
    let scratch = Scratch::new("threads");
    let clock = Arc::new(Virtual::default());
    let store = Embedded::open(&scratch.store(), clock.clone()).unwrap();
    let seen: Mutex<BTreeMap<_, (Txn, TxnResponse)>> = Mutex::default();
    thread::scope(|scope| {
        for thread in 0..8u64 {
            let (store, seen) = (&store, &seen);
            scope.spawn(move || {
                let mut last = 0;
                for i in 0..100 {
                    let txn = some_txn(thread * 1000 + i);
                    let response = store.txn(txn.clone()).unwrap();
                    let (revision, kind) = match &response {
                        TxnResponse::Committed { revision } => (revision.0, 0),
                        TxnResponse::Failed { revision, .. } => (revision.0, 1),
                    };
                    assert!(revision >= last, "a thread went back in time");
                    last = revision;
                    let place = (revision, kind, thread * 1000 + i);
                    seen.lock().unwrap().insert(place, (txn, response));
                }
            });
        }
    });
    let model = Model::new(clock);
    let seen = seen.into_inner().unwrap();
    assert_eq!(seen.len(), 800);
    let failed = seen
        .values()
        .filter(|(_, r)| matches!(r, TxnResponse::Failed { .. }));
    assert!((50..750).contains(&failed.count()), "both kinds are tried");
    for (txn, response) in seen.into_values() {
        assert_eq!(model.txn(txn).unwrap(), response);
    }
    assert_alike(&store, &model);
}

/// A transaction that always changes something, if it holds.
fn some_txn(seed: u64) -> Txn {
    let key = |n: u64| KEYS[usize::try_from(n % 5).unwrap()].as_bytes().to_vec();
    let mixed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    let value = format!("v{}", mixed % 3).into_bytes();
    let compare = match mixed % 3 {
        0 => vec![],
        1 => vec![Compare::Value(key(mixed / 3), value.clone())],
        _ => vec![Compare::Version(key(mixed / 3), mixed % 20)],
    };
    let then = vec![Operation::Put {
        key: key(mixed / 7),
        value,
        lease: None,
    }];
    Txn { compare, then }
}
