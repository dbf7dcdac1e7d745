//! Loss of power at every call to the disk, in every way in which what is not safe may be lost.

use std::sync::Arc;
use std::time::Duration;

use libtest_mimic::Trial;
use parhelion::store::embedded::Embedded;
use parhelion::store::{
    Change, Error, Found, LeaseId, Operation, Range, Result, Revision, Store, Txn,
};

use super::Virtual;
use super::contract::{committed, delete, put, watched};
use super::disk::{Disk, Image, Loss};
use super::model::Model;
use super::support::tests;

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        power_may_go_at_every_call_to_the_disk,
        damage_is_told_with_its_place_and_never_an_older_store,
        a_file_that_is_empty_cut_off_or_gone_is_no_empty_store,
        to_cut_off_what_is_damaged_is_a_way_that_works,
    ]
}

/// What there is to see of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub found: Found,
    pub oldest: Revision,
    pub changes: Vec<Change>,
    pub leases: Vec<LeaseId>,
}

impl Seen {
    pub fn of(store: &dyn Store) -> Seen {
        let found = store.get(&Range::Prefix(vec![])).unwrap();
        let oldest = oldest(store);
        let leases = (1..20).map(LeaseId);
        let leases = leases.filter(|id| store.keep_alive(*id).is_ok()).collect();
        Seen {
            found,
            oldest,
            changes: watched(store, "", oldest),
            leases,
        }
    }
}

/// The oldest revision that can be watched from.
pub fn oldest(store: &dyn Store) -> Revision {
    match store.watch(b"", Revision(0)).unwrap().try_next() {
        Err(Error::Compacted { oldest }) => oldest,
        _ => Revision(0),
    }
}

/// What is done to a store, one after the other.
#[derive(Debug, Clone)]
pub enum Deed {
    Txn(Txn),
    Grant(u64),
    Revoke(u64),
    /// Seconds.
    Pass(u64),
    /// How many revisions before the newest.
    Compact(u64),
}

impl Deed {
    pub fn apply(&self, store: &Embedded, clock: &Virtual) -> Result<()> {
        self.ask(store, |time| {
            clock.pass(time);
            store.expire().map(drop)
        })
    }

    /// To the model, whose clock the store's is.
    pub fn apply_to_model(&self, model: &Model) -> Result<()> {
        self.ask(model, |_| {
            model.expire();
            Ok(())
        })
    }

    fn ask(&self, store: &dyn Store, pass: impl FnOnce(Duration) -> Result<()>) -> Result<()> {
        match self {
            Deed::Txn(txn) => store.txn(txn.clone()).map(drop),
            Deed::Grant(seconds) => store.grant(Duration::from_secs(*seconds)).map(drop),
            Deed::Revoke(id) => store.revoke(LeaseId(*id)).map(drop),
            Deed::Pass(seconds) => pass(Duration::from_secs(*seconds)),
            Deed::Compact(back) => {
                let newest = store.get(&Range::Prefix(vec![]))?.revision;
                store.compact(Revision(newest.0 - back))
            }
        }
    }
}

fn on(key: &str, lease: u64) -> Operation {
    let lease = Some(LeaseId(lease));
    Operation::Put {
        key: key.into(),
        value: b"leased".to_vec(),
        lease,
    }
}

/// A story with everything in it that is written.
pub fn deeds() -> Vec<Deed> {
    let txn = |then| {
        Deed::Txn(Txn {
            compare: vec![],
            then,
        })
    };
    let mut deeds = vec![Deed::Compact(0)];
    for round in 0..3u64 {
        let (lease, other) = (round * 2 + 1, round * 2 + 2);
        deeds.extend([
            txn(vec![put("a", &format!("round {round}"))]),
            txn(vec![
                put("b", &"long ".repeat(80)),
                put("c", "3"),
                delete("a"),
            ]),
            Deed::Grant(2),
            Deed::Grant(3),
            txn(vec![
                on("l/1", lease),
                on("l/2", lease),
                on("l/3", other),
                put("c", ""),
            ]),
            Deed::Pass(1),
            txn(vec![put("a", ""), put("l/2", "freed")]),
            Deed::Pass(4),
            txn(vec![delete("b")]),
            txn(vec![delete("none")]),
        ]);
        deeds.extend((0..4).map(|i| txn(vec![put(&format!("r/{i}"), &"x".repeat(i * 30))])));
        deeds.push(Deed::Compact(round * 3));
    }
    deeds.extend([
        Deed::Grant(60),
        txn(vec![on("m", 7)]),
        Deed::Revoke(7),
        txn(vec![put("z", "")]),
    ]);
    deeds
}

/// A disk on which a story was written, and what was to be seen after how many calls: from the n-th call
/// on everything up to the deed is acknowledged.
pub fn written() -> (Disk, Vec<(usize, Seen)>) {
    let clock = Arc::new(Virtual::default());
    let disk = Disk::empty();
    let store = Embedded::on(disk.medium(), clock.clone()).unwrap();
    let model = Model::new(clock.clone());
    let mut seen = Vec::new();
    for deed in deeds() {
        deed.apply(&store, &clock).unwrap();
        deed.apply_to_model(&model).unwrap();
        seen.push((disk.len(), model.seen()));
    }
    drop(store);
    (disk, seen)
}

/// What may be seen after a crash when so many calls were made: everything acknowledged, and of what was
/// under way nothing or all.
fn allowed(seen: &[(usize, Seen)], calls: usize) -> Vec<&Seen> {
    let done = seen.partition_point(|(at, _)| *at <= calls);
    let range = done.saturating_sub(1)..(done + 1).min(seen.len());
    seen[range].iter().map(|(_, seen)| seen).collect()
}

fn open(image: Image) -> (Disk, Result<Embedded>) {
    let disk = Disk::with(image);
    let store = Embedded::on(disk.medium(), Arc::new(Virtual::default()));
    (disk, store)
}

/// Every way to lose what is not safe after so many calls.
fn losses(disk: &Disk, calls: usize) -> Vec<(usize, Loss)> {
    let (names, last) = disk.unsafe_after(calls);
    let mut losses = vec![Loss::Nothing, Loss::All, Loss::First(1)];
    if last > 0 {
        losses.extend((1..last).map(Loss::After));
        for seed in 1..24u64 {
            let seed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            losses.extend([1, 16, 64].map(|size| Loss::Pieces { size, seed }));
        }
    }
    let each = |names| losses.iter().map(move |loss| (names, *loss));
    (0..=names).flat_map(each).collect()
}

fn power_may_go_at_every_call_to_the_disk() {
    let (disk, seen) = written();
    let (mut cases, mut torn, mut again) = (0, 0, 0);
    for calls in 0..=disk.len() {
        // Before the first deed is acknowledged the store may be empty, or not be there.
        let allowed = match seen.partition_point(|(at, _)| *at <= calls) {
            0 => None,
            _ => Some(allowed(&seen, calls)),
        };
        for (names, loss) in losses(&disk, calls) {
            let what = format!("{calls} calls, {names} names, {loss:?}");
            cases += 1;
            let image = disk.crash(calls, names, loss);
            let (second, store) = open(image);
            let store = store.unwrap_or_else(|error| panic!("{what}: {error}"));
            let Some(allowed) = &allowed else {
                let found = store.get(&Range::Prefix(vec![])).unwrap();
                assert_eq!(
                    (found.revision, found.keys.len()),
                    (Revision(1), 0),
                    "{what}"
                );
                continue;
            };
            torn += usize::from(store.torn().is_some());
            let got = Seen::of(&store);
            assert!(allowed.contains(&&got), "{what}: {got:#?}");
            // Power goes again while the store is opened, and later when it is in use.
            if cases % 50 == 0 {
                let then = vec![put("after", "")];
                let revision = committed(&store, vec![], then);
                for calls in 0..=second.len() {
                    for (names, loss) in losses(&second, calls).into_iter().step_by(11) {
                        let (_, third) = open(second.crash(calls, names, loss));
                        let mut third = Seen::of(&third.unwrap());
                        if third.found.revision == revision {
                            third.changes.pop();
                            third.found.keys.retain(|pair| *pair.key != *b"after");
                            third.found.revision = got.found.revision;
                        } else {
                            assert!(calls < second.len(), "{what}: acknowledged");
                        }
                        assert!(allowed.contains(&&third), "{what}, {calls}: {third:#?}");
                        again += 1;
                    }
                }
            }
        }
    }
    assert!(
        cases > 5000 && torn > 1000 && again > 2000,
        "{cases} {torn} {again}"
    );
    report(&format!(
        "crashes: {cases}, with a torn end {torn}; crashes after crashes: {again}"
    ));
}

/// How many cases were tried; and what a child has done.
pub fn report(text: &str) {
    println!("{text}");
}

fn damage_is_told_with_its_place_and_never_an_older_store() {
    let (disk, seen) = written();
    let image = disk.image(disk.len());
    let last = &seen.last().unwrap().1;
    let bytes = image.files["store"].clone();
    // What closes the file says nothing but that all before it was safe.
    let seal = bytes.len() - 20;
    for at in 0..bytes.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut image = image.clone();
            image.files.get_mut("store").unwrap()[at] ^= flip;
            let (_, store) = open(image);
            match store {
                Ok(store) if at >= seal => assert_eq!(Seen::of(&store), *last),
                Ok(_) => panic!("byte {at} is damaged, and nobody says so"),
                Err(Error::Damaged { file, offset, .. }) => {
                    assert_eq!(file, std::path::Path::new("/disk/store"));
                    assert!(
                        offset as usize <= at && at - (offset as usize) < 1000,
                        "{offset} {at}"
                    );
                }
                Err(other) => panic!("byte {at}: {other}"),
            }
        }
    }
    report(&format!("damaged: {}", bytes.len() * 3));
}

fn a_file_that_is_empty_cut_off_or_gone_is_no_empty_store() {
    let (disk, seen) = written();
    let whole = disk.image(disk.len());
    let bytes = whole.files["store"].clone();
    let mut usable = 0;
    for length in 0..bytes.len() {
        let mut image = whole.clone();
        image.files.get_mut("store").unwrap().truncate(length);
        match open(image).1 {
            Ok(store) => {
                let got = Seen::of(&store);
                assert!(seen.iter().any(|(_, seen)| *seen == got), "{length}");
                usable += 1;
            }
            Err(Error::Damaged { .. }) => {}
            Err(other) => panic!("{length}: {other}"),
        }
    }
    assert!(usable > 100 && usable < bytes.len() - 100, "{usable}");
    let mut image = whole.clone();
    image.files.clear();
    let Err(error) = open(image).1 else {
        panic!("a store whose file is gone was opened");
    };
    assert!(matches!(error, Error::Missing { .. }), "{error}");
    let text = error.to_string();
    assert!(
        text.contains("/disk/store") && text.contains("put a copy back"),
        "{text}"
    );
}

fn to_cut_off_what_is_damaged_is_a_way_that_works() {
    let (disk, seen) = written();
    let mut image = disk.image(disk.len());
    let file = image.files.get_mut("store").unwrap();
    let at = file.len() - 60;
    file[at] ^= 1;
    let Err(
        error @ Error::Damaged {
            offset,
            usable_before: true,
            ..
        },
    ) = open(image.clone()).1
    else {
        panic!("the damage was not seen");
    };
    assert!(
        error
            .to_string()
            .contains(&format!("truncate -s {offset} ")),
        "{error}"
    );
    let file = image.files.get_mut("store").unwrap();
    file.truncate(usize::try_from(offset).unwrap());
    let got = Seen::of(&open(image).1.unwrap());
    assert!(seen.iter().any(|(_, seen)| *seen == got));
}
