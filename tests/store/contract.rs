//! What every backend must do: the tests that [`contract`] makes of it.
//!
//! Each part works below a prefix of its own in a store of its own, or in one that others use as well:
//! revisions are compared with each other, never with numbers.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use libtest_mimic::Trial;
use parhelion::store::{
    Change, Compare, Error, Event, KeyValue, MAX_OPERATIONS, MAX_TXN_BYTES, Operation, Range,
    Revision, Store, Txn, TxnResponse,
};

/// A backend under test.
pub trait Backend {
    /// The store.
    fn store(&self) -> &dyn Store;

    /// Lets a time pass, and what is due then happen.
    fn pass(&self, time: Duration);
}

/// Each part of the contract with its name.
type Part = fn(&dyn Backend);
const PARTS: &[(&str, Part)] = &[
    ("keys have revisions", keys_have_revisions),
    ("a prefix is read in order", a_prefix_is_read_in_order),
    ("a txn is one revision", a_txn_is_one_revision),
    ("each comparison", each_comparison),
    ("nothing to do is no revision", nothing_to_do_is_no_revision),
    ("what no backend takes", what_no_backend_takes),
    ("a watch tells all in order", a_watch_tells_all_in_order),
    ("a watch waits", a_watch_waits),
    ("a compacted watch says so", a_compacted_watch_says_so),
    ("a lease takes its keys along", a_lease_takes_its_keys_along),
    ("a kept lease stays", a_kept_lease_stays),
    ("a revoked lease is gone", a_revoked_lease_is_gone),
    ("counters lose nothing", counters_lose_nothing),
];

/// A test of each part, on a store of its own.
pub fn contract(backend: &str, open: fn() -> Box<dyn Backend>) -> Vec<Trial> {
    let trial = |(name, part): &(&str, Part)| {
        let part = *part;
        Trial::test(format!("{backend}: {name}"), move || {
            part(&*open());
            Ok(())
        })
    };
    PARTS.iter().map(trial).collect()
}

pub fn put(key: &str, value: &str) -> Operation {
    Operation::Put {
        key: key.into(),
        value: value.into(),
        lease: None,
    }
}

pub fn delete(key: &str) -> Operation {
    Operation::Delete { key: key.into() }
}

pub fn committed(store: &dyn Store, compare: Vec<Compare>, then: Vec<Operation>) -> Revision {
    match store.txn(Txn { compare, then }).unwrap() {
        TxnResponse::Committed { revision } => revision,
        failed @ TxnResponse::Failed { .. } => panic!("{failed:?}"),
    }
}

/// Why a transaction was not answered.
pub fn refused(store: &dyn Store, then: Vec<Operation>) -> Error {
    let compare = vec![];
    store.txn(Txn { compare, then }).unwrap_err()
}

fn key(store: &dyn Store, key: &str) -> Option<Arc<KeyValue>> {
    let found = store.get(&Range::Key(key.into())).unwrap();
    assert!(found.keys.len() < 2);
    found.keys.first().cloned()
}

/// What is there already of a watch from a revision.
pub fn watched(store: &dyn Store, prefix: &str, from: Revision) -> Vec<Change> {
    let mut watch = store.watch(prefix.as_bytes(), from).unwrap();
    let mut changes = Vec::new();
    while let Some(change) = watch.try_next().unwrap() {
        changes.push(change);
    }
    changes
}

fn keys_have_revisions(backend: &dyn Backend) {
    let store = backend.store();
    assert_eq!(key(store, "k/a"), None);
    let made = committed(store, vec![], vec![put("k/a", "1")]);
    let changed = committed(store, vec![], vec![put("k/a", "")]);
    assert!(changed > made);
    let pair = key(store, "k/a").unwrap();
    assert_eq!((pair.create_revision, pair.mod_revision), (made, changed));
    assert_eq!(
        (pair.version, &*pair.value, pair.lease),
        (2, &b""[..], None)
    );
    let gone = committed(store, vec![], vec![delete("k/a")]);
    assert!(gone > changed);
    assert_eq!(key(store, "k/a"), None);
    let again = committed(store, vec![], vec![put("k/a", "\0\u{ff}")]);
    let pair = key(store, "k/a").unwrap();
    assert_eq!((pair.create_revision, pair.version), (again, 1));
    assert_eq!(&*pair.value, "\0\u{ff}".as_bytes());
}

fn a_prefix_is_read_in_order(backend: &dyn Backend) {
    let store = backend.store();
    let keys = ["p/b", "p/a", "p", "p/a/x", "p0", "o"];
    let newest = committed(store, vec![], keys.map(|k| put(k, k)).to_vec());
    let found = store.get(&Range::Prefix(b"p/".to_vec())).unwrap();
    let names = found.keys.iter().map(|pair| pair.key.to_vec());
    let expected = ["p/a", "p/a/x", "p/b"].map(|k| k.as_bytes().to_vec());
    assert_eq!(names.collect::<Vec<_>>(), expected);
    assert_eq!(found.revision, newest);
    assert_eq!(store.get(&Range::Prefix(vec![])).unwrap().keys.len(), 6);
    assert_eq!(store.get(&Range::Prefix(vec![0xff])).unwrap().keys, []);
}

fn a_txn_is_one_revision(backend: &dyn Backend) {
    let store = backend.store();
    committed(store, vec![], vec![put("t/b", "1"), put("t/d", "1")]);
    let then = vec![
        put("t/b", "2"),
        delete("t/d"),
        put("t/a", "2"),
        delete("t/none"),
    ];
    let revision = committed(store, vec![], then);
    for name in ["t/a", "t/b"] {
        assert_eq!(key(store, name).unwrap().mod_revision, revision);
    }
    let changes = watched(store, "t/", revision);
    let [change] = changes.as_slice() else {
        panic!("{changes:?}");
    };
    let keys: Vec<_> = change
        .events
        .iter()
        .map(|event| event.key().to_vec())
        .collect();
    assert_eq!(keys, [b"t/b", b"t/d", b"t/a"]);
    assert!(matches!(change.events[1], Event::Delete(_)));
}

fn each_comparison(backend: &dyn Backend) {
    let store = backend.store();
    let made = committed(store, vec![], vec![put("c/a", "1")]);
    let last = committed(store, vec![], vec![put("c/a", "2")]);
    let a = || b"c/a".to_vec();
    let none = || b"c/none".to_vec();
    let hold = [
        Compare::Absent(none()),
        Compare::CreateRevision(a(), made),
        Compare::ModRevision(a(), last),
        Compare::Version(a(), 2),
        Compare::Value(a(), b"2".to_vec()),
    ];
    let fail = [
        Compare::Absent(a()),
        Compare::CreateRevision(a(), last),
        Compare::CreateRevision(none(), made),
        Compare::ModRevision(a(), made),
        Compare::ModRevision(none(), last),
        Compare::Version(a(), 1),
        Compare::Version(none(), 1),
        Compare::Value(a(), b"1".to_vec()),
        Compare::Value(none(), b"".to_vec()),
    ];
    for compare in &hold {
        committed(store, vec![compare.clone()], vec![put("c/x", "x")]);
    }
    committed(store, hold.to_vec(), vec![put("c/x", "all")]);
    let before = store.get(&Range::Prefix(vec![])).unwrap();
    for compare in fail {
        let mut all = hold.to_vec();
        all.push(compare.clone());
        let then = vec![put("c/x", "never"), delete("c/a")];
        match store.txn(Txn { compare: all, then }).unwrap() {
            TxnResponse::Failed { revision, found } => {
                assert_eq!(revision, before.revision);
                let times = if compare.key() == b"c/a" { 5 } else { 4 };
                assert_eq!(found, vec![key(store, "c/a").unwrap(); times]);
            }
            other @ TxnResponse::Committed { .. } => panic!("{compare:?}: {other:?}"),
        }
        assert_eq!(store.get(&Range::Prefix(vec![])).unwrap(), before);
    }
}

fn nothing_to_do_is_no_revision(backend: &dyn Backend) {
    let store = backend.store();
    let newest = committed(store, vec![], vec![put("n/a", "1")]);
    assert_eq!(committed(store, vec![], vec![]), newest);
    assert_eq!(committed(store, vec![], vec![delete("n/none")]), newest);
    assert_eq!(watched(store, "", newest.next()), []);
    // To put what is there already is a change.
    assert!(committed(store, vec![], vec![put("n/a", "1")]) > newest);
}

fn what_no_backend_takes(backend: &dyn Backend) {
    let store = backend.store();
    let before = store.get(&Range::Prefix(vec![])).unwrap();
    let many = |count: usize| (0..count).map(|i| put(&format!("m/{i}"), "")).collect();
    let large = |bytes: usize| vec![put("l", &"v".repeat(bytes - 1))];
    let refused: Vec<Txn> = vec![
        Txn {
            compare: vec![],
            then: vec![put("", "x")],
        },
        Txn {
            compare: vec![Compare::Absent(vec![])],
            then: vec![put("x", "x")],
        },
        Txn {
            compare: vec![],
            then: vec![put("x", "1"), put("x", "2")],
        },
        Txn {
            compare: vec![],
            then: vec![put("x", "1"), delete("x")],
        },
        Txn {
            compare: vec![],
            then: many(MAX_OPERATIONS + 1),
        },
        Txn {
            compare: vec![],
            then: large(MAX_TXN_BYTES + 1),
        },
    ];
    for txn in refused {
        assert!(matches!(store.txn(txn), Err(Error::Invalid(_))));
    }
    assert!(matches!(
        store.get(&Range::Key(vec![])),
        Err(Error::Invalid(_))
    ));
    assert!(matches!(
        store.grant(Duration::ZERO),
        Err(Error::Invalid(_))
    ));
    assert_eq!(store.get(&Range::Prefix(vec![])).unwrap(), before);
    committed(store, vec![], many(MAX_OPERATIONS));
    committed(store, vec![], large(MAX_TXN_BYTES));
    assert_eq!(key(store, "l").unwrap().value.len(), MAX_TXN_BYTES - 1);
}

fn a_watch_tells_all_in_order(backend: &dyn Backend) {
    let store = backend.store();
    let mut revisions = Vec::new();
    for i in 0..20 {
        let (kept, other) = (format!("w/{}", i % 3), format!("x/{i}"));
        let then = match i % 4 {
            3 => vec![delete(&kept), put(&other, "")],
            2 => vec![put(&other, "")],
            _ => vec![put(&kept, &i.to_string()), put(&other, "")],
        };
        revisions.push(committed(store, vec![], then));
    }
    let all = watched(store, "", revisions[0]);
    let told: Vec<_> = all.iter().map(|change| change.revision).collect();
    assert_eq!(told, revisions);
    for from in revisions {
        let rest = |prefix: &'static [u8]| {
            let late = all.iter().filter(move |change| change.revision >= from);
            let late = late.map(|change| super::model::below(change, prefix));
            late.filter(|change| !change.events.is_empty())
                .collect::<Vec<_>>()
        };
        assert_eq!(watched(store, "", from), rest(b""));
        assert_eq!(watched(store, "w/", from), rest(b"w/"));
        assert_eq!(watched(store, "w/1", from), rest(b"w/1"));
    }
}

fn a_watch_waits(backend: &dyn Backend) {
    let store = backend.store();
    let newest = store.get(&Range::Prefix(vec![])).unwrap().revision;
    let later = Revision(newest.0 + 3);
    thread::scope(|scope| {
        let watch = |from| {
            let mut watch = store.watch(b"v/", from).unwrap();
            move || [watch.wait().unwrap(), watch.wait().unwrap()]
        };
        let first = scope.spawn(watch(newest.next()));
        let future = scope.spawn(watch(later));
        let revisions: Vec<_> = (0..4)
            .map(|i| committed(store, vec![], vec![put(&format!("v/{i}"), "")]))
            .collect();
        let told = |changes: [Change; 2]| changes.map(|change| change.revision).to_vec();
        assert_eq!(told(first.join().unwrap()), revisions[..2]);
        assert_eq!(told(future.join().unwrap()), revisions[2..]);
    });
}

fn a_compacted_watch_says_so(backend: &dyn Backend) {
    let store = backend.store();
    let revisions: Vec<_> = (0..6)
        .map(|i| committed(store, vec![], vec![put("g/a", &i.to_string())]))
        .collect();
    let mut slow = store.watch(b"g/", revisions[0]).unwrap();
    assert_eq!(slow.wait().unwrap().revision, revisions[0]);
    let before = store.get(&Range::Prefix(vec![])).unwrap();
    store.compact(revisions[3]).unwrap();
    assert_eq!(store.get(&Range::Prefix(vec![])).unwrap(), before);
    let compacted = |error: Error| {
        let at = |error| matches!(error, Error::Compacted { oldest } if oldest == revisions[3]);
        assert!(at(error));
    };
    compacted(slow.wait().unwrap_err());
    compacted(slow.wait().unwrap_err());
    let mut old = store.watch(b"g/", revisions[2]).unwrap();
    compacted(old.wait().unwrap_err());
    compacted(store.compact(revisions[3]).unwrap_err());
    compacted(store.compact(revisions[1]).unwrap_err());
    let told = watched(store, "g/", revisions[3]);
    let told: Vec<_> = told.iter().map(|change| change.revision).collect();
    assert_eq!(told, revisions[3..]);
    let future = store.compact(revisions[5].next()).unwrap_err();
    assert!(matches!(future, Error::FutureRevision { .. }), "{future}");
    let next = committed(store, vec![], vec![put("g/a", "later")]);
    assert_eq!(key(store, "g/a").unwrap().version, 7);
    store.compact(next).unwrap();
    assert_eq!(watched(store, "g/", next).len(), 1);
}

fn on_lease(name: &str, lease: parhelion::store::LeaseId) -> Operation {
    Operation::Put {
        key: name.into(),
        value: vec![],
        lease: Some(lease),
    }
}

fn a_lease_takes_its_keys_along(backend: &dyn Backend) {
    let store = backend.store();
    let lease = store.grant(Duration::from_secs(2)).unwrap();
    let other = store.grant(Duration::from_secs(3600)).unwrap();
    assert!(lease.ttl >= Duration::from_secs(2) && lease.id != other.id);
    let keys = ["e/b", "e/a", "e/moved", "e/freed", "e/deleted", "e/again"];
    committed(store, vec![], keys.map(|k| on_lease(k, lease.id)).to_vec());
    let then = vec![
        on_lease("e/moved", other.id),
        put("e/freed", ""),
        delete("e/deleted"),
    ];
    committed(store, vec![], then);
    let then = vec![put("e/again", "")];
    committed(store, vec![], then);
    let last = committed(store, vec![], vec![on_lease("e/again", lease.id)]);
    assert_eq!(key(store, "e/a").unwrap().lease, Some(lease.id));
    backend.pass(lease.ttl / 2);
    assert!(key(store, "e/a").is_some());
    backend.pass(lease.ttl);
    let changes = watched(store, "e/", last.next());
    let [change] = changes.as_slice() else {
        panic!("{changes:?}");
    };
    let gone = ["e/a", "e/again", "e/b"].map(|k| Event::Delete(k.as_bytes().into()));
    assert_eq!(change.events, gone);
    let left = store.get(&Range::Prefix(b"e/".to_vec())).unwrap();
    assert_eq!(left.revision, change.revision);
    let left: Vec<_> = left.keys.iter().map(|pair| pair.key.to_vec()).collect();
    assert_eq!(left, [&b"e/freed"[..], &b"e/moved"[..]]);
    let not_found =
        |error: Error| assert!(matches!(error, Error::LeaseNotFound(id) if id == lease.id));
    not_found(store.keep_alive(lease.id).unwrap_err());
    not_found(store.revoke(lease.id).unwrap_err());
    let then = vec![put("e/x", ""), on_lease("e/y", lease.id)];
    not_found(refused(store, then));
    assert_eq!(key(store, "e/x"), None);
}

fn a_kept_lease_stays(backend: &dyn Backend) {
    let store = backend.store();
    let lease = store.grant(Duration::from_secs(3)).unwrap();
    let revision = committed(store, vec![], vec![on_lease("h/a", lease.id)]);
    for _ in 0..4 {
        backend.pass(lease.ttl / 2);
        assert!(store.keep_alive(lease.id).unwrap() >= Duration::from_secs(3));
    }
    let pair = key(store, "h/a").unwrap();
    assert_eq!(pair.mod_revision, revision);
    backend.pass(lease.ttl * 2);
    assert_eq!(key(store, "h/a"), None);
}

fn a_revoked_lease_is_gone(backend: &dyn Backend) {
    let store = backend.store();
    let empty = store.grant(Duration::from_secs(60)).unwrap();
    let before = store.get(&Range::Prefix(vec![])).unwrap().revision;
    assert_eq!(store.revoke(empty.id).unwrap(), before);
    let lease = store.grant(Duration::from_secs(60)).unwrap();
    assert_ne!(lease.id, empty.id);
    let then = vec![on_lease("r/a", lease.id), on_lease("r/b", lease.id)];
    let put = committed(store, vec![], then);
    let revoked = store.revoke(lease.id).unwrap();
    assert!(revoked > put);
    let changes = watched(store, "r/", put.next());
    assert_eq!((changes.len(), changes[0].revision), (1, revoked));
    assert_eq!(changes[0].events.len(), 2);
    assert!(store.keep_alive(lease.id).is_err());
}

/// Compare and set from many threads: each of them counts, and a watch sees every step.
fn counters_lose_nothing(backend: &dyn Backend) {
    const THREADS: u64 = 8;
    const STEPS: u64 = 25;
    let store = backend.store();
    let first = committed(store, vec![], vec![put("n/count", "0")]);
    let count = || {
        for _ in 0..STEPS {
            let mut pair = key(store, "n/count").unwrap();
            loop {
                let value: u64 = String::from_utf8_lossy(&pair.value).parse().unwrap();
                let compare = vec![Compare::ModRevision(pair.key.to_vec(), pair.mod_revision)];
                let then = vec![put("n/count", &(value + 1).to_string())];
                match store.txn(Txn { compare, then }).unwrap() {
                    TxnResponse::Committed { .. } => break,
                    TxnResponse::Failed { found, .. } => pair = Arc::clone(&found[0]),
                }
            }
        }
    };
    thread::scope(|scope| {
        (0..THREADS).for_each(|_| drop(scope.spawn(count)));
        let mut watch = store.watch(b"n/", first).unwrap();
        for expected in 0..=THREADS * STEPS {
            let change = watch.wait().unwrap();
            let [Event::Put(pair)] = change.events.as_slice() else {
                panic!("{change:?}");
            };
            assert_eq!(*pair.value, *expected.to_string().as_bytes());
            assert_eq!(pair.version, expected + 1);
        }
    });
}
